"""cost, design, list: networks before any image is read."""

from typing import Any

from resfit import printing
from resfit.errors import UsageError
from resfit.verbs.options import Add, Arguments
from resfit.verbs.output import say, show


def add(verb: Add) -> None:
    """Add these verbs and their options."""
    p = verb("cost", do_cost, "Count a network's parameters, multiply-accumulates and memory.")
    p.add_argument(
        "network", metavar="NAME|SPEC", help="a name of `resfit list`, or a spec such as resnet:widths=16,32:..."
    )
    p.add_argument("--image-size", type=int, metavar="N", help="for images of N pixels a side (default: the network's)")
    p.add_argument("--classes", type=int, metavar="N", help="with so many classes (default: the network's)")
    p.add_argument("--layers", action="store_true", help="show every layer's output shape, params and macs")
    for limit in ("params", "macs", "bytes", "ram"):
        p.add_argument(f"--max-{limit}", metavar="SIZE", help=f"exit 3 above this many {limit}, e.g. 5M")

    p = verb("design", do_design, "Find the networks that fill a budget, the most accurate expected first.")
    for limit, unit in (
        ("params", "parameters (default 5M)"),
        ("macs", "multiply-accumulates an image"),
        ("bytes", "bytes of float32 weights"),
        ("ram", "bytes of activations alive at once, at int8"),
    ):
        p.add_argument(f"--max-{limit}", metavar="SIZE", help=f"at most this many {unit}, e.g. 500k")
    p.add_argument(
        "--max-latency", metavar="TIME", help="at most this long for one image on this machine's CPU, e.g. 5ms"
    )
    p.add_argument("--image-size", type=int, metavar="N", help="pixels of a side (default 32)")
    p.add_argument("--classes", type=int, metavar="N", help="number of classes (default 10)")
    p.add_argument("--family", action="append", default=[], help="search this family only; may be given again")
    p.add_argument(
        "--stages",
        action="append",
        default=[],
        type=int,
        metavar="N",
        help="so many stages (default 3; 4 above 32 pixels)",
    )
    p.add_argument(
        "--width-step", type=int, metavar="N", help="widths are multiples of this (default 8; of four stages coarser)"
    )
    p.add_argument("--near", metavar="NAME|SPEC", help="stay close to this network")
    p.add_argument(
        "--fix", action="append", default=[], metavar="KEY=VALUE", help="fix a field, e.g. widths=64,128,256"
    )
    p.add_argument("--score", action="store_true", help="build what is found and add training-free scores")
    p.add_argument("--top", type=int, default=10, metavar="N", help="show so many (default 10)")

    verb("list", do_list, "List the networks, recipes and spaces known by name.")


def do_cost(a: Arguments) -> int:
    """Print what a network costs; 3 where it exceeds a limit that was given."""
    from dataclasses import asdict, replace

    from resfit.budget import Budget, check_budget, parse_size
    from resfit.models.families import cost, layers
    from resfit.models.networks import network_fields
    from resfit.models.spec import spec_from_dict, spec_to_dict

    more = {key: value for key in ("image_size", "classes") if (value := getattr(a, key)) is not None}
    limits = {f"max_{name}": getattr(a, f"max_{name}") for name in ("params", "macs", "bytes", "ram")}
    asked: dict[str, Any] = {key: parse_size(text) for key, text in limits.items() if text is not None}
    try:
        spec = spec_from_dict(network_fields(a.network) | more)
    except UsageError:
        from resfit.recipefile import load_recipe, recipe_names

        if a.network not in recipe_names():
            raise
        sized = [f"data.image_size={more.pop('image_size')}"] if a.image_size is not None else []
        spec = replace(load_recipe(a.network, sized).network, **more)  # a recipe's name means its network
    total = cost(spec)
    budget = Budget(**({"max_params": None} | asked)) if asked else Budget()
    verdict = check_budget(total, budget)
    value = {
        "name": a.network,
        "spec": spec_to_dict(spec),
        "params": total.params,
        "macs": total.macs,
        "activations": total.activations,
        "weight_bytes": total.weight_bytes,
        "ram": total.peak,
        "memory_mb": total.memory_mb,
        "budget": asdict(budget) | {"ok": verdict.ok, "verdict": verdict.text},
    }
    rows = layers(spec) if a.layers else []
    shown = {"layers": [row._asdict() for row in rows]} if a.layers else {}
    show(a, value | shown, printing.cost_text(a.network, spec, total, verdict, rows))
    if asked and not verdict.ok:
        say(f"resfit: {a.network}: {verdict.text}")
        return 3
    return 0


def do_design(a: Arguments) -> int:
    """Print the networks that fill a budget; 3 where none does."""
    from resfit.budget import Budget, parse_duration, parse_size
    from resfit.models.networks import network
    from resfit.models.spec import parse_setting
    from resfit.solver.answer import answer, to_text
    from resfit.solver.exact import design
    from resfit.solver.expected import load_expected
    from resfit.solver.ranges import default_ranges, fix, near_ranges

    if a.top < 1:
        raise UsageError(f"--top: {a.top} is not 1 or more.")
    limits = {f"max_{name}": getattr(a, f"max_{name}") for name in ("params", "macs", "bytes", "ram")}
    asked: dict[str, Any] = {key: parse_size(text) for key, text in limits.items() if text is not None}
    fixed = dict(map(parse_setting, a.fix))
    more = {key: value for key in ("image_size", "classes") if (value := fixed.get(key, getattr(a, key))) is not None}
    if a.near:
        if a.family or a.stages:
            raise UsageError("--near: takes family and stages from the network. Leave --family and --stages out.")
        ranges = near_ranges(network(a.near), a.width_step, more)
    else:
        stages = a.stages or [len(fixed[key]) for key in ("widths", "blocks_per_stage") if key in fixed][:1]
        ranges = default_ranges(a.family, stages, a.width_step, more)
    ranges = fix(ranges, fixed)
    budget, rule = Budget(**asked), load_expected()
    if a.max_latency is None:
        value = answer(design(budget, ranges, a.top, rule), budget, rule)
    else:
        from resfit.solver.latency import design_measured

        found = design_measured(parse_duration(a.max_latency), budget, ranges, a.top, rule)
        value = answer([one for one, _ in found], budget, rule)
        for row, (_, seconds) in zip(value["networks"], found, strict=True):
            row["latency_ms"] = round(1000 * seconds, 3)
    if a.score:
        from resfit.solver.scores import score_network

        for row in value["networks"]:
            row |= score_network(network(row["network"]))
    show(a, value, to_text(value))
    return 0


def do_list(a: Arguments) -> int:
    """Print the networks and recipes known by name."""
    from resfit.models.families import cost
    from resfit.models.networks import NETWORKS, network
    from resfit.plugins import TABLES, defaults
    from resfit.recipefile import recipe_titles
    from resfit.study.space import space_titles

    recipes, techniques = recipe_titles(), {kind: defaults(kind) for kind in TABLES}
    rows = [(name, cost(network(name))) for name in NETWORKS]
    networks = [{"name": name, "params": total.params, "macs": total.macs} for name, total in rows]
    show(
        a,
        {"networks": networks, "recipes": recipes, "spaces": space_titles(), "techniques": techniques},
        printing.list_text(rows, recipes, space_titles(), techniques),
    )
    return 0
