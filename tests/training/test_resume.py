"""A run that is killed and resumed has the same bytes as one that was not; checkpoints that are damaged are passed over."""

import json
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from resfit import durable
from resfit.cli import main
from resfit.data.images import PixelRule
from resfit.data.sources import load_split
from resfit.errors import DataError, GateError, ResfitError, ResourceError, UsageError
from resfit.plugins import AUGMENTATIONS, MIXES, OPTIMIZERS, SCHEDULES
from resfit.recipefile import load_recipe, recipe_names
from resfit.runs import Run, new_run, own
from resfit.training import checkpoint, loop
from resfit.training.checkpoint import checkpoints, load_newest, read_tensors, save_checkpoint
from resfit.training.init import make_state
from resfit.training.launch import resume, train
from resfit.training.seeds import train_seeds
from resfit.training.state import restore
from runfiles import Killed, best_of, command, essence, train_killed


class Countdown:
    """Counts down at every place where something is written or removed, and kills there: before it is done, or just after."""

    places = ((durable, "write_bytes"), (Path, "unlink"))

    def __init__(self, monkeypatch, left: int, after: bool) -> None:
        self.left = left
        for owner, name in self.places:
            monkeypatch.setattr(owner, name, self.wrap(getattr(owner, name), after))

    def wrap(self, real, after):
        def call(*args, **kwargs):
            self.left -= 1
            if self.left == 0 and not after:
                raise Killed
            real(*args, **kwargs)
            if self.left == 0:
                raise Killed

        return call


def count_writes(monkeypatch, *arguments, **options) -> int:
    with monkeypatch.context() as inside:
        counter = Countdown(inside, 10**9, after=False)
        train(*arguments, **options)
    return 10**9 - counter.left


def test_killed_before_or_after_every_write(tiny_recipe, digits_npz, trained, tmp_path, monkeypatch):
    """Each place is one run: killed there, then started or resumed as a person would, and compared with the whole one."""
    load_split(digits_npz, "train", PixelRule(16))  # the cache's own writes come before
    total = count_writes(monkeypatch, tiny_recipe, digits_npz, tmp_path / "count", device="cpu")
    assert total > 20
    for number in range(1, total + 1):
        after = number % 2 == 0  # reliability/calls.py takes every file system call
        out = tmp_path / f"{number}-{after}"
        with monkeypatch.context() as inside:
            Countdown(inside, number, after)
            with pytest.raises(Killed):
                train(tiny_recipe, digits_npz, out, device="cpu")
        started = (out / "run.json").exists()
        run = resume(out) if started else train(tiny_recipe, digits_npz, out, device="cpu")
        assert essence(run) == essence(trained), (number, after)
        assert (out / "split.csv").read_bytes() == (trained.folder / "split.csv").read_bytes()
        assert run.info["status"] == "finished"
        assert not list(out.rglob("*.tmp"))
        shutil.rmtree(out)


@pytest.mark.parametrize("when", [1, 2, 4, 5, 9, 12])
@pytest.mark.parametrize("every_step", [True, False], ids=["checkpoint each step", "checkpoint each epoch"])
def test_stopped_at_a_step(when, every_step, tiny_recipe, digits_npz, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0 if every_step else 1e9)

    train_killed(monkeypatch, when, tiny_recipe, digits_npz, tmp_path / "run", device="cpu")
    assert essence(resume(tmp_path / "run")) == essence(trained)


