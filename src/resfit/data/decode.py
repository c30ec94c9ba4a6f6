"""Turn one encoded image, or one array of pixels, into (3, size, size) uint8 by a `PixelRule`.

Plain JPEGs take simplejpeg (ten times faster than Pillow at 32 pixels, same pixels); everything else takes Pillow.
"""

import contextlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from resfit.data.formats import FORMATS, refused_format
from resfit.data.images import PixelRule
from resfit.errors import DataError

MOST_PIXELS = 89_478_485  # Pillow's own bound: a quarter of a gibibyte of RGB; beyond it, a bomb

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_RESIZE: dict[str, Callable[..., Image.Image]] = {
    "squash": Image.Image.resize,
    "crop": ImageOps.fit,
    "pad": partial(ImageOps.pad, color="gray"),
}


def decode(data: bytes, rule: PixelRule, where: str) -> np.ndarray:
    """Return the pixels of an encoded image: uint8 (3, size, size), not necessarily contiguous.

    `where` names the image in errors. Raises DataError for bytes that are empty, truncated, not an image of a known
    format, or that would unfold to more than `MOST_PIXELS`.
    """
    if _is_plain_jpeg(data):
        pixels = _decode_plain_jpeg(data, where)
        if pixels is not None:
            return fit(pixels, rule)
    if not data:
        raise DataError(f"{where}: the file is empty. Remove it or put the image back.")
    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse_bomb(*image.size, where)
            return fit(_to_rgb(image), rule)
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(_bomb(where)) from None
    except Exception as error:  # Pillow's plugins raise a dozen types on bytes that are not what they claim
        raise DataError(f"{where}: cannot be decoded ({_reason(error, data)}). Replace or remove it.") from error


def count_pixels(data: bytes, where: str) -> int:
    """Return the pixels that an encoded image has by its header, decoding none; raises DataError as `decode` does."""
    if _is_plain_jpeg(data):
        with contextlib.suppress(ValueError):
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            return int(height) * int(width)
    if not data:
        raise DataError(f"{where}: the file is empty. Remove it or put the image back.")
    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.width * image.height
    except Image.DecompressionBombError:
        raise DataError(_bomb(where)) from None
    except Exception as error:
        raise DataError(f"{where}: cannot be decoded ({_reason(error, data)}). Replace or remove it.") from error


def read_header(data: bytes) -> tuple[str, int, int, bool]:
    """Return an encoded image's format as Pillow calls it, height and width upright, and whether it has more than one frame.

    No pixel is decoded. Raises ValueError where there is no header to read; `decode` says why.
    """
    if _is_plain_jpeg(data):
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        return "JPEG", int(height), int(width), False
    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
            width, height = image.size[::-1] if turned else image.size
            return image.format or "", height, width, bool(getattr(image, "is_animated", False))
    except Exception as error:  # Pillow's plugins raise a dozen types on bytes that are not what they claim
        raise ValueError(_reason(error, data)) from error


def fit(pixels: np.ndarray, rule: PixelRule) -> np.ndarray:
    """Return raw pixels, uint8 (H, W), (H, W, 1) or (H, W, 3), as uint8 (3, size, size)."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.shape[0] != rule.size or pixels.shape[1] != rule.size:
        image = Image.fromarray(np.ascontiguousarray(pixels))
        pixels = np.asarray(_RESIZE[rule.resize](image, (rule.size, rule.size), Image.Resampling.BICUBIC))
    if pixels.ndim == 2:
        return np.broadcast_to(pixels, (3, *pixels.shape))
    return pixels.transpose(2, 0, 1)


def _is_plain_jpeg(data: bytes) -> bool:
    """Return whether this is a JPEG without EXIF and XMP, so that nothing can say that it must be turned."""
    return data[:2] == b"\xff\xd8" and b"Exif\0" not in data and b"ns.adobe.com/xap" not in data


def _decode_plain_jpeg(data: bytes, where: str) -> np.ndarray | None:
    """Return uint8 (H, W, 3), or None where Pillow must look at it: CMYK, YCCK, anything damaged."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        if space not in ("YCbCr", "RGB", "Gray"):
            return None
        _refuse_bomb(width, height, where)
        pixels: np.ndarray = simplejpeg.decode_jpeg(data)
    except ValueError:
        return None
    return pixels


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Return uint8 (H, W, 3): upright, alpha over white, 16 bits to 8."""
    image.load()  # first: TIFF turns itself while loading, PNG may bring its EXIF after the pixels
    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    if turn is not None:
        image = image.transpose(turn)
    if image.mode == "I" or image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError(f"whole numbers from {deep.min()} to {deep.max()}, more than 16 bits have")
        grey = np.where(deep == image.info.get("transparency", -1), 255, deep // 256)
        return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("32-bit floating-point pixels")
    if image.has_transparency_data:
        if image.mode == "La":
            image = image.convert("LA")
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    return np.asarray(image.convert("RGB"))


def _refuse_bomb(width: int, height: int, where: str) -> None:
    if width * height > MOST_PIXELS:
        raise DataError(_bomb(where))


def _bomb(where: str) -> str:
    return f"{where}: unfolds to more than {MOST_PIXELS:,} pixels. Shrink it or remove it."


def _reason(error: Exception, data: bytes) -> str:
    if isinstance(error, UnidentifiedImageError):
        return refused_format(data)
    return (str(error) or type(error).__name__).splitlines()[0]


_lock = threading.Lock()
_inside = 0
_silence = contextlib.ExitStack()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pillow's warnings in; counted, since `catch_warnings` on its own is not safe across threads."""
    global _inside
    with _lock:
        if _inside == 0:
            _silence.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _silence.close()
