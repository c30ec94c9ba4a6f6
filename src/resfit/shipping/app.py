"""The application that `serve` runs: answers, health, metrics, what the model is, and the page."""

import asyncio
import contextlib
import ipaddress
import json
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resfit.evaluation.runtime import OnnxBundle
from resfit.shipping.batching import Batcher, Full
from resfit.shipping.counts import Counts
from resfit.shipping.intake import (
    SMALL,
    TINY_PIXELS,
    Held,
    Limits,
    Refused,
    Upload,
    decode_uploads,
    is_tiny,
    read_body,
    read_uploads,
)

BATCH = 32  # images computed at once
DECODERS = 2  # threads
TOP = 5  # classes of an answer
PAGE = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
PATHS = ("/predict", "/healthz", "/metrics", "/metadata", "/openapi.json", *PAGE)
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
RAW_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


class Json(Response):
    """JSON in ASCII: a name's control characters and bidirectional marks reach no terminal."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the bytes."""
        return json.dumps(content, allow_nan=False).encode()


def make_app(bundle: OnnxBundle, facts: dict[str, Any], limits: Limits, loopback: bool) -> FastAPI:
    """Return the application of one network; `facts` are what /metadata says, `name` among them.

    With `loopback` only requests that name this machine by a loopback name are answered: a page of another site whose name
    was bound to 127.0.0.1 (DNS rebinding) is not.
    """
    counts, held = Counts(), Held()
    batcher = Batcher(bundle.probs, BATCH, limits.queue, counts.sizes.add)
    small, large = ThreadPoolExecutor(DECODERS, "resfit-decode"), ThreadPoolExecutor(1, "resfit-large")

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        with contextlib.suppress(asyncio.CancelledError):  # by a second Ctrl-C
            yield
        batcher.end()
        for pool in (small, large):
            pool.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(title=f"resfit: {facts['name']}", docs_url=None, redoc_url=None, lifespan=lifespan)

    async def decode(uploads: list[Upload]) -> np.ndarray:
        loop = asyncio.get_running_loop()
        work = partial(decode_uploads, uploads, bundle.rule, limits)
        pixels = work(TINY_PIXELS) if is_tiny(uploads, bundle.rule) else None
        if pixels is None:
            pixels = await loop.run_in_executor(small, work, SMALL)
        if pixels is None:
            pixels = await loop.run_in_executor(large, work, limits.pixels)
        assert pixels is not None
        return pixels

    @app.post("/predict", response_model=None, openapi_extra=REQUEST)
    async def predict(request: Request) -> Response:
        """Classify one image (its bytes as the body) or several (files of a multipart form)."""
        started = time.perf_counter()
        top = _top(request, len(bundle.class_names))
        body = await read_body(request, limits, held)
        try:
            uploads = await read_uploads(request, body, limits)
            async with asyncio.timeout(limits.answer_seconds):
                probs = await batcher.ask(await decode(uploads))
        except (Full, TimeoutError) as error:
            raise Refused(503, "too many images are waiting; try again in a second") from error
        finally:
            held.bytes -= len(body)
        seconds = time.perf_counter() - started
        counts.images += len(uploads)
        counts.seconds.add(seconds)
        rows = [
            {"name": upload.name, **_best(row, bundle.class_names, top)}
            for upload, row in zip(uploads, probs, strict=True)
        ]
        return Json({"model": facts["name"], "milliseconds": round(1000 * seconds, 3), "predictions": rows})

    @app.get("/healthz", response_model=None)
    async def healthz() -> Response:
        """Say that the server answers."""
        return Json({"status": "ok"})

    @app.get("/metrics", response_model=None)
    async def metrics() -> Response:
        """Return the counts as Prometheus reads them."""
        return Response(counts.text(batcher.waiting), media_type="text/plain; version=0.0.4")

    @app.get("/metadata", response_model=None)
    async def metadata() -> Response:
        """Return what the model is: its classes, size, preprocessing, and how it was compared."""
        return Json(facts)

    for path, (file, kind) in PAGE.items():
        content = files("resfit.shipping").joinpath("page", file).read_bytes()
        app.add_route(path, _static(content, kind), include_in_schema=False)  # HEAD too

    errors: tuple[type[Exception], ...] = (HTTPException, Refused, Exception)
    for error in errors:
        app.add_exception_handler(error, _refuse)
    app.add_middleware(Guard, counts=counts, loopback=loopback)
    return app


REQUEST = {
    "parameters": [
        {"name": "top", "in": "query", "schema": {"type": "integer", "minimum": 1, "default": TOP}},
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
        },
    },
}


def _static(content: bytes, kind: str) -> Any:
    async def page(request: Request) -> Response:
        return Response(content, media_type=kind)

    return page


def _top(request: Request, classes: int) -> int:
    text = request.query_params.get("top", str(TOP))
    if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) > 0):
        raise Refused(400, f"top: {text[:40]} is not a number from 1 on")
    return min(int(text), classes)


def _best(probs: np.ndarray, names: tuple[str, ...], top: int) -> dict[str, Any]:
    """Return the most probable class, its probability, and the `top` most probable with theirs."""
    order = np.argsort(-probs, kind="stable")[:top]
    rows = [{"label": names[k], "score": round(float(probs[k]), 6)} for k in order]
    return {**rows[0], "top": rows}


async def _refuse(request: Request, error: Exception) -> Response:
    """Return an error as one line of JSON."""
    headers = {}
    if isinstance(error, Refused):
        status, what = error.status, str(error)
    elif isinstance(error, HTTPException):
        status, what, headers = error.status_code, str(error.detail), dict(error.headers or {})
    else:
        status, what = 500, "the server failed"
    if status == 503:
        headers["retry-after"] = "1"
    if status == 408:
        headers["connection"] = "close"
    return Json({"error": " ".join(what.split())}, status, headers)


class Guard:
    """Around everything: whom a request is for and from, security headers, and the count of answers."""

    def __init__(self, app: ASGIApp, counts: Counts, loopback: bool) -> None:
        self.app, self.counts, self.loopback = app, counts, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 499  # gone before its answer

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *RAW_HEADERS]
            await send(message)

        try:
            wrong = self._wrong(scope)
            if wrong is not None:
                await Json({"error": wrong}, 403)(scope, receive, note)
                return
            await self.app(scope, receive, note)
        except ClientDisconnect:
            pass
        finally:
            self.counts.requests[scope["path"] if scope["path"] in PATHS else "other", status] += 1

    def _wrong(self, scope: Scope) -> str | None:
        """Return why a request is refused unread: a name that is not this machine's, or another site's page as its sender."""
        headers = dict(scope["headers"])
        host, origin = headers.get(b"host", b"").decode("latin-1"), headers.get(b"origin", b"").decode("latin-1")
        if self.loopback and host and not _is_loopback(host):
            return "the Host header does not name this machine. Ask for http://127.0.0.1 or localhost"
        if origin and scope["method"] not in ("GET", "HEAD") and origin.partition("://")[2] != host:
            return "another site's page may not send images here"
        return None


def _is_loopback(host: str) -> bool:
    """Return whether a Host header, with a port or without, is a loopback address or localhost."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
