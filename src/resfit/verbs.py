"""The verbs: each calls one library function, imported inside, and prints. Text for people goes to stderr, data to stdout."""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resfit import findings, printing
from resfit.errors import UsageError
from resfit.escaping import json_text

if TYPE_CHECKING:
    from resfit.evaluation.answers import Answers
    from resfit.runs import Run

Arguments = argparse.Namespace
Verb = Callable[[Arguments], int]  # returns the exit code


def _print(a: Arguments, value: Any, text: str) -> None:
    print(json_text(value) if a.json else printing.lines_text(text))


def _say(text: str) -> None:
    print(printing.lines_text(text), file=sys.stderr)


def do_cost(a: Arguments) -> int:
    """Print what a network costs; 3 where it exceeds a limit that was given."""
    from dataclasses import asdict

    from resfit.budget import Budget, check_budget, parse_size
    from resfit.models.families import cost, layers
    from resfit.models.networks import network
    from resfit.models.spec import spec_to_dict

    limits = {f"max_{name}": getattr(a, f"max_{name}") for name in ("params", "macs", "bytes", "ram")}
    asked: dict[str, Any] = {key: parse_size(text) for key, text in limits.items() if text is not None}
    try:
        spec = network(a.network)
    except UsageError:
        from resfit.recipefile import load_recipe, recipe_names

        if a.network not in recipe_names():
            raise
        spec = load_recipe(a.network).network  # a recipe's name means its network
    total = cost(spec)
    budget = Budget(**({"max_params": None} | asked)) if asked else Budget()
    verdict = check_budget(total, budget)
    value = {
        "name": a.network,
        "spec": spec_to_dict(spec),
        "params": total.params,
        "macs": total.macs,
        "activations": total.activations,
        "weight_bytes": total.weight_bytes,
        "ram": total.peak,
        "memory_mb": total.memory_mb,
        "budget": asdict(budget) | {"ok": verdict.ok, "verdict": verdict.text},
    }
    rows = layers(spec) if a.layers else []
    shown = {"layers": [row._asdict() for row in rows]} if a.layers else {}
    _print(a, value | shown, printing.cost_text(a.network, spec, total, verdict, rows))
    if asked and not verdict.ok:
        _say(f"resfit: {a.network}: {verdict.text}")
        return 3
    return 0


def do_design(a: Arguments) -> int:
    """Print the networks that fill a budget; 3 where none does."""
    from resfit.budget import Budget, parse_duration, parse_size
    from resfit.models.networks import network
    from resfit.models.spec import parse_setting
    from resfit.solver.answer import answer, to_text
    from resfit.solver.exact import design
    from resfit.solver.expected import load_expected
    from resfit.solver.ranges import default_ranges, fix, near_ranges

    if a.top < 1:
        raise UsageError(f"--top: {a.top} is not 1 or more.")
    limits = {f"max_{name}": getattr(a, f"max_{name}") for name in ("params", "macs", "bytes", "ram")}
    asked: dict[str, Any] = {key: parse_size(text) for key, text in limits.items() if text is not None}
    more = {key: value for key in ("image_size", "classes") if (value := getattr(a, key)) is not None}
    if a.near:
        if a.family or a.stages:
            raise UsageError("--near: takes family and stages from the network. Leave --family and --stages out.")
        ranges = near_ranges(network(a.near), a.width_step, more)
    else:
        ranges = default_ranges(a.family, a.stages, a.width_step, more)
    ranges = fix(ranges, dict(map(parse_setting, a.fix)))
    budget, rule = Budget(**asked), load_expected()
    if a.max_latency is None:
        value = answer(design(budget, ranges, a.top, rule), budget, rule)
    else:
        from resfit.solver.latency import design_measured

        found = design_measured(parse_duration(a.max_latency), budget, ranges, a.top, rule)
        value = answer([one for one, _ in found], budget, rule)
        for row, (_, seconds) in zip(value["networks"], found, strict=True):
            row["latency_ms"] = round(1000 * seconds, 3)
    if a.score:
        from resfit.solver.scores import score_network

        for row in value["networks"]:
            row |= score_network(network(row["network"]))
    _print(a, value, to_text(value))
    return 0


def do_search(a: Arguments) -> int:
    """Search a space, and print what was found."""
    from resfit.budget import parse_duration
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
    _print(a, found, to_text(found))
    return 0


