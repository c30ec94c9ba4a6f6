"""`push` and `pull`: a bundle to the Hugging Face Hub in one commit, and back, checked before it is put in place.

Only the names of `LIMITS` travel, and none is unpickled: weights are safetensors, all else text and ONNX. The Hub's place is
$HF_ENDPOINT, the token $HF_TOKEN or what `hf auth login` keeps.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resfit import durable
from resfit.errors import DataError, MissingExtraError, ResfitError, ResourceError, UsageError
from resfit.escaping import visible
from resfit.evaluation.card import BESIDE, CARD, RECEIPT, RESULTS, dataset_id, write_card
from resfit.runs import open_run

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoSibling

WEIGHTS, CONFIG, ONNX = "model.safetensors", "config.json", "model.onnx"
TEXT, LARGE = 2**24, 2**32  # bytes that a file may have: what is larger is no bundle's
LIMITS = {CONFIG: TEXT, WEIGHTS: LARGE, ONNX: LARGE, **dict.fromkeys(BESIDE, TEXT)}
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"


@dataclass(frozen=True)
class Place:
    """A repository on the Hub, `owner/name`, and a branch, tag or commit of it, or None for its main branch."""

    repo: str
    revision: str | None = None


def find_place(text: str) -> Place:
    """Return what `owner/name`, `owner/name@revision`, either behind `hf://`, or the page's address says. Raises UsageError."""
    short = re.sub(r"^(hf://|https://(huggingface\.co|hf\.co)/)", "", text).removesuffix("/")
    match = re.fullmatch(rf"({NAME}/{NAME})(?:@([\w./-]+))?", short, re.ASCII)
    if not match or ".." in short or "--" in match[1]:
        raise UsageError(f"{visible(text)}: is no repository's name. Write OWNER/NAME, or OWNER/NAME@REVISION.")
    return Place(match[1], match[2])


