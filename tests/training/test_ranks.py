"""Many processes take the same steps as one: shares, moments and gradients in threads, whole jobs in processes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed import HashStore

from resfit.cli import main
from resfit.data.mix import mixup
from resfit.errors import ResourceError, UsageError
from resfit.models.families import build
from resfit.recipefile import load_recipe
from resfit.runs import Run
from resfit.training import init, ranks, step, syncbn
from resfit.training.checkpoint import load_newest
from resfit.training.init import make_state
from resfit.training.launch import resume, train
from resfit.training.ranks import Ranks, joined, own_batches, own_places
from resfit.training.shadow import find_restarted, rendezvous
from resfit.training.state import state_tensors
from resfit.training.step import make_step
from resfit.training.watch import Ended, Watch

CPU = torch.device("cpu")
DRAWING = threading.Lock()  # the threads have one generator of random numbers
# relative, of the training losses of 12 epochs and of the first one, two ranks against one: float32's rounding, which takes
# one process as far from float64. In float64 the steps are the same to 1e-9 (below).
TOLERANCE, FIRST_TOLERANCE = 1e-3, 1e-6


class World:
    """Ranks as threads of one process: what torch.distributed does, by a barrier."""

    def __init__(self, size, monkeypatch):
        self.world_size, self.here = size, threading.local()
        self.barrier, self.slots = threading.Barrier(size, timeout=30), [None] * size
        for module in (ranks, syncbn):
            monkeypatch.setattr(module, "gather", self.gather)
            monkeypatch.setattr(module, "total", self.total)
        for module in (ranks, step):
            monkeypatch.setattr(module, "present", self.present)

    def present(self):
        rank = getattr(self.here, "rank", None)
        return Ranks() if rank is None else Ranks(rank, self.world_size)

    def gather(self, values):
        self.slots[self.here.rank] = values.clone()
        self.barrier.wait()
        found = torch.stack(self.slots)
        self.barrier.wait()
        return found

    def total(self, values):
        return values.copy_(self.gather(values).sum(0))

    def each(self, function):
        """Return what `function(rank)` returns in each rank."""

        def run(rank):
            self.here.rank = rank
            try:
                return function(rank)
            except BaseException:
                self.barrier.abort()
                raise

        with ThreadPoolExecutor(self.world_size) as pool:
            return list(pool.map(run, range(self.world_size)))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("count", [2, 3, 5, 7, 8, 13, 64, 100])
def test_shares_are_a_partition_and_hold_their_partners(size, count):
    shares = [own_places(count, Ranks(rank, size)) for rank in range(size)]
    assert sorted(np.concatenate(shares)) == list(range(count))
    sizes = [len(share) for share in shares]
    assert 1 not in sizes  # BatchNorm cannot take a single image
    assert max(sizes) - min(sizes) <= 3 if count < 2 * size else max(sizes) - min(sizes) <= 2
    images, targets = torch.rand(count, 3, 4, 4), torch.rand(count, 5)
    whole = mixup(images, targets, np.random.default_rng(0), 1.0)
    for share in shares:
        part = mixup(images[share], targets[share], np.random.default_rng(0), 1.0)
        assert torch.equal(part[0], whole[0][share])
        assert torch.equal(part[1], whole[1][share])


def test_an_epoch_is_the_same_batches_in_parts(monkeypatch):
    world, order = World(3, monkeypatch), torch.randperm(41)
    parts = world.each(lambda rank: own_batches(order, 8))
    split = [torch.split(part, sizes) for part, sizes in parts]
    for number, batch in enumerate(torch.split(order, 8)):
        assert sorted(torch.cat([part[number] for part in split]).tolist()) == sorted(batch.tolist())
    assert own_batches(order, 8) == (order, 8)  # in one process nothing is touched


@pytest.mark.parametrize("sizes", [(4, 4), (6, 2, 3), (5, 0, 2)])
@pytest.mark.parametrize("trained_scale", [True, False])
def test_synchronised_norm_is_torchs_over_the_whole_batch(sizes, trained_scale, monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(sum(sizes), 5, 3, 3, dtype=torch.float64) * 3 + 7
    slope = torch.randn_like(x)  # so that the gradient through mean and variance is not nothing
    plain = nn.BatchNorm2d(5).double()
    nn.init.normal_(plain.weight)
    if not trained_scale:
        plain.weight.requires_grad_(False)
    copies = [nn.BatchNorm2d(5).double() for _ in sizes]
    for copy in copies:
        copy.load_state_dict(plain.state_dict())
        copy.weight.requires_grad_(trained_scale)
        syncbn.unite_norms(copy, sync=True)
    whole = x.clone().requires_grad_()
    wanted = plain(whole)
    (wanted.square() * slope).sum().backward()
    inputs = [part.clone().requires_grad_() for part in torch.split(x, sizes)]
    slopes = torch.split(slope, sizes)

    def run(rank):
        y = copies[rank](inputs[rank])
        (y.square() * slopes[rank]).sum().backward()
        return y.detach()

    outputs = World(len(sizes), monkeypatch).each(run)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(torch.cat(outputs), wanted.detach(), **close)
    torch.testing.assert_close(torch.cat([part.grad for part in inputs]), whole.grad, **close)
    torch.testing.assert_close(sum(copy.bias.grad for copy in copies), plain.bias.grad, **close)
    if trained_scale:
        torch.testing.assert_close(sum(copy.weight.grad for copy in copies), plain.weight.grad, **close)
    for copy in copies:
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(getattr(copy, name), getattr(plain, name), **close)
        copy.eval()
        plain.eval()
        assert torch.equal(copy(x), nn.BatchNorm2d.forward(copy, x))


SPEC = "network=resnet:widths=4,8:blocks_per_stage=1,1:image_size=8"
TECHNIQUES = {
    "clip": ["optim.clip_norm=0.5"],
    "mixup": ["mix.mixup.probability=1"],
    "cutmix": ["mix.cutmix.probability=0.7"],
    "sam": ["optim.sam_rho=0.1", "optim.sam_adaptive=true"],
    "muon": ["optim.name=muon"],
    "whitened": ["network=whitened:widths=8,8:blocks_per_stage=1,1:image_size=8", "optim.name=adamw", "optim.lr=0.001"],
    "freezing": ["freezing.until=[0.2]"],
}


def steps(recipe, images, labels, batches, parts=None):
    """Take a step for each of `batches`, or for this rank's share of it, in float64; return the state's tensors."""
    with DRAWING:
        state = make_state(recipe, 0, CPU)
    if parts is not None:
        syncbn.unite_norms(state.model, recipe.train.sync_batchnorm)
    take = make_step(recipe, len(batches), CPU)
    for batch in batches:
        index = batch if parts is None else batch[torch.from_numpy(own_places(len(batch), parts))]
        take(state, images[index], labels[index], index, 0)
    return state_tensors(state)


@pytest.fixture
def in_float64(monkeypatch):
    """Let the step compute in float64, where a mistake cannot pass for rounding."""
    real = step.make_normalize

    def make_normalize(*arguments):
        normalize = real(*arguments)
        return lambda images: normalize(images).double()

    monkeypatch.setattr(step, "make_normalize", make_normalize)
    monkeypatch.setattr(init, "build", lambda spec, seed: build(spec, seed).double())


@pytest.mark.parametrize("settings", TECHNIQUES.values(), ids=TECHNIQUES)
def test_every_technique_takes_the_same_steps_as_one_process(settings, in_float64, monkeypatch):
    """Batches of 16, 13 and 5 images for three ranks, of which the last batch leaves one with none."""
    fixed = ["data.mean=[0.5,0.4,0.3]", "data.std=[0.2,0.3,0.4]", "train.epochs=2", "train.batch_size=16"]
    more = [
        "schedule.warmup_epochs=0",
        "train.ema_decay=0.9",
        "train.sync_batchnorm=true",
        "augment={crop={}, rotation={}}",
    ]
    recipe = load_recipe("default", [*fixed, *more, *([] if "network" in settings[0] else [SPEC]), *settings])
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (34, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (34,), generator=generator)
    batches = torch.split(torch.arange(34), [16, 13, 5])
    wanted = steps(recipe, images, labels, batches)
    world = World(3, monkeypatch)
    for found in world.each(lambda rank: steps(recipe, images, labels, batches, Ranks(rank, 3))):
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-10, msg=name)


def test_norms_by_themselves_leave_every_rank_the_same_state(monkeypatch):
    settings = [SPEC, "data.mean=[0.5,0.4,0.3]", "data.std=[0.2,0.3,0.4]", "train.batch_size=16", "train.ema_decay=0.9"]
    recipe = load_recipe("default", [*settings, "augment={}"])
    images, labels = torch.randint(0, 256, (34, 3, 8, 8), dtype=torch.uint8), torch.randint(0, 10, (34,))
    batches = torch.split(torch.arange(34), [16, 13, 5])
    first, *others = World(3, monkeypatch).each(lambda rank: steps_float(recipe, images, labels, batches, rank))
    assert all(value.isfinite().all() for value in first.values())
    for other in others:
        assert [name for name, value in first.items() if not torch.equal(value, other[name])] == []


def steps_float(recipe, images, labels, batches, rank):
    with DRAWING:
        state, parts = make_state(recipe, 0, CPU), Ranks(rank, 3)
    syncbn.unite_norms(state.model, sync=False)
    take = make_step(recipe, len(batches), CPU)
    for batch in batches:
        index = batch[torch.from_numpy(own_places(len(batch), parts))]
        take(state, images[index], labels[index], index, 0)
    return state_tensors(state)


def test_a_mistake_is_printed_by_one_process_of_a_machine(monkeypatch, capsys):
    for rank, words in (("0", "no such option"), ("1", "")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert main(["train", "r5", "--data", "digits", "--bogus"]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert bool(said) == bool(words)


def test_a_restart_finds_its_own_run_and_no_other(trained, monkeypatch):
    facts = {"seed": 0, "refit": False, "source": trained.info["source"]}
    assert find_restarted(trained.folder, trained.recipe, facts) is None  # not a restart
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert str(os.getppid()) in str(rendezvous())  # "none" names no job: torchrun's process does
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    assert find_restarted(trained.folder, trained.recipe, facts) is None  # another job's
    monkeypatch.setattr(Run, "info", trained.info | {"rendezvous": "job"})
    assert find_restarted(trained.folder, trained.recipe, facts) == trained
    assert find_restarted(trained.folder, trained.recipe, facts | {"seed": 1}) is None
    assert find_restarted(trained.folder, load_recipe("r5"), facts) is None


def watch_beside(beat, timeout):
    """Return the watch of rank 0 of 2, whose other rank is on another machine and has given one sign of life."""
    store = HashStore()
    store.set("who/1", json.dumps(["elsewhere", 1, "1"]))
    store.set("beat/1", beat)
    return store, Watch(store, 0, 2, timeout, 1.0)


def verdict_on(watch):
    deadline = time.monotonic() + 20
    while watch.over is None and time.monotonic() < deadline:
        time.sleep(0.01)
    watch.stop()
    return str(watch.over)


def test_a_rank_that_lives_but_does_not_come_is_named(monkeypatch):
    """Its thread gives signs of life, its main thread is elsewhere."""
    monkeypatch.setattr("resfit.training.watch.GRACE", 30.0)  # else this process would be ended
    store, watch = watch_beside("1 7 0 33", 1.0)
    with watch.wait():
        for count in range(6):
            store.set("beat/1", f"{count} 7 0 33")
            time.sleep(0.5)
        text = verdict_on(watch)
    assert text.startswith("rank 1 of 2: hangs: the others have waited for it for 1 s (last heard of at step 33, ")


def test_a_broken_connection_is_the_silent_ranks(monkeypatch):
    monkeypatch.setattr("resfit.training.watch.GRACE", 30.0)
    _, watch = watch_beside("1 7 1 33", 60.0)
    with pytest.raises(Ended, match=r"rank 1 of 2: has died \(last heard of at step 33"), watch.wait():
        raise RuntimeError("Connection closed by peer")
    watch.stop()


def test_a_rank_that_has_left_is_not_missed(monkeypatch):
    monkeypatch.setattr("resfit.training.watch.GRACE", 30.0)
    store, watch = watch_beside("1 7 0 33", 0.5)
    store.set("left/1", "1")
    store.set("left/0", "1")
    time.sleep(2)
    assert watch.over is None
    watch.stop()


def test_a_rank_that_does_not_come_at_all_is_named():
    with pytest.raises(ResourceError, match="rank 1 of 2: did not come"):
        Watch(HashStore(), 0, 2, 60.0, 0.1)


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan"])
def test_a_timeout_that_is_none_is_refused(text, monkeypatch):
    monkeypatch.setenv("RESFIT_TIMEOUT", text)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    with pytest.raises(UsageError, match=r"^RESFIT_TIMEOUT: .* is no number of seconds"), joined():
        pass


# Whole jobs


@dataclass
class Job:
    """A torchrun of two ranks, its processes, and what it said."""

    process: subprocess.Popen
    log: Path

    def worker(self, rank):
        """Return the process number of a rank; torchrun's children are looked at, which tell it in their environment."""
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            if f"RANK={rank}" in Path(f"/proc/{child}/environ").read_text().split("\0"):
                return int(child)
        raise LookupError(rank)

    def end(self, seconds=60):
        """Wait for the end; return (exit code, seconds it took, text said)."""
        begun = time.monotonic()
        try:
            code = self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                self.process.terminate()
                self.process.wait(40)
        return code, time.monotonic() - begun, self.log.read_text()


