"""The model card's Markdown, section by section: facts in (`card.read_facts`), text out. No torch."""

from typing import Any

from resfit.budget import duration_text
from resfit.evaluation.markup import fenced, markdown

Facts = dict[str, Any]
MOST = 200  # classes that are listed one by one

READ_ONNX = """import json, sys
import numpy as np, onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("model.onnx")
about = json.loads(session.get_modelmeta().custom_metadata_map["resfit"])
image = ImageOps.exif_transpose(Image.open(sys.argv[1])).convert("RGBA")
image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
pixels = np.asarray(RESIZED)
logits = session.run(None, {"images": pixels.transpose(2, 0, 1)[None]})[0][0]
probs = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
print(about["class_names"][probs.argmax()], round(float(probs.max()), 4))"""

RESIZED = {  # in words, and by Pillow
    "squash": ("squashed to {0}x{0}", "image.resize(({0}, {0}), Image.Resampling.BICUBIC)"),
    "crop": (
        "the square in the middle brought to {0}x{0}",
        "ImageOps.fit(image, ({0}, {0}), Image.Resampling.BICUBIC)",
    ),
    "pad": (
        "the longer side brought to {0}, in the middle of a grey (128) square of {0}x{0},",
        'ImageOps.pad(image, ({0}, {0}), Image.Resampling.BICUBIC, "gray")',
    ),
}


def card_body(facts: Facts) -> str:
    """Return the card below its front matter."""
    sections = (_opening, _scores, _classes, _depth, _use, _onnx, _preprocessing, _provenance, _limits)
    return "\n\n".join(text for text in (section(facts) for section in sections) if text) + "\n"


def _opening(facts: Facts) -> str:
    info, summary, config = facts["info"], facts["summary"], facts["config"]
    size = config["preprocessing"]["size"]
    return "\n".join(
        [
            f"# {markdown(info['name'])}",
            "",
            f"A residual network of the family {markdown(config['spec']['family'])} that tells "
            f"{len(config['class_names'])} classes of images apart, seen at {size}x{size} pixels. It has "
            f"{config['params']:,} parameters and takes {config['macs']:,} multiply-accumulates an image.",
            "",
            f"Budget: {summary['verdict']}.",
        ]
    )


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _scores(facts: Facts) -> str:
    summary, receipt = facts["summary"], facts["receipt"]
    rows = []
    if summary["val"]:
        rows.append(["validation, which chose the weights", *_score(summary["val"])])
    if receipt:
        opening = receipt["opening"]
        rows.append([f"test, opening {opening} of this test set", *_score(receipt)])
    lines = ["## How good it is", ""]
    if rows:
        lines += [_table(["split", "accuracy", "95% interval", "images", "negative log-likelihood"], rows), ""]
    else:
        lines += ["Not measured yet: no image was held out from training, and the test split has not been read.", ""]
    views, below = summary["tta_views"], summary.get("tta_below", 1.0)
    seen = "no test-time augmentation" if views == 1 else f"mean of {views} views an image (test-time augmentation)"
    if views > 1 and below < 1:
        seen += f" where the largest probability of one view is below {below:g}"
    chosen = f"Trained on {summary['train_images']:,} images; weights: {summary['weights']} "
    chosen += f"(epoch {summary['epoch'] + 1} of {summary['epochs']}); {seen}. Intervals are Wilson's."
    later = [] if receipt else ["", "The test split has not been read yet."]
    return "\n".join([*lines, chosen, *later])


def _score(score: Facts) -> list[str]:
    low, high = score["interval"]
    return [f"{score['accuracy']:.2%}", f"{low:.2%} to {high:.2%}", f"{score['n']:,}", f"{score['nll']:.4f}"]


def _classes(facts: Facts) -> str:
    names = facts["config"]["class_names"]
    splits = {"validation": facts["summary"]["val"], "test": facts["receipt"]}
    splits = {name: score["classes"] for name, score in splits.items() if score}
    rows = []
    for index, name in enumerate(names[:MOST]):
        rows.append([str(index), markdown(name), *(_share(classes.get(name)) for classes in splits.values())])
    lines = ["## Classes", "", _table(["index", "class", *splits], rows)]
    if len(names) > MOST:
        lines += ["", f"{len(names) - MOST:,} more are in config.json."]
    return "\n".join(lines)


def _share(row: Facts | None) -> str:
    if row is None or not row["n"]:
        return "no image"
    low, high = row["interval"]
    return f"{row['accuracy']:.1%} ({low:.1%} to {high:.1%}, n {row['n']:,})"


def _depth(facts: Facts) -> str:
    """Return what `evaluate --full` found, where it was asked."""
    full = facts["evaluation"]
    if full is None:
        return ""
    lines = ["## Beyond accuracy", "", f"All on the {full['n']:,} validation images.", ""]
    calibration = full.get("calibration")
    if calibration:
        scaled = calibration["scaled"]
        lines.append(
            f"- Calibration: expected calibration error {calibration['ece']:.4f}, negative log-likelihood {full['nll']:.4f}; "
            f"with logits divided by the temperature {calibration['temperature']:.3f} (cross-fitted) "
            f"{scaled['ece']:.4f} and {scaled['nll']:.4f}."
        )
    if selective := full.get("selective"):
        lines.append(f"- Selective prediction: area under the risk-coverage curve {selective['aurc']:.4f}.")
    if twins := full.get("duplicates"):
        without = twins["accuracy_without"]
        rest = f"; accuracy without them {without['accuracy']:.2%} (n {without['n']:,})" if without["n"] else ""
        lines.append(
            f"- Images that training has seen: {twins['exact']} exact and {twins['near']} near duplicates{rest}."
        )
    if worse := full.get("corruptions"):
        lines += ["", f"Accuracy on {worse['n']:,} of them, damaged, by strength from 1 to 5 (as they are: "]
        lines[-1] += f"{worse['clean']:.1%}; mean over all: {worse['mean']:.1%}):"
        lines += ["", _corruptions(worse["rows"])]
    return "\n".join(lines)