def push(
    path: str | Path,
    repo: str,
    *,
    public: bool = False,
    dataset: str | None = None,
    dry_run: bool = False,
    show: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Upload the bundle of a finished run, or a bundle folder, to `repo` in one commit, and return what was done.

    The repository is made where there is none, private unless `public`; one that is there stays as visible as it is. Files of
    a bundle that this one lacks are removed from it. `dataset` is the test set's id on the Hub, for the card and
    `.eval_results`, which is left out without it: the Hub knows no others. `show` is told `repo` and `files` before anything is
    sent; with `dry_run` that is all. The result has `url`, `commit`, `private` and `removed` too. Raises UsageError,
    ResourceError, MissingExtraError.
    """
    hub = _hub()
    place = find_place(repo)
    if place.revision is not None:
        raise UsageError(f"{repo}: names a revision. Leave it out: push writes to the main branch.")
    if dataset is not None and find_place(dataset).revision is not None:
        raise UsageError(f"--dataset: {dataset}: names a revision. Write OWNER/NAME.")
    contents = _contents(path, dataset)
    files = [{"name": name, "bytes": len(data)} for name, data in contents.items()]
    value: dict[str, Any] = {"repo": place.repo, "files": files, "dry_run": dry_run}
    if show is not None:
        show(value)
    if dry_run:
        return value
    if hub.get_token() is None:
        raise UsageError(
            "push: not logged in to the Hub. Run `hf auth login`, or set HF_TOKEN to a token that may write."
        )
    with _one_line(place):
        api: HfApi = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        api.create_repo(place.repo, private=not public, exist_ok=True)
        before = api.model_info(place.repo)
        there = {file.rfilename for file in before.siblings or []}
        removed = sorted((there & LIMITS.keys()) - contents.keys())
        operations = [hub.CommitOperationAdd(name, data) for name, data in contents.items()]
        done = api.create_commit(
            place.repo,
            [*operations, *map(hub.CommitOperationDelete, removed)],
            commit_message="A bundle of resfit",
            parent_commit=before.sha,  # two that push at once do not mix
        )
    url = f"{api.endpoint}/{place.repo}"
    return value | {"url": url, "commit": done.oid, "private": bool(before.private), "removed": removed}


def pull(repo: str, out: str | Path | None = None) -> dict[str, Any]:
    """Download a bundle from the Hub to `out` (default: the repository's name) and return what it is.

    Only a bundle's files are taken. They are compared with the Hub's hashes and loaded before the folder is there, whole or not
    at all. Raises UsageError, DataError where it is no bundle or damaged, ResourceError, MissingExtraError.
    """
    hub = _hub()
    place = find_place(repo)
    folder = Path(out) if out is not None else Path(place.repo.split("/")[1])
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise UsageError(f"{folder}: holds something already. Empty it, or choose another folder with -o.")
    durable.require_writable(folder.absolute().parent)
    with _one_line(place), _scratch(folder) as scratch:
        api: HfApi = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        info = api.model_info(place.repo, revision=place.revision, files_metadata=True)
        wanted, skipped = _wanted(place, info.siblings or [])
        for file in wanted:
            found = api.hf_hub_download(place.repo, file.rfilename, revision=info.sha, local_dir=scratch / "hub")
            data = Path(found).read_bytes()
            if not _is_whole(file, data):
                raise DataError(f"{place.repo}: {file.rfilename} is not what the Hub says it is. Pull it again.")
            durable.write_bytes(scratch / "bundle" / file.rfilename, data)
        about = _check(place.repo, scratch / "bundle")
        _put(scratch / "bundle", folder)
    files = [{"name": file.rfilename, "bytes": file.size} for file in wanted]
    return {"repo": place.repo, "commit": info.sha, "folder": str(folder), "files": files, "skipped": skipped, **about}


def _hub() -> Any:
    try:
        import huggingface_hub
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as error:
        raise MissingExtraError("huggingface-hub is needed. Install it: pip install 'resfit[hub]'.") from error
    disable_progress_bars()
    return huggingface_hub


def _contents(path: str | Path, dataset: str | None) -> dict[str, bytes]:
    """Return the bytes of each file to upload by its name, after a look that they make a bundle."""
    from resfit.evaluation.config import bundle_folder

    run = open_run(path) if (Path(path) / "run.json").is_file() or not bundle_folder(path).is_dir() else None
    if run is not None:
        _ = run.summary  # refuses a run that has not finished
        write_card(run)
    folder = run.bundle if run is not None else bundle_folder(path)
    _check(str(folder), folder)
    contents = {name: (folder / name).read_bytes() for name in LIMITS if (folder / name).is_file()}
    if dataset is None:
        contents.pop(RESULTS, None)
    elif RESULTS not in contents:
        raise UsageError(f"--dataset: {path} has no score of a test set. Run `resfit test` first, or leave it out.")
    else:
        local = dataset_id(json.loads(contents[RECEIPT])["fingerprint"]).encode()
        contents |= {name: contents[name].replace(local, dataset.encode()) for name in (CARD, RESULTS)}
    return contents


def _check(name: str, folder: Path) -> dict[str, Any]:
    """Return what a bundle folder holds, once it has been loaded; `name` stands for it in errors. Raises DataError."""
    from resfit.evaluation.bundle import load_bundle

    try:
        bundle = load_bundle(folder, "cpu")
        weights = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        if (folder / ONNX).is_file() and (known := _weights_of(folder / ONNX)) not in (None, weights):
            raise DataError(
                f"{ONNX} is of other weights (sha256 {visible(str(known))[:12]}) than {WEIGHTS}. Export it anew."
            )
        receipt = _read_receipt(folder / RECEIPT)
    except ResfitError as error:
        text = visible(str(error).replace(f"{folder}: ", ""))
        raise DataError(f"{name}: holds no bundle that could be used: {text}") from error
    size = bundle.config.get("params")
    return {
        "name": visible(str(bundle.config.get("name"))),
        "classes": len(bundle.class_names),
        "params": size if isinstance(size, int) else None,
        "test": receipt,
    }


def _weights_of(file: Path) -> str | None:
    """Return the hash of the weights that an ONNX file says it is of; None where onnxruntime is not there to read it."""
    from resfit.evaluation.runtime import load_onnx

    try:
        return str(load_onnx(file.read_bytes(), 1).config.get("weights_sha256"))
    except MissingExtraError:
        return None


def _read_receipt(file: Path) -> dict[str, Any] | None:
    """Return accuracy, interval and n of a receipt, None where there is none. Raises DataError."""
    if not file.is_file():
        return None
    try:
        value = json.loads(file.read_bytes())
        low, high = map(float, value["interval"])
        found = {"accuracy": float(value["accuracy"]), "interval": [low, high], "n": int(value["n"])}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file.name} is no receipt of a test: {error}. Test the run again.") from error
    return found


def _wanted(place: Place, files: "list[RepoSibling]") -> tuple["list[RepoSibling]", list[str]]:
    """Return the bundle's files in a repository, and the names of its others. Raises DataError."""
    wanted = [file for file in files if file.rfilename in LIMITS]
    for name in (CONFIG, WEIGHTS):
        if name not in {file.rfilename for file in wanted}:
            raise DataError(f"{place.repo}: has no {name}, so that it is no bundle of resfit. Name another repository.")
    for file in wanted:
        if file.size is None or file.size > LIMITS[file.rfilename]:
            raise DataError(
                f"{place.repo}: {file.rfilename} has {file.size or 'an unknown number of'} bytes. Is it a bundle?"
            )
    return wanted, sorted(visible(file.rfilename) for file in files if file.rfilename not in LIMITS)


def _is_whole(file: "RepoSibling", data: bytes) -> bool:
    """Compare a file with what the Hub says of it: size, and its sha256 (large files) or git's hash."""
    if len(data) != file.size:
        return False
    if file.lfs is not None:
        return hashlib.sha256(data).hexdigest() == str(file.lfs.sha256)
    return file.blob_id is None or hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == str(file.blob_id)


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Make a folder beside `folder` for what is not yet checked, and remove it."""
    place = folder.absolute().parent
    try:
        durable.make_folder(place)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=place))
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be made: {error.strerror}. Choose another folder with -o.") from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _put(made: Path, folder: Path) -> None:
    try:
        if folder.exists():
            folder.rmdir()  # it was empty
        made.rename(folder)
        durable.sync_folder(folder.absolute().parent)
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be made: {error.strerror}. Choose another folder with -o.") from error


@contextlib.contextmanager
def _one_line(place: Place) -> Iterator[None]:
    """Turn what huggingface-hub raises into an error of ours."""
    from huggingface_hub import errors

    try:
        yield
    except ResfitError:
        raise
    except errors.OfflineModeIsEnabled as error:
        raise ResourceError("HF_HUB_OFFLINE: is set, so that the Hub is not asked. Unset it.") from error
    except errors.GatedRepoError as error:
        raise UsageError(f"{place.repo}: asks for its owner's consent. Get it on its page, then log in.") from error
    except errors.RevisionNotFoundError as error:
        raise UsageError(f"{place.repo}: has no revision {place.revision}. Name a branch, tag or commit.") from error
    except errors.RepositoryNotFoundError as error:
        todo = "Look at its name; for a private one, log in with `hf auth login` or set HF_TOKEN."
        raise UsageError(f"{place.repo}: is not on the Hub, or not for you to see. {todo}") from error
    except errors.HfHubHTTPError as error:
        raise _refused(place, error) from error
    except (_http_error(), OSError, ValueError, RuntimeError) as error:  # the last wraps what an upload raised
        reason = visible(" ".join(str(error.__cause__ or error).split()))[:200] or type(error).__name__
        raise ResourceError(
            f"{place.repo}: the Hub could not be reached or used: {reason}. Try again later."
        ) from error


def _http_error() -> type[Exception]:
    """Return the base of what the HTTP library raises that huggingface-hub is built on: httpx or httpx2, by its version."""
    from huggingface_hub import errors

    found: type[Exception] = errors.HTTPError  # type: ignore[attr-defined, unused-ignore]
    return found


def _refused(place: Place, error: Any) -> ResfitError:
    code = error.response.status_code if error.response is not None else 0
    if code in (401, 403):
        return UsageError(f"{place.repo}: the Hub refuses the token ({code}). Give HF_TOKEN one that may write there.")
    if code in (409, 412):
        return ResourceError(f"{place.repo}: was changed by another meanwhile ({code}). Do it again.")
    reason = visible(" ".join(str(getattr(error, "server_message", None) or error).split()))[:200]
    return ResourceError(f"{place.repo}: the Hub answers {code}: {reason}. Try again later.")
