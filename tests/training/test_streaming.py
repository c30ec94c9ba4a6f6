"""Training from the cache as from memory: the same bytes, whether whole, interrupted or resumed, and memory stays bounded."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from resfit.errors import UsageError
from resfit.evaluation import holdout
from resfit.runs import Run
from resfit.training import loop
from resfit.training.checkpoint import checkpoints, read_tensors
from resfit.training.launch import resume, train

SETTINGS = ["train.epochs=2", "train.batch_size=32", "mix.cutmix.probability=0.5", "augment.flip=true"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digit_arrays):
    """The digits as a folder of PNG files, train and test apart: a cached source."""
    top = tmp_path_factory.mktemp("digits")
    for number, (pixels, label) in enumerate(zip(*digit_arrays, strict=True)):
        place = top / ("test" if number % 6 == 0 else "train") / f"class {label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number:03}.png")
    return top


def essence(run: Run) -> dict[str, object]:
    """Everything that must not depend on where the images lay."""
    tensors, header = read_tensors(checkpoints(run.checkpoints)[-1])
    values = {name: value.numpy().tobytes() for name, value in tensors.items()}
    rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in run.metrics]
    with np.load(run.folder / "predictions" / "val.npz") as arrays:
        probs = arrays["probs"].tobytes()
    files = [(run.bundle / "model.safetensors").read_bytes(), run.recipe_file.read_bytes()]
    scores = [holdout.evaluate(run.folder, device="cpu"), holdout.test(run.folder, device="cpu", again=True)]
    for score in scores:
        for name in ("when", "opening", "reopened"):
            score.pop(name, None)
    return {"values": values, "header": header, "rows": rows, "probs": probs, "files": files, "scores": scores}


@pytest.fixture
def resident(folder, tiny_recipe, tmp_path):
    return essence(train(tiny_recipe, folder, tmp_path / "resident", device="cpu", settings=SETTINGS))


def feeding():
    return [thread for thread in threading.enumerate() if thread.name.startswith("resfit-feed")]


def test_streamed_and_resumed_is_resident(folder, tiny_recipe, resident, tmp_path, monkeypatch, capsys):
    capsys.readouterr()
    monkeypatch.setenv("RESFIT_MEMORY", "1k")
    assert essence(train(tiny_recipe, folder, tmp_path / "streamed", device="cpu", settings=SETTINGS)) == resident
    assert capsys.readouterr().err.count("read from the cache") == 2  # train and val
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    for stop_at in (3, 7, 9):  # within the first epoch, at its end (7 steps), within the second

        def stop(self, state, steps_per_epoch, seconds, stop_at=stop_at):
            if state.step == stop_at:
                raise KeyboardInterrupt

        with monkeypatch.context() as inside:
            inside.setattr("resfit.training.launch.Progress.step", stop)
            with pytest.raises(KeyboardInterrupt):
                train(tiny_recipe, folder, tmp_path / f"{stop_at}", device="cpu", settings=SETTINGS)
        assert not feeding()
        with monkeypatch.context() as inside:  # begun in one way, ended in the other
            if stop_at == 7:
                inside.delenv("RESFIT_MEMORY")
            assert essence(resume(tmp_path / f"{stop_at}")) == resident


def test_refit_streams_two_cached_parts(folder, tiny_recipe, tmp_path, monkeypatch, digit_arrays):
    (tmp_path / "set").mkdir()
    for name, beside in (("train", "train"), ("val", "test")):
        (tmp_path / "set" / name).symlink_to(folder / beside)
    runs = []
    for name, limit in (("streamed", "1k"), ("resident", "1G")):
        monkeypatch.setenv("RESFIT_MEMORY", limit)
        run = train(tiny_recipe, tmp_path / "set", tmp_path / name, refit=True, device="cpu", settings=SETTINGS)
        assert run.info["images"] == {"train": len(digit_arrays[0]), "val": 0}
        runs.append((run.bundle / "model.safetensors").read_bytes())
    assert runs[0] == runs[1]


def test_a_signal_stops_a_streaming_run(folder, tiny_recipe, tmp_path):
    settings = [word for setting in [*SETTINGS, "train.epochs=200"] for word in ("--set", setting)]
    words = ["train", tiny_recipe, "--data", folder, "--out", tmp_path / "run", "--device", "cpu", *settings]
    process = subprocess.Popen(
        [sys.executable, "-m", "resfit", *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"RESFIT_MEMORY": "1k"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 2/"):
            process.send_signal(signal.SIGINT)
            break
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "continue with: resfit resume" in said
    assert "Traceback" not in said


def test_a_limit_that_is_no_size_is_said_before_a_folder_is_made(folder, tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("RESFIT_MEMORY", "much")
    with pytest.raises(UsageError, match="RESFIT_MEMORY: 'much' is not a size"):
        train(tiny_recipe, folder, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


OWN = """
import sys, threading
from pathlib import Path

def own():  # bytes in memory without and with a file behind them
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return [int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile")]

def report(before, seen):
    print(*(max(s[i] for s in seen) - before[i] for i in (0, 1)))
"""

TRAINING = (
    OWN
    + """
import numpy as np
import torch
from resfit.data.images import ImageSet
from resfit.recipefile import load_recipe
from resfit.training import launch

class Enough(BaseException): pass
seen = []
def step(self, state, steps_per_epoch, seconds):
    seen.append(own())
    if state.step == 10:
        raise Enough

def image_set(count):
    images = np.load(sys.argv[2], mmap_mode="r")[:count]
    return ImageSet(images, np.arange(count) % 4, tuple("abcd"), np.arange(count, dtype=np.uint64), "zeros")

launch.Progress.step = step
torch.ones(64, 3, 8, 8).sum()
before = own()
try:
    recipe = load_recipe(sys.argv[1], ["train.batch_size=16"])
    launch.start(recipe, image_set(80_000), image_set(40_000), sys.argv[3], device="cpu")
except Enough:
    report(before, seen)
"""
)

CACHING = (
    OWN
    + """
from resfit.data.images import PixelRule
from resfit.data.sources import load_split

before, seen, done = own(), [], threading.Event()
def watch():
    while not done.wait(0.01):
        seen.append(own())
watcher = threading.Thread(target=watch)
watcher.start()
assert len(load_split(sys.argv[1], "trainval", PixelRule(32))) == 100_000
done.set()
watcher.join()
report(before, seen)
"""
)


def most_memory(code: str, *words: object) -> tuple[int, int]:
    """Run code in a process of its own; return by how many bytes its memory without and with a file behind it grew."""
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"RESFIT_MEMORY": "100M"})
    assert done.returncode == 0, done.stderr
    anonymous, mapped = map(int, done.stdout.split())
    return anonymous, mapped


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_gigabyte_of_images_trains_in_a_fifth_of_it(tmp_path, tiny_recipe):
    shape = (80_000, 3, 64, 64)  # 983 MB, most of it a hole in the file
    np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, shape)[::40_000] = 255
    assert sum(most_memory(TRAINING, tiny_recipe, tmp_path / "images.npy", tmp_path / "run")) < 200e6


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_arrays_larger_than_memory_can_be_cached(tmp_path):
    images = np.zeros((100_000, 32, 32, 3), np.uint8)  # 307 MB
    np.savez_compressed(tmp_path / "big.npz", train_images=images, train_labels=np.arange(100_000) % 4)
    anonymous, _ = most_memory(
        CACHING, tmp_path / "big.npz"
    )  # written pages stay mapped: the system may take them back
    assert anonymous < 100e6
