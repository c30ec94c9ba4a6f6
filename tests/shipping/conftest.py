"""What the tests that write a file share."""

import pytest


@pytest.fixture(scope="module")
def extras(need):
    """The packages of `resfit[export]`, and little time for each rate."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        need(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resfit.shipping.export.SECONDS", 0.01)
        yield
