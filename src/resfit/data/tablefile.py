"""One table's rows: CSV by whatever parts its columns, or JSON lines; errors name the file and the line.

CSV is RFC 4180 (Shafranovich 2005) with what spreadsheets make of it: semicolons or tabs, a byte-order mark, UTF-16, any line
end.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from resfit.data.formats import EXTENSIONS
from resfit.data.keys import read_file
from resfit.errors import DataError

ENDINGS = (".csv", ".tsv", ".jsonl")
HEADERS = {  # what the columns are called, the first that is there counts
    "path": ("path", "file_name", "filename", "file", "filepath", "file_path", "image", "image_path", "image_id", "id"),
    "label": ("label", "labels", "class", "class_name", "target", "category"),
    "split": ("split", "subset", "set", "partition"),
}
_DELIMITERS = (",", ";", "\t", "|")


class Entry(NamedTuple):
    """A line of a table: path and label as written, split ("" for none), and "FILE, line N"."""

    path: str
    label: str
    split: str
    where: str


def read_header(file: Path) -> list[str]:
    """Return the columns' names as written; of JSON lines the keys of the first; none of a file that cannot be read."""
    try:
        with file.open("rb") as opened:
            start = opened.read(2**16)
        lines = _decode(start.rpartition(b"\n")[0] or start, file).splitlines()  # a cut letter would be no UTF-8
        first = next((line for line in lines if line.strip()), "")
        if file.suffix.lower() == ".jsonl":
            found = json.loads(first)
            return list(found) if isinstance(found, dict) else []
        return _split_header(first)
    except (OSError, ValueError, DataError, csv.Error, RecursionError):
        return []


def read_table(file: Path) -> list[Entry]:
    """Return the lines of a table that has a path and a label in each, one at least; raises DataError."""
    text = _decode(read_file(str(file)), file)
    entries = list(_json_entries(text, file) if file.suffix.lower() == ".jsonl" else _csv_entries(text, file))
    for entry in entries:
        if not entry.path or not entry.label:
            column = "label" if entry.path else "path"
            raise DataError(f"{entry.where}: its {column} is empty. Write it, or remove the line.")
    if not entries:
        raise DataError(f"{file}: lists no images. Give a line an image: path,label.")
    return entries


def _csv_entries(text: str, file: Path) -> Iterator[Entry]:
    """Yield the rows after the header; raises DataError where one is not as long as that."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = _delimiter(first)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    width, places, start = 0, dict[str, int](), 1
    try:
        for row in reader:
            where, start = f"{file}, line {start}", reader.line_num + 1
            if not any(row) or not any(cell.strip() for cell in row):
                continue
            if not width:
                width, places = len(row), _check_header([cell.strip() for cell in row], file)
                continue
            while len(row) > width and not row[-1].strip():
                row.pop()
            if len(row) != width:
                mark = "tab" if delimiter == "\t" else repr(delimiter)
                raise DataError(
                    f"{where}: has {len(row)} columns and the header {width}. Quote what holds a {mark}, or complete the line."
                )
            split = row[places["split"]].strip() if "split" in places else ""
            yield Entry(row[places["path"]].strip(), row[places["label"]].strip(), split, where)
    except csv.Error as error:
        raise DataError(f"{file}, line {start}: is no CSV ({error}). Close its quotes.") from error


def _check_header(header: list[str], file: Path) -> dict[str, int]:
    """Return where path, label and split are; raises DataError where there is no header or it names no paths or labels."""
    names = [name.casefold() for name in header]
    if any(name.endswith(EXTENSIONS) for name in names):
        raise DataError(f"{file}: its first line is an image's and not a header. Write a line path,label before it.")
    places = {}
    for column, known in HEADERS.items():
        word = next((word for word in known if word in names), None)
        if word is not None:
            places[column] = names.index(word)
        elif column != "split":
            have = ", ".join(header)[:80]
            words = " or ".join(known[:3])
            raise DataError(f"{file}: its header ({have}) names no {column}. Call that column {words}.")
        if word is not None and names.count(word) > 1:
            raise DataError(f"{file}: its header names {word} twice. Rename one.")
    return places


def _delimiter(header: str) -> str:
    return max(_DELIMITERS, key=header.count)


def _split_header(line: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=_delimiter(line), skipinitialspace=True), [])]


def _json_entries(text: str, file: Path) -> Iterator[Entry]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: is no JSON ({str(error).splitlines()[0]}). Write an object a line.") from error
        if not isinstance(row, dict):
            raise DataError(f'{where}: is no JSON object. Write one like {{"file_name": "a.jpg", "label": "cat"}}.')
        row = {key.casefold(): value for key, value in row.items()}
        path, label, split = (_value(row, column, where) for column in HEADERS)
        yield Entry(path, label, split, where)


def _value(row: dict[str, object], column: str, where: str) -> str:
    """Return what a line of JSON has under a column's names as text, "" for no split; raises DataError where it is none."""
    word = next((word for word in HEADERS[column] if word in row), None)
    if word is None and column == "split":
        return ""
    if word is None:
        words = " or ".join(HEADERS[column][:3])
        raise DataError(f"{where}: has no {column}, only {', '.join(row) or 'nothing'}. Write {words}.")
    value = row[word]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, type(None))):
        raise DataError(f"{where}: its {word} is {json.dumps(value)[:40]}, no text and no whole number. Write one.")
    return "" if value is None else str(value).strip()


def _decode(data: bytes, file: Path) -> str:
    """Return a table's text; raises DataError for what is neither UTF-8 nor, by its mark, UTF-16."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}, line {line}: is not UTF-8. Save the table as UTF-8.") from error
