"""Precision by device, and float16's loss scaling: the same updates as without, overflows skipped whole, exact resume."""

import contextlib
import json

import pytest
import torch
from torch import nn

from resfit import machine
from resfit.plugins import check_params
from resfit.recipefile import load_recipe
from resfit.training import execution, launch, loop, precision
from resfit.training.init import make_state
from resfit.training.launch import resume, train
from resfit.training.optim import muon, sgd
from resfit.training.precision import choose_precision, make_autocast, make_scaler, scaled_update
from resfit.training.state import restore, state_tensors
from resfit.training.step import make_step

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
SPEC = "resnet:widths=4,8:blocks_per_stage=1,1:image_size=8"
HUGE = 2.0**126  # a scale that overflows every gradient


def recipe_of(*settings):
    fixed = ["data.mean=[0.5,0.4,0.3]", "data.std=[0.2,0.3,0.4]", "train.epochs=9", "train.batch_size=16"]
    recipe = load_recipe(SPEC, [*fixed, "train.precision=float16", "schedule.warmup_epochs=0", *settings])
    return recipe.model_copy(update={"augment": {}})


def data(count=16):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 10, (count,), generator=generator), torch.arange(count)


def set_scale(state, scale):
    state.scaler.load_state_dict(state.scaler.state_dict() | {"scale": scale})


def copies(state):
    return {name: value.clone() for name, value in state_tensors(state).items() if name not in ("sums", "scaler")}


@pytest.mark.parametrize(
    ("wanted", "device", "native", "taken"),
    [
        ("auto", CPU, True, "float32"),
        ("auto", MPS, True, "float32"),
        ("auto", CUDA, True, "bfloat16"),
        ("auto", CUDA, False, "float16"),
        ("bfloat16", CUDA, False, "float16"),
        ("float16", CUDA, True, "float16"),
        ("float32", CUDA, True, "float32"),
        ("bfloat16", CPU, True, "bfloat16"),
        ("bfloat16", CPU, False, "float32"),
        ("float16", CPU, True, "float32"),
    ],
)
def test_a_device_takes_what_it_has(monkeypatch, wanted, device, native, taken):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    monkeypatch.setattr(precision, "has_bfloat16", lambda: native)
    assert choose_precision(wanted, device) == taken
    assert (make_scaler(taken, CPU) is not None) == (taken == "float16")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("processor : 0\nflags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("Features\t: fp asimd bf16\n", True),
        ("Features\t: fp asimd\n", False),
        ("", False),
    ],
)
def test_the_cpus_flags_tell(monkeypatch, text, found):
    monkeypatch.setattr(machine.Path, "read_text", lambda self: text)
    assert machine.has_bfloat16() is found


def test_a_run_says_which_precision_it_takes(monkeypatch, capsys, tmp_path, tiny_recipe, digits_npz):
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    run = train(tiny_recipe, digits_npz, tmp_path / "run", settings=["train.precision=bfloat16", "train.epochs=1"])
    assert "train.precision: bfloat16 is not native to cpu" in capsys.readouterr().err
    assert run.info["precision"] == "float32"
    assert run.recipe.train.precision == "bfloat16"  # on another machine it is taken
    assert run.summary["compile_seconds"] == 0


def test_autocast_takes_the_type():
    for name, dtype in precision.DTYPES.items():
        with make_autocast(name, CPU)():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    with make_autocast("auto", CPU)():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.parametrize(
    "more", [["optim.clip_norm=0.5"], ["optim.name=muon"], ["optim.sam_rho=0.1"], ["optim.name=adamw"]]
)
def test_a_scaled_step_is_the_plain_one(monkeypatch, more):
    """Without autocast, float16's scaling must change nothing: a scale is a power of two."""
    monkeypatch.setattr("resfit.training.step.make_autocast", lambda precision, device: contextlib.nullcontext)
    images, labels, index = data()
    ends = []
    for name in ("float16", "float32"):
        recipe = recipe_of("optim.lr=0.01", f"train.precision={name}", "train.ema_decay=0.9", *more)
        state, step = make_state(recipe, 0, CPU), make_step(recipe, 3, CPU)
        assert (state.scaler is not None) == (name == "float16")
        for _ in range(3):
            step(state, images, labels, index, 0)
        ends.append(copies(state) | {"sums": state.sums})
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("more", [["optim.name=sgd"], ["optim.name=muon"], ["optim.name=adam", "optim.sam_rho=0.1"]])
def test_an_overflow_skips_the_whole_update(more):
    recipe = recipe_of("optim.lr=0.01", "train.ema_decay=0.9", "optim.clip_norm=1.0", *more)
    images, labels, index = data()
    state, step = make_state(recipe, 0, CPU), make_step(recipe, 3, CPU)
    set_scale(state, 2.0)
    step(state, images, labels, index, 0)
    before, counted = copies(state), state.sums.clone()
    set_scale(state, HUGE)
    step(state, images, labels, index, 0)
    after = copies(state)
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0, msg=name)
    assert state.sums[3] == -1  # no divergence
    assert state.sums[2] == counted[2] + 16  # the loss itself was fine
    assert state.scaler.get_scale() == HUGE / 2
    assert state.step == 2
    set_scale(state, 2.0)
    step(state, images, labels, index, 0)
    assert not torch.equal(state.model.head.weight, before["model.head.weight"])


