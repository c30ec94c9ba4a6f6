"""The command line: parse, call one library function, print. Text for people goes to stderr, data to stdout."""

import argparse
import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import resfit
from resfit.errors import ResfitError, UsageError, nearest

Arguments = argparse.Namespace


class Parser(argparse.ArgumentParser):
    """argparse with errors as one line that names the nearest right words."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing the usage and exiting."""
        verb = self.prog.removeprefix("resfit").strip()
        raise UsageError(f"{verb + ': ' if verb else ''}{message}. See `{self.prog} --help`.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    if sys.stdout is None:  # closed by the caller
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        code = _run([word for word in words if word != "--debug"])
        sys.stdout.flush()
        return code
    except ResfitError as error:
        if debug:
            raise
        print(f"resfit: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `resfit list | head` has what it wanted; a training without its reader has not
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(words[0] in ("train", "resume", "demo"))
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if debug:
            raise
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    if hasattr(error, "exit_code"):  # training was stopped by a signal and has said so
        return int(error.exit_code)
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        print(f"resfit: {text}. Free space or write elsewhere.", file=sys.stderr)
        return 6
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        print(f"resfit: out of memory: {text}. Use a smaller train.batch_size or network.", file=sys.stderr)
        return 6
    print(
        f"resfit: unexpected {type(error).__name__}: {text}. Run it again with --debug to see where.", file=sys.stderr
    )
    return 1


def _run(words: list[str]) -> int:
    parser, verbs = _parser()
    if not words:
        parser.print_help(sys.stderr)
        return 2
    if words[0].startswith("-") and words[0] not in ("-h", "--help", "--version"):
        raise UsageError(
            f"{words[0]}: no verb stands before it. Write `resfit VERB {words[0]}`, and see `resfit --help`."
        )
    if not words[0].startswith("-") and words[0] not in verbs:
        raise UsageError(f"{words[0]}: no such verb.{nearest(words[0], verbs)} See `resfit --help`.")
    arguments, rest = parser.parse_known_args(words)
    if rest:
        options = [o for action in verbs[words[0]]._actions for o in action.option_strings]
        kind = "no such option" if rest[0].startswith("-") else "one argument too many"
        raise UsageError(f"{words[0]}: {rest[0]}: {kind}.{nearest(rest[0], options)} See `resfit {words[0]} --help`.")
    run: Callable[[Arguments], int] = arguments.run
    return run(arguments)


def _parser() -> tuple[Parser, dict[str, Parser]]:
    parser = Parser(
        prog="resfit", description=resfit.__doc__.splitlines()[0] if resfit.__doc__ else "", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"resfit {resfit.__version__}")
    group = parser.add_subparsers(metavar="VERB", required=True)
    verbs: dict[str, Parser] = {}

    def verb(name: str, run: Callable[[Arguments], int], text: str) -> Parser:
        made = group.add_parser(name, help=text, description=text, allow_abbrev=False)
        made.set_defaults(run=run)
        made.add_argument("--json", action="store_true", help="print one JSON object to stdout")
        made.add_argument("--debug", action="store_true", help="show a traceback where something fails")
        verbs[name] = made
        return made

    p = verb("cost", _cost, "Count a network's parameters, multiply-accumulates and memory.")
    p.add_argument(
        "network", metavar="NAME|SPEC", help="a name of `resfit list`, or a spec such as resnet:widths=16,32:..."
    )
    for limit in ("params", "macs", "bytes"):
        p.add_argument(f"--max-{limit}", metavar="SIZE", help=f"exit 3 above this many {limit}, e.g. 5M")

    verb("list", _list, "List the networks and recipes known by name.")

    p = verb("train", _train, "Train a recipe, or a network by the default recipe, on images.")
    p.add_argument("recipe", metavar="RECIPE|NAME", help="a recipe file, or a name of `resfit list`")
    p.add_argument(
        "--data", required=True, metavar="PATH", help="a folder, archive or .npz, or cifar10, cifar100, digits"
    )
    p.add_argument("--out", metavar="DIR", type=Path, help="the run folder (default: runs/<name>-<n>)")
    p.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a recipe setting, e.g. optim.lr=0.2"
    )
    seeds = p.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, default=0, help="seed of weights, order and augmentation (default 0)")
    seeds.add_argument("--seeds", type=int, metavar="N", help="train seeds 0 to N-1 and report their mean and interval")
    p.add_argument("--refit", action="store_true", help="train on train + val and keep the last weights")
    _device(p)

    p = verb("resume", _resume, "Continue a run that was interrupted: on the CPU, to the same bytes.")
    p.add_argument("folder", metavar="RUN")
    p.add_argument("--data", metavar="PATH", help="where the images are now, if they moved")

    p = verb("evaluate", _evaluate, "Score a run on its validation split.")
    p.add_argument("folder", metavar="RUN")
    p.add_argument("--data", metavar="PATH", help="where the images are now, if they moved")
    _device(p)

    p = verb("test", _test, "Open the test split once, score the run on it, and keep the receipt.")
    p.add_argument("folder", metavar="RUN")
    p.add_argument("--data", metavar="PATH", help="where the images are now, if they moved")
    p.add_argument("--again", action="store_true", help="open the test split again; the ledger counts it")
    _device(p)

    p = verb("predict", _predict, "Predict images with one or several runs (their probabilities are averaged).")
    p.add_argument("words", nargs="+", metavar="RUN [RUN ...] PATH [PATH ...]", help="runs first, then images")
    p.add_argument("-o", "--out", metavar="CSV", type=Path, help="where to write ID,Labels (default: stdout)")
    p.add_argument("--names", action="store_true", help="write class names instead of indices")
    p.add_argument(
        "--sample", metavar="CSV", type=Path, help="a sample submission whose header, ids and order must match"
    )
    _device(p)

    p = verb("demo", _demo, "Run the whole path on handwritten digits, in about a minute, without a network.")
    p.add_argument("--out", metavar="DIR", type=Path, help="the run folder (default: runs/digits-<n>)")

    verb("doctor", _doctor, "Print versions, devices, extras, writable folders and the data found.")
    return parser, verbs


