"""Images listed by a table: `path,label[,split]` in a CSV, or Hugging Face's metadata.csv and metadata.jsonl.

A table is given itself, or found in the folder given: metadata.* or labels.*, train.* val.* test.*, metadata.* in each split's
folder, or the only table that lists images where there are no class folders. Only the files it lists are looked at.
"""

import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from resfit.data.formats import EXTENSIONS
from resfit.data.listing import Blob, Listing, Source
from resfit.data.splits import SPLIT_WORDS
from resfit.data.tablefile import ENDINGS, HEADERS, Entry, read_header, read_table
from resfit.errors import DataError, nearest

LAYOUTS = f"a {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]} of path,label[,split]"
_KNOWN = ("metadata", "labels")


class Table(NamedTuple):
    """A table of images: its file, and the split that its name or folder says ("" for none)."""

    file: Path
    split: str = ""


class Item(NamedTuple):
    """One image: its path below the top of the source, its label, its split or "all", and where the table lists it."""

    path: str
    label: str
    split: str
    where: str


def recognises(source: str) -> bool:
    """Return whether `source` is a table by its name, or a folder that has one of its images."""
    return bool(_find_tables(Path(source)))


def open_source(source: str) -> Source:
    """List what the tables list, and look at every file; raises DataError naming the first line that is wrong."""
    tables = _find_tables(Path(source))
    top = Path(source) if os.path.isdir(source) else Path(source).parent
    items = [item for table in tables for item in _items(table, top)]
    digest = hashlib.blake2b(repr((str(top.resolve()), [_facts(str(t.file), "") for t in tables])).encode())
    _refuse_twice(items)
    for item in items:
        digest.update(repr((item, _facts(os.path.join(top, item.path), item.where))).encode())
    classes = _classes(items, source)
    splits = _order(items)
    by_split = {split: sorted((i for i in items if i.split == split), key=lambda i: i.path) for split in splits}
    number = {name: label for label, name in enumerate(classes)}

    def list_split(split: str) -> Listing:
        found = by_split[split]
        paths = [item.path for item in found]
        labels = np.array([number[item.label] for item in found], np.int64)
        return Listing(len(found), labels, classes, tuple(paths), lambda index: _blobs(top, paths, index), f"{top}/")

    kind = "JSON lines" if tables[0].file.suffix.lower() == ".jsonl" else "a CSV"
    shown = ", ".join(os.path.relpath(t.file, top) for t in tables)
    known = {word for column in HEADERS.values() for word in column}
    columns = ",".join(name for name in read_header(tables[0].file) if name.casefold() in known)
    words = f"{kind} of labels ({shown}: {columns}), {len(classes):,} classes"
    return Source(source, splits, list_split, digest.hexdigest()[:32], words)


def _find_tables(source: Path) -> list[Table]:
    """Return the tables of a source in a fixed order; none where it is not one of tables."""
    if source.name.lower().endswith(ENDINGS) and source.is_file():
        return [Table(source)]
    if not source.is_dir():
        return []
    try:
        entries = sorted((e for e in os.scandir(source) if not e.name.startswith(".")), key=lambda e: e.name)
        folders = [e.name for e in entries if e.is_dir() and e.name != "__MACOSX"]
        files = [source / e.name for e in entries if e.name.lower().endswith(ENDINGS) and e.is_file()]
    except OSError:  # said by the reader of folders
        return []
    listing = [file for file in files if _has_columns(file)]
    if known := [file for file in listing if _stem(file) in _KNOWN]:
        return [Table(_only(known))]
    for split_tables in (_by_name(listing), _by_folder(source, folders)):
        if any(table.split == "train" for table in split_tables):
            return split_tables
    bare = len(folders) < 2 and not {f.casefold() for f in folders} & SPLIT_WORDS.keys()
    if bare and (listing or (files := [file for file in files if _stem(file) in _KNOWN])):
        return [Table(_only(listing or files))]  # of the latter it is said which column is missing
    return []


def _has_columns(file: Path) -> bool:
    header = [name.casefold() for name in read_header(file)]
    return all(any(word in header for word in HEADERS[column]) for column in ("path", "label"))


def _by_name(files: Sequence[Path]) -> list[Table]:
    return [Table(file, SPLIT_WORDS[_stem(file)]) for file in files if _stem(file) in SPLIT_WORDS]


def _by_folder(source: Path, folders: Sequence[str]) -> list[Table]:
    tables = []
    for folder in folders:
        files = (
            [source / folder / f"metadata{ending}" for ending in ENDINGS] if folder.casefold() in SPLIT_WORDS else []
        )
        if found := [file for file in files if file.is_file() and _has_columns(file)]:
            tables.append(Table(_only(found), SPLIT_WORDS[folder.casefold()]))
    return tables


