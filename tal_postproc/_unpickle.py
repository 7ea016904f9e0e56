"""Object arrays from strangers: a pickle reader that makes lists, numbers and text, and nothing else.

A pickle is a program.  Even one that may call nothing but NumPy's own constructors can crash the process, so here the
names that such a file may use lead to stand-ins which only write down their arguments.  What they wrote down is checked
(lengths, counts, depth) when it is copied into plain lists, and every limit follows from the size of the file.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .types import FormatError

MAX_BYTES = 16 << 20  # the annotations of ActivityNet need less than 1 MiB
MAX_OPCODES = 2_000_000  # about 2 s of scanning; THUMOS14 has 45,000
MAX_DEPTH = 16  # array -> instances -> [start, end] -> number is 4
ITEM_BYTES = 64  # text or numbers that count as one item; names of classes are shorter, so a folder may share them

# no dicts and sets (hashing deep tuples overflows the C stack), no objects, no persistent ids, no buffers
_OPCODES = frozenset(
    "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT "  # noqa: SIM905
    "STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES "
    "BINBYTES8 BYTEARRAY8 EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 GLOBAL STACK_GLOBAL "
    "REDUCE BUILD PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET".split()
)
_NUMBERS = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})
_FLOATS = ("f2", "f4", "f8")
_TEXT = re.compile(r"[SU][1-9][0-9]{0,4}")


class _Array:
    """Stands for an array; keeps ``(version, shape, dtype, fortran, data)``."""

    __slots__ = ("state",)

    def __init__(self, state: Any = None) -> None:
        self.state = state

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype:
    """Stands for a dtype; keeps its code and ``(version, byte order, ...)``."""

    __slots__ = ("code", "state")

    def __init__(self, code: Any) -> None:
        self.code = code
        self.state: Any = (3, "|", None, None, None, -1, -1, 0)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    @property
    def is_object(self) -> bool:
        return isinstance(self.code, str) and self.code in ("O", "O4", "O8")

    def resolve(self) -> np.dtype[Any]:
        """The scalar dtype that is meant; refuses structures, subarrays, dates and raw memory."""
        code, state = self.code, self.state
        if not isinstance(code, str) or not (code in _NUMBERS or _TEXT.fullmatch(code)):
            raise FormatError(f"dtype {code!r:.40} is not allowed")
        if not isinstance(state, tuple) or len(state) != 8 or any(part is not None for part in state[2:5]):
            raise FormatError(f"dtype {code} has a state that is not a scalar's")
        if not isinstance(state[1], str) or state[1] not in ("<", ">", "|", "="):
            raise FormatError(f"dtype {code} has byte order {state[1]!r:.40}")
        return np.dtype(state[1] + code)


class _Bytes:
    """Stands for bytes that are spelt as text; one text may be spelt out many times, so this is left for later."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


_NDARRAY = object()  # what the name numpy.ndarray leads to


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not _NDARRAY:
        raise FormatError("an array of another kind than numpy.ndarray")
    return _Array()


def _scalar(dtype: Any, data: Any) -> _Array:
    return _Array((1, (), dtype, False, data))


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    return _Array((1, shape, dtype, order == "F", data))


def _dtype(code: Any, align: Any = False, copy: Any = True) -> _Dtype:
    return _Dtype(code)


