"""Data as people have it, gone wrong: each is taken for what it is, or is one line, exit 4, and no traceback.

A case builds something below a folder and says what comes of it: `Right(classes, images)`, or words of the one line.
"""

import contextlib
import io
import json
import os
import socket
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from resfit.cli import main
from resfit.data.images import PixelRule
from resfit.data.sources import load_splits, open_source
from resfit.errors import DataError

RULE = PixelRule(8)
LONG = "n" * 251


class Right(NamedTuple):
    """classes in their order, and how many images train, val and test have together."""

    classes: tuple[str, ...] = ("ant", "bee")
    images: int = 10


class Case(NamedTuple):
    name: str
    build: Callable
    expected: Right | str
    inside: str = ""  # the source, below the folder that is built in


CASES: list[Case] = []


def case(expected, inside=""):
    def add(build):
        CASES.append(Case(build.__name__.strip("_").replace("_", " "), build, expected, inside))
        return build

    return add


def good(top, make, below=""):
    """Two classes of five images."""
    make.write_classes(top / below, {"ant": 5, "bee": 5})


def splits(top, make, *names):
    for number, name in enumerate(names):
        make.write_classes(top / name, {"ant": 5, "bee": 5}, 100 * number)


def image(make, seed=99):
    return make.encode(make.noise(seed))


# --- class folders ----------------------------------------------------------------------------------------------------


@case("no images in it")
def empty(top, make):
    pass


@case("no images in it")
def only_other_files(top, make):
    (top / "ant").mkdir()
    (top / "ant/notes.txt").write_text("x")


@case("lies outside any class folder")
def no_class(top, make):
    (top / "a.png").write_bytes(image(make))


@case("only one class folder (ant)")
def one_class(top, make):
    make.write_classes(top, {"ant": 5})


@case("class folder bee has no images")
def an_empty_class(top, make):
    make.write_classes(top, {"ant": 5})
    (top / "bee").mkdir()


@case("class folder cow has no images")
def a_class_of_hidden_images(top, make):
    good(top, make)
    (top / "cow").mkdir()
    (top / "cow/.1.png").write_bytes(image(make))


@case(Right())
def hidden_files(top, make):
    good(top, make)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "ant/.DS_Store", "ant/._000.png", "bee/Thumbs.db"):
        (top / name).write_bytes(b"x")


@case(Right())
def hidden_folders(top, make):
    good(top, make)
    for name in (".ipynb_checkpoints", ".git", "__MACOSX", "ant/.ipynb_checkpoints"):
        (top / name).mkdir()
        (top / name / "1.png").write_bytes(b"x")


@case(Right())
def a_folder_that_links_to_one_above(top, make):
    good(top, make)
    (top / "ant/again").symlink_to(top, target_is_directory=True)


@case("png: cannot be read: Too many levels")
def links_round_in_a_circle(top, make):
    good(top, make)
    (top / "ant/x.png").symlink_to(top / "ant/y.png")
    (top / "ant/y.png").symlink_to(top / "ant/x.png")


@case(Right(("ant", "bee", "cow"), 15))
def a_class_that_is_a_link(top, make):
    good(top, make)
    make.write_classes(top.parent / "elsewhere", {"cow": 5}, 500)
    (top / "cow").symlink_to(top.parent / "elsewhere/cow", target_is_directory=True)


@case("9.png: cannot be read: No such file")
def a_dead_link(top, make):
    good(top, make)
    (top / "ant/9.png").symlink_to(top / "nowhere")


@case(Right())
def a_class_that_is_a_dead_link(top, make):
    good(top, make)
    (top / "cow").symlink_to(top / "nowhere", target_is_directory=True)


@case(Right(images=12))
def one_image_in_two_classes(top, make):
    good(top, make)
    for name in ("ant", "bee"):
        (top / name / "same.png").write_bytes(image(make))


@case(Right(images=12))
def copies_and_hard_links_in_a_class(top, make):
    good(top, make)
    (top / "ant/copy.png").write_bytes((top / "ant/000.png").read_bytes())
    os.link(top / "ant/000.png", top / "ant/hard.png")


