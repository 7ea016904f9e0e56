"""Values in files and tables of strangers: what they must be, or a `FormatError` that says where and what."""

from __future__ import annotations

import math
import os
import re
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import numpy as np

from .types import FormatError

StrPath = str | os.PathLike[str]

_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")


def refuse(where: str, rule: str, value: Any) -> NoReturn:
    raise FormatError(f"{where} {rule}, got {reprlib.repr(value)}")


def as_number(value: Any, where: str) -> float:
    """A finite float; THUMOS14 files also write numbers as text."""
    if type(value) is str and _NUMBER.fullmatch(value):
        value = float(value)
    if type(value) is int and -(2**63) <= value < 2**63:
        value = float(value)
    if type(value) is not float or not math.isfinite(value):
        refuse(where, "must be a finite number", value)
    return value


def as_span(value: Any, where: str) -> tuple[float, float]:
    """Finite [start, end] with start <= end."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        refuse(where, "must be a list [start, end]", value)
    start, end = as_number(value[0], where), as_number(value[1], where)
    if start > end:
        refuse(where, "needs start <= end", value)
    return start, end


def as_text(value: Any, where: str) -> str:
    """Text that can be written out again: no lone surrogates, no NUL."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str) or _NO_TEXT.search(value):
        refuse(where, "must be text", value)
    return str(value)


def as_kind(value: Any, kind: type, where: str) -> Any:
    """A list or a dict."""
    if not isinstance(value, kind):
        refuse(where, f"must be a {'list' if kind is list else 'dictionary'}", value)
    return value


def repeated(names: Iterable[str]) -> str | None:
    """The first name that stands a second time."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def class_names(classes: Sequence[str]) -> tuple[str, ...]:
    if isinstance(classes, (str, bytes)) or not isinstance(classes, Iterable):
        raise TypeError(f"`classes` must be a sequence of names, got {classes!r:.80}")
    names = tuple(map(str, classes))
    if (twice := repeated(names)) is not None:
        raise ValueError(f"`classes` must differ, {twice!r} stands {names.count(twice)} times")
    return names


def as_limit(max_bytes: Any) -> int:
    """A number of bytes, at least 1; it may well be more than anything that is counted."""
    if isinstance(max_bytes, (bool, np.bool_)) or not hasattr(max_bytes, "__index__"):
        raise TypeError(f"`max_bytes` must be a whole number, got {max_bytes!r:.80}")
    if int(max_bytes) < 1:
        raise ValueError(f"`max_bytes` must be at least 1, got {int(max_bytes)}")
    return int(max_bytes)
