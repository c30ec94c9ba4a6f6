"""Find a published archive on this machine, or fetch it once: checked, and never there in part."""

import contextlib
import hashlib
import os
import sys
import tempfile
import urllib.request
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from resfit.data.cache import cache_folder
from resfit.errors import DataError, ResourceError

_TIMEOUT_S = 15
_PIECE = 2**20


def find_or_download(name: str, accepted: Iterable[str], url: str, file: str, md5: str) -> Path:
    """Return the path of a data set: one of the `accepted` names in $RESFIT_DATA, ./data or the cache, else downloaded.

    Raises DataError, saying where to put which file, when it is nowhere and cannot be fetched as it should be.
    """
    found = find(accepted)
    if found is not None:
        return found
    downloads = cache_folder() / "downloads"
    advice = f"Get {file} from {url} and put it into ./data, or into the folder that RESFIT_DATA names."
    target = downloads / file
    try:
        _download(url, target, md5, advice)
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise DataError(f"{name}: not on this machine, and the download failed ({reason}). {advice}") from error
    return target


def find(accepted: Iterable[str]) -> Path | None:
    """Return the first of the `accepted` names in $RESFIT_DATA, ./data or the cache's downloads, or None."""
    given = os.environ.get("RESFIT_DATA")
    for folder in (*([Path(given)] if given else []), Path("data"), cache_folder() / "downloads"):
        for candidate in accepted:
            if (folder / candidate).exists():
                return folder / candidate
    return None


def _download(url: str, target: Path, md5: str, advice: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    except OSError as error:
        reason = error.strerror or error
        raise ResourceError(
            f"{target.parent}: cannot be written: {reason}. Set RESFIT_CACHE to another folder."
        ) from error
    try:
        digest = hashlib.md5(usedforsecurity=False)  # the checksum that its author publishes
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            total = int(answer.headers.get("Content-Length") or 0)
            done = said = 0
            while piece := answer.read(_PIECE):
                file.write(piece)
                digest.update(piece)
                done += len(piece)
                if total and done * 10 // total > said:
                    said = done * 10 // total
                    print(f"resfit: {target.name}: {done >> 20} of {total >> 20} MiB", file=sys.stderr)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != md5:
            raise DataError(f"{url}: the download has md5 {digest.hexdigest()}, not {md5}. Try again. {advice}")
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
