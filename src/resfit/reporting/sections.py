"""A run's facts as what each section of the page shows: rows and figures, and where there is none, why. No torch."""

import shlex
from collections.abc import Sequence
from typing import Any

from resfit.curves import read_curves
from resfit.errors import UsageError
from resfit.evaluation.cardtext import limit_text
from resfit.printing import origin
from resfit.published.claims import load_reports
from resfit.published.record import is_trained_by, read_results
from resfit.published.table import claim_rows
from resfit.recipefile import load_recipe, recipe_names
from resfit.reporting import figures
from resfit.reporting.facts import Facts, Group, exports

MATRIX, PAIRS, CLASSES, CELLS = 30, 50, 1000, 5  # classes of a full matrix; pairs and classes of a list; shades
Row = dict[str, Any]


def score_rows(facts: Facts) -> list[Row]:
    """Return a row a split that was scored, with how: images trained on, weights chosen, views."""
    return [{"split": split, **score, "how": origin(score)} for split, score in facts.scores.items()]


def compare_row(group: Group, number: int) -> Row:
    """Return what the table of several runs says of one run, or of a parent of seeds (means)."""
    first = group.runs[0]
    row: Row = {"name": group.name, "anchor": f"run-{number}", "runs": len(group.runs), "seeds": group.seeds}
    for split in ("test", "val"):
        score = first.scores.get(split)
        if group.seeds:
            over = group.over_seeds(split)
            row[split] = over and {
                "accuracy": over["mean"], "interval": over["interval"], "n": score["n"] if score else 0, "std": over["std"]
            }  # fmt: skip
        else:
            row[split] = score and {"accuracy": score["accuracy"], "interval": score["interval"], "n": score["n"]}
    scored = next(iter(first.scores.values()), None)
    seconds = [facts.summary["train_seconds"] for facts in group.runs]
    return row | {
        "params": first.info["params"],
        "macs": first.summary["macs"],
        "bytes": first.cost.weight_bytes,
        "seconds": sum(seconds) / len(seconds),
        "train_images": first.summary["train_images"],
        "device": first.info["device"],
        "how": origin(scored) if scored else "",
    }


def charted(rows: Sequence[Row]) -> tuple[str, list[Row]]:
    """Return the split that most of the rows can be compared on, test before val, and those rows with its accuracy."""
    found = {split: [row for row in rows if row[split]] for split in ("test", "val")}
    split = max(found, key=lambda split: len(found[split]))
    return split, [
        row | {"accuracy": row[split]["accuracy"], "interval": row[split]["interval"]} for row in found[split]
    ]


def seed_rows(group: Group) -> list[Row]:
    """Return a row a seed and a split."""
    return [
        {"seed": facts.info["seed"], "seconds": facts.summary["train_seconds"], **row}
        for facts in group.runs
        for row in score_rows(facts)
    ]


def curve_figures(group: Group) -> list[figures.Figure]:
    """Return the curves of a run, or of all seeds; none where no epoch has a figure."""
    try:
        return figures.curves(read_curves([group.folder]))
    except UsageError:
        return []


def details(facts: Facts) -> Row:
    """Return what the sections of one run show, but for its pictures."""
    found = facts.evaluation or {}
    command = f"resfit evaluate {shlex.quote(str(facts.run.folder))} --full"
    held_out = facts.held_out
    value: Row = {"evaluate": command, "scores": score_rows(facts), "classes": class_rows(facts), "found": found}
    try:
        value |= _confusion(facts.class_names, held_out["confusion"]) if held_out else {}
        value["mistakes"] = _named(facts, held_out["mistakes"]) if held_out else None
        value["suspicious"] = _named(facts, found["suspicious"]) if found else None
        value["calibration"] = figures.reliability(found["calibration"]) if found else None
        value["coverage"] = figures.coverage(found["selective"]) if found else None
        value["robustness"] = figures.robustness(found["corruptions"]) if found else None
        value["corruptions"] = corruption_rows(found["corruptions"]) if found else None
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        file = facts.run.folder / "evaluation.json"
        raise UsageError(f"{file}: is not what the report reads ({error!r}). Write it anew: {command}.") from error
    value["exports"] = exports(facts.run)
    value["claims"], value["changed"] = claims(facts)
    return value | {"recipe": facts.run.recipe_file.read_text(encoding="utf-8"), "command": train_command(facts)}


def _confusion(names: list[str], confusion: list[list[int]]) -> Row:
    """Return `matrix`, where classes are few: a row a true class, a shade a cell; and `pairs`, the most frequent errors."""
    pairs: list[Row] = [
        {"label": names[i], "predicted": names[j], "n": n, "share": n / sum(row)}
        for i, row in enumerate(confusion)
        for j, n in enumerate(row)
        if i != j and n
    ]
    value: Row = {"pairs": sorted(pairs, key=lambda pair: (-pair["n"], -pair["share"]))[:PAIRS], "confused": len(pairs)}
    if len(names) <= MATRIX:
        value["matrix"] = [
            {"name": name, "n": sum(row), "cells": [_cell(n, sum(row), i == j) for j, n in enumerate(row)]}
            for i, (name, row) in enumerate(zip(names, confusion, strict=True))
        ]
    return value


