"""What a verb prints for people: results in, text out. No torch; what goes to which stream is said in `verbs`."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from resfit.columns import align, cut, places
from resfit.escaping import visible

if TYPE_CHECKING:  # `resfit --help` needs none of them
    from resfit.budget import Verdict
    from resfit.models.cost import Cost
    from resfit.models.layertable import Layer
    from resfit.models.spec import ModelSpec

UNEVEN = 1.2  # from this many times as many images of a class as of another on, what weighs classes equally is printed
LONGEST_CLASS, SHORTEST_ID = 24, 16  # places in a table of predictions


def lines_text(text: str) -> str:
    """Return lines for people with nothing in them that acts on a terminal; a name's own newline is made visible before."""
    return "\n".join(map(visible, text.split("\n")))


def cost_text(name: str, spec: "ModelSpec", total: "Cost", verdict: "Verdict", layers: "Sequence[Layer]" = ()) -> str:
    """Return the lines of `cost`: layers if given, counts, memory in MiB as torchsummary counts it, verdict on the budget."""
    from resfit.models.spec import format_spec

    memory = total.memory_mb
    shrunk = f", which the stem shrinks by {spec.stem_stride}" if spec.stem_stride > 1 else ""
    shares = f"input {memory['input']:.2f} + activations {memory['activations']:.2f} + params {memory['params']:.2f}"
    lines = [
        f"{name}  {format_spec(spec)}",
        *_layer_lines(layers),
        f"params       {total.params:>15,}   {total.weight_bytes:,} bytes as float32",
        f"macs         {total.macs:>15,}   for one {spec.image_size}x{spec.image_size} image{shrunk}",
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
        lines.append(f"{visible(seed['run'])}  {score}{opening}")
    seed = value["seeds"][0]
    lines.append(seeds_text(value["accuracy"], split))
    lines.append(origin(seed))
    return "\n".join(lines)


def score_text(value: dict[str, Any], split: str) -> str:
    """Return a score by class and in all, each with its interval, and what the weights were trained on."""
    classes = {visible(name): row for name, row in value["classes"].items()}
    width = max(map(len, classes))
    lines = []
    for name, row in classes.items():
        shown = f"{row['accuracy']:7.2%}" if row["n"] else "     --"
        low, high = row["interval"]
        lines.append(f"{name:<{width}}  {shown}  {row['correct']:,} of {row['n']:,}  95% {low:.2%} to {high:.2%}")
    low, high = value["interval"]
    score = f"{value['accuracy']:.2%}  95% {low:.2%} to {high:.2%}  n {value['n']:,}  nll {value['nll']:.4f}"
    lines.append(f"{split} accuracy {score}")
    counts = [row["n"] for row in classes.values() if row["n"]]
    if max(counts, default=0) > UNEVEN * min(counts, default=0) and "macro_f1" in value:
        lines.append(f"{split} balanced accuracy {value['balanced_accuracy']:.2%}, macro F1 {value['macro_f1']:.4f}")
    lines.append(origin(value))
    return "\n".join(lines)


def origin(score: dict[str, Any]) -> str:
    """Return what every accuracy must say of itself: training images, how weights were chosen, views a prediction."""
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


def answers_text(
    ids: Sequence[str], ranked: Sequence[Sequence[tuple[int, float]]], names: Sequence[str], width: int | None
) -> str:
    """Return a table of images with their most probable classes and probs.

    Where a row is wider than `width`, the last classes are left out, then the beginnings of ids.
    """
    shown = [cut(visible(name), LONGEST_CLASS) for name in names]
    most = max(map(len, ranked))
    ranks = ("label", "second", "third", *map(str, range(4, most + 1)))
    while True:
        head = [word for rank in ranks[:most] for word in (rank, "score")]
        cells = [[cell for k, p in row[:most] for cell in (shown[k], f"{p:.1%}")] for row in ranked]
        scores = align([head, *cells], right=frozenset(range(1, 2 * most, 2)))
        left = None if width is None else width - 2 - max(map(places, scores))
        if left is None or left >= SHORTEST_ID or most == 1:
            break
        most -= 1
    images = ["image", *map(visible, ids)]
    images = images if left is None else [cut(name, max(SHORTEST_ID, left), keep_end=True) for name in images]
    return "\n".join(align(list(zip(images, scores, strict=True))))


def prediction_text(report: dict[str, Any], out: str | None) -> str:
    """Return the shares of the predicted classes beside those on val, which of few images say nothing, and the warnings."""
    val, lines = report.get("val"), []
    if report["n"] >= len(report["class_shares"]):
        width = max(len("confidence"), *(len(visible(name)) for name in report["class_shares"]))
        lines = [f"{'predicted':<{width}}  images" + ("     val" if val else "")]
        for name, share in report["class_shares"].items():
            beside = f"  {val['class_shares'][name]:6.1%}" if val else ""
            lines.append(f"{visible(name):<{width}}  {share:6.1%}{beside}")
        both = f"  {val['confidence']:6.3f}" if val else ""
        lines.append(f"{'confidence':<{width}}  {report['confidence']:6.3f}{both}")
    lines += [
        f"warning: {warning}: are these images like the ones it was trained on?" for warning in report["warnings"]
    ]
    images = f"{report['n']:,} image{'s' * (report['n'] != 1)}"
    lines.append(f"{images}; {report['budget']}" + (f"; written to {visible(out)}" if out else ""))
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
    return "\n".join([*lines, *(f"written to {visible(file)}" for file in value["files"])])


def serve_text(address: str, facts: dict[str, Any]) -> str:
    """Return the line that says what is served, and where."""
    size = facts["preprocessing"]["size"]
    what = f"{ascii(facts['name'])[1:-1]}, {len(facts['classes']):,} classes, {size}x{size} pixels"
    return f"serving {what}: {address} (Ctrl-C stops it)"


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
    lines = [f"{visible(run['name'])}: {run['epochs']:,} epoch{'s' * (run['epochs'] != 1)}" for run in runs]
    return "\n".join([*lines, f"written to {visible(out)}"])


def report_text(value: dict[str, Any]) -> str:
    """Return a line for each run of a report, and where the page is."""
    lines = []
    for run in value["runs"]:
        seeds = f", mean of {run['seeds']} seeds" if run["seeds"] else ""
        score = f"{run['split']} accuracy {run['accuracy']:.2%}" if run["split"] else "not scored"
        if run["interval"]:
            low, high = (min(1.0, max(0.0, bound)) for bound in run["interval"])
            score += f" (95% {low:.2%} to {high:.2%}, n {run['n']:,})"
        lines.append(f"{visible(run['name'])}: {score}{seeds}")
    return "\n".join([*lines, f"written to {visible(value['out'])} ({value['bytes']:,} bytes)"])


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
    lines = [f"{visible(value['source'])}: read by {value['reader']}; brings {', '.join(value['brings'])}"]
    if value["layout"]:
        lines = [f"{visible(value['source'])}: {visible(value['layout'])}; brings {', '.join(value['brings'])}"]
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
    lines.append(f"cache  {visible(cache['folder'])}: {state}; {cache['bytes'] / 2**20:,.1f} MiB on disk")
    shown = f"{value['image_size']}x{value['image_size']}"
    return "\n".join([*lines, f"memory {value['memory_bytes'] / 2**20:,.1f} MiB decoded to {shown}"])


def check_text(value: dict[str, Any]) -> str:
    """Return a line for each problem that `data check` found, with its examples."""
    lines = []
    for problem in value["problems"]:
        kind = f"{'wrong' if problem['fatal'] else 'look'}: {problem['kind']}: {problem['count']:,}"
        more = "; ..." if problem["count"] > len(problem["examples"]) else ""
        lines.append(f"{kind}: {'; '.join(map(visible, problem['examples']))}{more}")
    if value["near"] and value["near"]["many"]:
        lines.append("  so many near each other: splits overlap, or all these pictures are alike, as digits are")
    if value["groups"] and value["groups"]["ungrouped"]:
        lines.append(f"  {value['groups']['ungrouped']:,} images are in no group: each is a group of its own")
    if "page" in value:
        lines.append(f"written to {visible(value['page']['out'])} ({value['page']['bytes']:,} bytes)")
    verdict = "can be trained on" if value["ok"] else "must be repaired first"
    return "\n".join(
        [*lines, f"{visible(value['source'])}: {value['images']:,} images of {value['classes']:,} classes, {verdict}"]
    )


def prepare_text(value: dict[str, Any]) -> str:
    """Return how many images `data prepare` decoded, how fast, and where they are."""
    if value["folder"] is None:
        return f"{visible(value['source'])}: read as fast again, so it is not cached"
    rate = "all there already"
    if value["decoded"]:
        rate = f"{value['decoded']:,} decoded, {value['images_per_second']:,.0f} images/s"
    where = f"{visible(value['source'])}: {value['images']:,} images at {value['image_size']} pixels"
    return f"{where}: {rate}; {visible(value['folder'])}"
