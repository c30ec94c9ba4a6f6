"""Exports: the same answers in every family and format, gates that fail, what files say of themselves, the torchless reader."""

import ast
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resfit.cli import main
from resfit.data.images import PixelRule
from resfit.data.sources import load_split
from resfit.errors import GateError, MissingExtraError, UsageError
from resfit.evaluation.bundle import load_bundle, write_bundle
from resfit.evaluation.runtime import load_onnx
from resfit.models.families import build
from resfit.recipefile import load_recipe
from resfit.runs import Run
from resfit.shipping import export as exporting
from resfit.shipping.export import export
from resfit.shipping.graph import make_graph
from resfit.training.launch import train

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
HOSTILE = ("<script>alert('x')", "a\nb\"c'\\", "Ü猫\u202e", "{0: 1}")

pytestmark = pytest.mark.usefixtures("extras")


def pixels(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, trained):
    """A run with its model.onnx, and what `export` said of it."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    shutil.copytree(trained.folder, folder)
    return Run(folder), export(folder)


@pytest.fixture
def run(tmp_path, trained) -> Path:
    """A copy of a finished run, without exports."""
    shutil.copytree(trained.folder, tmp_path / "run")
    return tmp_path / "run"


def test_what_export_writes_and_says(exported):
    run, value = exported
    file = run.folder / "export" / "model.onnx"
    assert value["file"] == str(file)
    assert file.read_bytes() == (run.bundle / "model.onnx").read_bytes()
    assert [path.name for path in file.parent.iterdir()] == ["model.onnx"]  # no temporary file is left
    torch_row, row = value["rows"]
    assert row["bytes"] == file.stat().st_size
    assert row["agreement"] == 1
    assert row["accuracy"] == torch_row["accuracy"] == value["parity"]["accuracy"]
    assert value["parity"]["n"] == run.info["images"]["val"]
    assert value["parity"]["max_difference"] < 1e-4
    assert all(rate > 0 for row in value["rows"] for rate in row["images_per_second"].values())
    assert not value["trained_on_val"]


def test_the_file_passes_onnx_checker_and_says_what_it_is(exported):
    import onnx

    run, value = exported
    model = onnx.load(value["file"])
    onnx.checker.check_model(model, full_check=True)
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert (found["task"], found["batch"], found["stride"]) == ("classify", "1", "1")
    assert ast.literal_eval(found["imgsz"]) == [16, 16]
    bundle = load_bundle(run.folder, "cpu")
    assert ast.literal_eval(found["names"]) == dict(enumerate(bundle.class_names))
    ours = json.loads(found["resfit"])
    assert ours["params"] == run.info["params"]
    assert ours["parity"] == value["parity"]
    assert ours["preprocessing"]["mean"] == list(bundle.mean)
    assert ours["class_names"] == list(bundle.class_names)
    assert [opset.version for opset in model.opset_import] == [20]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert str(Path(__file__).parents[2]).encode() not in model.SerializeToString()  # no paths of this machine


def test_any_batch_in_any_order_gives_the_same(exported):
    run, value = exported
    answers, images = load_onnx(value["file"]), pixels(64, 16)
    whole = answers.logits(images)
    assert whole.dtype == np.float32
    assert whole.shape == (64, 3)
    np.testing.assert_allclose(whole, load_bundle(run.folder, "cpu").logits(images), atol=1e-5)
    for count in (1, 7):
        np.testing.assert_allclose(answers.logits(images[:count]), whole[:count], atol=1e-5)
    np.testing.assert_allclose(answers.logits(images[::-1].copy())[::-1], whole, atol=1e-5)


def test_the_bundle_is_served_without_torch(exported, tmp_path):
    run, _ = exported
    shutil.copytree(run.bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / "model.safetensors").unlink()
    images = pixels(9, 16)
    np.save(tmp_path / "images.npy", images)
    code = """
import sys, numpy as np
from resfit.evaluation.runtime import load_onnx
bundle = load_onnx(sys.argv[1] + "/bundle")
np.save(sys.argv[1] + "/probs.npy", bundle.probs(np.load(sys.argv[1] + "/images.npy")))
print(*bundle.class_names, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "1", "2", "False"]
    expected = load_bundle(run.folder, "cpu").probs(images)
    np.testing.assert_allclose(np.load(tmp_path / "probs.npy"), expected, atol=1e-5)


