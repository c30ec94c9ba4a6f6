"""The bytes of an image and its key, the hash by which splits and fingerprints know it."""

import hashlib
import os

from resfit.errors import DataError

MOST_BYTES = 256 * 2**20  # an encoded image or batch larger than this is not one
_PIECE = 2**16  # most images are smaller: one read, and no fstat, makes a tenth of the time of a 32-pixel image


def key_of(data: bytes | memoryview) -> int:
    """Return the 64-bit key of an image: a hash of its encoded bytes, or of its raw pixels in (H, W, C) order."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def read_file(path: str) -> bytes:
    """Return the bytes of a file of at most `MOST_BYTES`; raises DataError when it cannot be read."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            data = os.read(handle, _PIECE)
            if len(data) == _PIECE:
                with os.fdopen(os.dup(handle), "rb") as file:
                    data += file.read(MOST_BYTES)
                if len(data) > MOST_BYTES:
                    raise DataError(f"{path}: larger than {MOST_BYTES >> 20} MiB, too large for an image. Remove it.")
            return data
        finally:
            os.close(handle)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror or error}. Check the path and its permissions."
        ) from error
