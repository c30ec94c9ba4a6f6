"""Techniques from outside: entry points are merged into the tables, and a bad one is blamed on its package."""

import importlib
import sys
from pathlib import Path

import pytest

from resfit import plugins
from resfit.errors import UsageError
from resfit.recipefile import load_recipe

PACKAGE = """
from resfit.plugins import Technique

line = Technique("outside:ramp", {"low": (float, 0.5)})
no_technique = "outside:ramp"

def ramp(progress, epochs, low):
    return 1 - (1 - low) * progress
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a real distribution with entry points on the path, as pip would."""

    def install(points: str) -> None:
        (tmp_path / "outside.py").write_text(PACKAGE)
        info: Path = tmp_path / "their_package-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(points)
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()

    plugins.table.cache_clear()
    plugins._schema.cache_clear()
    yield install
    plugins.table.cache_clear()
    plugins._schema.cache_clear()
    sys.modules.pop("outside", None)


def test_a_schedule_from_outside(install):
    install("[resfit.schedules]\nramp = outside:line\n")
    recipe = load_recipe("resnet-8", ["schedule.name=ramp", "schedule.low=0.25"])
    shape = plugins.function("schedules", recipe.schedule.name)
    assert shape(0.5, 10, **recipe.schedule.params) == pytest.approx(0.625)
    with pytest.raises(UsageError, match=r"schedule\.low: Input should be a valid number"):
        load_recipe("resnet-8", ["schedule.name=ramp", "schedule.low=deep"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ramp = outside:nothing", "does not load"),
        ("ramp = nowhere:line", "does not load"),
        ("ramp = outside:no_technique", "is not a resfit.plugins.Technique"),
        ("cosine = outside:line", "takes a name in use"),
    ],
)
def test_a_bad_one_is_blamed_on_its_package(install, line, message):
    install(f"[resfit.schedules]\n{line}\n")
    with pytest.raises(UsageError, match=f"their-package: .*{message}") as caught:
        load_recipe("resnet-8")
    assert "\n" not in str(caught.value)