SETTINGS = {name: [f"optim.name={name}", "train.ema_decay=0"] for name in OPTIMIZERS}
SETTINGS |= {name: [f"schedule.name={name}"] for name in SCHEDULES}
SETTINGS |= {name: [f"augment={{{name}={{}}}}"] for name in AUGMENTATIONS}
SETTINGS |= {name: [f"mix.{name}.probability=0.7"] for name in MIXES}
SETTINGS |= {
    "multi-step": ["schedule={name='multi-step', milestones=[1, 2]}"],
    "plateau": ["schedule={name='plateau', patience=0, threshold=0.9}"],
    "sam": ["optim.sam_rho=0.05", "optim.sam_adaptive=true"],
    "stochastic depth": ["network.stochastic_depth=0.5", "schedule.interval=epoch"],
    "resizing, freezing": [
        "resizing={sizes=[8,12], until=[0.3,0.7]}",
        "freezing.until=[0.6]",
        "train.validate_every=2",
    ],
    "whitened": [
        "network=whitened:widths=8,16:blocks_per_stage=1,1",
        "optim={name='muon', normalize=true, linear_scale=5.0}",
    ],
    "96 pixels": ["data.image_size=96", "train.epochs=2"],  # the stem has a stride of 2
    "early stopping": ["train.early_stopping=1", "train.epochs=6", "tta=flip"],
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_technique_resumes_within_an_epoch(settings, tiny_recipe, digits_npz, tmp_path, monkeypatch):
    settings = ["optim.lr=0.01", *settings]
    whole = train(tiny_recipe, digits_npz, tmp_path / "whole", device="cpu", settings=settings)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    taken = []

    def stop(self, state, steps_per_epoch, seconds):
        taken.append(state.step)
        if len(taken) == 7:
            raise Killed

    with monkeypatch.context() as inside:
        inside.setattr("resfit.training.launch.Progress.step", stop)
        with pytest.raises(Killed):
            train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu", settings=settings)
    assert essence(resume(tmp_path / "run")) == essence(whole)


def tiny(name: str) -> list[str]:
    """The settings that make a shipped recipe train in a second, with every technique that it has."""
    shape = ["network.widths=[16,24]", "network.blocks_per_stage=[1,1]", "data.image_size=16"]
    sizes = load_recipe(name).resizing.sizes
    smaller = [f"resizing.sizes={[8, 12][: len(sizes)]}"] if sizes else []
    return [*shape, *smaller, "schedule.warmup_epochs=0.5", "train.epochs=3", "train.batch_size=64"]


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_resumes_within_an_epoch(name, digits_npz, trained, tmp_path, monkeypatch):
    settings = tiny(name)
    if load_recipe(name).distill.teacher:
        settings.append(f"distill.teacher={trained.folder}")
    whole = train(name, digits_npz, tmp_path / "whole", device="cpu", settings=settings)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)

    train_killed(monkeypatch, 6, name, digits_npz, tmp_path / "run", device="cpu", settings=settings)
    assert essence(resume(tmp_path / "run")) == essence(whole)


