"""2,000 bad requests to `resfit serve`, seeded, with good clients beside them; prints one JSON object.

Usage: python benchmarks/serve_abuse.py RUN IMAGE [--count 2000] [--seed 0] [--out DIR]. RUN has a model.onnx. A kind of bad
request says which answers are right: a 4xx of its own, or a closed connection for one that never ends. Wrong is any other,
and one that took longer than the server's time to read and SLACK. `good` are the requests that were right at the same time.
"""

import argparse
import asyncio
import io
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from result import keep, show
from serve_process import ask, form, resident, serving

READ_SECONDS, MAX_BYTES = 2.0, 2**20
WORDS = ("--read-seconds", str(READ_SECONDS), "--max-bytes", str(MAX_BYTES))  # of the server
SLACK = 8.0  # seconds: fifty of them come at once to a busy machine
AT_ONCE = 50
CLOSED = 0  # in place of a status
DRIP = 0.2  # seconds from one byte of a slow request to the next


@dataclass(frozen=True)
class Bad:
    """A bad request: its bytes, then `drip` byte by byte without end, and the answers that are right."""

    kind: str
    data: bytes
    right: tuple[int, ...]
    drip: bytes = b""
    half_close: bool = False


@dataclass
class Outcome:
    """What came out."""

    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0
    good: int = 0
    good_wrong: list[str] = field(default_factory=list)
    good_seconds: list[float] = field(default_factory=list)


def post(
    body: bytes, kind: str = "image/jpeg", head: str = "", path: str = "/predict", length: int | None = None
) -> bytes:
    size = len(body) if length is None else length
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{head}Content-Length: {size}\r\n\r\n".encode()
        + body
    )


def chunked(*parts: bytes, head: str = "") -> bytes:
    start = f"POST /predict HTTP/1.1\r\nHost: localhost\r\n{head}Transfer-Encoding: chunked\r\n\r\n".encode()
    return start + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


def png(width: int, height: int) -> bytes:
    """A real PNG of one colour: a kilobyte for a million pixels."""
    held = io.BytesIO()
    Image.new("1", (width, height)).save(held, "PNG")
    return held.getvalue()


def claimed_png(width: int, height: int) -> bytes:
    """A small PNG whose header says another size, its checksum right."""
    import zlib

    data = bytearray(png(8, 8))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def many_scans(image: bytes) -> bytes:
    """A progressive JPEG with its last scan two hundred times."""
    held = io.BytesIO()
    Image.open(io.BytesIO(image)).convert("RGB").save(held, "JPEG", progressive=True)
    data = held.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + 200 * data[last:-2] + data[-2:]


