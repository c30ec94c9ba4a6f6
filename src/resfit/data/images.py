"""What image data is once in memory: `ImageSet`, and `PixelRule`, the rule by which an image file becomes pixels."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from resfit.data.rows import Images, join_rows, take_rows
from resfit.errors import UsageError

RESIZES = ("squash", "crop", "pad")


@dataclass(frozen=True)
class PixelRule:
    """How an encoded image of any size and mode becomes (3, size, size) uint8; stored in run and bundle for prediction.

    EXIF orientation is applied, then the mode is brought to RGB (alpha over white, 16 bits to 8 by dividing by 256), then
    the image is brought to size x size with Pillow's antialiased bicubic filter, by `resize`. squash: both sides to `size`,
    whatever the shape. crop: the square in the middle, as large as the shorter side. pad: the longer side to `size`, the
    rest grey (128), the image in the middle. Images of that size already are left alone.
    """

    size: int
    resize: str = "squash"
    filter: str = "bicubic"

    def __post_init__(self) -> None:
        if self.size < 1 or self.resize not in RESIZES or self.filter != "bicubic":
            raise UsageError(
                f"pixel rule: {self.size} pixels, {self.resize}, {self.filter}: not known. Use 1 pixel or more;"
                f" {', '.join(RESIZES)}; bicubic."
            )


@dataclass(frozen=True)
class ImageSet:
    """Images with what is known of them.

    images: uint8 (N, 3, H, W), possibly memory-mapped and read-only, or chosen rows of such arrays, read when indexed by a
    slice or an integer array. labels: int64 (N,) class indices, or None.
    keys: uint64 (N,) hashes of each image's *source* bytes (file bytes, or raw pixels for arrays), so that they do not
    depend on the pixel rule. ids: one a image, as given or as path, or None. source: where it came from, for people.
    """

    images: Images
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    keys: np.ndarray
    source: str
    ids: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    @property
    def fingerprint(self) -> str:
        """Return 16 hex digits that name this set of images and labels, whatever their order or pixel rule."""
        digest = hashlib.blake2b("\0".join(self.class_names).encode(), digest_size=8)
        labels = self.labels if self.labels is not None else np.full(len(self), -1, np.int64)
        order = np.lexsort((labels, self.keys))
        digest.update(np.ascontiguousarray(self.keys[order]).tobytes())
        digest.update(np.ascontiguousarray(labels[order]).tobytes())
        return digest.hexdigest()

    @property
    def order(self) -> str:
        """Return 16 hex digits that change with the order too: what belongs to an image in training goes by its index."""
        digest = hashlib.blake2b(self.fingerprint.encode(), digest_size=8)
        digest.update(np.ascontiguousarray(self.keys).tobytes())
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels).tobytes())
        return digest.hexdigest()

    def take(self, index: np.ndarray) -> "ImageSet":
        """Return the images at `index` (N,) int64, in that order; the pixels are not read."""
        return ImageSet(
            images=take_rows(self.images, index),
            labels=None if self.labels is None else self.labels[index],
            class_names=self.class_names,
            keys=self.keys[index],
            source=self.source,
            ids=None if self.ids is None else tuple(self.ids[i] for i in index),
        )


def join(sets: Sequence[ImageSet], source: str) -> ImageSet:
    """Return one ImageSet with the images of several, in order; labels if all have them. The pixels are not read."""
    if len(sets) == 1:
        return sets[0]
    labels = [s.labels for s in sets if s.labels is not None]
    ids = [s.ids for s in sets if s.ids is not None]
    return ImageSet(
        images=join_rows([s.images for s in sets]),
        labels=np.concatenate(labels) if len(labels) == len(sets) else None,
        class_names=sets[0].class_names,
        keys=np.concatenate([s.keys for s in sets]),
        source=source,
        ids=tuple(i for some in ids for i in some) if len(ids) == len(sets) else None,
    )