@pytest.fixture(scope="module")
def real(tiny_recipe, digits_npz, tmp_path_factory):
    """Return the command of a training of 20 epochs, without its folder, and the folder of one that was never stopped."""
    words = command("train", tiny_recipe, "--data", digits_npz, "--set", "train.epochs=20", "--device", "cpu", "--out")
    whole = tmp_path_factory.mktemp("real") / "whole"
    subprocess.run([*words, str(whole)], check=True, capture_output=True)
    return words, whole


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=["KILL", "TERM", "INT"])
def test_a_real_process_really_stopped(number, real, tmp_path):
    (words, whole), cut = real, tmp_path / "cut"
    process = subprocess.Popen([*words, str(cut)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    rows = cut / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (rows.exists() and rows.read_text().count("\n") >= 3) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number), said
    assert len(Run(cut).metrics) < 20
    if number != signal.SIGKILL:
        assert f"continue with: resfit resume {cut}" in said
        assert Run(cut).info["status"] == "interrupted"
        assert "Traceback" not in said
    done = subprocess.run(command("resume", cut), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "continues at step" in done.stderr
    assert essence(Run(cut)) == essence(Run(whole))


def test_resume_of_a_finished_run_changes_nothing(trained, tmp_path, capsys):
    folder = shutil.copytree(trained.folder, tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert main(["resume", str(folder)]) == 0
    assert "has finished already" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_rows_after_the_checkpoint_and_cut_rows_are_dropped(trained, tmp_path):
    folder = shutil.copytree(trained.folder, tmp_path / "copy")
    run = Run(folder)
    (checkpoints(run.checkpoints)[-1]).unlink()  # back to the one before the last epoch
    with run.metrics_file.open("a") as file:
        file.write('{"epoch": 3, "trai')
    run.update(status="failed")
    assert len(checkpoints(run.checkpoints)) == 1
    assert essence(resume(folder)) == essence(trained)


def test_changed_images_are_refused(trained, tmp_path, digit_arrays):
    folder = shutil.copytree(trained.folder, tmp_path / "copy")
    images, labels = digit_arrays
    np.savez(tmp_path / "other.npz", images=255 - images, labels=labels)
    Run(folder).update(status="running", source=str(tmp_path / "other.npz"))
    with pytest.raises(DataError, match="changed since the run began"):
        resume(folder)


def test_images_in_another_order_are_refused(trained, tmp_path, digit_arrays):
    images, labels = digit_arrays
    order = np.random.default_rng(0).permutation(len(images))
    np.savez(tmp_path / "shuffled.npz", images=images[order], labels=labels[order])
    folder = shutil.copytree(trained.folder, tmp_path / "copy")
    Run(folder).update(status="running", source=str(tmp_path / "shuffled.npz"))
    with pytest.raises(DataError, match="or their order changed since the run began"):
        resume(folder)


def test_another_val_split_is_refused(tiny_recipe, tmp_path, digit_arrays):
    images, labels = digit_arrays
    parts = {"train_images": images[:200], "train_labels": labels[:200]}
    np.savez(tmp_path / "set.npz", **parts, val_images=images[200:250], val_labels=labels[200:250])
    run = train(tiny_recipe, tmp_path / "set.npz", tmp_path / "run", device="cpu", settings=["train.epochs=1"])
    np.savez(tmp_path / "set.npz", **parts, val_images=images[250:], val_labels=labels[250:])
    run.update(status="running")
    with pytest.raises(DataError, match="changed since the run began"):
        resume(run.folder)


def test_a_failed_run_that_is_resumed_forgets_the_failure(trained, tmp_path):
    folder = shutil.copytree(trained.folder, tmp_path / "copy")
    Run(folder).update(status="failed", error="boom")
    assert resume(folder).info["error"] is None


def test_damaged_chosen_weights_are_said(trained, tmp_path):
    folder = shutil.copytree(trained.folder, tmp_path / "copy")
    Run(folder).update(status="running")
    best_of(Run(folder)).write_bytes(b"damaged")
    with pytest.raises(ResourceError, match=r"best-.*: the chosen weights are damaged"):
        resume(folder)


def test_a_resumed_state_has_the_memory_format_of_a_new_one(trained):
    recipe, device = trained.recipe, torch.device("cpu")
    state = make_state(recipe, 0, device)
    tensors, _ = read_tensors(checkpoints(trained.checkpoints)[-1])
    restore(state, tensors, device)
    for parameter, slots in state.optimizer.state.items():
        assert slots["momentum_buffer"].stride() == parameter.stride()


def test_refit_resumes_too(tiny_recipe, digits_npz, tmp_path, monkeypatch):
    whole = train(tiny_recipe, digits_npz, tmp_path / "whole", refit=True, device="cpu")

    train_killed(monkeypatch, 7, tiny_recipe, digits_npz, tmp_path / "run", refit=True, device="cpu")
    run = resume(tmp_path / "run")
    assert best_of(run).read_bytes() == best_of(whole).read_bytes()
    assert run.summary["weights"] == "last epoch, trained on train + val"


def test_seeds_leave_nothing_behind_when_the_data_is_wrong(tiny_recipe, digits_npz, tmp_path):
    with pytest.raises(DataError):
        train_seeds(tiny_recipe, tmp_path / "nowhere", tmp_path / "seeds", seeds=2, device="cpu")
    with pytest.raises(GateError):
        train_seeds("wrn-28-10", digits_npz, tmp_path / "seeds", seeds=2, device="cpu")
    assert not (tmp_path / "seeds").exists()


def test_a_run_has_one_owner(trained, tmp_path):
    folder = shutil.copytree(trained.folder, tmp_path / "copy")
    run = Run(folder)
    run.update(status="running")
    before = run.info
    with own(run), pytest.raises(ResourceError, match="another process is training it"):
        resume(folder)
    assert run.info == before
    assert resume(folder).info["status"] == "finished"


def test_two_starts_never_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(16) as pool:
        runs = list(pool.map(lambda _: new_run("x", None), range(64)))
    assert len({run.folder for run in runs}) == 64


def test_what_cannot_be_resumed(trained, tmp_path):
    with pytest.raises(UsageError, match="is not a run folder"):
        resume(tmp_path)
    folder = shutil.copytree(trained.folder, tmp_path / "copy")
    Run(folder).update(status="running")
    for path in checkpoints(Run(folder).checkpoints):
        path.unlink()
    with pytest.raises(ResourceError, match="no checkpoint to resume from"):
        resume(folder)
    Run(folder).update(source=None)
    with pytest.raises(UsageError, match="arrays in memory"):
        resume(folder)
    Run(folder).recipe_file.unlink()
    with pytest.raises(UsageError, match=r"recipe\.toml: cannot be read"):
        resume(folder)


@pytest.mark.parametrize("save_seconds", [0.0, 1e9])
def test_divergence_is_said_and_keeps_the_last_checkpoint(save_seconds, tiny_recipe, digits_npz, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_SECONDS", save_seconds)
    settings = ["optim.lr=1e30", "optim.clip_norm=1e30", "schedule.warmup_epochs=0"]
    with pytest.raises(ResfitError, match="not finite") as caught:
        train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu", settings=settings)
    assert "\n" not in str(caught.value)
    run = Run(tmp_path / "run")
    assert run.info["status"] == "failed"
    assert run.metrics == []
    tensors, _ = read_tensors(checkpoints(run.checkpoints)[-1])
    assert all(value.isfinite().all() for name, value in tensors.items() if value.is_floating_point())


def test_seeds_under_one_parent(tiny_recipe, digits_npz, tmp_path, monkeypatch):
    out = tmp_path / "seeds"
    parent = train_seeds(tiny_recipe, digits_npz, out, seeds=2, device="cpu")
    value = parent.summary["val_accuracy"]
    accuracies = [Run(out / f"seed-{seed}").summary["val"]["accuracy"] for seed in (0, 1)]
    assert value["n"] == 2
    assert value["mean"] == pytest.approx(np.mean(accuracies))
    half = 12.7062 * np.std(accuracies, ddof=1) / np.sqrt(2)
    assert value["interval"] == pytest.approx([value["mean"] - half, value["mean"] + half])
    assert Run(out / "seed-0").recipe == Run(out / "seed-1").recipe
    # the same images are held out whatever the seed, so that runs can be paired
    assert Run(out / "seed-0").info["data"] == Run(out / "seed-1").info["data"]
    first = (out / "seed-0" / "summary.json").stat().st_mtime_ns
    shutil.rmtree(out / "seed-1")
    assert train_seeds(tiny_recipe, digits_npz, out, seeds=2, device="cpu").summary["val_accuracy"] == value
    assert (out / "seed-0" / "summary.json").stat().st_mtime_ns == first

    with pytest.raises(UsageError, match="seeds of another recipe"):
        train_seeds(tiny_recipe, digits_npz, out, seeds=2, device="cpu", settings=["optim.lr=0.2"])
    with pytest.raises(UsageError, match=r"Name one of its seeds, e\.g\. .*seed-0"):
        resume(out)


def test_refit_takes_train_and_val_and_keeps_the_last_weights(tiny_recipe, digits_npz, tmp_path, trained):
    run = train(tiny_recipe, digits_npz, tmp_path / "run", refit=True, device="cpu")
    assert run.summary["train_images"] == trained.info["images"]["train"] + trained.info["images"]["val"]
    assert run.summary["val"] is None
    assert "val_accuracy" not in run.metrics[0]
    best, _ = read_tensors(best_of(run))
    last, _ = read_tensors(checkpoints(run.checkpoints)[-1])
    assert all(torch.equal(value, last[f"average.{name}"]) for name, value in best.items())


def test_plateau_lowers_the_rate_by_validation_loss(tiny_recipe, digits_npz, tmp_path):
    settings = ["schedule={name='plateau', patience=0, threshold=0.9, factor=0.5}", "train.epochs=5"]
    run = train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu", settings=settings)
    rates, losses, best = [0.05], [row["val_nll"] for row in run.metrics], float("inf")
    for loss in losses:
        better = loss < best * 0.1
        best = loss if better else best
        rates.append(rates[-1] * (1 if better else 0.5))
    assert [row["lr"] for row in run.metrics] == pytest.approx(rates[:-1])
    assert rates[-2] < 0.05


def test_early_stopping_ends_the_run_and_resume_does_not_go_on(tiny_recipe, digits_npz, tmp_path):
    settings = ["train.early_stopping=2", "train.epochs=30", "optim.lr=1e-9", "train.ema_decay=0", "network.dropout=0"]
    run = train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu", settings=settings)
    best = max(range(len(run.metrics)), key=lambda k: (run.metrics[k]["val_accuracy"], -run.metrics[k]["val_nll"]))
    assert len(run.metrics) == best + 3 < 30
    assert run.summary["epochs"] == len(run.metrics)
    rows = run.metrics
    run.update(status="interrupted")  # as if killed before the bundle was written
    assert resume(tmp_path / "run").metrics == rows


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("schedule={name='plateau'}", r"schedule\.name: 'plateau' follows the validation loss"),
        ("train.early_stopping=3", r"train\.early_stopping: --refit leaves no validation split"),
    ],
)
def test_what_needs_a_validation_split_is_refused_without(setting, message, tiny_recipe, digits_npz, tmp_path):
    with pytest.raises(UsageError, match=message) as caught:
        train(tiny_recipe, digits_npz, tmp_path / "run", refit=True, device="cpu", settings=[setting])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_network_known_to_be_over_its_budget_trains_and_says_so(tiny_recipe, digits_npz, tmp_path):
    settings = ["budget.max_params=1k", "train.epochs=1"]
    with pytest.raises(GateError, match=r"over budget: .* / 1,000 params \(over by"):
        train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu", settings=settings)
    run = train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu", settings=[*settings, "budget.enforce=false"])
    assert run.summary["verdict"].startswith("over budget: ")


class TestCheckpoint:
    tensors = {"a": torch.arange(6.0).view(2, 3), "n": torch.tensor(7), "e": torch.zeros(0, 3)}  # noqa: RUF012

    def test_round_trip_and_two_are_kept(self, tmp_path):
        for step in (1, 2, 30):
            save_checkpoint(tmp_path, step, self.tensors, {"step": step})
        assert [path.name for path in checkpoints(tmp_path)] == [
            "step-000000002.safetensors",
            "step-000000030.safetensors",
        ]
        tensors, header, damaged = load_newest(tmp_path)
        assert header == {"step": 30}
        assert not damaged
        assert all(torch.equal(tensors[name], value) for name, value in self.tensors.items())

    @pytest.mark.parametrize("kind", ["bit", "cut", "empty", "text", "header"])
    def test_a_damaged_one_is_passed_over(self, tmp_path, kind):
        for step in (1, 2):
            save_checkpoint(tmp_path, step, self.tensors, {"step": step})
        path = checkpoints(tmp_path)[-1]
        raw = path.read_bytes()
        changed = {
            "bit": raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:],
            "cut": raw[:-1],
            "empty": b"",
            "text": b"not a checkpoint at all",
            "header": raw.replace(b'\\"step\\": 2', b'\\"step\\": 3'),
        }
        assert changed[kind] != raw
        path.write_bytes(changed[kind])
        _, header, damaged = load_newest(tmp_path)
        assert header == {"step": 1}
        assert len(damaged) == 1
        assert path.name in damaged[0]

    def test_every_single_flipped_bit_is_noticed(self, tmp_path):
        save_checkpoint(tmp_path, 1, self.tensors, {"step": 1})
        path = checkpoints(tmp_path)[0]
        raw = path.read_bytes()
        for position in np.random.default_rng(0).integers(0, 8 * len(raw), 300):
            byte, bit = divmod(int(position), 8)
            path.write_bytes(raw[:byte] + bytes([raw[byte] ^ (1 << bit)]) + raw[byte + 1 :])
            with pytest.raises(ValueError, match=r"checksum|safetensors|JSON|Expecting|decode"):
                read_tensors(path)


def test_run_folder_holds_what_the_design_says(trained):
    names = {str(path.relative_to(trained.folder)) for path in trained.folder.rglob("*") if path.is_file()}
    wanted = {"recipe.toml", "run.json", "metrics.jsonl", "summary.json", "split.csv", "predictions/val.npz"}
    wanted |= {"bundle/model.safetensors", "bundle/config.json", "bundle/README.md"} | {
        f"checkpoints/{best_of(trained).name}"
    }
    assert wanted <= names
    assert not [name for name in names if name.endswith(".tmp")]
    info = trained.info
    assert info["status"] == "finished"
    weights, _ = read_tensors(best_of(trained))
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    assert info["params"] == sum(value.numel() for name, value in weights.items() if not name.endswith(buffers))
    rows = (trained.folder / "split.csv").read_text().splitlines()
    assert rows[0] == "id,class,split"
    assert len(rows) == 301
    assert [json.loads(line)["epoch"] for line in trained.metrics_file.read_text().splitlines()] == [0, 1, 2]
    assert os.environ["RESFIT_CACHE"] not in trained.recipe_file.read_text()


def test_a_checkpoint_that_the_disk_does_not_give_is_passed_over(trained, tmp_path, monkeypatch):
    """torch, which maps the file, says so in a RuntimeError; a real EIO is one of reliability's `errors`."""
    newest = checkpoints(trained.checkpoints)[-1]
    said = f"unable to open file <{newest}> in read-only mode: Input/output error (5)"
    real = checkpoint.safe_open

    def fail(path, **words):
        if path == newest:
            raise RuntimeError(said)
        return real(path, **words)

    monkeypatch.setattr(checkpoint, "safe_open", fail)
    with pytest.raises(OSError, match="Input/output error") as caught:
        read_tensors(newest)
    assert caught.value.filename == str(newest)
    _, header, (line,) = load_newest(trained.checkpoints)
    assert header["step"] < int(newest.stem.removeprefix("step-"))
    assert "Input/output error" in line
    said = "out of memory"
    with pytest.raises(RuntimeError, match="out of memory"):
        read_tensors(newest)
