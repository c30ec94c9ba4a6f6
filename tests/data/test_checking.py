"""`data check` on real pictures: every kind of problem planted and found with its place; without them nothing is found."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from resfit.cli import main
from resfit.data import duplicates, oddities
from resfit.data.checking import check
from resfit.data.spelling import alike


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """70 pieces of two photographs, 40 x 40 pixels, those with most in them: sky is like sky."""
    arrays = [np.asarray(image) for image in load_sample_images().images]
    cut = [a[y : y + 40, x : x + 40] for a in arrays for y in range(0, 387, 40) for x in range(0, 600, 40)]
    return [Image.fromarray(cut[i]) for i in np.argsort([-piece.std() for piece in cut])[:70]]


@pytest.fixture(scope="module")
def clean(pictures, tmp_path_factory):
    """train, val and test of two classes, 11 different PNGs each."""
    top = tmp_path_factory.mktemp("check") / "set"
    places = [
        (split, name, i) for split in ("train", "val", "test") for name in ("church", "dahlia") for i in range(11)
    ]
    for (split, name, i), picture in zip(places, pictures, strict=False):
        (top / split / name).mkdir(parents=True, exist_ok=True)
        picture.save(top / split / name / f"p{i % 4}_{split}{i:02}.png")
    return top


@pytest.fixture
def copy(clean, tmp_path):
    return shutil.copytree(clean, tmp_path / "set")


def found(source, **options):
    return {p["kind"]: p for p in check(source, **options)["problems"]}


def test_nothing_is_found_where_nothing_is(clean):
    value = check(clean)
    assert value["problems"] == []
    assert value["ok"]
    assert value["near"].items() >= {"images": 66, "pairs": 0, "many": False}.items()
    assert {name: split["images"] for name, split in value["splits"].items()} == {"train": 22, "val": 22, "test": 22}
    assert value["splits"]["val"]["classes"] == {"church": 11, "dahlia": 11}
    assert value["histograms"]["shorter_side"] == [{"low": 32, "high": 48, "images": 66}]
    assert value["histograms"]["aspect"] == [{"low": 0.9, "high": 1.1, "images": 66}]
    assert check(clean, near=False)["near"] is None


def test_odd_files_are_found(copy, pictures):
    church = copy / "train/church"
    photo = Image.fromarray(load_sample_images().images[0])
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG")
    (church / "cut.jpg").write_bytes(buffer.getvalue()[:-9000])
    pictures[66].resize((40, 6)).save(church / "little.png")
    photo.crop((0, 200, 500, 220)).save(church / "long.png")
    Image.new("RGB", (50, 50), (90, 10, 200)).save(church / "flat.jpg")
    pictures[67].save(church / "lies.jpg", "PNG")
    pictures[68].save(church / "moves.gif", save_all=True, append_images=[pictures[69]])
    pictures[66].save(church / "pages.tif", save_all=True, append_images=[pictures[69]])
    problems = found(copy)
    assert problems.pop("unreadable")["fatal"]
    said = {kind: problem["examples"] for kind, problem in problems.items()}
    assert said == {
        "tiny": ["train/church/little.png (40x6 pixels)"],
        "long and narrow": ["train/church/little.png (40x6 pixels)", "train/church/long.png (500x20 pixels)"],
        "one flat colour": ["train/church/flat.jpg"],
        "name that disagrees with the content": ["train/church/lies.jpg (is PNG)"],
        "more than one frame": [
            "train/church/moves.gif (only the first is used)",
            "train/church/pages.tif (only the first is used)",
        ],
    }
    names = sorted(path.name for path in church.iterdir())
    assert problems["one flat colour"]["places"] == [[["train", names.index("flat.jpg")]]]
    assert not any(problem["fatal"] for problem in problems.values())


def test_a_turned_photograph_has_its_own_shape(pictures):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    pictures[0].resize((64, 32)).save(buffer, "JPEG", exif=exif)
    pixels = np.zeros((3, 8, 8), np.uint8)
    assert oddities.look(buffer.getvalue(), "x.jpg", pixels)[:2] == (64, 32)
    shapes = np.array([[300, 300]] * 9 + [[30, 30], [40, 40]])
    odd = [bool(notes) for notes in oddities.odd_shapes(shapes)]
    assert odd == [*[False] * 9, True, False]  # an eighth of 300 is 37.5


def test_near_duplicates_are_found_where_they_are(copy):
    def derive(source, target, **options):
        with Image.open(copy / source) as image:
            options.pop("change", lambda picture: picture)(image).save(copy / target, **options)

    derive("train/church/p0_train00.png", "test/church/jpeg.jpg", quality=80)
    derive("train/dahlia/p1_train01.png", "val/dahlia/mirror.png", change=ImageOps.mirror)
    derive("train/church/p2_train02.png", "train/dahlia/double.png", change=lambda image: image.resize((60, 60)))
    derive("test/dahlia/p3_test03.png", "val/dahlia/same.bmp")  # the same pixels in other bytes
    problems = found(copy)
    said = {
        kind: (problem["count"], problem["examples"][0].rsplit(" (distance")[0]) for kind, problem in problems.items()
    }
    assert said == {
        "near-duplicate in train and test": (1, "train/church/p0_train00.png ~ test/church/jpeg.jpg"),
        "near-duplicate in train and val": (1, "train/dahlia/p1_train01.png ~ val/dahlia/mirror.png"),
        "near-duplicate in val and test": (1, "val/dahlia/same.bmp ~ test/dahlia/p3_test03.png (the same pixels)"),
        "near-duplicate under two labels": (1, "train/church/p2_train02.png ~ train/dahlia/double.png"),
        "near-duplicate within a split": (1, "train/church/p2_train02.png ~ train/dahlia/double.png"),
    }
    assert problems["near-duplicate under two labels"]["examples"][0].endswith("(church, dahlia)")
    assert problems["near-duplicate in train and test"]["places"] == [[["train", 0], ["test", 0]]]
    assert not any(problem["fatal"] for problem in problems.values())
    assert not any(kind.startswith("near") for kind in found(copy, near=False))


def test_a_pool_says_where_near_duplicates_would_end(clean, tmp_path):
    shutil.copytree(clean / "train", tmp_path / "pool")
    for path in sorted((tmp_path / "pool").rglob("*.png")):
        with Image.open(path) as image:
            ImageOps.mirror(image).save(path.with_name(f"{path.stem}_m.png"))
    value = check(tmp_path / "pool")
    counts = {p["kind"]: p["count"] for p in value["problems"]}
    assert sum(counts.values()) == 22
    assert counts["near-duplicate in train and test"] > 0
    (example, *_) = next(p for p in value["problems"] if p["kind"] == "near-duplicate in train and test")["examples"]
    assert example.count("(held out: test)") == 1
    assert value["near"]["many"]
    together = check(tmp_path / "pool", group_by=r"p\d_train(\d\d)")  # both of a pair in one group
    assert [(p["kind"], p["count"]) for p in together["problems"]] == [("near-duplicate within a split", 22)]
    assert together["groups"]["groups"] == 11
    assert together["splits"].keys() == {"train", "val", "test"}


def test_within_a_set_equals_with_itself(pictures, monkeypatch):
    images = np.stack([np.asarray(image.resize((32, 32))).transpose(2, 0, 1) for image in pictures])
    images = np.concatenate([images, images[5:30, :, :, ::-1], images[40:50]])
    monkeypatch.setattr(duplicates, "_ROWS", 16)  # many blocks
    within = duplicates.find_duplicates_within(images)
    expected = {}
    for row in range(1, len(images)):
        one = duplicates.find_duplicates(images[row : row + 1], images[:row])
        if len(one.queries):
            expected[row] = (int(one.references[0]), round(float(one.distances[0]), 5))
    distances = within.distances.astype(float).round(5).tolist()
    assert (
        dict(zip(within.queries.tolist(), zip(within.references.tolist(), distances, strict=True), strict=True))
        == expected
    )
    assert len(expected) == 35


def test_groups_that_leak_are_fatal(clean, tmp_path, one_line):
    value = check(clean, group_by=r"/(p\d)_")
    (problem,) = value["problems"]
    assert (problem["kind"], problem["count"], problem["fatal"]) == ("group in more than one split", 4, True)
    assert problem["examples"][0] == "p0 (6 in train, 6 in val, 6 in test)"
    assert problem["places"][0] == [["train", 0], ["val", 0], ["test", 0]]
    assert value["groups"] == {"group_by": r"/(p\d)_", "groups": 4, "ungrouped": 0, "shared": 4}
    assert check(clean, group_by=r"(p0)_(?P<image>train\d+)")["ok"]
    assert "matches no id" in one_line(check, clean, True, "patient")
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.arange(4) % 2)
    assert "no ids" in one_line(check, tmp_path / "x.npz", True, "x")
    assert main(["data", "check", str(clean), "--group-by", "("]) == 2
    assert main(["data", "check", str(clean), "--group-by", r"(p\d)_", "--no-near"]) == 4


def test_classes_that_are_missing_or_unequal(tmp_path):
    random = np.random.default_rng(0)

    def save(name, **labels):
        arrays = {f"{split}_labels": np.repeat(np.arange(len(n)), n) for split, n in labels.items()}
        images = {f"{s}_images": random.integers(0, 256, (sum(n), 8, 8), np.uint8) for s, n in labels.items()}
        np.savez(tmp_path / name, **arrays, **images, class_names=["ant", "bee", "cow"])
        return found(tmp_path / name)

    problems = save("a.npz", train=[61, 12, 12], val=[10, 10, 10])
    assert problems["classes of unequal size"]["examples"] == ["train: ant has 61, bee 12: 5.1 times"]
    assert not save("b.npz", train=[60, 12, 12], val=[10, 10, 10])
    problems = save("c.npz", train=[20, 0, 20], val=[10, 10, 9], test=[10, 10, 10])
    assert problems["class without a train image"]["examples"] == ["train: bee"]
    assert problems["class without a train image"]["fatal"]
    assert problems["class of fewer than 10 images"]["examples"] == ["train: bee has 0", "val: cow has 9"]


def test_names_that_are_alike():
    names = [
        "cat",
        "cats",
        "car",
        "Dog",
        "dog",
        "café",
        "cafe\u0301",
        "dandelion",
        "dandeloin",
        "dandelions",
        "fire truck",
    ]
    names += [
        "fire_truck",
        "moth",
        "mtoh",
        "class 1",
        "class 2",
        "baby",
        "babies",
        "bird",
        "birdd",
        "bed",
        "bee",
        "b\u200bee",
    ]
    names += ["flower", "flowr", "mushroom", "mashroom", "castle", "cattle", "church", "church's"]
    pairs = {frozenset((names[i], names[j])): kind for i, j, kind in alike(names)}
    assert pairs == {
        frozenset(("cat", "cats")): "spelling",
        frozenset(("Dog", "dog")): "case",
        frozenset(("café", "cafe\u0301")): "Unicode form",
        frozenset(("dandelion", "dandeloin")): "spelling",
        frozenset(("dandelion", "dandelions")): "spelling",
        frozenset(("dandeloin", "dandelions")): "spelling",
        frozenset(("fire truck", "fire_truck")): "spelling",
        frozenset(("moth", "mtoh")): "spelling",
        frozenset(("baby", "babies")): "spelling",
        frozenset(("bird", "birdd")): "spelling",
        frozenset(("flower", "flowr")): "spelling",
        frozenset(("mushroom", "mashroom")): "spelling",
        frozenset(("church", "church's")): "spelling",
        frozenset(("bee", "b\u200bee")): "Unicode form",
    }


def test_names_that_are_words_of_their_own():
    """CIFAR-10's and CIFAR-100's classes, digits and synsets have none that is another one misspelt."""
    cifar10 = "airplane automobile bird cat deer dog frog horse ship truck"
    cifar100 = """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel
        can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
        dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion
        lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree
        pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea
        seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table
        tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman
        worm
    """
    assert len(cifar100.split()) == 100
    for names in (cifar10.split(), cifar100.split(), list("0123456789"), ["n01440764", "n01440765"]):
        assert alike(names) == []


def test_what_cannot_be_shown_is_refused_before_reading(clean, tmp_path, capsys):
    for words, code, said in (
        (["-o", str(tmp_path / "x.pdf")], 2, "is not .html"),
        (["-o", str(tmp_path)], 2, "is a folder"),
        (["--resize", "stretch", "-o", str(tmp_path / "x.html")], 2, "stretch"),
        (["--image-size", "0", "-o", str(tmp_path / "x.html")], 2, "0 pixels"),
    ):
        assert main(["data", "check", str(clean), *words]) == code
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_text_and_the_json_say_the_same(clean, capsys):
    assert main(["data", "check", str(clean), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value.keys() == check(clean).keys()
    assert {name: len(spots) for name, spots in value["samples"].items()} == {"church": 3, "dahlia": 3}
    assert main(["data", "check", str(clean)]) == 0
    assert capsys.readouterr().out == f"{clean}: 66 images of 2 classes, can be trained on\n"
