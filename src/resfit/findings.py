"""What `evaluate --full` and `compare` print for people: results in, text out. No torch."""

from collections.abc import Sequence
from typing import Any

from resfit.escaping import visible
from resfit.printing import score_text


def full_text(value: dict[str, Any]) -> str:
    """Return what `evaluate --full` found, a part after another; names of classes and images come from the data."""
    names, parts = [*map(visible, value["class_names"])], [score_text(value, "val")]
    pairs = [
        (count, true, other)
        for true, row in enumerate(value["confusion"])
        for other, count in enumerate(row)
        if other != true and count
    ]
    shown = [
        f"{names[true]} taken for {names[other]} {count:,}" for count, true, other in sorted(pairs, reverse=True)[:5]
    ]
    parts.append("confused     " + ("; ".join(shown) or "nothing"))
    fit, scaled = value["calibration"], value["calibration"]["scaled"]
    after = f"at temperature {fit['temperature']:.2f}, cross-fitted: ece {scaled['ece']:.4f}, nll {scaled['nll']:.4f}"
    parts.append(f"calibration  ece {fit['ece']:.4f}; {after}")
    surest = [min(value["selective"]["points"], key=lambda p: abs(p["coverage"] - share)) for share in (0.5, 0.8, 0.9)]
    answered = ", ".join(f"{p['accuracy']:.2%} of the surest {p['coverage']:.0%}" for p in surest)
    parts.append(f"selective    {answered} are right; aurc {value['selective']['aurc']:.4f}")
    parts.append(_robustness(value["corruptions"]))
    parts += _data_lines(value)
    parts.append(_image_lines("most confident mistakes", value["mistakes"][:5], names, "confidence"))
    doubted = f"confident learning doubts {value['label_issues']:,} of {value['n']:,}"
    parts.append(_image_lines(f"most suspicious labels ({doubted})", value["suspicious"], names, "score"))
    return "\n".join(parts)


def _image_lines(title: str, rows: Sequence[dict[str, Any]], names: Sequence[str], number: str) -> str:
    lines = [
        f"  {visible(row['id'])}: {names[row['label']]}, predicted {names[row['predicted']]}, {number} {row[number]:.4f}"
        for row in rows
    ]
    return "\n".join([title, *(lines or ["  none"])])


def _robustness(value: dict[str, Any]) -> str:
    """Return the table of corruptions: a row each, a column a strength."""
    lines = [
        f"corruptions  {value['n']:,} images, {value['clean']:.2%} without; mean {value['mean']:.2%}; strengths 1 to 5:"
    ]
    for name in dict.fromkeys(row["name"] for row in value["rows"]):
        cells = [f"{row['accuracy']:7.2%}" for row in value["rows"] if row["name"] == name]
        lines.append(f"  {name:<15} {'  '.join(cells)}")
    return "\n".join(lines)


def _data_lines(value: dict[str, Any]) -> list[str]:
    """Return what was found of duplicates and balance."""
    found, without = value["duplicates"], value["duplicates"]["accuracy_without"]
    lines = [f"duplicates   of val's images {found['exact']:,} are in train, {found['near']:,} nearly so"]
    if found["pairs"] and without["accuracy"] is not None:
        low, high = without["interval"]
        lines[0] += f"; without them {without['accuracy']:.2%}, 95% {low:.2%} to {high:.2%}, n {without['n']:,}"
    if found["exact"] + found["near"] > value["n"] / 5:
        lines.append(
            "  so many: val overlaps with train, or all these pictures are alike, as digits are: look at the pairs"
        )
    for pair in found["pairs"][:5]:
        other = "" if pair["same_label"] else ", with another label"
        both = f"{visible(pair['val'])} is like {visible(pair['train'])} of train"
        lines.append(f"  {both}, distance {pair['distance']:.3f}{other}")
    ratio = value["balance"]["ratio"]
    most = (
        "a class of train has no image"
        if ratio is None
        else f"train's largest class has {ratio:.2f} times the smallest"
    )
    return [*lines, f"balance      {most}"]


def comparison_text(value: dict[str, Any]) -> str:
    """Return the answer of `compare`, and what its interval does not cover."""
    a, b = value["accuracy"]["a"], value["accuracy"]["b"]
    lines = [
        visible(value["answer"]),
        f"val accuracy: {a:.2%} and {b:.2%}; the interval covers other {value['covers']}",
    ]
    if "seeds" not in value["covers"]:
        lines.append(
            "other seeds of the same recipes may answer otherwise: `resfit train --seeds 3` of both covers that"
        )
    return "\n".join(lines)
