"""LinPro: from the boundaries and scores of instances to snippet-wise labels by linear programming."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks, _lp, _threads
from ._checks import Float, Int
from ._kernels import simplex as _kernels
from ._regions import covered, to_snippets
from .config import LinPro
from .types import LinProLabelMap, LinProLabels, Segments

__all__ = ["linpro_label_map", "linpro_label_maps", "linpro_labels"]

_DENSE_ROWS = 192  # larger components go to HiGHS at once: from here on it is faster
_BLOCK_ROWS = 60  # components are handed to HiGHS together up to about so many rows
_FAR = 1e15  # snippets; no power of it that is allowed overflows
_NOT_GIVEN = np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0)  # no answer of HiGHS's to go on
_SOLVERS = ("closed_form", "simplex", "highs")  # in the order of the kernels' codes
_STATES = ("empty", "optimal", "relaxed", "uncertified")  # the worst component decides


class _Rows(NamedTuple):
    """The checked instances of V videos, with the regions of every one."""

    bounds: Int  # (N, 4) snippets [left, start, stop, right]: inside from start to stop, the margins around it
    scores: Float
    labels: Int
    offsets: Int  # (V+1,)
    lengths: Int  # (V,) snippets of every video
    num_classes: int


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
    r"""Snippet-wise labels of one class that give every instance its score, by linear programming.

    Of all labels g whose outer-inner contrast on the regions of every instance j is its score,

    .. math::

        \min_g \sum_t g_t \quad \text{subject to} \quad W_j^\top g = q_j \ (j = 1 \dots N), \quad 0 \le g_t \le u

    (Eq. 5 and 6 of GauFuse [1]_, which has no bound u), it takes the one of least sum of squares, which is the most
    even.  :math:`W_j` is positive inside instance j, negative in the margins around it and 0 elsewhere.

    Parameters
    ----------
    segments : (N, 2) array_like of float
        Start and end in snippets; each must touch [0, T].
    scores : (N,) array_like of float
        :math:`q_j`, any numbers within +-1e150.
    num_snippets : int
        T >= 0.
    normalization : {"mean", "sum"}
        Entries of :math:`W_j`.  "mean": 1 over the number of snippets inside, and minus 1 over that of both margins
        together, so that :math:`q_j` is the mean label inside less the mean in the margins; a lone instance gets
        :math:`g = q_j`.  "sum": 1 and -1 as in Eq. 5 and the published code; a lone instance gets
        :math:`q_j / \text{length}`.  An empty part contributes nothing.
    upper_bound : float or None, default 1
        u > 0, at most 1e150; None for no bound.
    margin_scale, margin_power : float
        Margins are ``margin_scale * length ** margin_power`` long on either side; both >= 0, the power at most 10.
    layout : {"symmetric", "gaufuse"}
        Which snippets a region holds.  "symmetric": those whose middle it holds, and at least one inside.  "gaufuse":
        boundaries cut to whole numbers first, the right margin up to one snippet longer and never on the last
        snippet of the video, as the published code does; an instance without whole snippet has an empty inside.
    nonpositive : {"keep", "drop", "clip"}
        What becomes of instances whose score is not above 0: "keep" asks for :math:`W_j^\top g = q_j` all the same
        (label mass in the margins, as published), "drop" leaves them out, "clip" raises their score to 0.
    selection : {"min_norm", "vertex"}
        The optimum is usually not unique.  "min_norm" takes the one of least :math:`\sum_t g_t^2`, the same whatever
        solver ran; "vertex" stops at whatever vertex the solver ends at, and costs less.  Snippets that no
        :math:`W_j` tells apart get the same label either way.
    solver : {"auto", "highs"}
        "auto": lone instances in closed form, groups of up to 192 overlapping ones by a dense simplex method, the rest
        and what cannot be certified by HiGHS.  "highs": everything by HiGHS.
    infeasible : {"relax", "raise"}
        Scores that no labels meet: "relax" takes the least :math:`\sum_j |W_j^\top g - q_j|` first, then the least
        sum, then the least sum of squares; "raise" is for those who prefer an error.

    Returns
    -------
    LinProLabels
        The (T,) labels, with what is proven of them: their sum, the violation :math:`\sum_j |W_j^\top g - q_j|`, the
        largest gap to a bound that no labels can beat, and a status.  Labels without a proof within 1e-8 have
        the status "uncertified"; nothing is ever NaN.

    Raises
    ------
    ValueError
        If something is not finite, a segment ends before it starts or lies outside the video, shapes disagree, an
        option is out of range, or the scores cannot be met and `infeasible` is "raise".

    See Also
    --------
    linpro_label_map : all classes of a video.
    linpro_label_maps : many videos.
    score_label_map : the largest score of the instances that cover a snippet.

    Notes
    -----
    Snippets between two neighbouring ends of regions are alike, so at most 4 N + 1 unknowns are left; equal ones are
    merged, and instances whose windows do not overlap are solved apart.  The cost does not depend on T.  A component
    of n instances takes some n pivots on a table of n rows and about 5 n columns.

    The gap is that of a primal-dual bound in float64 on every component: of its violation, in units of its largest
    score, and of its sum, relative to 1 + the sum in units of that score times the longest inside ("mean") or of that
    score.  Where there is no `upper_bound`, or one far beyond all labels, the bound of the violation holds for labels
    of a mass up to 1e3 such units.  "min_norm" is proven by its optimality conditions, to 1e-8 as well.  Instances that
    come in another order get the same bytes.  The conventions are in docs/conventions.md.

    References
    ----------
    .. [1] J. Zhou et al., "Improving Weakly Supervised Temporal Action Localization by Bridging Train-Test Gap in
           Pseudo Labels", CVPR 2023.

    Examples
    --------
    >>> alone = linpro_labels([[2, 4]], [0.5], 6)
    >>> alone.labels, alone.status
    (array([0. , 0. , 0.5, 0.5, 0. , 0. ]), 'optimal')
    >>> nested = linpro_labels([[0, 8], [2, 4]], [0.3, 0.6], 8, margin_scale=0.5)
    >>> nested.labels
    array([0.3, 0. , 0.6, 0.6, 0. , 0.3, 0.3, 0.3])
    """
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
    instances = _checks.as_segments(segments)
    values = _checks.as_values(scores, len(instances), "scores")
    length = _checks.as_count(num_snippets, "num_snippets")
    rows = _Rows(
        margin_bounds(instances, length, rule),
        values,
        np.zeros(len(values), np.int64),
        np.array([0, len(values)]),
        np.array([length]),
        1,
    )
    found = _solve(rows, rule)[0]
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
    """LinPro labels of one video: every class for itself, see `linpro_labels`.

    Parameters
    ----------
    segments : Segments
        Instances of one video in snippets, with labels below K and scores.
    num_snippets, num_classes : int
        T and K, at least 0.
    known_labels : (K,) array_like of bool or sequence of int, optional
        Classes that the video is known to show, as a mask or as differing indices; instances of the others are left
        out.  Default: all of them.
    background : {"none", "first", "last"}
        Where to put a column of zeros for the background, which has no instances.
    **options
        The options of `linpro_labels`; those of a setting are ``**dataclasses.asdict(config.LinPro(...))``.

    Returns
    -------
    LinProLabelMap
        The map, (T, K) or (T, K + 1), and per class what is proven of its labels.

    Raises
    ------
    UnitError
        If the instances are not in snippets.
    ValueError
        If there is more than one video, a label is not below `num_classes`, or as `linpro_labels` says.

    See Also
    --------
    linpro_label_maps : many videos.
    hard_label_map, score_label_map, gaussian_label_map, tri_state_label_map : other labels of the same instances.

    Notes
    -----
    Cost and conventions are those of `linpro_labels`.

    Examples
    --------
    >>> found = Segments([[0, 2], [3, 5]], labels=[1, 0], scores=[0.4, 0.8])
    >>> made = linpro_label_map(found, 6, 2)
    >>> made.labels.T
    array([[0. , 0. , 0. , 0.8, 0.8, 0. ],
           [0.4, 0.4, 0. , 0. , 0. , 0. ]])
    >>> made.status, made.solved
    (('optimal', 'optimal'), {'closed_form': 2, 'simplex': 0, 'highs': 0})
    """
    rule = LinPro(**options)
    lengths = np.array([_checks.as_count(num_snippets, "num_snippets")])
    rows = _gather([segments], lengths, num_classes, [known_labels], rule)
    return _solve(rows, rule, background)[0]


def linpro_label_maps(
    segments: Segments | Iterable[Segments],
    num_snippets: ArrayLike,
    num_classes: int,
    *,
    known_labels: Iterable[ArrayLike | None] | None = None,
    background: Literal["none", "first", "last"] = "none",
    num_threads: int | None = None,
    **options: Any,
) -> list[LinProLabelMap]:
    """LinPro labels of many videos: what `linpro_label_map` gives for each, byte for byte, and faster.

    Parameters
    ----------
    segments : Segments of V videos, or iterable of V Segments
        In snippets, as `PostProcessor.process` yields them.
    num_snippets : (V,) array_like of int
        T of every video.
    num_classes : int
        K, at least 0.
    known_labels : iterable of V entries, optional
        For every video a mask, indices, or None for all classes.
    background : {"none", "first", "last"}
        Where to put a column of zeros for the background.
    num_threads : int, optional
        Default: all cores, one inside a worker process.  The labels do not depend on it.
    **options
        The options of `linpro_labels`.

    Returns
    -------
    list of LinProLabelMap
        One per video.

    Raises
    ------
    UnitError
        If instances are not in snippets.
    ValueError
        As `linpro_label_map`, and if `num_snippets` or `known_labels` have another length; rows are counted through
        all videos.

    See Also
    --------
    LabelRefresher : from the TCAMs of a training set to the targets of the next epochs.

    Notes
    -----
    Cost and conventions are those of `linpro_labels`.

    Examples
    --------
    >>> videos = Segments([[0, 2], [1, 3]], scores=[0.4, 0.8], offsets=[0, 1, 2])
    >>> [made.labels[:, 0].tolist() for made in linpro_label_maps(videos, [3, 4], 1)]
    [[0.4, 0.4, 0.0], [0.0, 0.8, 0.8, 0.0]]
    """
    rule = LinPro(**options)
    videos = list(segments.split() if isinstance(segments, Segments) else segments)
    lengths = _checks.as_integers(num_snippets, len(videos), "num_snippets", per="video")
    if (lengths < 0).any():
        raise ValueError(f"`num_snippets` must be at least 0, got {lengths.min()}")
    if not isinstance(known_labels, (Iterable, type(None))):
        raise TypeError(f"`known_labels` must have one entry per video, got {known_labels!r:.80}")
    known = [None] * len(videos) if known_labels is None else list(known_labels)
    if len(known) != len(videos):
        raise ValueError(f"`known_labels` must have {len(videos)} entries, one per video, got {len(known)}")
    rows = _gather(videos, lengths, num_classes, known, rule)
    _padding(background)

    def work(numbers: list[int]) -> list[LinProLabelMap]:
        first, last = numbers[0], numbers[-1] + 1
        mine = slice(rows.offsets[first], rows.offsets[last])
        part = rows._replace(
            bounds=rows.bounds[mine],
            scores=rows.scores[mine],
            labels=rows.labels[mine],
            offsets=rows.offsets[first : last + 1] - rows.offsets[first],
            lengths=rows.lengths[first:last],
        )
        return _solve(part, rule, background, first)

    return list(_threads.ordered_map(work, range(len(videos)), num_threads, lambda number: 0))


def _gather(
    videos: Sequence[Segments], lengths: Int, num_classes: Any, known_labels: Sequence[ArrayLike | None], rule: LinPro
) -> _Rows:
    """The instances of the known classes of all videos, checked."""
    count = _checks.as_count(num_classes, "num_classes")
    for segments in videos:
        if not isinstance(segments, Segments):
            _checks.refuse_tensors(segments, "segments")
            raise TypeError(f"`segments` must be Segments, got {type(segments).__name__}")
        segments.require_unit("snippet", "segments")
        if segments.num_videos != 1:
            raise ValueError(f"`segments` must be of one video, got {segments.num_videos}; see linpro_label_maps")
    offsets = np.cumsum([0, *map(len, videos)])
    instances = np.concatenate([np.empty((0, 2)), *(segments.segments for segments in videos)])
    scores = np.concatenate([np.empty(0), *(segments.scores for segments in videos)])
    labels = np.concatenate([np.empty(0, np.int64), *(segments.labels for segments in videos)])
    labels = _checks.as_labels(labels, len(labels), "segments.labels", num_classes=count)
    bounds = margin_bounds(instances, np.repeat(lengths, np.diff(offsets)), rule)
    if any(known is not None for known in known_labels):
        masks = [_checks.as_known_labels(known, count) for known in known_labels]
        kept = np.array(masks).reshape(len(videos), count)[np.repeat(np.arange(len(videos)), np.diff(offsets)), labels]
        bounds, scores, labels = bounds[kept], scores[kept], labels[kept]
        offsets = np.concatenate(([0], np.cumsum(kept)))[offsets]
    return _Rows(bounds, scores, labels, offsets, lengths, count)


def _padding(background: str) -> tuple[int, int]:
    """Columns for the background before and after the classes."""
    _checks.as_choice(background, "background", ("none", "first", "last"))
    return int(background == "first"), int(background == "last")


def margin_bounds(segments: Float, num_snippets: int | Int, rule: LinPro) -> Int:
    """(N, 4) snippets [left, start, stop, right]: inside from start to stop, the margins around it."""
    start, stop = covered(segments, num_snippets)
    if rule.layout == "gaufuse":  # int() of the boundaries, margins of what is left, and the last snippet is in none
        cut = np.trunc(segments)
        margin = rule.margin_scale * np.minimum(cut[:, 1] - cut[:, 0], _FAR) ** rule.margin_power
        start, stop = (np.clip(cut[:, side], 0, num_snippets).astype(np.int64) for side in range(2))
        left = np.maximum(np.trunc(cut[:, 0] - margin), 0)
        right = np.minimum(np.trunc(cut[:, 1] + margin + 1.0), np.asarray(num_snippets) - 1)
    else:
        margin = rule.margin_scale * np.minimum(segments[:, 1] - segments[:, 0], _FAR) ** rule.margin_power
        left = to_snippets(segments[:, 0] - margin, num_snippets)
        right = to_snippets(segments[:, 1] + margin, num_snippets)
    bounds = np.empty((len(segments), 4), np.int64)
    bounds[:, 0], bounds[:, 1] = np.minimum(left, start), start
    bounds[:, 2], bounds[:, 3] = stop, np.maximum(right, stop)
    return bounds


def _solve(rows: _Rows, rule: LinPro, background: str = "none", first_video: int = 0) -> list[LinProLabelMap]:
    """The label maps of a few videos; every component is solved by itself, whatever else there is."""
    count, classes = len(rows.lengths), rows.num_classes
    bounds, scores = rows.bounds, rows.scores
    group = np.repeat(np.arange(count) * classes, np.diff(rows.offsets)) + rows.labels
    if rule.nonpositive == "drop":
        kept = scores > 0.0
        bounds, scores, group = bounds[kept], scores[kept], group[kept]
    elif rule.nonpositive == "clip":
        scores = np.maximum(scores, 0.0)
    # one order for any order of the instances: then the bytes of the labels do not depend on it either
    order = np.lexsort((scores, bounds[:, 3], bounds[:, 2], bounds[:, 1], bounds[:, 0], group))
    bounds, scores, group = bounds[order], scores[order], group[order]

    offsets = _kernels.find_components(group, bounds)
    home = group[offsets[:-1]]  # of every component: video and class
    upper = np.inf if rule.upper_bound is None else rule.upper_bound
    solver, numbers, certified, owner, pieces, levels = _settle(bounds, scores, offsets, home, rule)

    largest = np.maximum.reduceat(np.abs(scores), offsets[:-1]) if len(scores) else scores
    met = numbers[:, 0] <= _kernels.FEASIBLE * largest
    if rule.infeasible == "raise" and not met.all():
        video, label = divmod(int(home[~met][0]), classes)
        missed = numbers[(home == home[~met][0]) & ~met, 0].sum()
        fault = "cannot all be met by" if certified[~met][0] else "are not met by the"
        raise ValueError(
            f"`scores` {fault} labels within [0, {upper:g}]: those of class {label} of video {first_video + video} are "
            f"missed by {missed:g} in all ({len(np.unique(home[~met]))} of {len(np.unique(home))} systems)"
        )
    shape = count, classes
    state, gap = np.zeros(count * classes, np.int64), np.zeros(count * classes)
    np.maximum.at(state, home, np.where(certified, np.where(met, 1, 2), 3))
    np.maximum.at(gap, home, numbers[:, 2])
    violation, objective = (
        np.bincount(home, numbers[:, i], minlength=count * classes).astype(np.float64).reshape(shape) for i in range(2)
    )
    video = home // max(classes, 1)
    solved = np.bincount(video * len(_SOLVERS) + solver, minlength=count * len(_SOLVERS)).reshape(count, -1).tolist()
    unproven = np.bincount(video[~certified], minlength=count).tolist()
    status = np.array(_STATES, object)[state].reshape(shape).tolist()
    by_video = np.argsort(video[owner], kind="stable")
    before, after = _padding(background)
    column, pieces, levels = home[owner][by_video] % max(classes, 1) + before, pieces[by_video], levels[by_video]
    ends = np.searchsorted(video[owner][by_video], np.arange(count + 1)).tolist()
    found = []
    for number, length in enumerate(rows.lengths.tolist()):
        labels = np.zeros((length, before + classes + after))
        _kernels.paint(labels, column, pieces, levels, ends[number], ends[number + 1])
        found.append(
            LinProLabelMap(
                labels=labels,
                objective=objective[number],
                violation=violation[number],
                gap=gap.reshape(shape)[number],
                status=tuple(status[number]),
                solved=dict(zip(_SOLVERS, solved[number])),
                uncertified=unproven[number],
            )
        )
    return found


def _settle(bounds: Int, scores: Float, offsets: Int, home: Int, rule: LinPro) -> tuple[NDArray[Any], ...]:
    """What `_kernels.solve_components` returns, for all components: those it leaves open are solved by HiGHS.

    `home` is the system of every component, a class of a video; they rise.
    """
    upper = np.inf if rule.upper_bound is None else rule.upper_bound
    how = rule.normalization == "mean", upper, rule.selection == "min_norm"
    limit = _DENSE_ROWS if rule.solver == "auto" else 0
    solver, numbers, certified, *places = _kernels.solve_components(bounds, scores, offsets, *how, limit, *_NOT_GIVEN)
    left = np.flatnonzero(solver == _kernels.OPEN)
    if len(left):
        sizes = offsets[left + 1] - offsets[left]
        own = np.concatenate(([0], np.cumsum(sizes)))
        chosen = np.arange(own[-1]) + np.repeat(offsets[left] - own[:-1], sizes)
        part = bounds[chosen], scores[chosen], own
        answer = _by_highs(*part, home[left], *how[:2])
        solver[left], numbers[left], certified[left], owner, *more = _kernels.solve_components(
            *part, *how, len(scores), *answer
        )
        places = [np.concatenate(pair) for pair in zip(places, (left[owner], *more))]
    return solver, numbers, certified, *places


def _by_highs(
    bounds: Int, scores: Float, offsets: Int, system: Int, mean: bool, upper: float
) -> tuple[Int, Float, Float, Float]:
    """(columns, x, first, second) of components, as `_kernels.solve_components` takes them.

    Components of one system, a class of a video, are solved together as long as they have so few rows that HiGHS is at
    its best.  A list whose equations cannot all be met is halved until single components are left.  What HiGHS does
    not solve stays 0, and will not be certified.
    """
    caps, rhs, weight, start, row, value, columns = _kernels.assemble(bounds, scores, offsets, mean, upper)
    x, first, second = np.zeros(len(caps)), np.zeros(len(rhs)), np.zeros(len(rhs))

    def settle(low: int, high: int) -> None:
        r, k = slice(offsets[low], offsets[high]), slice(columns[low], columns[high])
        entries = slice(start[k.start], start[k.stop])
        answer = _lp.solve(
            caps[k],
            rhs[r],
            weight[r],
            start[k] - start[k.start],
            row[entries] - np.int32(r.start),
            value[entries],
            relax=high - low == 1,
        )
        if answer is not None:
            x[k], first[r], second[r] = answer
        elif high - low > 1:
            settle(low, (low + high) // 2)
            settle((low + high) // 2, high)

    _, own_first = np.unique(system, return_index=True)
    inside = offsets[:-1] - np.repeat(offsets[own_first], np.diff([*own_first, len(system)]))
    cuts = (np.diff(system) != 0) | (np.diff(inside // _BLOCK_ROWS) != 0)
    ends = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(system)]
    for low, high in pairwise(ends):
        settle(low, high)
    return columns, x, first, second
