"""Run an airbench script trial by trial for gpu_speed.py: a line on stdin starts one, a line of JSON on stdout answers.

    python benchmarks/peer_airbench.py SCRIPT [--epochs N]      in a folder with cifar10/train.pt and cifar10/test.pt

The script runs as it is: its own set-up (the compiling under `if __name__ == "__main__"`) once, then the call of `main` that
stands in its list of trials, once a trial. Seconds and accuracies are those that it prints. `--epochs` is for a machine without
CUDA: one name here stands for each of CUDA's, and airbench94_muon takes so many epochs, of batches of 100; times then mean
nothing.
"""

import argparse
import ast
import json
import sys
import time
import types
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", type=Path)
    parser.add_argument("--epochs", type=int)
    a = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr  # what the script prints goes beside
    code = a.script.read_text()
    if a.epochs is not None:
        from airbench import without_cuda

        without_cuda()
        code = code.replace("ceil(8 *", f"ceil({a.epochs} *").replace("batch_size = 2000", "batch_size = 100")
        code = code.replace("X = G.bfloat16()", "X = G.clone()")
    sys.argv = [str(a.script)]
    set_up, trial = parts(code, str(a.script))
    module = types.ModuleType("airbench")
    started = time.perf_counter()
    exec(set_up[0], module.__dict__)
    last: dict[str, Any] = {}
    shown = module.__dict__["print_training_details"]

    def note(variables: dict[str, Any], is_final_entry: bool) -> None:
        last.update(variables)
        shown(variables, is_final_entry=is_final_entry)

    module.__dict__["print_training_details"] = note
    exec(set_up[1], module.__dict__)
    print(json.dumps({"set_up_seconds": time.perf_counter() - started}), file=answers, flush=True)
    for line in sys.stdin:
        module.__dict__["run"] = line.strip()
        accuracy = eval(trial, module.__dict__)
        seconds = last.get("time_seconds", last.get("total_time_seconds"))
        # to the digits that a float32 mean of 10,000 has
        found = {"seconds": seconds, "accuracy": round(last["val_acc"], 6), "accuracy_tta": round(accuracy, 6)}
        print(json.dumps(found), file=answers, flush=True)


def parts(code: str, name: str) -> tuple[tuple[types.CodeType, types.CodeType], types.CodeType]:
    """Return the code of the definitions, of the set-up before the trials, and of the expression that is one trial."""
    tree = ast.parse(code, name)
    (guard,) = [node for node in tree.body if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)]
    trials = [
        node for node in ast.walk(guard) if isinstance(node, ast.ListComp) and ast.unparse(node.elt).startswith("main(")
    ]
    assert len(trials) == 1, f"{name}: no single list of trials"
    before = []
    for node in guard.body:
        if trials[0] in ast.walk(node):
            break
        before.append(node)
    definitions = [node for node in tree.body if node is not guard]
    made = [compile(ast.Module(body, []), name, "exec") for body in (definitions, before)]
    return (made[0], made[1]), compile(ast.Expression(trials[0].elt), name, "eval")


if __name__ == "__main__":
    main()
