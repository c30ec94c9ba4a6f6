"""A real run trained on images whose classes and files bear hostile names, tested, evaluated by the contract; a browser."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resfit.cli import main
from resfit.data.images import PixelRule
from resfit.data.sources import load_split
from resfit.runs import Run

CLASSES = (
    "<img src=x onerror=window.pwned=1>",
    "\"><b onmouseover='window.pwned=1'>bold",
    "=cmd|' !A0",
    "\x1b[31mred\x1b[0m",
    "\u202egnp.evil",
    "{{ 7 * 7 }} אבג",
)
FILES = (
    "<svg onload=window.pwned=1>",
    "=1+1",
    "\x1b]0;title\x07",
    "\u202egpj",
    "plain\nline",
    "' onclick='window.pwned=1",
)
RECIPE = """
name = "{name}"
network = "resnet:widths=8,16:blocks_per_stage=1,1:image_size=16"
[budget]
max_params = "20k"
[optim]
lr = 0.02
[train]
epochs = {epochs}
batch_size = 32
"""


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A folder with: `data` (train and test of hostile names), `<b>hostile & 'run'`, `plain` (other widths), `seeds` (3)."""
    from sklearn.datasets import load_digits

    digits, root = load_digits(), tmp_path_factory.mktemp("report")
    pixels = np.round(digits.images * 255 / 16).astype(np.uint8)
    for label, name in enumerate(CLASSES):
        for number, image in enumerate(pixels[digits.target == label][:50]):
            folder = root / "data" / ("train" if number < 40 else "test") / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number:02d}{FILES[number % len(FILES)]}.png")
    saved = dict(os.environ)
    os.environ |= {"RESFIT_CACHE": str(root / "cache"), "RESFIT_STATE": str(root / "state")}
    try:
        for folder, name, epochs in ((root / "<b>hostile & 'run'", "hostile", 4), (root / "plain", "r5", 1)):
            recipe = root / f"{name}.toml"
            recipe.write_text(RECIPE.format(name=name, epochs=epochs))
            assert (
                main(["train", str(recipe), "--data", str(root / "data"), "--out", str(folder), "--device", "cpu"]) == 0
            )
        assert main(["test", str(root / "<b>hostile & 'run'")]) == 0
        write_evaluation(Run(root / "<b>hostile & 'run'"))
        make_seeds(root / "plain", root / "seeds", (0.0, 0.05, -0.05))
        yield root
    finally:
        os.environ.clear()
        os.environ.update(saved)


@pytest.fixture(scope="module")
def browser(need):
    for name in ("chromium", "playwright", "axe_playwright_python"):
        need(name)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        launched = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser):
    """Open a file; what goes wrong in it and what it asks for is in `.wrong` and `.asked`, to be empty at the end."""
    contexts, wrong, asked = [], [], []

    def open_file(file: Path, width: int = 1100, scheme: str = "light", medium: str = "screen", **more):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **more)
        contexts.append(context)
        page = context.new_page()
        page.emulate_media(media=medium, color_scheme=scheme)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("request", lambda request: request.url.startswith("data:") or asked.append(request.url))
        page.goto(file.as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert not wrong
    assert len(asked) == len(contexts)  # the page itself, and nothing else


@pytest.fixture
def hostile(runs, monkeypatch) -> Run:
    """The run of hostile names; a test that changes it must copy it first."""
    monkeypatch.setenv("RESFIT_CACHE", str(runs / "cache"))
    monkeypatch.setenv("RESFIT_STATE", str(runs / "state"))
    return Run(runs / "<b>hostile & 'run'")


def make_seeds(run: Path, parent: Path, shifts: tuple[float, ...]) -> None:
    """Make a parent of seeds as `train --seeds` does, of copies of a run whose val accuracies are shifted."""
    for seed, shift in enumerate(shifts):
        folder = parent / f"seed-{seed}"
        shutil.copytree(run, folder)
        for file in (folder / "run.json", folder / "summary.json"):
            value = json.loads(file.read_text()) | {"seed": seed}
            if value.get("val"):
                value["val"]["accuracy"] += shift
            file.write_text(json.dumps(value))
    (parent / "seeds.json").write_text("{}")


def write_evaluation(run: Run) -> None:
    """Write evaluation.json by the contract, counted here from the predictions; corruptions and duplicates are made up."""
    with np.load(run.folder / "predictions" / "val.npz") as arrays:
        probs, labels = arrays["probs"].astype(float), arrays["labels"]
    val = load_split(run.info["source"], "val", PixelRule(**run.info["pixel_rule"]), 0.1)
    names, predicted, sure = run.info["class_names"], probs.argmax(1), probs.max(1)
    right = predicted == labels
    wrong = [int(row) for row in np.argsort(-sure, kind="stable") if not right[row]]
    images = [
        {"id": val.ids[row], "row": row, "label": int(labels[row]), "predicted": int(predicted[row])} for row in wrong
    ]
    bins = []
    for k in range(15):
        here = (sure > k / 15) & (sure <= (k + 1) / 15)
        means = {"confidence": sure[here].mean(), "accuracy": right[here].mean()} if here.any() else {}
        bins.append(
            {"low": k / 15, "high": (k + 1) / 15, "n": int(here.sum()), "confidence": None, "accuracy": None} | means
        )
    ece = sum(row["n"] * abs(row["confidence"] - row["accuracy"]) for row in bins if row["n"]) / len(labels)
    order = np.argsort(-sure)
    points = [(k, sure[order[k - 1]], right[order[:k]].mean()) for k in range(1, len(labels) + 1)]
    summary = run.summary
    value = {"format": "resfit-evaluation-1", "split": "val", **summary["val"]}
    value |= {key: summary[key] for key in ("train_images", "weights", "tta_views", "tta_below")}
    value |= {
        "class_names": names,
        "confusion": [
            [int(((labels == i) & (predicted == j)).sum()) for j in range(len(names))] for i in range(len(names))
        ],
        "mistakes": [row | {"confidence": float(sure[row["row"]])} for row in images][:24],
        "calibration": {
            "ece": ece,
            "bins": bins,
            "temperature": 1.25,
            "scaled": {"nll": 1.5, "ece": 0.03, "bins": bins},
        },
        "selective": {
            "aurc": 0.4,
            "points": [{"coverage": k / len(labels), "threshold": t, "accuracy": a} for k, t, a in points],
        },
        "corruptions": {
            "n": len(labels),
            "clean": summary["val"]["accuracy"],
            "mean": 0.2,
            "rows": [
                {"name": name, "strength": s, "accuracy": summary["val"]["accuracy"] * (1 - 0.15 * s)}
                for name in ("blur", "gaussian-noise", "jpeg")
                for s in range(1, 6)
            ],
        },
        "duplicates": {
            "exact": 1,
            "near": 1,
            "pairs": [
                {
                    "val": val.ids[1],
                    "row": 1,
                    "train": "x<script>",
                    "train_row": 2,
                    "distance": 0.25,
                    "same_label": False,
                }
            ],
            "accuracy_without": {"n": len(labels) - 2, "accuracy": 0.5, "interval": [0.3, 0.7]},
        },
        "balance": {"train": dict.fromkeys(names, 36), "val": dict.fromkeys(names, 4), "ratio": 1.0},
        "label_issues": 7,
        "suspicious": [row | {"score": 0.9} for row in images[:10]],
    }
    (run.folder / "evaluation.json").write_text(json.dumps(value))
