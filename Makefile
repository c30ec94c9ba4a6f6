# One line a target; PYTHON may name another interpreter.
PYTHON ?= python3
BIN := .venv/bin
RELIABILITY = OMP_NUM_THREADS=1 $(BIN)/python reliability/run.py --jobs 2 --out results/reliability.json
PYTEST ?= -n 2 --dist loadscope

.PHONY: demo test check bench reliability reliability-full clean

demo: .venv/demo        ## install and run the whole path on handwritten digits
	$(BIN)/resfit demo

test: check             ## ruff, mypy and pytest
	$(BIN)/python -m pytest $(PYTEST)

check: .venv/dev        ## ruff and mypy
	$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy

bench: .venv/dev        ## the quick benchmarks, one JSON object each
	for script in cost_rate start_up; do $(BIN)/python benchmarks/$$script.py || exit; done

reliability: .venv/dev  ## a tenth of the proof that a run is never lost; needs strace
	$(RELIABILITY) --share 0.1

reliability-full: .venv/dev ## all of it; goes on where the last visit ended
	$(RELIABILITY) --share 1

.venv/bin/python:
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/demo: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install -q -c constraints.txt -e '.[digits]' && touch $@

.venv/dev: .venv/demo
	$(BIN)/pip install -q -c constraints.txt -e '.[digits,dev]' && touch $@

clean:                  ## remove what can be made again
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
