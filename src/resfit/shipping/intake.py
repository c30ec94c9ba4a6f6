"""What a request brings, within limits: the body's bytes as they stream, its images, their pixels before any is decoded."""

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from resfit.data.decode import count_pixels, decode
from resfit.data.images import PixelRule
from resfit.errors import DataError

TINY_BYTES, TINY_PIXELS = (
    2**13,
    2**12,
)  # one image decoded at once, in the event loop: handing it to a thread takes longer
SMALL = 2**20  # pixels of a request's images that are decoded beside others; larger ones take turns
SCANS = 100  # of a JPEG: a file of some megabytes may ask for a hundred thousand passes over all its pixels
PIECE = 2**16  # bytes of a form that are parsed in one go: some take a microsecond each
HELD_BODIES = 8  # so many times the largest body may be in memory, over all requests


@dataclass(frozen=True)
class Limits:
    """What one request may take: body in bytes, images, pixels over all of them, seconds to send a head or a body.

    `answer_seconds` is how long an answer may wait for its turn. `connections` and `queue` (images) are the server's.
    """

    bytes: int = 16 * 2**20
    pixels: int = 32 * 2**20
    images: int = 64
    read_seconds: float = 10.0
    answer_seconds: float = 30.0
    connections: int = 512
    queue: int = 512


class Refused(Exception):
    """A request that is not answered: an HTTP status, and what is wrong in one line."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status


@dataclass
class Held:
    """The bytes of all bodies in memory."""

    bytes: int = 0


@dataclass(frozen=True)
class Upload:
    """An encoded image and its file name, if it has one."""

    name: str | None
    data: bytes


async def read_body(request: Request, limits: Limits, held: Held) -> bytearray:
    """Return the body; its bytes are in `held`, and the caller takes them off. Raises Refused past a limit."""
    said = request.headers.get("content-length")
    if said is not None and int(said) > limits.bytes:  # digits alone, by the HTTP parser
        raise Refused(413, f"the body has {int(said):,} bytes; at most {limits.bytes:,} are taken")
    body = bytearray()
    try:
        async with asyncio.timeout(limits.read_seconds):
            async for part in request.stream():
                held.bytes += len(part)
                body += part
                if len(body) > limits.bytes:
                    raise Refused(413, f"the body has more than {limits.bytes:,} bytes")
                if held.bytes > HELD_BODIES * limits.bytes:
                    raise Refused(503, "too many bytes of other requests are being read; try again in a second")
    except BaseException as error:
        held.bytes -= len(body)
        if isinstance(error, TimeoutError):
            raise Refused(408, f"the body was not there within {limits.read_seconds:g} seconds") from error
        raise
    return body


async def read_uploads(request: Request, body: bytearray, limits: Limits) -> list[Upload]:
    """Return the images of a body: the files of a multipart form, or the body itself as one. Raises Refused."""
    kind = request.headers.get("content-type", "")
    if not kind.lower().lstrip().startswith("multipart/"):
        uploads = [Upload(None, bytes(body))] if body else []
    else:
        uploads = await _read_form(request, body, limits)
    if not uploads:
        raise Refused(400, "no image: send a file's bytes as the body, or files in a multipart form")
    return uploads


async def _read_form(request: Request, body: bytearray, limits: Limits) -> list[Upload]:
    async def stream() -> AsyncIterator[bytes]:
        for start in range(0, len(body), PIECE):
            if start:
                await asyncio.sleep(0)  # others' turn
            yield bytes(body[start : start + PIECE])

    parser = MultiPartParser(request.headers, stream(), max_files=limits.images, max_fields=16)  # type: ignore[arg-type]
    parser.spool_max_size = limits.bytes + 1  # nothing goes to the disk: the whole body is in memory already
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refused(400, f"the multipart form cannot be read: {error.message}") from error
    except (ValueError, LookupError, TypeError, struct.error) as error:  # what hostile headers make the parser raise
        raise Refused(400, "the multipart form cannot be read") from error
    uploads = []
    for _, item in form.multi_items():
        if isinstance(item, UploadFile):
            uploads.append(Upload(item.filename or None, await item.read()))
            await item.close()
    return uploads


def is_tiny(uploads: Sequence[Upload], rule: PixelRule) -> bool:
    """Return whether this is one image of few bytes, for a network of few pixels."""
    return len(uploads) == 1 and len(uploads[0].data) <= TINY_BYTES and rule.size**2 <= TINY_PIXELS


def decode_uploads(uploads: Sequence[Upload], rule: PixelRule, limits: Limits, most: int) -> np.ndarray | None:
    """Return pixels uint8 (n, 3, size, size) by the bundle's rule, or None where the encoded images have more than `most`.

    Raises Refused naming the image: none of a request is answered where one cannot be.
    """
    total = 0
    pixels = np.empty((len(uploads), 3, rule.size, rule.size), np.uint8)
    names = [_name(uploads, place) for place in range(len(uploads))]
    try:
        for name, upload in zip(names, uploads, strict=True):
            if (
                upload.data[:2] == b"\xff\xd8" and upload.data.count(b"\xff\xda") > SCANS
            ):  # a pixel's 255 is followed by 0
                raise Refused(422, f"{name}: a JPEG of more than {SCANS} scans. Save it anew")
            total += count_pixels(upload.data, name)
            if total > limits.pixels:
                raise Refused(413, f"{name}: makes more than {limits.pixels:,} pixels. Shrink it")
        if total > most:
            return None
        for place, (name, upload) in enumerate(zip(names, uploads, strict=True)):
            pixels[place] = decode(upload.data, rule, name)
    except DataError as error:
        raise Refused(422, str(error)) from error
    return pixels


def _name(uploads: Sequence[Upload], place: int) -> str:
    name = uploads[place].name
    if name is not None:
        return name[:200]
    return "the image" if len(uploads) == 1 else f"image {place + 1}"