def torchrun(log, *words, restarts=0, timeout=60, cwd=None, program=("-m", "resfit")):
    run = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--standalone",
        f"--max-restarts={restarts}",
    ]
    environment = {**os.environ, "RESFIT_TIMEOUT": str(timeout), "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        command = [*run, *map(str, program), *map(str, words)]
        return Job(subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=cwd), log)


def wait_for_rows(job, run, rows):
    """Wait until a run has so many epochs more behind it than now."""
    count = lambda: run.metrics_file.read_bytes().count(b"\n") if run.metrics_file.exists() else 0  # noqa: E731
    wanted, deadline = count() + rows, time.monotonic() + 90
    while count() < wanted:
        assert job.process.poll() is None, job.log.read_text()
        assert time.monotonic() < deadline, job.log.read_text()
        time.sleep(0.005)


def said_by_us(text):
    return [line for line in text.splitlines() if line.startswith("resfit: ")]


def essence(run):
    """What two ranks must give again to the byte."""
    tensors, header, _ = load_newest(run.checkpoints)
    bundle = (run.bundle / "model.safetensors").read_bytes()
    return plain_rows(run), {name: value.numpy().tobytes() for name, value in tensors.items()}, header, bundle


def plain_rows(run):
    return [{k: v for k, v in row.items() if k not in ("train_seconds", "val_seconds")} for row in run.metrics]


