"""LinPro: from the boundaries and scores of instances to snippet-wise labels by linear programming."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import _checks, _lp, _threads
from ._checks import Float, Int
from ._kernels import simplex as _kernels
from ._regions import covered, to_snippets
from .config import LinPro
from .types import LinProLabelMap, LinProLabels, Segments

__all__ = ["linpro_label_map", "linpro_label_maps", "linpro_labels"]

_DENSE_ROWS = 128  # larger components go to HiGHS at once
_SOLVERS = {"closed_form": _kernels.CLOSED_FORM, "simplex": _kernels.SIMPLEX, "highs": _kernels.HIGHS}
_STATES = ("empty", "optimal", "relaxed", "uncertified")  # the worst component decides


class _Task(NamedTuple):
    """The checked instances of one video."""

    bounds: Int  # (N, 4) left, start, stop, right
    scores: Float
    labels: Int
    shape: tuple[int, int]


def linpro_labels(
    segments: ArrayLike,
    scores: ArrayLike,
    num_snippets: int,
    *,
    normalization: Literal["mean", "sum"] = "mean",
    upper_bound: float | None = 1.0,
    margin_scale: float = 0.25,
    margin_power: float = 1.0,
    layout: Literal["symmetric", "gaufuse"] = "symmetric",
    nonpositive: Literal["keep", "drop", "clip"] = "keep",
    selection: Literal["min_norm", "vertex"] = "min_norm",
    solver: Literal["auto", "highs"] = "auto",
    infeasible: Literal["relax", "raise"] = "relax",
) -> LinProLabels:
    rule = LinPro(
        normalization=normalization,
        upper_bound=upper_bound,
        margin_scale=margin_scale,
        margin_power=margin_power,
        layout=layout,
        nonpositive=nonpositive,
        selection=selection,
        solver=solver,
        infeasible=infeasible,
    )
    rows = _checks.as_segments(segments)
    values = _checks.as_values(scores, len(rows), "scores")
    length = _checks.as_count(num_snippets, "num_snippets")
    task = _Task(_regions(rows, length, rule), values, np.zeros(len(rows), np.int64), (length, 1))
    found = _solve([task], rule)[0]
    return LinProLabels(
        labels=found.labels[:, 0],
        objective=float(found.objective[0]),
        violation=float(found.violation[0]),
        gap=float(found.gap[0]),
        status=found.status[0],
        solved=found.solved,
        uncertified=found.uncertified,
    )


def linpro_label_map(
    segments: Segments,
    num_snippets: int,
    num_classes: int,
    *,
    known_labels: ArrayLike | None = None,
    background: Literal["none", "first", "last"] = "none",
    **options: Any,
) -> LinProLabelMap:
    rule, padding = LinPro(**options), _padding(background)
    return _padded(_solve([_task(segments, num_snippets, num_classes, known_labels, rule)], rule)[0], padding)


def linpro_label_maps(
    segments: Segments | Iterable[Segments],
    num_snippets: Sequence[int] | Int,
    num_classes: int,
    *,
    known_labels: Iterable[ArrayLike] | None = None,
    background: Literal["none", "first", "last"] = "none",
    num_threads: int | None = None,
    **options: Any,
) -> list[LinProLabelMap]:
    rule, padding = LinPro(**options), _padding(background)
    videos = list(segments.split() if isinstance(segments, Segments) else segments)
    lengths = _checks.as_integers(num_snippets, len(videos), "num_snippets", per="video")
    known = [None] * len(videos) if known_labels is None else list(known_labels)
    if len(known) != len(videos):
        raise ValueError(f"`known_labels` must have {len(videos)} entries, one per video, got {len(known)}")
    tasks = []
    for number, (video, length, shown) in enumerate(zip(videos, lengths.tolist(), known)):
        try:
            tasks.append(_task(video, length, num_classes, shown, rule))
        except ValueError as error:
            raise type(error)(f"video {number}: {error}") from None
    solved = _threads.ordered_map(lambda chunk: _solve(chunk, rule), tasks, num_threads, lambda task: 0)
    return [_padded(found, padding) for found in solved]


def _task(
    segments: Segments, num_snippets: Any, num_classes: Any, known_labels: ArrayLike | None, rule: LinPro
) -> _Task:
    """The instances of the known classes of one video, checked."""
    if not isinstance(segments, Segments):
        raise TypeError(f"`segments` must be Segments, got {type(segments).__name__}")
    segments.require_unit("snippet", "segments")
    if segments.num_videos != 1:
        raise ValueError(f"`segments` must be of one video, got {segments.num_videos}; see linpro_label_maps")
    shape = _checks.as_count(num_snippets, "num_snippets"), _checks.as_count(num_classes, "num_classes")
    labels = _checks.as_labels(segments.labels, len(segments), "segments.labels", num_classes=shape[1])
    bounds = _regions(segments.segments, shape[0], rule)
    chosen = _checks.as_known_labels(known_labels, shape[1])[labels]
    return _Task(bounds[chosen], segments.scores[chosen], labels[chosen], shape)


def _padding(background: str) -> tuple[int, int]:
    _checks.as_choice(background, "background", ("none", "first", "last"))
    return int(background == "first"), int(background == "last")


def _padded(found: LinProLabelMap, padding: tuple[int, int]) -> LinProLabelMap:
    """The map with a column of zeros for the background where one is wanted."""
    if padding == (0, 0):
        return found
    return replace(found, labels=np.pad(found.labels, ((0, 0), padding)))


def _regions(segments: Float, num_snippets: int, rule: LinPro) -> Int:
    """(N, 4) snippets [left, start, stop, right]: inside from start to stop, in the margins from left and to right."""
    bounds = np.empty((len(segments), 4), np.int64)
    start, stop = covered(segments, num_snippets)
    if rule.layout == "gaufuse":  # int() of the boundaries, margins of what is left, and the last snippet is in none
        cut = np.trunc(segments)
        margin = rule.margin_scale * (cut[:, 1] - cut[:, 0]) ** rule.margin_power
        start, stop = np.clip(cut, 0, num_snippets).astype(np.int64).T
        left = np.clip(np.trunc(cut[:, 0] - margin), 0, num_snippets)
        right = np.clip(np.trunc(cut[:, 1] + margin + 1.0), 0, max(num_snippets - 1, 0))
    else:
        margin = rule.margin_scale * (segments[:, 1] - segments[:, 0]) ** rule.margin_power
        left = to_snippets(segments[:, 0] - margin, num_snippets)
        right = to_snippets(segments[:, 1] + margin, num_snippets)
    bounds[:, 0], bounds[:, 1] = np.minimum(left, start), start
    bounds[:, 2], bounds[:, 3] = stop, np.maximum(right, stop)
    return bounds


def _solve(tasks: Sequence[_Task], rule: LinPro) -> list[LinProLabelMap]:
    """The label maps of a few videos; every component is solved once, whatever else there is."""
    ends = np.cumsum([0, *(task.shape[1] for task in tasks)])
    bounds = np.concatenate([task.bounds for task in tasks])
    scores = np.concatenate([task.scores for task in tasks])
    group = np.concatenate([task.labels + first for task, first in zip(tasks, ends.tolist())])
    if rule.nonpositive == "drop":
        kept = scores > 0.0
        bounds, scores, group = bounds[kept], scores[kept], group[kept]
    elif rule.nonpositive == "clip":
        scores = np.maximum(scores, 0.0)
    # one order for any order of the instances: then the bytes of the labels do not depend on it either
    order = np.lexsort((scores, bounds[:, 3], bounds[:, 2], bounds[:, 1], bounds[:, 0], group))
    bounds, scores, group = bounds[order], scores[order], group[order]

    offsets = _kernels.find_components(group, bounds)
    mean, upper = rule.normalization == "mean", np.inf if rule.upper_bound is None else rule.upper_bound
    min_norm = rule.selection == "min_norm"
    limit = _DENSE_ROWS if rule.solver == "auto" else 0
    solver, numbers, owner, pieces, levels = _kernels.solve_components(
        bounds, scores, offsets, mean, upper, min_norm, limit
    )
    certified = np.ones(len(solver), np.bool_)
    parts = [(owner, pieces, levels)]
    for component in np.flatnonzero(solver == _kernels.OPEN):
        rows = slice(offsets[component], offsets[component + 1])
        cuts, level, numbers[component], certified[component] = _by_highs(
            bounds[rows], scores[rows], mean, upper, min_norm
        )
        solver[component] = _kernels.HIGHS
        parts.append((np.full(len(level), component), cuts, level))
    owner, pieces, levels = (np.concatenate(column) for column in zip(*parts))

    home = group[offsets[:-1]]  # of every component: its class, numbered through all videos
    largest = np.maximum.reduceat(np.abs(scores), offsets[:-1]) if len(scores) else scores
    met = numbers[:, 0] <= _kernels.FEASIBLE * largest
    if rule.infeasible == "raise" and not met.all():
        worst = int(home[~met][0])
        video = int(np.searchsorted(ends, worst, side="right")) - 1
        total = numbers[(home == worst) & ~met, 0].sum()
        raise ValueError(
            f"`scores` cannot all be met by label maps within [0, {upper:g}]: class {worst - ends[video]} of video "
            f"{video} misses them by {total:g} in all ({len(np.unique(home[~met]))} of {len(np.unique(home))} systems)"
        )
    state, gap = np.zeros(int(ends[-1]), np.int64), np.zeros(int(ends[-1]))
    np.maximum.at(state, home, np.where(certified, np.where(met, 1, 2), 3))
    np.maximum.at(gap, home, numbers[:, 2])
    violation, objective = (np.bincount(home, numbers[:, i], minlength=len(gap)) for i in range(2))
    by_piece = np.argsort(home[owner], kind="stable")
    column, pieces, levels = home[owner][by_piece], pieces[by_piece], levels[by_piece]
    found = []
    for task, first, last in zip(tasks, ends.tolist(), ends[1:].tolist()):
        labels = np.zeros(task.shape)
        mine = slice(*np.searchsorted(column, [first, last]))
        _kernels.paint(labels, column[mine] - first, pieces[mine], levels[mine])
        own = slice(*np.searchsorted(home, [first, last]))
        found.append(
            LinProLabelMap(
                labels=labels,
                objective=objective[first:last],
                violation=violation[first:last],
                gap=gap[first:last],
                status=tuple(_STATES[code] for code in state[first:last]),
                solved={name: int((solver[own] == code).sum()) for name, code in _SOLVERS.items()},
                uncertified=int((~certified[own]).sum()),
            )
        )
    return found


def _by_highs(
    bounds: Int, scores: Float, mean: bool, upper: float, min_norm: bool
) -> tuple[Int, Float, tuple[float, float, float], bool]:
    """One component by HiGHS: pieces, their levels, [violation, sum, gap], and whether the answer is certified."""
    pattern, ratio, sizes, rhs, weight, top, largest, cuts, column = _kernels.build(bounds, scores, mean)
    unit = top * largest
    caps = upper * sizes / unit
    answer = _lp.solve(pattern, ratio, caps, rhs, weight)
    if answer is None:  # no labels, and a gap that says so
        answer = np.zeros(len(sizes)), np.zeros(len(rhs)), np.zeros(len(rhs))
    x, violation, total, gap, certified = _kernels.finish(pattern, ratio, sizes, caps, rhs, weight, *answer, min_norm)
    seen = column >= 0
    pieces = np.stack((cuts[:-1], cuts[1:]), axis=1)[seen]
    level = np.minimum(x * unit / sizes, upper)[column[seen]]
    return pieces, level, (violation * largest, total * unit, gap), bool(certified)
