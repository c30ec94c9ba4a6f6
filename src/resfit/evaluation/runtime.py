"""An exported ONNX file in ONNX Runtime: numpy and onnxruntime alone, so that a bundle is served where there is no torch."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resfit.data.images import PixelRule
from resfit.errors import DataError, MissingExtraError, UsageError
from resfit.evaluation.config import rule_from
from resfit.evaluation.metrics import softmax
from resfit.machine import default_threads

_SEAL = b"\x72\x4a\x0a\x06sha256\x12\x40"  # ModelProto's field 14: an entry of 74 bytes, the key, a value of 64 bytes
CHUNK = 2**16  # pixels of the images answered at once, 64 of 32 pixels: their activations stay in the cache


@dataclass(frozen=True)
class OnnxBundle:
    """A network in ONNX Runtime, with its classes and preprocessing; `config` is what the file says of itself."""

    session: Any
    class_names: tuple[str, ...]
    rule: PixelRule
    tta: str
    tta_below: float
    config: dict[str, Any]

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return logits (N, K) float32 of images, uint8 (N, 3, size, size), by the bundle's test-time views."""
        size = self.rule.size
        if images.dtype != np.uint8 or images.shape[1:] != (3, size, size) or len(images) == 0:
            kind = f"{images.dtype} of shape {tuple(images.shape)}"
            raise DataError(f"images: {kind}. Give uint8 of shape (N, 3, {size}, {size}), pixels 0 to 255.")
        logits = self.network_logits(images)
        if self.tta != "none":
            unsure = np.flatnonzero(softmax(logits).max(1) < self.tta_below) if self.tta_below < 1 else slice(None)
            seen = images[unsure]
            if len(seen):
                parts = [share * self.network_logits(view) for share, view in _other_views(seen, self.tta)]
                logits[unsure] = SHARES[self.tta] * logits[unsure] + np.sum(parts, axis=0, dtype=np.float32)
        return logits

    def network_logits(self, images: np.ndarray) -> np.ndarray:
        """Return the file's own logits, one view an image."""
        step = max(1, CHUNK // self.rule.size**2)
        starts = range(0, len(images), step)
        parts = [self.session.run(None, {"images": images[start : start + step]})[0] for start in starts]
        return np.concatenate(parts)

    def probs(self, images: np.ndarray) -> np.ndarray:
        """Return probabilities (N, K) float32; see `logits`."""
        return softmax(self.logits(images))


SHARES = {"none": 1.0, "flip": 0.5, "flip-shift": 0.25}  # of the images as they are; see evaluation.predict.views


def _other_views(images: np.ndarray, tta: str) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the weighted views beside the images themselves: of pixels, which are normalised later, as of normalised ones."""
    yield SHARES[tta], np.ascontiguousarray(images[..., ::-1])
    if tta == "flip-shift":
        size = images.shape[-1]
        padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), "reflect")
        for view in (padded[:, :, :size, :size], padded[:, :, 2:, 2:]):
            for side in (view, view[..., ::-1]):
                yield 0.125, np.ascontiguousarray(side)


def seal(data: bytes) -> bytes:
    """Return an ONNX file's bytes with one more metadata entry at the end, `sha256`: the digest of all the bytes before it.

    Protobuf (developers.google.com/protocol-buffers, "Encoding": last one wins, repeated fields add up) reads bytes that are
    put end to end as one message, so that any reader of ONNX takes the entry for one of the model's.
    """
    return data + _SEAL + hashlib.sha256(data).hexdigest().encode()


def is_sealed(data: bytes) -> bool | None:
    """Return whether an ONNX file's bytes are those that were sealed, or None where it bears no seal."""
    body, mark, digest = data[: -len(_SEAL) - 64], data[-len(_SEAL) - 64 : -64], data[-64:]
    return hashlib.sha256(body).hexdigest().encode() == digest if mark == _SEAL else None


def load_onnx(source: str | Path | bytes, threads: int | None = None) -> OnnxBundle:
    """Return the network in an exported .onnx file, in the bundle or run folder that holds model.onnx, or in a file's bytes.

    `threads` are one operation's, by default as many as torch would take. Raises UsageError, or MissingExtraError without
    onnxruntime.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime is needed. Install it: pip install 'resfit[export]'.") from error
    where, model = ("the file", source) if isinstance(source, bytes) else (f"{source}", _read(Path(source)))
    if is_sealed(model) is False:
        raise UsageError(f"{where}: is damaged: its bytes are not those that were exported. Export it anew.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads or default_threads(), 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        config = json.loads(session.get_modelmeta().custom_metadata_map["resfit"])
        pre = config["preprocessing"]
        rule, names = rule_from(pre), tuple(config["class_names"])
        tta, tta_below = config["tta"], float(config["tta_below"])
        SHARES[tta]
    except Exception as error:  # whatever a damaged or foreign file makes the readers say, the user needs its place
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(f"{where}: is no ONNX file of `resfit export`: {reason}. Export it anew.") from error
    return OnnxBundle(session, names, rule, tta, tta_below, config)


def _read(path: Path) -> bytes:
    places = [path, path / "model.onnx", path / "bundle" / "model.onnx"]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UsageError(f"{path}: holds no model.onnx. Make it with `resfit export RUN`.")
    try:
        return found.read_bytes()
    except OSError as error:
        raise UsageError(f"{found}: cannot be read: {error.strerror}. Make it readable.") from error
