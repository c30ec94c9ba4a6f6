"""The command line: the parser, and every error as one line with its exit code. What a verb does is in `verbs`."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import resfit
from resfit import verbs
from resfit.errors import ResfitError, UsageError, nearest
from resfit.escaping import visible


class Parser(argparse.ArgumentParser):
    """argparse with errors as one line that names the nearest right words."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing the usage and exiting."""
        verb = self.prog.removeprefix("resfit").strip()
        raise UsageError(f"{verb + ': ' if verb else ''}{message}. See `{self.prog} --help`.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as the process lives
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        code = _run([word for word in words if word != "--debug"])
        sys.stdout.flush()
        return code
    except ResfitError as error:
        if debug:
            raise
        if error.claimed or not _is_echo(words):
            _fail(" ".join(str(error).split()))
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


def _fail(line: str) -> None:
    """Print an error's one line; nothing that a file is called acts on the terminal."""
    print(f"resfit: {visible(line)}", file=sys.stderr)


def _end(number: int, frame: object) -> None:
    """End as an error does, so that what is half-built is removed; training has a handler of its own."""
    raise SystemExit(128 + number)


def _is_echo(words: list[str]) -> bool:
    """Return whether another process, torchrun's first on this machine, has met the same error before they joined."""
    return words[:1] in (["train"], ["resume"]) and os.environ.get("LOCAL_RANK", "0") != "0"


def _unexpected(error: Exception) -> int:
    if hasattr(error, "exit_code"):  # training was stopped by a signal and has said so
        return int(error.exit_code)
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, OSError) and error.errno:  # of a file that nobody had an answer for: no mistake of the program
        where, what = error.filename or "a file", error.strerror
        _fail(f"{where}: {what}. See to the disk and its rights, and run it again.")
        return 6
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        _fail(f"out of memory: {text}. Use a smaller train.batch_size or network.")
        return 6
    _fail(f"unexpected {type(error).__name__}: {text}. Run it again with --debug to see where.")
    return 1


def _run(words: list[str]) -> int:
    parser, known = _parser()
    if not words:
        parser.print_help(sys.stderr)
        return 2
    if words[0].startswith("-") and words[0] not in ("-h", "--help", "--version"):
        raise UsageError(
            f"{words[0]}: no verb stands before it. Write `resfit VERB {words[0]}`, and see `resfit --help`."
        )
    if not words[0].startswith("-") and words[0] not in known:
        raise UsageError(f"{words[0]}: no such verb.{nearest(words[0], known)} See `resfit --help`.")
    arguments, rest = parser.parse_known_args(words)
    if rest:
        verb = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
        options = [o for action in known[verb]._actions for o in action.option_strings]
        kind = "no such option" if rest[0].startswith("-") else "one argument too many"
        raise UsageError(f"{verb}: {rest[0]}: {kind}.{nearest(rest[0], options)} See `resfit {verb} --help`.")
    run: verbs.Verb = arguments.run
    return run(arguments)


