"""From instances or activations to snippet-wise label maps, the simple ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks
from ._checks import Float, Int
from ._regions import covered, paint_largest, to_snippets
from .types import LabelState, Segments

__all__ = [
    "gaussian_label_map",
    "hard_label_map",
    "score_label_map",
    "smooth_label_map",
    "tri_state_label_map",
    "two_threshold_label_map",
]

_CODES = np.array([LabelState.BACKGROUND, LabelState.IGNORE, LabelState.ACTION], np.int8)  # the weakest first


def _instances(
    segments: Segments, num_snippets: Any, num_classes: Any, known_labels: ArrayLike | None
) -> tuple[Segments, NDArray[np.bool_], Int, Int, tuple[int, int]]:
    """Rows of the known classes, which rows those are, the snippets they cover, and the shape (T, K) of the map."""
    if not isinstance(segments, Segments):
        _checks.refuse_tensors(segments, "segments")
        raise TypeError(f"`segments` must be Segments, got {type(segments).__name__}")
    segments.require_unit("snippet", "segments")
    if segments.num_videos != 1:
        raise ValueError(f"`segments` must be of one video, got {segments.num_videos}; use Segments.split()")
    shape = _checks.as_count(num_snippets, "num_snippets"), _checks.as_count(num_classes, "num_classes")
    labels = _checks.as_labels(segments.labels, len(segments), "segments.labels", num_classes=shape[1])
    chosen = _checks.as_known_labels(known_labels, shape[1])[labels]
    start, stop = covered(segments.segments, shape[0])
    return segments.select(chosen), chosen, start[chosen], stop[chosen], shape


def hard_label_map(
    segments: Segments, num_snippets: int, num_classes: int, *, known_labels: ArrayLike | None = None
) -> Float:
    """1 where an instance of the class covers the snippet, 0 elsewhere.

    Parameters
    ----------
    segments : Segments
        Instances of one video, in snippets; their scores do not matter.
    num_snippets, num_classes : int
        T and K, at least 0.
    known_labels : (K,) array_like of bool or sequence of int, optional
        Classes that the video is known to show, as a mask or as differing indices; instances of the others are left
        out.  Default: all of them.

    Returns
    -------
    (T, K) ndarray of float64
        0 or 1.

    Raises
    ------
    UnitError
        If the instances are not in snippets.
    ValueError
        If there is more than one video, a label is not below `num_classes`, or an instance lies wholly outside the
        video.

    See Also
    --------
    score_label_map, gaussian_label_map, tri_state_label_map : other labels of the same instances.

    Notes
    -----
    An instance [s, e) covers the snippets whose middle, t + 0.5, it holds; one that holds none covers the snippet of
    its own middle.  O(N + T K log T) for N instances.  The conventions are in docs/conventions.md.

    Examples
    --------
    >>> found = Segments([[0.4, 2.6], [1, 2]], labels=[0, 1])
    >>> hard_label_map(found, 4, 2).T
    array([[1., 1., 1., 0.],
           [0., 1., 0., 0.]])
    """
    rows, _, start, stop, shape = _instances(segments, num_snippets, num_classes, known_labels)
    return paint_largest(start, stop, rows.labels, np.ones(len(rows)), shape)


def score_label_map(
    segments: Segments, num_snippets: int, num_classes: int, *, known_labels: ArrayLike | None = None
) -> Float:
    """The largest score of the instances that cover each snippet: what GauFuse calls "without LinPro" [1]_.

    Parameters
    ----------
    segments : Segments
        Instances of one video with their scores, in snippets.
    num_snippets, num_classes : int
        T and K, at least 0.
    known_labels : (K,) array_like of bool or sequence of int, optional
        Classes that the video is known to show, as a mask or as differing indices; instances of the others are left
        out.  Default: all of them.

    Returns
    -------
    (T, K) ndarray of float64
        Never below 0: where nothing covers a snippet, or only instances with a score below 0 do, the label is 0.

    Raises
    ------
    UnitError, ValueError
        As `hard_label_map` does.

    Notes
    -----
    Which snippets an instance covers, and the cost, are those of `hard_label_map`.

    References
    ----------
    .. [1] J. Zhou et al., "Improving Weakly Supervised Temporal Action Localization by Bridging Train-Test Gap in
           Pseudo Labels", CVPR 2023.

    Examples
    --------
    >>> found = Segments([[0, 3], [2, 4], [3, 4]], scores=[0.5, 0.8, -1.0])
    >>> score_label_map(found, 5, 1).ravel()
    array([0.5, 0.5, 0.8, 0.8, 0. ])
    """
    rows, _, start, stop, shape = _instances(segments, num_snippets, num_classes, known_labels)
    return paint_largest(start, stop, rows.labels, rows.scores, shape)


def gaussian_label_map(
    segments: Segments,
    num_snippets: int,
    num_classes: int,
    *,
    width: float = 0.25,
    weighted: bool = True,
    known_labels: ArrayLike | None = None,
) -> Float:
    r"""Soft labels that fall off from the middle of each instance, in the manner of PivoTAL [1]_.

    A snippet t that the instance [s, e) of score q covers gets

    .. math:: q \exp\left(-\frac{(t + 1/2 - (s + e) / 2)^2}{2 (w n)^2}\right) ,
              \quad n = \max(e - s, 1) ,

    the largest of these where instances of a class overlap, and 0 where none covers it.

    Parameters
    ----------
    segments : Segments
        Instances of one video with their scores, in snippets.
    num_snippets, num_classes : int
        T and K, at least 0.
    width : float, default 0.25
        w > 0, the standard deviation as a share of the instance's length.  With 0.25 a boundary is two standard
        deviations from the middle and gets 0.135 of the peak; with 0.5 it gets 0.607.
    weighted : bool, default True
        Whether the peak is the score; False: it is 1.
    known_labels : (K,) array_like of bool or sequence of int, optional
        Classes that the video is known to show, as a mask or as differing indices; instances of the others are left
        out.  Default: all of them.

    Returns
    -------
    (T, K) ndarray of float64
        Never below 0; an instance with a score below 0 counts for 0.

    Raises
    ------
    UnitError, ValueError
        As `hard_label_map` does; and if `width` is not above 0.

    Notes
    -----
    An instance shorter than a snippet has the bell of one that lasts a snippet.  Which snippets an instance covers is
    said in `hard_label_map`.  Time and memory: O(T K + the snippets covered, counted once per instance).

    References
    ----------
    .. [1] M. N. Rizve et al., "PivoTAL: Prior-Driven Supervision for Weakly-Supervised Temporal Action Localization",
           CVPR 2023.

    Examples
    --------
    >>> gaussian_label_map(Segments([[1, 4]], scores=[0.8]), 5, 1).round(3).ravel()
    array([0.   , 0.329, 0.8  , 0.329, 0.   ])
    """
    width = _checks.as_number(width, "width", above=0.0)
    weighted = _checks.as_flag(weighted, "weighted")
    rows, _, start, stop, shape = _instances(segments, num_snippets, num_classes, known_labels)
    size = stop - start
    row = np.repeat(np.arange(len(rows)), size)  # one entry per instance and snippet that it covers
    snippet = np.arange(len(row)) - np.repeat(np.cumsum(size) - size, size) + start[row]
    centre = rows.segments.mean(axis=1)
    sigma = width * np.maximum(rows.segments[:, 1] - rows.segments[:, 0], 1.0)
    with np.errstate(over="ignore"):  # a width near 0: the bell is 0 but in the middle
        bell = np.exp(-0.5 * ((snippet + 0.5 - centre[row]) / sigma[row]) ** 2)
    labels = np.zeros(shape)
    np.maximum.at(labels, (snippet, rows.labels[row]), rows.scores[row] * bell if weighted else bell)
    return labels


def tri_state_label_map(
    segments: Segments,
    num_snippets: int,
    num_classes: int,
    *,
    spread: float = 1.0,
    start_std: ArrayLike | None = None,
    end_std: ArrayLike | None = None,
    min_score: float | None = None,
    known_labels: ArrayLike | None = None,
) -> NDArray[np.int8]:
    r"""Action, background, or ignore: boundaries that fusion was not sure of are left out of the loss.

    The snippets whose middle lies within `spread` standard deviations of an instance's start, in
    :math:`[s - d \sigma_s, s + d \sigma_s)`, or of its end, are ignored, the others that it covers are action, and all
    else is background.  Where instances of a class meet, action wins over ignore, and ignore over background.

    Parameters
    ----------
    segments : Segments
        Instances of one video, in snippets; those that a fusion leaves have the columns ``start_std`` and ``end_std``.
    num_snippets, num_classes : int
        T and K, at least 0.
    spread : float, default 1
        d >= 0; with 0 nothing is ignored on account of the boundaries.
    start_std, end_std : (N,) array_like of float, optional
        :math:`\sigma_s` and :math:`\sigma_e` in snippets, >= 0, one per instance.  Default: the columns of these names.
    min_score : float, optional
        An instance with a lower score is ignored in all of its snippets.  Default: there is no such score.
    known_labels : (K,) array_like of bool or sequence of int, optional
        Classes that the video is known to show, as a mask or as differing indices; instances of the others are left
        out.  Default: all of them.

    Returns
    -------
    (T, K) ndarray of int8
        The codes of `LabelState`: 1 action, 0 background, -1 ignore.

    Raises
    ------
    UnitError, ValueError
        As `hard_label_map` does; and if a spread is negative, or neither given nor a column.

    See Also
    --------
    fuse_segments : where the standard deviations come from.
    two_threshold_label_map : the same codes, from activations.

    Notes
    -----
    Which snippets an instance covers, and the cost, are those of `hard_label_map`.  An ignored band may reach over the
    whole instance, and beyond its other end.

    Examples
    --------
    >>> fused = Segments([[2, 6]], columns={"start_std": [1.0], "end_std": [0.0]})
    >>> tri_state_label_map(fused, 8, 1).ravel()
    array([ 0, -1, -1,  1,  1,  1,  0,  0], dtype=int8)
    """
    distance = _checks.as_number(spread, "spread", at_least=0.0)
    least = -np.inf if min_score is None else _checks.as_number(min_score, "min_score")
    rows, chosen, start, stop, shape = _instances(segments, num_snippets, num_classes, known_labels)
    bands = []
    for side, name, value in ((0, "start_std", start_std), (1, "end_std", end_std)):
        if value is None and name not in segments.columns:
            raise ValueError(f"`{name}` must be given, or be a column of `segments`, which has {[*segments.columns]}")
        std = _checks.as_values(segments.columns[name] if value is None else value, len(segments), name)
        if (std < 0).any():
            first = int((std < 0).argmax())
            raise ValueError(
                f"`{name}` must be >= 0; row {first} is {std[first]:g} ({int((std < 0).sum())} of {len(std)} rows)"
            )
        middle, reach = rows.segments[:, side], distance * std[chosen]
        bands.append((to_snippets(middle - reach, shape[0]), to_snippets(middle + reach, shape[0])))
    (left, left_stop), (right, right_stop) = bands
    # what the bands leave of the instance; a band beside the one snippet of a short instance takes nothing
    core = np.where((left <= start) & (start < left_stop), left_stop, start)
    core_stop = np.where((right < stop) & (stop <= right_stop), right, stop)
    core_stop = np.where(rows.scores < least, core, np.maximum(core, core_stop))
    rank = paint_largest(
        np.concatenate((start, left, right, core)),
        np.concatenate((stop, left_stop, right_stop, core_stop)),
        np.tile(rows.labels, 4),
        np.repeat([1.0, 1.0, 1.0, 2.0], len(rows)),
        shape,
    )
    return _CODES[rank.astype(np.int64)]


def smooth_label_map(labels: ArrayLike, *, kernel: Sequence[float] = (0.075, 0.85, 0.075)) -> Float:
    """Labels averaged over neighbouring snippets, with the three taps of HR-Pro [1]_ and FuSTAL [2]_ by default.

    Parameters
    ----------
    labels : (T,) or (T, K) array_like of float
        A label map; the codes of `LabelState` are refused, since a mean of them means nothing.
    kernel : sequence of float, default (0.075, 0.85, 0.075)
        Weights of the snippets before, at and after each one, in the order of time.  An odd number of them, >= 0, the
        middle one above 0; they need not be symmetric.  Only their ratios matter.

    Returns
    -------
    ndarray of float64, of the same shape
        Snippet t is the weighted mean of those of its neighbours that lie in the video, so nothing leaks in from
        beyond its ends.  A constant map stays exactly as it is.

    Raises
    ------
    TypeError
        If `labels` holds integers.
    ValueError
        If the kernel is not as described, or a label is not finite.

    Notes
    -----
    O(T K) per tap.

    References
    ----------
    .. [1] H. Zhang et al., "HR-Pro: Point-supervised Temporal Action Localization via Hierarchical Reliability
           Propagation", AAAI 2024.
    .. [2] "Full-Stage Pseudo Label Quality Enhancement for Weakly-supervised Temporal Action Localization",
           arXiv:2407.08971.

    Examples
    --------
    >>> smooth_label_map([0.0, 0.0, 1.0, 1.0]).round(3)
    array([0.   , 0.075, 0.925, 1.   ])
    """
    array = _checks.as_map(labels, "labels")
    if array.dtype.kind in "iu" and array.size:
        raise TypeError(f"`labels` must be a map of real numbers, got dtype {array.dtype}: codes have no mean")
    weights = _checks.as_values(kernel, None, "kernel", per="tap")
    half = len(weights) // 2
    if len(weights) % 2 == 0 or (weights < 0).any() or weights[half] == 0:
        raise ValueError(
            f"`kernel` needs an odd number of weights >= 0, the middle one above 0, got {weights.tolist()}"
        )
    values = _checks.as_columns(array if array.ndim == 2 else array[:, None], None, "labels").T
    change, total = np.zeros_like(values), np.full((len(values), 1), weights[half])
    for tap, weight in enumerate(weights):
        to, of = (half - tap, 0) if tap < half else (0, tap - half)  # where the snippets and their neighbours begin
        size = max(len(values) - to - of, 0)
        if tap != half and size:
            change[to : to + size] += weight * (values[of : of + size] - values[to : to + size])
            total[to : to + size] += weight
    return np.ascontiguousarray(values + change / total).reshape(array.shape)


def two_threshold_label_map(
    tcam: ArrayLike,
    *,
    action_threshold: float = 0.7,
    background_threshold: float = 0.1,
    background_rule: Literal["sum", "own"] = "sum",
    background: Literal["none", "first", "last"] = "none",
    known_labels: ArrayLike | None = None,
) -> NDArray[np.int8]:
    """The labels of ILG and PTLR [1]_: only snippets that the model is sure of are used.

    A snippet is an action snippet when the score of a class reaches the upper threshold; else it is a background
    snippet when the sum of its action scores lies below the lower one; else it is not used.

    Parameters
    ----------
    tcam : (T, C) array_like of float
        Activations, as probabilities (a softmax over classes and background), finite.
    action_threshold : float, default 0.7
        A class acts where its score is ``>=`` this; the paper's words say "larger", its example includes equality.
    background_threshold : float, default 0.1
        The sum of all action scores of a background snippet is ``<`` this.
    background_rule : {"sum", "own"}
        "own" takes the background column instead: a background snippet has a score ``>= background_threshold`` there.
        That is PTLR, with the same threshold for both: 0.7, 0.65, 0.6 and 0.55 in its four stages.
    background : {"none", "first", "last"}
        Where the background column is.  It has no column in the result.
    known_labels : (K,) array_like of bool or sequence of int, optional
        Classes that the video is known to show, as a mask or as differing indices; the others are never action, but
        their scores count in the sum.  Default: all of them.

    Returns
    -------
    (T, K) ndarray of int8
        The codes of `LabelState`.  An action snippet has 1 in its classes (several, where several reach the threshold)
        and 0 in the others, a background snippet has 0 in all, an unused one -1 in all.

    Raises
    ------
    ValueError
        If the map is malformed, or "own" is asked for without a background column.

    See Also
    --------
    pseudo_label_quality : how good the labels are, as [1]_ counts.

    Notes
    -----
    Scores are compared in float64.  O(T C).  The paper's activations are (1.0 RGB + 1.5 flow) / 2.5.

    References
    ----------
    .. [1] R. Su, D. Xu, L. Zhou and W. Ouyang, "Improving Weakly Supervised Temporal Action Localization by Exploiting
           Multi-resolution Information in Temporal Domain".

    Examples
    --------
    >>> two_threshold_label_map([[0.75, 0.1], [0.05, 0.0], [0.5, 0.4]])
    array([[ 1,  0],
           [ 0,  0],
           [-1, -1]], dtype=int8)
    """
    array = _checks.as_map(tcam, "tcam")
    if array.ndim != 2:
        raise ValueError(f"`tcam` must have shape (T, C), got shape {array.shape}")
    upper = _checks.as_number(action_threshold, "action_threshold")
    lower = _checks.as_number(background_threshold, "background_threshold")
    own = _checks.as_choice(background_rule, "background_rule", ("sum", "own")) == "own"
    where = _checks.as_choice(background, "background", ("none", "first", "last"))
    if own and where == "none":
        raise ValueError("`background` must be 'first' or 'last' for background_rule 'own', got 'none'")
    if where != "none" and array.shape[1] == 0:
        raise ValueError(f"`tcam` must have a background column, got shape {array.shape}")
    scores = _checks.as_columns(array, None, "tcam").T
    if where != "none":
        column = 0 if where == "first" else -1
        idle, scores = scores[:, column], np.delete(scores, column, axis=1)
    known = _checks.as_known_labels(known_labels, scores.shape[1])
    acts = (scores >= upper) & known
    used = acts.any(axis=1) | (idle >= lower if own else scores.sum(axis=1) < lower)
    return np.where(used[:, None], acts * np.int8(LabelState.ACTION), np.int8(LabelState.IGNORE))
