"""The networks that have a name: those of the five reports, and the published ones they are compared with. No torch.

Sources beside the reports: He et al. 2015, arXiv 1512.03385 (resnet-D); Zagoruyko & Komodakis 2016, arXiv 1605.07146
(wrn-D-K); Banbury et al. 2021, "MLPerf Tiny benchmark", arXiv 2106.07597 (resnet-8-mlperf).
"""

import re
from typing import Any

from resfit.errors import UsageError, nearest
from resfit.models.spec import ModelSpec, parse_fields, shown, spec_from_dict

NETWORKS: dict[str, str] = {
    "r1-baseline": "resnet:widths=64,128,256,512:blocks_per_stage=2,2,2,2",
    "r1-1": "resnet:widths=64,128,160,256:blocks_per_stage=2,2,2,2",
    "r1-2": "resnet:widths=64,128,222,256:blocks_per_stage=2,2,2,2",
    "r1-3": "resnet:widths=64,128,200,256:blocks_per_stage=2,2,2,2",
    "r1-4": "resnet:widths=100,150,215,256:blocks_per_stage=2,2,2,2:stem_width=64",  # only this stem gives its count
    "r2-1": "resnet:widths=16,32,64,128:blocks_per_stage=2,2,2,2:kernel=5:pool=4",
    "r2-2": "resnet:widths=32,64,128,256:blocks_per_stage=2,2,2,2:pool=4",
    "r2-3": "resnet:widths=64,128,256,512:blocks_per_stage=1,1,1,1:pool=4",
    "r2-4": "resnet:widths=64,128,256,512:blocks_per_stage=1,1,1,1:pool=3",
    "r2-5": "resnet:widths=64,128,256,512:blocks_per_stage=2,2,2,2:shortcut_kernel=2:pool=4",
    "r2-6": "resnet:widths=32,64,128,256:blocks_per_stage=4,6,4,3:pool=4",
    "r2-7": "resnet:widths=32,64,128,256:blocks_per_stage=5,7,4,3:pool=4",
    "r2-final": "resnet:widths=32,64,128,256:blocks_per_stage=4,6,4,3:pool=4",  # r2-6, trained for longer
    "r3": "wrn:widths=56,112,224:blocks_per_stage=4,4,4",
    "r4-deeper": "resnet:widths=64,128,256:blocks_per_stage=4,4,3:pool=8",
    "r4-lighter": "resnet:widths=64,128,256:blocks_per_stage=2,2,2:pool=8",
    "r5": "resnet:widths=32,64,128,256:blocks_per_stage=3,3,3,3:se_reduction=16",
    "r5-start": "resnet:widths=32,64,128:blocks_per_stage=3,3,3:se_reduction=16",
    "resnet-8": "resnet:widths=16,32,64:blocks_per_stage=1,1,1",
    "resnet-8-mlperf": "resnet:widths=16,32,64:blocks_per_stage=1,1,1:conv_bias=true:shortcut_norm=false",
    "resnet-20": "resnet:widths=16,32,64:blocks_per_stage=3,3,3",
    "resnet-56": "resnet:widths=16,32,64:blocks_per_stage=9,9,9",
    "resnet-110": "resnet:widths=16,32,64:blocks_per_stage=18,18,18",
    "wrn-16-4": "wrn:widths=64,128,256:blocks_per_stage=2,2,2",
    "wrn-40-2": "wrn:widths=32,64,128:blocks_per_stage=6,6,6",
    "wrn-28-10": "wrn:widths=160,320,640:blocks_per_stage=4,4,4",
}


def network(name: str) -> ModelSpec:
    """Return the spec of a name in NETWORKS, of `resnet-D` (D = 6n + 2), of `wrn-D-K` (D = 6n + 4), or of a text form.

    K may be a fraction, `wrn-28-3.5`; widths are rounded. Raises UsageError.
    """
    return spec_from_dict(network_fields(name))


def network_fields(name: str) -> dict[str, Any]:
    """Return the fields of a spec that a name stands for, without those that follow from them. Raises UsageError."""
    if name in NETWORKS:
        return parse_fields(NETWORKS[name])
    if found := re.fullmatch("resnet-([0-9]{1,6})", name):
        blocks = _blocks(name, int(found[1]), 2)
        return {"family": "resnet", "widths": (16, 32, 64), "blocks_per_stage": blocks}
    if found := re.fullmatch(r"wrn-([0-9]{1,6})-([0-9]{1,6}(?:\.[0-9]{1,6})?)", name):
        blocks = _blocks(name, int(found[1]), 4)
        widths = tuple(round(width * float(found[2])) for width in (16, 32, 64))
        return {"family": "wrn", "widths": widths, "blocks_per_stage": blocks}
    if ":" in name:
        return parse_fields(name)
    shown_name = shown(name)[1:-1] or "''"
    raise UsageError(f"{shown_name}: unknown network.{nearest(name[:60], NETWORKS)} `resfit list` shows all.")


def _blocks(name: str, depth: int, extra: int) -> tuple[int, int, int]:
    blocks, rest = divmod(depth - extra, 6)
    if rest or blocks < 1:
        raise UsageError(
            f"{name}: a depth of {depth} does not exist. It must be 6n + {extra}: {6 + extra}, {12 + extra}, ..."
        )
    return blocks, blocks, blocks
