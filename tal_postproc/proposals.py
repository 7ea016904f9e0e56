"""From a TCAM to proposals: thresholds, runs, segments, outer-inner contrast, and time.

The pipeline calls the same steps (`normalized`, `upsampled`, `runs_above`, `contrast`) on the columns of many videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks
from ._checks import Float, Int
from ._kernels import sequences as _kernels
from .types import Segments

__all__ = ["extract_proposals", "oic_scores", "segments_to_seconds", "upsample_tcam"]

_LAYOUTS = {
    "symmetric": _kernels.SYMMETRIC,
    "oic_a": _kernels.OIC_A,
    "oic_b": _kernels.OIC_B,
    "cmcs": _kernels.CMCS,
}
_INNERS = {"mean": _kernels.MEAN, "max": _kernels.MAX, "none": _kernels.NONE}


class Columns(NamedTuple):
    """Rows of snippets: row r is ``values[offsets[r]:offsets[r + 1]]``; none is empty, or all are."""

    values: Float
    offsets: Int

    @classmethod
    def stacked(cls, parts: Sequence[Float]) -> Columns:
        """The rows of several (C, T) arrays."""
        flat = [part.reshape(-1) for part in parts]
        values = flat[0] if len(flat) == 1 else np.concatenate(flat)
        lengths = np.repeat([part.shape[1] for part in parts], [len(part) for part in parts])
        return cls(values, np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))))

    def each(self, values: Float) -> Float:
        """One value per row, repeated for every snippet of it."""
        return np.repeat(values, np.diff(self.offsets))


class Runs(NamedTuple):
    """Half-open runs of steps [start, stop): the row of the columns, and the threshold and its place in the list."""

    row: Int
    slot: Int
    threshold: Float
    start: Float
    stop: Float
    multiplicity: Int  # thresholds that found it, where it is listed once for all of them


def normalized(columns: Columns, kind: str, clip: bool) -> Columns:
    """Columns normalised over time, row by row; see `config.Signal`."""
    values, starts = columns.values, columns.offsets[:-1]
    if kind != "none" and len(values):
        low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
        if kind == "minmax_relu":
            low, high = np.maximum(low, 0.0), np.maximum(high, 0.0)
        span = high - low
        span[span <= 0.0] = 1.0
        values = (values - columns.each(low)) / columns.each(span)
    return columns._replace(values=np.clip(values, 0.0, 1.0) if clip else values)


def upsampled(columns: Columns, factor: int, extrapolate: bool = True) -> Columns:
    """Columns with `factor` steps per snippet; see `upsample_tcam`."""
    if factor == 1:
        return columns
    fine = Columns(_kernels.upsample(columns.values, columns.offsets, factor), columns.offsets * factor)
    if extrapolate or not len(fine.values):
        return fine
    left = np.repeat(fine.offsets[1:], np.diff(fine.offsets)) - np.arange(
        len(fine.values)
    )  # steps to the end of the row, this one too
    return Columns(fine.values[left >= factor], fine.offsets - (factor - 1) * np.arange(len(fine.offsets)))


def levels_of(columns: Columns, thresholds: Float, relative: str) -> Float:
    """Values to compare with, (1, M) for all rows or (C, M); see `config.Bank`."""
    values, offsets = columns
    if relative == "absolute" or not len(values):
        return thresholds[None, :]
    rows = [values[start:stop] for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist())]
    if relative == "times_mean":
        return np.array([row.mean() for row in rows]).reshape(-1, 1) * thresholds
    high, low = (np.array([end(row) for row in rows]).reshape(-1, 1) for end in (np.max, np.min))
    return high - (high - low) * thresholds  # "below_max"


def runs_above(
    columns: Columns,
    thresholds: Float,
    *,
    relative: str,
    inclusive: bool,
    positive: bool,
    min_length: int,
    skip_lone_first: bool,
    dilate: int = 0,
    once: Literal[0, 1, -1] = 0,
) -> Runs:
    """All runs above (M,) thresholds: by row, by threshold in the order given, by time.

    With `once`, a run that several thresholds find is listed once, where it stands first (1) or last (-1); dilated
    runs are all listed.
    """
    values, offsets = columns
    levels = levels_of(columns, thresholds, relative)
    slots = np.argsort(levels, axis=1, kind="stable")
    rising = np.take_along_axis(levels, slots, axis=1)
    found = _kernels.find_runs(
        values,
        offsets,
        rising,
        slots,
        inclusive,
        positive,
        1 if dilate else min_length,
        skip_lone_first,
        0 if dilate else once,
    )
    row, slot, start, stop, multiplicity = _dilated(offsets, min_length, dilate, *found) if dilate else found
    return Runs(row, slot, levels[0 if len(levels) == 1 else row, slot], start, stop, multiplicity)


def _dilated(
    offsets: Int, min_length: int, dilate: int, row: Int, slot: Int, start: Float, stop: Float, multiplicity: Int
) -> tuple[NDArray[Any], ...]:
    """Runs longer at both ends; those of one row and slot that meet become one."""
    start = np.maximum(start - dilate // 2, 0.0)
    stop = np.minimum(stop + (dilate - 1) // 2, np.diff(offsets)[row])
    begins = np.ones(len(row), bool)
    begins[1:] = (row[1:] != row[:-1]) | (slot[1:] != slot[:-1]) | (start[1:] > stop[:-1])
    stop = stop[np.append(begins[1:], True)] if len(row) else stop
    kept = row[begins], slot[begins], start[begins], stop, multiplicity[begins]
    long = stop - start[begins] >= min_length
    return tuple(column[long] for column in kept)


def contrast(
    full: Columns,
    runs: Runs,
    *,
    inner: str,
    margin_scale: float | None,
    margin_power: float,
    layout: str,
    denominator: str,
    outer_weight: float,
    rest: Float | None = None,
    own: Columns | None = None,
    own_weight: float = 0.0,
    own_row: Int | None = None,
    inclusive: bool = False,
) -> tuple[Float, Float]:
    """``(inner, inner - outer_weight * outer)`` of every run on the columns `full`.

    With `own`, the outer map is ``rest + own_weight * own`` where `own` passes the run's threshold.
    """
    own = full if own is None else own
    return _kernels.score_runs(
        full.values,
        full.values if rest is None else rest,
        full.offsets,
        own.values,
        own.offsets,
        own_weight,
        runs.row,
        runs.row if own_row is None else own_row,
        runs.start,
        runs.stop,
        runs.threshold,
        inclusive,
        _INNERS[inner],
        _LAYOUTS[layout],
        -1.0 if margin_scale is None else margin_scale,
        margin_power,
        denominator == "fixed",
        outer_weight,
    )


def _as_tcam(tcam: ArrayLike) -> NDArray[Any]:
    array = _checks.as_map(tcam, "tcam")
    return array[:, None] if array.ndim == 1 else array


def upsample_tcam(tcam: ArrayLike, factor: int, *, extrapolate: bool = True) -> Float:
    """Linear interpolation of every column to `factor` steps per snippet.

    Step i of the result stands at snippet ``i / factor``.  The last ``factor - 1`` steps lie beyond the last snippet
    and go on along the last slope, as SciPy's ``interp1d(..., fill_value="extrapolate")`` does in the codes of the
    BaS-Net family; a TCAM of one snippet is constant.

    Parameters
    ----------
    tcam : (T,) or (T, K) array_like of float
    factor : int
        Steps per snippet, at least 1.
    extrapolate : bool, default True
        False: end at the last snippet, as CMCS does, with (T - 1) * factor + 1 steps.

    Returns
    -------
    ndarray of float64, (T * factor,) or (T * factor, K)

    Raises
    ------
    ValueError
        If a value is not finite or `factor` is below 1.

    Examples
    --------
    >>> upsample_tcam([0.0, 1.0, 3.0], 2).tolist()
    [0.0, 0.5, 1.0, 2.0, 3.0, 4.0]
    >>> upsample_tcam([0.0, 1.0, 3.0], 2, extrapolate=False).tolist()
    [0.0, 0.5, 1.0, 2.0, 3.0]
    """
    array = _checks.as_map(tcam, "tcam")
    factor = _checks.as_count(factor, "factor", at_least=1)
    rows = _checks.as_columns(_as_tcam(array), None, "tcam")
    goes_on = _checks.as_flag(extrapolate, "extrapolate")
    length = len(array) * factor if goes_on else max(0, (len(array) - 1) * factor + 1)
    fine = upsampled(Columns.stacked([rows]), factor, goes_on).values.reshape(len(rows), length)
    return np.array(fine[0] if array.ndim == 1 else fine.T, order="C")


def extract_proposals(
    tcam: ArrayLike,
    thresholds: ArrayLike,
    *,
    relative: Literal["absolute", "times_mean", "below_max"] = "absolute",
    inclusive: bool = False,
    positive: bool = False,
    normalize: Literal["none", "minmax", "minmax_relu"] = "none",
    clip: bool = False,
    upsample: int = 1,
    extrapolate: bool = True,
    min_length: int = 1,
    extend_end: int = 0,
    skip_lone_first: bool = False,
    dilate: int = 0,
    classes: ArrayLike | None = None,
) -> Segments:
    r"""Runs of a TCAM above every threshold, as segments in snippets.

    For class c and threshold :math:`\theta` a proposal is a maximal run of snippets with
    :math:`x_{t,c} > \theta`; the run of snippets s, ..., e - 1 is the segment [s, e].  Several thresholds give nested
    proposals of several sizes; equal ones are all kept.

    Parameters
    ----------
    tcam : (T,) or (T, K) array_like of float
        Any real dtype, compared in float64.  T = 0 gives no proposals.
    thresholds : (M,) array_like of float, or a number
        In any order; the rows of the result follow it.
    relative : {"absolute", "times_mean", "below_max"}
        What the numbers k mean, per class over time: the value k, k * mean (CMCS), or max - k * (max - min) (W-TALC).
    inclusive : bool, default False
        Compare with ``>=``.
    positive : bool, default False
        Ask for x > 0 as well (the BaS-Net family, whose first threshold is 0).
    normalize, clip
        ``"minmax"`` or ``"minmax_relu"`` over time per class before all else, then a limit to [0, 1]; see
        `config.Signal`.
    upsample, extrapolate
        Linear upsampling (`upsample_tcam`), after the normalisation; 1 for none.
    min_length : int, default 1
        Shortest run that counts, in steps of the upsampled TCAM.
    extend_end : {0, 1, -1}
        Steps added to the reported end: 0 half-open, 1 as RSKP and GauFuse publish, -1 the last step inside.
    skip_lone_first : bool, default False
        Drop what a threshold finds when that is the first step alone, as the OIC-A family does (docs/conventions.md).
    dilate : int, default 0
        So many steps around every step that passes count as passing, too, one more before than after it where that is
        even (CMCS: 20); `min_length` counts them.
    classes : (C,) array_like of int, optional
        Columns to look at, in this order; default all.

    Returns
    -------
    Segments
        One video, unit ``"snippet"``, rows by class, then by threshold, then by time.  `scores` is the mean inside the
        run; columns ``inner`` (the same) and ``threshold`` (the value compared with).

    Raises
    ------
    ValueError
        If a value is not finite, an option is unknown, or a class is not a column.

    See Also
    --------
    oic_scores : a better score for the segments.

    Notes
    -----
    One sweep over the snippets finds the runs of all thresholds: O(T + runs) per class where thresholds are spaced
    about evenly, up to O(T M + runs) where not.

    Examples
    --------
    >>> found = extract_proposals([0.1, 0.6, 0.9, 0.6, 0.1], [0.5, 0.8])
    >>> found.segments.tolist()
    [[1.0, 4.0], [2.0, 3.0]]
    >>> found.columns["threshold"].tolist()
    [0.5, 0.8]
    """
    array = _as_tcam(tcam)
    values = _checks.as_threshold_list(thresholds)
    _checks.as_choice(relative, "relative", ("absolute", "times_mean", "below_max"))
    _checks.as_choice(normalize, "normalize", ("none", "minmax", "minmax_relu"))
    factor = _checks.as_count(upsample, "upsample", at_least=1)
    shortest = _checks.as_count(min_length, "min_length", at_least=1)
    extension = _checks.as_extension(extend_end)
    wider = _checks.as_count(dilate, "dilate")
    labels = np.arange(array.shape[1])
    if classes is not None:
        chosen = _checks.as_integers(classes, None, "classes")
        labels = _checks.as_labels(chosen, len(chosen), "classes", num_classes=array.shape[1])
    columns = Columns.stacked([_checks.as_columns(array, labels, "tcam")])
    columns = normalized(columns, normalize, _checks.as_flag(clip, "clip"))
    columns = upsampled(columns, factor, _checks.as_flag(extrapolate, "extrapolate"))
    runs = runs_above(
        columns,
        values,
        relative=relative,
        inclusive=_checks.as_flag(inclusive, "inclusive"),
        positive=_checks.as_flag(positive, "positive"),
        min_length=shortest,
        skip_lone_first=_checks.as_flag(skip_lone_first, "skip_lone_first"),
        dilate=wider,
    )
    inner, _ = contrast(
        columns,
        runs,
        inner="mean",
        margin_scale=None,
        margin_power=1.0,
        layout="symmetric",
        denominator="pooled",
        outer_weight=0.0,
    )
    segments = np.column_stack([runs.start, runs.stop + extension]) / factor
    return Segments(segments, labels[runs.row], inner, columns={"inner": inner, "threshold": runs.threshold})


def oic_scores(
    tcam: ArrayLike,
    segments: ArrayLike | Segments,
    labels: ArrayLike | None = None,
    *,
    margin_scale: float = 0.25,
    margin_power: float = 1.0,
    layout: Literal["symmetric", "oic_a", "oic_b", "cmcs"] = "symmetric",
    denominator: Literal["pooled", "fixed"] = "pooled",
    outer_weight: float = 1.0,
    inner: Literal["mean", "max", "none"] = "mean",
    zero_below: ArrayLike | None = None,
    inclusive: bool = False,
    extend_end: int = 0,
    video_scores: ArrayLike | None = None,
    video_weight: float = 0.0,
) -> Float:
    r"""Outer-inner contrast of segments on their class's column of the TCAM.

    A segment scores high when the activation inside is high and just outside is low.  For a segment [s, e] of length
    n = e - s with margins of length :math:`m = \lambda n^p` on both sides,

    .. math::

        \phi = \frac{1}{n} \int_s^e x_c
             - w \, \frac{\int_{s-m}^{s} x_c + \int_e^{e+m} x_c}{|O|} + \gamma \, y_c ,

    where x_c is the step function of column c, 0 outside the video, and :math:`|O|` is the length of the margins within
    it (``"pooled"``) or always 2 m (``"fixed"``: Eq. 9 of the two-stream paper [2]_, with m = n / 5).  An
    empty margin counts 0.

    Parameters
    ----------
    tcam : (T,) or (T, K) array_like of float
    segments : (N, 2) array_like of float, or Segments in snippets
        0 <= start <= end <= T + `extend_end`; a segment in seconds is refused.
    labels : (N,) array_like of int, optional
        Column of every segment; not needed for a (T,) TCAM or for `Segments`, which bring theirs.
    margin_scale, margin_power : float
        :math:`\lambda \ge 0` and :math:`p \ge 0`.
    layout : {"symmetric", "oic_a", "oic_b", "cmcs"}
        Exact margins, or the published truncations to snippets: ``"oic_a"`` (STPN, BaS-Net) has :math:`\lceil m \rceil`
        snippets on the left and :math:`\lfloor m \rfloor` on the right; ``"oic_b"`` (RSKP, GauFuse) also counts the
        first snippet after the run as inside, starts the right margin after it, and never reaches the last snippet;
        ``"cmcs"`` has at least one snippet on each side, but none on the left of a run whose margin would begin before
        the video.
    denominator : {"pooled", "fixed"}
    outer_weight : float
        w, e.g. 0.6 in FAC-Net.
    inner : {"mean", "max", "none"}
        The first term: mean, largest value (W-TALC), or 0.
    zero_below : (N,) array_like of float, optional
        Thresholds: outside the segment, values that do not exceed (with `inclusive`: reach) them count as 0.
    extend_end : {0, 1, -1}
        What `extract_proposals` added to the ends; taken off again before scoring.
    video_scores : (K,) array_like of float, optional
    video_weight : float
        :math:`y` and :math:`\gamma`.

    Returns
    -------
    (N,) ndarray of float64, in the order of `segments`

    Raises
    ------
    UnitError
        If `Segments` in another unit than snippets are given.
    ValueError
        If a segment leaves the TCAM, or a value is not finite.

    Notes
    -----
    O(T K + N) by prefix sums; agrees with the direct sums to 1e-12 for values in [0, 1].  Ends are cut to whole
    snippets for the published layouts.

    References
    ----------
    .. [1] Shou et al., "AutoLoc", ECCV 2018: the outer-inner-contrastive score.
    .. [2] "Two-Stream Networks for WS-TAL with Semantic-Aware Mechanisms", CVPR 2023, Eq. 9.

    Examples
    --------
    >>> oic_scores([0.1, 0.1, 0.9, 0.8, 0.9, 0.8, 0.1, 0.1], [[2, 6]]).round(12).tolist()
    [0.75]
    """
    array = _as_tcam(tcam)
    if isinstance(segments, Segments):
        segments.require_unit("snippet", "segments")
        labels = segments.labels if labels is None else labels
        segments = segments.segments
    rows = _checks.as_segments(segments)
    if labels is None:
        if array.shape[1] != 1:
            raise ValueError(f"`labels` is needed to choose among the {array.shape[1]} columns of `tcam`")
        labels = np.zeros(len(rows), np.int64)
    column = _checks.as_labels(labels, len(rows), num_classes=array.shape[1])
    start, stop = rows[:, 0].copy(), rows[:, 1] - _checks.as_extension(extend_end)
    bad = (start < 0.0) | (stop > len(array)) | (stop < start)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"`segments` must lie in [0, {len(array)}] snippets (extend_end={extend_end}); row {first} is "
            f"{rows[first].tolist()} ({int(bad.sum())} of {len(rows)} rows)"
        )
    _checks.as_choice(layout, "layout", tuple(_LAYOUTS))
    _checks.as_choice(denominator, "denominator", ("pooled", "fixed"))
    _checks.as_choice(inner, "inner", tuple(_INNERS))
    full = Columns.stacked([_checks.as_columns(array, None, "tcam")])
    threshold = np.zeros(len(rows)) if zero_below is None else _checks.as_values(zero_below, len(rows), "zero_below")
    weight = _checks.as_number(video_weight, "video_weight")
    _, scores = contrast(
        full,
        Runs(column, column, threshold, start, stop, np.ones_like(column)),
        inner=inner,
        margin_scale=_checks.as_number(margin_scale, "margin_scale", at_least=0.0),
        margin_power=_checks.as_number(margin_power, "margin_power", at_least=0.0),
        layout=layout,
        denominator=denominator,
        outer_weight=_checks.as_number(outer_weight, "outer_weight"),
        rest=None if zero_below is None else np.zeros_like(full.values),
        own_weight=0.0 if zero_below is None else 1.0,
        inclusive=_checks.as_flag(inclusive, "inclusive"),
    )
    if weight != 0.0:
        if video_scores is None:
            raise ValueError(f"`video_scores` is needed with video_weight={weight:g}")
        scores += weight * _checks.as_values(video_scores, array.shape[1], "video_scores", per="class")[column]
    return scores


def segments_to_seconds(
    segments: ArrayLike,
    seconds_per_snippet: float,
    *,
    warp: tuple[ArrayLike, ArrayLike] | None = None,
    duration: float | None = None,
) -> Float:
    """Snippets to seconds: times `seconds_per_snippet`, then through a time warp, then limited to the video.

    Parameters
    ----------
    segments : (N, 2) array_like of float
        In snippets.
    seconds_per_snippet : float
        E.g. 16 / 25.
    warp : pair of (M,) array_like, optional
        Knots in seconds of the uniform grid, and the real second of each; linear between, constant beyond.
    duration : float, optional
        Limit the result to [0, duration] seconds; by default nothing is cut.

    Returns
    -------
    (N, 2) ndarray of float64, in seconds

    Raises
    ------
    ValueError
        If an argument is malformed: knots that fall, a step that is not above 0, a duration below 0.

    Examples
    --------
    >>> segments_to_seconds([[2, 5]], 0.64, duration=3.0).tolist()
    [[1.28, 3.0]]
    """
    seconds = _checks.as_segments(segments) * _checks.as_number(seconds_per_snippet, "seconds_per_snippet", above=0.0)
    if warp is not None:
        seconds = np.interp(seconds, *_checks.as_warp(warp))
    if duration is not None:
        seconds = np.clip(seconds, 0.0, _checks.as_number(duration, "duration", at_least=0.0))
    return seconds
