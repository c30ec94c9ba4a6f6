"""A network as plain data: `ModelSpec`, always valid, with a text form and a dictionary form. No torch.

The networks are those of He et al. 2015, arXiv 1512.03385, and of Zagoruyko & Komodakis 2016, arXiv 1605.07146; we add
what the reports vary: kernels, pool, squeeze-and-excitation, biases. The stem that shrinks larger images is theirs for
ImageNet (a stride, then a max-pool), but of a 3x3 kernel and not 7x7, so that a count of parameters holds at every size.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from resfit.errors import UsageError, nearest
from resfit.models.families import FAMILIES, Family, check, find, names


class Stage(NamedTuple):
    """One stage: the first block takes maps `width_in` wide, of `side_in`, to `width` and `side`; others keep them."""

    width_in: int
    width: int
    blocks: int
    stride: int
    side_in: int
    side: int


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Describe a residual network completely.

    What depends on other fields (`strides`, `stem_width`, `shortcut_norm`, `stem_stride`) may be left out and is filled in,
    so that an instance is always resolved. `stem_stride` 2 is the first convolution's stride; 4 adds a max-pool of 3x3 and
    stride 2 after it (and its ReLU). Raises UsageError, in one line that opens with the field, where no such network exists.
    """

    family: str
    widths: tuple[int, ...]
    blocks_per_stage: tuple[int, ...]
    strides: tuple[int, ...] = None  # type: ignore[assignment]  # None is filled in at once: 1, 2, 2, ...
    stem_width: int = None  # type: ignore[assignment]  # widths[0]; wrn: 16
    kernel: int = 3
    shortcut_kernel: int = 1
    pool: int = 0
    se_reduction: int = 0
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    conv_bias: bool = False
    shortcut_norm: bool = None  # type: ignore[assignment]  # True; wrn: False
    classes: int = 10
    channels: int = 3
    image_size: int = 32
    stem_stride: int = None  # type: ignore[assignment]  # 1 up to 64 pixels, 2 up to 128, 4 above; whitened: 1

    def __post_init__(self) -> None:
        family = _known(self.family)
        for name in ("widths", "blocks_per_stage", "strides"):
            value = getattr(self, name)
            if value is not None or name != "strides":
                object.__setattr__(self, name, _sizes(name, value))
        _whole("image_size", self.image_size, 1)
        for name, value in _dependent(family, self.widths, self.image_size).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name in ("blocks_per_stage", "strides"):
            if len(getattr(self, name)) != len(self.widths):
                count = len(getattr(self, name))
                raise UsageError(f"{name}: {count} given for {len(self.widths)} widths. Give one for each width.")
        for name in ("stem_width", "kernel", "shortcut_kernel", "classes", "channels"):
            _whole(name, getattr(self, name), 1)
        for name in ("pool", "se_reduction"):
            _whole(name, getattr(self, name), 0)
        for name in ("conv_bias", "shortcut_norm"):
            if type(getattr(self, name)) is not bool:
                raise UsageError(f"{name}: must be true or false, not {shown(getattr(self, name))}.")
        for name in _RATES:
            rate: object = getattr(self, name)
            if type(rate) not in (float, int) or not 0 <= rate < 1:  # type: ignore[operator]
                raise UsageError(f"{name}: must be a number from 0 up to, and not including, 1, not {shown(rate)}.")
            object.__setattr__(self, name, float(rate))  # type: ignore[arg-type]
        self._check_stem(family)
        self._check_shapes()
        check(self)

    def _check_stem(self, family: Family) -> None:
        stride: object = self.stem_stride
        if type(stride) is not int or stride not in (1, 2, 4):
            raise UsageError(f"stem_stride: must be 1, 2 or 4, not {shown(stride)}.")
        if stride > 1 and not family.strided_stem:
            raise UsageError(f"stem_stride: the family {self.family} has 1 only. Leave it out, or take resnet.")
        if stride > self.image_size:
            raise UsageError(f"stem_stride: {stride} is larger than image_size, {self.image_size}. Use a smaller one.")

    def _check_shapes(self) -> None:
        if self.kernel % 2 == 0:
            raise UsageError(f"kernel: must be odd, to keep the size of a map, not {self.kernel}.")
        if self.se_reduction > min(self.widths):
            raise UsageError(
                f"se_reduction: {self.se_reduction} is larger than the width {min(self.widths)}. Use at most that."
            )
        stages = self.stages()
        for number, (width_in, width, _, stride, side_in, side) in enumerate(stages, 1):
            if stride > side_in:
                behind = f" after a stem_stride of {self.stem_stride}" if self.stem_stride > 1 else ""
                raise UsageError(
                    f"strides: stage {number} strides by {stride} over a map of side {side_in}: image_size"
                    f" {self.image_size} is too small for it{behind}. Use smaller strides, fewer stages or larger images."
                )
            kernel = self.shortcut_kernel
            projected = (side_in + 2 * ((kernel - 1) // 2) - kernel) // stride + 1
            if (stride != 1 or width_in != width) and projected != side:
                raise UsageError(
                    f"shortcut_kernel: {kernel} makes a map of side {projected} in stage {number}, where the branch has"
                    f" {side}. Use an odd one."
                )
        if self.pool > stages[-1].side:
            side = stages[-1].side
            raise UsageError(
                f"pool: {self.pool} is larger than the last map, of side {side}. Use at most that, or 0: global."
            )

    def stages(self) -> list[Stage]:
        """Return each stage with its widths and map sides; every odd kernel is padded to keep the side."""
        found, width_in, side_in = [], self.stem_width, self.stem_sides[1]
        for width, blocks, stride in zip(self.widths, self.blocks_per_stage, self.strides, strict=True):
            side = (side_in - 1) // stride + 1
            found.append(Stage(width_in, width, blocks, stride, side_in, side))
            width_in, side_in = width, side
        return found

    @property
    def stem_sides(self) -> tuple[int, int]:
        """The sides of the maps that the first convolution and, with its max-pool, the stem as a whole put out."""
        convolved = -(-self.image_size // min(self.stem_stride, 2))
        return convolved, -(-convolved // 2) if self.stem_stride == 4 else convolved

    @property
    def features(self) -> int:
        """The inputs of the last linear layer."""
        positions = self.stages()[-1].side // self.pool if self.pool else 1
        return self.widths[-1] * positions * positions


FIELDS = tuple(f.name for f in fields(ModelSpec))
_FIXED = {f.name: f.default for f in fields(ModelSpec) if isinstance(f.default, int | float)}
_LISTS = ("widths", "blocks_per_stage", "strides")
_RATES = ("dropout", "stochastic_depth")
WHOLE, HALVED = 64, 128  # the largest images, in pixels, whose stem has a stride of 1, and of 2, unless told otherwise


def shown(value: object) -> str:
    """Return `value` as it may stand in a one-line message: on one line, and short."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def _known(name: object) -> Family:
    if type(name) is not str:
        raise UsageError(f"family: must be a name, not {shown(name)}. Use one of {', '.join(FAMILIES)}.")
    family = FAMILIES.get(name) or find(name)
    if family is None:
        raise UsageError(
            f"family: {shown(name)} is not known.{nearest(name[:60], names())} Use one of {', '.join(names())}."
        )
    return family


def _dependent(family: Family, widths: tuple[int, ...], image_size: int) -> dict[str, object]:
    return {
        "strides": (family.first_stride,) + (2,) * (len(widths) - 1),
        "stem_width": family.stem_width or widths[0],
        "shortcut_norm": family.shortcut_norm,
        "stem_stride": _stem_stride(family, image_size),
    }


def _stem_stride(family: Family, image_size: int) -> int:
    """Return the stem's stride that images of this size have where a spec names none."""
    if image_size <= WHOLE or not family.strided_stem:
        return 1
    return 2 if image_size <= HALVED else 4


def _whole(name: str, value: object, least: int) -> None:
    if type(value) is not int or value < least:  # `type`, because True is an int for isinstance
        raise UsageError(f"{name}: must be a whole number, {least} or more, not {shown(value)}.")


def _sizes(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise UsageError(f"{name}: must be a list of whole numbers, not {shown(value)}.")
    for item in value:
        _whole(name, item, 1)
    return tuple(value)


def format_spec(spec: ModelSpec) -> str:
    """Write `spec` as text safe in a shell, without the fields at their default; `parse_spec` reads it back."""
    parts = [spec.family]
    for name, value in own_fields(spec).items():
        if name != "family":
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value).lower()
            parts.append(f"{name}={text}")
    return ":".join(parts)


def own_fields(spec: ModelSpec) -> dict[str, Any]:
    """Return the fields that are not at their default, as plain data: with some changed, the defaults follow the others."""
    defaults = {**_FIXED, **_dependent(_known(spec.family), spec.widths, spec.image_size)}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}
    return {name: value for name, value in spec_to_dict(spec).items() if plain.get(name) != value}


def resized(spec: ModelSpec, image_size: int) -> ModelSpec:
    """Return the network for images of another size: a `stem_stride` that was its size's own follows. Raises UsageError."""
    own = spec.stem_stride == _stem_stride(_known(spec.family), spec.image_size)
    return replace(spec, image_size=image_size, stem_stride=None if own else spec.stem_stride)  # type: ignore[arg-type]


def parse_spec(text: str) -> ModelSpec:
    """Read the text form, `resnet:widths=64,128:blocks_per_stage=2,2:pool=8`. Raises UsageError."""
    return spec_from_dict(parse_fields(text))


def parse_fields(text: str) -> dict[str, Any]:
    """Return the fields that a text form names. Raises UsageError."""
    family, *settings = text.split(":")
    given: dict[str, Any] = {"family": family}
    for setting in settings:
        name, value = parse_setting(setting)
        if name in given:
            raise UsageError(f"{name}: is given twice. Give it once.")
        given[name] = value
    return given


def parse_setting(text: str) -> tuple[str, Any]:
    """Read one field of a spec, `widths=64,128`. Raises UsageError."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{shown(text)}: is not a setting. Write name=value, with a colon between two of them.")
    _check_keys([name])
    return name, _value(name, value)


def _value(name: str, text: str) -> object:
    if name == "family":
        return text
    if name in _LISTS:
        return [_number(name, part) for part in text.split(",")]
    if name in ("conv_bias", "shortcut_norm"):
        return {"true": True, "false": False}.get(text, text)
    if name in _RATES:
        try:
            return float(text)
        except ValueError:
            return text
    return _number(name, text)


def _number(name: str, text: str) -> int:
    if not re.fullmatch("-?[0-9]{1,18}", text):  # int() also takes underscores, spaces and other alphabets' digits
        raise UsageError(f"{name}: must be a whole number, not {shown(text)}.")
    return int(text)


def spec_to_dict(spec: ModelSpec) -> dict[str, Any]:
    """Return every field in order as TOML and JSON hold it: lists, numbers, booleans and one string.

    A `stem_stride` of 1 is left out for images of up to 64 pixels, where it is the default: files stay as they were before it.
    """
    found = {name: list(v) if isinstance(v := getattr(spec, name), tuple) else v for name in FIELDS}
    if spec.stem_stride == 1 and spec.image_size <= WHOLE:
        del found["stem_stride"]
    return found


def spec_from_dict(values: Mapping[str, Any]) -> ModelSpec:
    """Build the spec that a table of a TOML or JSON file describes. Raises UsageError for a missing or unknown key."""
    if not isinstance(values, Mapping):
        raise UsageError(f"spec: must be a table of settings, not {shown(values)}.")
    _check_keys(values)
    for name in FIELDS[:3]:
        if name not in values:
            raise UsageError(f"{name}: is missing. A network needs {', '.join(FIELDS[:3])}.")
    return ModelSpec(**values)


def stored_spec(values: Mapping[str, Any]) -> ModelSpec:
    """Build the spec of trained weights, as `spec_to_dict` wrote it: before `stem_stride` it was 1 at every size."""
    return spec_from_dict({"stem_stride": 1, **values})


def _check_keys(keys: Iterable[object]) -> None:
    for key in keys:
        if key not in FIELDS:
            hint = nearest(str(key)[:60], FIELDS) or f" The fields: {', '.join(FIELDS)}."
            raise UsageError(f"{shown(str(key))[1:-1]}: is no field of a network.{hint}")
