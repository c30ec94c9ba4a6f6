"""The tables of docs/defects.md, from results/defects/*.json; benchmarks/tables.py writes them. No torch, no numpy."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Result = Mapping[str, Any]
NAMES = {"adam": "Adam", "sgd": "SGD, momentum 0", "sgd-momentum": "SGD, momentum 0.9"}


def defect_tables(folder: Path) -> dict[str, str]:
    """Return the markdown of each result in a folder by its name, `defects-` before the file's stem."""
    made = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        made[f"defects-{path.stem}"] = f"{TABLES[path.stem](result)}\n{origin(result, path)}\n"
    return made


def flattery(result: Result) -> str:
    rows = []
    for seed in result["seeds"]:
        on_val, on_test = seed["test_at_chosen"], seed["test_at_best"]
        places = f"{seed['chosen_on_val'] + 1} | {percent(on_val)} | {seed['best_on_test'] + 1} | {percent(on_test)}"
        rows.append(f"{seed['seed']} | {places} | {points(on_test - on_val)}")
    rows.append(f"mean | | | | | {spelled(result)}")
    head = "seed | epoch chosen on val | test there | best epoch on test | test there | flattery, points"
    sizes = [
        f"{row['images']:,} | {spelled(row['flattery'])} | {spelled(row['optimism']) if row['optimism'] else '–'}"
        for row in result["sizes"]
    ]
    return f"{markdown(head, rows)}\n{markdown('test images | flattery, points | optimism, points', sizes)}"


def augmented(result: Result) -> str:
    rows = []
    for seed in result["seeds"]:
        r5, drop = seed["r5"], points(seed["clean"] - seed["augmented"])
        draws = f"{percent(min(r5['test']))} to {percent(max(r5['test']))}"
        mine = f"{percent(seed['clean'])} | {percent(seed['augmented'])} | {drop}"
        rows.append(f"{seed['seed']} | {mine} | {percent(r5['validation'])} | {draws} | {points(r5['difference'])}")
    means = f"{percent(result['clean']['mean'])} | {percent(result['augmented']['mean'])} | {spelled(result)}"
    rows.append(f"mean | {means} | | | {spelled(result['r5_difference'])}")
    ours = f"seed | clean | augmented, mean of {result['draws']} draws | drop, points"
    head = f'{ours} | R5\'s "validation" | R5\'s "test", lowest and highest draw | difference to their mean, points'
    between = f"Standard deviation between two draws for the same weights: {points(result['between_draws'])} points."
    return f"{markdown(head, rows)}\n{between}\n"


def optimizers(result: Result) -> str:
    rates = sorted({row["rate"] for row in result["sweep"]})
    found = {(row["arm"], row["rate"]): percent(row["val_accuracy"]) for row in result["sweep"]}
    sweep = [
        f"{NAMES[arm]} | " + " | ".join(marked(found.get((arm, rate)), rate == best["rate"]) for rate in rates)
        for arm, best in result["best"].items()
    ]
    edges = [NAMES[arm] for arm, best in result["best"].items() if best["at_an_edge"]]
    edge = f"At an edge of what was tried, so no optimum: {', '.join(edges)}." if edges else "None lies at an edge."
    judged = []
    for row in result["judged"]:
        test, why = row["test"], "its best" if row["best"] else "R2's"
        runs = ", ".join(percent(value) for value in row["by_seed"])
        judged.append(f"{NAMES[row['arm']]} | {row['rate']:g}, {why} | {test['n']} | {spelled(test, percent)} | {runs}")
    differences = [
        f"{called(row['left'])} less {called(row['right'])} | {row['n'][0]}, {row['n'][1]} | "
        f"{spelled({'mean': row['difference'], 'interval': row['interval']})}"
        for row in result["differences"]
    ]
    return "\n".join(
        [
            markdown("val accuracy, seed 0 | " + " | ".join(f"{rate:g}" for rate in rates), sweep),
            f"{edge}\n",
            markdown("optimizer | rate | n | test accuracy | runs", judged),
            markdown("test accuracy of | n | difference, points", differences),
        ]
    )


def called(arm: Sequence[Any]) -> str:
    return f"{NAMES[arm[0]]}, at {arm[1]:g}"


def marked(cell: str | None, best: bool) -> str:
    return "–" if cell is None else f"**{cell}**" if best else cell


def origin(result: Result, path: Path) -> str:
    """Return the line that says what a table was measured on."""
    images, commits = result["images"], ", ".join(result["run_commits"])
    data = f"{result['data']} at 16 pixels, {images['train']:,} train, {images['val']:,} val, {images['test']:,} test images"
    where = f"{result['device']}, torch {result['versions']['torch']}; trained at commit {commits}"
    return f"n {result['n']}, {result['epochs']} epochs each; {data}; {where}. `results/defects/{path.name}`."


def spelled(found: Result, write: Callable[[float], str] | None = None) -> str:
    """Return a mean, with its 95% interval where there is one; `value` stands for `mean` in a result."""
    write = write or points
    mean = write(found["mean"] if "mean" in found else found["value"])
    if found["interval"] is None:
        return f"{mean} (n 1)"
    low, high = found["interval"]
    return f"{mean} ({write(low)} to {write(high)})"


def points(share: float) -> str:
    return f"{100 * share:.2f}"


def percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def markdown(head: str, rows: Sequence[str]) -> str:
    rule = "|".join(["---"] * (head.count("|") + 1))
    return "\n".join([f"| {head} |", f"|{rule}|", *(f"| {row} |" for row in rows)]) + "\n"


TABLES: dict[str, Callable[[Result], str]] = {"flattery": flattery, "augmented": augmented, "optimizers": optimizers}
