"""The unlabelled competition file, `cifar_test_nolabel.pkl`: a pickled dictionary with `data` and sometimes `ids`."""

from pathlib import Path

import numpy as np

from resfit.data.arrays import list_pixels, to_pixels
from resfit.data.keys import read_file
from resfit.data.listing import Listing
from resfit.data.unpickle import load
from resfit.errors import DataError


def recognises(source: str) -> bool:
    """Return whether `source` is a file that ends in .pkl or .pickle."""
    return source.lower().endswith((".pkl", ".pickle")) and Path(source).is_file()


def list_unlabelled(source: str) -> Listing:
    """Return images without labels: `data` uint8 (N, 3072) in CIFAR's order, or NHWC; ids as given, else from 0."""
    found = load(read_file(source), source)
    data = found.get("data")
    if not isinstance(data, np.ndarray):
        have = ", ".join(sorted(found)) or "nothing"
        raise DataError(f"{source}: has no array 'data' but {have}. Give the competition's own file.")
    if data.ndim == 2 and data.shape[1] == 3072:
        data = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    pixels = to_pixels(data, f"{source}: 'data'")
    ids = found.get("ids")
    if ids is None:
        ids = range(len(pixels))
    elif not isinstance(ids, (list, tuple, np.ndarray)) or len(ids) != len(pixels) or np.ndim(ids) != 1:
        raise DataError(f"{source}: 'ids' does not name {len(pixels)} images. Give one id an image.")
    names = tuple(i.decode("utf-8", "replace") if isinstance(i, bytes) else str(i) for i in ids)
    return list_pixels(pixels, None, (), names, f"{source}: image ")
