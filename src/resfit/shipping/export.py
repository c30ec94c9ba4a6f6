"""`export`: a trained network as one file for other programs, written only where it answers as the network does."""

import hashlib
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import resfit
from resfit import durable
from resfit.data.images import ImageSet
from resfit.data.sources import Split, load_split
from resfit.errors import DataError, GateError, MissingExtraError, UsageError, nearest
from resfit.evaluation.bundle import Bundle, load_bundle
from resfit.evaluation.card import write_card
from resfit.evaluation.config import bundle_folder
from resfit.evaluation.holdout import find_source
from resfit.evaluation.predict import images_at_once, predict_logits
from resfit.models.spec import spec_to_dict
from resfit.recipe import Data
from resfit.runs import Run, open_run
from resfit.shipping.gate import compare
from resfit.shipping.graph import Graph, make_graph, plain

FORMATS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": (), "safetensors": ()}  # and what each needs
BATCHES = (1, 64)  # of the rates
SECONDS = 0.4  # that a rate is measured for, and so an indication: benchmarks/export_speed.py compares

Answer = Callable[[np.ndarray], np.ndarray]  # images uint8 (n, 3, S, S) to logits float32 (n, K)
Encode = Callable[[Mapping[str, str]], bytes]  # metadata to the file's bytes
Read = Callable[[bytes], Answer]


