"""Read pickles of arrays without the power to run anything: CIFAR's python batches and the competition file.

Nothing a pickle names is ever imported. The few names that numpy arrays need are answered by small stand-ins below,
which build arrays from bytes in the file, so that a pickle can neither call a function nor ask for memory it does not
fill.
"""

import codecs
import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from resfit.errors import DataError


def load(data: bytes, where: str) -> dict[str, Any]:
    """Return the dictionary in a pickle, its keys as str, its arrays as ndarray (numbers only).

    `where` names the file in errors. Python-2 strings come as bytes. Raises DataError for a pickle that names anything
    but numpy arrays (it would run code), that is truncated, or that is not a dictionary.
    """
    try:
        _check_memo(data)
        value = _ArrayUnpickler(io.BytesIO(data), where).load()
        if isinstance(value, dict):
            return {_text(key): item.value if isinstance(item, _Array) else item for key, item in value.items()}
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{where}: this pickle asks for more memory than it has data. Do not trust it.") from None
    except Exception as error:  # a damaged pickle fails in as many ways as there are opcodes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{where}: damaged or truncated pickle ({reason}). Fetch the file again.") from error
    raise DataError(f"{where}: holds a {type(value).__name__}, not a dictionary. Give a CIFAR-style pickle.")


def _check_memo(data: bytes) -> None:
    """Refuse memo slots past the file's length: the unpickler reserves memory for every slot below the highest."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument is not None and int(argument) > len(data):
            raise ValueError("memo slot out of range")


class _ArrayUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, where: str) -> None:
        super().__init__(file, encoding="bytes")
        self.where = where

    def find_class(self, module: str, name: str) -> "_Answer":
        function = _ANSWERS.get((module.replace("numpy._core", "numpy.core"), name))
        if function is None:
            named = f"{module}.{name}".encode("unicode_escape").decode()[:80]
            raise DataError(
                f"{self.where}: refused, it would run code: the pickle asks for {named}. Do not trust this file."
            )
        return _Answer(function)

    def persistent_load(self, pid: Any) -> Any:
        raise DataError(f"{self.where}: refused, the pickle refers to objects outside itself. Do not trust this file.")


class _Answer:
    """What the pickle gets for an allowed name: callable, new each time, and it takes no state."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("state for a name")


class _Dtype:
    """A number type by its code, such as "u1"; anything else (objects, records) is refused."""

    __slots__ = ("value",)

    def __init__(self, code: Any, *_: Any) -> None:
        text = _text(code)
        if not re.fullmatch(r"[<>|=]?([biuf][1248]|b|B|\?)", text):
            raise ValueError(f"arrays of type {text[:20]!r} are not read")
        self.value = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = _text(state[1])
        if order in ("<", ">"):
            self.value = self.value.newbyteorder("<" if order == "<" else ">")


class _Array:
    """What `numpy.core.multiarray._reconstruct` stands for: an array that gets shape, type and bytes as its state."""

    __slots__ = ("value",)

    def __init__(self, *_: Any) -> None:
        self.value = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = _array(raw, dtype, shape, "F" if fortran else "C")


def _array(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(dtype, _Dtype):
        raise ValueError("an array without a number type")
    if isinstance(raw, str):
        raw = raw.encode("latin-1")
    sizes = tuple(int(n) for n in shape)
    if min(sizes, default=0) < 0 or math.prod(sizes) * dtype.value.itemsize != len(raw):
        raise ValueError(f"an array of shape {sizes} with {len(raw)} bytes")
    array = np.frombuffer(raw, dtype.value)
    return array.reshape(sizes, order="F" if _text(order) == "F" else "C")


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.value = _array(raw, dtype, shape, order)
    return array


def _scalar(dtype: Any, raw: Any) -> Any:
    return _array(raw, dtype, (1,), "C")[0]


def _encode(text: Any, encoding: Any) -> bytes:
    if codecs.lookup(_text(encoding)).name != "iso8859-1":
        raise ValueError("an encoding other than latin-1")
    return _text(text).encode("latin-1")


def _no_bytes(*arguments: Any) -> bytes:
    if arguments:  # bytes(10**12) would reserve that much
        raise ValueError("bytes of a given length")
    return b""


def _ndarray(*_: Any) -> Any:
    raise ValueError("an array made outside _reconstruct")


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, str):
        return value
    raise ValueError(f"{type(value).__name__} where text belongs")


_ANSWERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
}
