"""The rules of the verdicts, on made-up records: none of the accuracies here was measured."""

import math
from decimal import Decimal

import pytest

from resfit.errors import UsageError
from resfit.published.claims import load_reports, parse_report, row_names
from resfit.published.record import recipe_digest
from resfit.published.table import claim_rows, summary_markdown
from resfit.published.verdicts import judge, prints_as
from resfit.recipefile import load_recipe

REPORTS = {report.report: report for report in load_reports()}


def made_up(recipe, scores, data="cifar10", settings=(), refit=True, seconds=None, curve=None, epochs=None):
    """Return a record as `add_result` writes one, of accuracies that nobody measured."""
    try:
        named = load_recipe(recipe, settings)
    except UsageError:  # not every network and schedule can be shortened alone
        named = load_recipe(recipe)
    runs = []
    for seed, score in enumerate(scores):
        run = {"seed": seed, "test_accuracy": score, "test_nll": 1 - score, "val_accuracy": None if refit else score}
        lines = dict.fromkeys(("train_loss", "train_accuracy", "val_accuracy", "val_nll")) | (curve or {})
        runs.append(run | {"train_seconds": (seconds or [100.0] * 9)[seed], "curve": lines})
    changed = dict(setting.split("=") for setting in settings)
    return {
        "recipe": recipe,
        "study": "made-up",
        "settings": sorted(settings),
        "refit": refit,
        "data": data,
        "test_fingerprint": "0" * 16,
        "device": "made up",
        "commit": "0" * 12,
        "recipe_digest": recipe_digest(named) if epochs is None else "of another version",
        "epochs": epochs or int(changed.get("train.epochs", named.train.epochs)),
        "image_size": int(changed.get("data.image_size", 32)),
        "train_images": 50_000,
        "weights": "made-up weights",
        "tta_views": 1,
        "n": len(runs),
        "runs": runs,
        "file": "made-up.json",
    }


def verdict(name, *results):
    report = REPORTS[name[:2]]
    return judge(next(claim for claim in report.claim if claim.id == name), report, results)


@pytest.mark.parametrize(
    ("count", "figure", "printed"),
    [
        (1_922_074, "1.9", True),
        (2_797_610, "2.79", True),  # truncated
        (2_797_610, "2.80", True),  # rounded
        (2_797_610, "2.78", False),
        (4_994_730, "4.99", True),
        (5_419_338, "5.4", True),
        (11_690_058, "5.4", False),
        (701_994, "0.6", False),
        (699_999, "0.6", True),
    ],
)
def test_a_count_is_met_at_its_printed_digits(count, figure, printed):
    assert prints_as(count, Decimal(figure), Decimal(10**6)) == printed


def test_what_needs_no_run_has_its_verdict_at_once():
    for report in REPORTS.values():
        for claim in report.claim:
            found = judge(claim, report, []).verdict
            assert (found == "not tested") == (claim.needs != "nothing" and claim.depends is None), claim.id


@pytest.mark.parametrize(
    ("name", "expected", "evidence"),
    [
        ("r2-5-params", "contradicted by the report itself", "11,690,058; the figure is that of resnet"),
        ("r2-5-params", "contradicted by the report itself", "5,419,338"),
        ("r2-five-stages", "contradicted by the report itself", "4,904,618"),
        ("r2-final-highest", "contradicted by the report itself", "r2-3 91.78% and r2-7 90.93%"),
        (
            "r2-closer-is-better",
            "contradicted by the report itself",
            "r2-7 (4,994,730) 90.93%, r2-3 (4,903,242) 91.78%",
        ),
        ("r5-start-params", "undetermined", "1,092,650 or 701,994"),
        ("r2-5-budget", "reproduced", "11,690,058"),
        ("r1-4-params", "reproduced", "4,993,583"),
        ("r3-params", "reproduced", "4,480,474"),
        ("r4-deeper-memory-total", "reproduced", "36.56 MB"),
        ("r4-lighter-memory-activations", "reproduced", "10.50 MB"),
    ],
)
def test_verdicts_without_a_run(name, expected, evidence):
    found = verdict(name)
    assert found.verdict == expected
    assert evidence in found.measured


