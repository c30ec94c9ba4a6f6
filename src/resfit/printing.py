"""What a verb prints for people: results in, text out. No torch; what goes to which stream is said in `verbs`."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `resfit --help` needs none of them
    from resfit.budget import Verdict
    from resfit.models.cost import Cost
    from resfit.models.layertable import Layer
    from resfit.models.spec import ModelSpec


def cost_text(name: str, spec: "ModelSpec", total: "Cost", verdict: "Verdict", layers: "Sequence[Layer]" = ()) -> str:
    """Return the lines of `cost`: layers if given, counts, memory in MiB as torchsummary counts it, verdict on the budget."""
    from resfit.models.spec import format_spec

    memory = total.memory_mb
    shares = f"input {memory['input']:.2f} + activations {memory['activations']:.2f} + params {memory['params']:.2f}"
    lines = [
        f"{name}  {format_spec(spec)}",
        *_layer_lines(layers),
        f"params       {total.params:>15,}   {total.weight_bytes:,} bytes as float32",
        f"macs         {total.macs:>15,}   for one {spec.image_size}x{spec.image_size} image",
        f"activations  {total.activations:>15,}",
        f"ram          {total.peak:>15,}   bytes of activations alive at once, at int8",
        f"memory       {memory['total']:>12.2f} MB   {shares}, as torchsummary counts",
        f"budget       {verdict.text}",
    ]
    return "\n".join(lines)


def _layer_lines(layers: "Sequence[Layer]") -> list[str]:
    if not layers:
        return []
    width = max(len(layer.name) for layer in layers)
    lines = ["", f"{'layer':<{width}}  {'type':<17}  {'output':>13}  {'params':>12}  {'macs':>15}"]
    for name, kind, shape, params, macs in layers:
        shown = "x".join(map(str, shape))
        lines.append(f"{name:<{width}}  {kind:<17}  {shown:>13}  {_count(params):>12}  {_count(macs):>15}")
    params, macs = sum(layer.params for layer in layers), sum(layer.macs for layer in layers)
    return [*lines, f"{'total':<{width}}  {'':<17}  {'':>13}  {params:>12,}  {macs:>15,}", ""]


def _count(number: int) -> str:
    return f"{number:,}" if number else "-"


def list_text(
    rows: "Iterable[tuple[str, Cost]]",
    recipes: dict[str, str],
    spaces: dict[str, str],
    techniques: dict[str, dict[str, dict[str, Any]]],
) -> str:
    """Return the networks with their counts, recipes and spaces with what each is, techniques with their parameters."""
    lines = [f"{'network':<18} {'params':>12} {'macs':>15}"]
    lines += [f"{name:<18} {total.params:>12,} {total.macs:>15,}" for name, total in rows]
    lines += ["also resnet-D (D = 6n + 2) and wrn-D-K (D = 6n + 4, any K), and specs: `resfit cost --help`"]
    lines += ["", "recipe", *(f"{name:<18} {title}" for name, title in recipes.items())]
    lines += ["any network without a recipe of its name is trained by `default`", ""]
    lines += ["space, for `resfit search`", *(f"{name:<18} {title}" for name, title in spaces.items()), ""]
    places = {
        "augmentations": "[augment.NAME]",
        "mixes": "[mix.NAME]",
        "optimizers": "optim.name",
        "schedules": "schedule.name",
    }
    for kind, names in techniques.items():
        lines.append(f"{kind}, in a recipe as {places[kind]}: parameters and their defaults")
        for name, params in names.items():
            shown = ", ".join(f"{key} = {value}" for key, value in params.items())
            lines.append(f"{name:<18} {shown}".rstrip())
    return "\n".join(lines)


def seeds_text(scores: dict[str, Any], split: str) -> str:
    """Return mean, deviation and interval of several seeds' accuracy; the interval is cut to [0, 1]."""
    if scores["std"] is None:
        return f"{split} accuracy {scores['mean']:.2%} (n 1)"
    low, high = (min(1.0, max(0.0, bound)) for bound in scores["interval"])  # a fraction
    shown = f"{scores['mean']:.2%} ± {scores['std']:.2%} (n {scores['n']})"
    return f"{split} accuracy {shown}, mean's 95% {low:.2%} to {high:.2%}"


def each_seed_text(value: dict[str, Any], split: str) -> str:
    """Return a line for each seed, its interval that of its images, and the mean over seeds."""
    lines = []
    for seed in value["seeds"]:
        low, high = seed["interval"]
        opening = f"  opening {seed['opening']}" if "opening" in seed else ""
        score = f"{seed['accuracy']:.2%}  95% {low:.2%} to {high:.2%}  n {seed['n']:,}  nll {seed['nll']:.4f}"
        lines.append(f"{seed['run']}  {score}{opening}")
    seed = value["seeds"][0]
    lines.append(seeds_text(value["accuracy"], split))
    lines.append(_origin(seed))
    return "\n".join(lines)


