"""Hugging Face's parquet files: a column of encoded images (`image` or `img`) and one of labels, read a row group at a time.

One file, several in a folder, or those of a data set's repository (data/, or one folder a split). A file's split is the word
its name begins with (train-00000-of-00002.parquet); files without one are one pool. The form is that of the `datasets`
library (huggingface.co/docs/datasets, features Image and ClassLabel). Needs the extra `parquet`.
"""

import hashlib
import json
import os
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resfit.data.listing import Listing, Source
from resfit.data.splits import SPLIT_WORDS
from resfit.errors import DataError, MissingExtraError

LAYOUTS = "Hugging Face's .parquet files with columns image and label"
_ENDING = ".parquet"
_IMAGES = ("image", "img", "picture", "png", "jpg", "jpeg")
_LABELS = ("label", "labels", "fine_label", "class", "target")
_BATCH = 64  # images in memory at once, beside the pages that hold them
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.parquet", re.IGNORECASE)


@dataclass(frozen=True)
class Shard:
    """One file: its path, what it is called below the source, its split or "all"."""

    file: Path
    name: str
    split: str


@dataclass(frozen=True)
class Columns:
    """What the columns of images and labels are called, and the names of classes that the schema has, if any."""

    images: str
    labels: str
    names: tuple[str, ...]


def recognises(source: str) -> bool:
    """Return whether `source` is a .parquet file, or a folder of them without a folder that has none."""
    path = Path(source)
    return _is_one(path) if not path.is_dir() else bool(_folders(path))


def open_source(source: str) -> Source:
    """Look at the files' schemas; raises DataError for what is no labelled images, MissingExtraError without pyarrow."""
    shards = _shards(Path(source))
    _whole(shards, source)
    columns = _columns(shards[0])
    for shard in shards[1:]:
        if _columns(shard) != columns:
            raise DataError(f"{shard.file}: has other columns or classes than {shards[0].file}. Give files of one set.")
    found = {shard.split for shard in shards}
    splits = tuple(split for split in ("train", "val", "test", "all") if split in found)
    main = "train" if "train" in splits else splits[0]
    classes = columns.names or _count_classes([s for s in shards if s.split == main], columns, source)
    if len(classes) < 2:
        raise DataError(f"{source}: only one class ({', '.join(classes) or 'none'}). Give two or more.")
    facts = [(s.name, s.file.stat().st_size, s.file.stat().st_mtime_ns) for s in shards]
    signature = hashlib.blake2b(repr((str(Path(source).resolve()), facts)).encode(errors="surrogateescape"))
    files = "a parquet file" if len(shards) == 1 else f"{len(shards):,} parquet files"

    def list_split(split: str) -> Listing:
        return _list_split([s for s in shards if s.split == split], columns, classes, source)

    words = f"{files} (columns {columns.images} and {columns.labels}), {len(classes):,} classes"
    return Source(source, splits, list_split, signature.hexdigest()[:32], words)


def _is_one(path: Path) -> bool:
    return path.name.lower().endswith(_ENDING) and not path.name.startswith(".") and path.is_file()


def _folders(top: Path) -> list[Path]:
    """Return the folders of a data set that have its files, itself or those in it; none where another folder has none."""
    try:
        with os.scandir(top) as entries:
            inner = sorted(top / entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        if not all(map(_has_one, inner)):
            return []
        return [top, *inner] if _has_one(top) else inner
    except OSError:  # said by the reader of folders
        return []


def _has_one(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(e.name.lower().endswith(_ENDING) and not e.name.startswith(".") and e.is_file() for e in entries)


def _shards(source: Path) -> list[Shard]:
    """Return the files with their splits; raises DataError where two data sets are below one folder."""
    if not source.is_dir():
        return [Shard(source, source.name, "all")]
    folders = _folders(source)
    named = [f for f in folders if f != source and f.name.casefold() in SPLIT_WORDS]
    if len(folders) > 1 and len(named) < len(folders):
        shown = ", ".join(f.name for f in folders if f != source)
        raise DataError(f"{source}: more than one folder has .parquet files ({shown}). Give one of them.")
    shards = []
    for folder in folders:
        for file in sorted(filter(_is_one, folder.iterdir())):
            word = folder.name if folder in named else re.split(r"[-_.]", file.name)[0]
            split = SPLIT_WORDS.get(word.casefold(), "all")
            shards.append(Shard(file, file.relative_to(source).as_posix(), split))
    pool = [shard.name for shard in shards if shard.split == "all"]
    if pool and len(pool) < len(shards):
        raise DataError(
            f"{source}: {pool[0]} names no split, and other files do. Begin its name with train, val or test."
        )
    return shards


def _whole(shards: Sequence[Shard], source: str) -> None:
    """Raise DataError where one of train-00000-of-00002 and -00001-of-00002 is missing."""
    if Path(source).is_file():
        return
    have = {shard.file for shard in shards}
    for shard in shards:
        if match := _SHARD.fullmatch(shard.file.name):
            start, _, total = match.groups()
            for number in range(int(total)):
                other = shard.file.with_name(f"{start}-{number:05}-of-{total}{shard.file.suffix}")
                if other not in have:
                    raise DataError(f"{other}: is missing beside {shard.file.name}. Fetch it, too.")


def _columns(shard: Shard) -> Columns:
    """Return the columns of a file by its schema; raises DataError where it has no images or labels."""
    with _opened(shard) as file:
        schema = file.schema_arrow
    images = next((name for name in _IMAGES if name in schema.names), None)
    labels = next((name for name in _LABELS if name in schema.names), None)
    for column, found, words in (("images", images, _IMAGES), ("labels", labels, _LABELS)):
        if found is None:
            have = ", ".join(map(str, schema.names))[:80] or "none"
            raise DataError(f"{shard.file}: has no column of {column}, only {have}. Call it {words[0]} or {words[1]}.")
    assert images is not None and labels is not None
    _check_type(schema, images, labels, shard)
    return Columns(images, labels, _class_names(schema.metadata or {}, labels))


def _check_type(schema: Any, images: str, labels: str, shard: Shard) -> None:
    import pyarrow.types as types

    def is_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))

    kind = schema.field(images).type
    if types.is_struct(kind):
        kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else kind
    if not is_bytes(kind):
        raise DataError(
            f"{shard.file}: its column {images} is {str(kind)[:40]}, not encoded images. Store their bytes."
        )
    kind = schema.field(labels).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    if not (types.is_integer(kind) or text):
        raise DataError(
            f"{shard.file}: its column {labels} is {str(kind)[:40]}. Give a whole number or a text an image."
        )


