"""Mixup and CutMix against the definitions of their papers, image by image, and when each is applied."""

import numpy as np
import pytest
import torch

from resfit.data.mix import cutmix, make_mix, mixup

COUNT, CLASSES, SIDE = 7, 5, 8


def batch():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (COUNT,), generator=generator)
    return torch.randn(COUNT, 3, SIDE, SIDE, generator=generator), labels, torch.eye(CLASSES)[labels]


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_is_a_convex_combination(alpha):
    inputs, _, targets = batch()
    mixed, mixed_targets = mixup(inputs, targets, np.random.default_rng(3), alpha)
    share = np.random.default_rng(3).beta(alpha, alpha)
    for k in range(COUNT):
        partner = COUNT - 1 - k
        torch.testing.assert_close(mixed[k], share * inputs[k] + (1 - share) * inputs[partner])
        torch.testing.assert_close(mixed_targets[k], share * targets[k] + (1 - share) * targets[partner])


def test_cutmix_pastes_one_rectangle_and_counts_its_area():
    inputs, _, targets = batch()
    areas = []
    for seed in range(200):
        mixed, mixed_targets = cutmix(inputs, targets, np.random.default_rng(seed), 1.0)
        foreign = (mixed != inputs).any(1)  # partners are made of random numbers: no pixel is equal by chance
        assert not foreign[COUNT // 2].any()  # the middle one is its own partner
        places = foreign[0].nonzero()
        area = len(places) / SIDE**2
        areas.append(area)
        if len(places):
            (top, left), (bottom, right) = places.amin(0).tolist(), places.amax(0).tolist()
            assert (bottom - top + 1) * (right - left + 1) == len(places)  # a full rectangle
        for k in range(COUNT):
            partner = COUNT - 1 - k
            theirs = foreign[0].expand(3, -1, -1)
            torch.testing.assert_close(mixed[k], torch.where(theirs, inputs[partner], inputs[k]))
            torch.testing.assert_close(mixed_targets[k], (1 - area) * targets[k] + area * targets[partner])
    assert min(areas) == 0
    assert 0.2 < np.mean(areas) < 0.5  # 1 - Beta(1, 1) has mean one half, less what the border cuts off


def test_a_step_takes_one_or_none_by_probability():
    inputs, labels, targets = batch()
    mix = make_mix(
        {"mixup": {"alpha": 1.0, "probability": 0.25}, "cutmix": {"alpha": 1.0, "probability": 0.5}}, CLASSES
    )
    kinds = []
    for step in range(400):
        mixed, mixed_targets = mix(inputs, labels, 0, step)
        torch.testing.assert_close(mixed_targets.sum(1), torch.ones(COUNT))
        again = mix(inputs, labels, 0, step)
        assert torch.equal(mixed, again[0])
        own = (mixed[0] == inputs[0]).float().mean().item()
        untouched = torch.equal(mixed, inputs) and torch.equal(mixed_targets, targets)
        kinds.append("none" if untouched else "mixup" if own == 0 else "cutmix")
    shares = {kind: kinds.count(kind) / 400 for kind in ("none", "mixup", "cutmix")}
    assert shares["mixup"] == pytest.approx(0.25, abs=0.09)  # four deviations of a share of 400
    assert shares["none"] == pytest.approx(0.25, abs=0.12)  # and the rectangles of no area
    assert not torch.equal(mix(inputs, labels, 1, 0)[0], mix(inputs, labels, 0, 0)[0]) or kinds[0] == "none"
