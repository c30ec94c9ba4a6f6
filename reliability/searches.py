"""SIGKILL of a search's workers at random moments: every trial is there once, with the value that its run folder says."""

import os
import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import forks
from figure import Figure, Round, spread
from kills import last_line

WORKERS, EACH, KILLS = (1, 2, 3, 4), 5, 10  # workers at once; rounds of each; kills a round
TRIALS, BEAT = 4, 1  # asked for at first, and seconds between heartbeats: a dead worker's trial is taken up after three
SPACE = """
base = "digits"
[data]
image_size = 8
[train]
epochs = 2
batch_size = 32
[schedule]
warmup_epochs = 0.5
[search]
finalists = 2
seeds = 2
[vary]
"network.widths" = {low = 8, high = 16, step = 8}
"optim.lr" = {low = 0.01, high = 0.3, log = true}
"""


def rounds(base: Path) -> list[Round]:
    """Return the studies, by how many workers fill them."""
    (base / "space.toml").write_text(SPACE)
    return spread([Round(f"workers: {n}", f"{number}", (n,)) for n in WORKERS for number in range(EACH)])


def check(base: Path, folder: Path, item: Round) -> str:
    """Kill a study's workers KILLS times, let it end, and look whether each trial is there once."""
    draw, log, wanted = random.Random(item.key), folder / "log", TRIALS
    out = folder / "study"
    if code := forks.run(lambda: _prepare(base, out), log):
        return f"exit code {code} before any worker: {last_line(log)}"

    def begin(number: int) -> int:
        return forks.start(lambda: _work(out, number, wanted), log)

    running, begun, killed = [begin(number) for number in range(item.what[0])], item.what[0], 0
    deadline = time.monotonic() + 4 * forks.BOUND
    while killed < KILLS:
        time.sleep(draw.uniform(0.05, 1.5))
        place = draw.randrange(len(running))
        ended = forks.kill(running[place])
        if ended > 0:
            return f"a worker left with {ended}: {last_line(log)}"
        if ended < 0:
            killed += 1
            running[place], begun = begin(begun), begun + 1
            continue
        codes = [forks.wait(pid, 2 * forks.BOUND) for number, pid in enumerate(running) if number != place]
        if any(codes):
            return f"workers left with {codes}: {last_line(log)}"
        wanted += 4  # all was done before the kill: more are asked for, as by a larger --trials
        running, begun = [begin(begun + number) for number in range(len(running))], begun + len(running)
        if time.monotonic() > deadline:
            return f"{killed} kills took longer than {4 * forks.BOUND:g} s"
    if any(codes := [forks.wait(pid, 2 * forks.BOUND) for pid in running]):
        return f"workers left with {codes}: {last_line(log)}"
    if forks.run(lambda: _inspect(out, wanted), log):
        return last_line(log)
    return ""


def _prepare(base: Path, out: Path) -> int:
    """Make the study's folder as `resfit search` does, but for its workers."""
    from resfit.data.images import PixelRule
    from resfit.data.sources import load_splits
    from resfit.study.plan import Plan, write_plan

    images, space = str(base / "images.npz"), str(base / "space.toml")
    fingerprint = load_splits(images, ("train", "val"), PixelRule(8), 0.1)[0].fingerprint
    out.mkdir()
    write_plan(out, Plan(space, (), images, fingerprint, "", TRIALS, "cpu", None, BEAT, 0))
    return 0


def _work(out: Path, number: int, wanted: int) -> int:
    """Be a worker, as `python -m resfit.study.worker` is."""
    from resfit.study.plan import read_plan
    from resfit.study.worker import work

    plan = read_plan(out, f"sqlite:///{out}/study.db", os.getppid())
    work(out, number, replace(plan, trials=wanted))
    return 0


def _inspect(out: Path, wanted: int) -> int:
    """Print what is wrong with a study that has ended; 0 where nothing is."""
    from optuna.trial import TrialState

    from resfit.runs import Run
    from resfit.study.plan import read_plan
    from resfit.study.trials import finished, open_study, slot_of

    plan = read_plan(out, f"sqlite:///{out}/study.db", os.getppid())
    space, problems = plan.load_space(), []
    same = {"space": space.text(), "data": plan.fingerprint}
    for name, place, least in ((space.name, "trials", wanted), (f"{space.name}/rows", "rows", 4)):
        with open_study(plan.storage, name, same, space.search) as study:
            left = study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
            problems += [f"{place}: trial {trial.number} is left {trial.state.name.lower()}" for trial in left]
            done = finished(study)
            if len(done) < least:
                problems.append(f"{place}: {len(done)} of {least} are there")
            complete = study.get_trials(states=(TrialState.COMPLETE,))
            twice = [slot for slot, count in Counter(map(slot_of, complete)).items() if count > 1]
            problems += [f"{place}: slot {slot} is counted twice" for slot in twice]
            for trial in complete:
                run = Run(out / place / slot_of(trial).replace("/", "-seed-"))
                if [row["epoch"] for row in run.metrics] != [0, 1]:
                    problems.append(f"{run.folder.name}: its rows are not those of two epochs")
                if trial.value != run.summary["val"]["accuracy"]:
                    problems.append(
                        f"{run.folder.name}: {trial.value} in the study, {run.summary['val']['accuracy']} in the folder"
                    )
    print("; ".join(problems))
    return int(bool(problems))


FIGURE = Figure(f"{KILLS} SIGKILLs of a search's workers a round: a trial lost, counted twice or left", rounds, check)
