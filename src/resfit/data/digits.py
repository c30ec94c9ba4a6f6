"""The source `digits`: scikit-learn's 1,797 handwritten digits of 8x8 (Alpaydin, Kaynak, 1998, UCI), no network."""

import numpy as np

from resfit.data.arrays import list_pixels
from resfit.data.listing import Listing, Source
from resfit.errors import MissingExtraError


def recognises(source: str) -> bool:
    """Return whether `source` is the word digits."""
    return source == "digits"


def open_source(source: str) -> Source:
    """Return the digits as one pool; raises MissingExtraError without scikit-learn."""
    return Source(source, ("all",), _list_split, layout="scikit-learn's handwritten digits")


def _list_split(split: str) -> Listing:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("digits: scikit-learn is needed. Install it: pip install 'resfit[digits]'.") from error
    found = load_digits()
    pixels = np.round(found.images * (255 / 16)).astype(np.uint8)  # they come as 0..16
    return list_pixels(pixels, found.target.astype(np.int64), [str(i) for i in range(10)], None, "digits")
