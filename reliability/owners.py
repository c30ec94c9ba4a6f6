"""Several processes started on one folder at one moment: one trains, the others leave with one line and change nothing."""

import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import forks
import tiny
from figure import Figure, Round, spread

MOST = 8  # processes
EACH = 15
HOWS = ("train, new folder", "resume, interrupted", "resume and train", "after a holder's SIGKILL", "beside a holder")
RECIPE = "default"


def rounds(base: Path) -> list[Round]:
    """Return rounds of each way to start and each number of processes."""
    return spread(
        [
            Round(f"{how}, {count} processes", str(number), (how, count))
            for how in HOWS
            for count in range(2, MOST + 1)
            for number in range(EACH)
        ]
    )


def check(base: Path, folder: Path, item: Round) -> str:
    """Start the processes; exactly one trains, to the bytes of its own seed, and none hangs."""
    how, count = item.what
    draw = random.Random(item.key)
    out = folder / "run"
    for seed in range(count):
        tiny.whole(base, RECIPE, "--seed", seed)
    if how == "train, new folder":
        return _one_owner(base, folder, ["train"] * count)
    if how in ("resume, interrupted", "resume and train"):
        _interrupt(base, out, draw)
        words = ["resume"] * count if how == "resume, interrupted" else ["resume", "train"] * (count // 2) + ["resume"]
        return _one_owner(base, folder, words)
    holder = _held(base, folder)
    try:
        if how == "beside a holder":
            return _nobody(base, folder, ["train", "resume"] * (count // 2))
    finally:
        forks.kill(holder)
    return _one_owner(base, folder, ["resume"] * count)


def _interrupt(base: Path, out: Path, draw: random.Random) -> None:
    """Leave a run of seed 0 as a kill in its last epoch does."""
    from resfit import durable
    from resfit.runs import Run
    from resfit.training.checkpoint import checkpoints

    shutil.copytree(base / "whole" / f"{RECIPE}---seed-0", out)
    run = Run(out)
    run.update(status="running")
    run.summary_file.unlink()
    shutil.rmtree(run.bundle)
    checkpoints(run.checkpoints)[-1].unlink()
    if draw.random() < 0.5:  # killed before the row was written, or after
        durable.write_text(run.metrics_file, "".join(run.metrics_file.read_text().splitlines(keepends=True)[:-1]))


def _held(base: Path, folder: Path) -> int:
    """Start a process that trains, stop it in the middle of an epoch, and return its id."""
    out = folder / "run"
    holder = forks.start(lambda: tiny.begin(base, RECIPE, out, "--seed", 0), folder / "holder.log")
    deadline = time.monotonic() + forks.BOUND
    while not list((out / "checkpoints").glob("step-*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(holder, signal.SIGSTOP)
    return holder


def _together(base: Path, folder: Path, words: list[str]) -> list[tuple[int, str]]:
    """Start a process a word at one moment; returns each one's exit code and what it said."""
    gate, out = forks.Gate(), folder / "run"
    logs = [folder / f"{number}.log" for number in range(len(words))]

    def task(word: str, seed: int) -> int:
        return tiny.command("resume", out) if word == "resume" else tiny.begin(base, RECIPE, out, "--seed", seed)

    children = [
        forks.start(lambda word=word, seed=seed: task(word, seed), log, gate)  # type: ignore[misc]
        for seed, (word, log) in enumerate(zip(words, logs, strict=True))
    ]
    gate.open()
    return [(forks.wait(child), log.read_text()) for child, log in zip(children, logs, strict=True)]


def _one_owner(base: Path, folder: Path, words: list[str]) -> str:
    ends = _together(base, folder, words)
    owners = [number for number, (code, text) in enumerate(ends) if re.search(r"^epoch \d+/", text, re.M)]
    if len(owners) != 1:
        return f"{len(owners)} processes trained"
    if ends[owners[0]][0]:
        return f"the owner's exit code {ends[owners[0]][0]}: {ends[owners[0]][1].splitlines()[-1:]}"
    for number, (code, text) in enumerate(ends):
        if number not in owners and (problem := _bad_loser(code, text)):
            return problem
    seed = owners[0] if words[owners[0]] == "train" else 0
    return tiny.lost(base, RECIPE, folder / "run", "--seed", seed)


def _nobody(base: Path, folder: Path, words: list[str]) -> str:
    """Return what is wrong where a holder lives: all must leave, and change nothing of its files."""
    before = _files(folder / "run")
    for code, text in _together(base, folder, words):
        if problem := _bad_loser(code, text):
            return problem
        if code == 0:
            return "said that a run had finished that had not"
    changed = [name for name, data in _files(folder / "run").items() if before.get(name) != data]
    return f"changed {', '.join(changed)}" if changed else ""


def _bad_loser(code: int, text: str) -> str:
    lines = text.strip().splitlines()
    if code == 0 and lines and any("has finished already" in line for line in lines):
        return ""  # it came when the owner was done
    if code not in (2, 6) or "Traceback" in text or not lines or not lines[-1].startswith("resfit: "):
        return f"a loser's exit code {code}: {lines[-1:]}"
    return ""


def _files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


FIGURE = Figure("2 to 8 processes started on one folder: none or two owners, or another's files changed", rounds, check)
