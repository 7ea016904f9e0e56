"""Functions of published codebases under their own names and signatures, against literal transcriptions of them."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tal_postproc import synthetic
from tests.oracles import compat_leonhlj as literal_leonhlj

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


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []  # annotation folders; they go with the process


def _thumos_set(count: int) -> tuple[list[np.ndarray], list[np.ndarray], list[int], str]:
    """Video scores, maps, lengths and annotation folder of THUMOS14-like test videos."""
    data = synthetic.make_videos(count, seed=0)
    truth = data.ground_truth
    used = np.unique(truth.labels)
    names = np.array(data.classes, "S")[used]
    arrays = {
        "segments": [one.segments.tolist() for one in truth.split()],
        "labels": [[data.classes[c] for c in one.labels] for one in truth.split()],
    }
    _FOLDERS.append(tempfile.TemporaryDirectory())
    folder = Path(_FOLDERS[-1].name)
    for stem, lists in arrays.items():
        column = np.empty(count, object)
        column[:] = lists
        np.save(folder / f"{stem}.npy", column)
    np.save(folder / "classlist.npy", names)
    np.save(folder / "videoname.npy", np.array([video.id for video in data], "S"))
    np.save(folder / "subset.npy", np.full(count, b"test"))
    (folder / "Ambiguous_test.txt").write_text(f"{data[0].id}  1.0 2.0\n")
    scores = [video.scores["video"][used] for video in data]
    maps = [video.maps["cas"][:, used].astype(np.float64) for video in data]
    return scores, maps, [len(one) for one in maps], str(folder)


def _thumos_options(start: float, end: float, step: float, class_threshold: float) -> SimpleNamespace:
    return SimpleNamespace(
        feature_type="I3D",
        class_threshold=class_threshold,
        start_threshold=start,
        end_threshold=end,
        threshold_interval=step,
        use_new_predictor=True,
        eval_temperature=0.2,
    )


def _proposals(count: int) -> np.ndarray:
    """Rows [video, start, end, score, inner] of one class: nested and repeated, as many thresholds find them."""
    rng = np.random.default_rng(0)
    start = rng.integers(0, 2000, count)
    end = start + rng.integers(2, 60, count)
    return np.column_stack([np.zeros(count), start, end, rng.random(count), rng.random(count)])


def rskp() -> Sequence[Case]:
    from tal_postproc.compat import rskp as ours

    args = _thumos_options(0.001, 0.04, 0.002, 0.1)
    return (
        Case(
            "RSKP",
            "NonMaximumSuppression",
            "proposals",
            1000,
            lambda size: (_proposals(size)[:, :4], 0.5),
            literal_leonhlj.nms,
            ours.NonMaximumSuppression,
        ),
        Case(
            "RSKP",
            "getDetectionMAP",
            "videos",
            50,
            lambda size: (*_thumos_set(size), args),
            partial(literal_leonhlj.get_detection_map, "rskp"),
            ours.getDetectionMAP,
        ),
    )


def facnet() -> Sequence[Case]:
    from tal_postproc.compat import facnet as ours

    args = _thumos_options(0.03, 0.055, 0.005, 0.1)
    return (
        Case(
            "FAC-Net",
            "getSingleStreamDetectionMAP",
            "videos",
            50,
            lambda size: (*_thumos_set(size), args),
            partial(literal_leonhlj.get_detection_map, "facnet"),
            ours.getSingleStreamDetectionMAP,
        ),
    )


def gaufuse() -> Sequence[Case]:
    from tal_postproc.compat import gaufuse as ours

    args = _thumos_options(0.001, 0.04, 0.002, 0.16)
    thresholds = np.arange(0.001, 0.04, 0.002)

    def given(size: int) -> tuple[Any, ...]:
        *outputs, folder = _thumos_set(size)
        return (*outputs, thresholds, folder, args)

    return (
        Case(
            "GauFuse",
            "prediction_fuse_module",
            "proposals",
            1000,
            lambda size: (_proposals(size)[:, 1:], 0.25),
            lambda segs, overlap: literal_leonhlj.fuse(segs, overlap, 0.1),
            ours.prediction_fuse_module,
        ),
        Case(
            "GauFuse",
            "getActLoc",
            "videos",
            50,
            given,
            partial(literal_leonhlj.get_act_loc, "gaufuse"),
            ours.getActLoc,
        ),
    )


def wtalc() -> Sequence[Case]:
    from tal_postproc.compat import wtalc as ours

    def given(size: int) -> tuple[Any, ...]:
        _, maps, _, folder = _thumos_set(size)
        return maps, 0.5, folder, _thumos_options(0, 1, 1, 0)

    return (Case("W-TALC", "getLocMAP", "videos", 50, given, literal_leonhlj.wtalc_loc_map, ours.getLocMAP),)


FAMILIES: tuple[Callable[[], Sequence[Case]], ...] = (rskp, facnet, gaufuse, wtalc)


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
