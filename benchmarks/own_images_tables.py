"""The table of docs/performance.md on one's own images, from results/*.json, measured or not."""

from pathlib import Path

from performance_tables import Row, rows_table

OWN = "`benchmarks/own_images.py`"
ROWS = (
    Row(
        "test accuracy on patches of photographs, another region of each for every split",
        "none",
        "photographs.json",
        None,
        "",
        "`benchmarks/photographs.py`",
    ),
    Row(
        "val accuracy of framed images by the rule of `data.resize`",
        "each other",
        "own_images_resize.json",
        None,
        "",
        OWN,
    ),
    Row(
        "val balanced accuracy with class weights, a long tail",
        "without",
        "own_images_class_weights.json",
        None,
        "",
        OWN,
    ),
    Row("val accuracy from a bundle's weights, few images", "from a seed's", "own_images_init.json", None, "", OWN),
    Row(
        "time that `train --time-limit` takes, as a share of the limit",
        "none",
        "time_limit.json",
        ("value at most", 1.05),
        "",
        "`benchmarks/time_limit.py`",
    ),
    Row(
        "the same, half of the machine lost on the way",
        "none",
        "time_limit_busy.json",
        ("value at most", 1.05),
        "",
        "`benchmarks/time_limit.py`",
    ),
    *(
        Row(
            f"time that `train {data} --preset {name}` takes, as a share of its",
            "none",
            f"preset_{name}_{data}.json",
            ("value at most", 1.05),
            "",
            "`benchmarks/time_limit.py --preset`",
        )
        for name, data in (("quick", "cifar"), ("quick", "framed-centred"), ("balanced", "cifar"))
    ),
    Row(
        "val accuracy of what is planned for a time",
        "speed-cpu, the same time",
        "planned_accuracy.json",
        None,
        "",
        "`benchmarks/time_limit.py`",
    ),
    Row(
        "CPU training images/s, r4-lighter, streamed from the cache",
        "the same images in memory",
        "streaming_rate_r4_lighter.json",
        ("ratio at least", 0.9),
        "",
        "`benchmarks/streaming.py`",
    ),
    Row(
        "peak GB of memory of training on more images than that, streamed",
        "none",
        "streaming_memory.json",
        ("value at most", 2),
        "",
        "`benchmarks/streaming.py`",
    ),
    Row("seconds of `resfit data check --no-near`", "none", "data_check.json", None, "", "`benchmarks/data_check.py`"),
    Row("seconds of `resfit data check`", "--no-near", "data_check_near.json", None, "", "`benchmarks/data_check.py`"),
)


def own_images_tables(folder: Path) -> dict[str, str]:
    """Return the generated part of docs/performance.md by the name of its mark."""
    return {"own images": rows_table(folder, ROWS)}
