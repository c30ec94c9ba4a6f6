"""`data info`, `check`, `prepare`: what they say of sets whose faults are known, counted by hand."""

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from resfit.cli import main
from resfit.data import listing
from resfit.data.images import PixelRule
from resfit.data.sources import load_split


@pytest.fixture
def top(make, tmp_path):
    """48 images of 8x8 and, in train, two of 9x9."""
    make.write_classes(tmp_path / "set/train", {"ant": 14, "bee": 12})
    make.write_classes(tmp_path / "set/test", {"ant": 11, "bee": 11}, 50_000)
    make.write_classes(tmp_path / "more", {"ant": 2}, 90_000, size=9)
    for name in ("000", "001"):
        shutil.copy(tmp_path / f"more/ant/{name}.png", tmp_path / f"set/train/bee/x{name}.png")
    return tmp_path / "set"


def call(capsys, *words, code=0):
    assert main([*map(str, words), "--json"]) == code
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


def problems(capsys, source, code=0):
    found = call(capsys, "data", "check", source, code=code)
    assert found["ok"] == (code == 0)
    return {p["kind"]: (p["count"], p["fatal"], " | ".join(p["examples"])) for p in found["problems"]}


def test_sizes_are_of_images_upright(make, tmp_path, capsys):
    for label, orientation in (("ant", 1), ("bee", 6)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(12):
            image = Image.fromarray(make.noise(number + 100 * orientation, 10, 20))  # 20 wide
            image.save(tmp_path / f"set/{label}/{number}.jpg", exif=exif)
    sizes = call(capsys, "data", "info", tmp_path / "set")["image_sizes"]
    assert {(row["height"], row["width"]): row["images"] for row in sizes} == {(10, 20): 12, (20, 10): 12}


def test_info_cold_and_warm(top, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(listing, "decode", None)  # nothing is decoded
    cold = call(capsys, "data", "info", top, "--image-size", 8)
    assert cold["reader"] == "folder"
    assert cold["brings"] == ["train", "test"]
    assert {name: split["images"] for name, split in cold["splits"].items()} == {"train": 26, "val": 2, "test": 22}
    assert cold["splits"]["test"]["classes"] == {"ant": 11, "bee": 11}
    assert {(row["height"], row["width"]): row["images"] for row in cold["image_sizes"]} == {(8, 8): 48, (9, 9): 2}
    assert cold["memory_bytes"] == 50 * 3 * 8 * 8
    assert cold["cache"] == {"folder": str(tmp_path / "cache/images"), "used": True, "warm": False, "bytes": 0}
    monkeypatch.undo()
    monkeypatch.setenv("RESFIT_CACHE", str(tmp_path / "cache"))
    for name, split in cold["splits"].items():
        assert split["fingerprint"] == load_split(top, name, PixelRule(8)).fingerprint
    warm = call(capsys, "data", "info", top, "--image-size", 8)
    assert warm.pop("cache") == cold.pop("cache") | {"warm": True, "bytes": 50 * 3 * 8 * 8}
    assert warm == cold
    assert not call(capsys, "data", "info", top, "--image-size", 4)["cache"]["warm"]


def test_info_of_a_pool_and_of_digits(make, tmp_path, capsys):
    make.write_classes(tmp_path / "pool", {"ant": 30, "bee": 20, "cow": 3})
    for source in (tmp_path / "pool", "digits"):
        found = call(capsys, "data", "info", source, "--image-size", 8)
        for name, split in found["splits"].items():
            expected = load_split(source, name, PixelRule(8))
            assert (split["fingerprint"], split["images"]) == (expected.fingerprint, len(expected))
    assert found["cache"]["used"] is False


def test_prepare_fills_the_cache_once(top, capsys, monkeypatch, tmp_path):
    first = call(capsys, "data", "prepare", top, "--image-size", 8)
    assert (first["images"], first["decoded"]) == (50, 50)
    assert first["images_per_second"] > 0
    assert len(list((tmp_path / "cache/images").iterdir())) == 2
    monkeypatch.setattr(listing, "decode", None)
    again = call(capsys, "data", "prepare", top, "--image-size", 8)
    assert (again["images"], again["decoded"], again["images_per_second"]) == (50, 0, None)
    assert len(load_split(top, "test", PixelRule(8))) == 22
    assert call(capsys, "data", "prepare", "digits")["folder"] is None


def test_prepare_without_a_cache(top, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RESFIT_CACHE", str(tmp_path / "file"))
    assert main(["data", "prepare", str(top)]) == 6
    assert "Set RESFIT_CACHE to a folder with room." in capsys.readouterr().err


def test_check_of_a_good_set(top, capsys):
    assert problems(capsys, top) == {}


def test_check_finds_what_was_put_there(top, make, capsys):
    (top / "train/ant/000.png").write_bytes(b"")
    (top / "train/ant/001.png").write_bytes((top / "train/ant/001.png").read_bytes()[:60])
    shutil.copy(top / "train/ant/002.png", top / "train/ant/copy.png")
    shutil.copy(top / "train/ant/003.png", top / "train/bee/other.png")
    shutil.copy(top / "train/ant/004.png", top / "test/ant/leak.png")
    make.write_classes(top / "val", {"ant": 10, "bee": 4}, 70_000)
    shutil.copy(top / "train/bee/004.png", top / "val/bee/seen.png")
    found = problems(capsys, top, code=4)
    assert found.pop("unreadable")[:2] == (2, True)
    assert found.pop("same image in train and test") == (1, True, "train/ant/004.png = test/ant/leak.png")
    assert found.pop("same image in train and val") == (1, False, "train/bee/004.png = val/bee/seen.png")
    assert found.pop("same image under two labels") == (
        1,
        False,
        "train/ant/003.png = train/bee/other.png (ant, bee)",
    )
    within = found.pop("same image within a split")
    assert within[:2] == (2, False)
    assert "train/ant/002.png = train/ant/copy.png" in within[2]
    assert found.pop("class of fewer than 10 images") == (1, False, "val: bee has 5")
    assert found == {}
    assert main(["data", "check", str(top)]) == 4
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[0].startswith("wrong: unreadable: 2: ")
    assert lines[-1].endswith("must be repaired first")


def test_check_of_many_copies_shows_five(top, capsys):
    for number in range(8):
        shutil.copy(top / f"train/ant/{number:03}.png", top / f"train/ant/copy{number}.png")
    found = call(capsys, "data", "check", top)["problems"]
    assert [(p["count"], len(p["examples"])) for p in found] == [(8, 5)]


def test_check_of_classes(tmp_path, make, capsys):
    make.write_classes(tmp_path / "case", {"Ant": 10, "ant": 10, "bee": 10})
    assert problems(capsys, tmp_path / "case") == {"class names that differ by case": (1, False, "Ant = ant")}
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8), np.uint8)
    np.savez(tmp_path / "one.npz", images=pixels, labels=np.zeros(12, int), class_names=["only"])
    assert problems(capsys, tmp_path / "one.npz", code=4)["one class"] == (1, True, "only")
    make.write_classes(tmp_path / "split/train", {"Ant": 10, "bee": 10})
    make.write_classes(tmp_path / "split/test", {"ant": 10, "bee": 10}, 500)
    assert main(["data", "check", str(tmp_path / "split")]) == 4
    assert "test has a class 'ant' that the other splits have not. Did you mean 'Ant'" in capsys.readouterr().err


def test_check_refuses_what_training_refuses(tmp_path, make, capsys):
    make.write_classes(tmp_path / "only/test", {"ant": 12, "bee": 12})
    assert problems(capsys, tmp_path / "only", code=4) == {
        "training refuses": (1, True, "brings no train split, only test")
    }
    make.write_classes(tmp_path / "few", {"ant": 12, "bee": 2})
    count, fatal, text = problems(capsys, tmp_path / "few", code=4)["training refuses"]
    assert (count, fatal) == (1, True)
    assert "class 'bee' has 2 distinct images, too few to hold some out" in text
    for name, reason in (("only", "brings no train split"), ("few", "too few to hold some out")):
        assert main(["train", "resnet-8", "--data", str(tmp_path / name), "--device", "cpu"]) == 4
        assert reason in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM there")
def test_prepare_that_is_terminated_leaves_nothing_behind(top, tmp_path):
    folder = tmp_path / "cache" / "images"
    words = [sys.executable, "-m", "resfit", "data", "prepare", str(top), "--image-size", "5000"]
    process = subprocess.Popen(words, env=os.environ | {"RESFIT_CACHE": str(tmp_path / "cache")})
    while not (folder.exists() and any(folder.iterdir())):
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    assert process.wait(60) == 143
    assert list(folder.iterdir()) == []
