"""train, resume, search, reproduce, claims, demo: what trains, and what came of it."""

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from resfit import printing
from resfit.budget import parse_duration
from resfit.errors import UsageError
from resfit.escaping import json_text
from resfit.verbs.options import Add, Arguments, add_device, add_moved_data, add_settings
from resfit.verbs.output import say, show

if TYPE_CHECKING:
    from resfit.runs import Run


def add(verb: Add) -> None:
    """Add these verbs and their options."""
    p = verb("train", do_train, "Train a recipe, or a network by the default recipe, on images.")
    p.add_argument(
        "recipe",
        metavar="RECIPE|NAME|PATH",
        nargs="?",
        help="a recipe file, or a name of `resfit list`; without --data the images themselves, for which all is planned",
    )
    p.add_argument(
        "--init", metavar="BUNDLE", help="start from the weights of a run or bundle, but for other classes' head"
    )
    p.add_argument(
        "--data", metavar="PATH", help="a folder, archive, .csv, .parquet or .npz, or cifar10, cifar100, digits"
    )
    p.add_argument(
        "--preset", choices=("quick", "balanced", "best"), help="plan for 5 minutes, 30 (default) or 3 hours"
    )
    p.add_argument("--out", metavar="DIR", type=Path, help="the run folder (default: runs/<name>-<n>)")
    add_settings(p, "a recipe setting, e.g. optim.lr=0.2")
    p.add_argument(
        "--time-limit",
        metavar="TIME",
        help="end within this long, e.g. 20m: what is planned, or a recipe's epochs, fits",
    )
    seeds = p.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, default=0, help="seed of weights, order and augmentation (default 0)")
    seeds.add_argument("--seeds", type=int, metavar="N", help="train seeds 0 to N-1 and report their mean and interval")
    p.add_argument("--refit", action="store_true", help="train on train + val and keep the last weights")
    add_device(p)

    p = verb("resume", do_resume, "Continue a run that was interrupted: on the CPU, to the same bytes.")
    p.add_argument("folder", metavar="RUN")
    add_moved_data(p)
    p.add_argument("--fresh", action="store_true", help="start over in this folder, by its recipe and seed")

    p = verb("search", do_search, "Try recipes of a space under its budget, on the validation split.")
    p.add_argument("space", metavar="SPACE", help="a space file, or a name of `resfit list`")
    p.add_argument("--data", required=True, metavar="PATH", help="the images, as for train")
    p.add_argument("--trials", type=int, default=20, metavar="N", help="end after so many trials (default 20)")
    p.add_argument("--time-limit", metavar="TIME", help="stop after this long, e.g. 2h; the same command goes on")
    p.add_argument(
        "--workers", type=int, default=1, metavar="N", help="trials trained at once on this machine (default 1)"
    )
    p.add_argument("--engine", choices=("optuna", "ray"), default="optuna", help="ray: a Ray cluster runs the trials")
    p.add_argument(
        "--storage", metavar="URL", help="database that many machines may share, e.g. postgresql://USER@HOST/NAME"
    )
    p.add_argument("--out", metavar="DIR", help="folder of runs, report and winner (default runs/search-NAME)")
    add_device(p)
    add_settings(p, "a setting of every recipe, or search.KEY")

    p = verb("reproduce", do_reproduce, "Train and test a report's row with several seeds, and show its claims beside.")
    p.add_argument("recipe", metavar="RECIPE", help="a shipped recipe, a report's row above all: r4-lighter")
    p.add_argument("--data", required=True, metavar="PATH", help="images as for train; verdicts are for cifar10")
    p.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N-1, finished ones kept (default 3)")
    p.add_argument("--refit", action="store_true", help="train on train + val, as the reports do")
    add_settings(p, "a setting: makes it another study")
    p.add_argument("--out", metavar="DIR", type=Path, help="where the runs lie (default: runs/reproduce/<name>)")
    p.add_argument("--results", metavar="DIR", default="results", help="write DIR/reproduce/<name>.json")
    add_device(p)

    p = verb("claims", do_claims, "Show what the reports claim, what was measured, and the verdict.")
    p.add_argument("--report", metavar="NAME", help="one report only: r1, r2, r3, r4 or r5")
    p.add_argument("--results", metavar="DIR", help="read DIR/reproduce (default: ./results, else what is shipped)")

    p = verb("demo", do_demo, "Run the whole path on handwritten digits, in about a minute, without a network.")
    p.add_argument("--out", metavar="DIR", type=Path, help="the run folder (default: runs/digits-<n>)")


