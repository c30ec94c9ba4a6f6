"""Class folders on disk, in .tar and in .zip: layouts, what is passed over, and what is refused."""

import io
import shutil
import tarfile
import zipfile

import numpy as np
import pytest

from resfit.data.images import PixelRule
from resfit.data.sources import load_split, open_source
from resfit.data.unlabelled import load_unlabelled

RULE = PixelRule(8)


@pytest.fixture
def top(make, tmp_path):
    """train, val and test with the classes ant, bee and cow."""
    for number, (split, count) in enumerate({"train": 10, "val": 3, "test": 4}.items()):
        make.write_classes(tmp_path / "set" / split, {"bee": count, "ant": count, "cow": count + 1}, 1000 * number)
    return tmp_path / "set"


def pack(top, path):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for item in sorted(top.rglob("*")):
                file.write(item, item.relative_to(top))
        return path
    base = str(path).removesuffix(".tar.gz").removesuffix(".tar")
    return type(path)(shutil.make_archive(base, "gztar" if path.name.endswith("gz") else "tar", top))


def test_splits_as_they_are(top, make):
    train = load_split(top, "train", RULE)
    assert train.class_names == ("ant", "bee", "cow")
    assert np.bincount(train.labels).tolist() == [10, 10, 11]
    assert train.ids[0] == "train/ant/000.png"
    assert (train.images[0:1][0] == make.noise(1000 * 0).transpose(2, 0, 1)).all()
    val, test = load_split(top, "val", RULE), load_split(top, "test", RULE)
    assert (len(val), len(test)) == (10, 13)
    both = load_split(top, "trainval", RULE)
    assert both.ids == train.ids + val.ids
    assert (both.images[:] == np.concatenate([train.images, val.images])).all()
    assert (both.labels == np.concatenate([train.labels, val.labels])).all()
    with pytest.raises(ValueError, match="read-only"):
        train.images[0] = 0


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_archives_are_the_same_set(top, tmp_path, suffix):
    archive = pack(top, tmp_path / f"packed{suffix}")
    for split in ("train", "val", "test", "trainval"):
        a, b = load_split(top, split, RULE), load_split(archive, split, RULE)
        assert a.fingerprint == b.fingerprint
        assert (a.images[:] == b.images[:]).all()
        assert a.ids == b.ids


def test_a_wrapping_folder_in_an_archive(top, tmp_path):
    outer = tmp_path / "outer"
    outer.mkdir()
    top.rename(outer / "my-set")
    found = load_split(pack(outer, tmp_path / "w.tar.gz"), "train", RULE)
    assert found.ids[0] == "my-set/train/ant/000.png"
    assert found.fingerprint == load_split(outer / "my-set", "train", RULE).fingerprint


@pytest.mark.parametrize("word", ["valid", "validation"])
def test_other_words_for_val(top, word):
    (top / "val").rename(top / word)
    assert len(load_split(top, "val", RULE)) == 10


def test_what_is_passed_over(top):
    before = load_split(top, "train", RULE).fingerprint
    (top / "train/ant/.hidden.png").write_bytes(b"x")
    (top / "train/ant/Thumbs.db").write_bytes(b"x")
    (top / "train/ant/notes.txt").write_bytes(b"x")
    (top / "train/.git").mkdir()
    (top / "__MACOSX/train/ant").mkdir(parents=True)
    (top / "__MACOSX/train/ant/._000.png").write_bytes(b"x")
    (top / "docs").mkdir()
    (top / "train/ant/000.png").rename(top / "train/ant/000.PnG")
    assert load_split(top, "train", RULE).fingerprint == before


def test_links_are_followed_and_loops_end(top, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links/train").symlink_to(top / "train", target_is_directory=True)
    (top / "train/ant/again").symlink_to(top, target_is_directory=True)
    with_loop = load_split(tmp_path / "links", "trainval", RULE)
    assert len(with_loop) >= 31
    (top / "train/ant/again").unlink()
    assert len(load_split(tmp_path / "links", "trainval", RULE)) == 31


def test_a_changed_file_is_seen(top, make):
    before = load_split(top, "train", RULE)
    (top / "train/ant/000.png").write_bytes(make.encode(make.noise(99_999)))
    assert load_split(top, "train", RULE).fingerprint != before.fingerprint


def test_refusals(top, tmp_path, one_line, make):
    def refused(change, undo, *words, split="train"):
        change()
        for source in (top, pack(top, tmp_path / "bad.tar.gz"), pack(top, tmp_path / "bad.zip")):
            message = one_line(load_split, source, split, RULE)
            for word in (str(source), *words):
                assert word in message
        undo()

    away = tmp_path / "away"
    for split in ("train", "val", "test"):  # a class missing from one split
        path = top / split / "bee"
        words = ("bee",) if split == "train" else (split, "'bee'")
        refused(lambda path=path: path.rename(away), lambda path=path: away.rename(path), *words)
    extra = top / "val/dog"
    refused(lambda: make.write_classes(top / "val", {"dog": 1}), lambda: shutil.rmtree(extra), "val", "'dog'")
    empty = top / "train/empty"
    refused(empty.mkdir, empty.rmdir, "train/empty", "no images")
    loose = top / "train/loose.png"
    refused(lambda: shutil.copy(top / "train/ant/000.png", loose), loose.unlink, "loose.png", "train/CLASS/*.jpg")
    broken = top / "train/cow/broken.jpg"
    refused(lambda: broken.write_bytes(b"not a jpeg"), broken.unlink, "train/cow/broken.jpg")
    refused(lambda: (top / "test").rename(away), lambda: away.rename(top / "test"), "test", split="test")
    twice = top / "validation"
    refused(lambda: shutil.copytree(top / "val", twice), lambda: shutil.rmtree(twice), "twice")
    assert len(load_split(top, "train", RULE)) == 31


def test_layouts_that_are_none(tmp_path, one_line, make):
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "a.png").write_bytes(make.encode(make.noise(1)))
    assert "CLASS/*.jpg" in one_line(load_split, flat, "train", RULE)
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    assert "no images" in one_line(load_split, nothing, "train", RULE)
    make.write_classes(tmp_path / "single", {"ant": 5})
    assert "only one class" in one_line(load_split, tmp_path / "single", "train", RULE)
    assert "brings no train" in one_line(lambda: load_split(only_test(make, tmp_path), "train", RULE))


