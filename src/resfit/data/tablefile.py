"""One table's rows: CSV by whatever parts its columns, or JSON lines; errors name the file and the line.

CSV is RFC 4180 (Shafranovich 2005) with what spreadsheets make of it: semicolons or tabs, a byte-order mark, UTF-16, any line
end.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Entry:
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
    rows = _json_rows(text, file) if file.suffix.lower() == ".jsonl" else _csv_rows(text, file)
    entries = []
    for line, row in rows:
        where = f"{file}, line {line}"
        columns = {column: _value(row, words, where) for column, words in HEADERS.items()}
        for column in ("path", "label"):
            value = columns[column]
            if value is None:
                raise DataError(
                    f"{where}: has no {column}, only {', '.join(row) or 'nothing'}. Write {' or '.join(HEADERS[column][:3])}."
                )
            if not value:
                raise DataError(f"{where}: its {column} is empty. Write it, or remove the line.")
        entries.append(Entry(columns["path"] or "", columns["label"] or "", columns["split"] or "", where))
    if not entries:
        raise DataError(f"{file}: lists no images. Give a line an image: path,label.")
    return entries


def _value(row: dict[str, object], words: Sequence[str], where: str) -> str | None:
    """Return the text in the first of the columns that a row has, or None; raises DataError for what is no text or number."""
    for word in words:
        if word in row:
            value = row[word]
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if value is None:
                return ""
            if isinstance(value, bool) or not isinstance(value, (str, int)):
                raise DataError(
                    f"{where}: its {word} is {json.dumps(value)[:40]}, no text and no whole number. Write one."
                )
            return str(value).strip()
    return None


def _csv_rows(text: str, file: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield (line, {column: text}) for each row after the header; raises DataError where a row is not as long as that."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = _delimiter(first)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    header: list[str] = []
    start = 1
    try:
        for row in reader:
            line, start = start, reader.line_num + 1
            if not any(cell.strip() for cell in row):
                continue
            if not header:
                header = _check_header([cell.strip() for cell in row], file)
                continue
            while len(row) > len(header) and not row[-1].strip():
                row.pop()
            if len(row) != len(header):
                raise DataError(
                    f"{file}, line {line}: has {len(row)} columns and the header {len(header)}. Quote what holds a "
                    f"{'tab' if delimiter == chr(9) else delimiter!r}, or complete the line."
                )
            yield line, dict(zip((name.casefold() for name in header), row, strict=True))
    except csv.Error as error:
        raise DataError(f"{file}, line {start}: is no CSV ({error}). Close its quotes.") from error


def _check_header(header: list[str], file: Path) -> list[str]:
    """Return the header; raises DataError where there is none or it names no paths or labels."""
    names = [name.casefold() for name in header]
    if any(name.endswith(EXTENSIONS) for name in names):
        raise DataError(f"{file}: its first line is an image's and not a header. Write a line path,label before it.")
    for column in ("path", "label"):
        if not any(word in names for word in HEADERS[column]):
            words = " or ".join(HEADERS[column][:3])
            have = ", ".join(header)[:80]
            raise DataError(f"{file}: its header ({have}) names no {column}. Call that column {words}.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{file}: its header names {twice or 'an empty column'} twice. Rename one.")
    return header


def _delimiter(header: str) -> str:
    return max(_DELIMITERS, key=header.count)


def _split_header(line: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=_delimiter(line), skipinitialspace=True), [])]


def _json_rows(text: str, file: Path) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{file}, line {number}: is no JSON ({str(error).splitlines()[0]}). Write an object a line."
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f'{file}, line {number}: is no JSON object. Write one like {{"file_name": "a.jpg", "label": "cat"}}.'
            )
        yield number, {key.casefold(): value for key, value in row.items()}


def _decode(data: bytes, file: Path) -> str:
    """Return a table's text; raises DataError for what is neither UTF-8 nor, by its mark, UTF-16."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}, line {line}: is not UTF-8. Save the table as UTF-8.") from error