ODD = {
    "a newline": "a\nb",
    "control characters": "a\x1b[31m\x07b",
    "emoji": "🐜👩‍🔬",
    "quotes and semicolons": "a'b\"c;=d,e",
    "a name of 255 bytes": LONG,
    "a direction turned round": "a\u202egnp",
    "spaces at both ends": " a ",
    "not UTF-8": "a\udcff",
}


def _odd(word):
    def build(top, make):
        good(top, make)
        (top / "ant" / f"{word}.png").write_bytes(image(make))

    return build


CASES += [Case(f"a file named with {name}", _odd(word), Right(images=11)) for name, word in ODD.items()]


@case(Right(("a\nb", "ant", "bee"), 15))
def a_class_named_with_a_newline(top, make):
    good(top, make)
    make.write_classes(top, {"a\nb": 5}, 500)


@case("its name is no UTF-8")
def a_class_whose_name_is_not_utf_8(top, make):
    good(top, make)
    make.write_classes(top, {"a\udcff": 5}, 500)


@case(Right(("Ant", "ant", "bee"), 15))
def classes_that_differ_by_case(top, make):
    good(top, make)
    make.write_classes(top, {"Ant": 5}, 500)


@case(Right(("ant", "ant ", "bee"), 15))
def classes_that_differ_by_a_space(top, make):
    good(top, make)
    make.write_classes(top, {"ant ": 5}, 500)


@case(Right(("1", "10", "2"), 15))
def classes_of_numbers(top, make):
    make.write_classes(top, {"1": 5, "2": 5, "10": 5})


@case(Right(images=11))
def forty_folders_deep(top, make):
    good(top, make)
    deep = top / "ant" / "/".join("d" * 40)
    deep.mkdir(parents=True)
    (deep / "1.png").write_bytes(image(make))


@case("000.png: the file is empty")
def an_empty_image(top, make):
    good(top, make)
    (top / "ant/000.png").write_bytes(b"")


@case("000.jpg: cannot be decoded (not an image of a known format)")
def a_text_called_jpg(top, make):
    good(top, make)
    (top / "bee/000.jpg").write_text("no image at all")


@case("cannot be decoded (a web page, not an image")
def a_web_page_called_jpg(top, make):
    good(top, make)
    (top / "bee/000.jpg").write_text("<!DOCTYPE html><html>404")


@case(Right())
def other_files_among_the_images(top, make):
    good(top, make)
    for name in ("readme.md", "ant/labels.txt", "bee/a.xml", "bee/video.mp4"):
        (top / name).write_text("x")


@case("no image that can be read; passed over, since they are not read: 2 .heic, 1 .svg. Save them as JPEG")
def only_images_that_are_not_read(top, make):
    for name in ("ant/1.heic", "ant/2.HEIC", "bee/1.svg"):
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).write_bytes(b"x")


@case(Right(images=11))
def a_class_in_a_class(top, make):
    good(top, make)
    (top / "ant/small").mkdir()
    (top / "ant/small/1.png").write_bytes(image(make))


@case("loose.png lies outside any class folder")
def images_beside_class_folders(top, make):
    good(top, make)
    (top / "loose.png").write_bytes(image(make))


@case("train/loose.png lies outside any class folder")
def images_beside_class_folders_in_a_split(top, make):
    splits(top, make, "train", "test")
    (top / "train/loose.png").write_bytes(image(make))


@case("test, train have images and no class folders in them")
def splits_without_classes(top, make):
    for name in ("train/1.png", "train/2.png", "test/1.png"):
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).write_bytes(image(make))


@case("brings no train split")
def only_test(top, make):
    splits(top, make, "test")


@case("brings no train split")
def train_is_a_text(top, make):
    splits(top, make, "test")
    (top / "train.txt").write_text("x")


@case("meta is missing. Fetch the official archive again")
def a_file_called_train_as_in_cifar_100(top, make):
    splits(top, make, "test")
    (top / "train").write_text("x")


@case("test has a class 'dog' that the other splits have not")
def a_class_in_test_alone(top, make):
    splits(top, make, "train", "test")
    make.write_classes(top / "test", {"dog": 2})


@case("test has no class folder 'bee'")
def a_class_that_test_lacks(top, make):
    splits(top, make, "train", "test")
    for path in (top / "test/bee").iterdir():
        path.unlink()
    (top / "test/bee").rmdir()


