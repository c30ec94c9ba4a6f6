"""Arrays in one .npz: `images` + `labels`, MedMNIST's `train_images`..., Keras's `x_train`..."""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from resfit.data.listing import Listing, Source
from resfit.errors import DataError

LAYOUTS = "images + labels, train_images + train_labels (val_, test_), or x_train + y_train (x_test + y_test)"
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
    return Source(source, tuple(found), lambda split: _list_split(source, split, found))


def list_unlabelled(source: str) -> Listing:
    """Return the `images` of a .npz without labels; ids are row numbers as str."""
    with _Arrays(source) as arrays:
        if "images" not in arrays.names:
            raise DataError(
                f"{source}: has no 'images' but {', '.join(sorted(arrays.names))}. Name the array 'images'."
            )
        pixels = to_pixels(arrays.read("images"), f"{source}: 'images'")
    return list_pixels(pixels, None, (), tuple(map(str, range(len(pixels)))), f"{source}: image ")


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
        pixels = to_pixels(arrays.read(image_name), f"{source}: {image_name!r}")
    if len(labels) != len(pixels):
        raise DataError(f"{source}: {len(pixels)} images in {image_name!r} and {len(labels)} labels. Give one each.")
    if labels.max() >= len(class_names):
        raise DataError(
            f"{source}: {label_name!r} goes up to {labels.max()}, but there are {len(class_names)} classes. Correct it."
        )
    return list_pixels(pixels, labels, class_names, None, source)


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
        damaged = (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error, RuntimeError)
        try:
            array = self._file[name]
        except damaged as error:
            if "allow_pickle" in str(error):
                raise DataError(
                    f"{self.source}: {name!r} holds Python objects, not numbers. Store plain arrays."
                ) from error
            raise DataError(f"{self.source}: {name!r} is damaged. Write the file again.") from error
        if not isinstance(array, np.ndarray):
            raise DataError(f"{self.source}: {name!r} is not an array. Write the file with numpy.savez.")
        return array
