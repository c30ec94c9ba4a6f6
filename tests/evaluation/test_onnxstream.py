"""Prediction by ONNX Runtime: torch's answers without torch, and never those of a file that is damaged or of other weights."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from resfit.evaluation import chunks
from resfit.evaluation.answers import predict
from resfit.evaluation.runtime import is_sealed
from resfit.runs import Run
from resfit.shipping.export import export


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory, need):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        need(package)
    top = tmp_path_factory.mktemp("exported")
    run = Run(shutil.copytree(trained.folder, top / "run"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESFIT_CACHE", str(top / "cache"))
        patch.setattr("resfit.shipping.export.SECONDS", 0.01)
        export(run.folder)
    return run


@pytest.fixture
def run(exported, tmp_path):
    return Run(shutil.copytree(exported.folder, tmp_path / "run"))


@pytest.fixture
def photos(tmp_path, digit_arrays):
    (tmp_path / "photos").mkdir()
    for number in range(11):
        Image.fromarray(digit_arrays[0][number]).resize((16 + number, 16)).save(
            tmp_path / "photos" / f"{number:02}.png"
        )
    return tmp_path / "photos"


def torch_probs(run, photos, tmp_path):
    """What torch answers: from the same bundle without model.onnx."""
    plain = shutil.copytree(run.bundle, tmp_path / "plain", dirs_exist_ok=True)
    (plain / "model.onnx").unlink()
    return predict([plain], [photos], "cpu").probs


@pytest.mark.parametrize(("chunk", "threads"), [(1, "3"), (4, "2"), (64, "1")])
@pytest.mark.parametrize("tta", ["none", "flip-shift"])
def test_torchs_answers(run, photos, tmp_path, monkeypatch, chunk, threads, tta, capfd):
    monkeypatch.setattr(chunks, "CPU_PIXELS", chunk * 16 * 16)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    if tta != "none":
        monkeypatch.setattr("resfit.shipping.export.SECONDS", 0.01)
        monkeypatch.setattr("resfit.evaluation.onnxstream._load", with_views)
        file = run.bundle / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"tta": tta}))
    ours = predict([run.folder, run.bundle], [photos], "auto")
    np.testing.assert_allclose(ours.probs, torch_probs(run, photos, tmp_path), atol=1e-5)
    assert ours.ids == tuple(str(photos / f"{n:02}.png") for n in range(11))
    assert capfd.readouterr().err == ""


def with_views(config, threads):
    from dataclasses import replace

    from resfit.evaluation.runtime import load_onnx

    return replace(load_onnx(config.folder, threads), tta=config.tta, tta_below=config.tta_below)


def test_torch_is_not_imported(run, photos):
    words = [str(run.folder), str(photos / "00.png"), "--format", "jsonl", "--device", "cpu"]
    code = f"import sys; from resfit.cli import main; main(['predict', *{words!r}]); sys.exit(5 * ('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["id"] == str(photos / "00.png")


def flip(run):
    """Flip one bit of a weight: ONNX Runtime reads the file as before, and answers otherwise."""
    file = run.bundle / "model.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x40
    file.write_bytes(data)


def cut(run):
    file = run.bundle / "model.onnx"
    file.write_bytes(file.read_bytes()[:-100])


def other_weights(run):
    from safetensors.torch import load_file, save_file

    weights = load_file(run.bundle / "model.safetensors")
    save_file({name: value * 1.5 for name, value in weights.items()}, run.bundle / "model.safetensors")


def set_config(**values):
    def change(run):
        file = run.bundle / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return change


CHANGES = {
    "a bit": (flip, "is damaged"),
    "cut short": (cut, "is damaged"),
    "empty": (lambda run: (run.bundle / "model.onnx").write_bytes(b""), "is damaged"),
    "other weights": (other_weights, "is not of this bundle's weights and settings"),
    "other classes": (set_config(class_names=["c", "b", "a"]), "is not of this bundle's weights and settings"),
    "other views": (set_config(tta="flip"), "is not of this bundle's weights and settings"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_is_not_the_bundles_own_never_answers(run, photos, tmp_path, capfd, change):
    do, message = CHANGES[change]
    do(run)
    answers = predict([run.folder], [photos], "cpu")
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert f"model.onnx: {message}" in err
    assert "PyTorch answers instead." in err
    np.testing.assert_array_equal(answers.probs, torch_probs(run, photos, tmp_path))
    names = json.loads((run.bundle / "config.json").read_text())["class_names"]
    assert answers.class_names == tuple(names)


def test_the_seal_is_an_entry_of_onnx(exported):
    onnx = pytest.importorskip("onnx")
    data = (exported.bundle / "model.onnx").read_bytes()
    assert is_sealed(data) is True
    entries = {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}
    assert len(entries["sha256"]) == 64
    assert {"names", "resfit"} < entries.keys()
    assert is_sealed(data[:-1] + (b"0" if data[-1:] != b"0" else b"1")) is False
    assert is_sealed(data[: -(64 + 12)]) is None
