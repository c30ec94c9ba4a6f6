"""Pickles of arrays are read; pickles that would run something are refused, and nothing ran."""

import builtins
import collections
import functools
import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resfit.data.unpickle import load
from resfit.errors import DataError


class Calls:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["u1", "<i8", ">u2", "f4", "?"])
def test_arrays_come_through(protocol, dtype):
    array = np.arange(24).reshape(4, 6).astype(dtype)
    value = {
        "data": array,
        "f": np.asfortranarray(array),
        "n": array[0, 1],
        "b": b"\xff\0",
        "list": [1, "a"],
        b"k": None,
    }
    found = load(pickle.dumps(value, protocol), "x")
    for name in ("data", "f"):
        assert found[name].dtype == array.dtype
        assert (found[name] == array).all()
    assert found["n"] == array[0, 1]
    assert found["b"] == b"\xff\0"
    assert found["k"] is None


def test_python_2_pickles(make):
    value = {"data": make.cifar_rows(1, 7), "labels": [3, 4], "label_names": ["cat"]}
    data = make.py2_pickle(value)
    assert set(pickle.loads(data, encoding="bytes")) == {b"data", b"labels", b"label_names"}  # it is one
    found = load(data, "x")
    assert (found["data"] == value["data"]).all()
    assert found["labels"] == [3, 4]
    assert found["label_names"] == [b"cat"]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("nested", [False, True])
def test_nothing_is_run(tmp_path, one_line, protocol, nested):
    proof = tmp_path / "ran"
    for call, name in (
        (Calls(os.system, f"touch {proof}"), "system"),
        (Calls(builtins.eval, f"open({str(proof)!r}, 'w')"), "eval"),
        (Calls(builtins.open, str(proof), "w"), "open"),
        (Calls(builtins.getattr, 1, "real"), "getattr"),
        (Calls(functools.partial, print), "partial"),
        (Calls(np.load, str(proof)), "load"),
        (Calls(collections.Counter, "a"), "Counter"),
    ):
        value = {"data": [{"deep": (Calls(list, [call]),)}]} if nested else call
        message = one_line(load, pickle.dumps(value, protocol), "sub/evil.pkl")
        assert message.startswith("sub/evil.pkl: refused, it would run code")
        assert nested or name in message
    assert not proof.exists()


def test_the_harm_is_real(tmp_path):
    proof = tmp_path / "ran"
    pickle.loads(pickle.dumps(Calls(os.system, f"touch {proof}")))  # the tests above prove something
    assert proof.exists()


def test_opcodes_that_name_things_another_way(tmp_path, one_line):
    proof = tmp_path / "ran"
    shell = f"touch {proof}".encode()
    for data in (
        b"(S'" + shell + b"'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'" + shell + b"'\no.",  # OBJ
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x8c\x05touch\x85R.",  # STACK_GLOBAL
        b"\x80\x02\x82\x01.",  # EXT1
        b"Pabc\n.",  # PERSID
        b"S'abc'\nQ.",  # BINPERSID
        b"cnumpy\ndtype\n(N}S'__call__'\ncnumpy\ndtype\nstb.",  # state for a name
        b"cnumpy.core.multiarray\n_reconstruct.__class__\n.",
        b"\x80\x04\x8c\x05numpy\x94\x8c\x10ndarray.__class__\x94\x93.",
    ):
        one_line(load, data, "x.pkl")
    assert not proof.exists()


def test_objects_and_floods_are_refused(one_line):
    objects = np.empty(2, object)
    objects[:] = [Calls(os.getcwd), 1]
    records = np.zeros(2, [("a", "i4")])
    for value in (objects, records, np.array(["text"]), np.zeros(2, "M8[s]")):
        assert one_line(load, pickle.dumps({"data": value}), "x").startswith("x: ")
    head = b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    shape = b"\x8a\x06\x00\x00\x00\x00\x00\x01"  # 2**40
    for flood in (
        head + shape + b"\x85U\x01b\x87R(K\x01" + shape + b"\x85cnumpy\ndtype\nU\x02u1\x85R\x89U\x01atbs.",
        b"\x80\x02c__builtin__\nbytes\n" + shape + b"\x85R.",
        b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".",  # a memo of 32 GiB
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"a.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b"a.",
    ):
        assert one_line(load, flood, "x").startswith("x: ")


def test_other_values_are_refused(one_line):
    assert "list" in one_line(load, pickle.dumps([1]), "x")
    assert "x: " in one_line(load, pickle.dumps({3: 1}), "x")
    one_line(load, b"", "x")
    one_line(load, b"hello", "x")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_is_a_value_or_a_data_error(make, data):
    whole = bytearray(make.py2_pickle({"data": make.cifar_rows(1, 1), "labels": [3]})[:200] + b"more")
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    try:
        load(bytes(whole[:cut]), "x")
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 (either outcome is right)


def test_truncated(make, one_line):
    data = make.py2_pickle({"data": make.cifar_rows(1, 7)})
    for cut in (1, 20, 100, len(data) // 2, len(data) - 1):
        assert "truncated" in one_line(load, data[:cut], "x")