@case("that the other splits have not. Did you mean 'ant'? Rename it.")
def classes_spelt_otherwise_in_val(top, make):
    splits(top, make, "train", "val")
    (top / "val/ant").rename(top / "val/ants")


@case("brings val twice")
def val_and_valid(top, make):
    splits(top, make, "train", "val", "valid")


@case("val has no class folder 'ant'")
def an_empty_split(top, make):
    splits(top, make, "train", "test")
    (top / "val").mkdir()


@case("extra stands beside train and is none of the splits")
def a_folder_beside_the_splits(top, make):
    splits(top, make, "train", "extra")


@case("have the same folders inside, as splits do")
def splits_of_other_names(top, make):
    splits(top, make, "fold1", "fold2")


@case(Right(images=30))
def splits_in_capitals(top, make):
    splits(top, make, "Train", "VALID", "Test")


@case(Right(images=30))
def dev_and_testing(top, make):
    splits(top, make, "training", "dev", "testing")


@case(Right(images=20))
def eval_for_val(top, make):
    splits(top, make, "train", "Eval")


@case("only one class folder (set)")
def a_folder_in_a_folder(top, make):
    good(top, make, "set")


@case(Right(images=11))
def a_folder_called_like_an_image(top, make):
    good(top, make)
    (top / "ant/more.png").mkdir()
    (top / "ant/more.png/1.png").write_bytes(image(make))


@case("pipe.png: the file is empty")
def a_pipe(top, make):
    good(top, make)
    os.mkfifo(top / "ant/pipe.png")


@case("socket.png: cannot be read")
def a_socket(top, make):
    good(top, make)
    before = os.getcwd()
    os.chdir(top / "ant")  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind("socket.png")
    finally:
        os.chdir(before)


@case("null.png: the file is empty")
def a_device(top, make):
    good(top, make)
    (top / "ant/null.png").symlink_to("/dev/null")


@case("class 'ant' has 1 distinct images, too few")
def one_image_a_class(top, make):
    make.write_classes(top, {"ant": 1, "bee": 1})


@case("class 'bee' has 1 distinct images, too few to hold some out")
def one_image_of_a_class_to_train_on(top, make):
    splits(top, make, "train", "test")
    for path in sorted((top / "train/bee").iterdir())[1:]:
        path.unlink()


@case("class 'bee' has 1 distinct images, too few")
def one_image_many_times(top, make):
    make.write_classes(top, {"ant": 5})
    (top / "bee").mkdir()
    for i in range(5):
        (top / f"bee/{i}.png").write_bytes(image(make))


@case("neither a path that exists nor a known name", "nowhere")
def nothing_there(top, make):
    pass


@case("not a layout that is understood", "report.docx")
def a_file_of_another_kind(top, make):
    (top / "report.docx").write_bytes(b"PK")


@case("not a layout that is understood", "photo.png")
def a_single_image(top, make):
    (top / "photo.png").write_bytes(image(make))


@case("not a layout that is understood", "set.tar")
def a_pipe_called_tar(top, make):
    os.mkfifo(top / "set.tar")


# --- archives ---------------------------------------------------------------------------------------------------------


def members(make, below=""):
    return {f"{below}{c}/{i}.png": image(make, 50 * n + i) for n, c in enumerate(("ant", "bee")) for i in range(5)}


def zip_of(path, files):
    with zipfile.ZipFile(path, "w") as zipped:
        for name, data in files if isinstance(files, list) else files.items():
            zipped.writestr(name, data)


