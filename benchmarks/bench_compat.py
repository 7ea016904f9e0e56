"""Functions of published codebases under their own names and signatures, against literal transcriptions of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import common
from .common import Report, Row, Unavailable

NAME = "compat"
QUICK: dict[str, Any] = {"most": 30, "repeats": 2, "slow_repeats": 1}


@dataclass(frozen=True)
class Case:
    """One function of one codebase: both callables take what `make(size)` returns, and must give the same."""

    codebase: str  # as the codebase calls itself
    function: str  # the original's name
    counts: str  # what `size` counts
    size: int
    make: Callable[[int], tuple[Any, ...]]
    published: Callable[..., Any]  # the literal oracle, in the original's signature
    ours: Callable[..., Any]
    tolerance: float = 1e-6
    who: str = "literal Python"  # what `published` is


# ---------------------------------------------------------------------------------------------------------------- cases
# A function for every codebase, named after its file in `tal_postproc.compat`.  It imports within, because a codebase
# may need torch or pandas, and raises `Unavailable` where they are not here.


def _need(module: str, package: str | None = None) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(f"not installed (pip install {package or module})") from error


FAMILIES: tuple[Callable[[], Sequence[Case]], ...] = ()


# ------------------------------------------------------------------------------------------------------------ agreement


def flat(value: Any) -> list[np.ndarray]:
    """The arrays within what a function returned: tensors, frames, lists and dictionaries taken apart, in order."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if hasattr(value, "columns"):
        return [part for name in sorted(value.columns) for part in flat(value[name].to_numpy())]
    if isinstance(value, Mapping):
        return [part for key in sorted(value) for part in flat(value[key])]
    if isinstance(value, (list, tuple)):
        try:
            return [np.asarray(value, dtype=np.float64)]
        except (ValueError, TypeError):  # ragged, or with names
            return [part for one in value for part in flat(one)]
    array = np.asarray(value)
    if array.dtype.kind in "USO":  # names are compared as numbers in the order of the alphabet
        array = np.unique(array.astype(str), return_inverse=True)[1]
    return [array.astype(np.float64)]


def agree(ours: Any, theirs: Any, who: str, tolerance: float) -> str:
    """Same type, same structure, same numbers; how many were compared, in words."""
    if type(ours) is not type(theirs):
        raise common.Disagreement(f"{who}: {type(theirs).__name__} instead of {type(ours).__name__}")
    mine, other = flat(ours), flat(theirs)
    if [part.shape for part in mine] != [part.shape for part in other]:
        raise common.Disagreement(f"{who}: {[p.shape for p in other]} instead of {[p.shape for p in mine]}")
    both = (np.concatenate([np.empty(0), *(part.ravel() for part in parts)]) for parts in (mine, other))
    return common.require_equal_values(*both, who, tolerance)


# ------------------------------------------------------------------------------------------------------------------ run


def run(
    *,
    clones: Mapping[str, Path] | None = None,
    only: str = "",
    most: int | None = None,
    repeats: int = 11,
    slow_repeats: int = 3,
) -> Report:
    """`only` is a codebase's file, to run its cases alone; `most` bounds the sizes."""
    report = Report(NAME, "Drop-in functions: the same call, the same result", {})
    for family in FAMILIES:
        if only not in ("", family.__name__):
            continue
        try:
            cases = family()
        except Unavailable as reason:
            report.skipped[family.__name__] = str(reason)
            continue
        for case in cases:
            report.rows += _measure(case, case.size if most is None else min(case.size, most), repeats, slow_repeats)
    report.notes += [
        "Whole calls in the original's signature, conversions of tensors, frames and lists included. Both sides return "
        "the same type and the same numbers, or the run stops.",
        "Literal Python is written from a description of the published code, in its data structures, and is what the "
        "tests compare with. A compiled loop stands for what is C++ in the original.",
    ]
    return report


def _measure(case: Case, size: int, repeats: int, slow_repeats: int) -> list[Row]:
    given = case.make(size)
    job = f"{case.codebase} `{case.function}`, {size:,} {case.counts}"
    calls = {"ours": partial(case.ours, *given), case.who: partial(case.published, *given)}
    mine, theirs = calls["ours"](), calls[case.who]()
    agreement = agree(mine, theirs, job, case.tolerance)
    seconds = common.time_together(calls, {"ours": repeats, case.who: slow_repeats})
    times = {who: common.ratio(values, seconds["ours"]) for who, values in seconds.items()}
    return [
        Row(job, who, values, ratio=times[who], agreement="" if who == "ours" else agreement)
        for who, values in seconds.items()
    ]


if __name__ == "__main__":
    from .__main__ import main

    main([NAME])