def _parser() -> tuple[Parser, dict[str, Parser]]:
    parser = Parser(
        prog="resfit", description=resfit.__doc__.splitlines()[0] if resfit.__doc__ else "", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"resfit {resfit.__version__}")
    group = parser.add_subparsers(metavar="VERB", required=True)
    known: dict[str, Parser] = {}

    def verb(name: str, run: verbs.Verb, text: str) -> Parser:
        made = group.add_parser(name, help=text, description=text, allow_abbrev=False)
        made.set_defaults(run=run)
        _flags(made, False)
        known[name] = made
        return made

    p = verb("cost", verbs.do_cost, "Count a network's parameters, multiply-accumulates and memory.")
    p.add_argument(
        "network", metavar="NAME|SPEC", help="a name of `resfit list`, or a spec such as resnet:widths=16,32:..."
    )
    p.add_argument("--layers", action="store_true", help="show every layer's output shape, params and macs")
    for limit in ("params", "macs", "bytes", "ram"):
        p.add_argument(f"--max-{limit}", metavar="SIZE", help=f"exit 3 above this many {limit}, e.g. 5M")

    p = verb("design", verbs.do_design, "Find the networks that fill a budget, the most accurate expected first.")
    for limit, unit in (
        ("params", "parameters (default 5M)"),
        ("macs", "multiply-accumulates an image"),
        ("bytes", "bytes of float32 weights"),
        ("ram", "bytes of activations alive at once, at int8"),
    ):
        p.add_argument(f"--max-{limit}", metavar="SIZE", help=f"at most this many {unit}, e.g. 500k")
    p.add_argument(
        "--max-latency", metavar="TIME", help="at most this long for one image on this machine's CPU, e.g. 5ms"
    )
    p.add_argument("--image-size", type=int, metavar="N", help="pixels of a side (default 32)")
    p.add_argument("--classes", type=int, metavar="N", help="number of classes (default 10)")
    p.add_argument("--family", action="append", default=[], help="search this family only; may be given again")
    p.add_argument("--stages", action="append", default=[], type=int, metavar="N", help="so many stages (default 3)")
    p.add_argument("--width-step", type=int, default=8, metavar="N", help="widths are multiples of this (default 8)")
    p.add_argument("--near", metavar="NAME|SPEC", help="stay close to this network")
    p.add_argument(
        "--fix", action="append", default=[], metavar="KEY=VALUE", help="fix a field, e.g. widths=64,128,256"
    )
    p.add_argument("--score", action="store_true", help="build what is found and add training-free scores")
    p.add_argument("--top", type=int, default=10, metavar="N", help="show so many (default 10)")

    p = verb("search", verbs.do_search, "Try recipes of a space under its budget, on the validation split.")
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
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default auto)")
    p.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of every recipe, or search.KEY"
    )

    verb("list", verbs.do_list, "List the networks, recipes and spaces known by name.")

    p = verb("train", verbs.do_train, "Train a recipe, or a network by the default recipe, on images.")
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

    p = verb("resume", verbs.do_resume, "Continue a run that was interrupted: on the CPU, to the same bytes.")
    p.add_argument("folder", metavar="RUN")
    p.add_argument("--data", metavar="PATH", help="where the images are now, if they moved")
    p.add_argument("--fresh", action="store_true", help="start over in this folder, by its recipe and seed")

    p = verb("evaluate", verbs.do_evaluate, "Score a run on its validation split.")
    p.add_argument("folder", metavar="RUN")
    p.add_argument(
        "--full",
        action="store_true",
        help="mistakes, calibration, corruptions, duplicates, labels too; writes RUN/evaluation.json",
    )
    p.add_argument("--data", metavar="PATH", help="where the images are now, if they moved")
    _device(p)

    p = verb("test", verbs.do_test, "Open the test split once, score the run on it, and keep the receipt.")
    p.add_argument("folder", metavar="RUN")
    p.add_argument("--data", metavar="PATH", help="where the images are now, if they moved")
    p.add_argument("--again", action="store_true", help="open the test split again; the ledger counts it")
    _device(p)

    p = verb("compare", verbs.do_compare, "Say whether run A is better than run B on the same validation images.")
    p.add_argument("a", metavar="A", help="a finished run, or a parent of --seeds")
    p.add_argument("b", metavar="B", help="another one, on the same validation images")

    p = verb("predict", verbs.do_predict, "Predict images with one or several runs (their probabilities are averaged).")
    p.add_argument(
        "words",
        nargs="+",
        metavar="RUN [RUN ...] PATH [PATH ...]",
        help="runs first, then images: files, folders, an .npz, the competition pickle, or - for one image on stdin",
    )
    p.add_argument(
        "--files-from",
        metavar="FILE",
        help="predict the paths that FILE (-: stdin) lists, one a line, or ended by zero bytes as `find -print0` does",
    )
    p.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        type=Path,
        help="where to write: .csv, .jsonl (default: stdout, a terminal: a table)",
    )
    p.add_argument(
        "--format",
        choices=("csv", "jsonl", "table"),
        help="csv: ID,Labels; jsonl: an object an image, with probabilities",
    )
    p.add_argument("--top", type=int, metavar="K", help="classes an image in jsonl (default all) and table (default 3)")
    p.add_argument("--names", action="store_true", help="csv: write class names instead of indices")
    p.add_argument(
        "--sample",
        metavar="CSV",
        type=Path,
        help="a sample submission: its header and order are taken, its ids must match",
    )
    _device(p)

    p = verb(
        "export", verbs.do_export, "Write a run's network as one file for other programs, once it answers the same."
    )
    p.add_argument("folder", metavar="RUN", help="a finished run, or a bundle folder with --data")
    p.add_argument("--format", default="onnx", metavar="onnx|pt2|safetensors", help="what to write (default onnx)")
    smaller = p.add_mutually_exclusive_group()
    smaller.add_argument("--int8", action="store_true", help="8-bit integers (onnx), a quarter of the bytes")
    smaller.add_argument("--float16", action="store_true", help="16-bit floats, half of the bytes")
    p.add_argument("--data", metavar="PATH", help="where the images are now, if they moved")
    p.add_argument("--out", metavar="DIR", type=Path, help="where to write (default RUN/export, and RUN/bundle)")

    p = verb("serve", verbs.do_serve, "Answer images over HTTP, with a page to drop them on, until Ctrl-C.")
    p.add_argument("folder", metavar="RUN|BUNDLE", help="an exported run, its bundle, or an exported .onnx file")
    p.add_argument(
        "--host", default="127.0.0.1", help="the address to listen at (default 127.0.0.1: this machine only)"
    )
    p.add_argument("--port", type=int, default=8000, metavar="N", help="the port (default 8000; 0: any free one)")
    p.add_argument("--max-bytes", metavar="SIZE", help="a request's most bytes (default 16.8M)")
    p.add_argument("--max-pixels", metavar="SIZE", help="its images' most pixels together (default 33.6M)")
    p.add_argument("--read-seconds", type=float, metavar="S", help="how long it may take to arrive (default 10)")
    p = verb("push", verbs.do_push, "Upload a bundle, with its model card, to the Hugging Face Hub.")
    p.add_argument("folder", metavar="RUN|BUNDLE", help="a finished run, or a bundle folder")
    p.add_argument("repo", metavar="OWNER/NAME", help="the repository; made where there is none, for you alone to see")
    p.add_argument("--public", action="store_true", help="make a new repository that all may see")
    p.add_argument(
        "--dataset", metavar="OWNER/NAME", help="the test set's place on the Hub, for the results in the card"
    )
    p.add_argument("--dry-run", action="store_true", help="say what would be uploaded, and send nothing")

    p = verb("pull", verbs.do_pull, "Download a bundle from the Hugging Face Hub, and check it.")
    p.add_argument("repo", metavar="REPO", help="OWNER/NAME, or OWNER/NAME@REVISION; hf:// may stand before it")
    p.add_argument("-o", "--out", metavar="DIR", type=Path, help="where to put it (default: ./NAME)")

    p = verb("curves", verbs.do_curves, "Draw the accuracy and loss curves of runs, side by side, as SVG or PNG.")
    p.add_argument(
        "paths", nargs="+", metavar="RUN", help="run folders, parents of --seeds, or results/reproduce/*.json"
    )
    p.add_argument("-o", "--out", required=True, metavar="FILE", type=Path, help="where to draw: .svg, or .png")
    p.add_argument("--metric", choices=("accuracy", "loss"), help="one panel instead of both")

    p = verb("report", verbs.do_report, "Write one page on one or several runs that opens anywhere, without a network.")
    p.add_argument("paths", nargs="+", metavar="RUN", help="run folders, or parents of --seeds")
    p.add_argument(
        "-o", "--out", metavar="FILE", type=Path, help="the page, .html (default for one run: RUN/report.html)"
    )
    p.add_argument("--data", metavar="PATH", help="where the images are now, if they moved: for thumbnails")

    p = verb("claims", verbs.do_claims, "Show what the reports claim, what was measured, and the verdict.")
    p.add_argument("--report", metavar="NAME", help="one report only: r1, r2, r3, r4 or r5")
    p.add_argument("--results", metavar="DIR", help="read DIR/reproduce (default: ./results, else what is shipped)")

    p = verb(
        "reproduce", verbs.do_reproduce, "Train and test a report's row with several seeds, and show its claims beside."
    )
    p.add_argument("recipe", metavar="RECIPE", help="a shipped recipe, a report's row above all: r4-lighter")
    p.add_argument("--data", required=True, metavar="PATH", help="images as for train; verdicts are for cifar10")
    p.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N-1, finished ones kept (default 3)")
    p.add_argument("--refit", action="store_true", help="train on train + val, as the reports do")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting: makes it another study")
    p.add_argument("--out", metavar="DIR", type=Path, help="where the runs lie (default: runs/reproduce/<name>)")
    p.add_argument("--results", metavar="DIR", default="results", help="write DIR/reproduce/<name>.json")
    _device(p)

    p = verb("demo", verbs.do_demo, "Run the whole path on handwritten digits, in about a minute, without a network.")
    p.add_argument("--out", metavar="DIR", type=Path, help="the run folder (default: runs/digits-<n>)")

    p = verb("bench", verbs.do_bench, "Measure this machine, how much of it the networks use, and say what binds.")
    p.add_argument(
        "networks", nargs="*", metavar="NETWORK", help="networks or recipes (default r4-lighter r1-4 resnet-20)"
    )
    p.add_argument("--seconds", type=float, default=20, metavar="S", help="about how long to measure (default 20)")
    _device(p)

    _data(verb("data", verbs.do_data_info, "Look at images, check them, or decode them into the cache."), known)

    verb("doctor", verbs.do_doctor, "Print versions, devices, extras, writable folders and the data found.")
    return parser, known


