"""Paired comparison: scipy's binomial, a bootstrap image by image, coverage by simulation, and runs on disk."""

import json
import shutil

import numpy as np
import pytest
from scipy import stats

from resfit.errors import DataError, UsageError
from resfit.evaluation.comparison import compare, image_interval, join_intervals, mcnemar
from resfit.evaluation.metrics import t975
from resfit.runs import Run

COUNT = 600


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 5), (5, 0), (7, 7), (12, 31), (700, 800), (1, 0)])
def test_mcnemar_is_the_binomial_test(only_a, only_b):
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(expected, rel=1e-9)


def test_image_interval_is_the_bootstrap_of_images():
    draw = np.random.default_rng(0)
    difference = draw.choice([-1.0, 0.0, 1.0], 300, p=[0.05, 0.85, 0.1])
    rows = draw.integers(0, 300, (20_000, 300))
    expected = np.quantile(difference[rows].mean(1), (0.025, 0.975))
    assert image_interval(difference) == pytest.approx(expected, abs=1 / 300)


def test_image_interval_covers_the_truth_in_19_of_20():
    draw = np.random.default_rng(0)
    shares = [0.03, 0.91, 0.06]
    hits = 0
    for _ in range(300):
        low, high = image_interval(np.repeat([-1.0, 0.0, 1.0], draw.multinomial(1000, shares)))
        hits += low <= 0.03 <= high
    assert 0.92 <= hits / 300 <= 0.98


def test_without_a_difference_the_bound_is_what_could_have_been_unseen():
    low, high = image_interval(np.zeros(100))
    assert stats.binom.pmf(0, 100, high) == pytest.approx(0.025)
    assert low == -high


def test_joined_interval_covers_other_seeds_and_other_images():
    """Two-way effects: a difference has a part of the seed, one of the image, and noise; three seeds, paired."""
    draw, hits, truth = np.random.default_rng(0), 0, 0.01
    for _ in range(400):
        seeds, images = draw.normal(0, 0.01, (3, 1)), draw.normal(0, 0.2, 400)
        table = truth + seeds + images + draw.normal(0, 0.2, (3, 400))
        middle, of_seeds = table.mean(), table.mean(1)
        half_images = 1.96 * table.mean(0).std(ddof=1) / 20
        half_seeds = t975(2) * of_seeds.std(ddof=1) / np.sqrt(3)
        low, high = join_intervals(
            middle, (middle - half_images, middle + half_images), (middle - half_seeds, middle + half_seeds)
        )
        hits += low <= truth <= high
    assert 0.93 <= hits / 400 <= 1.0  # not exact: it errs to the safe side


def write_run(folder, right, seed=0, keys=None, labels=None, **info) -> str:
    """A finished run, as far as `compare` looks, that has these images right."""
    count = len(right)
    labels = np.arange(count) % 2 if labels is None else labels
    keys = np.arange(count, dtype=np.uint64) if keys is None else keys
    (folder / "predictions").mkdir(parents=True)
    probs = np.where(labels == np.where(right, 0, 1), 0.8, 0.2)  # of class 0
    np.savez(folder / "predictions" / "val.npz", probs=np.stack([probs, 1 - probs], 1), labels=labels, keys=keys)
    value = {"refit": False, "seed": seed, "class_names": ["x", "y"], "status": "finished"} | info
    (folder / "run.json").write_text(json.dumps(value))
    (folder / "summary.json").write_text("{}")
    return str(folder)


def test_two_runs_are_told_apart_whatever_the_order_of_images(tmp_path):
    draw = np.random.default_rng(0)
    b = draw.random(COUNT) < 0.8
    a = b | (draw.random(COUNT) < 0.3)
    order = draw.permutation(COUNT)
    one = write_run(tmp_path / "a", a)
    labels = np.arange(COUNT) % 2
    other = write_run(tmp_path / "b", b[order], keys=order.astype(np.uint64), labels=labels[order])
    value = compare(one, other)
    assert value["accuracy"] == {"a": a.mean(), "b": b.mean()}
    assert value["difference"] == pytest.approx(a.mean() - b.mean())
    assert (value["only_a_right"], value["only_b_right"]) == ((a & ~b).sum(), 0)
    assert value["p"] == pytest.approx(2 * 0.5 ** (a & ~b).sum())
    assert value["better"] == "a"
    low, high = value["interval"]
    assert 0 < low < value["difference"] < high
    assert value["covers"] == "images"
    assert value["answer"].startswith(f"{one} is better than {other}: ")
    turned = compare(other, one)
    assert turned["better"] == "b"
    assert turned["difference"] == -value["difference"]