def _encode(text: Any, encoding: Any) -> _Bytes:
    """How protocols below 3 spell bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise FormatError("an encoding other than latin1")
    return _Bytes(text)


def _empty_bytes() -> bytes:
    """How protocols below 3 spell no bytes."""
    return b""


_STAND_INS = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _empty_bytes,
    ("builtins", "bytes"): _empty_bytes,
}
for _core in ("numpy.core", "numpy._core"):
    _STAND_INS[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _STAND_INS[f"{_core}.multiarray", "scalar"] = _scalar
    _STAND_INS[f"{_core}.numeric", "_frombuffer"] = _frombuffer


class _Unpickler(pickle.Unpickler):
    """Knows the stand-ins and no other name."""

    def find_class(self, module: str, name: str) -> Any:
        found = _STAND_INS.get((module, name))
        if found is None:
            raise FormatError(f"the name {module}.{name} is not allowed"[:200])
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise FormatError("persistent ids are not allowed")


def _scan(file: IO[bytes]) -> None:
    """Read the opcodes without obeying them; what they promise to hold is there."""
    count = 0
    for count, (opcode, argument, last) in enumerate(pickletools.genops(file), 1):
        if opcode.name not in _OPCODES:
            raise FormatError(f"opcode {opcode.name} at byte {last} is not allowed")
        if count > MAX_OPCODES:
            raise FormatError(f"more than {MAX_OPCODES} opcodes")
        # the reader in C makes a table as long as the largest number here
        if opcode.name.endswith("PUT") and not 0 <= int(argument or 0) <= count:
            raise FormatError(f"memo number {argument} at opcode {count}")
    if rest := file.read():
        raise FormatError(f"{len(rest)} bytes after the end")


class _Copier:
    """Copies what was read into plain lists and counts, so that shared references cannot multiply without end."""

    def __init__(self, budget: int) -> None:
        self.left = budget

    def spend(self, count: int, size: int = 0) -> None:
        """Pay for `count` items that take `size` bytes, before they are made."""
        self.left -= max(count, size // ITEM_BYTES)
        if self.left < 0:
            raise FormatError(f"more items than the file has bytes (each {ITEM_BYTES} bytes count as an item)")

    def copy(self, value: Any, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            raise FormatError(f"nested more than {MAX_DEPTH} deep")
        if isinstance(value, (list, tuple)):
            self.spend(len(value))
            return [self.copy(item, depth + 1) for item in value]
        if isinstance(value, _Array):
            return self.copy_array(value, depth)
        if isinstance(value, (str, bytes)):
            self.spend(0, len(value))
            return value
        if isinstance(value, _Bytes):
            self.spend(0, len(value.text))
            return value.text.encode("latin1")
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise FormatError("an integer of more than 64 bits")
        if value is None or isinstance(value, (bool, int, float)):
            return value
        raise FormatError("something that is no number, text, list or array")

    def copy_array(self, array: _Array, depth: int = 0) -> Any:
        shape, dtype, fortran, data = array_parts(array)
        if isinstance(data, _Bytes):
            data = data.text
        size = len(data) if isinstance(data, (str, bytes, bytearray)) else 0
        self.spend(math.prod(max(length, 1) for length in shape), size)
        count = math.prod(shape)
        if dtype.is_object:
            if not isinstance(data, list) or len(data) != count:
                raise FormatError(
                    f"shape {shape} does not fit the {len(data) if isinstance(data, list) else 'no'} items"
                )
            if fortran and len(shape) > 1:
                raise FormatError("an object array in Fortran order")
            return _nested([self.copy(item, depth + 1) for item in data], shape)
        kind = dtype.resolve()
        if isinstance(data, str):
            data = data.encode("latin1")  # Python 2 wrote bytes as str, protocols below 3 spell them so
        if not isinstance(data, (bytes, bytearray)) or len(data) != count * kind.itemsize:
            raise FormatError(f"shape {shape} of {kind} does not fit its data")
        flat = np.frombuffer(data, kind)
        if kind.kind == "U" and (flat.view(f"{kind.str[0]}u4") > sys.maxunicode).any():  # tolist would not survive it
            raise FormatError("text with characters that do not exist")
        return flat.reshape(shape, order="F" if fortran else "C").tolist()


def array_parts(array: _Array) -> tuple[tuple[int, ...], _Dtype, bool, Any]:
    """Shape, dtype, order and data of an array that was read, none of it believed."""
    state = array.state
    if not isinstance(state, tuple) or len(state) != 5:
        raise FormatError("an array without shape, dtype and data")
    _, shape, dtype, fortran, data = state
    if not isinstance(shape, tuple) or len(shape) > 4 or not all(type(n) is int and 0 <= n < 1 << 48 for n in shape):
        raise FormatError("an array whose shape is no tuple of at most 4 sensible lengths")
    if not isinstance(dtype, _Dtype):
        raise FormatError("an array without a dtype")
    return shape, dtype, fortran is True or fortran == 1, data


def _nested(items: list[Any], shape: tuple[int, ...]) -> Any:
    """A flat list as nested lists of the given shape."""
    if not shape:
        return items[0]
    if len(shape) == 1:
        return items
    step = math.prod(shape[1:])
    return [_nested(items[row * step : (row + 1) * step], shape[1:]) for row in range(shape[0])]


def _read(file: IO[bytes], shape: tuple[int, ...]) -> _Array:
    """The object array that the rest of the file pickles, as a stand-in; `shape` is what the header promised."""
    begin = file.tell()
    _scan(file)
    file.seek(begin)
    made = _Unpickler(file, fix_imports=False, encoding="latin1").load()
    if not isinstance(made, _Array):
        raise FormatError("no array")
    found, dtype, _, _ = array_parts(made)
    if not dtype.is_object or found != shape or not shape:
        raise FormatError("an array of another shape or dtype than the header says")
    return made


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Whatever is wrong becomes a `FormatError` that begins with `name`."""
    try:
        yield
    except FormatError as error:
        raise FormatError(f"{name}: refused pickle: {error}") from None
    except Exception as error:  # whatever a broken stream makes the standard library raise
        raise FormatError(f"{name}: broken pickle: {type(error).__name__}: {error!s:.200}") from None