def do_list(a: Arguments) -> int:
    """Print the networks and recipes known by name."""
    from resfit.models.families import cost
    from resfit.models.networks import NETWORKS, network
    from resfit.plugins import TABLES, defaults
    from resfit.recipefile import recipe_titles
    from resfit.study.space import space_titles

    recipes, techniques = recipe_titles(), {kind: defaults(kind) for kind in TABLES}
    rows = [(name, cost(network(name))) for name in NETWORKS]
    networks = [{"name": name, "params": total.params, "macs": total.macs} for name, total in rows]
    _print(
        a,
        {"networks": networks, "recipes": recipes, "spaces": space_titles(), "techniques": techniques},
        printing.list_text(rows, recipes, space_titles(), techniques),
    )
    return 0


def do_train(a: Arguments) -> int:
    """Train one run, or one a seed, and print its folder."""
    from resfit.training.launch import train
    from resfit.training.seeds import train_seeds

    if a.seeds is not None:
        if a.seeds < 1:
            raise UsageError("train: --seeds: must be at least 1. See `resfit train --help`.")
        run = train_seeds(a.recipe, a.data, a.out, seeds=a.seeds, refit=a.refit, device=a.device, settings=a.set)
        scores = run.summary["val_accuracy"]
        if scores and scores["std"] is not None:
            _say(printing.seeds_text(scores, "val"))
        _say(f"all seeds: {run.folder}")
    else:
        run = train(a.recipe, a.data, a.out, seed=a.seed, refit=a.refit, device=a.device, settings=a.set)
    _print_run(a, run)
    return 0


def do_resume(a: Arguments) -> int:
    """Continue a run and print its folder."""
    from resfit.training.launch import resume

    run = resume(a.folder, a.data, fresh=a.fresh)
    _print_run(a, run)
    return 0


def _print_run(a: Arguments, run: "Run") -> None:
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes one speaks
        _print(a, {"run": str(run.folder), **run.summary}, str(run.folder))


def do_evaluate(a: Arguments) -> int:
    """Print a run's score on its validation split, or each seed's and their mean; with --full all that the split tells."""
    from resfit.evaluation.depth import evaluate_fully
    from resfit.evaluation.holdout import evaluate, over_seeds
    from resfit.runs import seed_runs

    def judge(folder: str | Path) -> dict[str, Any]:
        return evaluate_fully(folder, a.data, a.device, _say) if a.full else evaluate(folder, a.data, a.device)

    def one_text(value: dict[str, Any]) -> str:
        return findings.full_text(value) if a.full else printing.score_text(value, "val")

    if seed_runs(a.folder):
        value = over_seeds(a.folder, judge)
        fully = [f"{seed['run']}\n{one_text(seed)}\n" for seed in value["seeds"]] if a.full else []
        text = "\n".join([*fully, printing.each_seed_text(value, "val")])
    else:
        value = judge(a.folder)
        text = one_text(value)
    _print(a, {"run": a.folder, "split": "val", **value}, text)
    return 0


def do_test(a: Arguments) -> int:
    """Print a run's score on its test split, and which opening it was; or each seed's, and their mean."""
    from resfit.evaluation.holdout import over_seeds, test
    from resfit.runs import seed_runs

    def judge(folder: str | Path) -> dict[str, Any]:
        receipt = test(folder, a.data, a.device, a.again)
        if not receipt["reopened"]:
            _say(f"tested on {receipt['when']}; this is the receipt. --again opens the test split once more.")
        return receipt

    if seed_runs(a.folder):
        value = {"split": "test", **over_seeds(a.folder, judge)}
        text = printing.each_seed_text(value, "test")
    else:
        value = judge(a.folder)
        text = printing.receipt_text(value)
    _print(a, {"run": a.folder, **value}, text)
    return 0


def do_compare(a: Arguments) -> int:
    """Print whether one run is better than another, with the interval."""
    from resfit.evaluation.comparison import compare

    value = compare(a.a, a.b)
    _print(a, value, findings.comparison_text(value))
    return 0


def do_predict(a: Arguments) -> int:
    """Predict images and write a table, the CSV, or JSON lines."""
    from resfit import durable
    from resfit.evaluation.answers import describe, follow_sample, predict

    form = _form(a)
    runs, paths = _runs_and_paths(a)
    answers = predict(runs, paths, a.device)
    if a.sample is not None:
        answers = follow_sample(answers, a.sample)
    text = _answers_text(a, form, answers)
    if a.out is not None and a.out.exists() and not a.out.is_file():
        with a.out.open("w", encoding="utf-8") as device:  # /dev/stdout, a pipe: there is nothing to replace
            device.write(text)
    elif a.out is not None:
        durable.write_text(a.out, text)
    elif not a.json:
        sys.stdout.write(text)
    report, out = describe(answers), str(a.out) if a.out else None
    if a.json:
        rows = zip(answers.ids, answers.labels.tolist(), strict=True)
        shown = {} if a.out else {"predictions": [{"ID": name, "Labels": label} for name, label in rows]}
        print(json_text({"runs": runs, "out": out, **report, **shown}))
    else:
        sys.stdout.flush()  # before what is said of it
        _say(printing.prediction_text(report, out))
    return 0


