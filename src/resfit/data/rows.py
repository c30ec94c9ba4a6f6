"""Rows of arrays, read only when asked for: a held-out split or a join of a memory-mapped cache stays on disk."""

import mmap
from collections.abc import Sequence
from typing import Any, Union

import numpy as np


class Rows:
    """Chosen rows of one or several arrays of the same row shape: len, shape, dtype, slices, integer arrays, numpy.array.

    What indexing returns is a new array. parts: the arrays, laid end to end; index: int64 (N,) rows of that.
    """

    def __init__(self, parts: Sequence[np.ndarray], index: np.ndarray) -> None:
        self.parts, self.index = tuple(parts), index
        self.shape = (len(index), *parts[0].shape[1:])
        self.dtype = parts[0].dtype

    def __array__(self, dtype: np.dtype[Any] | None = None, copy: bool | None = None) -> np.ndarray:
        """Return all rows as an array in memory: what numpy.array(rows) takes."""
        return self[:] if dtype is None else self[:].astype(dtype)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.index)

    def __getitem__(self, key: "slice | np.ndarray") -> np.ndarray:
        """Return the rows of a slice or of an integer array (n,), in that order."""
        wanted = self.index[key]
        found = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        start = 0
        for part in self.parts:
            here = (wanted >= start) & (wanted < start + len(part))
            found[here] = part[wanted[here] - start]
            start += len(part)
        return found


Images = Union[np.ndarray, Rows]  # noqa: UP007 - the value is used at run time


def take_rows(images: Images, index: np.ndarray) -> Rows:
    """Return the rows at `index` (n,) int64, none of them read yet."""
    if isinstance(images, Rows):
        return Rows(images.parts, images.index[index])
    return Rows((images,), np.asarray(index, np.int64))


def join_rows(several: Sequence[Images]) -> Rows:
    """Return the rows of several arrays one after the other, none of them read yet."""
    parts: list[np.ndarray] = []
    index = []
    for images in several:
        rows = take_rows(images, np.arange(len(images)))
        index.append(rows.index + sum(map(len, parts)))
        parts += rows.parts
    return Rows(parts, np.concatenate(index))


def release(images: Images) -> None:
    """Let go of what was read of memory-mapped files: mapped pages count as this process's memory until then.

    They stay in the system's cache, as long as it has room. Arrays that are not mapped are left alone.
    """
    for part in images.parts if isinstance(images, Rows) else (images,):
        mapped = getattr(part, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED") and not part.flags.writeable:
            mapped.madvise(mmap.MADV_DONTNEED)
