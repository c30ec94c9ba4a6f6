"""Claims with their verdicts as rows of plain data, as text for a terminal, and as markdown for README and docs. No torch."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from resfit.models.families import cost
from resfit.published.claims import CONTRADICTED, UNDETERMINED, Claim, Report, Side
from resfit.published.record import Result, shown
from resfit.published.verdicts import NOT_TESTED, VERDICTS, best, judge, measured_text
from resfit.recipefile import load_recipe

Row = dict[str, Any]

BRIEF = ["train.epochs=1", "data.image_size=16", "network.pool=0"]  # enough to compare training times on a CPU


def claim_rows(reports: Sequence[Report], results: Sequence[Result], recipe: str | None = None) -> list[Row]:
    """Return one row of plain data a claim, of all or of those that a recipe takes part in."""
    rows = []
    for report in reports:
        for claim in report.claim:
            if recipe is None or recipe in {claim.recipe, *(side.recipe for side in claim.sides)}:
                rows.append(_row(claim, report, results))
    return rows


def _row(claim: Claim, report: Report, results: Sequence[Result]) -> Row:
    found = judge(claim, report, results)
    return {
        "id": claim.id,
        "report": report.report,
        "recipe": claim.recipe,
        "kind": claim.kind,
        "claim": claim.text,
        "value": claim.value,
        "unit": claim.unit,
        "by": claim.by,
        "mark": claim.mark,
        "measured": found.measured,
        "verdict": found.verdict,
        "needs": claim.needs,
        "note": claim.note,
        "command": command(claim),
        "measurement": found.measurement,
    }


def command(claim: Claim) -> str | None:
    """Return what one types to test a claim; None where nothing is to be run."""
    if not claim.sides:
        return None
    refit = " --refit" if all(_can_be_refit(side) for side in claim.sides) else ""
    short = BRIEF if all(side.metric == "train_seconds" for side in claim.sides) else []
    sides = [shown(side.recipe, [*side.settings, *short]) for side in claim.sides]
    return " && ".join(dict.fromkeys(f"resfit reproduce {side} --data cifar10 --seeds 3{refit}" for side in sides))


def _can_be_refit(side: Side) -> bool:
    """Return whether a side can be measured by training on all images, as the reports do, with none held out."""
    return side.metric != "val_accuracy" and load_recipe(side.recipe).schedule.name != "plateau"


def counts(rows: Sequence[Row]) -> str:
    """Return how many claims have which verdict, in words."""
    found = Counter(row["verdict"] for row in rows)
    each = ", ".join(f"{found[verdict]} {verdict}" for verdict in VERDICTS if found[verdict])
    return f"{len(rows)} claims: {each}"


def to_text(rows: Sequence[Row], reports: Sequence[Report]) -> str:
    """Return the table for a terminal: a line a claim under its report, the count of verdicts last."""
    widths = [max((len(row[key]) for row in rows), default=0) for key in ("id", "verdict", "claim")]
    lines = []
    for report in reports:
        mine = [row for row in rows if row["report"] == report.report]
        lines += [f"{report.report.upper()}  {report.title}"] if mine else []
        for row in mine:
            cells = [f"{row[key]:<{width}}" for key, width in zip(("id", "verdict", "claim"), widths, strict=True)]
            lines.append("  ".join(["", *cells, _detail(row)]).rstrip())
        lines += [""] if mine else []
    lines.append(counts(rows))
    if any(row["verdict"] == NOT_TESTED for row in rows):
        lines.append(
            "to test one: resfit reproduce RECIPE --data cifar10 --seeds 3 [--refit]; --json has each claim's command"
        )
    return "\n".join(lines)


def _detail(row: Row) -> str:
    """Return what was measured, and why where nothing more can be."""
    why = row["note"] if row["verdict"] in (CONTRADICTED, UNDETERMINED) else ""
    return ". ".join(part.removesuffix(".") for part in (row["measured"], why) if part)


def to_markdown(rows: Sequence[Row], reports: Sequence[Report]) -> str:
    """Return every claim as markdown, a table a report."""
    parts = [counts(rows) + "."]
    for report in reports:
        head = ["id", "claim", "verdict", "measured", "mark", "note", "to test it"]
        lines = [f"## {report.report.upper()}. {report.title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for row in rows:
            if row["report"] == report.report:
                run = f"`{row['command']}`" if row["command"] else "–"
                cells = [
                    row["id"],
                    row["claim"],
                    row["verdict"],
                    row["measured"] or "–",
                    row["mark"],
                    row["note"] or "–",
                    run,
                ]
                lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def summary_markdown(rows: Sequence[Row], reports: Sequence[Report], results: Sequence[Result]) -> str:
    """Return one line a recipe, the reports' and then others that have a record: params, claim, what was measured, verdict."""
    lines = ["| recipe | params | claimed | measured | verdict |", "|---|---|---|---|---|"]
    others = sorted({result["recipe"] for result in results})
    for name in dict.fromkeys([*(name for report in reports for name in report.rows), *others]):
        row = next((row for row in rows if (row["recipe"], row["kind"]) == (name, "test-accuracy")), None)
        claimed, verdict = (f"{row['value']}%", row["verdict"]) if row else ("–", "–")
        result = best(Side(recipe=name), results)
        measured = measured_text(Side(recipe=name), result) if result else "–"
        lines.append(f"| {name} | {_params(name)} | {claimed} | {measured} | {verdict} |")
    return "\n".join([*lines, "", counts(rows) + "."]) + "\n"


def _params(name: str) -> str:
    return f"{cost(load_recipe(name).network).params:,}"
