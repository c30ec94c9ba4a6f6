"""The page in a real browser: sorting, filtering, hovering, keys, no request, no error, axe, screenshots on every medium.

Screenshots are kept in $RESFIT_ARTIFACTS, or in pytest's own folder.
"""

import json
import os
import re
from pathlib import Path

import pytest

from resfit.reporting.page import report

MEDIA = {  # name: width, scheme, medium
    "wide": (1100, "light", "screen"),
    "dark": (1100, "dark", "screen"),
    "phone": (360, "light", "screen"),
    "phone-dark": (360, "dark", "screen"),
    "print": (760, "dark", "print"),
}


@pytest.fixture(scope="module")
def shots(tmp_path_factory) -> Path:
    folder = Path(os.environ.get("RESFIT_ARTIFACTS") or tmp_path_factory.mktemp("shots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def one(hostile, tmp_path) -> Path:
    report(hostile.folder, tmp_path / "one.html")
    return tmp_path / "one.html"


@pytest.fixture
def several(hostile, runs, tmp_path) -> Path:
    report([hostile.folder, runs / "plain", runs / "seeds"], tmp_path / "several.html")
    return tmp_path / "several.html"


def column(table, number: int) -> list[str]:
    return [row.split("\t")[number].strip() for row in table.locator("tbody").inner_text().split("\n") if row.strip()]


def test_a_reader_finds_the_answers(hostile, one, open_page):
    page = open_page(one)
    receipt = json.loads(hostile.receipt_file.read_text())
    assert page.title() == "<b>hostile & 'run' – resfit report"
    assert page.locator("h1").inner_text() == "<b>hostile & 'run'"
    assert page.locator(".score strong").inner_text() == f"{receipt['accuracy']:.2%}"
    assert page.evaluate("window.pwned") is None
    assert page.locator("main b, main [onload], main [onerror], main script").count() == 0

    table = page.locator("#run-0-0-classes")
    head = table.locator("thead th").all_inner_texts()
    place = next(k for k, text in enumerate(head) if text.startswith("test accuracy"))
    heading = table.locator("thead th").nth(place)
    found = sorted(score["accuracy"] for score in receipt["classes"].values())
    for way, wanted in (("descending", found[::-1]), ("ascending", found)):
        heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == way
        assert column(table, place) == [f"{value:.2%}" for value in wanted]
    table.locator("thead button").first.press("Enter")  # by the keyboard too, and by words
    assert heading.get_attribute("aria-sort") is None

    page.get_by_label("Show classes with").fill("GNP")
    assert table.locator("tbody tr:visible").count() == 1
    assert page.locator(".found").first.inner_text() == "1 of 6"
    page.get_by_label("Show classes with").fill("")
    assert table.locator("tbody tr:visible").count() == 6
    mistakes = page.locator("#run-0-0-pictures li")
    total = mistakes.count()
    page.get_by_label("Show mistakes with").fill("red")
    left = page.locator("#run-0-0-pictures li:visible")
    assert 0 < left.count() < total
    assert all("red" in text for text in left.all_inner_texts())


def test_charts_say_their_points_to_pointer_and_keys(hostile, one, open_page):
    page = open_page(one)
    chart, rows = page.locator("figure.chart").first, hostile.metrics
    box = chart.locator("svg").bounding_box()
    for share, row in ((0.15, rows[0]), (0.95, rows[-1])):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        said = f"epoch {row['epoch'] + 1}: train {row['train_accuracy']:.2%}, val {row['val_accuracy']:.2%}"
        assert chart.locator(".readout").inner_text() == said
    diagram = page.locator("figure.chart", has_text="Accuracy by strength")
    diagram.focus()
    diagram.press("ArrowRight")
    assert diagram.locator(".readout").inner_text() == f"clean: {hostile.summary['val']['accuracy']:.2%}"
    diagram.press("ArrowRight")
    assert diagram.locator(".readout").inner_text().startswith("strength 1: mean accuracy ")
    matrix = page.locator("table.matrix")
    confusion = json.loads((hostile.folder / "evaluation.json").read_text())["confusion"]
    matrix.locator("tbody tr").nth(2).locator("td").nth(2).hover()
    said = page.locator(".wide:has(.matrix) + .readout").inner_text()
    assert said.endswith(f"{confusion[2][2]} of {sum(confusion[2])}")
    assert "<img src=x" in said


def test_several_runs_are_sorted_and_the_front_is_read(several, open_page):
    page = open_page(several)
    table = page.locator("#runs")
    table.get_by_role("button", name="val accuracy").click()
    names = [text.split("\n")[0] for text in table.locator("tbody th").all_inner_texts()]
    assert names[0] == "<b>hostile & 'run'"
    table.get_by_role("button", name="test accuracy").click()
    table.get_by_role("button", name="test accuracy").click()
    assert table.locator("tbody tr").last.locator("th").inner_text() == "<b>hostile & 'run'"  # the only one tested
    chart = page.locator("figure.chart", has_text="Val accuracy by params")
    chart.focus()
    said = set()
    for _ in range(3):
        chart.press("ArrowRight")
        said.add(chart.locator(".readout").inner_text())
    assert len(said) == 3
    assert all(text.endswith("5,198 params") for text in said)
    page.get_by_label("Show runs with").fill("plain")
    assert table.locator("tbody tr:visible").count() == 1
    page.get_by_role("link", name="seeds").first.click()
    assert page.url.endswith("#run-2")


@pytest.mark.parametrize("which", ["one", "several"])
def test_it_fits_every_medium(which, request, open_page, shots):
    page = open_page(request.getfixturevalue(which))
    for medium, (width, scheme, media) in MEDIA.items():
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(media=media, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, medium
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(13, 17, 23)" if (scheme, media) == ("dark", "screen") else "rgb(255, 255, 255)"), medium
        page.screenshot(path=shots / f"report-{which}-{medium}.png", full_page=which == "one")
    assert page.locator("nav").is_hidden()  # on paper
    page.pdf(path=shots / f"report-{which}.pdf", format="A4", print_background=True)
    assert page.locator("details:not([open])").count() == 0
    assert len(re.findall(rb"/Type\s*/Page\b", (shots / f"report-{which}.pdf").read_bytes())) > 2


@pytest.mark.parametrize(("which", "part"), [("one", "html"), ("several", "section:has(#compare)")])
def test_axe_finds_nothing_serious(which, part, request, open_page):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(request.getfixturevalue(which))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page, context=part).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")] == []


def test_axe_would_find_something(one, open_page):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(one)
    page.evaluate(
        "document.body.append(Object.assign(new Image(), {})); document.querySelector('p').style.color = '#ddd'"
    )
    rules = {"runOnly": ["image-alt", "color-contrast"]}
    found = {violation["id"] for violation in Axe().run(page, options=rules).response["violations"]}
    assert found == {"image-alt", "color-contrast"}


def test_without_javascript_nothing_is_lost(one, open_page):
    page = open_page(one, java_script_enabled=False)
    assert page.locator("#run-0-0-classes tbody tr:visible").count() == 6
    assert page.get_by_label("Show classes with").is_hidden()


def test_the_page_could_not_send_anything(browser, one):
    page = browser.new_page()
    page.goto(one.as_uri())
    blocked = page.evaluate("fetch('http://127.0.0.1:9/').then(() => '', (error) => String(error))")
    injected = "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.pwned=1\">')"
    page.evaluate(injected)
    assert "Failed to fetch" in blocked
    assert page.evaluate("new Promise((done) => setTimeout(() => done(window.pwned), 200))") is None
    page.close()
