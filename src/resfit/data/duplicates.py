"""Images that a set, or another one, has already: the same pixels, or nearly: other compression, colours, crop, mirrored.

Why it matters: Barz, Denzler 2020, "Do We Train on Test Data? Purging CIFAR of Near-Duplicates", arXiv 1902.00423. They compare
features of a trained network and judged pairs by eye; here pixels are compared, so that nothing needs to be trained. Candidates
agree in a coarse colour picture (8 x 8, each channel without its mean); what counts is the correlation of pixels and of
edges, at the best of a few shifts. `NEAR` was chosen by eye on CIFAR-10 (benchmarks/near_duplicates.py has the figures).
"""

from dataclasses import dataclass

import numpy as np

from resfit.data.keys import key_of
from resfit.data.rows import Images, release

NEAR = 0.15  # distance up to which a pair is near
SIDE = 32  # pixels that larger images are reduced to for the comparison
SHIFT = 3  # of 32 pixels, in each direction
_GRID = 8
_ALIKE = 0.85  # cosine of coarse pictures from which a pair is looked at
_CANDIDATES = 3  # a query and orientation
_ROWS = 2000
_PAIRS = 256


@dataclass(frozen=True)
class Duplicates:
    """Pairs of a query and its closest reference, by distance: rows (P,) int64 of either set, distances (P,) in [0, 2].

    A distance of 0 is the same pixels; one up to NEAR the same picture, in all likelihood.
    """

    queries: np.ndarray
    references: np.ndarray
    distances: np.ndarray


def find_duplicates(queries: Images, references: Images) -> Duplicates:
    """Return which of `queries` uint8 (N, 3, S, S) are in `references` (M, 3, S, S), exactly or nearly, each with the closest.

    A distance is 1 minus the mean of two correlations, of pixels and of their differences to the right and below; the query
    may be mirrored and moved by a tenth of its side. One scene taken twice may come as near; plain images, without edges, are
    near only where they are equal. Fine textures moved by more than a pixel may be missed.
    """
    return _closest(queries, references, within=False)


def find_duplicates_within(images: Images) -> Duplicates:
    """Return which of `images` uint8 (N, 3, S, S) are in the set before their own place already, each with the closest.

    Distances as in `find_duplicates`; the time grows with the square of N.
    """
    return _closest(images, images, within=True)


def _closest(queries: Images, references: Images, within: bool) -> Duplicates:
    """Return each query's closest reference; `within` one set, that of the rows before its own."""
    rows, others = _same_pixels(queries, references, within)
    best = np.full(len(queries), np.inf)
    closest = np.full(len(queries), -1, np.int64)
    best[rows], closest[rows] = 0, others
    for mirrored in (False, True):
        mine, theirs = _candidates(queries, references, mirrored, within)
        open_ = best[mine] > 0
        mine, theirs = mine[open_], theirs[open_]
        for start in range(0, len(mine), _PAIRS):
            here = slice(start, start + _PAIRS)
            left, right = _reduced(queries[mine[here]]), _reduced(references[theirs[here]])
            distances = pair_distances(left[..., ::-1] if mirrored else left, right)
            for row, other, distance in zip(mine[here], theirs[here], distances, strict=True):
                if distance < best[row]:
                    best[row], closest[row] = distance, other
    found = np.flatnonzero(best <= NEAR)
    found = found[np.argsort(best[found], kind="stable")]
    return Duplicates(found, closest[found], best[found])


def pair_distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the distance of each pair of images float32 (P, 3, S, S), (P,) in (0, NEAR], or 2 where it is more."""
    reach = max(1, round(SHIFT * left.shape[-1] / SIDE))
    edges = [_edges(images) for images in (left, right)]
    best = np.full(len(left), 2.0)
    for down in range(-reach, reach + 1):
        for across in range(-reach, reach + 1):
            ours, theirs = _overlap(down, across), _overlap(-down, -across)
            of_edges = _correlation(edges[0][ours], edges[1][theirs])
            # the other correlation is 1 at most: most pairs and shifts need no second one
            hope = np.flatnonzero(1 - (1 + of_edges) / 2 < np.minimum(best, NEAR))
            if len(hope):
                of_pixels = _correlation(_centred(left[hope][ours]), _centred(right[hope][theirs]))
                best[hope] = np.minimum(best[hope], 1 - (of_pixels + of_edges[hope]) / 2)
    return np.asarray(np.maximum(best, 1e-6))  # 0 is for the same pixels


def _same_pixels(queries: Images, references: Images, within: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of queries whose pixels are those of a reference, and the first such reference of each."""
    first: dict[int, int] = {}
    theirs = _pixel_keys(references)
    for row, key in enumerate(theirs):
        first.setdefault(key, row)
    ours = theirs if within else _pixel_keys(queries)
    pairs = [(row, first[key]) for row, key in enumerate(ours) if key in first]
    if within:
        pairs = [(row, other) for row, other in pairs if other < row]
    return np.array([row for row, _ in pairs], np.int64), np.array([other for _, other in pairs], np.int64)


