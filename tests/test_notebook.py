"""docs/own_images.ipynb: executed whole, from a folder of photographs to an exported file that is then read here."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "own_images.ipynb"


def test_no_output_is_stored():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert sum(cell["cell_type"] == "code" for cell in cells) > 10
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.fixture(scope="module")
def executed(tmp_path_factory, need):
    """The folder in which every cell was executed, as from a fresh checkout, and the text that each printed, by its id."""
    for package in ("skimage", "nbclient", "ipykernel", "onnxruntime"):
        need(package)
    import nbclient
    import nbformat

    top = tmp_path_factory.mktemp("checkout")
    (top / "docs").mkdir()
    (top / "benchmarks").symlink_to(ROOT / "benchmarks")
    notebook = nbformat.read(NOTEBOOK, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # `!resfit`
        patch.setenv("RESFIT_CACHE", str(top / "cache"))
        patch.setenv("RESFIT_STATE", str(top / "state"))
        patch.setenv("IPYTHONDIR", str(top / "ipython"))
        place = {"metadata": {"path": str(top / "docs")}}
        nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=place).execute()
    said = {
        cell["id"]: "".join(part.get("text", "") for part in cell["outputs"])
        for cell in notebook.cells
        if cell["cell_type"] == "code"
    }
    return top / "docs", said


def chance(counts):
    """The accuracy that one guess in a thousand would reach that always names the largest class."""
    from scipy.stats import binom

    return binom.ppf(0.999, sum(counts), max(counts) / sum(counts)) / sum(counts)


def test_from_a_folder_to_a_file_that_answers_without_resfit(executed):
    import onnxruntime

    folder, said = executed
    assert "can be trained on" in said["checking"]
    (file,) = folder.glob("runs/*/export/model.onnx")
    session = onnxruntime.InferenceSession(file)
    names = sorted(place.name for place in (folder / "photographs" / "val").iterdir())
    right, counts = 0, []
    for label, name in enumerate(names):
        images = [Image.open(image) for image in sorted((folder / "photographs" / "val" / name).iterdir())]
        squares = [ImageOps.pad(image.convert("RGB"), (32, 32), Image.Resampling.BICUBIC, "gray") for image in images]
        pixels = np.stack([np.asarray(square) for square in squares]).transpose(0, 3, 1, 2)
        right += int((session.run(None, {"images": pixels})[0].argmax(1) == label).sum())
        counts.append(len(images))
    printed = float(re.search(r"accuracy of model.onnx on val: ([\d.]+)", said["using"]).group(1))
    assert printed == round(right / sum(counts), 4)
    assert printed > 2 * chance(counts)
    assert f"{right / sum(counts):.1%} of {sum(counts)} images" in said["evaluating"]
