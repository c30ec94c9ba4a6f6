"""`serve`: a bundle behind HTTP, in one process, by ONNX Runtime; torch is neither needed nor imported."""

import asyncio
import contextlib
import importlib.util
import ipaddress
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from resfit.errors import MissingExtraError, ResourceError, UsageError
from resfit.evaluation.runtime import OnnxBundle, load_onnx
from resfit.machine import default_threads

NEEDS = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "onnxruntime": "onnxruntime",
}
GRACE = 10  # seconds for what is being answered when a signal comes


def serve(
    path: str | Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    max_bytes: int | None = None,
    max_pixels: int | None = None,
    read_seconds: float | None = None,
    ready: Callable[[str, dict[str, Any]], None] | None = None,
) -> None:
    """Answer images over HTTP by the model.onnx of a run or bundle folder, or an exported .onnx file, until a signal comes.

    `port` 0 is any free one. `ready` is called with the address and the model's facts once connections are accepted.
    `max_bytes` of a request's body, `max_pixels` of its images together, and `read_seconds` for it to arrive replace those
    of `intake.Limits`. Raises UsageError without a model.onnx, ResourceError where the address cannot be taken,
    MissingExtraError.
    """
    for module, name in NEEDS.items():
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(f"{name} is needed. Install it: pip install 'resfit[serve]'.")
    import uvicorn

    from resfit.shipping.app import BATCH, make_app
    from resfit.shipping.connections import limited
    from resfit.shipping.intake import Limits

    given: dict[str, Any] = {"bytes": max_bytes, "pixels": max_pixels, "read_seconds": read_seconds}
    limits = Limits(**{key: value for key, value in given.items() if value is not None})
    bundle = _load(Path(path))
    size = bundle.rule.size
    facts = describe(bundle, Path(path))
    listener, loopback = _listen(host, port)
    bundle.logits(
        np.zeros((BATCH, 3, size, size), np.uint8)
    )  # memory for the largest batch is taken now, not under load
    for name in ("uvicorn.error", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)  # a warning a bad request would fill a log
    logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)
    config = uvicorn.Config(
        make_app(bundle, facts, limits, loopback),
        http=limited(limits.read_seconds, limits.connections),
        ws="none",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE,
    )
    if ready:
        ready(_address(listener), facts)
    uvicorn.Server(config).run(sockets=[listener])  # a signal is raised again once what was being answered is


def describe(bundle: OnnxBundle, path: Path) -> dict[str, Any]:
    """Return what /metadata says: name, classes, spec, cost, preprocessing, parity, and the bundle's README.md, if any."""
    config = bundle.config
    keys = (
        "precision",
        "spec",
        "params",
        "macs",
        "preprocessing",
        "tta",
        "tta_below",
        "parity",
        "weights_sha256",
        "version",
    )
    places = [path / "README.md", path / "bundle" / "README.md"]
    card = next((place.read_text(errors="replace") for place in places if place.is_file()), None)
    name = config.get("name") or path.absolute().name
    return {
        "name": str(name),
        "classes": list(bundle.class_names),
        **{key: config.get(key) for key in keys},
        "card": card,
    }


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """Leave out the traceback of each request that a second Ctrl-C cuts off."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def _load(path: Path) -> OnnxBundle:
    if not path.exists():
        raise UsageError(f"{path}: is not there. Name a finished run, its bundle, or an exported .onnx file.")
    # a core is left to the requests: ONNX Runtime's threads spin while they wait, and two on two cores took half as much
    # time again (docs/log.md)
    return load_onnx(path, max(1, default_threads() - 1))


def _listen(host: str, port: int) -> tuple[socket.socket, bool]:
    """Return a listening socket, and whether only this machine reaches it; raises UsageError or ResourceError."""
    if not 0 <= port <= 65535:
        raise UsageError(f"--port: {port} is not a port. Take 1 to 65535, or 0 for any free one.")
    if not host:
        raise UsageError("--host: is empty. Take 127.0.0.1, or 0.0.0.0 for every network this machine is in.")
    where = f"{host}:{port}"
    with contextlib.ExitStack() as stack:
        try:
            family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            if os.name == "posix":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(2048)
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that no name server could know
            reason = getattr(error, "strerror", None) or str(error)
            raise ResourceError(
                f"{where}: cannot be listened at: {reason}. Choose another --host or --port."
            ) from error
        stack.pop_all()
    return listener, ipaddress.ip_address(str(place[0]).partition("%")[0]).is_loopback


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
