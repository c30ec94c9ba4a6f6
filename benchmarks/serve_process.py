"""A server process for a while, and a plain client: what the benchmarks of `resfit serve` and its tests share."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BOUNDARY = "resfit-5f2c"


@contextlib.contextmanager
def serving(folder: str | Path, *words: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Yield the address of `resfit serve FOLDER` and its process, which gets SIGTERM at the end."""
    command = [sys.executable, "-m", "resfit", "serve", str(folder), "--port", "0", "--json", *words]
    with run(command) as found:
        yield found


@contextlib.contextmanager
def run(command: Sequence[str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Yield the address that a server's first line on stdout says in JSON, and its process."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(process.communicate()[1])
        yield json.loads(line)["address"], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise


def ask(
    address: str, path: str = "/predict", body: bytes | None = None, method: str = "POST", **headers: str
) -> tuple[int, dict[str, str], Any]:
    """Return status, headers (lower case) and the body, parsed where it is JSON; `_` in a header's name stands for `-`."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        data = response.read()
    finally:
        connection.close()
    found = {name.lower(): value for name, value in response.getheaders()}
    return response.status, found, json.loads(data) if found.get("content-type") == "application/json" else data


def form(files: Sequence[tuple[str, bytes]]) -> tuple[bytes, str]:
    """Return a multipart form with these files, and its content type; names are sent as UTF-8, quotes escaped."""
    parts = []
    for name, data in files:
        shown = name.replace("\\", "\\\\").replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A").encode()
        head = b'--%s\r\ncontent-disposition: form-data; name="file"; filename="%s"\r\n\r\n' % (
            BOUNDARY.encode(),
            shown,
        )
        parts.append(head + data + b"\r\n")
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()]), f"multipart/form-data; boundary={BOUNDARY}"


def resident(pid: int) -> int:
    """Return the bytes of memory that a process has in use."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
