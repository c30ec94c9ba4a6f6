"""SIGKILL at random moments of tiny runs of every recipe: what is resumed comes to the same bytes."""

import random
import shutil
import time
from pathlib import Path

import forks
import tiny
from figure import Figure, Round, spread

QUARTERS = 4  # of the time that the whole run takes
EACH = 2  # of them, one run writes a checkpoint at each epoch, one at each step


def rounds(base: Path) -> list[Round]:
    """Return two kills in every quarter of every recipe's run."""
    found = []
    for recipe in tiny.recipe_names(base):
        for quarter in range(QUARTERS):
            kind = f"{recipe}, quarter {quarter + 1}"
            found += [Round(kind, str(number), (recipe, quarter, number % 2 == 1)) for number in range(EACH)]
    return spread(found)


def check(base: Path, folder: Path, item: Round) -> str:
    """Kill a run, every other time its continuation too, let it end, and compare."""
    recipe, quarter, each_step = item.what
    draw = random.Random(item.key)
    _, seconds = tiny.whole(base, recipe)
    out, log = folder / "run", folder / "log"
    moment = seconds * (quarter + draw.random()) / QUARTERS
    while not _killed(base, recipe, out, log, each_step, moment):  # it was faster than the whole run
        shutil.rmtree(out)
        moment *= 0.8
    if draw.random() < 0.5:
        _killed(base, recipe, out, log, not each_step, seconds * draw.random())
    if code := forks.run(lambda: tiny.go_on(base, recipe, out), log):
        return f"exit code {code} after a kill at {moment:.3f} s: {last_line(log)}"
    return tiny.lost(base, recipe, out)


def _killed(base: Path, recipe: str, out: Path, log: Path, each_step: bool, seconds: float) -> bool:
    def task() -> int:
        if each_step:
            tiny.save_each_step()
        return tiny.go_on(base, recipe, out)

    pid = forks.start(task, log)
    time.sleep(seconds)
    return forks.kill(pid) < 0


def last_line(log: Path) -> str:
    """Return the last line that a child wrote."""
    lines = log.read_text().splitlines()
    return lines[-1] if lines else "nothing was said"


FIGURE = Figure("SIGKILL at random moments, then resumed: other bytes", rounds, check)
