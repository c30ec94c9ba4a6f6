"""The whole path on data that needs no network: scikit-learn's handwritten digits, 8x8, brought to 32x32 RGB."""

import sys
from pathlib import Path
from typing import Any

from PIL import Image

from resfit.data.images import PixelRule
from resfit.data.sources import load_split
from resfit.escaping import visible
from resfit.evaluation.answers import predict
from resfit.evaluation.holdout import test
from resfit.training.launch import train

RECIPE, DATA = "digits", "digits"


def run_demo(out: Path | None = None) -> dict[str, Any]:
    """Train the `digits` recipe under its budget, test it once, predict four files, and say where everything is."""
    run = train(RECIPE, DATA, out)
    receipt = test(run.folder)
    low, high = receipt["interval"]
    files = write_samples(run.folder / "samples", 4)
    answers = predict([run.folder], files)
    summary = run.summary
    lines = [
        f"test accuracy   {receipt['accuracy']:.2%}  (95% {low:.2%} to {high:.2%}, n {receipt['n']})",
        f"test split      opened once for this run; opening number {receipt['opening']} of it on this machine",
        f"budget          {summary['verdict']}",
        f"training        {summary['train_seconds']:.1f} s on {summary['device']}",
        *(
            f"predicted       {Path(name).name}: {label}"
            for name, label in zip(answers.ids, answers.labels, strict=True)
        ),
        f"everything      {run.folder}: recipe.toml, metrics.jsonl, summary.json, test.json, bundle/",
    ]
    print("\n".join(map(visible, lines)), file=sys.stderr)
    return {"run": str(run.folder), "test_accuracy": receipt["accuracy"], "train_seconds": summary["train_seconds"]}


def write_samples(folder: Path, count: int) -> list[Path]:
    """Write the first validation images as PNG files to `folder`, named by their class, and return their paths."""
    images = load_split(DATA, "val", PixelRule(32))
    assert images.labels is not None
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, pixels in enumerate(images.images[:count]):
        files.append(folder / f"{number}-is-a-{images.class_names[images.labels[number]]}.png")
        Image.fromarray(pixels.transpose(1, 2, 0)).save(files[-1])
    return files
