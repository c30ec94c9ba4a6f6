"""What lies in a bundle beside its weights, for people and for the Hugging Face Hub: model card, results, the test's receipt.

The card's form is that of huggingface.co/docs/hub/model-cards, with the results as `model-index`; `.eval_results/test.yaml` has
the newer form of huggingface.co/docs/hub/eval-results. Neither holds a path of this machine. No torch.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

from resfit import durable
from resfit.errors import ResourceError, UsageError
from resfit.evaluation.cardtext import card_body
from resfit.evaluation.config import read_config
from resfit.evaluation.markup import yaml
from resfit.recipe import recipe_to_toml
from resfit.runs import Run

CARD, RECEIPT, RESULTS = "README.md", "test.json", ".eval_results/test.yaml"
BESIDE = (CARD, RECEIPT, RESULTS)  # of the weights; all that `write_card` writes
TASK = "image-classification"
Facts = dict[str, Any]


def write_card(run: Run) -> None:
    """Bring the card, the results and the receipt in a finished run's bundle up to date; files that are so stay untouched.

    The card says what run.json, summary.json, test.json, evaluation.json, the recipe and the bundle hold, and no time that
    differs between two runs. Nothing is done without a bundle. Raises ResourceError where a file cannot be read or written,
    UsageError for a config.json that is damaged.
    """
    if not (run.bundle / "config.json").exists():
        return
    facts = read_facts(run)
    receipt = facts["receipt"]
    texts = {
        RECEIPT: json.dumps(receipt, indent=2, allow_nan=False) + "\n" if receipt else None,
        RESULTS: results_text(receipt) if receipt else None,
        CARD: card_text(facts),
    }
    for name, text in texts.items():
        path = run.bundle / name
        if text is None:
            durable.remove(path, must=True)
        elif not path.exists() or path.read_bytes() != text.encode():
            durable.write_text(path, text)


def offer_card(run: Run) -> None:
    """Do as `write_card`, for a caller whose answer is another: a folder where that fails stays as it is."""
    with contextlib.suppress(ResourceError, UsageError):
        write_card(run)


def read_facts(run: Run) -> Facts:
    """Return all that a card is made of, by the file it comes from; the receipt and the evaluation None where there is none."""
    receipt, evaluation = _read(run.receipt_file), _read(run.folder / "evaluation.json")
    recipe = run.recipe
    if recipe.init is not None:  # paths of this machine
        recipe = recipe.model_copy(update={"init": "BUNDLE"})
    if recipe.distill.teacher is not None:
        recipe = recipe.model_copy(update={"distill": recipe.distill.model_copy(update={"teacher": "TEACHER"})})
    return {
        "info": run.info,
        "summary": run.summary,
        "config": read_config(run.bundle).values,
        "receipt": None if receipt is None else {key: value for key, value in receipt.items() if key != "source"},
        "evaluation": evaluation,
        "recipe": recipe_to_toml(recipe),
        "onnx": (run.bundle / "model.onnx").exists(),
    }


def _read(path: Path) -> Facts | None:
    """Return what is there; what is damaged is as good as absent: a card without it says less, and nothing wrong."""
    try:
        value: Facts = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        raise ResourceError(f"{path}: cannot be read: {error.strerror}. Mend that, and run it again.") from error
    return value


def card_text(facts: Facts) -> str:
    """Return the whole card: front matter in YAML, then Markdown."""
    return f"---\n{yaml(_front_matter(facts))}---\n\n{card_body(facts)}"


def dataset_id(fingerprint: str) -> str:
    """Return what stands for a data set whose place on the Hub is not known; `push --dataset` puts the place there."""
    return f"local/{fingerprint}"


def results_text(receipt: Facts) -> str:
    """Return the test's score in the form of `.eval_results/*.yaml`: the fraction of right answers."""
    low, high = receipt["interval"]
    views = receipt["tta_views"]
    notes = f"accuracy, 95% interval {low:.4f} to {high:.4f}, n {receipt['n']}, opening {receipt['opening']} of the test set"
    entry = {
        "dataset": {"id": dataset_id(receipt["fingerprint"]), "task_id": TASK},
        "value": receipt["accuracy"],
        "date": receipt["when"],
        "notes": notes + (f", mean of {views} views an image" if views > 1 else ", one view an image"),
    }
    return yaml([entry])


def _front_matter(facts: Facts) -> Facts:
    info, summary, receipt = facts["info"], facts["summary"], facts["receipt"]
    results = []
    if summary["val"]:
        what = "Accuracy on the images that chose the weights"
        results.append(_result(info["data"]["val"], "validation", what, summary["val"]["accuracy"]))
    if receipt:
        results.append(_result(receipt["fingerprint"], "test", "Accuracy", receipt["accuracy"]))
    tags = [TASK, "resfit", "safetensors", *(["onnx"] if facts["onnx"] else [])]
    front: Facts = {"library_name": "resfit", "pipeline_tag": TASK, "tags": tags, "metrics": ["accuracy"]}
    return front | ({"model-index": [{"name": info["name"], "results": results}]} if results else {})


def _result(fingerprint: str, split: str, name: str, accuracy: float) -> Facts:
    return {
        "task": {"type": TASK, "name": "Image classification"},
        "dataset": {"type": dataset_id(fingerprint), "name": f"images {fingerprint}", "split": split},
        "metrics": [{"type": "accuracy", "name": name, "value": accuracy}],
    }
