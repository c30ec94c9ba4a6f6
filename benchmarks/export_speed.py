"""Images a second of exported ONNX files on the CPU beside PyTorch eager, at batch 1 and 64; prints a JSON object a figure.

Usage: python benchmarks/export_speed.py NETWORK|RUN [--data PATH] [--repeats 9] [--seconds 1] [--results DIR]. A network gets
random weights, and random pixels to calibrate int8 on: rates do not depend on them. Of a run, `export` writes both files
through their gates, and one figure more is shown: the points of accuracy that int8 loses on val, which of a refit run are
images that it was trained on.

The peer is the network as PyTorch has it: contiguous, torch's own convolutions, BatchNorms apart, pixels normalised by two
operations. `resfit_values` is the network as resfit predicts with it: channels last, Winograd's convolutions. All are timed in
turn, --repeats times, with as many threads.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import resfit
from resfit.evaluation.bundle import Bundle, load_bundle, write_bundle
from resfit.evaluation.predict import predict_logits
from resfit.machine import default_threads, tune
from resfit.recipefile import load_recipe
from resfit.shipping import onnx
from resfit.shipping.gate import BOUNDS
from resfit.shipping.graph import make_graph, plain
from resfit.shipping.quantize import quantize
from result import keep, show

BATCHES = (1, 64)
GOALS = {("float32", 1): 1.5}
SMALLER = 3.5
Answer = Callable[[np.ndarray], np.ndarray]  # uint8 (n, 3, S, S) to logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network")
    parser.add_argument("--data")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    tune(default_threads())
    with tempfile.TemporaryDirectory() as scratch:
        is_run = (Path(options.network) / "run.json").is_file()
        prepare = exported if is_run else random_weights
        name, bundle, files, parities = prepare(options.network, Path(scratch), options.data)
        answers = {precision: onnx_answer(file) for precision, file in files.items()}
        sizes = {precision: file.stat().st_size for precision, file in files.items()}
    peer = plain(bundle.model).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    answers |= {
        "peer": eager(peer, bundle),
        "resfit": partial(predict_logits, bundle.model, mean=bundle.mean, std=bundle.std),
    }
    slug, size = Path(name).name.replace("-", "_"), bundle.rule.size
    for batch in BATCHES:
        images = np.random.default_rng(batch).integers(0, 256, (batch, 3, size, size), dtype=np.uint8)
        rates: dict[str, list[float]] = {key: [] for key in answers}
        for answer in answers.values():
            answer(images)  # what each does first is done then
        for _ in range(options.repeats):
            for key, answer in answers.items():
                rates[key].append(rate(answer, images, options.seconds))
        for precision in files:
            value = show(
                f"CPU images/s of the exported ONNX file, {precision}, batch {batch}, {name}",
                rates[precision],
                GOALS.get((precision, batch)),
                data="random pixels",
                digits=1,
                goal_is="ratio at least",
                peer="PyTorch eager, contiguous, torch's own convolutions",
                peer_values=rates["peer"],
                resfit_values=[round(one, 1) for one in rates["resfit"]],
                bytes=sizes[precision],
                threads=default_threads(),
                torch=torch.__version__,
            )
            keep(options.results, f"export_{precision}_{batch}_{slug}", value)
    ratio = show(
        f"how many times smaller the int8 ONNX file is than the float32 one, {name}",
        [sizes["float32"] / sizes["int8"]],
        SMALLER,
        digits=3,
        bytes=sizes,
    )
    keep(options.results, f"export_int8_bytes_{slug}", ratio)
    if parities:
        lost = parities["int8"]["network_accuracy"] - parities["int8"]["accuracy"]
        bound = BOUNDS["int8"].loss or 0.0
        refit = json.loads((Path(options.network) / "run.json").read_text())["refit"]
        loss = show(
            f"points of accuracy that int8 loses on {'images trained on' if refit else 'val'}, {name}",
            [100 * lost],
            100 * bound,
            data=f"{Path(options.data).name if options.data else 'the source of the run'}, val",
            digits=3,
            goal_is="value at most",
            parity=parities,
        )
        keep(options.results, f"export_int8_loss_{slug}", loss)


def random_weights(
    network: str, scratch: Path, data: str | None
) -> tuple[str, Bundle, dict[str, Path], dict[str, Any]]:
    """Write both files of a network with random weights; they hold no metadata and have passed no gate."""
    recipe = load_recipe(network, ["data.mean=[0.49,0.48,0.45]", "data.std=[0.25,0.24,0.26]"])
    classes = [f"class {k}" for k in range(recipe.network.classes)]
    write_bundle(scratch, recipe, resfit.build(recipe.network).state_dict(), classes)
    bundle = load_bundle(scratch, "cpu")
    size = bundle.rule.size
    full = onnx.to_onnx(make_graph(bundle.model, bundle.mean, bundle.std, size), size)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 3, size, size), dtype=np.uint8)
    files = {}
    for precision, model in (("float32", full), ("int8", quantize(full, pixels))):
        files[precision] = scratch / f"{precision}.onnx"
        files[precision].write_bytes(onnx.encode(model, {}))
    return network, bundle, files, {}


def exported(run: str, scratch: Path, data: str | None) -> tuple[str, Bundle, dict[str, Path], dict[str, Any]]:
    """Export a run in both precisions; raises GateError where one does not pass."""
    made = {key: resfit.export(run, int8=key == "int8", data=data, out=scratch) for key in ("float32", "int8")}
    files = {key: Path(value["file"]) for key, value in made.items()}
    bundle = load_bundle(run, "cpu")
    return str(bundle.config["name"]), bundle, files, {key: value["parity"] for key, value in made.items()}


def onnx_answer(file: Path) -> Answer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = default_threads()
    session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(None, {"images": images})[0])


def eager(model: torch.nn.Module, bundle: Bundle) -> Answer:
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (bundle.mean, bundle.std))

    @torch.inference_mode()
    def answer(images: np.ndarray) -> np.ndarray:
        logits: np.ndarray = model((torch.from_numpy(images) / 255 - mean) / std).numpy()
        return logits

    return answer


def rate(answer: Answer, images: np.ndarray, seconds: float) -> float:
    """Return images a second, over calls for about `seconds`."""
    started, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - started < seconds:
        answer(images)
        calls += 1
    return calls * len(images) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
