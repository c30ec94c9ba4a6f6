"""Fixtures of the data tests: a cache of their own, small real images, tiny CIFAR archives, the real data."""

import io
import os
import pickle
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resfit.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RESFIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RESFIT_DATA", raising=False)


@pytest.fixture(scope="session")
def pieces() -> torch.Tensor:
    """Real images and hard ones, uint8 (72, 3, 32, 32): pieces of a photograph, noise, few levels, flat, black, white."""
    from sklearn.datasets import load_sample_image

    photo = load_sample_image("china.jpg")
    generator = np.random.default_rng(0)
    places = zip(generator.integers(0, 427 - 32, 48), generator.integers(0, 640 - 32, 48), strict=True)
    real = np.stack([photo[y : y + 32, x : x + 32] for y, x in places])
    noise = generator.integers(0, 256, (12, 32, 32, 3), np.uint8)
    few = generator.integers(0, 3, (6, 32, 32, 3), np.uint8) * 40 + 90
    flat = np.stack([np.full((32, 32, 3), level, np.uint8) for level in (0, 255, 1, 128, (10, 200, 90), (255, 0, 0))])
    return torch.from_numpy(np.concatenate([real, noise, few.astype(np.uint8), flat])).permute(0, 3, 1, 2).contiguous()


@pytest.fixture(scope="session")
def make():
    """This module: importlib mode puts no test folder on the path, so that the functions below come as a fixture."""
    return sys.modules[__name__]


@pytest.fixture(scope="session")
def one_line():
    """Run something that must raise DataError, check the form of the message, and return it."""

    def run(function, *arguments) -> str:
        with pytest.raises(DataError) as caught:
            function(*arguments)
        message = str(caught.value)
        assert caught.value.exit_code == 4
        assert "\n" not in message
        assert ": " in message
        assert message.endswith((".", ")"))
        return message

    return run


@pytest.fixture(scope="session")
def cifar10_jpeg() -> Path:
    given = os.environ.get("RESFIT_CIFAR10_JPEG")
    root = Path(__file__).resolve().parents[2]
    for path in [Path(given)] if given else [p / "shared/data/cifar10-jpeg.tar.gz" for p in (root, *root.parents)]:
        if path.exists():
            return path
    pytest.skip("no cifar10-jpeg.tar.gz: set RESFIT_CIFAR10_JPEG or put it into ../shared/data")


def noise(seed: int, height: int = 8, width: int = 8, channels: int = 3) -> np.ndarray:
    """Smooth random pixels, different for every seed."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, channels), np.uint8)
    bands = [Image.fromarray(small[:, :, c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(channels)]
    return np.stack([np.asarray(b) for b in bands], axis=2)


def encode(pixels: np.ndarray, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def write_classes(top: Path, counts: dict[str, int], seed: int = 0, size: int = 8) -> None:
    """Write `top`/CLASS/n.png, every image different."""
    for number, (name, count) in enumerate(sorted(counts.items())):
        (top / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (top / name / f"{i:03}.png").write_bytes(encode(noise(seed + 10_000 * number + i, size, size)))


def tar_of(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def cifar_rows(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8)


def py2_pickle(value: dict) -> bytes:
    """Pickle as Python 2 did: protocol 2, keys and texts as byte strings, the array by _reconstruct."""
    out = io.BytesIO()
    out.write(b"\x80\x02}(")
    for key, item in value.items():
        out.write(_py2_string(key.encode()))
        if isinstance(item, np.ndarray):
            raw = item.tobytes()
            out.write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01")
            out.write(b"M" + len(item).to_bytes(2, "little") + b"M\x00\x0c\x86")
            out.write(b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")
            out.write(b"\x89T" + len(raw).to_bytes(4, "little") + raw + b"tb")
        else:
            out.write(b"](")
            for entry in item:
                out.write(_py2_string(entry.encode()) if isinstance(entry, str) else b"K" + bytes([entry]))
            out.write(b"e")
    out.write(b"u.")
    return out.getvalue()


def _py2_string(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text


NAMES10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
NAMES100 = [f"fine{i:02}" for i in range(100)]


def cifar10_python(per_batch: int = 20, pickler=py2_pickle) -> dict[str, bytes]:
    """The members of cifar-10-python.tar.gz, with `per_batch` images a batch; image i of a batch has label i % 10."""
    members = {"batches.meta": pickler({"label_names": NAMES10})}
    for number in range(6):
        name = f"data_batch_{number + 1}" if number < 5 else "test_batch"
        labels = [i % 10 for i in range(per_batch)]
        members[name] = pickler({"data": cifar_rows(number, per_batch), "labels": labels, "batch_label": ["x"]})
    members["readme.html"] = b"<html>"
    return {f"cifar-10-batches-py/{name}": data for name, data in members.items()}


def cifar10_binary(per_batch: int = 20) -> dict[str, bytes]:
    members = {"batches.meta.txt": "\n".join(NAMES10).encode()}
    for number in range(6):
        name = f"data_batch_{number + 1}.bin" if number < 5 else "test_batch.bin"
        labels = (np.arange(per_batch) % 10).astype(np.uint8)[:, None]
        members[name] = np.hstack([labels, cifar_rows(number, per_batch)]).tobytes()
    return {f"cifar-10-batches-bin/{name}": data for name, data in members.items()}


def cifar100_python(count: int = 300) -> dict[str, bytes]:
    members = {"meta": py2_pickle({"fine_label_names": NAMES100, "coarse_label_names": ["c"]})}
    for number, name in enumerate(("train", "test")):
        fine = [i % 100 for i in range(count)]
        members[name] = py2_pickle(
            {"data": cifar_rows(number, count), "coarse_labels": [0] * count, "fine_labels": fine}
        )
    return {f"cifar-100-python/{name}": data for name, data in members.items()}


def cifar100_binary(count: int = 300) -> dict[str, bytes]:
    members = {"fine_label_names.txt": "\n".join(NAMES100).encode(), "coarse_label_names.txt": b"c\n"}
    for number, name in enumerate(("train.bin", "test.bin")):
        labels = np.stack([np.zeros(count), np.arange(count) % 100], axis=1).astype(np.uint8)
        members[name] = np.hstack([labels, cifar_rows(number, count)]).tobytes()
    return {f"cifar-100-binary/{name}": data for name, data in members.items()}


def modern_pickle(protocol: int):
    return lambda value: pickle.dumps(value, protocol=protocol)
