"""predict: images in, answers out."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from resfit import printing
from resfit.errors import UsageError
from resfit.escaping import json_text
from resfit.verbs.options import Add, Arguments, add_device
from resfit.verbs.output import say

if TYPE_CHECKING:
    from resfit.evaluation.answers import Answers


def add(verb: Add) -> None:
    """Add these verbs and their options."""
    p = verb("predict", do_predict, "Predict images with one or several runs (their probabilities are averaged).")
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
    add_device(p)


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
        say(printing.prediction_text(report, out))
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
