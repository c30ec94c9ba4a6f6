"""Class folders, on disk or in an archive: train/ val/ test/ with a folder a class, or the class folders alone."""

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resfit.data.archive import is_archive, list_members, read_members
from resfit.data.cache import cached_json
from resfit.data.formats import EXTENSIONS, UNREAD
from resfit.data.listing import Blob, Listing, Source
from resfit.data.splits import SPLIT_WORDS
from resfit.data.tree import list_tree
from resfit.errors import DataError, nearest

LAYOUTS = "train/CLASS/*.jpg, val/CLASS/*.jpg, test/CLASS/*.jpg, or CLASS/*.jpg alone"


def recognises(source: str) -> bool:
    """Return whether `source` is a folder, or an archive by its name."""
    return os.path.isdir(source) or is_archive(Path(source))


def open_source(source: str) -> Source:
    """List the class folders of a folder or archive; raises DataError where they make no sense."""
    path = Path(source)
    if path.is_dir():
        tree = list_tree(path)
        signature = tree.signature
        layout: Callable[[], dict[str, Any]] = functools.cache(
            lambda: _lay_out(tree.files(), [name for name in tree.folders if name], source, tree.unread)
        )
        brief = cached_json({"tree": signature}, lambda: _brief(layout())) | {"unread": tree.unread}
    else:
        stat = path.stat()
        signature = repr((str(path.resolve()), stat.st_size, stat.st_mtime_ns))
        # one pass over a compressed archive costs seconds, so that the listing is kept as well
        kept = cached_json({"archive": signature}, lambda: _lay_out_archive(path, source))
        layout, brief = (lambda: kept), _brief(kept) | {"unread": kept["unread"]}
    splits = brief["splits"]

    def list_split(split: str) -> Listing:
        names: list[str] = layout()["splits"][split]["names"]
        return Listing(
            count=len(names),
            labels=np.asarray(layout()["splits"][split]["labels"], np.int64),
            class_names=tuple(layout()["classes"]),
            ids=tuple(names),
            blobs=lambda index: _blobs(path, names, index),
            place=f"{source}/" if path.is_dir() else f"{source}:",
        )

    return Source(source, tuple(splits), list_split, signature, _words(path, brief))


def _lay_out_archive(path: Path, source: str) -> dict[str, Any]:
    """Return what `_lay_out` does, and "unread"; hidden files and folders are left out as in a folder."""
    files, folders = (
        [name for name in names if not any(map(_is_hidden, name.split("/")))] for names in list_members(path)
    )
    unread = Counter(os.path.splitext(f)[1].lower() for f in files if f.lower().endswith(UNREAD))
    images = [f for f in dict.fromkeys(files) if f.lower().endswith(EXTENSIONS)]  # a name that comes twice counts once
    return _lay_out(images, folders, source, unread) | {"unread": unread}


def _brief(layout: dict[str, Any]) -> dict[str, Any]:
    return {"splits": list(layout["splits"]), "classes": len(layout["classes"])}


def _words(path: Path, brief: dict[str, Any]) -> str:
    """Return the layout in words, with what stands there and is not read."""
    splits = brief["splits"]
    where = "" if splits == ["all"] else f" in {', '.join(splits)}"
    packed = "" if path.is_dir() else " in an archive"
    return f"class folders{where}{packed}, {brief['classes']:,} classes{_passed_over(brief['unread'])}"