def _form(a: Arguments) -> str:
    """Return what `predict` writes: csv, jsonl or table, as asked for, by the suffix of -o, or for who reads stdout."""
    if a.top is not None and a.top < 1:
        raise UsageError(f"predict: --top: {a.top} is not 1 or more.")
    if a.json and not a.out and a.format:
        raise UsageError("predict: --format: is for -o or stdout, which --json takes. Leave one of the two out.")
    given, suffix = a.format, a.out.suffix.lower() if a.out else ""
    if given is None and suffix == ".json":
        raise UsageError(
            f"predict: {a.out}: JSON lines have the suffix .jsonl. Name it so, or use --json for one object."
        )
    table = a.out is None and sys.stdout.isatty() and a.sample is None
    form = given or ("jsonl" if suffix in (".jsonl", ".ndjson") else "table" if table else "csv")
    for option, named, forms in (("--sample", a.sample, ("csv",)), ("--top", a.top, ("jsonl", "table"))):
        if named is not None and form not in forms:
            raise UsageError(
                f"predict: {option}: is for {' and '.join(forms)}, not for {form}. See `resfit predict --help`."
            )
    a.out = None if a.out == Path("-") else a.out
    return str(form)


def _runs_and_paths(a: Arguments) -> tuple[list[str], list[str]]:
    """Return the runs and the images that were named; raises UsageError where one is missing, or would be overwritten."""
    from resfit.data.unlabelled import STDIN, read_paths

    runs = [run for word in a.words if _is_run(Path(word)) for run in _each_seed(word)]
    paths = [word for word in a.words if not _is_run(Path(word))]
    if not runs:
        raise UsageError(f"predict: {a.words[0]}: is no finished run or bundle. Name runs first, then images.")
    if not paths and not a.files_from:
        raise UsageError(
            "predict: no images given. Name files, folders, an .npz or the competition pickle after the run."
        )
    if paths.count(STDIN) + (a.files_from == STDIN) > 1:
        raise UsageError("predict: -: standard input is named twice, and can be read once. Name it once.")
    listed = read_paths(a.files_from) if a.files_from else []
    if a.out is not None and a.out.exists():
        read = [Path(word) for word in [*paths, *listed, *filter(None, (a.sample, a.files_from))] if word != STDIN]
        if any(path.exists() and path.samefile(a.out) for path in read):
            raise UsageError(f"predict: {a.out}: is read here, so that writing it would destroy it. Choose another -o.")
        if a.out.is_dir():
            raise UsageError(f"predict: {a.out}: is a folder. Name a file for -o.")
    return runs, [*paths, *listed]


def _answers_text(a: Arguments, form: str, answers: "Answers") -> str:
    from resfit.evaluation.answers import ranked, to_csv, to_jsonl

    if form == "csv":
        return to_csv(answers, a.names)
    if form == "jsonl":
        return to_jsonl(answers, a.top)
    width = shutil.get_terminal_size().columns if a.out is None and sys.stdout.isatty() else None
    return printing.answers_text(answers.ids, ranked(answers, a.top or 3), answers.class_names, width) + "\n"


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in ("run.json", "config.json", "seeds.json"))


def _each_seed(word: str) -> list[str]:
    """Return the runs below a parent of --seeds, or the one run itself."""
    if not (Path(word) / "seeds.json").is_file():
        return [word]
    from resfit.runs import seed_runs  # imports pydantic, which takes as long as one image's answer

    return [str(run.folder) for run in seed_runs(word)]


def do_export(a: Arguments) -> int:
    """Export a run's network through its gate, and print what it is worth beside PyTorch."""
    from resfit.shipping.export import export

    value = export(a.folder, a.format, int8=a.int8, float16=a.float16, data=a.data, out=a.out)
    _print(a, {"run": a.folder, **value}, printing.export_text(value))
    return 0


