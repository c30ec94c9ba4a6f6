"""Report and compare of real parents of seeds, made by `train --seeds`, against their seeds' own records."""

import json
import os
import statistics
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from resfit.cli import main

SEEDS = 2


@pytest.fixture(scope="module")
def parents(tmp_path_factory, tiny_recipe, digits_npz) -> Path:
    """A folder with `small` and `wide`, each of two seeds."""
    root = tmp_path_factory.mktemp("parents")
    for name, widths in (("small", "[4, 8]"), ("wide", "[16, 32]")):
        words = ["--data", str(digits_npz), "--set", f"network.widths={widths}", "--device", "cpu"]
        assert main(["train", str(tiny_recipe), "--seeds", str(SEEDS), "--out", str(root / name), *words]) == 0
    return root


def accuracies(parent: Path) -> list[float]:
    """The val accuracies of a parent's seeds, counted from their predictions."""
    found = []
    for seed in range(SEEDS):
        with np.load(parent / f"seed-{seed}" / "predictions" / "val.npz") as arrays:
            found.append(float((arrays["probs"].argmax(1) == arrays["labels"]).mean()))
    return found


def test_compare_takes_the_mean_over_seeds(parents, capsys):
    assert main(["compare", str(parents / "small"), str(parents / "wide"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    small, wide = accuracies(parents / "small"), accuracies(parents / "wide")
    assert found["accuracy"] == pytest.approx({"a": statistics.mean(small), "b": statistics.mean(wide)})
    assert found["difference"] == pytest.approx(statistics.mean(small) - statistics.mean(wide))
    assert found["seeds"] == {"a": [0, 1], "b": [0, 1]}
    low, high = found["interval"]
    apart = [a - b for a, b in zip(small, wide, strict=True)]
    margin = stats.t.ppf(0.975, SEEDS - 1) * statistics.stdev(apart) / SEEDS**0.5  # of seeds alone
    assert low <= max(-1, found["difference"] - margin) + 1e-9
    assert high >= min(1, found["difference"] + margin) - 1e-9


def test_the_page_has_both_parents_and_every_seed(parents, tmp_path, open_page, capsys):
    from axe_playwright_python.sync_playwright import Axe

    folders = [parents / "small", parents / "wide"]
    assert main(["report", *map(str, folders), "-o", str(tmp_path / "page.html")]) == 0
    page = open_page(tmp_path / "page.html")
    assert page.locator("h1").inner_text() == "2 runs compared"
    rows = page.locator("#runs tbody tr").all_inner_texts()
    for folder, row in zip(folders, rows, strict=True):
        found = accuracies(folder)
        assert row.startswith(f"{folder.name} mean of 2 seeds\tnot tested\t")
        assert f"{statistics.mean(found):.2%} ± {statistics.stdev(found):.2%}" in row
        part = page.locator("article", has=page.get_by_role("heading", name=folder.name, exact=True))
        shown = part.locator("table.sortable").first.locator("tbody tr").all_inner_texts()
        assert [line.split("\t")[:3] for line in shown] == [
            [str(seed), "val", f"{accuracy:.2%}"] for seed, accuracy in enumerate(found)
        ]
    artifacts = Path(os.environ.get("RESFIT_ARTIFACTS") or tmp_path)
    for medium, width, scheme in (("wide", 1100, "light"), ("dark", 1100, "dark"), ("phone", 375, "light")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=artifacts / f"report-parents-{medium}.png", full_page=True)
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in Axe().run(page).response["violations"]] == []