def _passed_over(unread: dict[str, int]) -> str:
    shown = ", ".join(f"{count:,} {ending}" for ending, count in sorted(unread.items()))
    return f"; passed over, since they are not read: {shown}" if unread else ""


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _lay_out(
    images: Sequence[str], folders: Sequence[str], source: str, unread: dict[str, int] | None = None
) -> dict[str, Any]:
    """Return {"classes": [...], "splits": {split: {"names", "labels"}}}, with "all" for class folders alone."""
    if not images and unread:
        raise DataError(f"{source}: no image that can be read{_passed_over(unread)}. Save them as JPEG or PNG.")
    if not images:
        raise DataError(f"{source}: no images in it. Give {LAYOUTS} ({', '.join(e[1:] for e in EXTENSIONS)}).")
    tops = {f.split("/")[0] for f in folders} | {f.split("/")[0] for f in images if "/" in f}
    wrapped = (
        len(tops) == 1
        and not any("/" not in f for f in images)
        and not {t.casefold() for t in tops} & SPLIT_WORDS.keys()
    )
    if wrapped and not os.path.isdir(source) and all(f.count("/") > 1 for f in images):
        cut = len(next(iter(tops))) + 1  # archives are often wrapped in one folder
        inner = _lay_out([f[cut:] for f in images], [f[cut:] for f in folders if len(f) > cut], source)
        for part in inner["splits"].values():
            part["names"] = [images[0][:cut] + name for name in part["names"]]
        return inner
    by_split = _find_splits(tops, images, source)
    splits: dict[str, dict[str, list[str]]] = {}
    for top, split in by_split.items():
        if split in splits:
            raise DataError(f"{source}: brings {split} twice ({', '.join(t for t in by_split)}). Keep one of them.")
        prefix = f"{top}/" if top else ""
        splits[split] = _classes_below(prefix, images, folders, source)
    classes = sorted(splits["train" if "train" in splits else next(iter(splits))])
    _check_classes(splits, classes, source)
    order = [s for s in ("train", "val", "test", "all") if s in splits]
    return {
        "classes": classes,
        "splits": {
            split: {
                "names": [name for c in classes for name in sorted(splits[split][c])],
                "labels": [label for label, c in enumerate(classes) for _ in splits[split][c]],
            }
            for split in order
        },
    }


def _find_splits(tops: set[str], images: Sequence[str], source: str) -> dict[str, str]:
    """Return {top folder: split}, or {"": "all"} for class folders alone; raises DataError where a folder could be either."""
    # a class may be called train: then it has images and no folders
    flat = {f.split("/")[0] for f in images if f.count("/") == 1} - {
        f.split("/")[0] for f in images if f.count("/") > 1
    }
    found = {top: SPLIT_WORDS[top.casefold()] for top in sorted(tops - flat) if top.casefold() in SPLIT_WORDS}
    if found:
        strays = sorted({f.split("/")[0] for f in images} - found.keys())
        if strays:
            raise DataError(
                f"{source}: {strays[0]} stands beside {', '.join(found)} and is none of the splits. Move it."
            )
        return found
    if len(flat) > 1 and flat == tops and not {top.casefold() for top in flat} - SPLIT_WORDS.keys():
        raise DataError(
            f"{source}: {', '.join(sorted(flat))} have images and no class folders in them. Give {LAYOUTS}."
        )
    inner = {top: {f.split("/")[1] for f in images if f.startswith(f"{top}/") and f.count("/") > 1} for top in tops}
    names = [frozenset(below) for below in inner.values()]
    if not flat and len(names) > 1 and len(set(names)) == 1 and len(names[0]) > 1:
        raise DataError(
            f"{source}: {', '.join(sorted(tops))} have the same folders inside, as splits do. Name them train, val, test."
        )
    return {"": "all"}


def _classes_below(prefix: str, images: Sequence[str], folders: Sequence[str], source: str) -> dict[str, list[str]]:
    depth = prefix.count("/")
    classes: dict[str, list[str]] = {
        f[len(prefix) :]: [] for f in folders if f.startswith(prefix) and f.count("/") == depth
    }
    for name in images:
        if not name.startswith(prefix):
            continue
        parts = name.split("/")
        if len(parts) <= depth + 1:
            raise DataError(f"{source}: {name} lies outside any class folder. Give {LAYOUTS}.")
        classes.setdefault(parts[depth], []).append(name)
    for name, members in sorted(classes.items()):
        if not members:
            raise DataError(f"{source}: class folder {prefix}{name} has no images. Fill it or remove it.")
    return classes


def _check_classes(splits: dict[str, dict[str, list[str]]], classes: list[str], source: str) -> None:
    if len(classes) < 2:
        raise DataError(f"{source}: only one class folder ({', '.join(classes)}). Give {LAYOUTS}.")
    for split, members in splits.items():
        for name in sorted(members.keys() - set(classes)):
            hint = nearest(name, classes)
            todo = f"{hint} Rename it." if hint else " Remove it."
            raise DataError(f"{source}: {split} has a class {name!r} that the other splits have not.{todo}")
        for name in classes:
            if name not in members:
                raise DataError(f"{source}: {split} has no class folder {name!r}. Every split needs the same classes.")


def _blobs(path: Path, names: Sequence[str], index: Sequence[int]) -> Iterator[tuple[int, Blob]]:
    if path.is_dir():
        top = str(path)
        for i in index:
            yield i, os.path.join(top, names[i])
        return
    wanted = {names[i]: i for i in index}
    for name, data in read_members(path, wanted):
        if name in wanted:  # a name that comes twice counts once
            yield wanted.pop(name), data