def do_serve(a: Arguments) -> int:
    """Serve a bundle until a signal comes; say where on stderr."""
    from resfit.budget import parse_size
    from resfit.shipping.server import serve

    sizes = {key: parse_size(text) for key in ("max_bytes", "max_pixels") if (text := getattr(a, key)) is not None}
    if a.read_seconds is not None and not 0 < a.read_seconds <= 3600:
        raise UsageError(f"--read-seconds: {a.read_seconds:g} is not between 0 and 3600.")

    def ready(address: str, facts: dict[str, Any]) -> None:
        if a.json:
            print(json.dumps({"address": address, "model": facts["name"], "classes": facts["classes"]}), flush=True)
        _say(printing.serve_text(address, facts))

    serve(a.folder, a.host, a.port, **sizes, read_seconds=a.read_seconds, ready=ready)
    return 0


def do_push(a: Arguments) -> int:
    """Upload a bundle to the Hugging Face Hub; what goes is said before it does."""
    from resfit.shipping.hub import push

    def show(value: dict[str, Any]) -> None:
        _say(printing.upload_text(value))

    value = push(a.folder, a.repo, public=a.public, dataset=a.dataset, dry_run=a.dry_run, show=show)
    if a.json:
        print(json_text(value))
    elif not a.dry_run:
        print(printing.pushed_text(value))
    return 0


def do_pull(a: Arguments) -> int:
    """Download a bundle from the Hugging Face Hub and print what it is."""
    from resfit.shipping.hub import pull

    value = pull(a.repo, a.out)
    _print(a, value, printing.pulled_text(value))
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
        _say(printing.curves_text(value, str(a.out)))
    return 0


def do_report(a: Arguments) -> int:
    """Write the page of one or several runs."""
    from resfit.reporting.page import report

    value = report(a.paths, a.out, a.data)
    for note in value["notes"]:
        _say(note)
    if a.json:
        print(json_text(value))
    else:
        _say(printing.report_text(value))
    return 0


def do_data_info(a: Arguments) -> int:
    """Print what is recognised of a data set."""
    from resfit.data.inspection import info

    value = info(a.source, a.image_size)
    _print(a, value, printing.info_text(value))
    return 0


def do_data_check(a: Arguments) -> int:
    """Read every image of a data set and print what is wrong; 4 where training or its score would be."""
    from resfit.data.inspection import check

    value = check(a.source)
    _print(a, value, printing.check_text(value))
    return 0 if value["ok"] else 4


def do_data_prepare(a: Arguments) -> int:
    """Decode a data set into the cache."""
    from resfit.data.inspection import prepare

    value = prepare(a.source, a.image_size)
    _print(a, value, printing.prepare_text(value))
    return 0


def do_claims(a: Arguments) -> int:
    """Print the reports' claims with their verdicts."""
    return _print_claims(a, a.report)


def do_reproduce(a: Arguments) -> int:
    """Train and test a report's row, and print its claims with their verdicts."""
    from resfit.published import reproduce

    words = {"seeds": a.seeds, "refit": a.refit, "settings": a.set, "out": a.out, "results": a.results}
    file = reproduce(a.recipe, a.data, device=a.device, **words)
    record = json.loads(file.read_text())
    low, high = record["spread"]
    _say(
        f"test accuracy {record['value']:.2%} (n {record['n']}, {low:.2%} to {high:.2%}, {record['data']}); record: {file}"
    )
    return _print_claims(a, recipe=a.recipe, record=str(file))


def _print_claims(a: Arguments, report: str | None = None, recipe: str | None = None, **more: str) -> int:
    from resfit.published import claim_rows, load_reports, read_results, select, to_text

    reports = select(load_reports(), report)
    rows = claim_rows(reports, read_results(a.results), recipe)
    _print(a, {**more, "claims": rows}, to_text(rows, reports))
    return 0


def do_demo(a: Arguments) -> int:
    """Run the whole path on digits."""
    from resfit.demo import run_demo

    value = run_demo(a.out)
    if a.json:
        print(json_text(value))
    return 0


def do_bench(a: Arguments) -> int:
    """Measure the machine and the networks on it."""
    if a.seconds <= 0:
        raise UsageError("bench: --seconds: must be more than 0. See `resfit bench --help`.")
    from resfit.bench import run_bench

    value = run_bench(a.networks, a.device, a.seconds)
    _print(a, value, printing.bench_text(value))
    return 0


def do_doctor(a: Arguments) -> int:
    """Print versions, devices, extras, folders and data."""
    from resfit.doctor import examine, to_text

    value = examine()
    _print(a, value, to_text(value))
    return 0
