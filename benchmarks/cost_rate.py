"""How many specs one core makes and costs a second: the named networks, and distinct random ones. Prints JSON."""

import random
import statistics
import time
from collections.abc import Sequence
from typing import Any

from resfit.models.families import cost
from resfit.models.networks import NETWORKS, network
from resfit.models.spec import ModelSpec, spec_to_dict
from result import show

REPEATS = 9
COUNT = 5_000
GOAL = 10_000


def random_fields(generator: random.Random) -> dict[str, Any]:
    stages = generator.randint(3, 5)  # enough of them that no two draws are the same
    return {
        "family": generator.choice(["resnet", "wrn", "separable"]),
        "widths": [generator.randint(16, 512) for _ in range(stages)],
        "blocks_per_stage": [generator.randint(1, 9) for _ in range(stages)],
        "kernel": generator.choice([3, 5]),
        "se_reduction": generator.choice([0, 4, 16]),
    }


def rates(fields: Sequence[dict[str, Any]]) -> list[float]:
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for values in fields:
            cost(ModelSpec(**values))
        found.append(len(fields) / (time.perf_counter() - start))
    return found


def main() -> None:
    named = [spec_to_dict(network(name)) for name in NETWORKS]
    generator = random.Random(0)
    drawn = [random_fields(generator) for _ in range(COUNT)]
    assert len({ModelSpec(**values) for values in drawn}) == COUNT
    of_named, of_drawn = rates(named * (COUNT // len(named))), rates(drawn)
    slower = min(of_named, of_drawn, key=statistics.median)
    show(
        "specs costed a second on one core",
        slower,
        GOAL,
        named=round(statistics.median(of_named)),
        random_distinct=round(statistics.median(of_drawn)),
    )


if __name__ == "__main__":
    main()
