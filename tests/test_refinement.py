"""Operations beyond the seeds: their oracles, every option, awkward and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc.fusion import fuse_segments
from tal_postproc.pseudo_labels import tri_state_label_map
from tal_postproc.refinement import (
    DurationPrior,
    agreement_weights,
    boundary_ignore_band,
    compensate_missing,
    filter_durations,
    quality_weights,
    snap_boundaries,
    timeline_fusion,
)
from tal_postproc.types import Segments, UnitError

from .oracles import refinement as oracle
from .strategies import grid_scores, half_units, segment_sets, tcams, tiou_thresholds

OPERATIONS = {
    "timeline_fusion": lambda rows: timeline_fusion(rows, 20),
    "compensate_missing": lambda rows: compensate_missing(rows, rows, tiou_threshold=0.5),
    "snap_boundaries": lambda rows: snap_boundaries(rows, np.linspace(0, 1, 40).reshape(20, 2) ** 2, radius=3),
    "filter_durations": lambda rows: filter_durations(rows, at_least=1),
    "agreement_weights": lambda rows: agreement_weights(rows, [rows]),
    "boundary_ignore_band": lambda rows: boundary_ignore_band(
        rows, 20, 2, start_std=np.ones(len(rows)), end_std=np.ones(len(rows))
    ),
    "quality_weights": lambda rows: quality_weights(rows.replace(columns=spreads(len(rows)))),
    "fit": lambda rows: DurationPrior.fit(rows, 2).lower,
}


def spreads(count):
    return {name: np.ones(count) for name in ("start_std", "end_std", "effective_size")}


@st.composite
def sets(draw, num_videos: int = 2):
    """Segments of two videos and two classes."""
    segments, scores, labels = draw(segment_sets(groups=2))
    cut = draw(st.integers(0, len(segments)))
    return Segments(segments, labels, scores, offsets=[0, cut, len(segments)][: num_videos + 1])


def plain(rows):
    """[(video, label, segment, score)] for the oracles."""
    return list(zip(rows.video_index.tolist(), rows.labels.tolist(), rows.segments.tolist(), rows.scores.tolist()))


@pytest.mark.parametrize("name", OPERATIONS)
def test_empty_stays_well_shaped_and_nothing_is_changed_in_place(name):
    run = OPERATIONS[name]
    found = run(Segments.empty())
    assert len(found) == (20 if name == "boundary_ignore_band" else 2 if name == "fit" else 0)
    rows = Segments([[1, 4], [2, 9]], [0, 1], [0.5, 0.25])
    before = rows.segments.copy(), rows.labels.copy(), rows.scores.copy()
    once, twice = run(rows), run(rows)
    for kept, value in zip(before, (rows.segments, rows.labels, rows.scores)):
        assert_array_equal(kept, value)
    arrays = [one.segments if isinstance(one, Segments) else one for one in (once, twice)]
    assert_array_equal(*arrays)


@pytest.mark.parametrize("name", sorted({*OPERATIONS} - {"quality_weights"}))
def test_what_is_no_segments_is_refused(name):
    with pytest.raises(TypeError, match="must be Segments, got list"):
        OPERATIONS[name]([[0, 1]])


# --- one timeline


@pytest.mark.parametrize("kernel", ["ricker", "gaussian", "box"])
@given(segment_sets(groups=2), st.sampled_from([1, 4]), st.sampled_from([0.0, 0.5]))
def test_timeline_equals_oracle(kernel, rows, factor, share):
    segments, scores, labels = rows
    segments = np.clip(segments, 0, 18)
    found = timeline_fusion(Segments(segments, labels, scores), 18, kernel=kernel, thresholds=share, factor=factor)
    for label in range(2):
        mine = labels == label
        line = oracle.timeline(segments[mine] * factor, scores[mine], 18 * factor, kernel)
        if kernel != "box" and any(0 < abs(v - share * max(line)) < 1e-9 for v in line):
            continue  # rounding, or the tail that is cut off, decides
        expected = np.array(oracle.read_off(line, share, kernel != "box")).reshape(-1, 3)
        at = found.labels == label
        assert_allclose(found.segments[at], expected[:, :2] / factor, rtol=0, atol=1e-6)
        assert_allclose(found.scores[at], expected[:, 2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", ["ricker", "gaussian", "box"])
def test_a_lone_proposal_is_read_back(kernel):
    for segment in ([10, 20], [3, 4], [7, 30], [0, 5]):
        found = timeline_fusion(Segments([segment], scores=[0.7]), 40, kernel=kernel, factor=16)
        assert_allclose(found.segments, [segment], rtol=0, atol=0.02)
        assert_allclose(found.scores, [0.7], rtol=0.02)
        assert_allclose(timeline_fusion(found, 40, kernel=kernel, factor=16).segments, [segment], rtol=0, atol=0.04)


def test_ricker_parts_neighbours_that_a_gaussian_merges():
    rows = Segments([[2, 8], [9, 15]])
    assert len(timeline_fusion(rows, 20)) == 2
    assert len(timeline_fusion(rows, 20, kernel="gaussian")) == 1
    assert len(timeline_fusion(rows, 20, kernel="box", factor=1)) == 2


def test_agreement_outweighs_a_better_score():
    rows = Segments([[2, 8], [2, 8], [2.5, 8], [20, 30]], scores=[0.4, 0.4, 0.4, 0.6])
    found = timeline_fusion(rows, 40)
    assert found.scores[0] > found.scores[1]


def test_thresholds_come_in_their_order():
    rows = Segments([[2, 8], [4, 8], [12, 14]], [1, 1, 0], [1.0, 1.0, 0.5])
    found = timeline_fusion(rows, 20, kernel="box", thresholds=[0.6, 0.0], factor=1)
    assert_array_equal(found.labels, [0, 0, 1, 1])
    assert_array_equal(found.segments, [[12, 14], [12, 14], [4, 8], [2, 8]])
    assert_array_equal(found.scores, [0.5, 0.5, 2, 2])
    assert len(timeline_fusion(rows, 20, thresholds=[])) == 0


def test_rounding_leaves_no_box():
    """0.1 + 0.2 - 0.1 - 0.2 is not 0."""
    rows = Segments([[0, 3], [1, 4], [2, 5]], scores=[0.1, 0.2, 0.3])
    found = timeline_fusion(rows, 20, kernel="box", thresholds=0.0)
    assert_array_equal(found.segments, [[0, 5]])


def test_negative_scores_take_away():
    rows = Segments([[0, 10], [4, 6]], scores=[0.5, -1.0])
    found = timeline_fusion(rows, 10, kernel="box", factor=1)
    assert_array_equal(found.segments, [[0, 4], [6, 10]])
    assert len(timeline_fusion(Segments([[0, 10]], scores=[-1.0]), 10, kernel="box")) == 0


def test_short_proposals_are_not_lost():
    rows = Segments([[2.99, 3.01], [7, 7]], scores=[0.5, 0.5])
    for kernel in ("ricker", "gaussian", "box"):
        found = timeline_fusion(rows, 20, kernel=kernel)
        assert_allclose(found.segments.mean(axis=1), [3, 7], atol=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "hat"}, "kernel"),
        ({"thresholds": 1.0}, r"\[0, 1\)"),
        ({"thresholds": [-0.1]}, r"\[0, 1\)"),
        ({"factor": 0}, "factor"),
        ({"num_snippets": 2}, "touch the video"),
    ],
)
def test_timeline_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        timeline_fusion(Segments([[4, 6]]), **{"num_snippets": 20, **options})


# --- what a teacher adds


@given(sets(), sets(), tiou_thresholds, st.sampled_from([None, 0.25]))
def test_compensation_equals_oracle(kept, teacher, threshold, min_score):
    found = compensate_missing(kept, teacher, tiou_threshold=threshold, min_score=min_score)
    least = -1.0 if min_score is None else min_score
    added = oracle.compensate(plain(kept), plain(teacher), threshold, least)
    for video in range(2):
        mine, rows = found.video(video), [i for i in added if teacher.video_index[i] == video]
        count = len(kept.video(video))
        assert_array_equal(mine.segments[:count], kept.video(video).segments)
        assert_array_equal(mine.segments[count:], teacher.segments[rows])
        assert_array_equal(mine.labels[count:], teacher.labels[rows])
        assert_array_equal(mine.scores[count:], teacher.scores[rows])
        assert_array_equal(mine.columns["added"], np.arange(len(mine)) >= count)


def test_compensation_keeps_what_both_sides_know():
    kept = Segments([[0, 4]], video_ids=["a"], columns={"x": [1.0], "y": [2.0]})
    teacher = Segments([[8, 9]], video_ids=["a"], columns={"x": [3.0]})
    found = compensate_missing(kept, teacher, tiou_threshold=0.0)
    assert sorted(found.columns) == ["added", "x"]
    assert_array_equal(found.columns["x"], [1, 3])
    assert found.video_ids == ("a",)


def test_compensation_refuses():
    rows = Segments([[0, 1]], video_ids=["a"])
    with pytest.raises(UnitError, match="one unit"):
        compensate_missing(rows, Segments([[0, 1]], unit="second"), tiou_threshold=0.5)
    with pytest.raises(ValueError, match="same videos"):
        compensate_missing(rows, Segments([[0, 1]], video_ids=["b"]), tiou_threshold=0.5)
    with pytest.raises(ValueError, match="same videos"):
        compensate_missing(rows, Segments([[0, 1]], offsets=[0, 0, 1]), tiou_threshold=0.5)
    with pytest.raises(ValueError, match="tiou_threshold"):
        compensate_missing(rows, rows, tiou_threshold=1.5)


# --- boundaries


@given(tcams(max_classes=2), segment_sets(), st.sampled_from([0.0, 0.5, 1.0, 2.5, 30.0]), st.data())
def test_snapping_equals_oracle(tcam, rows, radius, data):
    segments, scores, _ = rows
    labels = data.draw(st.lists(st.integers(0, tcam.shape[1] - 1), min_size=len(scores), max_size=len(scores)))
    found = snap_boundaries(Segments(segments, labels, scores), tcam, radius=radius)
    expected = [oracle.snap(list(s), tcam[:, label].tolist(), radius) for s, label in zip(segments, labels)]
    assert_array_equal(found.segments, np.array(expected).reshape(-1, 2))
    assert_array_equal(found.scores, scores)


def test_snapping_ties_and_what_stays():
    tcam = np.array([[0, 1, 1, 2, 2, 1, 0, 0.0]]).T  # rises at 1 and 3, falls at 5 and 6
    assert snap_boundaries(Segments([[2, 7]]), tcam, radius=1).segments.tolist() == [[1, 6]]  # as near: the earlier
    assert snap_boundaries(Segments([[2.5, 5.5]]), tcam, radius=2).segments.tolist() == [[3, 5]]  # the nearer; tie
    assert snap_boundaries(Segments([[2, 4]]), tcam, radius=0.5).segments.tolist() == [[2, 4]]  # nothing in reach
    assert snap_boundaries(Segments([[6, 6.5]]), tcam, radius=9).segments.tolist() == [[3, 6]]
    late = np.array([[0, 0, 0, 0, 0, 1, 0.0]]).T
    assert snap_boundaries(Segments([[0, 7]]), np.flip(late), radius=7).segments.tolist() == [[1, 2]]
    crossing = np.array([[1, 0, 0, 1, 1.0]]).T  # falls at 1, rises at 3
    assert snap_boundaries(Segments([[2, 2.5]]), crossing, radius=1.5).segments.tolist() == [[2, 2.5]]
    assert snap_boundaries(Segments([[1, 4]]), np.ones((5, 1)), radius=1).segments.tolist() == [
        [0, 5]
    ]  # the video's ends


def test_snapping_reads_the_column_of_the_class():
    tcam = np.array([[0, 0, 1, 1, 0, 0], [0, 1, 1, 1, 1, 0.0]]).T
    found = snap_boundaries(Segments([[1.5, 4.5]] * 2, [0, 1], columns={"x": [1, 2]}), tcam, radius=1)
    assert found.segments.tolist() == [[2, 4], [1, 5]]
    assert_array_equal(found.columns["x"], [1, 2])


def test_snapping_refuses():
    with pytest.raises(ValueError, match=r"\(T, K\)"):
        snap_boundaries(Segments([[0, 1]]), [0.0, 1.0], radius=1)
    with pytest.raises(ValueError, match=r"segments\.labels"):
        snap_boundaries(Segments([[0, 1]], [1]), [[0.0]], radius=1)
    with pytest.raises(ValueError, match="radius"):
        snap_boundaries(Segments([[0, 1]]), [[0.0]], radius=-1)
    with pytest.raises(ValueError, match="finite"):
        snap_boundaries(Segments([[0, 1]]), [[np.nan]], radius=1)
    with pytest.raises(UnitError):
        snap_boundaries(Segments([[0, 1]], unit="second"), [[0.0]], radius=1)
    with pytest.raises(ValueError, match="one video"):
        snap_boundaries(Segments([[0, 1]], offsets=[0, 0, 1]), [[0.0]], radius=1)


# --- durations


@given(segment_sets(groups=2), st.lists(half_units.map(abs), min_size=4, max_size=4))
def test_duration_filter_equals_its_definition(rows, bounds):
    segments, scores, labels = rows
    (a, b), (c, d) = sorted(bounds[:2]), sorted(bounds[2:])
    prior = DurationPrior([a, c], [b, np.inf], unit="snippet")
    found = filter_durations(Segments(segments, labels, scores), at_least=c, at_most=d, prior=prior)
    expected = [
        i
        for i, (s, e) in enumerate(segments)
        if c <= e - s <= d and ([a, c][labels[i]] <= e - s and (labels[i] == 1 or e - s <= b))
    ]
    assert_array_equal(found.segments, segments[expected])
    assert_array_equal(found.scores, scores[expected])


def test_duration_filter_keeps_videos_and_columns():
    rows = Segments([[0, 1], [0, 5], [0, 9]], offsets=[0, 1, 3], video_ids=["a", "b"], columns={"x": [1, 2, 3]})
    found = filter_durations(rows, at_least=5, at_most=5)
    assert found.video_ids == ("a", "b")
    assert_array_equal(found.offsets, [0, 0, 1])
    assert_array_equal(found.columns["x"], [2])


@given(segment_sets(groups=3), st.sampled_from([0.5, 0.8, 1.0]), st.sampled_from([1, 3]))
def test_quantile_priors(rows, coverage, min_instances):
    segments, _, labels = rows
    prior = DurationPrior.fit(Segments(segments, labels), 3, coverage=coverage, min_instances=min_instances)
    durations = segments[:, 1] - segments[:, 0]
    for c in range(3):
        own = durations[labels == c] if (labels == c).sum() >= min_instances else durations
        expected = [0, np.inf] if not len(own) else np.percentile(own, [50 * (1 - coverage), 50 * (1 + coverage)])
        assert_allclose([prior.lower[c], prior.upper[c]], expected, atol=1e-12)
    if coverage == 1 and min_instances == 1:  # holds all that it was made of
        found = filter_durations(Segments(segments, labels), prior=prior)
        assert len(found) == len(segments)
    assert prior.unit == "snippet"


def test_lognormal_prior(rng):
    durations = rng.lognormal(1.5, 0.4, 20_000)
    rows = Segments(np.stack((np.zeros_like(durations), durations), axis=1), unit="second")
    prior = DurationPrior.fit(rows, 1, coverage=0.9, distribution="lognormal")
    assert_allclose([prior.lower[0], prior.upper[0]], np.exp([1.5 - 1.6449 * 0.4, 1.5 + 1.6449 * 0.4]), rtol=0.03)
    quantiles = DurationPrior.fit(rows, 1, coverage=0.9)
    assert_allclose([quantiles.lower[0], quantiles.upper[0]], [prior.lower[0], prior.upper[0]], rtol=0.03)
    nothing = DurationPrior.fit(Segments.empty(), 1, distribution="lognormal")
    assert (nothing.lower[0], nothing.upper[0]) == (0, np.inf)


def test_durations_refuse():
    rows = Segments([[0, 1], [2, 2]], [0, 2])
    with pytest.raises(ValueError, match="must be given"):
        filter_durations(rows)
    with pytest.raises(ValueError, match="at_least"):
        filter_durations(rows, at_least=-1)
    with pytest.raises(TypeError, match="DurationPrior"):
        filter_durations(rows, prior=(0, 1))
    with pytest.raises(UnitError):
        filter_durations(rows, prior=DurationPrior([0], [1]))
    with pytest.raises(ValueError, match=r"segments\.labels"):
        filter_durations(rows, prior=DurationPrior([0], [1], unit="snippet"))
    with pytest.raises(ValueError, match="class 1 has 3 and 2"):
        DurationPrior([0, 3], [1, 2])
    with pytest.raises(ValueError, match=r"\(K,\)"):
        DurationPrior([0, 3], [1])
    with pytest.raises(ValueError, match="have none"):
        DurationPrior.fit(rows, 3, distribution="lognormal")
    with pytest.raises(ValueError, match="below 1"):
        DurationPrior.fit(rows, 3, distribution="lognormal", coverage=1.0)
    with pytest.raises(ValueError, match="distribution"):
        DurationPrior.fit(rows, 3, distribution="gamma")
    with pytest.raises(ValueError, match="min_instances"):
        DurationPrior.fit(rows, 3, min_instances=0)
    with pytest.raises(ValueError, match="coverage"):
        DurationPrior.fit(rows, 3, coverage=0)


# --- weights


@given(segment_sets(groups=2), tiou_thresholds)
def test_quality_weights_equal_their_definition(rows, threshold):
    segments, scores, idxs = rows
    fused = fuse_segments(segments, scores, tiou_threshold=threshold, temperature=0.2, idxs=idxs)
    spread, size, both = (quality_weights(fused, by=by) for by in ("spread", "size", "both"))
    for c in range(len(fused)):
        start, end = fused.segments[c]
        wider = [start - fused.start_std[c], end + fused.end_std[c]]
        alone = oracle.overlap([start, end], wider) if wider[1] > wider[0] else 1.0
        assert_allclose(spread[c], alone, atol=1e-9)
        assert_allclose(size[c], 1 - 1 / fused.effective_size[c], atol=1e-12)
    assert_array_equal(both, spread * size)
    assert ((both >= 0) & (both <= 1)).all()


def test_quality_weights_refuse():
    with pytest.raises(TypeError, match="FusedSegments or Segments, got list"):
        quality_weights([[0, 1]])
    with pytest.raises(ValueError, match="'start_std'"):
        quality_weights(Segments([[0, 1]]))
    with pytest.raises(ValueError, match="effective_size"):
        quality_weights(Segments([[0, 1]], columns={"effective_size": [0.5]}), by="size")
    with pytest.raises(ValueError, match="`by`"):
        quality_weights(Segments([[0, 1]]), by="all")


@given(sets(), sets(), sets())
def test_agreement_equals_oracle(rows, first, second):
    found = agreement_weights(rows, [first, second])
    triples = [[one[:3] for one in plain(part)] for part in (rows, first, second)]
    assert_allclose(found, oracle.agreement(triples[0], triples[1:]), rtol=0, atol=1e-12)


def test_agreement_sees_a_long_segment_behind_short_ones():
    other = Segments([[0, 100], *([k, k + 1] for k in range(1, 20)), [0, 200]], [0] * 20 + [1])
    assert_allclose(agreement_weights(Segments([[50, 60], [150, 160]]), [other]), [0.1, 0])


@given(segment_sets(max_size=40), segment_sets(max_size=40))
def test_agreement_of_many_equals_oracle(rows, others):
    rows, others = Segments(rows[0]), Segments(others[0])
    triples = [[one[:3] for one in plain(part)] for part in (rows, others)]
    assert_allclose(agreement_weights(rows, [others]), oracle.agreement(triples[0], triples[1:]), rtol=0, atol=1e-12)


def test_agreement_refuses():
    rows = Segments([[0, 1]])
    for others in ([], rows):
        with pytest.raises(ValueError, match="at least one"):
            agreement_weights(rows, others)
    with pytest.raises(UnitError, match=r"others\[1\]"):
        agreement_weights(rows, [rows, rows.replace(unit="second")])


@given(segment_sets(groups=2, scores=grid_scores), st.sampled_from([0.0, 0.5, 2.0]))
def test_band_is_what_tri_state_labels_ignore(rows, spread):
    segments, scores, labels = rows
    rows = Segments(np.clip(segments, 0, 15), labels, scores)
    given = {"start_std": scores, "end_std": scores[::-1], "spread": spread, "known_labels": [1]}
    band = boundary_ignore_band(rows, 15, 2, **given)
    assert band.dtype == np.bool_
    assert_array_equal(band, tri_state_label_map(rows, 15, 2, **given) == -1)
    if not spread:
        assert not band.any()
