"""What a study found, as plain data and as lines for people. No torch.

A trial's value was looked at by the search, which keeps the highest: it flatters the winner. The finalists are trained again
with seeds that the search never saw, and only those are reported.
"""

import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import optuna

from resfit.evaluation.metrics import mean_interval
from resfit.models.families import cost
from resfit.models.spec import format_spec
from resfit.published.claims import load_reports
from resfit.study.space import Row, Space
from resfit.study.trials import DUPLICATE, END, OVER, UNCOUNTED, Studies, best_slots, finished, slot_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

SHOWN = 10  # trials of the live table


def summarise(space: Space, studies: Studies, wanted: int) -> dict[str, Any]:
    """Return what result.json holds: `trials` by slot, `rows` with n, mean and interval, `importance`, `winner`, `counts`."""
    drawn = _trials(space, studies["trials"]) if "trials" in studies else []
    listed = finalists(space, studies["trials"]) if "trials" in studies else dict(enumerate(space.rows()))
    rows = _rows(listed, studies["rows"])
    value: dict[str, Any] = {"name": space.name, "mode": space.search.mode, "space": space.text(), "wanted": wanted}
    value |= {
        "counts": {key: _counts(study) for key, study in studies.items()},
        "trials": drawn,
        "rows": rows,
        "winner": None,
        "importance": {},
    }
    if "trials" in studies and rows:
        value["winner"] = _winner(space, drawn, rows)
        value["importance"] = _importance(studies["trials"])
    return value


def _winner(space: Space, drawn: list[dict[str, Any]], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row with the highest mean over the finalists' seeds; before all are there, the best trial, not confirmed."""
    confirmed = all(row["n"] == space.search.seeds for row in rows)
    best = max(rows, key=lambda row: row["mean"]) if confirmed else rows[0]
    trial = next(trial for trial in drawn if f"trial {trial['slot']}" == best["label"])
    text = (
        accuracy_text(best)
        if confirmed
        else f"{trial['val_accuracy']:.2%}, chosen by it: no other seed has been trained"
    )
    return best | {"point": trial["point"], "text": text, "confirmed": confirmed}


def finalists(space: Space, study: "Study") -> dict[int, Row]:
    """Return the recipes of the best trials, by slot."""
    ended = finished(study)
    points = {slot: space.point(ended[slot].params) for slot in best_slots(ended, space.search.finalists)}
    return {
        int(slot): Row(f"trial {slot}", space.recipe(point, f"{space.name}-{slot}")) for slot, point in points.items()
    }


def accuracy_text(row: dict[str, Any]) -> str:
    """Return a row's accuracy on val with what is known of its uncertainty."""
    if not row["n"]:
        return "-"
    low, high = (min(1.0, max(0.0, bound)) for bound in row["interval"] or (0.0, 1.0))
    spread = f" ({low:.2%} to {high:.2%}, 95%)" if row["interval"] else ""
    return f"{row['mean']:.2%}{spread}, n = {row['n']}"


def live_lines(space: Space, studies: Studies, wanted: int) -> tuple[list[str], list[str]]:
    """Return (a table of how things stand, a line for each trial that ended)."""
    ended = [
        f"{label}: {text}"
        for key, study in studies.items()
        for label, text in map(_ended(key), finished(study).values())
    ]
    if "trials" in studies:
        study, done = studies["trials"], finished(studies["trials"])
        best = [
            f"  trial {slot:<6} {done[slot].values[0]:.2%}  {_params(done[slot])}" for slot in best_slots(done, SHOWN)
        ]
        head = f"{len(done)} of {wanted} trials ended, {_running(study)} in training; the best on val:"
        table = [head, *best]
    else:
        table = [f"{len(finished(studies['rows']))} runs ended, {_running(studies['rows'])} in training"]
    return table, ended


def to_text(value: dict[str, Any]) -> str:
    """Return what was found: the rows, the winner, and what counts."""
    counts = [f"{key}: {counts_text(found)}" for key, found in value["counts"].items()]
    table = [["", "blocks", "widths", "F", "K", "P", "params", "claim", "val accuracy"]]
    table += [
        [_cell(row, name) for name in ("label", "B", "C", "F", "K", "P", "params", "claim", "val")]
        for row in value["rows"]
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(cells, widths, strict=True)).rstrip() for cells in table
    ]
    lines += counts
    if value["winner"]:
        lines.append(f"winner: {value['winner']['label']}, {value['winner']['network']}, val {value['winner']['text']}")
    elif value["mode"] == "search":
        lines.append("no winner: no trial was trained to its end. The same command goes on")
    return "\n".join(lines)