def export(
    path: str | Path,
    format: str = "onnx",
    *,
    int8: bool = False,
    float16: bool = False,
    data: str | Path | None = None,
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Write the network of a run or bundle folder as model.onnx, .pt2 or .safetensors, and return what it is worth.

    The file takes images uint8 (N, 3, S, S), any N, and gives logits float32 (N, K): normalisation is inside, BatchNorms
    are folded. It is compared with the network on the whole validation split under the bounds of `gate.BOUNDS`, and
    written to `out`, by default the folder `export` of the run (of a bundle: the bundle itself); model.onnx also to the
    run's bundle. `data` says where the images are, if not where training found them; a bundle without its run needs it.
    The test split is never read. `int8`, for onnx, takes the ranges of activations from training images.

    The result: `file`, `format`, `precision`, `parity` (gate.Parity) and `rows`, the network's and the file's format, bytes,
    accuracy, agreement and images a second at batch 1 and 64. Raises GateError, with no file left, where a bound is broken;
    UsageError, DataError, MissingExtraError.
    """
    precision = _precision(format, int8, float16)
    _require(format)
    run = open_run(path) if (Path(path) / "run.json").is_file() or not bundle_folder(path).is_dir() else None
    if run is not None:
        _ = run.summary  # refuses a run that has not finished
    bundle = load_bundle(path, "cpu")
    val, train = _val_and_train(path, run, bundle, data, int8)
    name = f"model{'' if precision == 'float32' else '-' + precision}.{format}"
    files = [Path(out or (run.folder / "export" if run else bundle_folder(path))) / name]
    if run is not None and name == "model.onnx":
        files.append(run.bundle / name)
    for file in files:
        durable.require_writable(file.parent)
    network = plain(bundle.model)
    logits = predict_logits(network, val.images, bundle.mean, bundle.std)
    encode, read = _make(format, bundle, float16, train)
    config = _config(bundle, bundle_folder(path), precision)
    answer = read(encode(_metadata(config)))
    theirs = _answers(answer, val, bundle.rule.size)
    assert val.labels is not None
    parity = compare(theirs, logits, val.labels, precision)
    if parity.wrong:
        for file in files:  # an earlier export of this name too: it would be taken for this one
            durable.remove(file, must=True)
        if run is not None:
            write_card(run)
        raise GateError(f"{files[0]}: {parity.wrong}; it is deleted. {_remedy(precision)}")
    made = encode(_metadata(config | {"parity": parity.to_dict()}))
    answer = read(made)
    for file in files:
        durable.write_bytes(file, made)
    if run is not None:
        write_card(run)  # it says how model.onnx is used
    weights = (bundle_folder(path) / "model.safetensors").stat().st_size
    eager = partial(predict_logits, bundle.model, mean=bundle.mean, std=bundle.std)
    rows = [
        {"format": "pytorch", "precision": "float32", "bytes": weights, "accuracy": parity.network_accuracy}
        | {"agreement": 1.0, "images_per_second": _rates(eager, val)},
        {"format": format, "precision": precision, "bytes": len(made), "accuracy": parity.accuracy}
        | {"agreement": parity.agreement, "images_per_second": _rates(answer, val)},
    ]
    seen = run is not None and bool(run.info["refit"])
    value = {"file": str(files[0]), "files": [str(file) for file in files], "format": format, "precision": precision}
    return value | {"split": "val", "trained_on_val": seen, "parity": parity.to_dict(), "rows": rows}


def _precision(format: str, int8: bool, float16: bool) -> str:
    if format not in FORMATS:
        raise UsageError(f"--format: {format!r} is not known.{nearest(format, FORMATS)} Use {', '.join(FORMATS)}.")
    if int8 and float16:
        raise UsageError("--int8: does not go together with --float16. Export twice.")
    if int8 and format != "onnx":
        raise UsageError(f"--int8: is for onnx, not for {format}. Leave it out, or use --format onnx.")
    return "int8" if int8 else "float16" if float16 else "float32"


def _require(format: str) -> None:
    for package in FORMATS[format]:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(
                f"--format {format}: {package} is needed. Install it: pip install 'resfit[export]'."
            )


def _remedy(precision: str) -> str:
    if precision == "float32":
        return "This should not be: please report it with the run's recipe."
    return f"Ship float32, or look for what {precision} cannot hold: very large weights or activations."


def _val_and_train(
    path: str | Path, run: Run | None, bundle: Bundle, data: str | Path | None, int8: bool
) -> tuple[ImageSet, ImageSet | None]:
    """Return the validation split, and for int8 the training split, after a look that they are the run's own."""
    if run is None and data is None:
        raise UsageError(f"{path}: is a bundle without its run, which knows the images. Name them with --data.")
    source = find_source(run, data) if run is not None else data
    assert source is not None
    how = run.recipe.data if run is not None else Data()

    def load(split: Split) -> ImageSet:
        return load_split(source, split, bundle.rule, how.val_fraction, how.group_by)

    val = load("val")
    if val.class_names != bundle.class_names:
        ours, theirs = ", ".join(bundle.class_names[:5]), ", ".join(val.class_names[:5])
        raise DataError(
            f"{val.source}: its classes ({theirs}) are not the network's ({ours}). Name the run's own data."
        )
    if run is not None:
        refit = run.info["refit"]  # then val is part of what it was trained on: good for parity, not for an accuracy
        known, found = run.info["data"]["train" if refit else "val"], load("trainval") if refit else val
        if found.fingerprint != known:
            raise DataError(f"{val.source}: is not what the run was trained on. Name the run's own data.")
    return val, load("train") if int8 else None


def _make(format: str, bundle: Bundle, float16: bool, train: ImageSet | None) -> tuple[Encode, Read]:
    """Return how a file of this format is written, given metadata, and how its bytes are read."""
    size = bundle.rule.size
    graph = make_graph(bundle.model, bundle.mean, bundle.std, size, float16)
    if format == "onnx":
        from resfit.evaluation.runtime import load_onnx
        from resfit.shipping import onnx

        model = onnx.to_onnx(graph, size)
        if train is not None:
            from resfit.shipping.quantize import calibration_images, quantize

            model = quantize(model, calibration_images(train))
        return partial(onnx.encode, model), lambda made: load_onnx(made).network_logits
    from resfit.shipping import torchfiles

    if format == "pt2":
        program = torchfiles.to_pt2(graph, size)
        return partial(torchfiles.encode_pt2, program), lambda made: _call(torchfiles.read_pt2(made))
    return partial(torchfiles.encode_safetensors, graph), lambda made: _call(torchfiles.read_safetensors(made))


def _call(network: "torch.nn.Module | Graph") -> Answer:
    @torch.inference_mode()
    def answer(images: np.ndarray) -> np.ndarray:
        return np.asarray(network(torch.from_numpy(images)).numpy())

    return answer


def _answers(answer: Answer, images: ImageSet, size: int) -> np.ndarray:
    """Return an export's logits of all images, as many at once as the network is given."""
    step = images_at_once(size)
    starts = range(0, len(images), step)
    return np.concatenate([answer(np.array(images.images[start : start + step])) for start in starts])


def _config(bundle: Bundle, folder: Path, precision: str) -> dict[str, Any]:
    """Return what the file says of itself under the key `resfit`, but for the gate's numbers."""
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return {
        "format": "resfit-export-1",
        "version": resfit.__version__,
        "name": bundle.config.get("name"),
        "precision": precision,
        "spec": spec_to_dict(bundle.spec),
        "params": bundle.config.get("params"),
        "macs": bundle.config.get("macs"),
        "class_names": list(bundle.class_names),
        "preprocessing": asdict(bundle.rule) | {"mean": list(bundle.mean), "std": list(bundle.std), "inside": True},
        "tta": bundle.tta,
        "tta_below": bundle.tta_below,
        "weights_sha256": weights,  # of the bundle's model.safetensors
    }


def _metadata(config: dict[str, Any]) -> dict[str, str]:
    """Return the metadata as text by key: those that Ultralytics' readers take, and ours.

    Class names may hold anything: JSON and Python literals in ASCII carry it without breaking the file or its reader.
    """
    size = config["preprocessing"]["size"]
    return {
        "task": "classify",
        "imgsz": str([size, size]),
        "names": ascii(dict(enumerate(config["class_names"]))),
        "batch": "1",
        "stride": "1",
        "resfit": json.dumps(config, allow_nan=False),
    }


def _rates(answer: Answer, images: ImageSet) -> dict[str, float]:
    """Return images a second by batch size: a median over SECONDS on validation images."""
    rates = {}
    for batch in BATCHES:
        pixels = np.array(images.images[np.arange(batch) % len(images)])
        answer(pixels)
        seconds: list[float] = []
        while sum(seconds) < SECONDS:
            started = time.perf_counter()
            answer(pixels)
            seconds.append(time.perf_counter() - started)
        rates[str(batch)] = round(batch / statistics.median(seconds), 1)
    return rates