def do_train(a: Arguments) -> int:
    """Train one run, or one a seed, and print its folder."""
    began = time.monotonic()  # before torch is imported: a time limit counts it
    recipe, data, settings = _started(a)
    from resfit.training.launch import train
    from resfit.training.seeds import train_seeds
    from resfit.training.timelimit import TimeLimit

    limit = None if a.time_limit is None else TimeLimit(parse_duration(a.time_limit), began)
    words = {"seed": a.seed, "refit": a.refit, "device": a.device, "settings": settings, "time_limit": limit}
    if recipe is None:
        from resfit.planner import fit

        run = fit(data, a.out, preset=a.preset or "balanced", **words)
    elif a.seeds is not None:
        if a.seeds < 1:
            raise UsageError("train: --seeds: must be at least 1. See `resfit train --help`.")
        run = train_seeds(recipe, data, a.out, seeds=a.seeds, refit=a.refit, device=a.device, settings=settings)
        scores = run.summary["val_accuracy"]
        if scores and scores["std"] is not None:
            say(printing.seeds_text(scores, "val"))
        say(f"all seeds: {run.folder}")
    else:
        run = train(recipe, data, a.out, **words)
    _print_run(a, run)
    return 0


def _started(a: Arguments) -> tuple[str | None, str, list[str]]:
    """Return recipe, data and settings; no recipe where the data is all that is given, and a plan is to be made.

    With a bundle to start from and no recipe, `default` trains the bundle's network.
    """
    if a.data is None and a.recipe is None and a.init is None:
        raise UsageError("train: what to train on is missing. Give a folder of images, or a recipe and --data PATH.")
    if a.data is None and (a.init or (not os.path.exists(a.recipe) and _is_recipe(a.recipe))):
        raise UsageError(f"train: {a.recipe or '--init'}: say what to train on: --data PATH.")
    planned = a.init is None and (a.data is None or a.recipe is None)
    if a.preset is not None and not planned:
        raise UsageError("--preset: plans the network too. Leave the recipe out, or give it a --time-limit.")
    if a.seeds is not None and (planned or a.time_limit is not None):
        raise UsageError(
            "--seeds: a time is planned for one run. Train seeds of the recipe it writes: RUN/recipe.toml."
        )
    if planned:
        return None, a.data or a.recipe, a.set
    if a.init is None:
        return a.recipe, a.data, a.set
    from resfit.evaluation.config import read_config
    from resfit.models.spec import format_spec

    recipe = a.recipe or format_spec(read_config(a.init).spec)
    return recipe, a.data, [*a.set, f"init={json.dumps(a.init)}"]


def _is_recipe(text: str) -> bool:
    """Return whether a word names a recipe or network, and no known data."""
    from resfit.data.sources import NAMES
    from resfit.models.networks import NETWORKS
    from resfit.recipefile import recipe_names

    return text not in NAMES and (text in recipe_names() or text in NETWORKS or ":" in text or text.endswith(".toml"))


def do_resume(a: Arguments) -> int:
    """Continue a run and print its folder."""
    from resfit.training.launch import resume

    run = resume(a.folder, a.data, fresh=a.fresh)
    _print_run(a, run)
    return 0


def do_search(a: Arguments) -> int:
    """Search a space, and print what was found."""
    from resfit.study.answer import to_text
    from resfit.study.launch import search

    found = search(
        a.space,
        a.data,
        trials=a.trials,
        out=a.out,
        workers=a.workers,
        time_limit=None if a.time_limit is None else parse_duration(a.time_limit),
        storage=a.storage,
        device=a.device,
        settings=a.set,
        engine=a.engine,
    )
    show(a, found, to_text(found))
    return 0


def do_reproduce(a: Arguments) -> int:
    """Train and test a report's row, and print its claims with their verdicts."""
    from resfit.published import reproduce

    words = {"seeds": a.seeds, "refit": a.refit, "settings": a.set, "out": a.out, "results": a.results}
    file = reproduce(a.recipe, a.data, device=a.device, **words)
    record = json.loads(file.read_text())
    low, high = record["spread"]
    say(
        f"test accuracy {record['value']:.2%} (n {record['n']}, {low:.2%} to {high:.2%}, {record['data']}); record: {file}"
    )
    return _print_claims(a, recipe=a.recipe, record=str(file))


def do_claims(a: Arguments) -> int:
    """Print the reports' claims with their verdicts."""
    return _print_claims(a, a.report)


def do_demo(a: Arguments) -> int:
    """Run the whole path on digits."""
    from resfit.demo import run_demo

    value = run_demo(a.out)
    if a.json:
        print(json_text(value))
    return 0


def _print_run(a: Arguments, run: "Run") -> None:
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes one speaks
        show(a, {"run": str(run.folder), **run.summary}, str(run.folder))


def _print_claims(a: Arguments, report: str | None = None, recipe: str | None = None, **more: str) -> int:
    from resfit.published import claim_rows, load_reports, read_results, select, to_text

    reports = select(load_reports(), report)
    rows = claim_rows(reports, read_results(a.results), recipe)
    show(a, {**more, "claims": rows}, to_text(rows, reports))
    return 0
