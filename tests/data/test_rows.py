"""Rows of arrays: what indexing gives is what numpy gives of the arrays laid end to end; nothing is read before."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from resfit.data.rows import Rows, join_rows, release, take_rows


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 10**6), st.integers(0, 9), st.integers(0, 9))
def test_like_numpy(lengths, seed, first, second):
    generator = np.random.default_rng(seed)
    arrays = [generator.integers(0, 256, (n, 3, 2, 2), np.uint8) for n in lengths]
    index = generator.permutation(sum(lengths))[: 1 + seed % sum(lengths)]
    expected = np.concatenate(arrays)[index]
    rows = take_rows(join_rows(arrays), index)
    assert (len(rows), rows.shape, rows.dtype) == (len(index), expected.shape, np.uint8)
    for key in (slice(None), slice(first, second), slice(None, None, 2), generator.permutation(len(index))):
        np.testing.assert_array_equal(rows[key], expected[key])
    np.testing.assert_array_equal(np.array(rows), expected)
    np.testing.assert_array_equal(np.asarray(rows, np.float32), expected.astype(np.float32))
    again = join_rows([take_rows(rows, np.arange(len(rows))[::-1]), arrays[0], rows])
    np.testing.assert_array_equal(again[:], np.concatenate([expected[::-1], arrays[0], expected]))


def test_released_pages_are_read_again(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5000, 3, 8, 8), np.uint8)
    np.save(tmp_path / "a.npy", images)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    for source in (mapped, Rows((mapped,), np.arange(5000))):
        np.testing.assert_array_equal(source[:], images)
        release(source)
        np.testing.assert_array_equal(source[:], images)
    writeable = images.copy()
    release(writeable)  # not mapped: nothing happens
    np.testing.assert_array_equal(writeable, images)
