"""Label makers and the quality of labels: oracles, every option, the papers' examples, awkward and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc._regions import covered, paint_largest
from tal_postproc.evaluation import pseudo_label_quality
from tal_postproc.pipeline import PostProcessor
from tal_postproc.pseudo_labels import (
    gaussian_label_map,
    hard_label_map,
    score_label_map,
    smooth_label_map,
    tri_state_label_map,
    two_threshold_label_map,
)
from tal_postproc.types import LabelState, Segments, UnitError, Video

from .oracles import labels_simple as oracle
from .strategies import tcams

MAKERS = [hard_label_map, score_label_map, gaussian_label_map, tri_state_label_map]
NAMED = pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)


@st.composite
def scenes(draw, max_snippets: int = 14, max_classes: int = 3):
    """``(segments, T, K, known)``: instances on the quarter-unit grid that touch the video, with spreads."""
    length, classes = draw(st.integers(0, max_snippets)), draw(st.integers(1, max_classes))
    rows, labels, scores, stds = [], [], [], []
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(-8, 4 * length)) / 4
        end = start + draw(st.integers(0, 24)) / 4
        rows.append((start, max(end, 0.0)))
        labels.append(draw(st.integers(0, classes - 1)))
        scores.append(draw(st.integers(-4, 8)) / 8)
        stds.append((draw(st.integers(0, 6)) / 4, draw(st.integers(0, 6)) / 4))
    stds = np.array(stds).reshape(-1, 2)
    segments = Segments(rows, labels, scores, columns={"start_std": stds[:, 0], "end_std": stds[:, 1]})
    return segments, length, classes, draw(st.sets(st.integers(0, classes - 1)))


def literal(segments):
    return list(zip(segments.segments.tolist(), segments.labels.tolist(), segments.scores.tolist()))


def spreads(segments):
    return np.stack((segments.columns["start_std"], segments.columns["end_std"]), axis=1).tolist()


# ------------------------------------------------------------------ regions
@given(scenes())
def test_covered_snippets_equal_the_oracle(scene):
    segments, length, *_ = scene
    start, stop = covered(segments.segments, length)
    for (first, last), i, j in zip(segments.segments.tolist(), start.tolist(), stop.tolist()):
        inside = [t for t in range(length) if oracle.covers(first, last, t, length)]
        assert inside == list(range(i, j))
        assert length == 0 or inside
    assert start.dtype == stop.dtype == np.int64


def test_every_boundary_on_a_middle():
    """A middle on the start is inside, one on the end is not."""
    assert [x.tolist() for x in covered(np.array([[0.5, 2.5], [0.25, 0.5], [2.5, 2.5]]), 4)] == [[0, 0, 2], [2, 1, 3]]


def test_painting_long_and_many_regions(rng):
    """Regions of every length, against one slice after the other."""
    for num in (1, 2, 63, 64, 65, 1000):
        start = rng.integers(0, num + 1, 50)
        stop = rng.integers(start, num + 1)
        labels, values = rng.integers(0, 3, 50), rng.normal(size=50)
        expected = np.zeros((num, 3))
        for i, j, k, value in zip(start, stop, labels, values):
            expected[i:j, k] = np.maximum(expected[i:j, k], value)
        assert_array_equal(paint_largest(start, stop, labels, values, (num, 3)), expected)


# ------------------------------------------------------------------ from instances
@given(scenes())
def test_hard_and_score_maps_equal_the_oracle(scene):
    segments, length, classes, known = scene
    options = {"known_labels": sorted(known)}
    for maker, value in ((hard_label_map, oracle.hard), (score_label_map, oracle.score)):
        expected = oracle.label_map(literal(segments), length, classes, known, value)
        found = maker(segments, length, classes, **options)
        assert_array_equal(found, expected)
        assert (found.shape, found.dtype) == ((length, classes), np.float64)
        assert found.flags.c_contiguous


@given(scenes(), st.sampled_from([0.05, 0.25, 0.5, 2.0]), st.booleans())
def test_gaussian_map_equals_the_oracle(scene, width, weighted):
    segments, length, classes, known = scene
    mask = np.isin(np.arange(classes), sorted(known))
    expected = oracle.label_map(literal(segments), length, classes, known, oracle.gaussian(width, weighted))
    found = gaussian_label_map(segments, length, classes, width=width, weighted=weighted, known_labels=mask)
    assert_allclose(found, expected, rtol=1e-12, atol=1e-300)


@given(scenes(), st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.sampled_from([None, 0.0, 0.25]))
def test_tri_state_map_equals_the_oracle(scene, spread, min_score):
    segments, length, classes, known = scene
    options = {"spread": spread, "min_score": min_score, "known_labels": sorted(known)}
    stds = spreads(segments)
    expected = oracle.tri_state(literal(segments), stds, length, classes, known, spread, min_score)
    found = tri_state_label_map(segments, length, classes, **options)
    assert_array_equal(found, expected)
    assert found.dtype == np.int8
    bare = segments.replace(columns={})
    given_apart = {"start_std": segments.columns["start_std"], "end_std": segments.columns["end_std"]}
    assert_array_equal(tri_state_label_map(bare, length, classes, **given_apart, **options), expected)


@given(scenes())
def test_the_makers_agree_where_they_must(scene):
    segments, length, classes, _ = scene
    hard = hard_label_map(segments, length, classes)
    ones = segments.replace(scores=np.ones(len(segments)))
    assert_array_equal(score_label_map(ones, length, classes), hard)
    assert_array_equal(tri_state_label_map(segments, length, classes, spread=0.0), hard)
    wide = gaussian_label_map(segments, length, classes, width=1e6, weighted=False)
    assert_allclose(wide, hard, atol=1e-9)
    order = np.arange(len(segments))[::-1]
    for maker in MAKERS:
        assert_array_equal(maker(segments.select(order), length, classes), maker(segments, length, classes))


def test_arguments_win_over_columns():
    segments = Segments([[2, 8]], columns={"start_std": [2.0], "end_std": [2.0]})
    found = tri_state_label_map(segments, 10, 1, start_std=[0.0], end_std=[1.0])
    assert found.ravel().tolist() == [0, 0, 1, 1, 1, 1, 1, -1, -1, 0]


def test_action_wins_over_ignore_over_background():
    columns = {"start_std": [1.0, 0.0, 0.0], "end_std": [1.0, 0.0, 0.0]}
    segments = Segments([[2, 6], [1, 2], [9, 10]], scores=[0.9, 0.9, 0.1], columns=columns)
    found = tri_state_label_map(segments, 10, 1, min_score=0.5)
    assert found.ravel().tolist() == [0, 1, -1, 1, 1, -1, -1, 0, 0, -1]


def test_a_fused_pipeline_brings_the_spreads():
    """What `PostProcessor` leaves of a TCAM goes straight into a tri-state map."""
    slope = 0.04 * np.concatenate([np.zeros(3), np.linspace(0, 1, 8), np.ones(12), np.linspace(1, 0, 8), np.zeros(6)])
    tcam = np.stack((slope, 0 * slope), axis=1)
    fused = PostProcessor.from_preset("gaufuse")(Video("v", {"cas": tcam, "attention": slope}, {"video": [1.0, 0.0]}))
    assert fused.columns["start_std"][0] > 1
    assert fused.columns["end_std"][0] > 1
    states = tri_state_label_map(fused, len(tcam), 2)
    start, end = np.rint(fused.segments[0]).astype(int)
    assert states[[start - 1, start, end - 1, end], 0].tolist() == [LabelState.IGNORE] * 4
    assert states[(start + end) // 2, 0] == LabelState.ACTION
    assert states[0, 0] == states[-1, 0] == LabelState.BACKGROUND
    assert not states[:, 1].any()


def test_spreads_follow_the_unit():
    """Seconds and back: boundaries and their spreads stay together."""
    columns = {"start_std": [1.0], "end_std": [2.0], "pick": [[2.0, 8.0]], "size": [3]}
    segments = Segments([[2, 8]], columns=columns)
    there = segments.to_seconds(0.5)
    assert {name: column.tolist() for name, column in there.columns.items()} == {
        "start_std": [0.5],
        "end_std": [1.0],
        "pick": [[1.0, 4.0]],
        "size": [3],
    }
    back = there.to_snippets(0.5)
    assert_array_equal(tri_state_label_map(back, 12, 1), tri_state_label_map(segments, 12, 1))
    two = Segments([[0, 1], [0, 1]], offsets=[0, 1, 2], columns={"start_std": [1.0, 1.0]})
    assert two.to_seconds([0.5, 2.0]).columns["start_std"].tolist() == [0.5, 2.0]


@NAMED
def test_empty_in_well_shaped_out(maker):
    columns = {"start_std": np.empty(0), "end_std": np.empty(0)}
    none = Segments(np.empty((0, 2)), columns=columns)
    for shape in ((0, 2), (5, 2), (5, 0), (0, 0)):
        found = maker(none, *shape)
        assert found.shape == shape
        assert not found.any()
    one = Segments([[0, 0]], columns={"start_std": [1.0], "end_std": [1.0]})
    assert maker(one, 0, 1).shape == (0, 1)
    assert not maker(one, 3, 1, known_labels=[]).any()


@NAMED
def test_inputs_are_left_alone(maker):
    columns = {"start_std": np.ones(2), "end_std": np.ones(2)}
    segments = Segments([[1, 4], [-1, 2.5]], labels=[1, 0], scores=[-0.5, 0.5], columns=columns)
    before = segments.segments.tobytes(), segments.scores.tobytes(), columns["start_std"].tobytes()
    known = np.array([True, False])
    for column in (segments.segments, segments.labels, segments.scores, *columns.values(), known):
        column.flags.writeable = False
    maker(segments, 5, 2, known_labels=known)
    assert before == (segments.segments.tobytes(), segments.scores.tobytes(), columns["start_std"].tobytes())


@NAMED
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"segments": [[0, 1]]}, TypeError, "`segments` must be Segments, got list"),
        ({"segments": Segments([[0, 1]], unit="second")}, UnitError, "must be in snippets, got unit 'second'"),
        ({"segments": Segments([[0, 1]], offsets=[0, 1, 1])}, ValueError, "must be of one video, got 2"),
        ({"segments": Segments([[0, 1]], labels=[2])}, ValueError, r"labels` must lie in \[0, 2\); row 0 is 2"),
        ({"segments": Segments([[0, 1], [5.5, 6]])}, ValueError, r"touch the video.*row 1 is \[5.5, 6.0\] \(1 of 2"),
        ({"segments": Segments([[-2, -1]])}, ValueError, r"touch the video.*row 0"),
        ({"num_snippets": -1}, ValueError, "`num_snippets` must be at least 0, got -1"),
        ({"num_classes": 1.5}, TypeError, "`num_classes` must be a whole number"),
        ({"known_labels": [2]}, ValueError, r"`known_labels` must lie in \[0, 2\)"),
        ({"known_labels": [True]}, ValueError, r"`known_labels` must have shape \(2,\)"),
        ({"known_labels": [0, 1, 0]}, ValueError, "`known_labels` must be a mask of bool or differing class indices"),
        ({"known_labels": "01"}, TypeError, "`known_labels` must hold real numbers"),
    ],
)
def test_bad_instances(maker, change, error, message):
    arguments = {"segments": Segments([[0, 1]]), "num_snippets": 5, "num_classes": 2, **change}
    with pytest.raises(error, match=message):
        maker(**arguments)


@pytest.mark.parametrize(
    ("maker", "options", "error", "message"),
    [
        (gaussian_label_map, {"width": 0}, ValueError, "`width` must be above 0, got 0"),
        (gaussian_label_map, {"weighted": 1}, TypeError, "`weighted` must be True or False"),
        (tri_state_label_map, {"spread": -1}, ValueError, "`spread` must be at least 0"),
        (tri_state_label_map, {}, ValueError, "`start_std` must be given, or be a column of `segments`"),
        (tri_state_label_map, {"start_std": [1]}, ValueError, "`end_std` must be given"),
        (tri_state_label_map, {"start_std": [1, 2]}, ValueError, r"`start_std` must have shape \(1,\)"),
        (tri_state_label_map, {"start_std": [-1]}, ValueError, r"`start_std` must be >= 0; row 0 is -1 \(1 of 1 rows"),
        (tri_state_label_map, {"min_score": np.nan}, ValueError, "`min_score` must be finite"),
    ],
)
def test_bad_options(maker, options, error, message):
    with pytest.raises(error, match=message):
        maker(Segments([[0, 1]]), 5, 1, **options)


def test_tiny_widths_and_far_ends_stay_finite():
    segments = Segments([[0, 3], [-1e150, 1e150]], labels=[0, 1])
    found = gaussian_label_map(segments, 3, 2, width=1e-200)
    assert found[:, 0].tolist() == [0, 1, 0]
    assert np.isfinite(found).all()
    assert hard_label_map(segments, 3, 2).all()


# ------------------------------------------------------------------ smoothing
@given(tcams(), st.sampled_from([(0.075, 0.85, 0.075), (1.0,), (0.0, 1.0, 3.0), (1.0, 2.0, 4.0, 2.0, 0.5)]))
def test_smoothing_equals_the_oracle(labels, kernel):
    found = smooth_label_map(labels, kernel=kernel)
    assert_allclose(found, oracle.smooth(labels, kernel), rtol=0, atol=1e-14)
    assert found.flags.c_contiguous
    assert_array_equal(smooth_label_map(labels[:, 0], kernel=kernel), found[:, 0])


def test_smoothing_keeps_constants_and_ignores_the_scale_of_the_kernel(rng):
    assert_array_equal(smooth_label_map(np.full(9, 0.1), kernel=(0.3, 0.1, 0.7)), np.full(9, 0.1))
    labels = rng.random((9, 2))
    assert_allclose(smooth_label_map(labels, kernel=(6, 68, 6)), smooth_label_map(labels), rtol=1e-14)
    assert smooth_label_map(np.empty((0, 3))).shape == (0, 3)
    assert smooth_label_map(np.empty((4, 0))).shape == (4, 0)
    assert smooth_label_map([0.5], kernel=np.ones(7)).tolist() == [0.5]
    assert smooth_label_map(np.array([True, False, False])).tolist() == pytest.approx([0.85 / 0.925, 0.075, 0])


@pytest.mark.parametrize(
    ("labels", "kernel", "error", "message"),
    [
        (np.zeros((3, 1), np.int8), (1, 1, 1), TypeError, "`labels` must be a map of real numbers, got dtype int8"),
        ([0.0, np.nan], (1, 1, 1), ValueError, "`labels` must be finite; snippet 1"),
        (np.zeros((1, 1, 1)), (1, 1, 1), ValueError, r"`labels` must have shape \(T,\) or \(T, K\)"),
        ([0.0], (1, 1), ValueError, "`kernel` needs an odd number of weights"),
        ([0.0], (1, 0, 1), ValueError, "the middle one above 0"),
        ([0.0], (-1, 3, 1), ValueError, "`kernel` needs an odd number of weights >= 0"),
        ([0.0], (), ValueError, "`kernel` needs an odd number of weights"),
    ],
)
def test_bad_smoothing(labels, kernel, error, message):
    with pytest.raises(error, match=message):
        smooth_label_map(labels, kernel=kernel)


# ------------------------------------------------------------------ two thresholds
@given(
    tcams(),
    st.sampled_from([0.125, 0.5, 0.75]),
    st.sampled_from([-0.125, 0.125, 0.5]),
    st.sampled_from([("sum", "none"), ("sum", "first"), ("sum", "last"), ("own", "first"), ("own", "last")]),
    st.sets(st.integers(0, 2)),
)
def test_two_thresholds_equal_the_oracle(tcam, upper, lower, rule, known):
    rule, where = rule
    width = tcam.shape[1]
    column = {"none": None, "first": 0, "last": width - 1}[where]
    classes = width - (where != "none")
    known = {k for k in known if k < classes}
    found = two_threshold_label_map(
        tcam,
        action_threshold=upper,
        background_threshold=lower,
        background_rule=rule,
        background=where,
        known_labels=sorted(known),
    )
    assert_array_equal(found, oracle.two_threshold(tcam, upper, lower, known, column, rule == "own"))
    assert (found.shape, found.dtype) == ((len(tcam), classes), np.int8)


def test_the_example_of_the_paper():
    """Section III-D: scores of exactly 0.7 are kept at a threshold of 0.7; the paper prints 7 of the 8 labels."""
    ots = np.array([[0.7, 0.6, 0.6, 0.5, 0.7, 0.5, 0.8, 0.7]]).T
    assert two_threshold_label_map(ots).ravel().tolist() == [1, -1, -1, -1, 1, -1, 1, 1]
    rts = np.repeat([[0.7], [0.6], [0.7], [0.8]], 2, axis=0)
    assert two_threshold_label_map(rts).ravel().tolist() == [1, 1, -1, -1, 1, 1, 1, 1]


def test_defaults_are_those_of_ilg():
    rows = [[0.05, 0.04], [0.05, 0.05], [0.69, 0.0], [0.7, 0.0], [0.0, 0.7]]
    assert two_threshold_label_map(rows).tolist() == [[0, 0], [-1, -1], [-1, -1], [1, 0], [0, 1]]
    assert two_threshold_label_map(rows, known_labels=[0]).tolist()[4] == [-1, -1]
    assert two_threshold_label_map(np.empty((0, 2))).shape == (0, 2)


@pytest.mark.parametrize(
    ("tcam", "options", "message"),
    [
        ([0.5], {}, r"`tcam` must have shape \(T, C\)"),
        ([[np.nan]], {}, "`tcam` must be finite"),
        ([[0.5]], {"action_threshold": np.inf}, "`action_threshold` must be finite"),
        ([[0.5]], {"background_rule": "mean"}, "`background_rule` must be one of 'sum', 'own'"),
        ([[0.5]], {"background_rule": "own"}, "`background` must be 'first' or 'last'"),
        ([[0.5]], {"background": "middle"}, "`background` must be one of"),
        (np.empty((2, 0)), {"background": "last"}, "`tcam` must have a background column"),
    ],
)
def test_bad_two_thresholds(tcam, options, message):
    with pytest.raises(ValueError, match=message):
        two_threshold_label_map(tcam, **options)


# ------------------------------------------------------------------ quality
@st.composite
def labelled_videos(draw):
    """Maps and truths of a few videos with the same classes; maps of codes or of multiples of 1/8."""
    classes = draw(st.integers(1, 3))
    maps, truths = [], []
    for _ in range(draw(st.integers(1, 3))):
        shape = draw(st.integers(0, 8)), classes
        cells = shape[0] * classes
        if draw(st.booleans()):
            codes = draw(st.lists(st.sampled_from([-1, 0, 0, 1]), min_size=cells, max_size=cells))
            maps.append(np.array(codes, np.int8).reshape(shape))
        else:
            values = draw(st.lists(st.integers(-1, 4), min_size=cells, max_size=cells))
            maps.append(np.array(values, float).reshape(shape) / 8)
        acts = draw(st.lists(st.booleans(), min_size=cells, max_size=cells))
        truths.append(np.array(acts, bool).reshape(shape))
    return maps, truths


@given(labelled_videos(), st.sampled_from([0.0, 0.25]))
def test_quality_equals_the_oracle(videos, threshold):
    maps, truths = videos
    states = [one if one.dtype == np.int8 else one > threshold for one in maps]
    count = oracle.quality(states, truths)
    found = pseudo_label_quality(maps, truths, threshold=threshold)
    assert_array_equal(found.labelled, count["labelled"])
    assert_array_equal(found.correct, count["correct"])
    assert_array_equal(found.truth, count["truth"])
    assert (found.background, found.correct_background) == (count["background"], count["correct_background"])
    assert (found.correct_snippets, found.num_snippets) == (count["correct_frames"], count["num_frames"])
    right, labels = count["correct"].sum(), count["labelled"].sum() + count["background"]
    assert found.precision * labels == pytest.approx(right + count["correct_background"])
    assert found.recall * count["truth"].sum() == pytest.approx(right)
    assert found.coverage * count["num_frames"] == pytest.approx(count["correct_frames"])
    for share, whole in ((found.precision_per_class, "labelled"), (found.recall_per_class, "truth")):
        assert_allclose(share * count[whole], count["correct"])
        assert not share[count[whole] == 0].any()
    assert_allclose(found.coverage_per_class * count["num_frames"], count["correct"])


@given(scenes(), st.integers(0, 3))
def test_instances_and_their_map_are_the_same_truth(scene, seed):
    segments, length, classes, _ = scene
    labels = np.random.default_rng(seed).integers(-1, 2, (length, classes)).astype(np.int8)
    truth = hard_label_map(segments, length, classes) > 0
    one, other = pseudo_label_quality(labels, segments), pseudo_label_quality([labels], [truth])
    for name in one.__slots__:
        assert_array_equal(getattr(one, name), getattr(other, name))


def test_quality_of_labels_in_one_class_each():
    """The paper's definitions, by hand: 6 of 8 frames selected, 4 of them right, 5 frames act."""
    labels = np.array([[0, 0], [1, 0], [1, 0], [0, 1], [-1, -1], [-1, -1], [0, 0], [1, 0]], np.int8)
    truth = Segments([[1, 4], [5, 7]], labels=[0, 1])
    found = pseudo_label_quality(labels, truth)
    assert (found.precision, found.recall, found.coverage) == (3 / 6, 2 / 5, 3 / 8)
    assert found.precision_per_class.tolist() == [2 / 3, 0]
    assert found.recall_per_class.tolist() == [2 / 3, 0]
    assert found.coverage_per_class.tolist() == [2 / 8, 0]
    assert (found.background, found.correct_background) == (2, 1)