def score_text(value: dict[str, Any], split: str) -> str:
    """Return a score by class and in all, each with its interval, and what the weights were trained on."""
    width = max(len(name) for name in value["classes"])
    lines = []
    for name, row in value["classes"].items():
        shown = f"{row['accuracy']:7.2%}" if row["n"] else "     --"
        low, high = row["interval"]
        lines.append(f"{name:<{width}}  {shown}  {row['correct']:,} of {row['n']:,}  95% {low:.2%} to {high:.2%}")
    low, high = value["interval"]
    score = f"{value['accuracy']:.2%}  95% {low:.2%} to {high:.2%}  n {value['n']:,}  nll {value['nll']:.4f}"
    lines.append(f"{split} accuracy {score}")
    lines.append(_origin(value))
    return "\n".join(lines)


def _origin(score: dict[str, Any]) -> str:
    views = score["tta_views"]
    seen = "no test-time augmentation" if views == 1 else f"mean of {views} views an image"
    below = score.get("tta_below", 1.0)
    if views > 1 and below < 1:
        seen += f", where the largest probability of one is below {below:g}"
    return f"trained on {score['train_images']:,} images; weights: {score['weights']}; {seen}"


def receipt_text(receipt: dict[str, Any]) -> str:
    """Return the score on the test split and which opening of it this was."""
    opening = f"opening number {receipt['opening']} of this test set ({receipt['fingerprint']})"
    return f"{score_text(receipt, 'test')}\n{opening}"


def prediction_text(report: dict[str, Any], out: str | None) -> str:
    """Return the shares of the predicted classes beside those on val, and the warnings."""
    val = report.get("val")
    width = max(len(name) for name in report["class_shares"])
    lines = [f"{'predicted':<{width}}  images" + ("     val" if val else "")]
    for name, share in report["class_shares"].items():
        lines.append(f"{name:<{width}}  {share:6.1%}" + (f"  {val['class_shares'][name]:6.1%}" if val else ""))
    both = f"  {val['confidence']:6.3f}" if val else ""
    lines.append(f"{'confidence':<{width}}  {report['confidence']:6.3f}" + both)
    lines += [
        f"warning: {warning}: are these images like the ones it was trained on?" for warning in report["warnings"]
    ]
    lines.append(f"{report['n']:,} images; {report['budget']}" + (f"; written to {out}" if out else ""))
    return "\n".join(lines)


def export_text(value: dict[str, Any]) -> str:
    """Return the table of an export beside PyTorch, and where the file is."""
    parity = value["parity"]
    lines = [f"{'format':<20} {'bytes':>12} {'accuracy':>9} {'agreement':>10} {'images/s at 1':>14} {'at 64':>10}"]
    for row in value["rows"]:
        name, rates = f"{row['format']} {row['precision']}", row["images_per_second"]
        scores = f"{row['accuracy']:>9.2%} {row['agreement']:>10.2%}"
        lines.append(f"{name:<20} {row['bytes']:>12,} {scores} {rates['1']:>14,.0f} {rates['64']:>10,.0f}")
    seen = ", which it was trained on" if value["trained_on_val"] else ""
    lines.append(
        f"compared on the {parity['n']:,} images of val{seen}: logits differ by {parity['max_difference']:.2g} at most"
    )
    return "\n".join([*lines, *(f"written to {file}" for file in value["files"])])


def upload_text(value: dict[str, Any]) -> str:
    """Return the files that `push` sends, with their bytes, and where to."""
    width = max(len(file["name"]) for file in value["files"])
    lines = [f"{file['name']:<{width}}  {file['bytes']:>12,} bytes" for file in value["files"]]
    total = sum(file["bytes"] for file in value["files"])
    does = "would be" if value["dry_run"] else "to be"
    return "\n".join([*lines, f"{len(lines)} files, {total:,} bytes, {does} uploaded to {value['repo']}"])


def pushed_text(value: dict[str, Any]) -> str:
    """Return where a bundle is on the Hub, who can see it, and what was removed."""
    gone = f"removed there, since this bundle has none: {', '.join(value['removed'])}\n" if value["removed"] else ""
    seen = "private: for you, or its owner, alone to see" if value["private"] else "public"
    return f"{gone}{value['url']}\n{seen}; commit {value['commit']}"