def _device(parser: Parser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default auto)")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _say(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _cost(a: Arguments) -> int:
    from dataclasses import asdict

    from resfit.budget import Budget, check_budget, parse_size
    from resfit.models.families import cost
    from resfit.models.networks import network
    from resfit.models.spec import format_spec, spec_to_dict

    limits = {f"max_{name}": getattr(a, f"max_{name}") for name in ("params", "macs", "bytes")}
    asked: dict[str, Any] = {key: parse_size(text) for key, text in limits.items() if text is not None}
    try:
        spec = network(a.network)
    except UsageError:
        from resfit.recipe import load_recipe, recipe_names

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
        "memory_mb": total.memory_mb,
        "budget": asdict(budget) | {"ok": verdict.ok, "verdict": verdict.text},
    }
    if a.json:
        _print_json(value)
    else:
        memory = total.memory_mb
        print(f"{a.network}  {format_spec(spec)}")
        print(f"params       {total.params:>15,}   {total.weight_bytes:,} bytes as float32")
        print(f"macs         {total.macs:>15,}   for one {spec.image_size}x{spec.image_size} image")
        print(f"activations  {total.activations:>15,}")
        shares = (
            f"input {memory['input']:.2f} + activations {memory['activations']:.2f} + params {memory['params']:.2f}"
        )
        print(f"memory       {memory['total']:>12.2f} MB   {shares}, as torchsummary counts")
        print(f"budget       {verdict.text}")
    if asked and not verdict.ok:
        _say(f"resfit: {a.network}: {verdict.text}")
        return 3
    return 0


def _list(a: Arguments) -> int:
    from resfit.models.families import cost
    from resfit.models.networks import NETWORKS, network
    from resfit.recipe import recipe_names

    recipes = recipe_names()
    rows = [(name, cost(network(name))) for name in NETWORKS]
    if a.json:
        networks = [{"name": name, "params": total.params, "macs": total.macs} for name, total in rows]
        _print_json({"networks": networks, "recipes": recipes})
        return 0
    print(f"{'network':<16} {'params':>12} {'macs':>15}")
    for name, total in rows:
        print(f"{name:<16} {total.params:>12,} {total.macs:>15,}")
    print("also resnet-D (D = 6n + 2) and wrn-D-K (D = 6n + 4, any K), and specs: `resfit cost --help`")
    print(f"\nrecipes: {', '.join(recipes)}; any network without one is trained by `default`")
    return 0


def _train(a: Arguments) -> int:
    from resfit.training.launch import train, train_seeds

    if a.seeds is not None:
        if a.seeds < 1:
            raise UsageError("train: --seeds: must be at least 1. See `resfit train --help`.")
        run = train_seeds(a.recipe, a.data, a.out, seeds=a.seeds, refit=a.refit, device=a.device, settings=a.set)
        scores = run.summary["val_accuracy"]
        if scores and scores["std"] is not None:
            low, high = (min(1.0, max(0.0, bound)) for bound in scores["interval"])  # a fraction
            _say(
                f"val accuracy {scores['mean']:.2%} ± {scores['std']:.2%} (n {scores['n']}), mean's 95% {low:.2%} to {high:.2%}"
            )
        _say(f"all seeds: {run.folder}")
    else:
        run = train(a.recipe, a.data, a.out, seed=a.seed, refit=a.refit, device=a.device, settings=a.set)
    _print_run(a, run)
    return 0


def _resume(a: Arguments) -> int:
    from resfit.training.launch import resume

    _print_run(a, resume(a.folder, a.data))
    return 0


def _print_run(a: Arguments, run: Any) -> None:
    if a.json:
        _print_json({"run": str(run.folder), **run.summary})
    else:
        print(run.folder)


def _evaluate(a: Arguments) -> int:
    from resfit.evaluation.holdout import evaluate

    value = evaluate(a.folder, a.data, a.device)
    if a.json:
        _print_json({"run": a.folder, "split": "val", **value})
    else:
        _print_score(value, "val")
    return 0