@pytest.fixture(scope="module")
def place(tmp_path_factory, digit_arrays):
    """A folder with a recipe and 263 training and 29 validation images: no batch of 64 and no half of them comes out even."""
    folder = tmp_path_factory.mktemp("ranks")
    images, labels = digit_arrays
    rows = {"train_images": images[:263], "train_labels": labels[:263], "val_images": images[263:292]}
    np.savez(folder / "digits.npz", **rows, val_labels=labels[263:292])
    (folder / "tiny.toml").write_text(
        """
name = "tiny"
network = "resnet:widths=8,16:blocks_per_stage=1,1:image_size=16"
[augment.crop]
padding = 2
[mix.cutmix]
probability = 0.5
[optim]
lr = 0.005
clip_norm = 5.0
[train]
epochs = 12
batch_size = 64
ema_decay = 0.9
sync_batchnorm = true
"""
    )
    patch = pytest.MonkeyPatch()
    patch.setenv("RESFIT_CACHE", str(folder / "cache"))
    yield folder
    patch.undo()


@pytest.fixture
def words(place, monkeypatch):
    """The words of the train command, all jobs with one cache."""
    monkeypatch.setenv("RESFIT_CACHE", str(place / "cache"))
    return ["train", place / "tiny.toml", "--data", place / "digits.npz", "--device", "cpu"]


