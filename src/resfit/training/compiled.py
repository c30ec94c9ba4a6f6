"""The network's training pass compiled (`train.compile`), or replayed as CUDA graphs (`train.cuda_graphs`), warmed up first.

Ansel et al. 2024, "PyTorch 2". The model itself stays as it is: names of weights, evaluation, average and SAM do not notice.
"""

import time
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from resfit.recipe import Recipe
from resfit.training.precision import make_autocast
from resfit.training.runlog import say

Forward = Callable[[Tensor], Tensor]

PASSES = 3  # of warm-up: CUDA graphs run the first, record the second and replay the third


def compile_forward(
    recipe: Recipe, model: nn.Module, batch_size: int, sizes: Sequence[int] | None = None
) -> tuple[Forward, float]:
    """Return (inputs (N, 3, S, S) -> logits, seconds that compiling took) for training `model`, already in train mode.

    Each of `sizes` (pixels, default: the network's) is warmed up; batches other than `batch_size`, such as an epoch's last,
    take the model as it is. Where it cannot be compiled, one line says so and the model itself is returned.
    """
    compiled, graphs = _wanted(recipe, _device(model))
    if not compiled and not graphs:
        return model, 0.0
    started = time.monotonic()
    say("train.compile, train.cuda_graphs: compiling, which may take a minute")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's advice to those who write kernels
            forward = _compile(model, batch_size, compiled, graphs)
            for size in sizes or [recipe.network.image_size]:
                warm_up(forward, model, batch_size, size, recipe.train.precision)
    except Exception as error:  # whatever goes wrong in a compiler, the run can do without it
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        say(f"train.compile, train.cuda_graphs: do not work here ({reason[:200]}); training goes on without")
        return model, time.monotonic() - started
    seconds = time.monotonic() - started
    say(f"compiled in {seconds:.1f} s")
    return forward, seconds


def _compile(model: nn.Module, batch_size: int, compiled: bool, graphs: bool) -> Forward:
    if compiled:
        fast: Forward = torch.compile(model, dynamic=False, mode="reduce-overhead" if graphs else None)
    else:
        fast = torch.compile(model, dynamic=False, backend="cudagraphs")

    def forward(inputs: Tensor) -> Tensor:
        if len(inputs) != batch_size:
            logits: Tensor = model(inputs)
            return logits
        if graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return fast(inputs.contiguous(memory_format=torch.channels_last))  # as warmed up; else compiled anew

    return forward


def warm_up(forward: Forward, model: nn.Module, batch_size: int, size: int, precision: str) -> None:
    """Run `forward` and its backward pass on blank images; buffers and random state are put back, gradients dropped."""
    device = _device(model)
    cards = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    inputs = torch.zeros(batch_size, 3, size, size, device=device).to(memory_format=torch.channels_last)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
    buffers = [value.clone() for value in model.buffers()]
    autocast = make_autocast(precision, device)
    try:
        with torch.random.fork_rng(devices=cards):
            for _ in range(PASSES):
                model.zero_grad()
                with autocast():
                    loss = cross_entropy(forward(inputs), labels)
                torch.autograd.backward(loss)
        if cards:
            torch.cuda.synchronize(device)
    finally:
        model.zero_grad()
        with torch.no_grad():
            for value, before in zip(model.buffers(), buffers, strict=True):
                value.copy_(before)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _wanted(recipe: Recipe, device: torch.device) -> tuple[bool, bool]:
    """Return whether to compile and whether to take CUDA graphs; a line says what was asked for in vain."""
    compiled, graphs = recipe.train.compile, recipe.train.cuda_graphs
    if compiled and device.type == "mps":
        say("train.compile: does not work on mps; training goes on without")
        compiled = False
    if graphs and device.type != "cuda":
        say(f"train.cuda_graphs: needs a CUDA card, not {device.type}; training goes on without")
        graphs = False
    return compiled, graphs