def _cell(n: int, of: int, right: bool) -> Row:
    share = n / of if of else 0.0
    level = min(CELLS, 1 + int(share * CELLS)) if right else min(CELLS, 1 + int(4 * share * CELLS))  # errors are rarer
    return {"n": n, "share": share, "shade": f"{'r' if right else 'w'}{level}" if n else ""}


def _named(facts: Facts, rows: Sequence[Row]) -> list[Row]:
    """Return mistakes or suspicious labels with the names of their classes."""
    names = facts.class_names
    return [row | {"label": names[row["label"]], "predicted": names[row["predicted"]]} for row in rows]


def class_rows(facts: Facts) -> list[Row]:
    """Return a row a class: its score on each split, its images where they were counted; the least accurate first if many."""
    scored = {split: score["classes"] for split, score in facts.scores.items()}
    balance = (facts.evaluation or {}).get("balance") or {}
    rows: list[Row] = [
        {"name": name, "train": (balance.get("train") or {}).get(name)}
        | {split: classes.get(name) for split, classes in scored.items()}
        for name in facts.class_names
    ]
    if len(rows) > CLASSES and scored:
        first = next(iter(scored))
        rows.sort(key=lambda row: (row[first] or {}).get("accuracy") or 0.0)
    return rows[:CLASSES]


def corruption_rows(corruptions: Row) -> Row:
    """Return the strengths, and a row a corruption: its accuracy at each of them with a shade, and their mean."""
    strengths = sorted({row["strength"] for row in corruptions["rows"]})
    known = {(row["name"], row["strength"]): row["accuracy"] for row in corruptions["rows"]}
    rows = []
    for name in dict.fromkeys(row["name"] for row in corruptions["rows"]):
        values = [known.get((name, strength)) for strength in strengths]
        there = [value for value in values if value is not None]
        lost = [max(0.0, 1 - value / (corruptions["clean"] or 1.0)) if value is not None else 0.0 for value in values]
        shades = [f"w{min(CELLS, int(share * 2 * CELLS))}" if share >= 0.1 else "" for share in lost]
        rows.append({"name": name, "mean": sum(there) / len(there), "cells": list(zip(values, shades, strict=True))})
    return {"strengths": strengths, "rows": rows}


def claims(facts: Facts) -> tuple[list[Row], bool]:
    """Return the reports' claims on the run's recipe, each with what this run has of it; and whether the recipe was changed."""
    name = facts.recipe.name
    if name not in recipe_names():
        return [], False
    rows = claim_rows(load_reports(), read_results(), name)
    test, val = facts.scores.get("test"), facts.scores.get("val")
    mine = {
        "params": f"{facts.info['params']:,}",
        "test-accuracy": test and f"{test['accuracy']:.2%}",
        "val-accuracy": val and f"{val['accuracy']:.2%}",
        "test-loss": test and f"{test['nll']:.4f}",
    }
    changed = not is_trained_by(facts.recipe, load_recipe(name))
    return [row | {"mine": mine.get(row["kind"]) if row["recipe"] == name else None} for row in rows], changed


def train_command(facts: Facts) -> str:
    """Return what trains this run again; where a clock chose the epochs, one like it."""
    source = facts.info.get("source") or "PATH"
    words = ["resfit", "train", str(facts.run.recipe_file), "--data", str(source), "--seed", str(facts.info["seed"])]
    if limit := facts.summary.get("time_limit"):
        words += ["--set", f"train.epochs={limit['epochs']}"]
    return " ".join(map(shlex.quote, words)) + (" --refit" if facts.refit else "")


def facts_rows(facts: Facts) -> list[tuple[str, str]]:
    """Return what one needs to do it again, by name."""
    info = facts.info
    versions = ", ".join(f"{name} {version}" for name, version in info.get("versions", {}).items())
    pairs = {
        "seed": info["seed"],
        "time limit": limit_text(facts.summary["time_limit"]) if "time_limit" in facts.summary else None,
        "commit": info.get("commit"),
        "versions": versions,
        "device": info.get("device"),
        "precision": info.get("precision"),
        "processes": info.get("world_size"),
        "source": info.get("source") or "arrays in memory",
        "train fingerprint": info["data"]["train"],
        "val fingerprint": info["data"]["val"],
        "test fingerprint": (facts.receipt or {}).get("fingerprint"),
        "started": info.get("created"),
        "finished": info.get("finished"),
    }
    return [(name, str(value)) for name, value in pairs.items() if value is not None]