def load_object_array(data: bytes, shape: tuple[int, ...], name: str) -> list[Any]:
    """The object array that `data` pickles, as plain lists of numbers, text and lists.

    `shape` is what the header of the file promised, `name` begins the message of the `FormatError` that anything
    unexpected ends in.  Nothing is called, imported or allocated at the wish of the file: its names lead to stand-ins,
    and it cannot yield more items than it has bytes.  Each 64 bytes of text count as an item, as often as the file
    refers to them.  Takes about 1 us per opcode.
    """
    with _named(name):
        copied: list[Any] = _Copier(len(data)).copy_array(_read(io.BytesIO(data), shape))
        return copied


def load_matrices(file: IO[bytes], shape: tuple[int, ...], name: str) -> list[NDArray[Any]]:
    """The arrays of floats (T, D) in the object array (V,) that the rest of the file pickles, read-only.

    As careful as `load_object_array`; takes the memory of the file once.  `file` must not promise more than it has: a
    memory map or `io.BytesIO`, not an ordinary file, which would make room for what the pickle claims.
    """
    with _named(name):
        items = _read(file, shape).state[4]
        if len(shape) != 1 or not isinstance(items, list) or len(items) != shape[0]:
            raise FormatError(f"shape {shape} does not fit the {len(items) if isinstance(items, list) else 'no'} items")
        known: dict[int, NDArray[Any]] = {}  # an array may stand there more than once
        return [known.setdefault(id(item), _matrix(item, f"item {row}")) for row, item in enumerate(items)]


def _matrix(item: Any, what: str) -> NDArray[Any]:
    if not isinstance(item, _Array):
        raise FormatError(f"{what} is no array")
    shape, dtype, fortran, data = array_parts(item)
    if dtype.code not in _FLOATS or len(shape) != 2:
        raise FormatError(f"{what} is no matrix of floats: {dtype.code!r:.40} of shape {shape}")
    kind = dtype.resolve()
    if isinstance(data, _Bytes):
        data = data.text
    if isinstance(data, str):
        data = data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)) or len(data) != math.prod(shape) * kind.itemsize:
        raise FormatError(f"{what}: shape {shape} of {kind} does not fit its data")
    matrix = np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")
    matrix.flags.writeable = False
    return matrix
