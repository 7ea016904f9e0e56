"""How far the mAP of a test set can be trusted: the videos drawn again and again, with replacement.

Detections are matched within a video, so that is done once; a resample only weights what was matched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _checks
from ._checks import Float, Int
from ._kernels import matching
from ._threads import ordered_map
from .evaluation import SNIPPETS_PER_SECOND, Matched, match_all, positions
from .types import BootstrapMAP, PairedBootstrap, Segments

__all__ = ["bootstrap_map", "paired_bootstrap"]


def bootstrap_map(
    detections: Segments | Mapping[str, Any],
    ground_truth: Segments | Mapping[str, Any],
    *,
    tiou_thresholds: ArrayLike | str = "0.1:0.7",
    protocol: str = "activitynet",
    ambiguous: Segments | Mapping[str, Any] | None = None,
    snippets_per_second: float = SNIPPETS_PER_SECOND,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    num_threads: int | None = None,
) -> BootstrapMAP:
    """Mean average precision with its standard error and interval, by resampling the videos.

    A resample draws as many videos as there are, with replacement [1]_; a video that is drawn twice is there twice,
    with its instances and its detections.  The mAP of a resample is that of `mean_average_precision` on those videos:
    the mean over the classes that they have instances of.

    Parameters
    ----------
    detections, ground_truth, tiou_thresholds, protocol, ambiguous, snippets_per_second
        As in `mean_average_precision`.
    num_resamples : int, default 1000
        R, at least 2.
    seed : int, default 0
        The same seed and the same videos give the same resamples, whatever is detected in them.  The first resamples
        are the same for every R.
    level : float, default 0.95
        Of the intervals, between 0 and 1.
    num_threads : int, optional
        Default: all cores, one inside a worker process.  The result does not depend on it.

    Returns
    -------
    BootstrapMAP
        ``.value``, ``.averages`` (R,), ``.std``, ``.interval``; ``.per_threshold`` (R, I), ``.per_class`` (R, I, K) and
        their intervals.  Fractions.

    Raises
    ------
    UnitError, ValueError
        As in `mean_average_precision`.

    Notes
    -----
    Drawn are the videos of the ground truth: of `Segments` also those without instances, of a mapping those with rows.
    Detections in other videos are false positives in every resample, once.  A class without detections has AP 0 under
    every protocol: the W-TALC lineage would give the whole resample the mAP 0, which tells about its code, not about
    the detections.  A resample without any instance has mAP 0.

    The interval is about other test sets of as many videos.  The mAP falls with the number of videos, since each brings
    false positives, and a resample has fewer different ones: most resamples have a larger mAP than the videos as they
    are.  Therefore their percentiles are moved so that the mean of the resamples is the value; those of a difference,
    in which this cancels, are not.

    Ties: among equal scores the earlier row comes first, and the copies of a row stay together.  The names of the
    videos say which is drawn, not their order.  Cost: the matching of one evaluation, then, for every resample, a visit
    to every detection and one to every true positive per threshold.

    References
    ----------
    .. [1] B. Efron, "Bootstrap Methods: Another Look at the Jackknife", The Annals of Statistics, 1979.

    Examples
    --------
    >>> truth = {"video": ["a", "b", "c"], "labels": [0, 0, 0], "segments": [[0, 10], [0, 10], [0, 10]]}
    >>> found = {**truth, "scores": [0.9, 0.8, 0.7], "segments": [[0, 10], [1, 10], [30, 40]]}
    >>> result = bootstrap_map(found, truth, tiou_thresholds=[0.5], num_resamples=200)
    >>> round(result.value, 3), round(result.std, 2), [round(end, 2) for end in result.interval]
    (0.667, 0.27, [0.04, 1.0])
    """
    one = match_all(detections, ground_truth, tiou_thresholds, protocol, ambiguous, snippets_per_second)
    return _resample(one, *_settings(num_resamples, seed, level), num_threads)


def paired_bootstrap(
    detections: Segments | Mapping[str, Any],
    baseline: Segments | Mapping[str, Any],
    ground_truth: Segments | Mapping[str, Any],
    *,
    tiou_thresholds: ArrayLike | str = "0.1:0.7",
    protocol: str = "activitynet",
    ambiguous: Segments | Mapping[str, Any] | None = None,
    snippets_per_second: float = SNIPPETS_PER_SECOND,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    num_threads: int | None = None,
) -> PairedBootstrap:
    """Whether a difference in mAP is more than noise: two sets of detections on the same resamples of the videos.

    What makes a video hard makes it hard for both, so the difference spreads less than either mAP.

    Parameters
    ----------
    detections, baseline : Segments or mapping
        As `detections` in `bootstrap_map`.
    ground_truth, tiou_thresholds, protocol, ambiguous, snippets_per_second, num_resamples, seed, level, num_threads
        As in `bootstrap_map`.

    Returns
    -------
    PairedBootstrap
        ``.difference`` (above 0 where the detections are better), ``.std``, ``.interval``; ``.share`` of the resamples
        in which the difference is <= 0; ``.p_value``, two-sided, from that share; ``.detections`` and ``.baseline``.

    Raises
    ------
    UnitError, ValueError
        As in `mean_average_precision`; of the baseline the message says `detections` as well.

    Notes
    -----
    See `bootstrap_map`, whose resamples these are.

    Examples
    --------
    >>> truth = {"video": ["a", "b", "c"], "labels": [0, 0, 0], "segments": [[0, 10], [0, 10], [0, 10]]}
    >>> worse = {**truth, "scores": [0.9, 0.8, 0.7], "segments": [[0, 10], [1, 10], [30, 40]]}
    >>> better = {**worse, "segments": [[0, 10], [1, 10], [2, 10]]}
    >>> result = paired_bootstrap(better, worse, truth, tiou_thresholds=[0.5])
    >>> round(result.difference, 3), round(result.share, 2)
    (0.333, 0.28)
    """
    settings = _settings(num_resamples, seed, level)
    common = ground_truth, tiou_thresholds, protocol, ambiguous, snippets_per_second
    ours, theirs = match_all(detections, *common), match_all(baseline, *common)
    return PairedBootstrap(_resample(ours, *settings, num_threads), _resample(theirs, *settings, num_threads))


def _settings(num_resamples: int, seed: int, level: float) -> tuple[int, int, float]:
    return (
        _checks.as_count(num_resamples, "num_resamples", at_least=2),
        _checks.as_count(seed, "seed"),
        _checks.as_number(level, "level", above=0.0, at_most=1.0),
    )


def weighing(one: Matched) -> tuple[Callable[[Int], Float], int]:
    """A function from (B, V + 1) weights to (B, I, K) average precision, and V, the videos of the ground truth.

    A video has its rows as often as its weight says, in the order of the ground truth's videos (for a mapping without
    names, of their numbers); the last weight is that of detections in other videos.  NaN where a class has no instance.
    """
    truth, interpolate = one.truth, one.rule.interpolate
    names, count = one.annotated.names, one.annotated.num_videos
    known = np.unique(one.annotated.video) if names is None and count is None else np.arange(count or len(names or ()))
    num_videos, num_classes = len(known), len(truth.classes)
    home = positions(one.videos[one.order], known) % (num_videos + 1)  # -1, elsewhere, is the last
    instances = np.zeros((num_videos + 1, num_classes))  # of every class in every video
    label = positions(one.annotated.labels[truth.rows], truth.classes)
    np.add.at(instances, (positions(one.annotated.video[truth.rows], known), label), 1)
    hits = [np.flatnonzero(row) for row in (one.matches[one.order] >= 0).T]
    bounds = [np.searchsorted(row, one.offsets[:-1]) for row in hits]
    starts = np.cumsum([0, *(len(row) for row in hits)])
    hit_offsets = np.concatenate([*(bound + start for bound, start in zip(bounds, starts)), starts[-1:]])
    hit_rows = np.concatenate(hits)

    def evaluate(weights: Int) -> Float:
        result = np.empty((len(weights), len(hits), num_classes))
        positives = (weights @ instances).astype(np.int64)  # exact: whole numbers far below 2**53
        matching.weighted_average_precision(
            weights, home, hit_rows, hit_offsets, one.offsets, positives, interpolate, result
        )
        return result

    return evaluate, num_videos


def _resample(one: Matched, num_resamples: int, seed: int, level: float, num_threads: int | None) -> BootstrapMAP:
    evaluate, num_videos = weighing(one)
    order = np.arange(num_videos)
    if one.annotated.names is not None:
        order = np.array(sorted(order, key=one.annotated.names.__getitem__), np.int64)
    resamples = ordered_map(
        lambda weights: list(evaluate(np.array(weights))),
        _draws(order, num_resamples, seed),
        num_threads,
        lambda weights: weights.nbytes,
    )
    per_class = np.array(list(resamples))
    point = evaluate(np.ones((1, num_videos + 1), np.int64))[0]
    present = ~np.isnan(per_class)
    per_threshold = np.where(present, per_class, 0.0).sum(axis=2) / np.maximum(present.sum(axis=2), 1)
    return BootstrapMAP(one.thresholds, one.truth.classes, point, per_class, per_threshold, level)


def _draws(order: Int, num_resamples: int, seed: int) -> Iterator[Int]:
    """(V + 1,) how often every video is drawn, by its number in the given order; 1 for detections in other videos."""
    rng = np.random.default_rng(seed)
    for _ in range(num_resamples):
        drawn = order[rng.integers(0, len(order), len(order))] if len(order) else order
        yield np.append(np.bincount(drawn, minlength=len(order)), 1)
