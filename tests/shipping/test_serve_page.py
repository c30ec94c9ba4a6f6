"""The page of `serve` in a real browser: by drop, by keyboard, in the dark, on a phone, with hostile names, and by axe."""

import os
from pathlib import Path

import pytest
from PIL import Image

from resfit.evaluation.runtime import load_onnx

HOSTILE_FILE = "<img src=x onerror=document.title='hit'>\u202egpj.jpg"
ARTIFACTS = os.environ.get("RESFIT_ARTIFACTS")  # where screenshots are kept


@pytest.fixture(scope="module")
def browser(need):
    for name in ("chromium", "playwright", "axe_playwright_python"):
        need(name)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        words = {"executable_path": "/usr/bin/chromium", "args": ["--no-sandbox", "--disable-gpu"]}
        chromium = playwright.chromium.launch(**words)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(hostile, server):
    with server["serving"](hostile) as (address, _):
        yield address


@pytest.fixture
def open_page(browser, address):
    """Open the page in a browser of its own; nothing may be said on its console but what a test allows."""
    contexts = []

    def open_page(allow: str = "no such text", **words: object):
        context = browser.new_context(**words)
        page = context.new_page()
        heard: list[str] = []
        page.on("console", lambda message: heard.append(message.text) if allow not in message.text else None)
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("dialog", lambda dialog: heard.append("a dialog"))
        contexts.append((context, heard))
        page.goto(address)
        page.locator("#classes li").nth(2).wait_for()
        return page

    yield open_page
    for context, heard in contexts:
        assert heard == []
        context.close()


def keep(page, tmp_path: Path, name: str) -> None:
    """Keep a screenshot as an artifact."""
    file = Path(ARTIFACTS or tmp_path) / f"serve-{name}.png"
    page.screenshot(path=file, full_page=True)
    with Image.open(file) as image:
        assert len(image.convert("RGB").getcolors(2**24)) > 20  # it shows something


@pytest.fixture
def photo(tmp_path) -> Path:
    from sklearn.datasets import load_sample_image

    Image.fromarray(load_sample_image("flower.jpg")).resize((64, 48)).save(tmp_path / "flower.jpg")
    return tmp_path / "flower.jpg"


def expected(server, address, file: Path) -> dict:
    return server["ask"](address, body=file.read_bytes())[2]["predictions"][0]


def test_an_image_is_chosen_by_keyboard_and_its_answer_read(open_page, server, address, photo, tmp_path):
    page = open_page()
    page.on("filechooser", lambda chooser: None)  # from here on the browser tells of it: `expect` alone may be too late
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"  # the first stop
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(photo)
    page.locator("#answers .label").wait_for()
    answer = expected(server, address, photo)
    assert page.locator("#answers .label").inner_text() == answer["label"]
    rows = page.locator("#answers tr").all()
    assert [row.locator("th").inner_text() for row in rows] == [top["label"] for top in answer["top"]]
    for row, top in zip(rows, answer["top"], strict=True):
        assert float(row.locator("td").last.inner_text().rstrip("%")) == pytest.approx(100 * top["score"], abs=0.051)
    assert "ms in the server" in page.locator("#answers .small").last.inner_text()
    page.locator("#status", has_text="flower.jpg: ").wait_for()
    keep(page, tmp_path, "light")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "clear"
    page.keyboard.press("Enter")
    assert page.locator("#answers li").count() == 0
    assert page.evaluate("document.activeElement.id") == "file"


def test_a_drop_of_several_with_a_bad_one(open_page, photo, tmp_path):
    page = open_page(allow="status of 422")  # the browser's own line on an answer that is no success
    data = list(photo.read_bytes())
    page.evaluate(
        """([data, name]) => {
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(data)], name, {type: "image/jpeg"}));
          files.items.add(new File(["no image"], "notes.txt", {type: "text/plain"}));
          files.items.add(new File([new Uint8Array(data)], "again.jpg", {type: "image/jpeg"}));
          const drop = () => new DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true});
          document.dispatchEvent(drop());
        }""",
        [data, HOSTILE_FILE],
    )
    page.locator("#status", has_text="3 images answered").wait_for()
    assert page.locator("#answers .label").count() == 2
    message = page.locator("#answers .bad").inner_text()
    assert message.startswith("the image: cannot be decoded (not an image of a known format)")
    keep(page, tmp_path, "drop")


def test_hostile_names_stay_text(open_page, hostile, photo):
    page = open_page()
    names = load_onnx(hostile).class_names
    assert page.locator("#classes li").all_text_contents() == list(names)
    assert page.locator("h1").text_content() == "<b>name</b>"
    assert (
        page.locator("#card").text_content() == "# A card\n<script>alert('card')</script>\n"
    )  # without its front matter
    page.locator("#file").set_input_files(
        {"name": HOSTILE_FILE, "mimeType": "image/jpeg", "buffer": photo.read_bytes()}
    )
    page.locator("#answers .label").wait_for()
    assert page.locator("#answers .label").text_content() in names
    assert page.locator("#answers .small").first.text_content() == HOSTILE_FILE
    page.locator("#status", has_text=".jpg: ").wait_for()
    assert "\u202e" not in page.locator("#status").text_content()
    assert page.locator("img").count() == 1  # the picture that was sent
    assert page.locator("script").count() == 1
    assert page.title() == "<b>name</b> · resfit"


def test_phone_in_the_dark(open_page, photo, tmp_path):
    page = open_page(viewport={"width": 360, "height": 640}, color_scheme="dark", has_touch=True, is_mobile=True)
    page.locator("#file").set_input_files(photo)
    page.locator("#answers .label").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")  # nothing is cut off
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    keep(page, tmp_path, "phone-dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_page, photo, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(color_scheme=scheme)
    page.locator("#file").set_input_files(photo)
    page.locator("#answers .label").wait_for()
    found = Axe().run(page).response
    assert len(found["passes"]) > 10  # it looked
    assert [rule["id"] for rule in found["violations"] if rule["impact"] in ("serious", "critical")] == []