def _cell(row: dict[str, Any], name: str) -> str:
    if name in "BCFKP":
        return str(row["spec"][name])
    if name == "val":
        return "over budget: not trained" if row["over"] else accuracy_text(row)
    return f"{row[name]:,}" if name == "params" else str(row[name] or "-")


def _trials(space: Space, study: "Study") -> list[dict[str, Any]]:
    found = []
    for slot, trial in finished(study).items():
        values = trial.intermediate_values
        found.append(
            {
                "slot": slot,
                "state": "failed" if trial.state == optuna.trial.TrialState.FAIL else trial.state.name.lower(),
                "val_accuracy": trial.values[0] if trial.values else None,
                "epochs": max(values, default=0),
                "point": space.point(trial.params),
                "error": trial.user_attrs.get("error"),
                **{name: trial.user_attrs.get(name) for name in ("params", "macs", "seconds")},
            }
        )
    return sorted(found, key=lambda row: int(row["slot"]))


def _rows(listed: dict[int, Row], study: "Study") -> list[dict[str, Any]]:
    values: dict[str, list[float]] = {}
    for slot, trial in sorted(finished(study).items()):
        if trial.values:
            values.setdefault(slot.partition("/")[0], []).append(trial.values[0])
    claims, over = _claims(), study.user_attrs.get(OVER, [])
    rows = []
    for number, row in listed.items():
        spec, total = row.recipe.network, cost(row.recipe.network)
        own = values.get(str(number), [])
        shape: dict[str, Any] = {"B": ",".join(map(str, spec.blocks_per_stage)), "C": ",".join(map(str, spec.widths))}
        shape |= {"F": spec.kernel, "K": spec.shortcut_kernel, "P": spec.pool or "all"}
        known = mean_interval(own) if own else {"n": 0, "mean": None, "std": None, "interval": None}
        rows.append(
            {
                "label": row.label,
                "network": format_spec(spec),
                "spec": shape,
                "params": total.params,
                "macs": total.macs,
                "over": number in over,
                "claim": claims.get(row.label),
                "values": own,
                **known,
            }
        )
    return rows


def _claims() -> dict[str, str]:
    """Return the reports' test accuracies by recipe, as printed."""
    claims = [claim for report in load_reports() for claim in report.claim if claim.kind == "test-accuracy"]
    return {claim.recipe: f"{claim.value}{claim.unit}" for claim in reversed(claims)}


def counts_text(counts: dict[str, int]) -> str:
    """Return how many trials ended how."""
    return ", ".join(f"{number:,} {name}" for name, number in counts.items()) or "none"


def _counts(study: "Study") -> dict[str, int]:
    found: Counter[str] = Counter()
    for trial in study.get_trials(deepcopy=False):
        end = trial.user_attrs.get(END)
        name = end if end in (*UNCOUNTED, DUPLICATE) else trial.state.name.lower()
        found[{"fail": "failed" if end else "died and were taken up"}.get(name, name)] += 1
    return dict(found)


def _importance(study: "Study") -> dict[str, float]:
    """Return how much each key tells good trials from the others: PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = optuna.importance.get_param_importances(study)
        except (ValueError, RuntimeError):  # too few trials, or all alike
            return {}
    return {name: round(float(value), 4) for name, value in found.items()}


def _ended(kind: str) -> Any:
    def line(trial: "FrozenTrial") -> tuple[str, str]:
        label = (
            f"trial {slot_of(trial)}"
            if kind == "trials"
            else f"{trial.user_attrs.get('label')}, seed {trial.params['seed']}"
        )
        if trial.user_attrs.get("error"):
            return label, f"failed: {trial.user_attrs['error']}"
        last = max(trial.intermediate_values, default=0)
        pruned = f"pruned after epoch {last} " if trial.state == optuna.trial.TrialState.PRUNED else ""
        value = trial.values[0] if trial.values else trial.intermediate_values.get(last, float("nan"))
        return label, f"{pruned}val {value:.2%}  {_params(trial)}"

    return line


def _params(trial: "FrozenTrial") -> str:
    return f"{trial.user_attrs['params']:,} params" if "params" in trial.user_attrs else ""


def _running(study: "Study") -> int:
    return len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)))
