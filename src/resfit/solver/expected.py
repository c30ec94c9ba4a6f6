"""The accuracy expected of a network before it is trained, and the time it takes, by rules fitted on runs. No torch.

The rules are for ranking networks of one budget. Their accuracies are those of the runs that they were fitted on, their times
those of one machine (expected.toml says which): no promise for other data, longer training or other machines.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np

from resfit.models.cost import Cost
from resfit.models.spec import ModelSpec


@dataclass(frozen=True)
class Times:
    """Femtoseconds an image: macs * `macs` + activations * `activations` + (blocks + 2, for stem and head) * `part`."""

    macs: int = 0
    activations: int = 0
    part: int = 0

    def seconds(self, spec: ModelSpec, cost: Cost) -> float:
        """Return the seconds that an image takes."""
        parts = sum(spec.blocks_per_stage) + 2
        return (cost.macs * self.macs + cost.activations * self.activations + parts * self.part) * 1e-15


@dataclass(frozen=True)
class Expected:
    """score = params * log2(params) + macs * log2(macs) + depth * log2(blocks) + depth_squared * log2(blocks)**2 + family
    + images * log2(training images seen, as a multiple of those of the fitted runs that saw most).

    It is the negative logarithm of the expected error. params and macs are at least 0, one of them above, so that of two
    networks equal in all else the costlier one ranks higher. `training` and `latency` (one image alone) are times; `source` is
    what it all was fitted on.
    """

    params: float
    macs: float
    depth: float = 0.0
    depth_squared: float = 0.0
    images: float = 0.0
    families: Mapping[str, float] = field(default_factory=dict)
    training: Times = Times()
    latency: Times = Times()
    source: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert min(self.params, self.macs) >= 0 < max(self.params, self.macs), "the rule must grow with cost"

    def score(self, family: str, params: np.ndarray, macs: np.ndarray, blocks: np.ndarray) -> np.ndarray:
        """Return float64 scores of int64 arrays of one shape, for as many images as the fitted runs that saw most."""
        return np.asarray(self.cost_score(params, macs) + self.shape_score(family, blocks))

    def cost_score(self, params: Any, macs: Any) -> Any:
        """Return the part of `score` that grows with counts, ints or int64 arrays of one shape."""
        return self.params * np.log2(params) + self.macs * np.log2(macs)

    def shape_score(self, family: str, blocks: np.ndarray) -> np.ndarray:
        """Return the part of `score` that follows from family and depth, for int64 arrays."""
        depth = np.log2(blocks)
        return np.asarray(self.depth * depth + self.depth_squared * depth**2 + self.families.get(family, 0.0))

    def accuracy(self, score: float, images: float = 1.0) -> float:
        """Return the accuracy that a score stands for after `images` times as many images."""
        return 1 - math.exp(-score - self.images * math.log2(images))


def load_expected() -> Expected:
    """Return the rule that ships with the package."""
    read: dict[str, Any] = tomllib.loads(files("resfit.solver").joinpath("expected.toml").read_text())
    read |= {name: Times(**read[name]) for name in ("training", "latency")}
    return Expected(**read)
