"""Training in many processes, the ranks of torchrun: each takes its share of every batch, and all take the same step.

Goyal et al. 2017, "Accurate, large minibatch SGD", arXiv 1706.02677, with the gradients summed by our own hand: clipping, SAM,
Muon and freezing then work as in one process. With one process every function here is the identity.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous as find_store

from resfit.data.images import ImageSet
from resfit.errors import ResourceError, UsageError
from resfit.training.runlog import Interrupt, Interrupted
from resfit.training.watch import Watch

TIMEOUT = (
    600.0  # seconds, $RESFIT_TIMEOUT: longer than a checkpoint takes, or compiling on one rank more than on others
)
JOIN = 300.0  # seconds that a rank has to start in, or the timeout where that is longer

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int = 0
    world_size: int = 1

    @property
    def many(self) -> bool:
        """Return whether there are others."""
        return self.world_size > 1

    @property
    def key(self) -> tuple[int, ...]:
        """Return what tells this rank's draws (dropout) from the others'; rank 0 draws as one process does."""
        return (self.rank,) if self.rank else ()

    @property
    def first(self) -> bool:
        """Return whether this one writes."""
        return self.rank == 0


_watch: Watch | None = None  # of this process, as torch.distributed's group is


def present() -> Ranks:
    """Return which rank this process is, within `joined`."""
    return Ranks() if _watch is None else Ranks(_watch.rank, _watch.world_size)


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Be one of torchrun's ranks inside, as its environment variables say; alone without them, or where joined already.

    Ranks other than 0 print nothing. An error of one is every rank's end: it is raised in the one it is of, and the others
    raise Ended with its exit code. Raises UsageError for a $RESFIT_TIMEOUT that is none, ResourceError where ranks are missing.
    """
    global _watch
    size = int(os.environ.get("WORLD_SIZE", "1")) if "MASTER_ADDR" in os.environ else 1
    if size == 1 or _watch is not None:
        yield present()
        return
    _watch = watch = _join(int(os.environ["RANK"]), size)
    watch.heed()
    try:
        with contextlib.ExitStack() as stack:
            if watch.rank:
                sink = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(contextlib.redirect_stdout(sink))
                stack.enter_context(contextlib.redirect_stderr(sink))
            yield present()
    except Interrupted:
        watch.leave()
        raise
    except BaseException as error:
        watch.fail(error)
        raise
    else:
        watch.leave()
        dist.destroy_process_group()
    finally:
        _watch = None


def together(function: Callable[P, T]) -> Callable[P, T]:
    """Run a function within `joined`."""

    @wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> T:
        with joined():
            return function(*args, **kwargs)

    return inside


def _join(rank: int, size: int) -> Watch:
    text = os.environ.get("RESFIT_TIMEOUT", str(TIMEOUT))
    try:
        timeout = float(text)
    except ValueError:
        timeout = 0.0
    if not 0 < timeout < 1e7:
        raise UsageError(f"RESFIT_TIMEOUT: {text!r} is no number of seconds above 0. Leave it out for {TIMEOUT:g}.")
    wait = timedelta(seconds=max(timeout, JOIN))
    try:
        store, _, _ = next(find_store("env://", rank, size, timeout=wait))
        prefix = f"resfit/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        watch = Watch(PrefixStore(f"{prefix}/watch", store.clone()), rank, size, timeout, wait.total_seconds())
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        limit = timedelta(seconds=timeout)
        with watch.wait():  # who stops in here is named, and ended, too
            dist.init_process_group(
                backend, store=PrefixStore(prefix, store), rank=rank, world_size=size, timeout=limit
            )
    except RuntimeError as error:
        line = str(error).splitlines()[0][:200]
        what = f"the ranks do not find each other ({line}). Check torchrun's addresses"
        raise ResourceError(f"rank {rank} of {size}: {what}.") from error
    return watch