def only_test(make, tmp_path):
    make.write_classes(tmp_path / "only/test", {"ant": 5, "bee": 5})
    return tmp_path / "only"


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_members_that_point_outside_are_harmless(tmp_path, make, kind):
    images = {f"{c}/{i}.png": make.encode(make.noise(100 * n + i)) for n, c in enumerate("ab") for i in range(5)}
    evil = {"../up.png": b"x", "../../a/up.png": b"x", "/abs/up.png": b"x", "a/../../up.png": b"x"}
    inside = tmp_path / "x/y"
    inside.mkdir(parents=True)
    path = inside / f"set.{kind}"
    if kind == "tar":
        make.tar_of(path, {**evil, **images}, "w")
    else:
        with zipfile.ZipFile(path, "w") as file:
            for name, data in {**evil, **images}.items():
                file.writestr(name, data)
    before = {p for p in tmp_path.rglob("*") if "cache" not in p.parts}
    assert len(load_split(path, "trainval", RULE)) == 8
    assert {p for p in tmp_path.rglob("*") if "cache" not in p.parts} == before


def test_links_in_archives_are_passed_over(tmp_path, make):
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as tar:
        for n, c in enumerate("ab"):
            for i in range(5):
                data = make.encode(make.noise(100 * n + i))
                info = tarfile.TarInfo(f"./{c}/{i}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("a/passwd.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert len(load_split(path, "trainval", RULE)) == 8


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.95])
def test_truncated_archives(top, tmp_path, one_line, suffix, share):
    whole = pack(top, tmp_path / f"whole{suffix}").read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole[: int(len(whole) * share)])
    assert str(cut) in one_line(load_split, cut, "train", RULE)


def test_train_never_decodes_test(top, tmp_path):
    for path in (top / "test").rglob("*.png"):
        path.write_bytes(b"not an image")
    assert len(load_split(top, "train", RULE)) == 31
    assert len(load_split(pack(top, tmp_path / "x.tar.gz"), "trainval", RULE)) == 41


def test_real_archive(cifar10_jpeg):
    source = open_source(str(cifar10_jpeg))
    assert source.splits == ("train", "test")
    test = load_split(cifar10_jpeg, "test", PixelRule(32))
    assert len(test) == 10_000
    assert test.class_names[0] == "airplane"
    assert np.bincount(test.labels).tolist() == [1000] * 10


def test_unlabelled_folder(top, one_line):
    found = load_unlabelled([top / "test"], RULE)
    assert found.labels is None
    assert found.ids[0] == str(top / "test/ant/000.png")
    assert list(found.ids) == sorted(found.ids)
    (top / "test/ant/000.png").write_bytes(b"x")
    assert "test/ant/000.png" in one_line(load_unlabelled, [top / "test"], RULE)


@pytest.mark.parametrize("names", [("Train", "Test"), ("training", "testing"), ("TRAIN", "valid")])
def test_splits_by_other_names(tmp_path, make, names):
    for number, name in enumerate(names):
        make.write_classes(tmp_path / "set" / name, {"ant": 4, "bee": 4}, seed=1000 * number)
    train = load_split(tmp_path / "set", "trainval", RULE)
    assert train.class_names == ("ant", "bee")
    assert len(train) == (16 if "valid" in names else 8)


def test_a_class_may_be_called_train(tmp_path, make):
    make.write_classes(tmp_path / "set", {"train": 10, "car": 10})
    assert load_split(tmp_path / "set", "train", RULE).class_names == ("car", "train")


def test_folders_that_could_be_splits_are_refused(tmp_path, make, one_line):
    for number, name in enumerate(("train", "extra")):
        make.write_classes(tmp_path / "a" / name, {"ant": 4, "bee": 4}, seed=1000 * number)
        make.write_classes(tmp_path / "b" / f"part{number}", {"ant": 4, "bee": 4}, seed=1000 * number)
    assert "extra stands beside train" in one_line(load_split, tmp_path / "a", "train", RULE)
    assert "part0, part1 have the same folders inside" in one_line(load_split, tmp_path / "b", "train", RULE)