def _pixel_keys(images: Images) -> list[int]:
    keys = []
    for start in range(0, len(images), _ROWS):
        keys += [key_of(np.ascontiguousarray(image).data.cast("B")) for image in images[start : start + _ROWS]]
        release(images)
    return keys


def _candidates(queries: Images, references: Images, mirrored: bool, within: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (P,) of queries and of references that look alike from afar, a few references a query at most."""
    theirs = _coarse(references, False)
    ours = theirs if within and not mirrored else _coarse(queries, mirrored)
    rows, others = [], []
    for start in range(0, len(ours), _ROWS):
        found = []
        before = min(start + _ROWS, len(theirs)) if within else len(theirs)
        for at in range(0, before, 2 * _ROWS):
            alike = ours[start : start + _ROWS] @ theirs[at : min(at + 2 * _ROWS, before)].T
            mine, other = np.nonzero(alike >= _ALIKE)
            if within:
                earlier = other + at < mine + start
                mine, other = mine[earlier], other[earlier]
            found.append((mine, other + at, alike[mine, other]))
        mine, other, alike = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.lexsort((-alike, mine))
        mine, other = mine[order], other[order]
        place = np.arange(len(mine)) - np.searchsorted(mine, mine)  # of a query's, by likeness
        kept = place < _CANDIDATES
        rows.append(mine[kept] + start)
        others.append(other[kept])
    return np.concatenate(rows), np.concatenate(others)


def _coarse(images: Images, mirrored: bool) -> np.ndarray:
    """Return an 8 x 8 colour picture of each image as a vector of length 1, each channel without its mean, float32 (N, 192)."""
    parts = []
    for start in range(0, len(images), _ROWS):
        small = _shrink(np.asarray(images[start : start + _ROWS]).astype(np.float32), _GRID)
        release(images)
        vectors = _centred(small[..., ::-1] if mirrored else small).reshape(len(small), -1)
        parts.append(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6))
    return np.concatenate(parts)


def _reduced(images: np.ndarray) -> np.ndarray:
    values = images.astype(np.float32)
    return values if values.shape[-1] <= SIDE else _shrink(values, SIDE)


def _shrink(images: np.ndarray, side: int) -> np.ndarray:
    """Return float32 (N, 3, S, S) as means over areas, (N, 3, side, side)."""
    edges = np.linspace(0, images.shape[-1], side + 1)
    pixels = np.arange(images.shape[-1])
    shares = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    matrix = np.maximum(shares, 0).astype(np.float32)
    matrix /= matrix.sum(1, keepdims=True)
    return np.asarray(matrix @ (images @ matrix.T))


def _edges(images: np.ndarray) -> np.ndarray:
    """Return differences to the right and below of slightly smoothed images, (P, 6, S - 1, S - 1)."""
    padded = np.pad(images, [(0, 0), (0, 0), (1, 1), (1, 1)], "edge")
    tall = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    smooth = tall[..., :-2] + 2 * tall[..., 1:-1] + tall[..., 2:]
    corner = smooth[:, :, :-1, :-1]
    return np.concatenate([smooth[:, :, :-1, 1:] - corner, smooth[:, :, 1:, :-1] - corner], 1)


def _overlap(down: int, across: int) -> tuple[slice, slice, slice, slice]:
    """Return what an image moved down and across has in common with one that was not."""
    rows, columns = (slice(max(0, shift), min(0, shift) or None) for shift in (down, across))
    return slice(None), slice(None), rows, columns


def _centred(images: np.ndarray) -> np.ndarray:
    return np.asarray(images - images.mean((2, 3), keepdims=True))


def _correlation(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of arrays (P, ...), 0 where one is all zero."""
    ours, theirs = left.reshape(len(left), -1), right.reshape(len(right), -1)
    products = np.einsum("ij,ij->i", ours, theirs)
    lengths = np.einsum("ij,ij->i", ours, ours) * np.einsum("ij,ij->i", theirs, theirs)
    return np.asarray(products / np.sqrt(np.maximum(lengths, 1e-6)))