@pytest.mark.parametrize(("tta", "below"), [("flip", 1.0), ("flip-shift", 1.0), ("flip-shift", 0.7), ("flip", 0.0)])
def test_the_reader_takes_the_bundles_views(exported, tta, below):
    run, value = exported
    images = load_split(run.info["source"], "val", PixelRule(16)).images[:]
    ours = replace(load_onnx(value["file"]), tta=tta, tta_below=below).logits(images)
    theirs = replace(load_bundle(run.folder, "cpu"), tta=tta, tta_below=below).logits(images)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_float16_onnx_is_half_as_large(run, exported):
    value = export(run, float16=True)
    assert value["parity"]["agreement"] >= 0.999
    assert value["rows"][1]["bytes"] < 0.7 * exported[1]["rows"][1]["bytes"]
    logits = load_onnx(value["file"]).logits(pixels(5, 16))
    assert logits.dtype == np.float32
    assert not (run / "bundle" / "model.onnx").exists()  # only float32 is the bundle's


def test_pt2_loads_where_resfit_is_not_imported(run):
    files = [export(run, "pt2", float16=float16)["file"] for float16 in (False, True)]
    images = pixels(7, 16)
    np.save(run / "images.npy", images)
    code = """
import json, sys, numpy as np, torch
folder, *files = sys.argv[1:]
images = torch.from_numpy(np.load(folder + "/images.npy"))
for i, file in enumerate(files):
    extra = {"metadata.json": ""}
    network = torch.export.load(file, extra_files=extra).module()
    alone, all = (network(images[:n]).detach().numpy() for n in (1, 7))
    np.testing.assert_allclose(alone, all[:1], atol=(1e-5, 1e-2)[i])
    np.save(f"{folder}/{i}.npy", all)
    print(json.loads(extra["metadata.json"])["task"], "resfit" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, run, *files], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["classify", "False"] * 2
    expected = load_bundle(run, "cpu").logits(images)
    for i, close in enumerate((1e-5, 2e-2)):
        np.testing.assert_allclose(np.load(run / f"{i}.npy"), expected, atol=close)


def test_safetensors_holds_folded_weights_and_the_spec(run):
    from safetensors import safe_open

    value = export(run, "safetensors")
    with safe_open(value["file"], "pt") as file:
        names, header = list(file.keys()), file.metadata()
    assert {"scale", "shift", "network.stem.weight", "network.stem.bias"} <= set(names)
    assert not any("norm" in name for name in names)
    assert json.loads(header["resfit"])["spec"]["family"] == "resnet"
    half = export(run, "safetensors", float16=True)
    assert Path(half["file"]).stat().st_size < Path(value["file"]).stat().st_size


def spoil_weight(graph):
    graph.network.head.weight[1] += 0.5


def spoil_normalisation(graph):
    graph.shift *= 0.5


def swap_channels(graph):
    graph.network.stem.weight.copy_(graph.network.stem.weight.flip(1) + 0.01)


def spoil_with_nan(graph):
    graph.network.head.bias[0] = float("nan")


@pytest.mark.parametrize("spoil", [spoil_weight, spoil_normalisation, swap_channels, spoil_with_nan])
def test_a_failed_gate_writes_nothing_and_exits_3(run, monkeypatch, capsys, spoil):
    def spoilt(*words):
        graph = make_graph(*words)
        with torch.no_grad():
            spoil(graph)
        return graph

    monkeypatch.setattr(exporting, "make_graph", spoilt)
    code = main(["export", str(run), "--format", "safetensors"])
    assert code == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"resfit: {run / 'export' / 'model.safetensors'}: ")
    assert "it is deleted" in line
    assert not list((run / "export").glob("*")) if (run / "export").exists() else True


def test_a_failed_gate_takes_earlier_files_away(run, monkeypatch):
    stale = [run / "export" / "model.onnx", run / "bundle" / "model.onnx"]
    stale[0].parent.mkdir()
    for file in stale:
        file.write_bytes(b"of other weights")

    def spoilt(*words):
        graph = make_graph(*words)
        graph.scale *= 1.1
        return graph

    monkeypatch.setattr(exporting, "make_graph", spoilt)
    with pytest.raises(GateError, match=r"predictions differ|a logit differs"):
        export(run)
    assert not any(file.exists() for file in stale)


def test_new_weights_take_the_bundles_onnx_away(exported, tmp_path):
    run, _ = exported
    shutil.copytree(run.bundle, tmp_path / "bundle")
    model = load_bundle(run.folder, "cpu").model
    write_bundle(tmp_path / "bundle", run.recipe, model.state_dict(), ("0", "1", "2"))
    assert not (tmp_path / "bundle" / "model.onnx").exists()


def test_the_test_split_is_never_read(run, monkeypatch):
    asked = []

    def load(source, split, *words):
        asked.append(split)
        return load_split(source, split, *words)

    monkeypatch.setattr(exporting, "load_split", load)
    export(run, int8=True)
    assert asked == ["val", "train"]


def test_a_refit_run_says_that_val_was_trained_on(tmp_path, tiny_recipe, digits_npz):
    run = train(tiny_recipe, digits_npz, tmp_path / "run", refit=True, device="cpu")
    assert export(run.folder, "safetensors")["trained_on_val"]


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["--format", "onx"], 2, "--format: 'onx' is not known. Did you mean 'onnx'? Use onnx, pt2, safetensors."),
        (["--format", "pt2", "--int8"], 2, "--int8: is for onnx, not for pt2. Leave it out, or use --format onnx."),
        (["--int8", "--float16"], 2, "not allowed with argument --int8"),
        (["--data", "cifar"], 4, "cifar: neither a path that exists nor a known name."),
        (["--data", "digits"], 4, "its classes (0, 1, 2, 3, 4) are not the network's (0, 1, 2)."),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run, capsys, words, code, line):
    assert main(["export", str(run), *words]) == code
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said


def test_runs_and_bundles_that_cannot_be_exported(run, tmp_path, capsys):
    assert main(["export", str(tmp_path / "none")]) == 2
    assert "none: is not a run folder" in capsys.readouterr().err
    assert main(["export", str(run / "bundle")]) == 2
    assert "is a bundle without its run" in capsys.readouterr().err
    (run / "summary.json").unlink()
    assert main(["export", str(run)]) == 2
    assert "has not finished. Run `resfit resume" in capsys.readouterr().err


def test_missing_packages_name_the_extra(run, monkeypatch, capsys):
    found = exporting.importlib.util.find_spec
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda n: None if n == "onnxscript" else found(n))
    assert main(["export", str(run)]) == 5
    assert "onnxscript is needed. Install it: pip install 'resfit[export]'." in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"resfit\[export\]"):
        load_onnx(run)


def test_files_that_are_no_exports(run, tmp_path):
    with pytest.raises(UsageError, match=r"holds no model\.onnx"):
        load_onnx(run)
    (tmp_path / "model.onnx").write_bytes(b"no such thing")
    with pytest.raises(UsageError, match="is no ONNX file of `resfit export`"):
        load_onnx(tmp_path)


def test_a_bundle_with_hostile_class_names(tmp_path):
    """From a folder of images to a file and back, without a run: names are carried as they are, in plain ASCII."""
    names = tuple(sorted(HOSTILE))
    for k, name in enumerate(names):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(pixels(8 * k + i + 1, 16)[0].transpose(1, 2, 0)).save(tmp_path / "data" / name / f"{i}.png")
    settings = [f"data.mean={list(MEAN)}", f"data.std={list(STD)}"]
    recipe = load_recipe("resnet:widths=8:blocks_per_stage=1:classes=4:image_size=16", settings)
    write_bundle(tmp_path / "bundle", recipe, build(recipe.network).state_dict(), names)
    value = export(tmp_path / "bundle", data=tmp_path / "data", out=tmp_path / "out")
    assert value["files"] == [str(tmp_path / "out" / "model.onnx")]
    session = load_onnx(tmp_path / "out")
    assert session.class_names == names
    text = session.session.get_modelmeta().custom_metadata_map["names"]
    assert ast.literal_eval(text) == dict(enumerate(names))
    assert text.isascii()
    assert "\n" not in text