def pulled_text(value: dict[str, Any]) -> str:
    """Return what a bundle from the Hub is; its words are another's."""
    size = "an unknown number of" if value["params"] is None else f"{value['params']:,}"
    test = value["test"]
    score = "it brings no score of a test set"
    if test:
        low, high = test["interval"]
        score = (
            f"test accuracy {test['accuracy']:.2%} (95% {low:.2%} to {high:.2%}, n {test['n']:,}), as its receipt says"
        )
    left = f"left there: {', '.join(value['skipped'])}\n" if value["skipped"] else ""
    about = f"{size} parameters, {value['classes']:,} classes; {score}"
    return f"{left}{value['folder']}: {value['name']} of {value['repo']}, commit {value['commit']}\n{about}"


def curves_text(runs: Sequence[dict[str, Any]], out: str) -> str:
    """Return a line for each run that was drawn, and where the drawing is."""
    lines = [f"{run['name']}: {run['epochs']:,} epoch{'s' * (run['epochs'] != 1)}" for run in runs]
    return "\n".join([*lines, f"written to {out}"])


def bench_text(value: dict[str, Any]) -> str:
    """Return the machine's rates, a line for each network's training and prediction, and what binds each."""
    matrix = ", ".join(f"{rate:,.0f} in {kind}" for kind, rate in value["matrix_gflops"].items() if rate)
    lines = [
        value["device"],
        f"matrix rate  {matrix} GFLOP/s; memory rate {value['memory_gb_per_second']:,.0f} GB/s",
        "",
        f"{'network':<18} {'':<10} {'batch':>5} {'images/s':>9} {'GFLOP/s':>9}  of matrix  of memory  binds",
    ]
    tips = []
    for network in value["networks"]:
        for kind in ("training", "prediction"):
            row, batch = network[kind], network["batch_size"] if kind == "training" else ""
            shares = f"{row['share_of_matrix_rate']:>9.0%}  {row['share_of_memory_rate']:>9.0%}"
            rates = f"{row['images_per_second']:>9,.0f} {row['gflops']:>9,.0f}"
            lines.append(f"{network['name']:<18} {kind:<10} {batch:>5} {rates}  {shares}  {row['binds']}")
        tips.append(f"{network['name']}: {network['training']['binds']} binds training: {network['training']['try']}")
    note = "of matrix: 6 operations a mac in training, 2 in prediction, which Winograd's convolutions need fewer of; "
    note += "of memory: an estimate from above, as if no cache held anything"
    return "\n".join([*lines, "", *tips, f"rule: {value['rule']}", note])


def info_text(value: dict[str, Any]) -> str:
    """Return what `data info` found: splits, sizes, and where the decoded images are."""
    lines = [f"{value['source']}: read by {value['reader']}; brings {', '.join(value['brings'])}"]
    for name, split in value["splits"].items():
        counts = split["classes"].values()
        some = f"{min(counts):,} to {max(counts):,}" if min(counts) < max(counts) else f"{min(counts):,}"
        held = "" if name in value["brings"] else ", held out by content" if name != "train" else ", the rest"
        shown = f"{split['images']:>9,} images  {len(counts):,} classes of {some}"
        lines.append(f"{name:<6} {shown}  fingerprint {split['fingerprint']}{held}")
    sizes = ", ".join(f"{row['height']}x{row['width']} ({row['images']:,})" for row in value["image_sizes"])
    cache = value["cache"]
    state = "warm" if cache["warm"] else "cold: `resfit data prepare` fills it" if cache["used"] else "not needed"
    lines.append(f"sizes  {sizes or 'none could be read'}, of {value['looked_at']:,} images looked at")
    lines.append(f"cache  {cache['folder']}: {state}; {cache['bytes'] / 2**20:,.1f} MiB on disk")
    shown = f"{value['image_size']}x{value['image_size']}"
    return "\n".join([*lines, f"memory {value['memory_bytes'] / 2**20:,.1f} MiB decoded to {shown}"])


def check_text(value: dict[str, Any]) -> str:
    """Return a line for each problem that `data check` found, with its examples."""
    lines = [
        f"{'wrong' if problem['fatal'] else 'look'}: {problem['kind']}: {problem['count']:,}: {'; '.join(problem['examples'])}"
        + ("; ..." if problem["count"] > len(problem["examples"]) else "")
        for problem in value["problems"]
    ]
    verdict = "can be trained on" if value["ok"] else "must be repaired first"
    return "\n".join(
        [*lines, f"{value['source']}: {value['images']:,} images of {value['classes']:,} classes, {verdict}"]
    )


def prepare_text(value: dict[str, Any]) -> str:
    """Return how many images `data prepare` decoded, how fast, and where they are."""
    if value["folder"] is None:
        return f"{value['source']}: read as fast again, so it is not cached"
    rate = "all there already"
    if value["decoded"]:
        rate = f"{value['decoded']:,} decoded, {value['images_per_second']:,.0f} images/s"
    return f"{value['source']}: {value['images']:,} images at {value['image_size']} pixels: {rate}; {value['folder']}"
