"""Decode many small image files in processes: at 32 pixels Python's own work binds, and threads of one process share it.

Each worker is a fresh interpreter that writes its rows into the memory-mapped array. Neither fork (unsafe beside torch's
threads) nor multiprocessing's spawn (runs the caller's script again) is used.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from resfit.data.decode import decode
from resfit.data.images import PixelRule
from resfit.data.keys import key_of, read_file
from resfit.errors import DataError

HEAD_START = 5_000  # 32-pixel images that this process decodes while a worker starts (0.2 s)
_START = "from resfit.data.workers import _main; _main()"


def decode_files(paths: Sequence[str], rule: PixelRule, images: np.memmap, keys: np.ndarray, processes: int) -> None:
    """Fill images (N, 3, size, size), a writable memory-mapped .npy, and keys (N,) from the files at `paths` (N,).

    The last share is done here, the others in `processes - 1` workers. Raises DataError naming a file that fails.
    """
    size = max(0, len(paths) - HEAD_START) // processes
    bounds = [*(size * k for k in range(processes)), len(paths)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with contextlib.ExitStack() as stack:
        workers = []
        for start, stop in itertools.pairwise(bounds[:-1]):
            job = stack.enter_context(tempfile.TemporaryFile())  # a pipe would fill up until the worker has started
            share = {"array": str(images.filename), "start": start, "rule": vars(rule), "paths": paths[start:stop]}
            job.write(json.dumps(share).encode())
            job.seek(0)
            worker = subprocess.Popen(
                [sys.executable, "-P", "-c", _START], stdin=job, stdout=subprocess.PIPE, env=environment
            )
            stack.enter_context(worker)
            stack.callback(worker.kill)  # does nothing to one that has ended
            workers.append((worker, start, stop))
        _fill(paths[bounds[-2] :], rule, images[bounds[-2] :], keys[bounds[-2] :])
        for worker, start, stop in workers:
            assert worker.stdout is not None
            answer = worker.stdout.read()
            if worker.wait() == DataError.exit_code:
                raise DataError(answer.decode(errors="surrogateescape"))
            if worker.returncode != 0 or len(answer) != 8 * (stop - start):
                raise RuntimeError(f"a decoding worker ended with exit code {worker.returncode}")
            keys[start:stop] = np.frombuffer(answer, np.uint64)


def _fill(paths: Sequence[str], rule: PixelRule, images: np.ndarray, keys: np.ndarray) -> None:
    images = np.asarray(images)  # a plain array: rows of a memory map cost two microseconds more
    for row, path in enumerate(paths):
        data = read_file(path)
        keys[row] = key_of(data)
        images[row] = decode(data, rule, path)


def _main() -> None:
    """Do one share: a job as JSON on stdin, keys as bytes or an error's text on stdout."""
    job = json.load(sys.stdin)
    paths = job["paths"]
    images = np.load(job["array"], mmap_mode="r+")[job["start"] : job["start"] + len(paths)]
    keys = np.empty(len(paths), np.uint64)
    try:
        _fill(paths, PixelRule(**job["rule"]), images, keys)
    except DataError as error:
        sys.stdout.buffer.write(str(error).encode(errors="surrogateescape"))
        sys.exit(error.exit_code)
    sys.stdout.buffer.write(keys.tobytes())
