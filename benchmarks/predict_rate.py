"""Images a second of `resfit.predict` from JPEG files on the CPU, beside torch and ONNX Runtime; prints one JSON object.

Usage: python benchmarks/predict_rate.py FOLDER [--network r4-lighter] [--peer eager|onnx|onnx-64] [--images 10000]
[--by torch|onnxruntime] [--peer-images 500] [--repeats 5]. The network has random weights, in a bundle, and with `--by
onnxruntime` its model.onnx, which predict then answers with. The peers are plain loops over a fixed subset
of the files, with as many threads, in alternation with resfit: `eager` opens a file with Pillow, makes it float and calls
the torch network, one image at a time; `onnx` does so with an ONNX Runtime session, which folds the BatchNorms itself;
`onnx-64` hands it 64 images at a time. These need the packages onnx, onnxscript and onnxruntime. `first_answer_seconds` is
what one image takes in a new process once torch and resfit.predict have been imported: bundle, decoding, answer.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import resfit
from resfit.evaluation.bundle import load_bundle, write_bundle
from resfit.machine import default_threads
from resfit.models.winograd import Conv3x3
from resfit.recipefile import load_recipe
from result import show

GOALS = {"eager": 4.0, "onnx": 1.5, "onnx-64": 1.5}
WORDS = {
    "eager": "torch eager, one image at a time from Pillow",
    "onnx": "ONNX Runtime, one image at a time from Pillow",
    "onnx-64": "ONNX Runtime, 64 images at a time from Pillow",
}
MEAN = np.array([0.49, 0.48, 0.45], np.float32)[:, None, None]
STD = np.array([0.25, 0.24, 0.26], np.float32)[:, None, None]
FIRST = """
import sys, time
import torch, resfit
resfit.predict
started = time.perf_counter()
resfit.predict([sys.argv[1]], [sys.argv[2]], "cpu")
print(time.perf_counter() - started)
"""
Answer = Callable[[np.ndarray], np.ndarray]  # float32 (N, 3, 32, 32) to logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", default="r4-lighter")
    parser.add_argument("--peer", choices=GOALS, default="eager")
    parser.add_argument("--by", choices=("torch", "onnxruntime"), default="torch")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--peer-images", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    paths = sorted(map(str, options.folder.rglob("*.jpg")))
    random.Random(0).shuffle(paths)
    paths, some = paths[: options.images], paths[: options.peer_images]
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch) / "bundle"
        write(bundle, options.network)
        if options.by == "onnxruntime":
            add_onnx(bundle)
        answer, batch = peer(options.peer, bundle, Path(scratch)), 64 if options.peer == "onnx-64" else 1
        compare(bundle, answer, some[:8])
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(options.repeats):
            ours.append(len(paths) / seconds(lambda: resfit.predict([bundle], paths, "cpu")))
            theirs.append(len(some) / seconds(lambda: loop(answer, some, batch)))
        first = [first_answer(bundle, some[0]) for _ in range(options.repeats)]
    side = ", by ONNX Runtime" if options.by == "onnxruntime" else ""
    show(
        f"images/s of resfit.predict from JPEG files of 32 pixels, CPU, {options.network}{side}",
        ours,
        GOALS[options.peer],
        data=f"{len(paths)} files of {options.folder.name}",
        digits=1,
        goal_is="ratio at least",
        peer=f"{WORDS[options.peer]}, {len(some)} of the files",
        peer_values=theirs,
        threads=default_threads(),
        torch=torch.__version__,
        first_answer_seconds=round(statistics.median(first), 3),
        first_answer_goal=1.0,
    )


def write(folder: Path, network: str) -> None:
    settings = [f"data.mean={MEAN.ravel().tolist()}", f"data.std={STD.ravel().tolist()}"]
    recipe = load_recipe(network, settings)
    classes = [f"class {k}" for k in range(recipe.network.classes)]
    write_bundle(folder, recipe, resfit.build(recipe.network).state_dict(), classes)


def add_onnx(bundle: Path) -> None:
    """Give a bundle its model.onnx, as `export` does once its gate has passed: with random weights there is no val to ask."""
    from resfit.shipping import onnx
    from resfit.shipping.export import _config, _metadata
    from resfit.shipping.graph import make_graph

    loaded = load_bundle(bundle, "cpu")
    model = onnx.to_onnx(make_graph(loaded.model, loaded.mean, loaded.std, loaded.rule.size, False), loaded.rule.size)
    (bundle / "model.onnx").write_bytes(onnx.encode(model, _metadata(_config(loaded, bundle, "float32"))))


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def first_answer(bundle: Path, path: str) -> float:
    words = [sys.executable, "-c", FIRST, str(bundle), path]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def loop(answer: Answer, paths: Sequence[str], batch: int) -> np.ndarray:
    """Answer files in a plain loop, `batch` at a time."""
    labels = [
        answer(np.stack([pixels(path) for path in paths[start : start + batch]])).argmax(1)
        for start in range(0, len(paths), batch)
    ]
    return np.concatenate(labels)


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        values = np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1) / 255
    return np.asarray((values - MEAN) / STD)


def peer(name: str, bundle: Path, scratch: Path) -> Answer:
    model = load_bundle(bundle, "cpu").model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for module in model.modules():
        if isinstance(module, Conv3x3):  # the peer's convolutions are torch's own
            module.__class__ = torch.nn.Conv2d  # type: ignore[assignment]
    if name != "eager":
        return onnx_answer(model, scratch / "network.onnx")

    @torch.inference_mode()
    def answer(inputs: np.ndarray) -> np.ndarray:
        logits: np.ndarray = model(torch.from_numpy(inputs)).numpy()
        return logits

    return answer


def onnx_answer(model: torch.nn.Module, file: Path) -> Answer:
    import onnxruntime

    shapes = ({0: torch.export.Dim("images")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.zeros(2, 3, 32, 32),)
        torch.onnx.export(model, example, file, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False)
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = default_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def answer(inputs: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {name: inputs})[0])

    return answer


def compare(bundle: Path, answer: Answer, paths: Sequence[str]) -> None:
    """Refuse to time two things that do not answer alike; what each does first is done then too."""
    logits = answer(np.stack([pixels(path) for path in paths]))
    theirs = torch.from_numpy(logits).softmax(1).numpy()
    difference = np.abs(resfit.predict([bundle], paths, "cpu").probs - theirs).max()
    assert difference < 1e-4, f"the peer's probabilities differ by {difference}"


if __name__ == "__main__":
    main()
