"""What `design` searches, as data: families, kernels, widths and blocks; by default, near a network, or fixed in part."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from resfit.errors import UsageError
from resfit.models.spec import FIELDS, ModelSpec, resized

WIDEST = 512
SMALL = 32  # the largest images, in pixels, that have three stages unless told otherwise; larger ones have four
COARSE = (*range(8, 64, 8), *range(64, 128, 16), *range(128, 256, 32), *range(256, 513, 64))
FEW = (1, 2, 3, 4, 6)
NEAR = 4  # a width may differ by one part in so many from that of the network it stays near


@dataclass(frozen=True)
class Shapes:
    """The widths and the numbers of blocks that each stage may have; `rising`: no stage is narrower than the one before."""

    widths: tuple[tuple[int, ...], ...]
    blocks: tuple[tuple[int, ...], ...]
    rising: bool = True


def even(stages: int, widths: Sequence[int] = range(8, 513, 8), blocks: Sequence[int] = range(1, 9)) -> Shapes:
    """Return the shapes whose stages all have the same ranges."""
    return Shapes((tuple(widths),) * stages, (tuple(blocks),) * stages)


def coarse(stages: int) -> Shapes:
    """Return the shapes searched of four stages or more: COARSE widths, any multiple of 8 in the last, FEW blocks.

    All that precedes the last stage is enumerated, so that the ranges of three stages would take minutes with four.
    """
    return Shapes((COARSE,) * (stages - 1) + (tuple(range(8, WIDEST + 1, 8)),), (FEW,) * stages)


@dataclass(frozen=True)
class Ranges:
    """What `design` searches: every combination of these. The default: three stages of 1 to 8 blocks, widths of 8 to 512 by 8.

    `more` holds other fields of a spec, the same for all: se_reduction, image_size, classes, channels, ...
    """

    families: tuple[str, ...] = ("resnet", "wrn", "separable")
    kernels: tuple[int, ...] = (3,)
    shapes: tuple[Shapes, ...] = (even(3),)
    more: dict[str, Any] = field(default_factory=dict)


def default_ranges(
    families: Sequence[str] = (),
    stages: Sequence[int] = (),
    width_step: int | None = None,
    more: Mapping[str, Any] | None = None,
) -> Ranges:
    """Return the default ranges, of these families and numbers of stages where some are named.

    Stages: three up to 32 pixels (image_size of `more`), else four, so that from 32 to 256 the last map has 5 to 8 a side.
    Widths: multiples of `width_step` where it is given; else of 8, and the `coarse` shapes of four stages or more.
    """
    _check_step(width_step)
    plain, sized = Ranges(), dict(more or {})
    counts = stages or (3 if sized.get("image_size", SMALL) <= SMALL else 4,)
    step = width_step or 8
    return Ranges(
        families=tuple(families) or plain.families,
        shapes=tuple(
            coarse(count) if count > 3 and width_step is None else even(count, range(step, WIDEST + 1, step))
            for count in counts
        ),
        more=sized,
    )


def near_ranges(spec: ModelSpec, width_step: int | None = None, more: Mapping[str, Any] | None = None) -> Ranges:
    """Return the ranges close to a network: widths a quarter more or less, a block more or less a stage, all else as it is."""
    _check_step(width_step)
    spec = resized(spec, (more or {}).get("image_size", spec.image_size))
    widths = tuple(_around(width, width_step or 8) for width in spec.widths)
    blocks = tuple(tuple(range(max(1, count - 1), count + 2)) for count in spec.blocks_per_stage)
    shared = {name: getattr(spec, name) for name in FIELDS if name not in _SEARCHED}
    if spec.stem_width == spec.widths[0]:
        del shared["stem_width"]  # it goes on to follow the first stage
    rising = list(spec.widths) == sorted(spec.widths)
    return Ranges((spec.family,), (spec.kernel,), (Shapes(widths, blocks, rising),), shared | dict(more or {}))


def fix(ranges: Ranges, settings: Mapping[str, Any]) -> Ranges:
    """Return ranges with some fields of a spec at one value. Raises UsageError where they do not fit the stages."""
    for name, value in settings.items():
        if name in ("widths", "blocks_per_stage"):
            ranges = replace(ranges, shapes=tuple(_fix_stages(ranges.shapes, name, value)))
        elif name == "family":
            ranges = replace(ranges, families=(value,))
        elif name == "kernel":
            ranges = replace(ranges, kernels=(value,))
        else:
            ranges = replace(ranges, more=ranges.more | {name: value})
    return ranges


_SEARCHED = ("family", "kernel", "widths", "blocks_per_stage")


def _check_step(width_step: int | None) -> None:
    if width_step is not None and not 1 <= width_step <= WIDEST:
        raise UsageError(f"width_step: {width_step} is not from 1 to {WIDEST}. The default is 8.")


def _around(width: int, step: int) -> tuple[int, ...]:
    low, high = width - width // NEAR, width + width // NEAR
    return tuple(sorted({width, *(n for n in range(low, high + 1) if n % step == 0 and n > 0)}))


def _fix_stages(shapes: Iterable[Shapes], name: str, value: Sequence[int]) -> Iterable[Shapes]:
    """Yield the shapes with as many stages as values; all of them changed to that many where each has the same ranges."""
    single, found = tuple((number,) for number in value), False
    for shape in shapes:
        if len(shape.widths) != len(value) and len(set(shape.widths)) == len(set(shape.blocks)) == 1:
            shape = Shapes(shape.widths[:1] * len(value), shape.blocks[:1] * len(value), shape.rising)
        if len(shape.widths) != len(value):
            continue
        found = True
        yield (
            replace(shape, widths=single, rising=shape.rising and list(value) == sorted(value))
            if name == "widths"
            else replace(shape, blocks=single)
        )
    if not found:
        raise UsageError(f"{name}: {len(value)} given, and no network of the ranges has so many stages.")