@pytest.fixture(scope="module")
def whole(place):
    """Two ranks that nobody stopped."""
    os.environ["RESFIT_CACHE"] = str(place / "cache")
    words = ["train", place / "tiny.toml", "--data", place / "digits.npz", "--device", "cpu"]
    code, _, said = torchrun(place / "whole.log", *words, "--out", place / "whole").end()
    assert code == 0, said
    assert said.splitlines().count(str(place / "whole")) == said.count("run folder:") == 1  # rank 0's alone
    return Run(place / "whole")


def test_two_ranks_give_the_loss_trace_of_one(whole, place, monkeypatch):
    monkeypatch.setenv("RESFIT_CACHE", str(place / "cache"))
    one = train(place / "tiny.toml", place / "digits.npz", place / "one", device="cpu")
    assert whole.info["world_size"] == 2
    assert one.info["world_size"] == 1
    assert [row["step"] for row in whole.metrics] == [
        row["step"] for row in one.metrics
    ]  # 5 an epoch: of all ranks together
    assert one.metrics[0]["step"] == 5
    ours, theirs = ([row["train_loss"] for row in run.metrics] for run in (whole, one))
    assert ours[0] == pytest.approx(theirs[0], rel=FIRST_TOLERANCE)
    assert ours == pytest.approx(theirs, rel=TOLERANCE)
    assert whole.metrics[0]["val_nll"] == pytest.approx(one.metrics[0]["val_nll"], rel=10 * FIRST_TOLERANCE)
    assert one.metrics[0]["train_accuracy"] == whole.metrics[0]["train_accuracy"]  # the count of images is exact
    assert one.summary["train_images"] == whole.summary["train_images"] == 263


