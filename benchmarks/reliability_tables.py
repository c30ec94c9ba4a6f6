"""The table of docs/reliability.md, from results/reliability.json; benchmarks/tables.py writes it. No torch, no numpy."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEAD = "| a failure would be | failures | distinct classes | rounds, classes in all | code, commit |\n|---|---|---|---|---|\n"


def reliability_tables(folder: Path) -> dict[str, str]:
    """Return the table of the figures by the name of its mark; a line says so where nothing was measured yet."""
    path = folder / "reliability.json"
    if not path.exists():
        return {"figures": "Not measured yet: `make reliability`.\n"}
    value = json.loads(path.read_text())
    rows = "".join(f"| {' | '.join(cells(figure))} |\n" for figure in value["figures"])
    return {"figures": f"{HEAD}{rows}\n{value['device']}; {value['data']}; `{value['command']}`.\n"}


def cells(figure: Mapping[str, Any]) -> list[str]:
    """Return the cells of a figure; without a failure, 3/n bounds the rate with a confidence of 95% (the rule of three)."""
    count, failures = figure["n"], figure["failures"]
    bound = f" (< {3 / count:.2g})" if count and not failures else ""
    planned = f"{figure['all']['n']:,}, {figure['all']['classes']:,}"
    made_with = f"{figure['source']}, {', '.join(figure['commits'])}"
    return [figure["name"], f"{failures:,} of {count:,}{bound}", f"{figure['classes']:,}", planned, made_with]
