"""Arrays in one .npz: `images` + `labels`, MedMNIST's `train_images`..., Keras's `x_train`...

Images are read a few megabytes at a time, compressed or not, so that the file may be larger than memory.
"""

import math
import os
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from resfit.data.listing import Listing, Source
from resfit.errors import DataError

LAYOUTS = "images + labels, train_images + train_labels (val_, test_), or x_train + y_train (x_test + y_test)"
_PIECE = 2**22  # bytes of an array that are in memory at once
_NAMES = {
    "all": (("images", "labels"),),
    "train": (("train_images", "train_labels"), ("x_train", "y_train")),
    "val": (("val_images", "val_labels"), ("x_val", "y_val")),
    "test": (("test_images", "test_labels"), ("x_test", "y_test")),
}


def recognises(source: str) -> bool:
    """Return whether `source` is a file that ends in .npz."""
    return source.lower().endswith(".npz") and Path(source).is_file()


def open_source(source: str) -> Source:
    """Look at which arrays a .npz has; raises DataError if they are not one of the known sets."""
    with _Arrays(source) as arrays:
        found = {s: pair for s, pairs in _NAMES.items() for pair in pairs if pair[0] in arrays.names}
    if "all" in found:
        found = {"all": found["all"]}
    for split, (images, labels) in found.items():
        if labels not in arrays.names:
            use = "Use it with predict, or add labels." if split == "all" else "Add it."
            raise DataError(f"{source}: has {images!r} and no {labels!r}. {use}")
    if not found or not found.keys() & {"all", "train"}:
        raise DataError(f"{source}: has {', '.join(sorted(arrays.names)) or 'nothing'}. Give {LAYOUTS}.")
    facts = os.stat(source)
    signature = repr((str(Path(source).resolve()), facts.st_size, facts.st_mtime_ns))
    words = f"arrays ({', '.join(f'{images} + {labels}' for images, labels in found.values())})"
    return Source(source, tuple(found), lambda split: _list_split(source, split, found), signature, words)


def list_unlabelled(source: str) -> Listing:
    """Return the `images` of a .npz without labels; ids are row numbers as str."""
    with _Arrays(source) as arrays:
        if "images" not in arrays.names:
            raise DataError(
                f"{source}: has no 'images' but {', '.join(sorted(arrays.names))}. Name the array 'images'."
            )
        count = len(to_pixels(arrays.outline("images"), f"{source}: 'images'"))
    ids = tuple(map(str, range(count)))
    return Listing(count, None, (), ids, lambda index: _read_rows(source, "images", index), f"{source}: image ")


def list_pixels(
    pixels: np.ndarray, labels: np.ndarray | None, class_names: Sequence[str], ids: tuple[str, ...] | None, place: str
) -> Listing:
    """Return a Listing of raw pixels, uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3)."""

    def blobs(index: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        for i in index:
            yield i, np.ascontiguousarray(pixels[i])

    return Listing(len(pixels), labels, tuple(class_names), ids, blobs, place)


def to_pixels(array: np.ndarray, where: str) -> np.ndarray:
    """Return images, uint8 NHW, NHWC or NCHW of 1 or 3 channels, channels last; raises DataError for anything else."""
    if array.dtype != np.uint8:
        raise DataError(f"{where}: of type {array.dtype}, not uint8. Store pixels as 0..255 in uint8.")
    if array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (1, 3)):
        pixels = array
    elif array.ndim == 4 and array.shape[1] in (1, 3):
        pixels = array.transpose(0, 2, 3, 1)
    else:
        raise DataError(f"{where}: of shape {array.shape}. Give (N, H, W), (N, H, W, 3) or (N, 3, H, W).")
    if 0 in pixels.shape:
        raise DataError(f"{where}: of shape {array.shape}, so there are no images in it. Give one image at least.")
    return pixels


def _list_split(source: str, split: str, found: dict[str, tuple[str, str]]) -> Listing:
    with _Arrays(source) as arrays:
        chosen = "all" if "all" in found else "train"
        main = _labels(arrays.read(found[chosen][1]), f"{source}: {found[chosen][1]!r}")
        class_names = _class_names(arrays, main, source)
        image_name, label_name = found[split]
        labels = _labels(arrays.read(label_name), f"{source}: {label_name!r}")
        count = len(to_pixels(arrays.outline(image_name), f"{source}: {image_name!r}"))
    if len(labels) != count:
        raise DataError(f"{source}: {count} images in {image_name!r} and {len(labels)} labels. Give one each.")
    if labels.max() >= len(class_names):
        raise DataError(
            f"{source}: {label_name!r} goes up to {labels.max()}, but there are {len(class_names)} classes. Correct it."
        )
    return Listing(count, labels, class_names, None, lambda index: _read_rows(source, image_name, index), source)