def _test(a: Arguments) -> int:
    from resfit.evaluation.holdout import test

    receipt = test(a.folder, a.data, a.device, a.again)
    if not receipt["reopened"]:
        _say(f"tested on {receipt['when']}; this is the receipt. --again opens the test split once more.")
    if a.json:
        _print_json({"run": a.folder, **receipt})
        return 0
    _print_score(receipt, "test")
    print(f"opening number {receipt['opening']} of this test set ({receipt['fingerprint']})")
    return 0


def _print_score(value: dict[str, Any], split: str) -> None:
    width = max(len(name) for name in value["classes"])
    for name, row in value["classes"].items():
        shown = f"{row['accuracy']:7.2%}" if row["n"] else "     --"
        low, high = row["interval"]
        print(f"{name:<{width}}  {shown}  {row['correct']:,} of {row['n']:,}  95% {low:.2%} to {high:.2%}")
    low, high = value["interval"]
    print(
        f"{split} accuracy {value['accuracy']:.2%}  95% {low:.2%} to {high:.2%}  n {value['n']:,}  nll {value['nll']:.4f}"
    )
    print(f"trained on {value['train_images']:,} images; weights: {value['weights']}; no test-time augmentation")


def _predict(a: Arguments) -> int:
    from resfit import durable
    from resfit.evaluation.answers import check_sample, predict, to_csv

    runs = [word for word in a.words if _is_run(Path(word))]
    paths = [word for word in a.words if not _is_run(Path(word))]
    if not runs:
        raise UsageError(f"predict: {a.words[0]}: is no finished run or bundle. Name runs first, then images.")
    if not paths:
        raise UsageError(
            "predict: no images given. Name files, folders, an .npz or the competition pickle after the run."
        )
    if a.out is not None and a.out.exists():
        read = [Path(word) for word in [*paths, *([a.sample] if a.sample else [])]]
        if any(path.exists() and path.samefile(a.out) for path in read):
            raise UsageError(f"predict: {a.out}: is read here, so that writing it would destroy it. Choose another -o.")
        if a.out.is_dir():
            raise UsageError(f"predict: {a.out}: is a folder. Name a file for -o.")
    answers = predict(runs, paths, a.device)
    if a.sample is not None:
        check_sample(answers, a.sample)
    text = to_csv(answers, a.names)
    if a.out is not None and a.out.exists() and not a.out.is_file():
        with a.out.open("w") as device:  # /dev/stdout, a pipe: there is nothing to replace
            device.write(text)
    elif a.out is not None:
        durable.write_text(a.out, text)
    elif not a.json:
        sys.stdout.write(text)
    report = _describe(answers)
    if a.json:
        rows = zip(answers.ids, answers.labels.tolist(), strict=True)
        shown = {} if a.out else {"predictions": [{"ID": name, "Labels": label} for name, label in rows]}
        _print_json({"runs": runs, "out": str(a.out) if a.out else None, **report, **shown})
    else:
        _print_prediction(report, str(a.out) if a.out else None)
    return 0


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in ("run.json", "config.json"))


def _describe(answers: Any) -> dict[str, Any]:
    def shares(probs: Any) -> dict[str, float]:
        labels = probs.argmax(1)
        return {name: round(float((labels == k).mean()), 4) for k, name in enumerate(answers.class_names)}

    value = {"n": len(answers.ids), "budget": answers.verdict.text, "within_budget": answers.verdict.ok}
    value |= {"class_shares": shares(answers.probs), "confidence": round(float(answers.probs.max(1).mean()), 4)}
    if answers.val_probs is not None:
        value["val"] = {
            "class_shares": shares(answers.val_probs),
            "confidence": round(float(answers.val_probs.max(1).mean()), 4),
        }
    return value | {"warnings": list(answers.warnings)}


def _print_prediction(report: dict[str, Any], out: str | None) -> None:
    val = report.get("val")
    width = max(len(name) for name in report["class_shares"])
    _say(f"{'predicted':<{width}}  images" + ("     val" if val else ""))
    for name, share in report["class_shares"].items():
        _say(f"{name:<{width}}  {share:6.1%}" + (f"  {val['class_shares'][name]:6.1%}" if val else ""))
    _say(f"{'confidence':<{width}}  {report['confidence']:6.3f}" + (f"  {val['confidence']:6.3f}" if val else ""))
    for warning in report["warnings"]:
        _say(f"warning: {warning}: are these images like the ones it was trained on?")
    _say(f"{report['n']:,} images; {report['budget']}" + (f"; written to {out}" if out else ""))


def _demo(a: Arguments) -> int:
    from resfit.demo import run_demo

    value = run_demo(a.out)
    if a.json:
        _print_json(value)
    return 0


def _doctor(a: Arguments) -> int:
    from resfit.doctor import examine, to_text

    value = examine()
    if a.json:
        _print_json(value)
    else:
        print(to_text(value))
    return 0