def choose_place(device: torch.device) -> torch.device:
    """Return the card of this rank's number on its machine where `device` is a CUDA one and there are others."""
    if _watch is None or device.type != "cuda":
        return device
    number, cards = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= cards:
        raise ResourceError(
            f"rank {_watch.rank} of {_watch.world_size}: this machine has {cards} cards. Lower --nproc-per-node."
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


# What all ranks do together


def total(values: Tensor) -> Tensor:
    """Add up `values` over all ranks in place, and return them."""
    if _watch is not None:
        with _watch.wait():
            dist.all_reduce(values)
    return values


def gather(values: Tensor) -> Tensor:
    """Return the `values` of all ranks, of one shape (...), as (ranks, ...)."""
    if _watch is None:
        return values[None]
    parts = [torch.empty_like(values) for _ in range(_watch.world_size)]
    with _watch.wait():
        dist.all_gather(parts, values)
    return torch.stack(parts)


def shared(make: Callable[[], T]) -> T:
    """Return what rank 0 makes, on every rank; the others' `make` is not called."""
    if _watch is None:
        return make()
    box = [make() if _watch.rank == 0 else None]
    with _watch.wait():
        dist.broadcast_object_list(box, device=torch.device("cpu"))
    value: T = box[0]  # type: ignore[assignment]
    return value


def name_folder(folder: Path) -> None:
    """Tell the watch which run to name in its advice."""
    if _watch is not None:
        _watch.folder = str(folder)


def one_first(make: Callable[[], T]) -> T:
    """Return what this rank makes, each machine's first rank before the others: it decodes what they find in the cache."""
    if _watch is None:
        return make()
    key = f"made/{os.environ.get('GROUP_RANK', '0')}"
    if os.environ.get("LOCAL_RANK", "0") != "0":
        _watch.wait_for(key)
    value = make()
    _watch.store.set(key, "1")
    return value


def agree(interrupt: Interrupt, due: bool, step: int) -> bool:
    """Return whether to save now: a rank has been signalled, which then counts for all, or it is `due` by rank 0's clock."""
    if _watch is None:
        return due or bool(interrupt.signal)
    assert isinstance(interrupt, SharedInterrupt)
    wish = torch.tensor([interrupt.own, int(due and _watch.rank == 0)])
    with _watch.wait():
        dist.all_reduce(wish, dist.ReduceOp.MAX)
    _watch.step = step
    number, saves = wish.tolist()
    interrupt.signal = number
    return bool(number or saves)


class SharedInterrupt(Interrupt):
    """Remembers this rank's own signal until the ranks have agreed on it, so that all stop after the same step."""

    def __init__(self) -> None:
        super().__init__()
        self.own = 0

    def _note(self, number: int, frame: object) -> None:
        if self.own:
            os._exit(128 + number)
        self.own = number


def make_interrupt() -> Interrupt:
    """Return what remembers signals, here or of all ranks."""
    return Interrupt() if _watch is None else SharedInterrupt()


# A rank's share


def own_places(count: int, ranks: Ranks) -> np.ndarray:
    """Return the places, int64 (n,) rising, of a rank in a batch of `count`: as many from its beginning as from its end.

    Mixing takes for each image the one as far from the batch's other end, and so finds it in the same rank. Shares differ by
    two images at most, and none is of a single image: BatchNorm cannot take that. A rank may have none of a small batch.
    """
    each, extra = divmod(count // 2, ranks.world_size)
    start = ranks.rank * each + min(ranks.rank, extra)
    front = np.arange(start, start + each + (ranks.rank < extra))
    has_middle = count % 2 == 1 and ranks.rank == (ranks.world_size - 1 if each else 0)
    middle = np.full(int(has_middle), count // 2)
    return np.concatenate([front, middle, count - 1 - front[::-1]])


def own_batches(order: Tensor, batch_size: int) -> tuple[Tensor, int | list[int]]:
    """Return the part of an epoch's `order`, int64 (N,), that is this rank's, and the size of its share of each batch."""
    ranks = present()
    if not ranks.many:
        return order, batch_size
    parts = [part[torch.from_numpy(own_places(len(part), ranks))] for part in torch.split(order, batch_size)]
    return torch.cat(parts), [len(part) for part in parts]


def own_size(batch_size: int) -> int:
    """Return how many images of a whole batch are this rank's."""
    return len(own_places(batch_size, present()))


def own_part(images: ImageSet) -> ImageSet:
    """Return the images that this rank predicts: a stretch of them."""
    ranks = present()
    if not ranks.many:
        return images
    first, last = (len(images) * k // ranks.world_size for k in (ranks.rank, ranks.rank + 1))
    return images.take(np.arange(first, last))


def all_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """Return the rows (count, K) of all ranks' parts from each one's own (n, K) float32, in order."""
    ranks = present()
    if not ranks.many:
        return rows
    padded = torch.zeros(-(-count // ranks.world_size) + 1, rows.shape[1])
    padded[: len(rows)] = torch.from_numpy(rows)
    lengths = [count * (k + 1) // ranks.world_size - count * k // ranks.world_size for k in range(ranks.world_size)]
    return np.concatenate([part[:n].numpy() for part, n in zip(gather(padded), lengths, strict=True)])


# The step


def weigh(loss: Tensor, images: int, batch_size: int) -> Tensor:
    """Return a mean loss over this rank's `images` weighted so that gradients add up over the ranks; see `mean_gradients`."""
    return loss * (images * present().world_size / batch_size)


@torch.no_grad()
def mean_gradients(model: nn.Module, images: int, batch_size: int, statistics: bool) -> None:
    """Make of each rank's gradients, of a `weigh`ed loss over its `images`, their mean over all images of the batch.

    One sum of all numbers in one buffer, in the weights' own memory order. `statistics`: running ones, which follow each
    rank's own images, become their mean, weighted alike; so every rank holds the same state after every step.
    """
    size, params = present().world_size, [p for p in model.parameters() if p.requires_grad]
    buffers = [value for value in model.buffers() if value.is_floating_point()] if statistics else []
    flat = torch.zeros(sum(v.numel() for v in (*params, *buffers)) + 1, dtype=params[0].dtype, device=params[0].device)
    places, start = [], 0
    for value in (*params, *buffers):
        places.append(flat.as_strided(value.shape, value.stride(), start))
        start += value.numel()
    own = images * size / batch_size
    for p in params:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    grads = [p.grad for p in params if p.grad is not None]
    torch._foreach_copy_(places, [*grads, *buffers])
    if buffers:
        torch._foreach_mul_(places[len(params) :], own)
    flat[-1] = own
    total(flat)
    flat[:-1] /= flat[-1].clone()
    torch._foreach_copy_([*grads, *buffers], places)


def sum_batch(batch: Tensor, finite: Tensor, failed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a batch's sums (3,) of all ranks, whether all have a `finite` () bool loss, and whether one has `failed`."""
    if not present().many:
        return batch, finite, failed
    values = total(torch.cat([batch, torch.stack([~finite, failed]).to(batch.dtype)]))
    return values[:3], values[3] == 0, values[4] > 0
