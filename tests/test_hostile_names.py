"""Names of files, classes and folders that would act on a terminal, a spreadsheet or another reader do not get through."""

import contextlib
import csv
import io
import json
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from resfit.cli import main
from resfit.escaping import csv_text, visible
from resfit.runs import Run

CLASSES = (
    "=cmd|' C calc'!A0",
    "<img src=x onerror=alert(1)>",
    "a\x1b]0;owned\x07\n\rb",
    "\u202egpj.exe\u2066 #\x9b31m",
)
FILES = ("-1+1;=2.png", "\x1b[2J\u2028.png", "\udcff\udcfe.png", "new\nresfit: all is well.png", "@SUM(1).png")


def photos(folder, images, names):
    for name, pixels in zip(names, images, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name, format="PNG")
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, digit_arrays, tiny_recipe):
    """A pool of classes, files and a run folder with such names, trained on by the real verb; its output and the run."""
    top = tmp_path_factory.mktemp("hostile")
    images, _ = digit_arrays
    names = [f"{CLASSES[i % 4]}/{i}{FILES[i // 4 % 5]}" for i in range(160)]
    data = photos(top / "data\x1b[31m\n=x", images[:160], names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESFIT_CACHE", str(top / "cache"))
        patch.setenv("RESFIT_STATE", str(top / "state"))
        folder, said = top / "runs\n\u202e" / "=1\x07", io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            words = ["train", tiny_recipe, "--data", data, "--out", folder, "--set", "train.epochs=1"]
            assert main([*map(str, words), "--set", "schedule.warmup_epochs=0"]) == 0
        yield top, data, folder, said.getvalue()


def plain(text):
    """Return what people are shown, once nothing in it acts: no control character but the newline, none that turns text."""
    for character in text:
        assert character == "\n" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"), text
    text.encode()
    return text


def test_no_verb_lets_a_name_act(hostile, capfd, tmp_path, tiny_recipe, need):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        need(package)
    top, data, folder, said = hostile
    assert "epoch 1/1" in plain(said)
    verbs = [
        ("data", "info", data, "--image-size", 16),
        ("data", "check", data),
        ("resume", folder),
        ("evaluate", folder),
        ("test", folder),
        ("test", folder),
        ("predict", folder, data, "-o", tmp_path / "out\x1b.csv"),
        ("predict", folder, data, "--names"),
        ("curves", folder, "-o", tmp_path / "=\x1b.svg"),
        ("export", folder),
        ("train", tiny_recipe, "--data", data, "--out", folder),  # mistakes: the folder is taken
        ("evaluate", folder, "--data", top / "no\x1b\nwhere"),
        ("predict", folder, top / "no\udcff\x1b\nwhere"),
        ("\x1b[2J",),
        ("cost", "\x1b[2J"),
        ("list", "--\u202e"),
    ]
    shown = {}
    for number, words in enumerate(verbs):
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        assert (code == 0) == (number < 10), (words, err)
        shown[" ".join(map(str, words[:2]))] = plain(out) + plain(err)
        assert "resfit: all is well" not in (out + err).split("\n"), "a name made a line of its own"
    table = shown[f"test {folder}"].split("\n")
    for name in CLASSES:
        assert sum(line.startswith(f"{visible(name)} ") for line in table) == 1


def test_json_of_every_verb_is_read_by_others(hostile, capfd):
    _, data, folder, _ = hostile
    for words in (("data", "info", data), ("data", "check", data), ("evaluate", folder), ("predict", folder, data)):
        main([*map(str, words), "--json"])
        out, err = capfd.readouterr()
        plain(out), plain(err)
        assert out.isascii()
        assert "\\udc" not in out.replace("\\\\u", "")  # no half of a pair
        value = json.loads(out)
    names = [row["ID"] for row in value["predictions"]]
    assert sum("\\xff\\xfe.png" in name for name in names) == 32
    assert sum("\x1b[2J\u2028.png" in name for name in names) == 32  # JSON holds these as they are


def test_a_csv_holds_no_formula_and_nothing_that_acts(hostile, capfd, monkeypatch):
    _, data, folder, _ = hostile
    monkeypatch.chdir(data)
    main(["predict", str(folder), *sorted(os.listdir()), "--names"])
    out, _ = capfd.readouterr()
    rows = list(csv.reader(io.StringIO(plain(out))))
    assert rows[0] == ["ID", "Labels"]
    assert len(rows) == 161
    for cell in (cell for row in rows for cell in row):
        assert cell[0] not in "=+-@\t\r"
    assert {row[1] for row in rows[1:]} <= {"'" + CLASSES[0], CLASSES[1], visible(CLASSES[2]), visible(CLASSES[3])}
    semicolons = [line for line in out.split("\n") if ";" in line]
    assert all(line.startswith('"') for line in semicolons)  # one cell, also where semicolons part cells
    split = (Run(folder).folder / "split.csv").read_text()
    assert len(plain(split).split("\n")) == 162
    assert all(cell[0] not in "=+-@\t\r" for row in csv.reader(io.StringIO(split)) for cell in row)


def test_cells_that_are_not_dangerous_stay_as_they_are():
    kept = (
        "7",
        "-7",
        "+1.5e-3",
        "a=b",
        "photos/1.jpg",
        "日本　語.png",
        "Bild 9.00\u202fAM.png",
        "a,b",
        'q"q',
        "",
        "é",
        "1-1",
        "٣",
    )
    wanted = io.StringIO()
    csv.writer(wanted, lineterminator="\n").writerow(kept)
    assert csv_text([kept]) == wanted.getvalue()
    for cell in ("=1", "+a", "-1+1", "--1", "@x", " =1", "\uff1d1", "\u00a0=1", "-\u0663"):
        assert csv_text([[cell]]) == f"'{visible(cell)}\n"
    assert csv_text([["\t=1"], ["\r=1"], ["a\nb"]]) == "\\x09=1\n\\x0d=1\na\\x0ab\n"
    assert csv_text([["a;=1", 3]]) == '"a;=1","3"\n'


@pytest.mark.parametrize(
    "name", ["👩\u200d👩\u200d👧.png", "می\u200cخواهم", "日本　語", "e\u0301", "שלום", "C:\\temp", "\U000f0000"]
)
def test_the_worlds_names_stay_as_they_are(name):
    assert visible(name) == name


def test_every_character_that_acts_is_spelt_out():
    acting = [chr(code) for code in [*range(32), *range(127, 160), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F)]]
    acting += [chr(code) for code in [*range(0x2066, 0x206A), 0xFEFF, 0xD800, 0xDCFF, 0xE0041]]
    for character in acting:
        assert visible(character).isascii()
        assert visible(character).isprintable()
    assert visible("a\x1b[2Jb\n\u202e\udcff\U000e0041") == "a\\x1b[2Jb\\x0a\\u202e\\xff\\U000e0041"


def test_a_class_whose_name_is_no_utf8_is_refused_in_one_line(tmp_path, digit_arrays, capfd):
    images, _ = digit_arrays
    photos(tmp_path / "data", images[:40], [f"{'caf' + chr(0xDCE9) if i % 2 else 'tea'}/{i}.png" for i in range(40)])
    for words in (["data", "info"], ["data", "check"], ["train", "digits", "--data"]):
        assert main([*words, str(tmp_path / "data")]) == 4
        out, err = capfd.readouterr()
        assert (out, err) == ("", f"resfit: {tmp_path / 'data'}: class caf\\xe9: its name is no UTF-8. Rename it.\n")


def test_arrays_may_have_such_classes_too(tmp_path, digit_arrays, capfd):
    images, labels = digit_arrays
    np.savez(tmp_path / "a.npz", images=images, labels=labels, class_names=np.array(["\x1b[2J", "b", "\u202ec"]))
    assert main(["data", "check", str(tmp_path / "a.npz")]) == 0
    assert main(["data", "info", str(tmp_path / "a.npz"), "--json"]) == 0
    plain("".join(capfd.readouterr()))
