"""The command line: the parser, and every error as one line with its exit code. What a verb does is in `verbs`."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

import resfit
from resfit.errors import ResfitError, UsageError, nearest
from resfit.escaping import visible
from resfit.verbs import add_verbs
from resfit.verbs.options import Verb


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
    run: Verb = arguments.run
    return run(arguments)


def _parser() -> tuple[Parser, dict[str, Parser]]:
    """Return the parser, and each verb's own by name; `data info` is one below that of `data`."""
    parser = Parser(
        prog="resfit", description=resfit.__doc__.splitlines()[0] if resfit.__doc__ else "", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"resfit {resfit.__version__}")
    groups, known = {"": parser.add_subparsers(metavar="VERB", required=True)}, dict[str, Parser]()

    def verb(name: str, run: Verb, text: str) -> Parser:
        above, _, word = name.rpartition(" ")
        if above not in groups:
            groups[above] = known[above].add_subparsers(required=True)
        made = groups[above].add_parser(word, help=text, description=text, allow_abbrev=False)
        if above:
            groups[above].metavar = "|".join(groups[above].choices)
        made.set_defaults(run=run)
        for flag, does in (
            ("json", "print one JSON object to stdout"),
            ("debug", "show a traceback where something fails"),
        ):  # not given after the second word: as before it
            default = argparse.SUPPRESS if above else False
            made.add_argument(f"--{flag}", action="store_true", default=default, help=does)
        known[name] = made
        return made

    add_verbs(verb)
    return parser, known
