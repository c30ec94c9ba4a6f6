"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) as published: python and binary, folder, archive or name."""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from resfit.data.archive import first_files, is_archive, list_members, read_members
from resfit.data.arrays import list_pixels
from resfit.data.download import find, find_or_download
from resfit.data.keys import read_file
from resfit.data.listing import Listing, Source
from resfit.data.unpickle import load
from resfit.errors import DataError

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class _Form:
    """One of the four published forms: which files hold what."""

    name: str
    folder: str
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str | None  # CIFAR-10's ten names are known; CIFAR-100's are read
    binary: bool


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_PYTHON10 = _Form("cifar10", "cifar-10-batches-py", "cifar-10-python.tar.gz", _BATCHES, ("test_batch",), None, False)
_BINARY10 = _Form(
    "cifar10",
    "cifar-10-batches-bin",
    "cifar-10-binary.tar.gz",
    tuple(f"{b}.bin" for b in _BATCHES),
    ("test_batch.bin",),
    None,
    True,
)
_PYTHON100 = _Form("cifar100", "cifar-100-python", "cifar-100-python.tar.gz", ("train",), ("test",), "meta", False)
_BINARY100 = _Form(
    "cifar100",
    "cifar-100-binary",
    "cifar-100-binary.tar.gz",
    ("train.bin",),
    ("test.bin",),
    "fine_label_names.txt",
    True,
)
_FORMS = (_PYTHON10, _BINARY10, _PYTHON100, _BINARY100)
_OFFICIAL_MD5 = {"cifar10": "c58f30108f718f92721af3b95e74349a", "cifar100": "eb9058c3a382ffc7106e4002c42a8d85"}
# As published: the binary archive on Krizhevsky's page, and the python form's test_batch in torchvision's list.
_BINARY10_MD5, _TEST_BATCH_MD5 = "c32a1d4ab5d03f1284b67883e8d87530", "40351d587109b95175f43aff81a1287e"
_OFFICIAL_URL = "https://www.cs.toronto.edu/~kriz/"


def recognises(source: str) -> bool:
    """Return whether `source` is cifar10 or cifar100, or a folder or archive with files of one of the four forms."""
    if source in _OFFICIAL_MD5:
        return True
    path = Path(source)
    if path.is_dir():
        return _find_folder(path) is not None
    return is_archive(path) and _form_of(_base(n) for n in first_files(path, 3)) is not None


def open_source(source: str) -> Source:
    """Return CIFAR with its splits train and test; by name it is looked for here first, then downloaded."""
    path = Path(source)
    if source in _OFFICIAL_MD5:
        archive = next(form.archive for form in _FORMS if form.name == source)
        path = find_or_download(source, accepted_names(source), _OFFICIAL_URL + archive, archive, _OFFICIAL_MD5[source])
    if path.is_dir():
        found = _find_folder(path)
        if found is None:
            raise DataError(f"{path}: has none of CIFAR's files. Unpack the official archive again.")
        folder, form = found
        needed = [folder / name for name in (*form.train, *form.test, form.meta) if name]
        facts = [(p.name, *_facts(p)) for p in needed]
        signature = repr((str(folder.resolve()), facts))
        return Source(source, ("train", "test"), _folder_lister(folder, form), signature, _words(form))
    found_form = _form_of(_base(n) for n in first_files(path, 3))
    if found_form is None:
        raise DataError(f"{path}: has none of CIFAR's files. Fetch the official archive again.")
    signature = repr((str(path.resolve()), _facts(path)))
    return Source(source, ("train", "test"), _archive_lister(path, found_form), signature, _words(found_form))


def _words(form: _Form) -> str:
    return f"{form.name.upper().replace('CIFAR', 'CIFAR-')} in its {'binary' if form.binary else 'Python'} form"


def is_original(source: str) -> bool:
    """Return whether `source` is CIFAR-10 byte for byte as published: an archive whole, or a folder by its test_batch.

    The file test_batch.bin of an unpacked binary archive has no published digest: False.
    """
    path = (find(accepted_names(source)) if source == "cifar10" else None) or Path(source)
    if path.is_dir() and (found := _find_folder(path)) is not None:
        path = found[0] / "test_batch"
    if not path.is_file():
        return False
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return digest in (_OFFICIAL_MD5["cifar10"], _BINARY10_MD5, _TEST_BATCH_MD5)


def accepted_names(source: str) -> list[str]:
    """Return the folders and archives that cifar10 or cifar100 may lie in, in the order they are looked for."""
    forms = [form for form in _FORMS if form.name == source]
    return [form.folder for form in forms] + [form.archive for form in forms]


