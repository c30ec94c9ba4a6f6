"""The answer of `resfit design`: what was found as plain data (`--json`), and as a table for people. No torch."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from resfit.budget import Budget
from resfit.models.spec import format_spec, spec_to_dict
from resfit.solver.exact import Designed
from resfit.solver.expected import Expected

BATCH = 128  # of a training step
LARGEST = 32  # pixels: the rule was fitted on runs of 16, and is taken for those that most recipes have
COLUMNS = {"params": "params", "macs": "macs", "bytes": "weight_bytes", "ram": "ram"}
SCORES = ("naswot", "synflow", "grad_norm")
NOTES = (
    "ram: bytes of activations alive at once, at int8. step: training time beside the first network's, modelled.",
    "expected: accuracy by a rule, after as many images. equal time: where each trains as long as the first one does.",
)


def answer(found: Sequence[Designed], budget: Budget, rule: Expected) -> dict[str, Any]:
    """Return the budget, the networks found, a row each, and the rule that ranked them with what it was fitted on."""
    return {
        "budget": asdict(budget),
        "networks": [_row(one, found[0], rule) for one in found],
        "rule": dict(rule.source),
    }


def _row(one: Designed, first: Designed, rule: Expected) -> dict[str, Any]:
    seconds = rule.training.seconds(one.spec, one.cost)
    relative = seconds / rule.training.seconds(first.spec, first.cost)
    under = "" if one.under_macs is None else f" under {one.under_macs:,} macs"
    return {
        "network": format_spec(one.spec),
        "spec": spec_to_dict(one.spec),
        "params": one.cost.params,
        "macs": one.cost.macs,
        "activations": one.cost.activations,
        "weight_bytes": one.cost.weight_bytes,
        "ram": one.cost.peak,
        "depth": sum(one.spec.blocks_per_stage),
        "width": max(one.spec.widths),
        "step_seconds": round(BATCH * seconds, 5),
        "relative_time": round(relative, 3),
        "expected_accuracy": round(rule.accuracy(one.score), 4),
        "expected_accuracy_equal_time": round(rule.accuracy(one.score, 1 / relative), 4),
        "kept": "highest expected accuracy" + under,
    }


def to_text(value: dict[str, Any]) -> str:
    """Return the lines of `design`: a network a line, what it costs of the budget, what ranked it."""
    rows = value["networks"]
    shown = [name for name in COLUMNS if name != "bytes" or value["budget"]["max_bytes"] is not None]
    table = [[*shown, "activations", "blocks", "step", "expected", "equal time"]]
    table[0] += [name for name in ("latency_ms", *SCORES) if name in rows[0]]
    for row in rows:
        table.append([_limited(row[COLUMNS[name]], value["budget"][f"max_{name}"]) for name in shown])
        table[-1] += [f"{row['activations']:,}", f"{row['depth']}", f"{row['relative_time']:.2f}"]
        table[-1] += [f"{row[key]:.1%}" for key in ("expected_accuracy", "expected_accuracy_equal_time")]
        table[-1] += [f"{row[key]:.4g}" for key in ("latency_ms", *SCORES) if key in row]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    names = ["network", *(row["network"] for row in rows)]
    lines = [
        "  ".join([*(text.rjust(width) for text, width in zip(cells, widths, strict=True)), name])
        for cells, name in zip(table, names, strict=True)
    ]
    kept = f"kept: the first for the {rows[0]['kept']}, each other one for the highest under 0.71 of the macs of the one before"
    step = f"a step of {BATCH} images of the first: about {rows[0]['step_seconds']:.3g} s on {value['rule']['device']}"
    command = f"resfit train '{rows[0]['network']}' --data PATH"
    return "\n".join(
        [*lines, "", kept, *NOTES, step, *_rule_lines(value["rule"], rows[0]), f"train the first: {command}"]
    )


def _limited(spent: int, limit: int | None) -> str:
    return f"{spent:,}" + (f" / {limit:,}" if limit is not None else "")


def _rule_lines(rule: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """Return what the expected accuracy is worth, and the scores that are shown."""
    agrees = rule["rank_correlation"]
    names = ["params", "macs", *(name for name in SCORES if name in row)]
    alone = ", ".join(f"{name} {agrees[name]:.2f}" for name in names)
    lines = [
        f"the rule was fitted on {rule['n']} runs, {rule['data']}. On held-out runs of one budget, the rank",
        f"correlation (Spearman) of its order with theirs is {agrees['rule']:.2f}; alone: {alone}.",
    ]
    if agrees["rule"] <= max(agrees["params"], agrees["macs"]):
        lines.append("the rule is no better than a plain count, so that the count ranks.")
    if (side := row["spec"]["image_size"]) > LARGEST:
        lines.append(
            f"at {side} pixels, far from those of its runs, take the rule for an order, and its figures for no accuracies."
        )
    return lines
