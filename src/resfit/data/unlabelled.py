"""Images without labels, to be predicted: files, folders, arrays, an image on standard input, and lists of paths."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resfit.data import arrays, competition
from resfit.data.cache import in_memory
from resfit.data.images import ImageSet, PixelRule, join
from resfit.data.keys import MOST_BYTES
from resfit.data.listing import Blob, Listing, read
from resfit.data.tree import list_tree
from resfit.errors import DataError, UsageError
from resfit.escaping import visible

STDIN = "-"


def load_unlabelled(paths: Sequence[str | Path], rule: PixelRule) -> ImageSet:
    """Return the images that `list_unlabelled` lists, decoded by `rule`, without labels."""
    listings = list_unlabelled(paths)
    found = [
        read(listing, range(listing.count), rule, in_memory, str(path))
        for listing, path in zip(listings, paths, strict=True)
    ]
    return join(found, ", ".join(map(str, paths)))


def list_unlabelled(paths: Sequence[str | Path]) -> list[Listing]:
    """Return a listing for each file, folder, .npz file or competition pickle, in the order given; "-" is an image on stdin.

    ids: a file's path as given, or the folder as given joined with the path below it; row numbers for arrays; "stdin". A path
    may be a link; those in a folder are followed to places inside it, and one line on stderr counts the others. Raises
    DataError where two images of arrays would bear one id.
    """
    if not paths:
        raise UsageError("paths: no images given. Name files or folders.")
    found, seen = [], dict[str, str]()
    for path in map(str, paths):
        listing = _list_unlabelled(path)
        if arrays.recognises(path) or competition.recognises(path):  # a path names its image, a row number may not
            for name in listing.ids or ():
                if name in seen:
                    raise DataError(f"{path}: its id {name} is taken by an image of {seen[name]}. Predict them apart.")
                seen[name] = path
        found.append(listing)
    return found


def _list_unlabelled(path: str) -> Listing:
    """Return the listing of a file or folder without labels."""
    if path == STDIN:
        data = read_stdin()
        return Listing(1, None, (), ("stdin",), lambda index: iter([(i, data) for i in index]))
    if not Path(path).exists():
        raise DataError(f"{path}: does not exist. Name image files, folders, a .npz or a competition pickle.")
    if arrays.recognises(path):
        return arrays.list_unlabelled(path)
    if competition.recognises(path):
        return competition.list_unlabelled(path)
    ids: tuple[str, ...] = (path,)
    if Path(path).is_dir():
        tree = list_tree(Path(path), inside=True)
        if tree.not_followed:
            line = f"{path}: links not followed, since they lead out of it or in a circle: {tree.not_followed:,}"
            print(f"resfit: {visible(line)}", file=sys.stderr)
        ids = tuple(str(Path(path) / name) for name in tree.files())
        if not ids:
            raise DataError(f"{path}: no images in it. Name image files or a folder that has some.")

    def blobs(index: Sequence[int]) -> Any:
        for i in index:
            blob: Blob = ids[i]
            yield i, blob

    return Listing(len(ids), None, (), ids, blobs)


def read_stdin() -> bytes:
    """Return what is piped in; raises UsageError where nothing is, DataError for more than an image can have."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("-: standard input is not a pipe or file. Pipe something into it, or name a file.")
    data = sys.stdin.buffer.read(MOST_BYTES + 1)
    if not data:
        raise DataError("stdin: nothing came in. Pipe an image, or paths, into it.")
    if len(data) > MOST_BYTES:
        raise DataError(f"stdin: more than {MOST_BYTES >> 20} MiB. Pipe less into it, or name files.")
    return data


def read_paths(name: str) -> list[str]:
    """Return the paths that a file, or stdin for "-", lists: ended by zero bytes where it has any, else one a line."""
    try:
        data = read_stdin() if name == STDIN else Path(name).read_bytes()
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}. Name a file that lists paths.") from error
    parts = data.split(b"\0") if b"\0" in data else [line.removesuffix(b"\r") for line in data.split(b"\n")]
    paths = [os.fsdecode(part) for part in parts if part]
    if not paths:
        raise UsageError(f"--files-from {name}: lists no paths. Give one a line, or ended by zero bytes.")
    return [os.path.join(".", path) if path == STDIN else path for path in paths]
