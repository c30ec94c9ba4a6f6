"""A kill before each file system call of each writer, and an error or a short write out of each, once; strace injects them."""

import errno
import os
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import forks
import watch
import writers
from figure import Figure, Round, spread

ERRORS = ("ENOSPC", "EIO", "EROFS", "EACCES")
SHORT = "short"  # the system takes one byte, and says so
READ_ERRORS = ("EIO", "EACCES")
WRITES = ("write", "pwrite64")
ATTEMPTS = 6
# what may fail unsaid, where the end is whole: a look that falls back, a hold let go, the removal of what is not needed, a
# folder that is there already
UNSAID = ("close", "unlink", "rmdir", "mkdir", "openat read")
CACHE = " /cache/"  # can be made again, and is where it does not verify
USER_CODES = (2, 4, 6)  # exit codes of an error that says what to do


@cache
def calls_of(base: Path, name: str) -> list[tuple[str, watch.Call]]:
    """Return each call of a writer on its files, after its kind."""
    return record(base, base / "calls" / name.replace(" ", "-"), name)


def record(base: Path, folder: Path, name: str) -> list[tuple[str, watch.Call]]:
    """Run a writer in a new folder and return its calls as `calls_of` does."""
    folder.mkdir(parents=True)
    work, log = writers.prepared(base, name, folder), folder / "log"
    code, calls = watch.run(writers.at(base, work, writers.WRITERS[name].act), log)
    writers.finish(code, log)
    return [(kind, call) for kind, call in named(calls, work) if re.search(writers.WRITERS[name].files, kind)]


def named(calls: Sequence[watch.Call], work: Path) -> list[tuple[str, watch.Call]]:
    """Return the calls on files of a work folder, each after its kind."""
    return [(watch.kind(call, work), call) for call in calls if str(work) in call.arguments]


def numbered(base: Path, name: str) -> list[tuple[str, int]]:
    """Return the kind of each call of a writer, and which of its kind it is."""
    counts: Counter[str] = Counter()
    found = []
    for kind, _ in calls_of(base, name):
        counts[kind] += 1
        found.append((kind, counts[kind]))
    return found


def kill_rounds(base: Path) -> list[Round]:
    """Return a round for each call of each writer, class: call and file."""
    return spread(
        [
            Round(kind, f"{name} {number}", (name, kind, number))
            for name in writers.WRITERS
            for kind, number in numbered(base, name)
        ]
    )


def error_rounds(base: Path) -> list[Round]:
    """Return a round for each call of each writer and each error, class: call, file and error."""
    return spread(
        [
            Round(f"{kind}: {error}", f"{name} {number}", (name, kind, number, error))
            for name in writers.WRITERS
            for kind, number in numbered(base, name)
            for error in errors_of(kind)
        ]
    )


def errors_of(kind: str) -> tuple[str, ...]:
    """Return what can happen to a call."""
    if kind.startswith("openat read"):
        return READ_ERRORS
    if kind.startswith("close") and not kind.endswith((".tmp", ".jsonl", ".npy")):
        return ()  # of a file that was only read
    return (*ERRORS, SHORT) if kind.startswith(WRITES) else ERRORS


def inject(base: Path, folder: Path, what: tuple[str, str, int], error: str) -> tuple[int, Path, Path]:
    """Run a writer with a kill (no error named) or an error at a call; returns exit code, work folder, and log.

    The place of a call among those of its name differs from run to run, by what has been imported by then: tried anew, from a
    new record where it was missed, until it is hit.
    """
    name, kind, number = what
    place = [call for other, call in calls_of(base, name) if other == kind][number - 1]
    for attempt in range(ATTEMPTS):
        home = folder / str(attempt)
        home.mkdir()
        work, log = writers.prepared(base, name, home), home / "log"
        options = watch.failing(place, error) if error else watch.killing(place)
        code, calls = watch.run(writers.at(base, work, writers.WRITERS[name].act), log, options)
        mine = named(calls, work)
        hit = [other for other, call in mine if call == watch.injected(calls)]
        if hit == [kind]:
            return code, work, log
        same = [call for other, call in mine if other == kind]
        if len(same) < number:
            same = [call for other, call in record(base, home / "anew", name) if other == kind]
        place = same[number - 1] if len(same) >= number else place
    raise RuntimeError(f"{kind} was never hit in {ATTEMPTS} attempts")


def check_kill(base: Path, folder: Path, item: Round) -> str:
    """Kill before the call; a reader sees the old or the new, and who goes on comes to the same end."""
    code, work, log = inject(base, folder, item.what, "")
    if code != -9:
        return f"was not killed: exit code {code}"
    return _after(base, item.what[0], work, log)


def check_error(base: Path, folder: Path, item: Round) -> str:
    """Let the call fail once; that is said, nothing is left lying, and nothing is lost."""
    name, kind, number, error = item.what
    code, work, log = inject(base, folder, (name, kind, number), error)
    text = log.read_text()
    if "Traceback" in text or code not in (0, *USER_CODES):
        return f"exit code {code}: {text.strip().splitlines()[-1:]}"
    if code and not text.strip().splitlines()[-1].startswith("resfit: "):
        return f"exit code {code} without a line that says why"
    before = {path.name for path in writers.template(base, name).rglob("*.tmp")}
    left = [path.name for path in work.rglob("*.tmp") if path.name not in before]
    if left and not kind.startswith(UNSAID):  # what could not be removed is there until the next start
        return f"left {left[0]}"
    if code == 0:
        _, new = writers.values(base, name)
        found = writers.WRITERS[name].read(base, work)
        if found != new:
            return f"exit code 0, and other content: {_differing(found, new)}"
        if not _is_said(error, text) and not kind.startswith(UNSAID) and CACHE not in kind:
            return "exit code 0, and nothing was said"
    return _after(base, name, work, log)


def _after(base: Path, name: str, work: Path, log: Path) -> str:
    writer = writers.WRITERS[name]
    old, new = writers.values(base, name)
    if writer.whole and (found := writer.read(base, work)) not in (old, new):
        return f"neither old nor new: {_differing(found, new)}"
    if code := forks.run(writers.at(base, work, writer.again), log):
        return f"again: exit code {code}: {log.read_text().strip().splitlines()[-1:]}"
    found = writer.read(base, work)
    return f"again: other content: {_differing(found, new)}" if found != new else ""


def _is_said(error: str, text: str) -> bool:
    if error == SHORT:
        return "resfit:" in text or "read back differs" in text
    return os.strerror(getattr(errno, error)) in text


def _differing(found: dict[str, str], wanted: dict[str, str]) -> str:
    return ", ".join(sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)))


KILLS = Figure("a kill before each file system call of each writer: a loss", kill_rounds, check_kill)
FAILURES = Figure("each such call failing once: silent, or a loss", error_rounds, check_error)