@case("damaged or truncated archive", "set.tar.gz")
def a_tar_cut_off(top, make):
    whole = make.tar_of(top / "set.tar.gz", members(make)).read_bytes()
    (top / "set.tar.gz").write_bytes(whole[: len(whole) // 2])


@case("damaged or truncated archive", "set.tar")
def an_empty_file_called_tar(top, make):
    (top / "set.tar").write_bytes(b"")


@case("damaged or truncated archive", "set.zip")
def a_text_called_zip(top, make):
    (top / "set.zip").write_text("not found")


@case("no images in it", "set.tar")
def a_tar_of_nothing(top, make):
    make.tar_of(top / "set.tar", {}, "w")


@case("no images in it", "set.tar")
def an_archive_in_an_archive(top, make):
    inner = make.tar_of(top / "inner.tar", members(make), "w").read_bytes()
    make.tar_of(top / "set.tar", {"inner.tar": inner}, "w")


@case(Right(), "set.zip")
def a_zip_with_paths_that_lead_out(top, make):
    zip_of(top / "set.zip", members(make) | {"../a/up.png": b"x", "/b/abs.png": b"x", "ant/../../c/up.png": b"x"})


@case(Right(), "set.tar")
def a_tar_with_links_and_devices(top, make):
    make.tar_of(top / "set.tar", members(make), "w")
    with tarfile.open(top / "set.tar", "a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"ant/{kind.hex()}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)


@case(Right(), "set.zip")
def a_zip_with_a_name_twice(top, make):
    files = members(make)
    with pytest.warns(UserWarning, match="Duplicate name"):
        zip_of(top / "set.zip", [*files.items(), ("ant/0.png", image(make))])


@case(Right(), "set.tar.bz2")
def a_tar_with_a_name_twice(top, make):
    make.tar_of(top / "set.tar.bz2", members(make), "w:bz2")
    with tarfile.open(top / "plain.tar", "w") as tar:
        for name, data in [*members(make).items(), ("ant/0.png", image(make))]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (top / "plain.tar").rename(top / "set.tar.bz2")  # its name is not what it is, either


@case("without a password", "set.zip")
def a_zip_with_a_password(top, make):
    zip_of(top / "set.zip", members(make))
    data = bytearray((top / "set.zip").read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        while (place := data.find(mark, place + 1)) >= 0:
            data[place + at] |= 1
    (top / "set.zip").write_bytes(data)


@case(Right(), "set.zip")
def a_zip_from_windows(top, make):
    files = {f"set\\{name.replace('/', chr(92))}": data for name, data in members(make).items()}
    zip_of(top / "set.zip", {"set\\ant\\": b""} | files)


@case(Right(), "set.tgz")
def a_tgz_wrapped_in_a_folder_with_hidden_files(top, make):
    make.tar_of(top / "set.tgz", {"./set/.DS_Store": b"x", "set/ant/._0.png": b"x"} | members(make, "set/"))


@case(Right(images=20), "set.tar.xz")
def a_tar_xz_of_splits_in_capitals(top, make):
    files = members(make, "Train/") | {f"Test/{n}": image(make, 900 + i) for i, n in enumerate(members(make))}
    make.tar_of(top / "set.tar.xz", files, "w:xz")


@case("brings no train split", "set.tar")
def a_tar_with_test_alone(top, make):
    make.tar_of(top / "set.tar", members(make, "Test/"), "w")


@case(Right(images=11), "set.tar")
def a_tar_with_names_of_three_hundred_bytes_and_newlines(top, make):
    make.tar_of(top / "set.tar", members(make) | {f"ant/{'x' * 300}\n\x1b.png": image(make)}, "w")


@case("its name is no UTF-8", "set.tar")
def a_tar_with_a_class_that_is_not_utf_8(top, make):
    make.tar_of(top / "set.tar", members(make) | {"a\udcff/1.png": image(make)}, "w")


@case("set.tar:ant/0.png: cannot be decoded", "set.tar")
def a_tar_with_a_broken_image(top, make):
    make.tar_of(top / "set.tar", members(make) | {"ant/0.png": b"broken"}, "w")


# --- tables -----------------------------------------------------------------------------------------------------------

ROWS = [(f"{c}/{i:03}.png", c) for c in ("ant", "bee") for i in range(5)]


def text_of(rows, header="path,label"):
    return "\n".join([header, *map(",".join, rows)]) + "\n"


TABLES = {
    "a table without a header": (text_of(ROWS[1:], "ant/000.png,ant"), "is an image's and not a header"),
    "a table without labels": (text_of(ROWS, "path,what"), "its header (path, what) names no label"),
    "a table without paths": (text_of(ROWS, "where,label"), "names no path"),
    "a table with a column twice": (text_of([(*r, "x") for r in ROWS], "path,label,label"), "names label twice"),
    "a missing file": (text_of([*ROWS, ("ant/9.png", "ant")]), "t.csv, line 12: "),
    "a folder listed": (text_of([*ROWS, ("ant", "ant")]), "ant: is not a file"),
    "a path that leads out": (text_of([*ROWS, ("../x.png", "ant")]), "line 12: ../x.png leads out of"),
    "a path that leads out later": (text_of([*ROWS, ("ant/../../x.png", "ant")]), "line 12: ant/../../x.png leads out"),
    "an absolute path": (text_of([*ROWS, ("/etc/passwd", "ant")]), "line 12: /etc/passwd is an absolute path"),
    "a path of a drive": (text_of([*ROWS, ("C:\\x.png", "ant")]), "line 12: C:\\x.png is an absolute path"),
    "a path with a zero": (text_of([*ROWS, ("a\0.png", "ant")]), "line 12: "),
    "a row twice": (text_of([*ROWS, ROWS[3]]), "line 12: ant/003.png is listed in "),
    "a row twice by another name": (
        text_of([*ROWS, ("./bee/../ant//003.png", "ant")]),
        "line 12: ant/003.png is listed",
    ),
    "two labels for a file": (
        text_of([*ROWS, (ROWS[3][0], "bee")]),
        "line 12: ant/003.png is 'bee' here and 'ant' in ",
    ),
    "a file in train and test": (
        text_of([*((*r, "train") for r in ROWS), (*ROWS[3], "test")], "path,label,split"),
        "line 12: ant/003.png is listed in ",
    ),
    "an empty label": (text_of([*ROWS[:3], ("ant/003.png", " ")]), "line 5: its label is empty"),
    "an empty path": (text_of([*ROWS[:3], ("", "ant")]), "line 5: its path is empty"),
    "an unknown split": (text_of([(*r, "fold1") for r in ROWS], "path,label,split"), "line 2: its split 'fold1'"),
    "splits for some": (
        text_of([(*r, "train" if i else "") for i, r in enumerate(ROWS)], "path,label,split"),
        "line 2: says no split, and other lines do",
    ),
    "a label of test alone": (
        text_of([*((*r, "train") for r in ROWS[:9]), ("bee/004.png", "bees", "test")], "path,label,split"),
        "line 11: class 'bees' is none of train. Did you mean 'bee'?",
    ),
    "a table of test alone": (text_of([(*r, "test") for r in ROWS], "path,label,split"), "brings no train split"),
    "a table of one class": (text_of(ROWS[:5]), "only one class (ant)"),
    "an open quote": (text_of([*ROWS, ('"ant/000.png', "ant")]), "line 12: is no CSV (unexpected end of data)"),
    "a column too few": (text_of([*ROWS[:4], ("ant/004.png",)]), "line 6: has 1 columns and the header 2"),
    "a comma in a name": (text_of([*ROWS[:4], ("ant/a,b.png", "ant")]), "line 6: has 3 columns and the header 2"),
    "an empty table": ("", "lists no images"),
    "a header alone": ("path,label\n", "lists no images"),
    "a table that is not UTF-8": (text_of(ROWS).encode() + b"ant/\xe9.png,ant\n", "line 12: is not UTF-8"),
    "an image called csv": (b"\x89PNG\r\n\x1a\n\xff\xff", "is not UTF-8"),
    "a cell of a megabyte": (text_of([*ROWS, ("x" * 2**20, "ant")]), "line 12: is no CSV (field larger"),
}
JSON = [json.dumps({"file_name": path, "label": label}) for path, label in ROWS]
LINES = {
    "a broken line of JSON": (['{"file_name": "ant/'], "t.jsonl, line 11: is no JSON"),
    "a list as a line of JSON": (["[1, 2]"], "line 11: is no JSON object"),
    "a line of JSON without a label": (['{"file_name": "ant/000.png"}'], "line 11: has no label, only file_name"),
    "a label that is a list": (['{"file_name": "a", "label": [1]}'], "line 11: its label is [1], no text"),
    "a label that is a fraction": (['{"file_name": "a", "label": 0.5}'], "line 11: its label is 0.5, no text"),
    "a label that is null": (['{"file_name": "a", "label": null}'], "line 11: its label is empty"),
    "brackets without end": (["[" * 10**5], "line 11: is no JSON"),
}


def _table(text, name):
    def build(top, make):
        good(top, make)
        (top / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    return build


CASES += [Case(name, _table(text, "t.csv"), words, "t.csv") for name, (text, words) in TABLES.items()]
CASES += [
    Case(name, _table("\n".join([*JSON, *more]), "t.jsonl"), words, "t.jsonl") for name, (more, words) in LINES.items()
]


@case("metadata.csv: its header (file_name, text) names no label")
def captions_and_no_labels(top, make):
    (top / "1.png").write_bytes(image(make))
    (top / "metadata.csv").write_text("file_name,text\n1.png,an ant\n")


@case("labels.csv and metadata.csv list images. Give the one that is meant")
def two_tables(top, make):
    good(top, make)
    for name in ("labels.csv", "metadata.csv"):
        (top / name).write_text(text_of(ROWS))


@case("ant/000.png: cannot be decoded", "labels.csv")
def a_listed_file_that_is_no_image(top, make):
    good(top, make)
    (top / "ant/000.png").write_text("no image")
    (top / "labels.csv").write_text(text_of(ROWS))


@case("bee/000.png: Too many levels of symbolic links", "labels.csv")
def a_listed_link_in_a_circle(top, make):
    good(top, make)
    (top / "bee/000.png").unlink()
    (top / "bee/000.png").symlink_to(top / "bee/000.png")
    (top / "labels.csv").write_text(text_of(ROWS))


@case(Right(images=8))
def a_table_of_some_of_the_images(top, make):
    good(top, make)
    words = ("train", "train", "train", "test") * 2
    rows = [(*row, word) for row, word in zip(ROWS[1:9], words, strict=True)]
    (top / "labels.csv").write_text(text_of(rows, "path,label,split"))


# --- parquet ----------------------------------------------------------------------------------------------------------


def _parquet(columns=None, names=("ant", "bee"), drop=(), rows=10, change=None, name="set.parquet"):
    """Return a builder of one .parquet file: images and labels, `columns` replaced and `drop` left out."""

    def build(top, make):
        import pyarrow as pa
        import pyarrow.parquet as pq

        found = {
            "image": [{"bytes": image(make, i), "path": None} for i in range(rows)],
            "label": [i % 2 for i in range(rows)],
        }
        found = {k: v for k, v in (found | (columns or {})).items() if k not in drop}
        info = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        made = pa.table(found).replace_schema_metadata({"huggingface": json.dumps(info)} if names else None)
        pq.write_table(made, top / name)
        if change is not None:
            (top / name).write_bytes(change((top / name).read_bytes()))

    return build


BYTES = [b"x%d" % i for i in range(10)]
PARQUET = {
    "parquet without labels": (_parquet(drop=["label"]), "has no column of labels, only image"),
    "parquet without images": (_parquet(drop=["image"]), "has no column of images, only label"),
    "parquet of one class": (_parquet({"label": [3] * 10}, None), "only one class (3)"),
    "parquet without names of classes": (_parquet({"label": [3, 12] * 5}, None), Right(("3", "12"))),
    "parquet with a label of none": (_parquet({"label": [-1] + [0, 1] * 4 + [0]}), "row 0: its label -1 is no class"),
    "parquet with a label beyond its names": (
        _parquet({"label": [0, 1] * 4 + [1, 2]}),
        "row 9: its label 2 is no class",
    ),
    "parquet with a row without a label": (_parquet({"label": [None, *[0, 1] * 4, 0]}), "row 0 has no label"),
    "parquet with fractions for labels": (_parquet({"label": [0.5] * 10}), "its column label is double"),
    "parquet with lists for labels": (_parquet({"label": [[1]] * 10}), "its column label is list"),
    "parquet with addresses for images": (
        _parquet({"image": ["https://a.b/c.png"] * 10}),
        "is string, not encoded images",
    ),
    "parquet with pixels for images": (_parquet({"image": [[0, 1]] * 10}), "not encoded images"),
    "parquet with paths for images": (
        _parquet({"image": [{"bytes": None, "path": "x.png"}] * 10}),
        "not encoded images",
    ),
    "parquet with a path for an image": (
        _parquet({"image": [{"bytes": b"x", "path": "x.png"}] * 9 + [{"bytes": None, "path": "x.png"}]}),
        "row 9 has no image in it",
    ),
    "parquet with broken images": (_parquet({"image": BYTES}), "cannot be decoded (not an image"),
    "parquet without rows": (_parquet(rows=0), "not encoded images"),
    "parquet cut off": (_parquet(change=lambda data: data[:-100]), "cannot be read"),
    "parquet overwritten within": (_parquet(change=lambda data: data[:40] + bytes(400) + data[440:]), "cannot be read"),
    "an empty file called parquet": (_parquet(change=lambda data: b""), "cannot be read"),
    "a text called parquet": (_parquet(change=lambda data: b"no parquet" * 9), "cannot be read"),
    "parquet of other columns beside it": (
        lambda top, make: (_parquet()(top, make), _parquet(names=("a", "b"), name="two.parquet")(top, make)),
        "two.parquet: has other columns or classes than",
    ),
    "parquet with a part missing": (
        _parquet(name="train-00000-of-00002.parquet"),
        "train-00001-of-00002.parquet: is missing",
    ),
    "parquet of which a part names no split": (
        lambda top, make: [_parquet(name=name)(top, make) for name in ("train.parquet", "rest.parquet")],
        "rest.parquet names no split, and other files do",
    ),
    "two data sets of parquet": (
        lambda top, make: [(top / n).mkdir() or _parquet()(top / n, make) for n in ("fine", "coarse")],
        "more than one folder has .parquet files (coarse, fine)",
    ),
    "parquet of test alone": (_parquet(name="test.parquet"), "brings no train split"),
    "parquet with metadata that is no JSON": (_parquet(names=()), Right(("0", "1"))),
}
CASES += [Case(name, build, expected) for name, (build, expected) in PARQUET.items()]


# --- the test ---------------------------------------------------------------------------------------------------------


def outcome(source, capsys) -> Right | str:
    """Return what becomes of a source: `data prepare`, and then the splits as training takes them."""
    code = main(["data", "prepare", str(source), "--image-size", "8"])
    printed = capsys.readouterr()
    if code == 0:
        with contextlib.suppress(DataError):
            train = load_splits(source, ("train", "val"), RULE)[0]
            opened = open_source(source)
            return Right(train.class_names, sum(opened.list_split(split).count for split in opened.splits))
        code = main(["train", "digits", "--data", str(source), "--device", "cpu"])
        printed = capsys.readouterr()
    said = printed.err.splitlines()
    assert code == 4, printed
    assert len(said) == 1, said
    assert said[0].startswith("resfit: ")
    assert ". " in said[0]
    assert said[0].endswith((".", ")"))
    return said[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_is_right_or_one_line(case, tmp_path, make, capsys):
    top = tmp_path / "set"
    top.mkdir()
    if "parquet" in case.name:
        pytest.importorskip("pyarrow")
    case.build(top, make)
    found = outcome(top / case.inside, capsys)
    if isinstance(case.expected, Right):
        assert found == case.expected
    else:
        assert isinstance(found, str)
        assert case.expected in found
        assert str(top) in found


def test_there_are_sixty_and_all_differ():
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions")
@pytest.mark.parametrize("what", ["set/bee", "set/bee/000.png", "set", "set/labels.csv"])
def test_what_may_not_be_read(what, make, monkeypatch, capsys):
    """Root may read everything: rights are given up while it is read."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to others
        top = Path(folder)
        good(top / "set", make)
        if what.endswith("csv"):
            (top / "set/labels.csv").write_text(text_of(ROWS))
        (top / "cache").mkdir()
        monkeypatch.setenv("RESFIT_CACHE", str(top / "cache"))
        for path in (top, top / "cache"):
            path.chmod(0o777)
        (top / what).chmod(0)
        root = os.geteuid() == 0
        try:
            if root:
                os.seteuid(65534)
            found = outcome(top / (what if what.endswith("csv") else "set"), capsys)
        finally:
            if root:
                os.seteuid(0)
            (top / what).chmod(0o700)
        assert isinstance(found, str)
        assert "cannot be read: Permission denied" in found
        assert str(top / what) in found
