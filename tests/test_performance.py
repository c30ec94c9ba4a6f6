"""docs/performance.md: what a result says of its goal, rows without one, the plot; and the plain loop that is the peer."""

import json
import runpy
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch

from resfit.recipefile import load_recipe

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TABLES = runpy.run_path(str(BENCHMARKS / "performance_tables.py"))


@pytest.mark.parametrize(
    ("goal", "value", "said"),
    [
        (("ratio at least", 1.5), {"value": 1.0, "ratio": 1.5}, "yes"),
        (("ratio at least", 1.5), {"value": 9.0, "ratio": 1.2}, "missed by 20.0%"),
        (("ratio at most", 0.2), {"value": 1.0, "ratio": 0.3}, "missed by 50.0%"),
        (("value at most", 1.0), {"value": 0.9}, "yes"),
        (("ratio at least", 4), {"value": 9.0}, "–"),  # no peer, no ratio
        (("value at most", 0), {"value": 0}, "yes"),
        (("value at most", 0), {"value": 2}, "no"),
        (None, {"value": 1.0}, "–"),
    ],
)
def test_verdict(goal, value, said):
    assert TABLES["verdict"](goal, value) == said


def test_every_row_is_there_measured_or_not(tmp_path):
    empty = TABLES["rows_table"](tmp_path, TABLES["ROWS"]).splitlines()
    assert all("not measured yet" in line for line in empty[2:])
    assert len(empty) - 2 == len(TABLES["ROWS"])
    result = {"figure": "a", "value": 3.0, "spread": [2.0, 4.0], "n": 5, "peer": "b", "peer_value": 2.0, "ratio": 1.6}
    result |= {"goal": 9, "goal_is": "ratio at least", "device": "d", "commit": "c", "command": "python x.py"}
    (tmp_path / "cpu_train.json").write_text(json.dumps(result))
    (tmp_path / "cpu_train_r1-4.json").write_text(json.dumps(result))
    lines = TABLES["rows_table"](tmp_path, TABLES["ROWS"]).splitlines()
    assert len(lines) == len(empty)
    assert sum("not measured yet" in line for line in lines) == len(TABLES["ROWS"]) - 2
    (line,) = [line for line in lines if "cpu_train.json" in line]
    assert "| 3.0 | b | 2.0 | 1.6 | ratio at least 1.5 | yes | 5 (2.0 to 4.0) | d; c | `python x.py` |" in line


def test_what_a_means_brings_has_its_sign_whichever_side_is_larger(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    table = runpy.run_path(str(BENCHMARKS / "own_images_tables.py"))["effects_table"]
    value = {"n": 3, "data": "d", "device": "e", "commit": "c", "command": "python x.py"}
    value["sides"] = {"none": {"mean": 0.5}, "balanced": {"mean": 0.4}}
    file = tmp_path / "own_images_class_weights.json"
    file.write_text(
        json.dumps(value | {"differences": {"none - balanced": {"difference": 0.1, "interval": [0.08, 0.12]}}})
    )
    lines = table(tmp_path).splitlines()
    assert sum("not measured yet" in line for line in lines) == 2
    assert "| none: 50.0% | balanced: 40.0% | -10.0 (-12.0 to -8.0) | 3 | d; e, c; `python x.py` |" in lines[3]
    other = {"balanced - none": {"difference": 0.1, "interval": [-0.02, 0.22]}}
    file.write_text(json.dumps(value | {"differences": other}))
    assert "| +10.0 (-2.0 to +22.0) |" in table(tmp_path).splitlines()[3]


def test_plot_has_a_dot_a_point():
    points = [{"at": at, "images_per_second": 100.0 / at} for at in (1, 2, 4)]
    value = {"figure": "f", "growth": {"threads": {"points": points}, "width": {"points": points[:2]}}}
    root = ElementTree.fromstring(TABLES["growth_svg"](value))
    dots = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(dots) == 5
    across = [float(dot.attrib["cx"]) for dot in dots[:3]]
    assert across[1] - across[0] == pytest.approx(across[2] - across[1])  # a logarithmic axis
    heights = [float(dot.attrib["cy"]) for dot in dots[:3]]
    assert heights[2] - heights[1] == pytest.approx((heights[1] - heights[0]) / 2, abs=0.02)


@pytest.mark.parametrize("name", ["r1-4", "r4-lighter", "r5", "resnet-20"])
def test_the_peers_network_gives_the_same_logits(name):
    """With the same weights, which both register in one order: so both sides of the benchmark compute the same."""
    from resfit.models.families import build

    sys.path.insert(0, str(BENCHMARKS))
    try:
        from plain_loop import Network
    finally:
        sys.path.pop(0)
    spec = load_recipe(name).network
    ours, theirs = build(spec, 0).eval(), Network(spec).eval()
    for a, b in zip(theirs.state_dict().values(), ours.state_dict().values(), strict=True):
        a.copy_(b)
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)