def test_a_highest_and_closer_claim_can_hold():
    rows = [("r2-1", "84.8"), ("r2-2", "86.6"), ("r2-6", "90.70")]
    claims = [{"id": a, "recipe": a, "kind": "test-accuracy", "text": b, "value": b, "unit": "%"} for a, b in rows]
    said = {"recipe": "r2-6", "kind": "statement", "text": "x"}
    claims.append(said | {"id": "highest", "value": "90.70", "unit": "%", "check": "highest"})
    claims.append(said | {"id": "closer", "value": "5", "unit": "M", "check": "closer-is-better"})
    report = parse_report({"report": "r2", "title": "", "rows": [], "claim": claims}, "made-up")
    assert [judge(claim, report, []).verdict for claim in report.claim[-2:]] == ["reproduced"] * 2


# The claim is 93.11%. t(2 degrees of freedom) is 4.303: a deviation of 0.1 points gives the mean +- 0.248 points.
@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.9311, 0.9311, 0.9311], "reproduced"),
        ([0.9261, 0.9261, 0.9261], "reproduced"),  # half a point, and no spread
        ([0.9260, 0.9260, 0.9260], "not reproduced"),
        ([0.9362, 0.9362, 0.9362], "not reproduced"),
        ([0.9240, 0.9250, 0.9260], "not reproduced"),  # 92.50 +- 0.25
        ([0.9140, 0.9240, 0.9340], "reproduced"),  # 92.40 +- 2.48
        ([0.9311, 0.9311], "undecided"),
        ([0.50, 0.50], "undecided"),
        ([0.9311], "undecided"),
    ],
)
def test_an_accuracy_on_the_original_data(scores, expected):
    assert verdict("r4-lighter-accuracy", made_up("r4-lighter", scores)).verdict == expected


def test_what_is_shown_of_an_accuracy():
    found = verdict("r4-lighter-accuracy", made_up("r4-lighter", [0.93, 0.931, 0.932]))
    assert found.measured == "93.10% ± 0.10% (n 3, cifar10, made up, 50,000 images, made-up weights)"
    assert found.measurement["interval"][0] == pytest.approx(0.931 - 4.3027 * 0.001 / math.sqrt(3), abs=1e-6)


def test_other_data_gives_no_verdict_on_an_accuracy():
    for data in ("cifar10-jpeg", "cifar10 (unverified)", "digits"):
        found = verdict("r4-lighter-accuracy", made_up("r4-lighter", [0.9311] * 3, data=data))
        assert found.verdict == "measured on other data"
        assert found.measured.startswith("93.11%")
        assert data in found.measured


def test_a_shortened_run_gives_no_verdict_on_an_accuracy():
    short = made_up("r4-lighter", [0.9311] * 3, settings=["train.epochs=2", "data.image_size=16"])
    found = verdict("r4-lighter-accuracy", short)
    assert found.verdict == "not tested"
    assert found.measured.startswith("2 epochs at 16 px: 93.11%")
    assert verdict("r4-lighter-accuracy", short, made_up("r4-lighter", [0.93] * 3)).verdict == "reproduced"
    stale = made_up("r4-lighter", [0.9311] * 3, epochs=7)  # its recipe has another length by now
    assert verdict("r4-lighter-accuracy", stale).verdict == "not tested"
    changed = made_up("r4-lighter", [0.9311] * 3, settings=["optim.lr=0.2"])
    assert verdict("r4-lighter-accuracy", changed).measured is None


def test_the_better_record_decides():
    plain = made_up("r4-lighter", [0.5] * 3, refit=False)
    assert verdict("r4-lighter-accuracy", plain).verdict == "not reproduced"
    assert verdict("r4-lighter-accuracy", plain, made_up("r4-lighter", [0.93])).verdict == "not reproduced"
    assert verdict("r4-lighter-accuracy", plain, made_up("r4-lighter", [0.93] * 3)).verdict == "reproduced"
    jpeg = made_up("r4-lighter", [0.93] * 5, data="cifar10-jpeg")
    assert verdict("r4-lighter-accuracy", plain, jpeg).verdict == "not reproduced"


