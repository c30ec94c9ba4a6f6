"""The page of `data check`: planted problems shown by their images, in a real browser, light and dark, with axe."""

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from resfit.cli import main
from resfit.data.images import PixelRule
from resfit.reporting import datapage
from resfit.reporting.datapage import check_on_page

HOSTILE = "<img src=x onerror=window.pwned=1>"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Three classes of 12 pieces of photographs, 60 x 40; a leak, a pair of near-duplicates, a broken file."""
    top = tmp_path_factory.mktemp("datapage") / "set"
    photos = [np.asarray(image) for image in load_sample_images().images]
    pieces = [a[y : y + 40, x : x + 60] for a in photos for y in range(0, 387, 40) for x in range(0, 580, 60)]
    pieces = [pieces[i] for i in np.argsort([-piece.std() for piece in pieces])]
    for number in range(60):
        split, name = ("train", "test")[number % 5 > 2], ("church", "dahlia", HOSTILE)[number % 3]
        (top / split / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pieces[number]).save(top / split / name / f"{number:02}.png")
    shutil.copy(top / "train/church/00.png", top / "test/church/leak.png")
    with Image.open(top / "train/dahlia/01.png") as image:
        image.save(top / "train/dahlia/near.jpg", quality=80)
    (top / f"train/{HOSTILE}/bad.jpg").write_bytes(b"\xff\xd8 no image")
    return top


@pytest.fixture(scope="module")
def page(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("datapage") / "page.html"
    return check_on_page(images, out, PixelRule(16)), out


def pixels(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_reader_sees_what_is_wrong(page, open_page):
    value, out = page
    assert not value["ok"]
    shown = open_page(out)
    assert shown.locator(".score strong").inner_text() == "Must be repaired first"
    assert (
        shown.locator(".verdict .warn")
        .inner_text()
        .startswith("2 kinds of problem that make training or its score wrong; ")
    )
    assert shown.evaluate("window.pwned") is None
    heads = shown.locator("section:has(#problems) h3").all_inner_texts()
    assert heads[:2] == ["Unreadable 1", "Same image in train and test 1"]
    assert [text.rsplit(" ", 1)[0].lower() for text in heads] == [p["kind"] for p in value["problems"]]
    examples = shown.locator(".examples")
    place = [p["kind"] for p in value["problems"]].index("near-duplicate within a split")
    assert examples.nth(place).locator("img").count() == 2  # side by side
    assert "train/dahlia/01.png ~ train/dahlia/near.jpg" in examples.nth(place).inner_text()
    assert examples.nth(0).locator("img").count() == 0  # it cannot be decoded
    assert all(shown.evaluate("[...document.images].map((image) => image.naturalWidth > 0)"))

    shown.get_by_label("Show classes with").first.fill("dahl")
    assert shown.locator("#counts tbody tr:visible").count() == 1
    shown.get_by_label("Show classes with").last.fill("church")
    assert shown.locator("#samples li:visible").count() == 1
    shown.locator("#counts thead button").nth(1).click()
    assert shown.locator("#counts thead th").nth(1).get_attribute("aria-sort") == "descending"


def test_what_the_network_sees_is_what_the_rule_makes(page, images):
    value, out = page
    text = out.read_text()
    assert len(out.read_bytes()) < 2_000_000
    assert "://" not in text.replace("http://www.w3.org/", "")
    samples = text[text.index('id="samples"') :]
    uris = re.findall(r'src="(data:image/webp[^"]+)"', samples)
    assert len(uris) == 3 * 3 * 2
    spots = [spot for spots in value["samples"].values() for spot in spots]
    names = {split: sorted((images / split).rglob("*.*g")) for split in ("train", "test")}
    assert all(split == "train" for split, _ in spots)
    for (split, row), came, seen in zip(spots, uris[::2], uris[1::2], strict=True):
        order = sorted(names[split], key=lambda path: (path.parent.name, path.name))
        with Image.open(order[row]) as original:
            expected = original.convert("RGB")
        assert pixels(came).size == (60, 40)
        assert pixels(seen).size == (16, 16)
        for uri, picture in ((came, expected), (seen, expected.resize((16, 16), Image.Resampling.BICUBIC))):
            near = np.asarray(pixels(uri), float) - np.asarray(picture, float)
            assert np.abs(near).mean() < 15  # another image is 60 off; WebP is lossy


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_axe_finds_nothing_serious(page, open_page, scheme):
    from axe_playwright_python.sync_playwright import Axe

    for width in (360, 1100):
        shown = open_page(page[1], width, scheme)
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(shown).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")] == []


def test_many_classes_stay_within_two_megabytes(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    np.savez(
        tmp_path / "many.npz",
        images=random.integers(0, 256, (550, 64, 64, 3), np.uint8),
        labels=np.arange(550) % 110,
        class_names=[f"kind {k}" for k in range(110)],
    )
    value = check_on_page(tmp_path / "many.npz", tmp_path / "p.html", PixelRule(64), near=False)
    assert value["page"]["bytes"] == (tmp_path / "p.html").stat().st_size < 2_000_000
    text = (tmp_path / "p.html").read_text()
    assert text.count('<span class="is">') == datapage.CLASSES
    assert "Of 100 of 110 classes." in text


def test_the_command(images, tmp_path, capsys):
    words = ["data", "check", str(images), "-o", str(tmp_path / "x.html"), "--image-size", "16"]
    assert main([*words, "--json"]) == 4
    value = json.loads(capsys.readouterr().out)
    first = (tmp_path / "x.html").read_bytes()
    assert value["page"] == {"out": str(tmp_path / "x.html"), "bytes": len(first)}
    assert main(words) == 4
    captured = capsys.readouterr()
    assert captured.err == ""
    assert f"written to {tmp_path / 'x.html'}" in captured.out
    assert (tmp_path / "x.html").read_bytes() == first  # the same files, the same page
    assert main(["data", "check", str(images), "-o", str(tmp_path / "x.html/y.html")]) == 6
    assert capsys.readouterr().err.startswith(f"resfit: {tmp_path / 'x.html'}: cannot be written")
