"""What goes wrong while a network trains: values that are not finite, a disk that is full, memory that is short."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from resfit import durable
from resfit.cli import main
from resfit.data.images import PixelRule
from resfit.data.sources import load_split
from resfit.errors import ResfitError, ResourceError, UsageError
from resfit.recipefile import load_recipe
from resfit.runs import Run, own
from resfit.training import launch, loop
from resfit.training.checkpoint import checkpoints, load_newest, read_tensors
from resfit.training.divergence import Diverged, not_finite
from resfit.training.init import make_state
from resfit.training.launch import resume, start, train
from resfit.training.memory import fitting_batch, is_out_of_memory
from resfit.training.step import make_step
from runfiles import Killed, command, essence

CPU = torch.device("cpu")
SPEC = "resnet:widths=8,16:blocks_per_stage=1,1:image_size=16"


def recipe_of(*settings):
    return load_recipe("default", [f"network={SPEC}", "data.mean=[0.5,0.5,0.5]", "data.std=[0.2,0.2,0.2]", *settings])


def batch(count=40):
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 16, 16), generator=draw, dtype=torch.uint8)
    return images, torch.randint(0, 10, (count,), generator=draw), torch.arange(count)


def copies(state):
    return {name: value.clone() for name, value in state.model.state_dict().items()}


# --- values that are not finite


def spoil(state, where):
    """Put a NaN where the next step meets it first; return what the message must say."""
    parameters = dict(state.model.named_parameters())
    if where == "weight":
        with torch.no_grad():
            parameters["head.weight"][0, 0] = float("nan")
        return "the weight head.weight"
    if where == "gradient":
        parameters["head.bias"].register_hook(lambda grad: grad * float("inf"))
        return "the gradient of head.bias"
    state.model.register_forward_hook(lambda module, given, logits: logits * float("inf"))
    return "the loss"


@pytest.mark.parametrize("where", ["weight", "loss", "gradient"])
@pytest.mark.parametrize("settings", [[], ["optim.sam_rho=0.05"], ["optim.name=adam"], ["optim.accumulate=2"]])
def test_a_value_that_is_not_finite_stops_the_step_before_the_update(where, settings):
    recipe = recipe_of("optim.lr=0.01", *settings)
    state, update = make_state(recipe, 0, CPU), make_step(recipe, 3, CPU)
    update(state, *batch(), 0)
    message = spoil(state, where)
    if where == "gradient" and recipe.optim.sam_rho:
        message = "the gradient of .*"  # of its second pass, from the point that the first one led to
    before = {name: value.detach().clone() for name, value in state.model.named_parameters()}
    with pytest.raises(Diverged, match=f"^{message} was not finite at step 1$"):
        update(state, *batch(), 0)
    for name, value in state.model.named_parameters():
        assert torch.equal(value.nan_to_num(), before[name].nan_to_num()), name
    assert state.step == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_gradient_among_all_is_found(bad):
    state = make_state(recipe_of(), 0, CPU)
    for parameter in state.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert not_finite(state.model, torch.tensor(1.0)) == 0
    assert not_finite(state.model, torch.tensor(bad)) == 1
    list(state.model.parameters())[-1].grad[-1] = bad
    assert not_finite(state.model, torch.tensor(1.0)) == 1
    assert next(state.model.parameters()).grad.eq(1).all()  # the others are as they were


def poison(monkeypatch, at, times=1):
    """Plant a NaN in a weight before step `at`, until there have been so many rollbacks."""
    real = loop.make_step

    def make(*arguments):
        inner = real(*arguments)

        def step(state, *rest):
            if state.step == at and len(state.rollbacks) < times:
                with torch.no_grad():
                    dict(state.model.named_parameters())["head.weight"][0, 0] = float("nan")
            inner(state, *rest)

        return step

    monkeypatch.setattr(loop, "make_step", make)


ROLLBACK = ["optim.on_divergence=rollback"]


@pytest.mark.parametrize("settings", [[], ["optim.name=adam"], ["schedule.name=plateau", "schedule.patience=0"]])
def test_a_rollback_goes_on_from_the_epochs_start_at_half_the_rate(
    settings, tiny_recipe, digits_npz, tmp_path, monkeypatch
):
    """As a run that was begun anew from that checkpoint at half the rate would."""
    settings = ["optim.lr=0.01", *ROLLBACK, *settings]
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)  # the newest checkpoints lie within the epoch
    with monkeypatch.context() as inside:
        poison(inside, at=7)
        run = train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu", settings=settings)
    assert run.summary["rollbacks"] == [
        {"cause": "the weight head.weight was not finite at step 7", "to_step": 4, "lr_factor": 0.5}
    ]
    plain = [*settings, "optim.on_divergence=stop"]
    other = train(tiny_recipe, digits_npz, tmp_path / "other", device="cpu", settings=[*plain, "train.epochs=3"])
    assert run.metrics[0]["val_nll"] == other.metrics[0]["val_nll"]
    if "optim.name=adam" in settings:
        assert run.metrics[2]["lr"] == pytest.approx(0.5 * other.metrics[2]["lr"])
    assert run.metrics[1]["train_loss"] != other.metrics[1]["train_loss"]


def test_a_rollback_is_the_same_wherever_it_is_killed(tiny_recipe, digits_npz, tmp_path, monkeypatch):
    settings = ["optim.lr=0.01", *ROLLBACK]
    poison(monkeypatch, at=7, times=2)
    with monkeypatch.context() as inside:
        whole = train(tiny_recipe, digits_npz, tmp_path / "whole", device="cpu", settings=settings)
    assert [row["lr_factor"] for row in whole.summary["rollbacks"]] == [0.5, 0.25]
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    for number in range(1, 200, 2):
        out = tmp_path / str(number)
        left = [number]

        def write(path, data, real=durable.write_bytes, left=left):
            if path.parent.name == "checkpoints":
                left[0] -= 1
                if left[0] == 0:
                    raise Killed
            real(path, data)

        with monkeypatch.context() as inside:
            inside.setattr(durable, "write_bytes", write)
            try:
                train(tiny_recipe, digits_npz, out, device="cpu", settings=settings)
            except Killed:
                pass
            else:
                break
        assert essence(resume(out)) == essence(whole), number
        shutil.rmtree(out)
    assert number > 20


def test_rollbacks_end(tiny_recipe, digits_npz, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, at=7, times=100)
    with pytest.raises(ResfitError, match=r"at step 7, after 5 rollbacks\. Lower optim\.lr"):
        train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu", settings=ROLLBACK)
    assert capsys.readouterr().err.count("back at step 4, with") == 5
    run = Run(tmp_path / "run")
    assert run.info["status"] == "failed"
    tensors, header, _ = load_newest(run.checkpoints)
    assert header["step"] == 4
    assert all(value.isfinite().all() for value in tensors.values() if value.is_floating_point())


def test_weights_that_are_not_finite_reach_no_checkpoint(tiny_recipe, digits_npz, tmp_path, monkeypatch):
    real = loop.make_step

    def make(*arguments):
        inner = real(*arguments)

        def step(state, *rest):
            inner(state, *rest)
            if state.step == 4:  # after the epoch's last update: no loss shows it before the checkpoint
                next(iter(state.optimizer.state.values()))["momentum_buffer"].fill_(float("inf"))

        return step

    monkeypatch.setattr(loop, "make_step", make)
    with pytest.raises(ResfitError, match="not finite after"):
        train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu")
    assert load_newest(Run(tmp_path / "run").checkpoints)[1]["step"] == 0


# --- a disk that does not take what is written


class Disk:
    """Stands for a disk that is full: writes to the run folder fail from the `first` to before the `last`."""

    def __init__(self, monkeypatch, first, last, number=errno.ENOSPC):
        self.count, self.failed = 0, []
        real = os.replace

        def replace(source, target):
            self.count += 1
            if first <= self.count < last:
                self.failed.append(Path(target).name)
                raise OSError(number, os.strerror(number))
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)


def writes_before_training(recipe, data, out, monkeypatch):
    """How many files are put in place until the first checkpoint is there."""
    with monkeypatch.context() as inside:
        disk = Disk(inside, 10**9, 10**9)
        counted = []
        inside.setattr("resfit.training.launch.Progress.step", lambda *a: counted.append(disk.count))
        train(recipe, data, out, device="cpu")
    return counted[0], disk.count


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_a_full_disk_does_not_end_training_and_nothing_is_missing_after(
    number, tiny_recipe, digits_npz, trained, tmp_path, monkeypatch, capsys
):
    load_split(digits_npz, "train", PixelRule(16))
    first, _ = writes_before_training(tiny_recipe, digits_npz, tmp_path / "count", monkeypatch)
    with monkeypatch.context() as inside:
        disk = Disk(inside, first + 1, first + 3, number)
        run = train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu")
    assert len(disk.failed) == 2
    said = capsys.readouterr().err
    assert said.count("Training goes on") == 2
    assert os.strerror(number) in said
    assert "written again, nothing is missing" in said
    assert essence(run) == essence(trained)
    assert not list(run.folder.rglob("*.tmp"))


def test_a_disk_full_to_the_end_is_exit_6_and_the_run_goes_on_when_there_is_room(
    tiny_recipe, digits_npz, trained, tmp_path, monkeypatch, capsys
):
    load_split(digits_npz, "train", PixelRule(16))
    first, _ = writes_before_training(tiny_recipe, digits_npz, tmp_path / "count", monkeypatch)
    out = tmp_path / "run"
    words = ["train", str(tiny_recipe), "--data", str(digits_npz), "--device", "cpu", "--out", str(out)]
    with monkeypatch.context() as inside:
        Disk(inside, first + 1, 10**9)
        assert main(words) == 6
    lines = capsys.readouterr().err.strip().splitlines()
    assert "No space left on device. Free space or choose another folder." in lines[-1]
    assert not list(out.rglob("*.tmp"))
    assert load_newest(Run(out).checkpoints)[1]["step"] == 0
    assert essence(resume(out)) == essence(trained)


def test_every_write_failing_once_is_said_or_made_good(tiny_recipe, digits_npz, trained, tmp_path, monkeypatch, capsys):
    load_split(digits_npz, "train", PixelRule(16))
    first, total = writes_before_training(tiny_recipe, digits_npz, tmp_path / "count", monkeypatch)
    for place in range(1, total + 1):
        out = tmp_path / str(place)
        with monkeypatch.context() as inside:
            Disk(inside, place, place + 1)
            code = main(["train", str(tiny_recipe), "--data", str(digits_npz), "--device", "cpu", "--out", str(out)])
        said = capsys.readouterr().err
        if code == 6:
            assert "No space left" in said.strip().splitlines()[-1]
            run = resume(out) if (out / "run.json").exists() else train(tiny_recipe, digits_npz, out, device="cpu")
        else:
            assert code == 0
            assert "Training goes on" in said
            assert place > first
            run = Run(out)
        assert essence(run) == essence(trained), place


def test_a_signal_with_a_full_disk_is_exit_6(tiny_recipe, digits_npz, tmp_path, monkeypatch):
    load_split(digits_npz, "train", PixelRule(16))
    first, _ = writes_before_training(tiny_recipe, digits_npz, tmp_path / "count", monkeypatch)

    def stop(self, state, steps_per_epoch, seconds):
        if state.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("resfit.training.launch.Progress.step", stop)
    Disk(monkeypatch, first + 1, 10**9)
    with pytest.raises(ResourceError, match="No space left"):
        train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu")


# --- signals


def started_process(tiny_recipe, digits_npz, out):
    """A training in a process of its own that has written some rows."""
    words = ["train", tiny_recipe, "--data", digits_npz, "--set", "train.epochs=200", "--device", "cpu", "--out", out]
    process = subprocess.Popen(command(*words), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return process


def test_a_terminal_that_is_closed_stops_training_with_a_checkpoint(tiny_recipe, digits_npz, tmp_path):
    process = started_process(tiny_recipe, digits_npz, tmp_path / "run")
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 129
    assert "stopped by SIGHUP; continue with: resfit resume" in said


def test_a_second_signal_leaves_at_once_with_the_checkpoint_intact(tiny_recipe, digits_npz, tmp_path):
    process = started_process(tiny_recipe, digits_npz, tmp_path / "run")
    for _ in range(2):
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    tensors, _, damaged = load_newest(Run(tmp_path / "run").checkpoints)
    assert tensors
    assert not damaged


# --- run folders and their checkpoints


def test_starting_over_gives_what_the_first_start_gave(trained, tmp_path, capsys):
    run = Run(shutil.copytree(trained.folder, tmp_path / "copy"))
    for path in checkpoints(run.checkpoints):
        path.write_bytes(b"damaged")
    run.update(status="interrupted")
    assert main(["resume", str(run.folder)]) == 6
    said = capsys.readouterr().err
    assert "Start over with `resfit resume --fresh`" in said
    assert said.count("\n") == 1
    assert main(["resume", str(run.folder), "--fresh"]) == 0
    assert essence(run) == essence(trained)


def test_starting_over_killed_within_is_never_a_run_with_rows_missing(trained, tmp_path, monkeypatch):
    load_split(trained.info["source"], "train", PixelRule(16))
    for number in range(1, 20):
        run = Run(shutil.copytree(trained.folder, tmp_path / str(number)))
        left = [number]

        def unlink(self, missing_ok=False, real=Path.unlink, left=left):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            real(self, missing_ok=missing_ok)

        with monkeypatch.context() as inside:
            inside.setattr(Path, "unlink", unlink)
            try:
                resume(run.folder, fresh=True)
            except Killed:
                pass
            else:
                break
        if checkpoints(run.checkpoints):
            resume(run.folder)
        else:
            with pytest.raises(ResourceError, match="--fresh"):
                resume(run.folder)
            resume(run.folder, fresh=True)
        assert essence(run) == essence(trained), number
    assert number > 4


def test_a_tested_run_does_not_start_over(trained, tmp_path):
    run = Run(shutil.copytree(trained.folder, tmp_path / "copy"))
    run.receipt_file.write_text("{}")
    with pytest.raises(UsageError, match="has been tested"):
        resume(run.folder, fresh=True)


def test_another_runs_checkpoint_and_a_renamed_one_are_passed_over(tiny_recipe, digits_npz, trained, tmp_path, capsys):
    other = train(tiny_recipe, digits_npz, tmp_path / "other", seed=1, device="cpu")
    run = Run(shutil.copytree(trained.folder, tmp_path / "copy"))
    run.update(status="interrupted")
    newest, older = reversed(checkpoints(run.checkpoints))
    shutil.copy(checkpoints(other.checkpoints)[-1], newest)
    shutil.copy(older, newest.with_name("step-000000014.safetensors"))
    assert essence(resume(run.folder)) == essence(trained)
    said = capsys.readouterr().err
    assert "step-000000014.safetensors: damaged checkpoint passed over: it holds step 8" in said
    assert "it is another run's: its seed differs" in said


def test_the_header_says_what_a_checkpoint_is_of(trained):
    _, header = read_tensors(checkpoints(trained.checkpoints)[-1])
    assert header["step"] == 12
    assert header["seed"] == 0
    assert load_recipe(trained.recipe_file) == trained.recipe
    assert 'name = "tiny"' in header["recipe"]
    assert header["class_names"] == trained.info["class_names"]
    assert header["versions"] == trained.info["versions"]
    assert header["threads"] == trained.info["threads"]
    assert header["data"] == trained.info["data"]["train"]


def test_other_versions_are_said(trained, tmp_path, monkeypatch, capsys):
    run = Run(shutil.copytree(trained.folder, tmp_path / "copy"))
    checkpoints(run.checkpoints)[-1].unlink()
    run.update(status="interrupted")
    monkeypatch.setattr("resfit.training.execution.versions", lambda: trained.info["versions"] | {"torch": "9.9"})
    resume(run.folder)
    assert "goes on with 9.9: the last bits may differ" in capsys.readouterr().err


def test_who_comes_second_changes_nothing(tiny_recipe, digits_npz, tmp_path):
    """Both have seen the folder free; the second has it only when the first has written its files."""
    recipe = load_recipe(tiny_recipe)
    train_set, val_set = (load_split(digits_npz, split, PixelRule(16)) for split in ("train", "val"))
    out = tmp_path / "run"
    out.mkdir()
    with own(Run(out)), pytest.raises(ResourceError, match="another process is training it"):
        start(recipe, train_set, val_set, out, seed=5, device="cpu")
    assert [path.name for path in out.iterdir()] == [".lock"]
    start(recipe, train_set, val_set, out, seed=5, device="cpu")
    before = (out / "run.json").read_bytes()
    with pytest.raises(UsageError, match="holds something already"):
        start(recipe, train_set, val_set, out, seed=6, device="cpu")
    assert (out / "run.json").read_bytes() == before


def test_a_folder_that_cannot_be_locked_is_one_line(trained, tmp_path, monkeypatch):
    run = Run(shutil.copytree(trained.folder, tmp_path / "copy"))
    (run.folder / ".lock").unlink()
    (run.folder / ".lock").mkdir()
    run.update(status="interrupted")
    with pytest.raises(ResourceError, match=r"copy: cannot be written: Is a directory"):
        resume(run.folder)


# --- memory


@pytest.mark.parametrize("settings", [[], ["optim.sam_rho=0.05"]])
def test_parts_of_a_batch_give_its_gradient(settings):
    """Without BatchNorm's statistics, which see the parts, the weights after a step are the whole batch's."""
    made = []
    for accumulate in (1, 3):
        recipe = recipe_of("optim.lr=0.1", f"optim.accumulate={accumulate}", *settings)
        state = make_state(recipe, 0, CPU)
        for module in state.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
                module.train = lambda mode=True: None
        make_step(recipe, 3, CPU)(state, *batch(40), 0)
        made.append((copies(state), state.sums.clone()))
    (whole, sums), (parts, other) = made
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(sums, other, rtol=1e-6, atol=0)


def test_no_part_has_a_single_image():
    recipe = recipe_of("optim.accumulate=128")
    state, seen = make_state(recipe, 0, CPU), []
    state.model.register_forward_hook(lambda module, given, logits: seen.append(len(logits)))
    make_step(recipe, 3, CPU)(state, *batch(5), 0)
    assert seen == [3, 2]


SHORT = """
import resource, sys, threading
from resfit.cli import main
import torch
torch.backends.mkldnn.enabled = False  # oneDNN ends the process by a signal where it gets no memory
torch.ones(2, 2) @ torch.ones(2, 2)
room = int(sys.argv[1]) * 2**20
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))
sys.exit(main(sys.argv[2:]))
"""


def test_memory_that_is_short_is_one_line_with_a_batch_that_fits(digits_npz, tiny_recipe, tmp_path):
    """A real process with a real limit on its memory."""
    big = ["--set", "network=resnet:widths=256,256:blocks_per_stage=2,2:image_size=32", "--set", "data.image_size=32"]
    words = ["train", str(tiny_recipe), "--data", str(digits_npz), *big, "--device", "cpu"]
    words += ["--set", "train.batch_size=240", "--set", "train.epochs=1", "--out"]
    done = subprocess.run(
        [sys.executable, "-c", SHORT, "700", *words, tmp_path / "run"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 6, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "out of memory with batches of 240 images (step 0)" in last
    fits = int(last.split("--set train.batch_size=")[1].split(",")[0])
    parts = int(last.split("--set optim.accumulate=")[1])
    assert 2 <= fits < 240
    assert -(-240 // parts) <= fits
    assert load_newest(Run(tmp_path / "run").checkpoints)[1]["step"] == 0
    assert Run(tmp_path / "run").info["status"] == "failed"


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("shapes do not match"), False),
        (ResourceError("disk"), False),
    ],
)
def test_what_is_out_of_memory(error, short):
    assert is_out_of_memory(error) == short


def test_the_batch_that_fits_is_found_by_halving(monkeypatch):
    recipe, tried = recipe_of("train.batch_size=100"), []

    def forward(self, images):
        tried.append(len(images))
        if len(images) > 13:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(self, images)

    state = make_state(recipe, 0, CPU)
    real = type(state.model).forward
    monkeypatch.setattr(type(state.model), "forward", forward)
    assert fitting_batch(recipe, state) == 12
    assert tried == [50, 25, 12]


def test_who_waited_for_a_run_that_then_finished_leaves_it_alone(trained, tmp_path, monkeypatch, capsys):
    """The look before the lock saw it running."""
    run = Run(shutil.copytree(trained.folder, tmp_path / "copy"))
    run.update(status="running")
    real = launch.hold

    def hold(held):
        run.update(status="finished")
        return real(held)

    monkeypatch.setattr(launch, "hold", hold)
    resume(run.folder)
    said = capsys.readouterr().err
    assert "has finished already" in said
    assert "continues at step" not in said
