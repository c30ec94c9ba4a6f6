"""Out of memory: noticed whatever it is called, and answered with the batch size that would fit."""

import gc

import torch
from torch.nn.functional import cross_entropy

from resfit.errors import ResourceError
from resfit.recipe import Recipe
from resfit.training.precision import make_autocast
from resfit.training.ranks import present
from resfit.training.state import TrainState


class OutOfMemoryError(ResourceError):
    """The network and its batch do not fit; the message says what would."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is short: Python's, a GPU's, or one without a class of its own.

    oneDNN calls it a primitive that could not be created.
    """
    words = ("can't allocate memory", "not enough memory", "bad_alloc", "Cannot allocate memory", "create a primitive")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError | OSError) and any(word in str(error) for word in words)
    )


def out_of_memory(recipe: Recipe, state: TrainState, where: str) -> OutOfMemoryError:
    """Return the error to raise: it names the batch size that does fit, as found by trying."""
    size = recipe.train.batch_size
    said = f"{where}: out of memory with batches of {size} images (step {state.step})"
    if present().many:  # a pass of one rank alone would wait for the others
        return OutOfMemoryError(f"{said}. Lower train.batch_size, raise optim.accumulate, or take more ranks.")
    fits = fitting_batch(recipe, state)
    if fits == 0:
        return OutOfMemoryError(f"{said}, and with 2. Take a smaller network or image size.")
    parts = recipe.optim.accumulate * -(-size // (recipe.optim.accumulate * fits))
    return OutOfMemoryError(
        f"{said}; {fits} fit: --set train.batch_size={fits}, or the same batch in parts: --set optim.accumulate={parts}"
    )


def fitting_batch(recipe: Recipe, state: TrainState) -> int:
    """Return how many images a forward and backward pass has memory for, the size halved until they do; 0 where 2 do not."""
    size = recipe.train.batch_size // recipe.optim.accumulate
    while (size := size // 2) >= 2:
        gc.collect()
        try:
            _try(recipe, state, size)
            return size
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        finally:
            state.optimizer.zero_grad()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return 0


def _try(recipe: Recipe, state: TrainState, count: int) -> None:
    spec, device = recipe.network, next(state.model.parameters()).device
    images = torch.zeros((count, spec.channels, spec.image_size, spec.image_size), device=device)
    labels = torch.zeros(count, dtype=torch.int64, device=device)
    with make_autocast(recipe.train.precision, device)():
        loss = cross_entropy(state.model(images.contiguous(memory_format=torch.channels_last)), labels)
    torch.autograd.backward(loss)