def _corruptions(rows: list[Facts]) -> str:
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        found.setdefault(row["name"], {})[row["strength"]] = row["accuracy"]
    strengths = sorted({row["strength"] for row in rows})
    shown = [
        [markdown(name), *(f"{by[k]:.1%}" if k in by else "" for k in strengths)] for name, by in sorted(found.items())
    ]
    return _table(["corruption", *map(str, strengths)], shown)


def _use(facts: Facts) -> str:
    size = facts["config"]["preprocessing"]["size"]
    command = "resfit predict FOLDER photos/ --names -o answers.csv"
    classes = len(facts["config"]["class_names"])
    code = f"""import resfit

bundle = resfit.load("FOLDER")
probs = bundle.probs(images)  # uint8 (N, 3, {size}, {size}), RGB, 0 to 255 -> float32 (N, {classes})
names = [bundle.class_names[k] for k in probs.argmax(1)]"""
    text = (
        "FOLDER is the folder of this file (`resfit pull OWNER/NAME -o FOLDER` brings it from the Hub). Images may have any "
        "size and mode:"
    )
    return "\n\n".join(["## Use", text, fenced(command), "In Python:", fenced(code, "python")])


def _onnx(facts: Facts) -> str:
    if not facts["onnx"]:
        return ""
    views = facts["summary"]["tta_views"]
    text = (
        "`model.onnx` takes uint8 images (N, 3, S, S), any N, and gives logits; the normalisation is inside. It was written "
        "only after it had answered as the network does on the whole validation split. Without torch and resfit:"
    )
    after = "Images of 16 bits a channel must be divided by 256 first."
    if views > 1:
        after += (
            f" This is one view an image; the accuracies above are of {views}: `resfit.evaluation.runtime` takes them."
        )
    rule = facts["config"]["preprocessing"]
    code = READ_ONNX.replace("RESIZED", RESIZED[rule.get("resize", "squash")][1].format(rule["size"]))
    return "\n\n".join(["## Use without torch", text, fenced(code, "python"), after])


def _preprocessing(facts: Facts) -> str:
    rule = facts["config"]["preprocessing"]
    mean, std = (", ".join(f"{value:g}" for value in rule[key] or ()) for key in ("mean", "std"))
    resized = RESIZED[rule.get("resize", "squash")][0].format(rule["size"])
    return (
        f"## Preprocessing\n\nEXIF orientation applied; alpha over white; 16 bits divided by 256; RGB; {resized} with "
        f"Pillow's antialiased bicubic filter, unless it has that size; divided by 255, less {mean}, divided by {std} "
        "(red, green, blue). config.json has the same, under timm's names too."
    )


def _provenance(facts: Facts) -> str:
    info, summary, receipt = facts["info"], facts["summary"], facts["receipt"]
    versions = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
    rows = [
        ["seed", str(info["seed"])],
        ["training images' fingerprint", f"{info['data']['train']} ({info['images']['train']:,} images)"],
        ["validation images' fingerprint", info["data"]["val"] or "none held out"],
        ["test images' fingerprint", receipt["fingerprint"] if receipt else "not read yet"],
        ["device", f"{info['device']}, {info.get('precision', 'float32')}"],
        ["versions", versions],
        ["resfit's commit", info["commit"] or "installed from a wheel"],
        ["rollbacks", str(len(summary.get("rollbacks") or []))],
    ]
    if limit := summary.get("time_limit"):
        rows.insert(1, ["time limit", limit_text(limit)])
        text = "The recipe. The clock chose the epochs; those it came to train one like it again: `resfit train recipe.toml"
        text += f" --data PATH --set train.epochs={limit['epochs']}`:"
    else:
        text = "The recipe, which trains it again with `resfit train recipe.toml --data PATH`:"
    return "\n\n".join(["## Where it comes from", _table(["", ""], rows), text, fenced(facts["recipe"], "toml")])


def limit_text(limit: Facts) -> str:
    """Return what summary.json's time_limit says, in words."""
    return f"{duration_text(limit['seconds'])}: {limit['epochs']:g} epochs in the end"


def _limits(facts: Facts) -> str:
    summary, receipt = facts["summary"], facts["receipt"]
    seen = []
    if summary["val"]:
        seen.append(f"{summary['val']['n']:,} validation images")
    if receipt:
        seen.append(f"{receipt['n']:,} test images")
    lines = ["## Limits", ""]
    measured = f"the {' and '.join(seen)}" if seen else "no image that was held out"
    lines.append(f"- Measured on {measured} only: on images from elsewhere it may be much worse.")
    lines.append("- It answers with one of its classes for any image, one that shows none of them too.")
    if summary["val"]:
        lines.append("- The validation images chose the weights, so that the accuracy on them flatters.")
    if facts["evaluation"] is None:
        lines.append("- Calibration, robustness and duplicates were not looked at (`resfit evaluate --full` does).")
    return "\n".join(lines)
