"""evaluate, test, compare, report, curves: how good runs are."""

from pathlib import Path
from typing import Any

from resfit import findings, printing
from resfit.escaping import json_text
from resfit.verbs.options import Add, Arguments, add_device, add_moved_data
from resfit.verbs.output import say, show


def add(verb: Add) -> None:
    """Add these verbs and their options."""
    p = verb("evaluate", do_evaluate, "Score a run on its validation split.")
    p.add_argument("folder", metavar="RUN")
    p.add_argument(
        "--full",
        action="store_true",
        help="mistakes, calibration, corruptions, duplicates, labels too; writes RUN/evaluation.json",
    )
    add_moved_data(p)
    add_device(p)

    p = verb("test", do_test, "Open the test split once, score the run on it, and keep the receipt.")
    p.add_argument("folder", metavar="RUN")
    add_moved_data(p)
    p.add_argument("--again", action="store_true", help="open the test split again; the ledger counts it")
    add_device(p)

    p = verb("compare", do_compare, "Say whether run A is better than run B on the same validation images.")
    p.add_argument("a", metavar="A", help="a finished run, or a parent of --seeds")
    p.add_argument("b", metavar="B", help="another one, on the same validation images")

    p = verb("report", do_report, "Write one page on one or several runs that opens anywhere, without a network.")
    p.add_argument("paths", nargs="+", metavar="RUN", help="run folders, or parents of --seeds")
    p.add_argument(
        "-o", "--out", metavar="FILE", type=Path, help="the page, .html (default for one run: RUN/report.html)"
    )
    add_moved_data(p, ": for thumbnails")

    p = verb("curves", do_curves, "Draw the accuracy and loss curves of runs, side by side, as SVG or PNG.")
    p.add_argument(
        "paths", nargs="+", metavar="RUN", help="run folders, parents of --seeds, or results/reproduce/*.json"
    )
    p.add_argument("-o", "--out", required=True, metavar="FILE", type=Path, help="where to draw: .svg, or .png")
    p.add_argument("--metric", choices=("accuracy", "loss"), help="one panel instead of both")


def do_evaluate(a: Arguments) -> int:
    """Print a run's score on its validation split, or each seed's and their mean; with --full all that the split tells."""
    from resfit.evaluation.depth import evaluate_fully
    from resfit.evaluation.holdout import evaluate, over_seeds
    from resfit.runs import seed_runs

    def judge(folder: str | Path) -> dict[str, Any]:
        return evaluate_fully(folder, a.data, a.device, say) if a.full else evaluate(folder, a.data, a.device)

    def one_text(value: dict[str, Any]) -> str:
        return findings.full_text(value) if a.full else printing.score_text(value, "val")

    if seed_runs(a.folder):
        value = over_seeds(a.folder, judge)
        fully = [f"{seed['run']}\n{one_text(seed)}\n" for seed in value["seeds"]] if a.full else []
        text = "\n".join([*fully, printing.each_seed_text(value, "val")])
    else:
        value = judge(a.folder)
        text = one_text(value)
    show(a, {"run": a.folder, "split": "val", **value}, text)
    return 0


def do_test(a: Arguments) -> int:
    """Print a run's score on its test split, and which opening it was; or each seed's, and their mean."""
    from resfit.evaluation.holdout import over_seeds, test
    from resfit.runs import seed_runs

    def judge(folder: str | Path) -> dict[str, Any]:
        receipt = test(folder, a.data, a.device, a.again)
        if not receipt["reopened"]:
            say(f"tested on {receipt['when']}; this is the receipt. --again opens the test split once more.")
        return receipt

    if seed_runs(a.folder):
        value = {"split": "test", **over_seeds(a.folder, judge)}
        text = printing.each_seed_text(value, "test")
    else:
        value = judge(a.folder)
        text = printing.receipt_text(value)
    show(a, {"run": a.folder, **value}, text)
    return 0


def do_compare(a: Arguments) -> int:
    """Print whether one run is better than another, with the interval."""
    from resfit.evaluation.comparison import compare

    value = compare(a.a, a.b)
    show(a, value, findings.comparison_text(value))
    return 0


def do_report(a: Arguments) -> int:
    """Write the page of one or several runs."""
    from resfit.reporting.page import report

    value = report(a.paths, a.out, a.data)
    for note in value["notes"]:
        say(note)
    if a.json:
        print(json_text(value))
    else:
        say(printing.report_text(value))
    return 0


def do_curves(a: Arguments) -> int:
    """Draw the curves of runs to a file."""
    from resfit.curves import draw_curves, label

    curves = draw_curves(a.paths, a.out, a.metric)
    rows = [(label(run), len(run.seeds), run.epochs) for run in curves]
    value = [{"name": name, "seeds": seeds, "epochs": epochs} for name, seeds, epochs in rows]
    if a.json:
        print(json_text({"out": str(a.out), "runs": value}))
    else:
        say(printing.curves_text(value, str(a.out)))
    return 0