def test_a_map_of_numbers_has_no_background():
    """0 is no label there; the same numbers as codes are background."""
    labels, truth = np.array([[1], [0], [0]]), Segments([[0, 2]])
    assert pseudo_label_quality(labels, truth).precision == 2 / 3
    for one in (labels.astype(float), labels.astype(bool), 0.1 * labels):
        found = pseudo_label_quality(one, truth)
        assert (found.precision, found.recall, found.coverage) == (1, 1 / 2, 1 / 3)
    assert pseudo_label_quality(0.1 * labels, truth, threshold=0.1).labelled.tolist() == [0]


def test_perfect_and_empty_labels():
    truth = Segments([[1, 4], [2, 6]], labels=[0, 1])
    perfect = pseudo_label_quality(hard_label_map(truth, 8, 2).astype(np.int8), truth)
    assert (perfect.precision, perfect.recall, perfect.coverage) == (1, 1, 1)
    nothing = pseudo_label_quality(np.zeros((8, 2)), truth)
    assert (nothing.precision, nothing.recall, nothing.coverage) == (0, 0, 0)
    assert not nothing.precision_per_class.any()
    for found in (pseudo_label_quality([], []), pseudo_label_quality([], Segments.empty(video_ids=()))):
        assert (found.precision, found.recall, found.coverage, found.num_snippets) == (0, 0, 0, 0)
        assert found.labelled.shape == (0,)
    assert pseudo_label_quality(np.zeros((0, 3)), Segments.empty()).recall_per_class.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("labels", "truth", "error", "message"),
    [
        (np.zeros(3), Segments.empty(), ValueError, r"`labels` must have shape \(T, K\)"),
        ([[0, 1], [1, 0]], Segments.empty(), ValueError, r"`labels\[0\]` must have shape \(T, K\)"),
        (np.full((2, 1), np.nan), Segments.empty(), ValueError, "`labels` must be finite"),
        (np.full((2, 1), 2), Segments.empty(), ValueError, r"codes -1, 0 and 1, got 2 \(2 of 2\)"),
        ([np.zeros((2, 1)), np.zeros((2, 2))], [], ValueError, r"`labels\[1\]` must have 1 classes"),
        (np.zeros((2, 1)), Segments([[0, 1]], unit="second"), UnitError, "must be in snippets"),
        (np.zeros((2, 1)), Segments([[0, 1]], labels=[1]), ValueError, r"video 0: labels` must lie in \[0, 1\)"),
        (np.zeros((2, 1)), Segments([[3, 4]]), ValueError, r"`ground_truth of video 0` must touch the video"),
        (np.zeros((2, 1)), [], ValueError, r"one video per label map \(1\), got 0"),
        (np.zeros((2, 1)), np.zeros((2, 1)), TypeError, "must hold True and False, got dtype float64"),
        (np.zeros((2, 1)), np.zeros((3, 1), bool), ValueError, r"must have shape \(2, 1\), got \(3, 1\)"),
    ],
)
def test_bad_quality(labels, truth, error, message):
    with pytest.raises(error, match=message):
        pseudo_label_quality(labels, truth)


def test_bad_threshold():
    with pytest.raises(ValueError, match="`threshold` must be finite"):
        pseudo_label_quality(np.zeros((2, 1)), Segments.empty(), threshold=np.nan)


def test_a_band_beside_a_short_instance_takes_nothing_of_it():
    """[1, 1] covers snippet 1, and the band of its end, [0.5, 1.5), snippet 0."""
    short = Segments([[1, 1]], columns={"start_std": np.zeros(1), "end_std": np.array([0.5])})
    assert tri_state_label_map(short, 3, 1)[:, 0].tolist() == [-1, 1, 0]