def _only(files: Sequence[Path]) -> Path:
    if len(files) > 1:
        names = " and ".join(file.name for file in files[:3])
        raise DataError(f"{files[0].parent}: {names} list images. Give the one that is meant.")
    return files[0]


def _stem(file: Path) -> str:
    return file.stem.casefold()


def _items(table: Table, top: Path) -> Iterator[Item]:
    """Yield what a table lists, in its order; where the files lie below its folder follows from the first of them."""
    entries = read_table(table.file)
    below = os.path.relpath(table.file.parent, top).replace(os.sep, "/")
    prefix, ending = _place(table.file.parent, _inside(entries[0]))
    start = "/".join(part for part in (below, prefix) if part not in ("", "."))
    named = [entry for entry in entries if entry.split]
    if named and len(named) < len(entries):
        bare = next(entry for entry in entries if not entry.split)
        raise DataError(f"{bare.where}: says no split, and other lines do. Write train, val or test.")
    for entry in entries:
        path = f"{start}/{_inside(entry)}" if start else _inside(entry)
        if ending and not path.lower().endswith(EXTENSIONS):
            path += ending
        split = table.split or "all"
        if entry.split:
            if entry.split.casefold() not in SPLIT_WORDS:
                raise DataError(f"{entry.where}: its split {entry.split!r} is not known. Write train, val or test.")
            split = SPLIT_WORDS[entry.split.casefold()]
        yield Item(path, entry.label, split, entry.where)


def _inside(entry: Entry) -> str:
    """Return the path that a table lists, with / between its parts; raises DataError for one that leads out."""
    name = entry.path
    if "\\" in name and "/" not in name:
        name = name.replace("\\", "/")
    if name.startswith("/") or name[1:3] == ":/":
        raise DataError(f"{entry.where}: {entry.path} is an absolute path. Write it as it is from the table's folder.")
    plain = posixpath.normpath(name)
    if plain.split("/")[0] == "..":
        raise DataError(f"{entry.where}: {entry.path} leads out of the table's folder. Put the images below it.")
    if "\0" in name or plain == ".":
        raise DataError(f"{entry.where}: {entry.path!r} is no path of a file. Write where the image is.")
    return plain


def _place(folder: Path, name: str) -> tuple[str, str]:
    """Return (folder, ending) by which the table's first name is a file: as it is, or in one folder, or less its ending."""
    with os.scandir(folder) as entries:
        inner = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    for prefix in ("", *inner):
        for ending in ("", *EXTENSIONS, *map(str.upper, EXTENSIONS)):
            if os.path.isfile(os.path.join(folder, prefix, name + ending)):
                return prefix, ending
    return "", ""


def _facts(path: str, where: str) -> tuple[int, int]:
    """Return size and time of a listed file; raises DataError where it is missing or no file."""
    before = f"{where}: " if where else ""
    try:
        found = os.stat(path)
    except OSError as error:
        raise DataError(f"{before}{path}: {error.strerror}. Correct the path, or put the file there.") from error
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{before}{path}: is not a file. Correct the path.")
    return found.st_size, found.st_mtime_ns


def _refuse_twice(items: Sequence[Item]) -> None:
    first: dict[str, Item] = {}
    for item in items:
        other = first.setdefault(item.path, item)
        if other is item:
            continue
        if other.label != item.label:
            raise DataError(
                f"{item.where}: {item.path} is {item.label!r} here and {other.label!r} in {other.where}. Keep one label."
            )
        raise DataError(f"{item.where}: {item.path} is listed in {other.where} already. Keep one of them.")


def _classes(items: Sequence[Item], source: str) -> tuple[str, ...]:
    """Return the labels of train, numbers by size and else by name; raises DataError for fewer than two, or others in val."""
    main = {item.split for item in items} & {"train", "all"} or {items[0].split}
    found = {item.label for item in items if item.split in main}
    classes = sorted(found, key=int) if all(n.isascii() and n.isdigit() for n in found) else sorted(found)
    if len(classes) < 2:
        raise DataError(f"{source}: only one class ({classes[0]}). Give two or more.")
    for item in items:
        if item.label not in found:
            hint = nearest(item.label, classes)
            raise DataError(
                f"{item.where}: class {item.label!r} is none of {', '.join(sorted(main))}.{hint} Correct it."
            )
    return tuple(classes)


def _order(items: Sequence[Item]) -> tuple[str, ...]:
    found = {item.split for item in items}
    return tuple(split for split in ("train", "val", "test", "all") if split in found)


def _blobs(top: Path, paths: Sequence[str], index: Sequence[int]) -> Iterator[tuple[int, Blob]]:
    for i in index:
        yield i, os.path.join(top, paths[i])
