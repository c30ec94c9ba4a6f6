"""The compiled pass on this CPU: the same step, nothing left behind by the warm-up, and a line where it does not work."""

import os
import shutil

import pytest
import torch

from resfit.recipefile import load_recipe
from resfit.training import compiled
from resfit.training.compiled import compile_forward, warm_up
from resfit.training.ema import start_average
from resfit.training.init import make_state
from resfit.training.launch import train
from resfit.training.state import TrainState, state_tensors
from resfit.training.step import make_step

CPU = torch.device("cpu")
SPEC = "resnet:widths=4:blocks_per_stage=1:image_size=8"


def recipe_of(*settings):
    fixed = ["data.mean=[0.5,0.4,0.3]", "data.std=[0.2,0.3,0.4]", "train.epochs=9", "schedule.warmup_epochs=0"]
    recipe = load_recipe(SPEC, [*fixed, "optim.lr=0.01", *settings])
    return recipe.model_copy(update={"augment": {}})


def small_state():
    """A network with one of each thing, for the compiler to be done with it soon."""
    torch.manual_seed(0)
    head = torch.nn.Linear(4, 10)
    layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)]
    model = torch.nn.Sequential(*layers, torch.nn.Flatten(), head).to(memory_format=torch.channels_last)
    return TrainState(model, torch.optim.SGD(model.parameters(), 0.1), start_average(model))


@pytest.fixture
def compiler(need):
    need(os.environ.get("CXX", "g++" if shutil.which("g++") else "clang++"))


def test_a_compiled_step_is_the_plain_one(compiler, capsys):
    """Full batches take the compiled pass, an epoch's last the model itself; names, weights and random state stay."""
    recipe = recipe_of("train.compile=true", "train.ema_decay=0.9")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8, generator=generator)
    states = [small_state() for _ in range(2)]
    before, drawn = {k: v.clone() for k, v in state_tensors(states[0]).items()}, torch.get_rng_state()
    states[0].model.train()
    forward, seconds = compile_forward(recipe, states[0].model, 16)
    assert seconds > 0
    assert "compiled in" in capsys.readouterr().err
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(p.grad is None for p in states[0].model.parameters())
    for name, value in state_tensors(states[0]).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    for state, step in zip(states, (make_step(recipe, 3, CPU, None, forward), make_step(recipe, 3, CPU)), strict=True):
        for count in (16, 16, 5):
            step(state, images[:count], torch.arange(count) % 10, torch.arange(count), 0)
    ours, plain = map(state_tensors, states)
    assert ours.keys() == plain.keys() == before.keys()  # no `_orig_mod.`
    for name, value in ours.items():
        torch.testing.assert_close(value, plain[name], rtol=1e-3, atol=1e-4, msg=name)


def test_every_size_is_warmed_up(monkeypatch):
    recipe, sizes = recipe_of("train.compile=true"), []
    model = make_state(recipe, 0, CPU).model
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)
    monkeypatch.setattr(compiled, "warm_up", lambda forward, model, batch, size, precision: sizes.append((batch, size)))
    compile_forward(recipe, model, 16, [6, 8])
    assert sizes == [(16, 6), (16, 8)]


def test_without_the_keys_nothing_is_compiled(monkeypatch):
    recipe = recipe_of()
    model = make_state(recipe, 0, CPU).model
    monkeypatch.setattr(torch, "compile", None)
    assert compile_forward(recipe, model, 16) == (model, 0.0)


@pytest.mark.parametrize(
    ("settings", "device", "options"),
    [
        (["train.compile=true"], "cuda", {"mode": None}),
        (["train.compile=true", "train.cuda_graphs=true"], "cuda", {"mode": "reduce-overhead"}),
        (["train.cuda_graphs=true"], "cuda", {"backend": "cudagraphs"}),
        (["train.compile=true", "train.cuda_graphs=true"], "cpu", {"mode": None}),
    ],
)
def test_what_torch_is_asked_for(monkeypatch, capsys, settings, device, options):
    asked = []
    model = torch.nn.Linear(1, 1)
    monkeypatch.setattr(torch, "compile", lambda model, **given: asked.append(given) or model)
    monkeypatch.setattr(compiled, "warm_up", lambda *given: None)
    monkeypatch.setattr(compiled, "_device", lambda model: torch.device(device))
    compile_forward(recipe_of(*settings), model, 16)
    assert asked == [{"dynamic": False, **options}]
    line = "train.cuda_graphs: needs a CUDA card, not cpu; training goes on without"
    assert (line in capsys.readouterr().err) == (device == "cpu")


@pytest.mark.parametrize("device", ["mps", "cpu"])
def test_graphs_alone_need_a_card(monkeypatch, capsys, device):
    monkeypatch.setattr(compiled, "_device", lambda model: torch.device(device))
    recipe = recipe_of("train.cuda_graphs=true", f"train.compile={'true' if device == 'mps' else 'false'}")
    model = make_state(recipe, 0, CPU).model
    assert compile_forward(recipe, model, 16) == (model, 0.0)
    lines = capsys.readouterr().err.splitlines()
    assert all(line.endswith("; training goes on without") for line in lines)
    assert len(lines) == (2 if device == "mps" else 1)


def test_a_compiler_that_fails_is_said_and_done_without(monkeypatch, capsys, tmp_path, tiny_recipe, digits_npz):
    def broken(model, **options):
        def forward(inputs):
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nand more")

        return forward

    monkeypatch.setattr(torch, "compile", broken)
    settings = ["train.compile=true", "train.epochs=1"]
    run = train(tiny_recipe, digits_npz, tmp_path / "run", settings=settings)
    said = capsys.readouterr().err
    assert "do not work here (InvalidCxxCompiler: No working C++ compiler found); training goes on without" in said
    assert run.summary["compile_seconds"] >= 0
    assert run.summary["val"]["accuracy"] > 0.3


def test_a_warm_up_that_fails_leaves_the_model_as_it_was():
    model = make_state(recipe_of(), 0, CPU).model.train()
    before, calls = {k: v.clone() for k, v in model.state_dict().items()}, []

    def forward(inputs):
        calls.append(inputs.shape)
        if len(calls) == 2:
            raise RuntimeError("late")
        return model(inputs)

    with pytest.raises(RuntimeError, match="late"):
        warm_up(forward, model, 4, 8, "float32")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert all(p.grad is None for p in model.parameters())
