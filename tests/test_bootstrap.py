"""Resampled videos against literal copies of their rows, and what the intervals mean."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import tal_postproc as tpp
from tal_postproc.evaluation import PROTOCOLS, mean_average_precision
from tal_postproc.types import Segments, UnitError

from .oracles import evaluation as oracle

THRESHOLDS = [0.3, 0.5, 0.75]
TRUTH = {"video": ["a", "b", "c"], "labels": [0, 0, 0], "segments": [[0, 10], [0, 10], [0, 10]]}
FOUND = {**TRUTH, "scores": [0.9, 0.8, 0.7], "segments": [[0, 10], [1, 10], [30, 40]]}


def random_rows(rng, num_videos=6, num_labels=3, num_truth=14, num_found=60):
    """Rows on a half-unit grid with ties, near-duplicate instances, unknown labels and videos without instances."""

    def segments(n):
        start = rng.integers(0, 30, n) / 2
        return np.stack([start, start + rng.integers(0, 12, n) / 2], axis=1)

    names = [f"v{i}" for i in range(num_videos)]
    truth = [(names[rng.integers(num_videos)], int(rng.integers(num_labels)), *s) for s in segments(num_truth)]
    truth += [(v, k, s + 5e-4, e) for v, k, s, e in truth[:2] if e - s > 1]
    found = [
        (
            [*names, "elsewhere"][rng.integers(num_videos + 1)],
            int(rng.integers(num_labels + 1)),
            *s,
            rng.integers(9) / 8,
        )
        for s in segments(num_found)
    ]
    return found, truth


def columns(rows, unit="second"):
    parts = list(zip(*rows)) or [[], [], [], [], []]
    made = {"video": list(parts[0]), "labels": np.array(parts[1], int), "unit": unit}
    made["segments"] = np.array([parts[2], parts[3]], float).T
    if len(parts) > 4:
        made["scores"] = np.array(parts[4], float)
    return made


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_resamples_equal_copies_of_rows(protocol):
    evaluate = getattr(oracle, protocol)
    for seed in range(6):
        found, truth = random_rows(np.random.default_rng(seed))
        snippet = PROTOCOLS[protocol].unit == "snippet"
        if snippet:  # the oracle truncates what it is given
            whole = PROTOCOLS[protocol].truncate_detections
            given = [(v, k, *((int(s), int(e)) if whole else (s, e)), score) for v, k, s, e, score in found]
        else:
            given = found
        videos = {row[0] for row in truth}
        expected = oracle.bootstrap(given, truth, videos, THRESHOLDS, evaluate, 8, seed)
        result = tpp.bootstrap_map(
            columns(found, "snippet" if snippet else "second"),
            columns(truth),
            tiou_thresholds=THRESHOLDS,
            protocol=protocol,
            num_resamples=8,
            seed=seed,
        )
        for r, per_label in enumerate(expected):
            wanted = np.full((len(THRESHOLDS), len(result.classes)), np.nan)
            for k, label in enumerate(result.classes):
                if label in per_label:
                    wanted[:, k] = per_label[label]
            assert_allclose(result.per_class[r], wanted, rtol=0, atol=1e-12)
            mean = np.mean(list(per_label.values()), axis=0) if per_label else np.zeros(len(THRESHOLDS))
            assert_allclose(result.per_threshold[r], mean, rtol=0, atol=1e-12)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_value_is_the_map(protocol):
    found, truth = random_rows(np.random.default_rng(3), num_found=300)
    spans = {"video": ["v1", "v2"], "segments": [[0, 4], [3, 9]]}
    common = {"protocol": protocol, "ambiguous": spans, "snippets_per_second": 2.0}
    result = tpp.bootstrap_map(columns(found), columns(truth), num_resamples=2, **common)
    whole = mean_average_precision(columns(found), columns(truth), **common)
    assert_array_equal(result.point, whole.per_class)
    assert_array_equal(result.classes, whole.classes)
    assert result.value == whole.per_class.mean()
    plain = tpp.bootstrap_map(columns(found), columns(truth), num_resamples=2, protocol=protocol)
    assert plain.value != result.value


def test_a_class_without_detections_zeroes_itself_only():
    truth = {**TRUTH, "labels": [0, 0, 1]}
    found = {**FOUND, "labels": [0, 0, 0]}
    result = tpp.bootstrap_map(found, truth, protocol="wtalc", tiou_thresholds=[0.5], num_resamples=50)
    assert result.value == 0.5
    assert set(result.averages.tolist()) >= {0.0, 0.5, 1.0}  # class 1 alone, both, class 0 alone
    assert np.isnan(result.per_class).any()
    assert_array_equal(result.per_class_interval[:, 1], [0.0, 0.0])


def test_videos_without_instances_are_drawn_where_they_are_listed():
    listed = Segments([[0, 10]], offsets=[0, 1, 1, 1], unit="second", video_ids=["a", "b", "c"])
    found = Segments([[0, 10]], scores=[0.5], offsets=[0, 1, 1, 1], unit="second", video_ids=["a", "b", "c"])
    averages = tpp.bootstrap_map(found, listed, num_resamples=400).averages
    assert set(averages.tolist()) == {0.0, 1.0}  # no instance at all in (2/3)^3 of the resamples
    assert_allclose((averages == 0).mean(), 8 / 27, atol=0.08)


def test_the_same_bytes_for_threads_orders_and_numbers_of_resamples():
    found, truth = random_rows(np.random.default_rng(1))
    one = tpp.bootstrap_map(columns(found), columns(truth), num_resamples=200, num_threads=1)
    for threads in (2, 3):
        other = tpp.bootstrap_map(columns(found), columns(truth), num_resamples=200, num_threads=threads)
        assert other.per_class.tobytes() == one.per_class.tobytes()
    other = tpp.bootstrap_map(columns(found), columns(truth[::-1]), num_resamples=50)
    assert other.per_class.tobytes() == one.per_class[:50].tobytes()
    other = tpp.bootstrap_map(columns(found), columns(truth), num_resamples=50, seed=1)
    assert other.per_class.tobytes() != one.per_class[:50].tobytes()


def test_numbers_of_videos_need_not_begin_at_zero():
    names = {"a": 7, "b": -3, "c": 40}
    numbered = [{**side, "video": [names[v] for v in side["video"]]} for side in (FOUND, TRUTH)]
    result = tpp.bootstrap_map(*numbered, num_resamples=30)
    renamed = {"a": "m", "b": "a", "c": "z"}  # the same order as the numbers have
    named = [{**side, "video": [renamed[v] for v in side["video"]]} for side in (FOUND, TRUTH)]
    assert_array_equal(result.per_class, tpp.bootstrap_map(*named, num_resamples=30).per_class)


def test_spread_and_intervals():
    found, truth = random_rows(np.random.default_rng(2))
    result = tpp.bootstrap_map(columns(found), columns(truth), num_resamples=300, level=0.8)
    averages = result.per_threshold.mean(axis=1)
    assert result.std == averages.std(ddof=1) > 0
    shift = result.value - averages.mean()
    assert shift != 0
    assert_allclose(result.interval, np.quantile(averages, [0.1, 0.9]) + shift)
    shift = result.point.mean(axis=1) - result.per_threshold.mean(axis=0)
    wanted = np.clip(np.quantile(result.per_threshold, [0.1, 0.9], axis=0) + shift, 0, 1)
    assert_allclose(result.per_threshold_interval, wanted, atol=1e-15)
    per_class = result.per_class.mean(axis=1)
    shift = result.point.mean(axis=0) - np.nanmean(per_class, axis=0)
    wanted = np.clip(np.nanquantile(per_class, [0.1, 0.9], axis=0) + shift, 0, 1)
    assert_allclose(result.per_class_interval, wanted, atol=1e-15)
    assert np.diff(tpp.bootstrap_map(columns(found), columns(truth), num_resamples=300).interval) > np.diff(
        result.interval
    )


def test_standard_error_of_a_mean_over_videos():
    """With one class per video, each found or not, the mAP is a mean over the classes that were drawn."""
    hit = np.arange(200) % 4 > 0
    truth = {"video": np.arange(200), "labels": np.zeros(200, int), "segments": np.tile([0.0, 10.0], (200, 1))}
    found = {key: value[hit] for key, value in truth.items()} | {"scores": np.ones(int(hit.sum()))}
    result = tpp.bootstrap_map(found, truth, tiou_thresholds=[0.5])
    assert result.value == 0.75
    assert_allclose(result.std, np.sqrt(0.75 * 0.25 / 200), rtol=0.1)


# ------------------------------------------------------------------ pairs
def test_pairs_share_their_resamples():
    found, truth = random_rows(np.random.default_rng(4))
    worse = found[::2]
    options = {"num_resamples": 100, "seed": 5, "protocol": "wtalc", "tiou_thresholds": THRESHOLDS, "level": 0.9}
    pair = tpp.paired_bootstrap(columns(found), columns(worse), columns(truth), **options)
    one, other = (tpp.bootstrap_map(columns(rows), columns(truth), **options) for rows in (found, worse))
    assert pair.difference == one.value - other.value
    assert_array_equal(pair.differences, one.averages - other.averages)
    assert pair.std == pair.differences.std(ddof=1)
    assert_allclose(pair.interval, np.quantile(pair.differences, [0.05, 0.95]))
    assert pair.share == (pair.differences <= 0).mean()
    assert pair.p_value == min(1, 2 * (min((pair.differences <= 0).sum(), (pair.differences >= 0).sum()) + 1) / 101)


def test_a_class_that_no_resample_has():
    truth = {"video": ["a", *"bcdefgh"], "labels": [5, *[0] * 7], "segments": [[0, 1]] * 8}
    found = {**truth, "scores": [1.0] * 8}
    low, high = tpp.bootstrap_map(found, truth, num_resamples=2, seed=6).per_class_interval
    assert_array_equal(low, high)
    assert_array_equal(low, [1.0, np.nan])


def test_p_value_ends():
    same = tpp.paired_bootstrap(FOUND, FOUND, TRUTH, num_resamples=20)
    assert (same.difference, same.std, same.share, same.p_value) == (0.0, 0.0, 1.0, 1.0)
    best = {**FOUND, "segments": TRUTH["segments"]}
    none = {**FOUND, "segments": np.add(TRUTH["segments"], 100)}
    better = tpp.paired_bootstrap(best, none, TRUTH, num_resamples=20)
    assert (better.difference, better.share, better.p_value) == (1.0, 0.0, 2 / 21)
    assert tpp.paired_bootstrap(none, best, TRUTH, num_resamples=20).p_value == 2 / 21


# ------------------------------------------------------------------ edges and errors
def test_empty_in_empty_out():
    nothing = {"video": [], "labels": [], "segments": np.empty((0, 2)), "scores": []}
    result = tpp.bootstrap_map(nothing, nothing, num_resamples=4)
    assert (result.value, result.std, result.interval) == (0.0, 0.0, (0.0, 0.0))
    assert result.per_class.shape == (4, 7, 0)
    assert result.per_class_interval.shape == (2, 0)
    assert tpp.bootstrap_map(nothing, TRUTH, num_resamples=4).averages.tolist() == [0.0] * 4
    assert tpp.bootstrap_map(FOUND, nothing, num_resamples=4).averages.tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_resamples": 1}, "`num_resamples` must be at least 2, got 1"),
        ({"seed": -1}, "`seed` must be at least 0, got -1"),
        ({"level": 0}, "`level` must be above 0, got 0"),
        ({"level": 1.5}, "`level` must be at most 1, got 1.5"),
        ({"protocol": "x"}, "`protocol`"),
        ({"num_threads": 0}, "`num_threads` must be at least 1, got 0"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        tpp.bootstrap_map(FOUND, TRUTH, **options)
    with pytest.raises(ValueError, match=message):
        tpp.paired_bootstrap(FOUND, FOUND, TRUTH, **options)


def test_units_must_agree():
    with pytest.raises(UnitError, match="`detections` must be in the unit of `ground_truth`"):
        tpp.bootstrap_map({**FOUND, "unit": "snippet"}, TRUTH)


def test_inputs_stay_as_they_are():
    found = {**FOUND, "segments": np.array(FOUND["segments"], float)}
    before = found["segments"].copy()
    tpp.bootstrap_map(found, TRUTH, protocol="wtalc", num_resamples=5)
    assert_array_equal(found["segments"], before)


@pytest.mark.parametrize("function", [tpp.bootstrap_map, tpp.paired_bootstrap])
def test_detections_elsewhere_are_told(function):
    away = {**FOUND, "video": ["x", "y", "z"]}
    with pytest.warns(UserWarning, match="none of the 3 detections lies in a video") as seen:
        function(*[away] * (1 if function is tpp.bootstrap_map else 2), TRUTH, num_resamples=2)
    assert seen[0].filename == __file__