def test_a_restart_by_torchrun_ends_in_the_same_folder_with_the_same_bytes(whole, words, place):
    """Without --out: torchrun's rendezvous is what tells the restarted ranks their run."""
    run = Run(place / "runs" / "tiny-1")
    job = torchrun(place / "restart.log", *words, restarts=1, cwd=place)
    wait_for_rows(job, run, 2)
    os.kill(job.worker(1), signal.SIGKILL)
    code, _, said = job.end()
    assert code == 0, said
    assert "continues at step" in said
    assert [folder.name for folder in (place / "runs").iterdir()] == ["tiny-1"]
    assert essence(run) == essence(whole)


def test_stopped_by_a_signal_killed_and_hung_it_goes_on_as_if_nothing_had_been(whole, words, place):
    run = Run(place / "hard")
    job = torchrun(place / "signal.log", *words, "--out", run.folder)
    wait_for_rows(job, run, 2)
    job.process.send_signal(signal.SIGTERM)
    _, seconds, said = job.end()
    assert seconds < 20
    assert f"continue with: resfit resume {run.folder}" in said
    assert run.info["status"] == "interrupted"
    assert not said_by_us(said)

    job = torchrun(place / "killed.log", "resume", run.folder)
    wait_for_rows(job, run, 2)
    os.kill(job.worker(1), signal.SIGKILL)
    code, seconds, said = job.end()
    assert code == 1  # torchrun's own
    assert seconds < 10
    (line,) = said_by_us(said)
    assert re.match(r"resfit: rank 1 of 2: has died \(last heard of at step \d+, process \d+ on .*\)\. Continue", line)
    assert f"`resfit resume {run.folder}`" in line
    assert re.search(r"rank +: 0 .*\n +exitcode +: 6 ", said), said
    shutil.copytree(run.folder, place / "alone")

    job = torchrun(place / "hung.log", "resume", run.folder, timeout=12)
    wait_for_rows(job, run, 2)
    os.kill(job.worker(1), signal.SIGSTOP)
    code, seconds, said = job.end()
    assert code == 1
    assert 10 < seconds < 30
    (line,) = said_by_us(said)
    assert line.startswith("resfit: rank 1 of 2: has not answered for 12 s (last heard of at step ")
    assert 6 <= len(run.metrics) < 12
    assert plain_rows(run) == plain_rows(whole)[: len(run.metrics)]
    assert load_newest(run.checkpoints)[1]["step"] == 5 * len(run.metrics)


HELD = """import sys, time
from pathlib import Path
from resfit.training import execution
finish = execution.finish

def hold(run, *rest):
    Path(run.folder, "held").touch()
    time.sleep(20)
    finish(run, *rest)

execution.finish = hold
from resfit.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_killed_while_rank_0_does_the_end_of_the_run_it_is_named(rank, whole, words, place):
    """No rank waits for another then: torchrun looks ten times a second, and ended the one left before it had seen why."""
    run, program = Run(place / f"held-{rank}"), place / "held.py"
    program.write_text(HELD)
    job = torchrun(place / f"held-{rank}.log", *words, "--out", run.folder, program=[program])
    deadline = time.monotonic() + 60
    while not (run.folder / "held").exists():
        assert job.process.poll() is None, job.log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(job.worker(rank), signal.SIGKILL)
    code, seconds, said = job.end()
    assert code == 1
    assert seconds < 10
    (line,) = said_by_us(said)
    assert line.startswith(f"resfit: rank {rank} of 2: has died (last heard of at step ")
    assert resume(run.folder).info["status"] == "finished"
    assert essence(run)[:2] == essence(whole)[:2]


def test_two_ranks_run_goes_on_with_one(whole, words, place, capsys):
    run = resume(place / "alone")
    assert "began with 2 processes and goes on with 1" in capsys.readouterr().err
    assert run.info["status"] == "finished"
    ours, theirs = ([row["train_loss"] for row in each.metrics] for each in (run, whole))
    assert ours == pytest.approx(theirs, rel=TOLERANCE)


def test_an_error_is_said_once(whole, words, place):
    before = json.dumps(whole.info)
    code, _, said = torchrun(place / "taken.log", *words, "--out", whole.folder).end()
    assert code == 1
    (line,) = said_by_us(said)
    assert "holds something already" in line
    assert len(re.findall(r"exitcode +: 2 ", said)) >= 1
    assert json.dumps(whole.info) == before
