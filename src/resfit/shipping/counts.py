"""What a server counts, and its text for Prometheus (exposition format 0.0.4)."""

from bisect import bisect_left
from collections import Counter

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Histogram:
    """Values in buckets by their upper bounds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds, self.buckets, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str) -> list[str]:
        """Return the lines of the format; buckets are cumulative there."""
        total, lines = 0, []
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.buckets, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{name}_sum {self.sum:.6f}", f"{name}_count {total}"]


class Counts:
    """A server's numbers since it started."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # by path and status; 499: gone before its answer
        self.images = 0
        self.seconds, self.sizes = Histogram(SECONDS), Histogram(SIZES)

    def text(self, waiting: int) -> str:
        """Return everything as Prometheus reads it; `waiting` images are in the queue."""
        lines = []
        for name, kind, what, rows in (
            (
                "resfit_requests_total",
                "counter",
                "Requests by path and status.",
                [
                    f'resfit_requests_total{{path="{path}",code="{code}"}} {count}'
                    for (path, code), count in sorted(self.requests.items())
                ],
            ),
            ("resfit_images_total", "counter", "Images answered.", [f"resfit_images_total {self.images}"]),
            ("resfit_queue_images", "gauge", "Images that wait.", [f"resfit_queue_images {waiting}"]),
            (
                "resfit_predict_seconds",
                "histogram",
                "Seconds of a request that was answered.",
                self.seconds.lines("resfit_predict_seconds"),
            ),
            (
                "resfit_batch_images",
                "histogram",
                "Images computed at once.",
                self.sizes.lines("resfit_batch_images"),
            ),
        ):
            lines += [f"# HELP {name} {what}", f"# TYPE {name} {kind}", *rows]
        return "\n".join(lines) + "\n"