@pytest.mark.parametrize("scale", [1024.0, 0.5])
def test_a_loss_that_overflows_is_left_out_and_hopeless_at_a_small_scale(scale):
    recipe = recipe_of("optim.lr=0.01")
    images, labels, index = data()
    state, step = make_state(recipe, 0, CPU), make_step(recipe, 3, CPU)
    with torch.no_grad():
        state.model.head.weight.fill_(torch.finfo(torch.float32).max)  # infinite in float16
    set_scale(state, scale)
    step(state, images, labels, index, 0)
    assert all(value.isfinite().all() for value in state.model.buffers())
    if scale >= 1:
        assert state.sums.tolist() == [0, 0, 0, -1]
    else:
        assert state.sums[3] == 0  # that is divergence, at step 0


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw", "muon"])
def test_a_first_step_that_overflows_leaves_no_trace(kind):
    """The optimizers that skip on the device, torch's in their fused form: its SGD would keep what lay in memory."""
    weight, other = (nn.Parameter(torch.arange(6.0).view(2, 3)) for _ in range(2))
    model = nn.Linear(3, 2, bias=False)
    ends = []
    for param, overflows in ((weight, 1), (other, 0)):
        model.weight = param
        if kind == "muon":
            optimizer = muon(
                [param], lr=0.1, weight_decay=0.01, **check_params("optimizers", "muon", {"momentum": 0.9}, "optim")
            )
        elif kind == "sgd":
            optimizer = sgd([param], 0.1, 0.01, 0.9, True)
            optimizer.param_groups[0].update(fused=True, foreach=False)
            optimizer._step_supports_amp_scaling = True
        else:
            optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind]([param], 0.1, fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        for number in range(3):
            param.grad = torch.full_like(param, 8.0 * float("inf") if number < overflows else 8.0 * 0.1)
            if number >= overflows:
                param.grad *= scaler.get_scale() / 8
            skipped, _ = scaled_update(scaler, model, optimizer, None)
            assert skipped == (number < overflows)
            if number + 1 - overflows == 2:
                break
        ends.append((param.detach().clone(), [v for v in optimizer.state[param].values() if v.ndim == 2]))
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)


def test_the_scale_is_part_of_the_state():
    recipe = recipe_of()
    images, labels, index = data()
    state, step = make_state(recipe, 0, CPU), make_step(recipe, 3, CPU)
    set_scale(state, 512.0)
    for _ in range(2):
        step(state, images, labels, index, 0)
    other = make_state(recipe, 0, CPU)
    restore(other, {name: value.clone() for name, value in state_tensors(state).items()}, CPU)
    other.step = state.step
    assert other.scaler.state_dict() == state.scaler.state_dict()
    assert state.scaler.state_dict()["_growth_tracker"] == 2
    for one in (state, other):
        step(one, images, labels, index, 0)
    for name, value in state_tensors(state).items():
        torch.testing.assert_close(state_tensors(other)[name], value, rtol=0, atol=0)


def test_a_float16_run_trains_and_resumes(monkeypatch, tmp_path, tiny_recipe, digits_npz):
    monkeypatch.setattr(execution, "fix_precision", lambda recipe, device: recipe)
    settings = ["train.precision=float16", "train.epochs=2"]
    whole = train(tiny_recipe, digits_npz, tmp_path / "whole", settings=settings, device="cpu")

    def stop(self, state, steps_per_epoch, seconds):
        if state.step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)  # a checkpoint each step
    with monkeypatch.context() as inside:
        inside.setattr(launch.Progress, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_recipe, digits_npz, tmp_path / "run", settings=settings, device="cpu")
    run = resume(tmp_path / "run")
    weights = [folder / "bundle" / "model.safetensors" for folder in (whole.folder, run.folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    rows = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert rows[-1]["train_accuracy"] > 0.4  # three classes
