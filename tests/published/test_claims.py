"""The claims files: complete against a list read by hand from the reports, well-formed, and refused where they are not."""

import json
from collections import Counter
from pathlib import Path

import pytest

from resfit.errors import UsageError
from resfit.published.claims import load_reports, parse_report, row_names
from resfit.published.table import BRIEF, command
from resfit.recipefile import load_recipe, recipe_names

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "claims.json").read_text())
CLAIMS = [claim for report in load_reports() for claim in report.claim]
RECIPES = (
    [f"r1-{name}" for name in ("baseline", "1", "2", "3", "4", "separable", "distill")]
    + [f"r2-{name}" for name in ("1", "2", "3", "4", "5", "6", "7", "final", "sgd", "adam")]
    + ["r3", "r3-unmixed", "r4-deeper", "r4-lighter", "r5", "r5-start"]
)


# Whether a network keeps the budget is the reports' common condition and not a figure of one line; the last is a figure
# that stands for other words ([2,2,2,2]).
OURS = {
    "r1-4-budget",
    "r1-baseline-budget",
    "r2-final-budget",
    "r2-5-budget",
    "r3-budget",
    "r4-deeper-budget",
    "r4-lighter-budget",
    "r5-budget",
    "r4-lighter-blocks",
}


@pytest.mark.parametrize("report", load_reports(), ids=lambda report: report.report)
def test_every_printed_figure_is_one_row_and_no_other_is(report):
    printed = Counter((kind, figure) for _, kind, figure in GOLDEN["figures"][report.report])
    rows = [claim for claim in report.claim if claim.id not in OURS]
    ours = Counter((claim.kind, value) for claim in rows for value in (claim.value, claim.upto) if value is not None)
    assert ours == printed


@pytest.mark.parametrize(("report", "line", "name", "words"), GOLDEN["said"], ids=lambda value: str(value))
def test_what_is_said_without_a_figure_has_a_row(report, line, name, words):
    claim = next(claim for claim in CLAIMS if claim.id == name)
    assert claim.id.startswith(report)
    assert words in claim.text + claim.note


def test_every_row_has_a_recipe():
    assert row_names() == RECIPES
    sides = {side.recipe for claim in CLAIMS for side in claim.sides} | {claim.recipe for claim in CLAIMS}
    assert sides <= set(RECIPES)
    assert set(RECIPES) <= set(recipe_names())


def test_the_command_of_a_claim_is_one_that_works():
    """--refit is refused for a plateau schedule, and measures no validation accuracy."""
    commands = {claim.id: command(claim) for claim in CLAIMS}
    assert commands["r4-lighter-accuracy"] == "resfit reproduce r4-lighter --data cifar10 --seeds 3"
    assert commands["r3-epoch-10"] == "resfit reproduce r3 --data cifar10 --seeds 3"
    assert commands["r3-accuracy"] == "resfit reproduce r3 --data cifar10 --seeds 3 --refit"
    assert commands["r5-params"] is None
    assert "train.epochs=1 --set data.image_size=16 --set network.pool=0" in commands["r4-lighter-faster"]
    assert load_recipe("r4-deeper", BRIEF).network.pool == 0
    for claim in CLAIMS:
        for side in claim.sides:
            assert load_recipe(side.recipe, side.settings).name == side.recipe
        assert (commands[claim.id] or "").count("resfit reproduce") in (0, 1, 2)


def test_what_needs_a_run_says_so():
    for claim in CLAIMS:
        assert (claim.needs == "nothing") == (not claim.sides), claim.id


GOOD = {"id": "a", "recipe": "r5", "kind": "params", "text": "1", "value": "1"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valeu": "1"}, "claim.0.valeu: no such key. Did you mean 'value'?"),
        ({"value": None}, "a claim of kind params needs value"),
        ({"kind": "memory"}, "needs part"),
        ({"kind": "milestone"}, "needs epoch"),
        ({"kind": "comparison"}, "needs left"),
        ({"kind": "statement"}, "needs verdict"),
        ({"verdict": "undetermined"}, "only a statement without a check is given its verdict"),
        ({"kind": "accuracy"}, "kind"),
        ({"value": 1.0}, "value"),
        ({"depends": "b"}, "depends on 'b'"),
    ],
)
def test_a_malformed_claim_is_refused(changes, message):
    with pytest.raises(UsageError, match=r"^x\.toml: ") as error:
        parse_report({"report": "x", "title": "", "rows": [], "claim": [GOOD | changes]}, "x.toml")
    assert message in str(error.value)


def test_ids_are_unique():
    with pytest.raises(UsageError, match="a: stands twice"):
        parse_report({"report": "x", "title": "", "rows": [], "claim": [GOOD, GOOD]}, "x.toml")