def test_an_accuracy_of_an_undetermined_network_stays_so():
    found = verdict("r5-start-accuracy", made_up("r5-start", [0.88] * 3))
    assert found.verdict == "undetermined"
    assert found.measured.startswith("88.00%")


@pytest.mark.parametrize(
    ("epoch10", "expected"), [(0.64, "reproduced"), (0.654, "reproduced"), (0.66, "not reproduced")]
)
def test_a_milestone_is_of_the_curve_at_its_epoch(epoch10, expected):
    line = [0.15] * 9 + [epoch10] + [0.5] * 490
    result = made_up("r3", [0.95] * 3, refit=False, curve={"val_accuracy": line})
    found = verdict("r3-epoch-10", result)
    assert found.verdict == expected
    assert verdict("r3-epoch-300", result).verdict == "not reproduced"
    assert verdict("r3-start", result).verdict == "reproduced"
    assert verdict("r3-epoch-10", made_up("r3", [0.95] * 3)).verdict == "not tested"  # a refit has no such curve


def test_bounds():
    for best, expected in ((0.70, "reproduced"), (0.804, "reproduced"), (0.82, "not reproduced")):
        result = made_up("r2-1", [0.7] * 3, refit=False, curve={"val_accuracy": [0.1, best, 0.6]})
        report = REPORTS["r2"]
        claim = next(claim for claim in report.claim if claim.id == "r2-sgd-peak")
        claim = claim.model_copy(update={"recipe": "r2-1"})
        assert judge(claim, report, [result]).verdict == expected


@pytest.mark.parametrize(
    ("loss", "expected"), [(0.424, "reproduced"), (0.426, "not reproduced"), (0.416, "reproduced")]
)
def test_a_loss_is_met_at_its_printed_digits(loss, expected):
    assert verdict("r2-final-loss", made_up("r2-final", [1 - loss] * 3)).verdict == expected


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([0.930, 0.931, 0.932], [0.920, 0.921, 0.922], "reproduced"),
        ([0.920, 0.921, 0.922], [0.930, 0.931, 0.932], "not reproduced"),
        ([0.930, 0.931, 0.932], [0.929, 0.930, 0.931], "undecided"),
        ([0.930, 0.931], [0.920, 0.921, 0.922], "undecided"),
        ([0.930, 0.931, 0.932], [0.920], "undecided"),
    ],
)
@pytest.mark.parametrize("data", ["cifar10", "cifar10-jpeg"])
def test_a_comparison_is_decided_by_the_interval_of_the_difference(left, right, expected, data):
    name = "r4-deeper-over-lighter"
    results = [made_up("r4-deeper", left, data=data), made_up("r4-lighter", right, data=data)]
    assert verdict(name, *results).verdict == expected
    assert verdict(name, results[0]).verdict == "not tested"


def test_a_comparison_is_of_like_with_like():
    name, good, bad = "r4-deeper-over-lighter", [0.93, 0.931, 0.932], [0.92, 0.921, 0.922]
    deeper = made_up("r4-deeper", good)
    for other in ({"data": "cifar10-jpeg"}, {"refit": False}, {"settings": ["train.epochs=2"]}):
        assert verdict(name, deeper, made_up("r4-lighter", bad, **other)).verdict == "not tested"
    digits = [made_up("r4-deeper", good, data="digits"), made_up("r4-lighter", bad, data="digits")]
    assert verdict(name, *digits).verdict == "measured on other data"


def test_a_shortened_study_decides_only_which_trains_faster():
    short = {"settings": ["train.epochs=1", "data.image_size=16"], "data": "cifar10-jpeg"}
    deeper = made_up("r4-deeper", [0.4, 0.401, 0.402], seconds=[50.0, 51.0, 52.0], **short)
    lighter = made_up("r4-lighter", [0.3, 0.301, 0.302], seconds=[30.0, 31.0, 32.0], **short)
    better, faster = (verdict(name, deeper, lighter) for name in ("r4-deeper-over-lighter", "r4-lighter-faster"))
    assert better.verdict == "undecided"
    assert better.measured.startswith("after 1 epoch at 16 px: +10.00 points, 95% +9.7")
    assert faster.verdict == "reproduced"
    assert faster.measured.startswith("after 1 epoch at 16 px: +20.0 s")
    elsewhere = lighter | {"device": "another"}
    assert verdict("r4-lighter-faster", deeper, elsewhere).verdict == "not tested"