def _data(parser: Parser, known: dict[str, Parser]) -> None:
    """Add `data info`, `data check` and `data prepare`."""
    group = parser.add_subparsers(metavar="info|check|prepare", required=True)
    lines: dict[str, tuple[verbs.Verb, str]] = {
        "info": (verbs.do_data_info, "Show what is recognised: splits, classes, sizes, fingerprints, the cache."),
        "check": (verbs.do_data_check, "Read every image and show what is wrong; exit 4 where training would be."),
        "prepare": (verbs.do_data_prepare, "Decode all splits into the cache."),
    }
    for name, (run, text) in lines.items():
        p = group.add_parser(name, help=text, description=text, allow_abbrev=False)
        p.set_defaults(run=run)
        p.add_argument("source", metavar="PATH", help="a folder, archive or .npz, or cifar10, cifar100, digits")
        _flags(p, argparse.SUPPRESS)  # not given here: as before the second word
        if name != "check":
            p.add_argument("--image-size", type=int, default=32, metavar="N", help="pixels of a side (default 32)")
        known[f"data {name}"] = p


def _flags(parser: Parser, default: bool | str) -> None:
    """Add what every verb takes."""
    for flag, does in (
        ("json", "print one JSON object to stdout"),
        ("debug", "show a traceback where something fails"),
    ):
        parser.add_argument(f"--{flag}", action="store_true", default=default, help=does)


def _device(parser: Parser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default auto)")