def _read_rows(source: str, name: str, index: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (i, pixels) for the sorted `index`; reads to the end of the array, where the checksum is."""
    with _Arrays(source) as arrays:
        for start, rows in arrays.pieces(name):
            pixels = to_pixels(rows, f"{source}: {name!r}")
            for i in index[bisect_left(index, start) : bisect_left(index, start + len(rows))]:
                yield i, np.ascontiguousarray(pixels[i - start])


def _labels(array: np.ndarray, where: str) -> np.ndarray:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu" or len(array) == 0:
        raise DataError(f"{where}: {array.dtype} of shape {array.shape}. Give one integer an image, (N,) or (N, 1).")
    if array.min() < 0 or array.max() >= 2**31:
        raise DataError(f"{where}: from {array.min()} to {array.max()}. Give class numbers from 0.")
    return array.astype(np.int64)


def _class_names(arrays: "_Arrays", labels: np.ndarray, source: str) -> tuple[str, ...]:
    if "class_names" in arrays.names:
        names = arrays.read("class_names")
        if names.ndim != 1 or names.dtype.kind not in "US" or len(set(names.tolist())) != len(names):
            raise DataError(f"{source}: 'class_names' is not a list of distinct texts. Store one text a class.")
        return tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names.tolist())
    present = np.unique(labels)
    if len(present) <= present[-1]:
        gap = next(i for i in range(int(present[-1])) if i >= len(present) or present[i] != i)
        raise DataError(f"{source}: no image has label {gap}. Number the classes without gaps, or add 'class_names'.")
    return tuple(str(i) for i in range(len(present)))


class _Arrays:
    """The arrays of a .npz, each read when asked for, with errors that name file and array."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __enter__(self) -> "_Arrays":
        try:
            with ExitStack() as stack:  # numpy leaves the file open when it is not what it should be
                file = stack.enter_context(open(self.source, "rb"))
                self._file: Any = np.load(file, allow_pickle=False)
                self.names = frozenset(self._file.files)
                self._open = stack.pop_all()
        except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.source}: not a readable .npz file. Write it with numpy.savez.") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._open.close()

    def read(self, name: str) -> np.ndarray:
        """Return one array; raises DataError if it is damaged or holds objects."""
        with self._damage(name):
            array = self._file[name]
        if not isinstance(array, np.ndarray):
            raise DataError(f"{self.source}: {name!r} is not an array. Write the file with numpy.savez.")
        return array

    def outline(self, name: str) -> np.ndarray:
        """Return an array of the same shape and type that takes no memory, from the header alone."""
        with self._damage(name), self._file.zip.open(f"{name}.npy") as member:
            shape, _, dtype = _read_header(member)
            if member.tell() + math.prod(shape) * dtype.itemsize != self._file.zip.getinfo(f"{name}.npy").file_size:
                raise ValueError("not as long as its header says")
        return np.broadcast_to(np.zeros((), dtype), shape)

    def pieces(self, name: str) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row, rows) from beginning to end; in Fortran's order, whole."""
        with self._damage(name), self._file.zip.open(f"{name}.npy") as member:
            shape, fortran, dtype = _read_header(member)
            if fortran:
                yield 0, self.read(name)
                return
            width = math.prod(shape[1:]) * dtype.itemsize
            step = max(1, _PIECE // width)
            for start in range(0, shape[0], step):
                count = min(step, shape[0] - start)
                data = member.read(count * width)
                yield start, np.frombuffer(data, dtype).reshape(count, *shape[1:])
            member.read(1)  # at the end the checksum is compared

    @contextmanager
    def _damage(self, name: str) -> Iterator[None]:
        damaged = (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error, RuntimeError)
        try:
            yield
        except damaged as error:
            if "allow_pickle" in str(error):
                raise DataError(
                    f"{self.source}: {name!r} holds Python objects, not numbers. Store plain arrays."
                ) from error
            raise DataError(f"{self.source}: {name!r} is damaged. Write the file again.") from error


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return (shape, whether in Fortran's order, dtype) of a .npy, whose data comes next; raises ValueError."""
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):  # 3.0 is for field names outside latin-1
        raise ValueError(f"format {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(member)
    if dtype.hasobject:
        raise ValueError("allow_pickle is needed for it")
    return shape, fortran and len(shape) > 1, dtype
