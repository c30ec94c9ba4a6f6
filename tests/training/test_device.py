"""A step never waits for its device: on the meta device, where nothing can be read, and on a GPU under torch's own check."""

import contextlib
from unittest import mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from resfit.recipefile import load_recipe, recipe_names
from resfit.training.compiled import compile_forward
from resfit.training.init import make_state
from resfit.training.step import make_step

META = torch.device("meta")
MORE = ["optim.name=muon", "network.stochastic_depth=0.2", "network.dropout=0.1", "augment={alternating-flip={}}"]
CASES = [(name, "float32") for name in (*recipe_names(), "muon")]
CASES += [(name, "float16") for name in ("r1-4", "r3", "r4-lighter", "best-5m", "muon")]


def recipe_of(name, precision, *settings):
    fixed = ["data.mean=[0.5,0.5,0.5]", "data.std=[0.25,0.25,0.25]", "train.epochs=9", "schedule.warmup_epochs=0"]
    network = "resnet:widths=8,16,16,16:blocks_per_stage=1,1,1,1:se_reduction=4"
    network = "whitened:widths=8,16,16:blocks_per_stage=1,1,1" if name.startswith("speed-") else network
    narrow = [f"network={network}", f"train.precision={precision}"]
    more = MORE if name == "muon" else []
    return load_recipe("default" if name == "muon" else name, [*fixed, *narrow, *more, *settings])


def batch(recipe, device):
    side = recipe.network.image_size
    images = torch.zeros(8, 3, side, side, dtype=torch.uint8, device=device)
    return images, torch.zeros(8, dtype=torch.int64, device=device), torch.arange(8, device=device)


class OneDevice(TorchDispatchMode):
    """Fails where a tensor comes from the host: made of Python's numbers, copied, or used as an index."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given, made = (
            [value for value in tree_leaves(tree) if isinstance(value, torch.Tensor)]
            for tree in ((args, kwargs), result)
        )
        if any(value.is_meta for value in (*given, *made)):  # a number may stand beside tensors, but not be copied
            copied = "copy" in func.name()
            strangers = [value for value in given if not value.is_meta and (copied or value.ndim > 0)]
            assert not strangers, f"{func.name()} takes a tensor of the host's"
        return result


def no_tensor_of_numbers():
    """`torch.tensor(numbers, device=...)` is a copy; the meta device makes it in place, where no dispatch mode sees it."""
    real = torch.tensor

    def tensor(value, *args, device="cpu", **kwargs):
        assert torch.device(device).type == "cpu", "torch.tensor(...) copies to the device"
        return real(value, *args, device=device, **kwargs)

    return mock.patch("torch.tensor", tensor)


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_a_step_never_waits_for_its_device(name, precision):
    recipe = recipe_of(name, precision)
    optim = recipe.optim.model_copy(update={"clip_norm": None})  # its foreach form refuses the meta device
    recipe = recipe.model_copy(update={"optim": optim})
    state = make_state(recipe, 0, META)
    with mock.patch("resfit.training.step.make_autocast", return_value=contextlib.nullcontext):  # meta has none
        step = make_step(recipe, 2, META)
    if precision == "float16" and name != "muon":  # stands for the fused forms, which the meta device has not
        state.optimizer._step_supports_amp_scaling = True
        state.optimizer.step = lambda: None
    given = batch(recipe, META)
    step(state, *given, 0)  # tables that are kept are made at the first step
    with OneDevice(), no_tensor_of_numbers():
        for number in range(1, 4):  # every mix comes up
            step(state, *given, number)
    assert state.step == 4


@pytest.mark.parametrize(
    "bad",
    [
        lambda x: x + torch.tensor([1.0], device=META),
        lambda x: x[torch.arange(2)],
        lambda x: x + torch.ones(3).to(META),
    ],
)
def test_the_check_finds_what_comes_from_the_host(bad):
    x = torch.zeros(3, device=META)
    with pytest.raises((AssertionError, RuntimeError)), OneDevice(), no_tensor_of_numbers():
        bad(x)


def test_the_check_lets_work_on_the_device_pass():
    x = torch.zeros(3, device=META)
    with OneDevice(), no_tensor_of_numbers():
        assert (x[torch.arange(2, device=META)] * 2.0 + x.sum()).is_meta


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "graphs"])
@pytest.mark.parametrize(("name", "precision"), [*CASES, *[(n, "bfloat16") for n in ("r1-4", "muon")]])
def test_a_step_never_waits_for_a_gpu(name, precision, graphs):
    """With torch's own check, which raises at a synchronising call. Graphs and clipping too, and SAM's second pass."""
    if graphs and name not in ("r1-4", "muon", "best-5m"):
        pytest.skip("graphs: three recipes tell")
    cuda = torch.device("cuda")
    more = ["optim.clip_norm=1.0", *(["train.cuda_graphs=true"] if graphs else [])]
    recipe = recipe_of(name, precision, *more)
    state = make_state(recipe, 0, cuda)
    state.model.train()
    forward, _ = compile_forward(recipe, state.model, 8)
    assert (forward is not state.model) == graphs
    step = make_step(recipe, 2, cuda, None, forward)
    given = batch(recipe, cuda)
    for number in range(2):
        step(state, *given, number)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in range(2, 6):
            step(state, *given, number)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert state.step == 6
    assert state.sums.isfinite().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw", "muon"])
def test_an_overflow_is_skipped_on_the_gpu(kind):
    recipe = recipe_of("default", "float16", f"optim.name={kind}", "optim.lr=0.01", "train.ema_decay=0.9")
    cuda = torch.device("cuda")
    state, step = make_state(recipe, 0, cuda), make_step(recipe, 2, cuda)
    state.scaler.load_state_dict(state.scaler.state_dict() | {"scale": 2.0**126})
    before = {name: value.clone() for name, value in (state.model.state_dict() | state.weights()).items()}
    step(state, *batch(recipe, cuda), 0)
    for name, value in (state.model.state_dict() | state.weights()).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, msg=name)
    assert state.sums[3] == -1
    state.scaler.load_state_dict(state.scaler.state_dict() | {"scale": 1.0})
    step(state, *batch(recipe, cuda), 1)
    assert all(value.isfinite().all() for value in state.model.state_dict().values())
