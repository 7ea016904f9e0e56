"""Synthetic videos: seeded, like THUMOS14, with faults that can be switched, and no harder than stated."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tal_postproc import Segments, UnitError, Videos, synthetic
from tal_postproc.evaluation import mean_average_precision
from tal_postproc.formats import read_wtalc_annotations
from tal_postproc.pipeline import PostProcessor
from tal_postproc.synthetic import THUMOS14_CLASSES, Faults, iter_videos, make_annotations, make_videos, simulate_tcams

# Of the 412 annotated THUMOS14 videos, an interval with two classes counted once: quartiles, and what may differ.
QUARTILES = {
    "duration": ((88.8, 154.6, 228.7), 0.1),  # seconds
    "intervals": ((3.0, 8.0, 19.0), 1.0),  # per video
    "length": ((1.6, 3.1, 6.0), 0.1),  # seconds
    "gap": ((0.9, 2.9, 8.4), 0.1),  # seconds between the end of one and the start of the next
    "coverage": ((0.146, 0.247, 0.404), 0.001),  # fraction of the video
}
CLASSES_PER_VIDEO = {1: 351, 2: 60, 3: 1}


def statistics(annotations):
    found = {name: [] for name in QUARTILES}
    classes = Counter()
    for rows, duration in zip(annotations.segments.split(), annotations.durations):
        intervals = np.unique(rows.segments, axis=0)
        length = intervals[:, 1] - intervals[:, 0]
        found["duration"].append(duration)
        found["intervals"].append(len(intervals))
        found["length"].extend(length)
        found["gap"].extend(intervals[1:, 0] - intervals[:-1, 1])
        found["coverage"].append(length.sum() / duration)
        classes[len(np.unique(rows.labels))] += 1
    return {name: np.percentile(values, (25, 50, 75)) for name, values in found.items()}, classes


def main_class(names):
    """CliffDiving is always annotated as Diving, too, and CricketShot mostly comes with CricketBowling."""
    for special in ("CliffDiving", "CricketShot"):
        if special in names:
            return special
    return Counter(names).most_common(1)[0][0]


def same_videos(one, other):
    for a, b in zip(one, other, strict=True):
        assert a.id == b.id
        for name in a.maps:
            assert a.maps[name].tobytes() == b.maps[name].tobytes()
        assert a.scores["video"].tobytes() == b.scores["video"].tobytes()
    return True


@pytest.fixture(scope="module")
def data():
    return make_videos(60, seed=3)


# ------------------------------------------------------------------ annotations
def test_stated_quartiles_are_those_of_thumos14(thumos):
    quartiles, classes = statistics(read_wtalc_annotations(thumos, subset=None))
    for name, (stated, unit) in QUARTILES.items():
        np.testing.assert_allclose(quartiles[name], stated, rtol=0, atol=0.51 * unit, err_msg=name)
    assert classes == CLASSES_PER_VIDEO


def test_class_table_and_parameters_are_those_of_thumos14(thumos):
    annotations = read_wtalc_annotations(thumos, subset=None)
    rows = []
    for truth, duration in zip(annotations.segments.split(), annotations.durations):
        name = main_class([annotations.classes[k] for k in truth.labels])
        intervals = np.unique(truth.segments[truth.segments[:, 1] <= duration], axis=0)
        length = np.log(intervals[:, 1] - intervals[:, 0])
        gap = np.log(np.maximum(intervals[1:, 0] - intervals[:-1, 1], 0.1))
        rows.append((name, duration, len(intervals), length, gap))
    count = {k: [np.log(n * (150 / d) ** 0.85) for name, d, n, _, _ in rows if name == k] for k in annotations.classes}
    length = {k: [x.mean() for name, _, _, x, _ in rows if name == k] for k in annotations.classes}
    for name, videos, count_at_150, typical_length in THUMOS14_CLASSES:
        assert len(count[name]) == videos
        assert np.exp(np.mean(count[name])) == pytest.approx(count_at_150, abs=0.051)
        assert np.exp(np.mean(length[name])) == pytest.approx(typical_length, abs=0.051)

    duration = np.log([d for _, d, _, _, _ in rows])
    slope = np.polyfit(duration, np.log([n for _, _, n, _, _ in rows]), 1)[0]

    def around_class_mean(values):
        return np.std(np.concatenate([np.array(v) - np.mean(v) for v in values.values()]))

    def within_videos(column):
        return np.sqrt(
            np.mean(np.concatenate([(row[column] - row[column].mean()) ** 2 for row in rows if len(row[column])]))
        )

    assert (duration.mean(), duration.std()) == pytest.approx(synthetic.LOG_DURATION, abs=0.01)
    assert slope == pytest.approx(synthetic.COUNT_EXPONENT, abs=0.01)
    assert around_class_mean(count) == pytest.approx(synthetic.COUNT_SPREAD, abs=0.01)
    assert around_class_mean(length) == pytest.approx(synthetic.LENGTH_SPREAD_VIDEO, abs=0.01)
    assert within_videos(3) == pytest.approx(synthetic.LENGTH_SPREAD_WITHIN, abs=0.01)
    assert within_videos(4) == pytest.approx(synthetic.GAP_SPREAD, abs=0.01)


def test_statistics_are_like_the_stated_ones():
    quartiles, classes = statistics(make_annotations(3000, seed=0))
    for name, (stated, unit) in QUARTILES.items():
        np.testing.assert_allclose(quartiles[name], stated, rtol=0.2, atol=unit, err_msg=name)
    for number, count in CLASSES_PER_VIDEO.items():
        assert classes[number] / 3000 == pytest.approx(count / 412, abs=0.03)


def test_main_classes_come_in_the_stated_shares():
    annotations = make_annotations(3000, seed=1)
    found = Counter(main_class([annotations.classes[k] for k in rows.labels]) for rows in annotations.segments.split())
    total = sum(videos for _, videos, _, _ in THUMOS14_CLASSES)
    assert total == 412
    for name, videos, _, _ in THUMOS14_CLASSES:
        assert found[name] / 3000 == pytest.approx(videos / total, abs=0.02)


@pytest.mark.parametrize("num_classes", [1, 7, 20, 45])
def test_annotations_lie_within_their_videos_and_classes_do_not_overlap_themselves(num_classes):
    annotations = make_annotations(300, seed=2, num_classes=num_classes)
    assert len(annotations.classes) == num_classes
    assert annotations.segments.labels.max() == num_classes - 1
    for rows, duration in zip(annotations.segments.split(), annotations.durations):
        assert len(rows)
        assert rows.segments.min() >= 0.0
        assert rows.segments.max() <= duration
        assert (rows.segments[:, 1] - rows.segments[:, 0]).min() > 0.1
        for k in np.unique(rows.labels):
            of_class = rows.segments[rows.labels == k]
            assert (of_class[1:, 0] >= of_class[:-1, 1]).all()


def test_every_cliff_dive_is_a_dive_and_bowling_precedes_the_shot():
    annotations = make_annotations(400, seed=0)
    cliff, bowling, shot, dive = (
        annotations.classes.index(name) for name in ("CliffDiving", "CricketBowling", "CricketShot", "Diving")
    )
    together = 0
    for rows in annotations.segments.split():
        if main_class([annotations.classes[k] for k in rows.labels]) == "CliffDiving" and dive in rows.labels:
            assert_array_equal(rows.segments[rows.labels == cliff], rows.segments[rows.labels == dive])
            together += 1
        if {bowling, shot} == set(rows.labels.tolist()):
            shots = rows.segments[rows.labels == shot]
            waits = shots[:, 0] - rows.segments[rows.labels == bowling][: len(shots), 1]
            assert (waits < 0.11).all()
            together += 1
    assert together > 10


# ------------------------------------------------------------------ seeds
def test_a_seed_gives_the_same_bytes_and_another_seed_others():
    one, again, other = make_videos(5, seed=7), make_videos(5, seed=7), make_videos(5, seed=8)
    assert one.ground_truth.segments.tobytes() == again.ground_truth.segments.tobytes()
    assert same_videos(one.videos, again.videos)
    assert one.ground_truth.segments.tobytes() != other.ground_truth.segments.tobytes()
    first, second = (simulate_tcams(one.ground_truth, one.annotations.durations, seed=seed)[0] for seed in (0, 1))
    assert first.maps["cas"].shape == second.maps["cas"].shape
    assert first.maps["cas"].tobytes() != second.maps["cas"].tobytes()


def test_a_video_depends_neither_on_the_number_of_videos_nor_on_its_place(data):
    few = make_videos(4, seed=3)
    assert same_videos(few.videos, data.videos[:4])
    assert_array_equal(few.ground_truth.segments, data.ground_truth.segments[: len(few.ground_truth)])
    backwards = Segments.concatenate(list(few.ground_truth.split())[::-1])
    videos = simulate_tcams(backwards, few.annotations.durations[::-1], num_classes=20, seed=3)
    assert same_videos(videos[::-1], few.videos)


def test_iter_videos_is_lazy_and_gives_the_same(data):
    made = iter_videos(data.ground_truth, data.annotations.durations, num_classes=20, seed=3)
    assert iter(made) is made
    assert same_videos([next(made), next(made)], data.videos[:2])


# ------------------------------------------------------------------ maps
def test_maps_are_finite_and_in_range(data):
    assert len(data) == 60
    for video, duration in zip(data.videos, data.annotations.durations):
        assert video.seconds_per_snippet == 16 / 25
        assert video.duration == duration
        assert video.num_snippets == int(duration / 0.64)
        assert video.maps["cas"].shape == video.maps["logits"].shape == (video.num_snippets, 20)
        assert video.maps["attention"].shape == (video.num_snippets,)
        assert video.scores["video"].shape == (20,)
        for values in (video.maps["cas"], video.maps["attention"], video.scores["video"]):
            assert values.dtype == np.float64
            assert values.min() >= 0.0
            assert values.max() <= 1.0
        assert np.isfinite(video.maps["logits"]).all()


def test_values_suit_absolute_thresholds(data):
    inside, outside, attention_inside, attention_outside = [], [], [], []
    for video, rows in zip(data.videos, data.ground_truth.split()):
        times = (np.arange(video.num_snippets)[:, None] + 0.5) * 0.64
        hit = (times >= rows.segments[:, 0]) & (times < rows.segments[:, 1])
        busy = hit.any(axis=1)
        for k in np.unique(rows.labels):
            inside.append(video.maps["cas"][hit[:, rows.labels == k].any(axis=1), k])
            outside.append(video.maps["cas"][~busy, k])
        attention_inside.append(video.maps["attention"][busy])
        attention_outside.append(video.maps["attention"][~busy])
    assert 0.15 < np.median(np.concatenate(inside)) < 0.6
    assert 0.001 < np.median(np.concatenate(outside)) < 0.01
    assert np.median(np.concatenate(attention_inside)) > 0.5
    assert np.median(np.concatenate(attention_outside)) < 0.15


def test_background_column(data):
    truth, durations = data.ground_truth, data.annotations.durations
    none, last, first = (
        simulate_tcams(truth, durations, num_classes=20, seed=3, background=where)[0]
        for where in ("none", "last", "first")
    )
    for name in ("cas", "logits"):
        assert last.maps[name].shape[1] == first.maps[name].shape[1] == 21
        assert_array_equal(last.maps[name][:, :20], none.maps[name])
        assert_array_equal(first.maps[name][:, 1:], none.maps[name])
        assert_array_equal(first.maps[name][:, 0], last.maps[name][:, 20])
    assert_array_equal(last.scores["video"][:20], none.scores["video"])
    np.testing.assert_allclose(last.maps["cas"].sum(axis=1), last.maps["attention"], rtol=1e-12)


def test_seconds_per_snippet_and_num_classes():
    truth = Segments([[2, 5]], [2], unit="second", video_ids=["a"])
    (video,) = simulate_tcams(truth, [10.0], seconds_per_snippet=0.25)
    assert video.maps["cas"].shape == (40, 3)
    assert video.seconds_per_snippet == 0.25
    (video,) = simulate_tcams(truth, [10.0], num_classes=9)
    assert video.maps["cas"].shape == (15, 9)


def test_odd_input():
    nothing = make_videos(0)
    assert nothing.videos == ()
    assert len(nothing.ground_truth) == 0
    assert simulate_tcams(Segments.empty("second", ["a"]), [0.1])[0].maps["cas"].shape == (1, 1)
    late = Segments([[90, 99], [5, 200]], unit="second")
    (video,) = simulate_tcams(late, [20.0], faults=Faults.none())
    assert video.id == "0"
    assert video.maps["cas"][:7].max() < 0.1 < video.maps["cas"][8:].min()


def test_identical_intervals_of_two_classes_share_their_faults():
    truth = Segments([[5, 15], [5, 15], [30, 40]], [0, 1, 0], unit="second", video_ids=["a"])
    (video,) = simulate_tcams(
        truth, [60.0], faults=replace(Faults(), noise=0.0, confusion=0.0, distractors=0.0), num_classes=3
    )
    assert_array_equal(video.maps["logits"][:30, 0], video.maps["logits"][:30, 1])
    assert video.maps["logits"][45:64, 0].max() > video.maps["logits"][45:64, 1].max() + 1


# ------------------------------------------------------------------ faults, each by its effect
LONG = Segments([[96.0 * i + 38.4, 96.0 * i + 57.6] for i in range(40)], unit="second", video_ids=["long"])


def simulated(**faults):
    """Logits (40, 150) of class 0 of 2 around 40 instances, snippets 60 to 90 of every 150, and the whole video."""
    (video,) = simulate_tcams(LONG, [3840.0], num_classes=2, faults=replace(Faults.none(), **faults))
    return video.maps["logits"][:, 0].reshape(40, 150), video


INSIDE, BEFORE, AFTER = slice(62, 88), slice(53, 59), slice(91, 97)


def test_without_faults_the_map_follows_the_annotations():
    logits, video = simulated()
    assert logits[:, INSIDE].min() > 2.0
    assert np.abs(logits[:, :59] - 1.0).max() < 1e-3
    assert np.abs(video.maps["logits"][:, 1]).max() == 0.0
    data = make_videos(40, seed=0, faults=Faults.none())
    assert average_map(data)[0] > 1.3 * average_map(make_videos(40, seed=0))[0]


def test_core_leaves_only_a_part():
    part = (simulated(core=0.9)[0][:, INSIDE] - 1.0).min(axis=1)
    assert np.median(part) < 0.75 * np.median((simulated()[0][:, INSIDE] - 1.0).min(axis=1))


def test_missed_instances_hardly_fire():
    assert simulated(miss=1.0)[0].max() < 0.5 * simulated()[0].max()


def test_boundaries_move():
    def starts(logits):
        return np.array([np.argmax(row > 0.5 * (row.max() + 1)) for row in logits])

    assert np.ptp(starts(simulated()[0])) <= 1
    assert np.std(starts(simulated(boundary=0.15)[0])) > 2


def test_split_instances_have_a_dip():
    def dip(logits):
        return ((logits[:, INSIDE] - 1.0).min(axis=1) / (logits.max(axis=1) - 1.0)).max()

    assert dip(simulated(split=1.0)[0]) < 0.5 < dip(simulated()[0])


def test_context_fires_on_both_sides():
    logits = simulated(context=1.0)[0]
    assert (logits[:, BEFORE].max(axis=1) > 1.2).mean() > 0.5
    assert (logits[:, AFTER].max(axis=1) > 1.2).mean() > 0.5
    assert logits[:, INSIDE].min() > 2.0


def test_distractors_fire_in_the_background():
    assert simulated()[0][:, :50].max() < 1.01
    assert simulated(distractors=1.0)[0][:, :50].max() > 2.0


def test_confusion_fires_in_the_next_class():
    video = simulated(confusion=1.0)[1]
    right, wrong = video.maps["logits"].T
    assert np.corrcoef(right, wrong)[0, 1] > 0.99
    assert wrong.max() > 1.0


def test_cuts_shift_the_level_and_the_attention():
    logits, video = simulated(cuts=6.0)
    assert np.std(logits[:, :50]) > 0.2
    assert np.std(np.diff(logits[:, :50])) < 0.2  # steps, not noise
    assert np.std(video.maps["attention"][:50]) > 0.0
    assert np.ptp(simulated()[1].maps["attention"][:50]) < 1e-6


def test_noise_is_everywhere():
    logits, video = simulated(noise=0.5)
    assert 0.4 < np.std(logits[:, :50]) < 0.7
    assert 0.4 < np.std(video.maps["logits"][:, 1]) < 0.6
    assert np.std(video.maps["attention"][:50]) > 0.0


@pytest.mark.parametrize("name", [field.name for field in fields(Faults)])
def test_every_fault_changes_the_maps(name):
    truth, durations = make_annotations(6, seed=0).segments, make_annotations(6, seed=0).durations
    plain, faulty = (
        simulate_tcams(truth, durations, num_classes=20, faults=faults)
        for faults in (Faults.none(), replace(Faults.none(), **{name: 0.9}))
    )
    assert any(a.maps["cas"].tobytes() != b.maps["cas"].tobytes() for a, b in zip(plain, faulty))


# ------------------------------------------------------------------ difficulty
def average_map(data):
    rskp = PostProcessor.from_preset("rskp")
    found = Segments.concatenate([rskp(video).to_seconds(video.seconds_per_snippet) for video in data.videos])
    found = found.replace(video_ids=data.ground_truth.video_ids)
    result = mean_average_precision(found, data.ground_truth, tiou_thresholds=np.arange(1, 8) / 10)
    return result.average, float(result.per_threshold[4])


def test_plain_nms_does_as_published():
    average, at_half = average_map(make_videos(200, seed=0))
    assert 0.35 < average < 0.5
    assert 0.25 < at_half < 0.4


def test_plain_nms_over_real_annotations_does_as_published(thumos):
    real = read_wtalc_annotations(thumos)
    videos = simulate_tcams(real.segments, real.durations, num_classes=len(real.classes))
    assert len(videos) == 212
    average, at_half = average_map(Videos(videos, real.classes, real))
    assert 0.35 < average < 0.5
    assert 0.25 < at_half < 0.4


# ------------------------------------------------------------------ mistakes
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: make_videos(-1), ValueError, "`num_videos` must be at least 0, got -1"),
        (lambda: make_videos(1.5), TypeError, "`num_videos` must be a whole number"),
        (lambda: make_videos(1, seed=-1), ValueError, "`seed` must be at least 0"),
        (lambda: make_videos(1, num_classes=0), ValueError, "`num_classes` must be at least 1"),
        (
            lambda: make_videos(1, background="middle"),
            ValueError,
            "`background` must be one of 'none', 'last', 'first'",
        ),
        (lambda: make_videos(1, seconds_per_snippet=0), ValueError, "`seconds_per_snippet` must be above 0"),
        (lambda: Faults(miss=1.1), ValueError, "`miss` must be at most 1, got 1.1"),
        (lambda: Faults(noise=-0.1), ValueError, "`noise` must be at least 0, got -0.1"),
        (lambda: simulate_tcams(Segments([[1, 2]]), [9.0]), UnitError, "`ground_truth` must be in seconds"),
        (lambda: simulate_tcams(LONG, [9.0, 9.0]), ValueError, r"`durations` must have shape \(1,\), one per video"),
        (lambda: simulate_tcams(LONG, [0.0]), ValueError, "`durations` must be above 0, got 0.0 for video 0"),
        (lambda: simulate_tcams(LONG, [np.nan]), ValueError, "`durations` must be finite"),
        (
            lambda: simulate_tcams(LONG.replace(labels=np.full(40, 3)), [9.0], num_classes=3),
            ValueError,
            r"`ground_truth.labels` must lie in \[0, 3\)",
        ),
    ],
)
def test_mistakes_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_iter_videos_complains_at_once():
    with pytest.raises(ValueError, match="`durations`"):
        iter_videos(LONG, [-1.0])


def test_input_is_not_changed_and_may_be_read_only():
    truth = Segments([[1.0, 4.0], [6.0, 7.5]], [1, 0], unit="second")
    before = truth.segments.copy()
    durations = np.array([9, 12], dtype=">i4")[:1]
    durations.setflags(write=False)
    truth.segments.setflags(write=False)
    simulate_tcams(truth, durations)
    assert_array_equal(truth.segments, before)
