"""A digest of the names, sizes and times of files. Run as a script it does so for the folders on stdin, in a second process.

The script imports next to nothing, so that it has begun within 20 ms; what a file costs is the system's own look-up, which
threads of one interpreter do not share out.
"""

import os
import sys
from _blake2 import blake2b  # what hashlib gives, without loading OpenSSL
from collections.abc import Iterable, Sequence

Folder = tuple[bytes, Sequence[bytes]]  # its path and the names of its files


def digest(folder: bytes, names: Iterable[bytes]) -> bytes:
    """Return 16 bytes that change with a file's name, size or time; follows links. Raises OSError."""
    found = blake2b(digest_size=16)
    stat, start = os.stat, folder + b"/"
    for name in names:
        facts = stat(start + name)
        found.update(b"%b\0%d\0%d\n" % (name, facts.st_size, facts.st_mtime_ns))
    return found.digest()


def pack(folders: Iterable[Folder]) -> bytes:
    """Return the folders as the script reads them; no path has a zero byte in it."""
    return b"\0\0".join(b"\0".join((folder, *names)) for folder, names in folders)


if __name__ == "__main__":
    for block in sys.stdin.buffer.read().split(b"\0\0"):
        top, *members = block.split(b"\0")
        sys.stdout.buffer.write(digest(top, members))