TEXTS = (
    b"<html>",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    b"%PDF-1.7\n",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    b"{}",
    *(b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff", b"BM", b"II*\x00", b"RIFF\x00\x00\x00\x00WEBP"),
)
METHODS = ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO")
BOUNDARIES = ("multipart/form-data; boundary=", "multipart/form-data; boundary=\x01", "multipart/" + "x" * 3000)
FORMS = (
    b"--x--\r\n",
    b"--x\r\n\r\n\r\n--x--\r\n",
    b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\ntext\r\n--x--\r\n",
)
NOT_HTTP = (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"\x00" * 40, b"SSH-2.0-x\r\n\r\n", b"GET /\r\n\r\n")
TOPS = ("0", "-1", "x", "1.5", "9" * 30, "%00", "%D9%A3")  # the last an Arabic 3
LENGTHS = (b"-", b"x", b"1,")
SIZES = (b"zz\r\n", b"-1\r\n", b"\r\n", b"f" * 40 + b"\r\n")


def kinds(rng: random.Random, image: bytes, bomb: bytes) -> list[Callable[[], Bad]]:
    """Return what makes each kind, new at each call."""
    pick, junk = rng.choice, rng.randbytes
    host, to = "Host: localhost\r\n", "POST /predict HTTP/1.1\r\n"
    tricks = (
        "../../etc/passwd",
        "..\\..\\x",
        "/etc/shadow",
        "a\x00b.jpg",
        "x" * 5000,
        "<script>alert(1)</script>",
        "\x1b[2J\u202egpj",
    )
    paths = (
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/page.js/../../server.py",
        "/predict/x",
        "/page/",
        "/..%5c..%5c",
        "/" + "a" * 4000,
    )
    boundary = "multipart/form-data; boundary=x"
    part = b"--x\r\nContent-Disposition: form-data; name=f; filename=a.jpg\r\n\r\n"

    def tricky() -> Bad:
        body, kind = form([(pick(tricks), junk(50))])
        return Bad("hostile file name", post(body, kind), (400, 422))  # 400: 5,000 letters

    def one_bad() -> Bad:
        body, kind = form([("good.jpg", image), ("bad.jpg", image[: len(image) // 2]), ("good.jpg", image)])
        return Bad("one bad among good", post(body, kind), (422,))

    def form_of(body: bytes, kind: str = boundary) -> Bad:
        return Bad("wrong multipart", post(body, kind), (400,))

    return [
        lambda: Bad("length too large", post(b"", length=10 ** rng.randint(7, 17)), (413,)),
        lambda: Bad("body too large", post(bytes(MAX_BYTES + 1)), (413,)),
        lambda: Bad("chunks too large", chunked(*[bytes(2**17)] * 9), (413, 408)),
        lambda: Bad("slow head", (to + host)[: rng.randint(0, 30)].encode(), (CLOSED,), b"a"),
        lambda: Bad("slow headers", (to + host).encode(), (CLOSED,), b"X: y\r\n"),
        lambda: Bad("slow body", post(image[:100], length=9999), (408,), b"\xff"),
        lambda: Bad("slow chunks", chunked(image[:100]), (408,), b"1\r\na\r\n"),
        lambda: Bad("length too long", post(image, length=len(image) + rng.randint(1, 999)), (408,)),
        lambda: Bad("gone halfway", post(image, length=len(image) + 99), (CLOSED,), half_close=True),
        lambda: Bad("length too short", post(image, length=rng.randint(1, 200)), (422,)),
        lambda: Bad(
            "length no number", post(image).replace(b"Content-Length: ", b"Content-Length: " + pick(LENGTHS)), (400,)
        ),
        lambda: Bad("two lengths", post(image, head="Content-Length: 3\r\n"), (400,)),
        lambda: Bad("chunks without end", chunked(image), (408,)),
        lambda: Bad("chunk's size wrong", chunked() + pick(SIZES), (400,)),
        lambda: Bad("chunked and length", chunked(junk(9), head="Content-Length: 4\r\n") + b"0\r\n\r\n", (400, 422)),
        lambda: Bad("not an image", post(pick(TEXTS) + junk(rng.randint(0, 300))), (422,)),
        lambda: Bad("random bytes", post(junk(rng.randint(1, 5000))), (422,)),
        lambda: Bad("truncated", post(image[: rng.randint(3, len(image) * 3 // 4)]), (422,)),
        lambda: Bad(
            "size only said", post(claimed_png(rng.randint(6000, 10**6), rng.randint(6000, 10**6))), (413, 422)
        ),
        lambda: Bad("bomb", post(bomb), (413,)),
        lambda: Bad("many scans", post(many_scans(image)), (422,)),
        lambda: Bad("path", f"GET {pick(paths)} HTTP/1.1\r\n{host}\r\n".encode(), (404,)),
        lambda: Bad("method", f"{pick(METHODS)} /predict HTTP/1.1\r\n{host}\r\n".encode(), (405,)),
        lambda: Bad("method", post(image, path=pick(["/", "/healthz", "/metrics", "/metadata", "/page.js"])), (405,)),
        lambda: Bad("empty", post(b""), (400,)),
        lambda: Bad("empty file", post(part + b"\r\n--x--\r\n", boundary), (422,)),
        tricky,
        one_bad,
        lambda: form_of(image, "multipart/form-data"),
        lambda: form_of(image, pick(BOUNDARIES)),
        lambda: form_of(junk(300)),
        lambda: form_of(part + image),
        lambda: form_of(pick(FORMS)),
        lambda: form_of(100 * (part + image[:50] + b"\r\n") + b"--x--\r\n"),
        lambda: form_of(b"--x\r\n" + b"A: b\r\n" * 20_000 + b"\r\n\r\n--x--\r\n"),
        lambda: form_of(b"\r\n" * 200_000 + part),
        lambda: Bad(
            "header flood", to.encode() + host.encode() + b"X: y\r\n" * rng.randint(20_000, 60_000), (400, 431)
        ),
        lambda: Bad(
            "long header", to.encode() + host.encode() + b"X: " + b"y" * rng.randint(70_000, 300_000), (400, 431)
        ),
        lambda: Bad("not HTTP", pick(NOT_HTTP) + b"\r\n\r\n", (400,)),
        lambda: Bad("foreign host", post(image).replace(b"Host: localhost", b"Host: evil.example"), (403,)),
        lambda: Bad("foreign page", post(image, head="Origin: https://evil.example\r\n"), (403,)),
        lambda: Bad("top", post(image, path="/predict?top=" + pick(TOPS)), (400,)),
    ]


async def send(place: tuple[str, int], bad: Bad) -> int:
    """Send a bad request and return the status of the answer, CLOSED where none came."""
    reader, writer = await asyncio.open_connection(*place)

    async def write() -> None:
        writer.write(bad.data)
        await writer.drain()
        if bad.half_close:
            writer.write_eof()
        while bad.drip:
            await asyncio.sleep(DRIP)
            writer.write(bad.drip)
            await writer.drain()

    writing = asyncio.ensure_future(write())
    try:
        line = await reader.readline()
        return int(line.split()[1]) if line else CLOSED
    except (ConnectionError, TimeoutError):
        return CLOSED
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        writer.close()


async def abuse(address: str, image: bytes, expected: dict[str, Any], count: int, seed: int) -> Outcome:
    """Send `count` bad requests, AT_ONCE at a time, and good ones beside them until all are through."""
    rng, outcome, end = random.Random(seed), Outcome(), asyncio.Event()
    made = kinds(rng, image, png(8000, 8000))
    todo = iter([made[k % len(made)]() for k in rng.sample(range(count), count)])
    parts = urlsplit(address)
    place = (str(parts.hostname), int(parts.port or 0))

    async def bad_client() -> None:
        for bad in todo:
            started = time.perf_counter()
            try:
                status = await asyncio.wait_for(send(place, bad), READ_SECONDS + SLACK)
            except TimeoutError:
                status = -1
            seconds = time.perf_counter() - started
            outcome.slowest = max(outcome.slowest, seconds)
            outcome.statuses[f"{bad.kind}: {'closed' if status == CLOSED else status}"] += 1
            if status not in bad.right:
                outcome.wrong.append(f"{bad.kind}: {status} after {seconds:.1f} s, not {bad.right}: {bad.data[:200]!r}")

    async def good_client() -> None:
        while not end.is_set():
            started = time.perf_counter()
            status, _, answer = await asyncio.to_thread(ask, address, body=image)
            outcome.good_seconds.append(time.perf_counter() - started)
            outcome.good += 1
            if status != 200 or not same(answer["predictions"][0], expected):
                outcome.good_wrong.append(f"{status}: {answer}"[:300])
            await asyncio.sleep(0.01)

    good: list[Coroutine[Any, Any, None]] = [good_client(), good_client()]
    watching = asyncio.gather(*good)
    await asyncio.gather(*(bad_client() for _ in range(AT_ONCE)))
    end.set()
    await watching
    return outcome


def same(answer: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Return whether two answers agree; a batch's size moves a probability by rounding."""
    return bool(answer["label"] == expected["label"] and abs(answer["score"] - expected["score"]) < 1e-4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    image = options.image.read_bytes()
    with serving(options.run, *WORDS) as (address, process):
        expected = ask(address, body=image)[2]["predictions"][0]
        for _ in range(200):
            ask(address, body=image)
        before, started = resident(process.pid), time.perf_counter()
        outcome = asyncio.run(abuse(address, image, expected, options.count, options.seed))
        value = show(
            "bad requests that were answered wrongly or late by resfit serve",
            [len(outcome.wrong)],
            0,
            data=f"bad requests of seed {options.seed}",
            goal_is="value at most",
            n=options.count,
            good=outcome.good,
            good_wrong=len(outcome.good_wrong),
            good_milliseconds=[round(1000 * float(q), 1) for q in np.quantile(outcome.good_seconds, (0.5, 0.99, 1))],
            seconds=round(time.perf_counter() - started, 1),
            slowest_seconds=round(outcome.slowest, 2),
            memory_mb=[round(before / 2**20, 1), round(resident(process.pid) / 2**20, 1)],
            answers=dict(sorted(outcome.statuses.items())),
        )
    for line in [*outcome.wrong[:20], *outcome.good_wrong[:5]]:
        print(line)
    keep(options.out, "serve_abuse", value)


if __name__ == "__main__":
    main()