def _class_names(metadata: dict[bytes, bytes], labels: str) -> tuple[str, ...]:
    """Return the names that the `datasets` library wrote into the schema, or none."""
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][labels]
        names = feature["names"]
        return tuple(map(str, names)) if feature["_type"] == "ClassLabel" and isinstance(names, list) else ()
    except (KeyError, ValueError, TypeError, RecursionError):
        return ()


def _count_classes(shards: Sequence[Shard], columns: Columns, source: str) -> tuple[str, ...]:
    """Return the distinct labels, numbers by size and texts by name, as texts."""
    values = [value for shard in shards for value in _labels(shard, columns)]
    if not values:
        raise DataError(f"{source}: has no rows. Give images.")
    return tuple(map(str, sorted(set(values))))


def _labels(shard: Shard, columns: Columns) -> list[int] | list[str]:
    """Return the labels of a file as stored; raises DataError for a row without."""
    with _opened(shard) as file:
        values: list[Any] = file.read(columns=[columns.labels]).column(0).to_pylist()
    if None in values:
        raise DataError(f"{shard.file}: row {values.index(None)} has no {columns.labels}. Label it or remove it.")
    return values


def _list_split(shards: Sequence[Shard], columns: Columns, classes: tuple[str, ...], source: str) -> Listing:
    labels, ids, starts = [], [], [0]
    number = {name: label for label, name in enumerate(classes)}
    for shard in shards:
        values = _labels(shard, columns)
        for row, value in enumerate(values):
            known = value if isinstance(value, int) and columns.names else number.get(str(value), -1)
            if not 0 <= known < len(classes):
                some = ", ".join(classes[:3])
                raise DataError(f"{shard.file}: row {row}: its label {value!r} is no class ({some}, ...). Correct it.")
            labels.append(known)
        ids += [f"{shard.name}:{row}" for row in range(len(values))]
        starts.append(len(labels))
    if not labels:
        raise DataError(f"{source}: {', '.join(s.name for s in shards)}: no rows. Give images.")

    def blobs(index: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        for shard, start, stop in zip(shards, starts, starts[1:], strict=False):
            wanted = index[bisect_left(index, start) : bisect_left(index, stop)]
            yield from _images(shard, columns.images, start, wanted)

    place = f"{source}/" if Path(source).is_dir() else f"{Path(source).parent}/"
    return Listing(len(labels), np.asarray(labels, np.int64), classes, tuple(ids), blobs, place)


def _images(shard: Shard, column: str, start: int, wanted: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Yield (i, encoded image) for `wanted` (sorted), the file's first row being `start`; skips row groups without any."""
    import pyarrow as pa

    with _opened(shard) as file:
        first = start
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            here = wanted[bisect_left(wanted, first) : bisect_left(wanted, first + rows)]
            at = first
            for batch in file.iter_batches(_BATCH, [group], [column]) if len(here) else ():
                values = batch.column(0)
                values = values.field("bytes") if pa.types.is_struct(values.type) else values
                for i in here[bisect_left(here, at) : bisect_left(here, at + len(values))]:
                    data = values[i - at].as_py()
                    if data is None:
                        raise DataError(
                            f"{shard.file}: row {i - start} has no image in it. Store its bytes, not its path."
                        )
                    yield i, data
                at += len(values)
            first += rows


@contextmanager
def _opened(shard: Shard) -> Iterator[Any]:
    """Open a file by pyarrow, with what it says of damage in one line."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError(
            f"{shard.file}: pyarrow is needed to read it. Install it: pip install 'resfit[parquet]'."
        ) from error
    try:
        with pq.ParquetFile(shard.file, memory_map=False) as file:
            yield file
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{shard.file}: cannot be read ({reason[:120]}). Fetch it again.") from error