def test_a_difference_within_chance_is_none(tmp_path):
    draw = np.random.default_rng(0)
    a, b = draw.random((2, COUNT)) < 0.8
    value = compare(write_run(tmp_path / "a", a), write_run(tmp_path / "b", b))
    assert value["better"] is None
    assert value["interval"][0] < 0 < value["interval"][1]
    assert value["answer"].startswith("It cannot be said")
    same = compare(tmp_path / "a", write_run(tmp_path / "c", a))
    assert same["p"] == 1
    assert same["difference"] == 0
    assert same["interval"][0] < 0 < same["interval"][1]


def seeds_of(folder, tables) -> str:
    for seed, right in enumerate(tables):
        write_run(folder / f"seed-{seed}", right, seed)
    (folder / "summary.json").write_text("{}")
    return str(folder)


def test_seeds_widen_the_interval_and_are_said(tmp_path):
    draw = np.random.default_rng(0)
    base = draw.random(COUNT)
    weak = [base < share for share in (0.80, 0.82, 0.78)]
    a = seeds_of(tmp_path / "a", [base < share for share in (0.84, 0.87, 0.83)])
    paired = compare(a, seeds_of(tmp_path / "b", weak))
    assert paired["covers"] == "images and seeds, paired"
    assert paired["better"] == "a"
    assert "p" not in paired
    assert "3 and 3 seeds" in paired["answer"]
    unpaired = compare(a, seeds_of(tmp_path / "two", weak[:2]))
    assert unpaired["covers"] == "images and seeds, not paired"
    assert unpaired["interval"][1] - unpaired["interval"][0] > paired["interval"][1] - paired["interval"][0]
    single = compare(a, tmp_path / "b" / "seed-0")
    assert single["covers"] == "images"
    differences = np.array([0.84, 0.87, 0.83]) - [0.80, 0.82, 0.78]
    of_seeds = t975(2) * differences.std(ddof=1) / np.sqrt(3)
    assert (paired["interval"][1] - paired["interval"][0]) / 2 >= of_seeds * 0.9


def test_what_cannot_be_compared_is_one_line(tmp_path):
    right = np.ones(20, bool)
    a = write_run(tmp_path / "a", right)
    with pytest.raises(UsageError, match="compared with itself"):
        compare(a, tmp_path / "." / "a")
    with pytest.raises(DataError, match=r"10 are shared by its 20 and the 20"):
        compare(a, write_run(tmp_path / "other", right, keys=np.arange(10, 30, dtype=np.uint64)))
    with pytest.raises(DataError, match="the classes differ"):
        compare(a, write_run(tmp_path / "named", right, class_names=["x", "z"]))
    with pytest.raises(DataError, match="images or labels"):
        compare(a, write_run(tmp_path / "labels", right, labels=np.zeros(20, int)))
    with pytest.raises(UsageError, match="refit"):
        compare(a, write_run(tmp_path / "refit", right, refit=True))
    with pytest.raises(UsageError, match="not a run folder"):
        compare(a, tmp_path / "nothing")
    unfinished = write_run(tmp_path / "unfinished", right)
    (tmp_path / "unfinished" / "summary.json").unlink()
    with pytest.raises(UsageError, match="has not finished"):
        compare(a, unfinished)
    seeds = seeds_of(tmp_path / "seeds", [right, right])
    (tmp_path / "seeds" / "summary.json").unlink()
    with pytest.raises(UsageError, match="seeds have not all finished"):
        compare(a, seeds)
    broken = write_run(tmp_path / "broken", right)
    (tmp_path / "broken" / "predictions" / "val.npz").write_bytes(b"PK")
    with pytest.raises(UsageError, match="cannot be read"):
        compare(a, broken)
    shutil.rmtree(tmp_path / "broken" / "predictions")
    with pytest.raises(UsageError, match="No such file"):
        compare(a, broken)


def test_a_real_run_and_its_copy(trained, tmp_path):
    copy = Run(shutil.copytree(trained.folder, tmp_path / "copy"))
    value = compare(trained.folder, copy.folder)
    assert value["accuracy"]["a"] == trained.summary["val"]["accuracy"]
    assert value["n"] == trained.summary["val"]["n"]