@pytest.mark.parametrize(
    ("longer", "expected"),
    [
        ([0.900, 0.901, 0.902], "reproduced"),
        ([0.920, 0.921, 0.922], "not reproduced"),
        ([0.895, 0.905, 0.915], "undecided"),
        ([0.9035, 0.905, 0.9065], "undecided"),  # surely better, and perhaps by less than half a point
    ],
)
def test_no_better_allows_half_a_point(longer, expected):
    more = made_up("r5", longer, settings=["train.epochs=250"])
    assert verdict("r5-200-enough", made_up("r5", [0.900, 0.901, 0.902]), more).verdict == expected


def test_a_gap_within_one_recipe():
    result = made_up("r3", [0.95, 0.951, 0.952], refit=False, curve={"train_accuracy": [0.2, 0.6]})
    found = verdict("r3-val-over-train", result)
    assert found.verdict == "reproduced"
    assert found.measured.startswith("+35.10 points")


def test_two_sides_of_one_run_are_compared_seed_by_seed():
    """Each seed gains 0.2 points exactly, while the seeds differ by more: the interval is of the gains, and has no width."""
    curve = {"val_accuracy": [0.90, 0.902]}
    result = made_up("r3", [0.95, 0.96, 0.97], refit=False)
    for run, shift in zip(result["runs"], (0.0, 0.01, 0.02), strict=True):
        run["curve"] = run["curve"] | {
            "val_accuracy": [v + shift for v in curve["val_accuracy"]],
            "train_accuracy": [0.5, 0.6 + shift],
        }
        run["val_accuracy"] = 0.902 + shift
    found = verdict("r3-val-over-train", result)
    assert found.measured.startswith("+30.20 points, 95% +30.20 to +30.20")


def test_a_study_that_changes_more_than_its_length_does_not_stand_for_the_recipe():
    short, adam = ["train.epochs=2", "data.image_size=16"], ["optim.name=adam", "optim.lr=0.001"]
    plain, other = made_up("r5", [0.55], settings=short), made_up("r5", [0.33], settings=[*adam, *short])
    assert "55.00%" in verdict("r5-accuracy", other, plain).measured
    assert verdict("r5-accuracy", other).measured is None


def test_a_record_of_another_version_of_the_recipe_decides_nothing():
    before = made_up("r5", [0.9074] * 3)
    assert verdict("r5-accuracy", before).verdict == "reproduced"
    assert verdict("r5-accuracy", before | {"recipe_digest": "0" * 16}).verdict == "not tested"


def test_an_accuracy_of_an_unknown_network_is_undetermined():
    assert verdict("r2-5-accuracy", made_up("r2-5", [0.8843] * 3)).verdict == "undetermined"
    assert verdict("r2-3-over-5", made_up("r2-3", [0.91] * 3), made_up("r2-5", [0.88] * 3)).verdict == "undetermined"


def test_the_summary_has_a_line_for_every_row_and_every_other_recipe_with_a_record():
    results = [made_up("r2-sgd", [0.5] * 3), made_up("r5-modern", [0.6], settings=["train.epochs=3"])]
    reports = tuple(REPORTS.values())
    text = summary_markdown(claim_rows(reports, results), reports, results)
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert set(row_names()) | {"recipe", "r5-modern"} == set(lines)
    assert "| 4,902,186 | – | 50.00% ± 0.00% (n 3, " in lines["r2-sgd"]
    assert "| 4,398,890 | – | 3 epochs: 60.00% (n 1, " in lines["r5-modern"]
    assert lines["r4-lighter"] == "| r4-lighter | 2,777,674 | 93.11% | – | not tested |"