def _folder_lister(folder: Path, form: _Form) -> Callable[[str], Listing]:
    def read(names: Iterable[str]) -> dict[str, bytes]:
        return {name: read_file(str(folder / name)) for name in names if (folder / name).exists()}

    return lambda split: _list_split(form, split, read, str(folder))


def _archive_lister(path: Path, form: _Form) -> Callable[[str], Listing]:
    def read(names: Iterable[str]) -> dict[str, bytes]:
        wanted = set(names)
        members = {n for n in list_members(path)[0] if _base(n) in wanted}
        return {_base(name): data for name, data in read_members(path, members)}

    return lambda split: _list_split(form, split, read, str(path))


def _list_split(form: _Form, split: str, read: Callable[[Iterable[str]], dict[str, bytes]], where: str) -> Listing:
    names = form.train if split == "train" else form.test
    files = read([*names, form.meta] if form.meta else names)
    for name in (*names, form.meta):
        if name and name not in files:
            raise DataError(f"{where}: {name} is missing. Fetch the official archive again.")
    classes = CIFAR10_CLASSES if form.meta is None else _fine_names(form, files[form.meta], f"{where}: {form.meta}")
    rows, labels = [], []
    for name in names:
        batch = _read_binary if form.binary else _read_python
        some_rows, some_labels = batch(files.pop(name), form, f"{where}: {name}")
        if len(some_labels) and (some_labels.min() < 0 or some_labels.max() >= len(classes)):
            raise DataError(f"{where}: {name}: a label is outside 0..{len(classes) - 1}. Fetch the file again.")
        rows.append(some_rows)
        labels.append(some_labels)
    pixels = np.concatenate(rows).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    if not len(pixels):
        raise DataError(f"{where}: {split} has no images. Fetch the official archive again.")
    return list_pixels(pixels, np.concatenate(labels), classes, None, where)


def _read_python(data: bytes, form: _Form, where: str) -> tuple[np.ndarray, np.ndarray]:
    batch = load(data, where)
    rows = batch.get("data")
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != 3072:
        raise DataError(f"{where}: its 'data' is not uint8 (N, 3072). Fetch the file again.")
    found: Any = batch.get("labels" if form.name == "cifar10" else "fine_labels")
    if not isinstance(found, (list, np.ndarray)) or not all(isinstance(i, (int, np.integer)) for i in found):
        raise DataError(f"{where}: has no list of labels. Fetch the file again.")
    if len(found) != len(rows):
        raise DataError(f"{where}: {len(rows)} images and {len(found)} labels. Fetch the file again.")
    return rows, np.asarray([min(int(i), 2**31) for i in found], np.int64)


def _read_binary(data: bytes, form: _Form, where: str) -> tuple[np.ndarray, np.ndarray]:
    head = 1 if form.name == "cifar10" else 2  # CIFAR-100: coarse, then fine
    if len(data) % (head + 3072):
        raise DataError(f"{where}: {len(data)} bytes are no whole number of images. Fetch the file again.")
    table = np.frombuffer(data, np.uint8).reshape(-1, head + 3072)
    return table[:, head:], table[:, head - 1].astype(np.int64)


def _fine_names(form: _Form, data: bytes, where: str) -> tuple[str, ...]:
    if form.binary:
        names = data.decode("utf-8", "replace").split()
    else:
        found = load(data, where).get("fine_label_names")
        names = [n.decode("latin-1") if isinstance(n, bytes) else str(n) for n in found] if found else []
    if len(names) != 100:
        raise DataError(f"{where}: names {len(names)} classes, not 100. Fetch the file again.")
    return tuple(names)


def _find_folder(path: Path) -> tuple[Path, _Form] | None:
    """Return the folder that holds the files, `path` or an official name below it, and its form."""
    if (form := _form_of(p.name for p in path.iterdir() if p.is_file())) is not None:
        return path, form
    for form in _FORMS:
        if (path / form.folder).is_dir():
            return path / form.folder, form
    return None


def _form_of(names: Iterable[str]) -> _Form | None:
    """Return the form that files of these names belong to, if one of them says so without doubt."""
    have = set(names)
    for form in _FORMS:
        marks = {*form.train, *form.test, *([form.meta] if form.meta else [])}
        if form is _PYTHON10:
            marks.add("batches.meta")
        if form is _BINARY10:
            marks.add("batches.meta.txt")
        if form is _BINARY100:
            marks.add("coarse_label_names.txt")
        if have & marks:
            return form
    return None


def _facts(path: Path) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError:
        return (0, 0)  # missing: said when it is read
    return (stat.st_size, stat.st_mtime_ns)


def _base(name: str) -> str:
    return PurePosixPath(name).name
