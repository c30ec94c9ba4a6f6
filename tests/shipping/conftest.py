"""What the tests that write a file share."""

import json
import runpy
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def extras(need):
    """The packages of `resfit[export]`, and little time for each rate."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        need(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resfit.shipping.export.SECONDS", 0.01)
        yield


HOSTILE = ("<img src=x onerror=alert(1)>", "\x1b[2Jred\u202egpj", "Ü猫 \"'&")


@pytest.fixture(scope="session")
def shipped(tmp_path_factory, trained, need):
    """A copy of a finished run with its model.onnx: made once, since a trace takes seconds."""
    for name in ("onnx", "onnxscript", "onnxruntime", "fastapi", "uvicorn", "python_multipart"):
        need(name)
    from resfit.shipping.export import export

    folder = tmp_path_factory.mktemp("shipped") / "run"
    shutil.copytree(trained.folder, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resfit.shipping.export.SECONDS", 0.01)
        export(folder)
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, shipped):
    """The same bundle, its three classes under HOSTILE names, with a card as hostile."""
    import onnx

    from resfit.evaluation.runtime import seal

    folder = tmp_path_factory.mktemp("hostile")
    model = onnx.load(shipped / "bundle" / "model.onnx")
    (entry,) = [prop for prop in model.metadata_props if prop.key == "resfit"]
    entry.value = json.dumps(json.loads(entry.value) | {"class_names": list(HOSTILE), "name": "<b>name</b>"})
    del model.metadata_props[-1]  # the seal
    (folder / "model.onnx").write_bytes(seal(model.SerializeToString()))
    (folder / "README.md").write_text("---\ntags: x\n---\n# A card\n<script>alert('card')</script>\n")
    return folder


@pytest.fixture(scope="module")
def server():
    """The benchmarks' `serving`, `ask`, `form` and more, by name."""
    return runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "serve_process.py"))
