"""Segments, videos and results: what they check, and what they keep when they are cut, joined, scaled or pickled."""

from __future__ import annotations

import pickle
from dataclasses import fields

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc import MeanAveragePrecision, Segments, UnitError, Video
from tal_postproc.types import TIOU_RANGES


def three_videos(**changes) -> Segments:
    """Two rows, none, three rows."""
    return Segments(
        **{
            "segments": [[0, 1], [2, 4], [1, 5], [3, 3], [6, 8]],
            "labels": [1, 0, 2, 2, 0],
            "scores": [0.1, 0.2, 0.3, 0.4, 0.5],
            "offsets": [0, 2, 2, 5],
            "video_ids": ["a", "b", "c"],
            "columns": {"inner": [10, 20, 30, 40, 50]},
        }
        | changes
    )


def assert_equal_segments(found: Segments, expected: Segments) -> None:
    for name in ("segments", "labels", "scores", "offsets"):
        assert_array_equal(getattr(found, name), getattr(expected, name), strict=True)
    assert (found.unit, found.video_ids) == (expected.unit, expected.video_ids)
    assert found.columns.keys() == expected.columns.keys()
    for name, column in found.columns.items():
        assert_array_equal(column, expected.columns[name], strict=True)


# --------------------------------------------------------------------------------------------------------- segments


def test_segments_have_defaults():
    rows = Segments([[0, 1], [2, 4]])
    assert (rows.labels.tolist(), rows.scores.tolist(), rows.offsets.tolist()) == ([0, 0], [1, 1], [0, 2])
    assert (rows.unit, rows.video_ids, dict(rows.columns)) == ("snippet", (), {})
    assert (rows.segments.dtype, rows.labels.dtype, rows.offsets.dtype) == (np.float64, np.int64, np.int64)
    none = Segments([])
    assert (none.segments.shape, len(none), none.num_videos) == ((0, 2), 0, 1)
    empty = Segments.empty("second", ("a", "b"))
    assert (len(empty), empty.num_videos, empty.unit, empty.video_ids) == (0, 2, "second", ("a", "b"))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"segments": [[0, 1, 2]] * 5}, ValueError, r"`segments` must have shape \(N, 2\).*got shape \(5, 3\)"),
        ({"segments": [[0, 1]] * 4 + [[3, 2]]}, ValueError, r"`segments` needs start <= end; row 4 is \[3.0, 2.0\]"),
        ({"segments": [[0, np.nan]] * 5}, ValueError, r"`segments` must be finite.*row 0 .*5 of 5 rows"),
        ({"segments": [["a", "b"]] * 5}, TypeError, "`segments` must hold real numbers"),
        ({"labels": [0, 1]}, ValueError, r"`labels` must have shape \(5,\), one per segment, got shape \(2,\)"),
        ({"labels": [0, 0, 0, 0, -1]}, ValueError, "`labels` must be >= 0; row 4 is -1"),
        ({"labels": [0, 0, 0.5, 0, 1]}, ValueError, "`labels` must hold whole numbers; row 2 is 0.5"),
        ({"scores": [0, 0, np.inf, 0, 1]}, ValueError, "`scores` must be finite.*row 2 is inf"),
        ({"offsets": [0, 2, 4]}, ValueError, r"`offsets` must rise from 0 to 5 .*got \[0, 2, 4\]"),
        ({"offsets": [1, 2, 2, 5]}, ValueError, "`offsets` must rise from 0 to 5"),
        ({"offsets": [0, 3, 2, 5]}, ValueError, "`offsets` must rise from 0 to 5"),
        ({"offsets": []}, ValueError, "`offsets` must rise from 0 to 5"),
        ({"video_ids": ["a", "b"]}, ValueError, "`video_ids` must name 3 videos, got 2"),
        ({"video_ids": ["a", "b", "a"]}, ValueError, "`video_ids` must differ, 'a' stands 2 times"),
        ({"unit": "frame"}, ValueError, "`unit` must be one of 'snippet', 'second', 'relative', got 'frame'"),
        ({"columns": {"inner": [1, 2]}}, ValueError, r"`columns\['inner'\]` must have 5 rows, got shape \(2,\)"),
    ],
)
def test_bad_segments_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        three_videos(**changes)
    with pytest.raises(error, match=message):
        three_videos().replace(**changes)


def test_segments_copy_nothing_that_fits_and_change_nothing():
    given = np.array([[0.0, 1.0], [2.0, 4.0]])
    rows = Segments(given)
    assert np.shares_memory(rows.segments, given)
    rows.to_seconds(2.0)
    rows.select(np.array([1, 0]))
    assert given.tolist() == [[0, 1], [2, 4]]
    with pytest.raises(AttributeError):
        rows.unit = "second"


def test_segments_are_not_iterable():
    with pytest.raises(TypeError):
        iter(three_videos())
    with pytest.raises(TypeError):
        list(three_videos())


def test_one_video_by_position_or_name():
    rows = three_videos()
    for which in (2, -1, "c", np.int64(2)):
        found = rows.video(which)
        assert_equal_segments(
            found,
            Segments(
                [[1, 5], [3, 3], [6, 8]], [2, 2, 0], [0.3, 0.4, 0.5], video_ids=["c"], columns={"inner": [30, 40, 50]}
            ),
        )
    assert len(rows.video("b")) == 0
    with pytest.raises(KeyError, match="no video 'd' among 3 named videos"):
        rows.video("d")
    for which in (3, -4):
        with pytest.raises(IndexError, match=f"video {which} is out of range for 3 videos"):
            rows.video(which)


def test_video_index_counts_videos_without_rows():
    assert three_videos().video_index.tolist() == [0, 0, 2, 2, 2]
    assert three_videos().num_videos == 3


def test_select_by_mask_or_index_keeps_the_videos():
    rows = three_videos()
    expected = Segments(
        [[2, 4], [6, 8], [1, 5]],
        [0, 0, 2],
        [0.2, 0.5, 0.3],
        [0, 1, 1, 3],
        video_ids=["a", "b", "c"],
        columns={"inner": [20, 50, 30]},
    )
    assert_equal_segments(rows.select(np.array([1, 4, 2])), expected)
    # rows of several videos in mixed order: regrouped by video, in the order given within one
    assert_equal_segments(rows.select(np.array([4, 1, 2])), expected)
    mask = np.array([False, True, True, False, True])
    assert_equal_segments(rows.select(mask), rows.select(np.array([1, 2, 4])))
    assert_equal_segments(rows.select(rows.scores > 0), rows)
    nothing = rows.select(np.zeros(5, bool))
    assert (len(nothing), nothing.offsets.tolist()) == (0, [0, 0, 0, 0])
    assert rows.select(np.array([0, 0])).segments.tolist() == [[0, 1], [0, 1]]
    with pytest.raises(ValueError, match=r"`rows` must have one entry per row \(5\)"):
        rows.select(np.array([True, False]))


def test_split_and_concatenate_reverse_each_other():
    rows = three_videos(unit="second")
    parts = list(rows.split())
    assert [len(part) for part in parts] == [2, 0, 3]
    assert_equal_segments(Segments.concatenate(parts), rows)
    both = Segments.concatenate([rows, rows.replace(video_ids=["x", "y", "z"])])
    assert both.video_ids == ("a", "b", "c", "x", "y", "z")
    assert both.offsets.tolist() == [0, 2, 2, 5, 7, 7, 10]
    assert both.columns["inner"].tolist() == [10, 20, 30, 40, 50] * 2
    assert_equal_segments(both.video("z"), rows.replace(video_ids=["x", "y", "z"]).video("z"))
    assert Segments.concatenate([]).num_videos == 0
    # names only where all parts have them, and a part without rows needs no columns
    assert Segments.concatenate([rows, rows.replace(video_ids=())]).video_ids == ()
    assert len(Segments.concatenate([rows, Segments.empty("second", ("d",))])) == 5


def test_concatenate_refuses_what_does_not_fit():
    rows = three_videos()
    with pytest.raises(UnitError, match="`parts` must share one unit, got 'snippet' and 'second'"):
        Segments.concatenate([rows, rows.replace(unit="second")])
    with pytest.raises(ValueError, match=r"`parts` must share their extra columns, got \['inner'\] and \[\]"):
        Segments.concatenate([rows, rows.replace(columns={})])
    with pytest.raises(ValueError, match="`video_ids` must differ, 'a' stands 2 times"):
        Segments.concatenate([rows, rows])


def test_units_convert_by_number_or_by_video():
    rows = three_videos()
    factors = np.array([[0.5], [0.5], [2.0], [2.0], [2.0]])
    for step, factor in ((0.5, 0.5), ([0.5, 9.0, 2.0], factors)):
        seconds = rows.to_seconds(step)
        assert seconds.unit == "second"
        assert_array_equal(seconds.segments, rows.segments * factor)
        assert_equal_segments(seconds.to_snippets(step), rows)
    with pytest.raises(UnitError, match=r"`segments` must be in snippets, got unit 'second'; convert it first"):
        seconds.to_seconds(0.5)
    with pytest.raises(UnitError, match=r"`segments` must be in seconds, got unit 'snippet'"):
        rows.to_snippets(0.5)
    with pytest.raises(UnitError, match=r"`segments` must be in snippets, got unit 'relative'"):
        rows.replace(unit="relative").to_seconds(0.5)
    with pytest.raises(ValueError, match=r"`seconds_per_snippet` must be one number or one per video \(3\), got 2"):
        rows.to_seconds([0.5, 0.5])
    for bad in (0.0, -1.0, np.nan, [0.5, np.inf, 0.5]):
        with pytest.raises(ValueError, match="`seconds_per_snippet` must be finite and above 0"):
            rows.to_seconds(bad)


def test_require_unit_names_the_argument():
    rows = three_videos()
    rows.require_unit("snippet", "detections")
    with pytest.raises(UnitError, match="`detections` must be in seconds, got unit 'snippet'"):
        rows.require_unit("second", "detections")


def test_replace_changes_what_it_names():
    rows = three_videos()
    changed = rows.replace(scores=np.arange(5), unit="second")
    assert_equal_segments(changed, three_videos(scores=np.arange(5), unit="second"))
    assert rows.scores.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5]
    with pytest.raises(TypeError):
        rows.replace(score=1)


def test_segments_are_shown_in_one_line():
    assert repr(three_videos()) == "<Segments: 5 rows of 3 video(s), unit='snippet', columns=['inner']>"
    assert repr(Segments([])) == "<Segments: 0 rows of 1 video(s), unit='snippet'>"


def test_objects_survive_pickling():
    rows = three_videos(unit="second")
    for copy in (pickle.loads(pickle.dumps(part)) for part in (rows, rows.select(np.arange(5)))):
        assert_equal_segments(copy, rows)
    warp = (np.array([0.0, 4.0]), np.array([0.0, 3.0]))
    video = Video("v", {"cas": np.eye(3)}, {"video": [1, 2, 3]}, 0.5, 1.5, warp, rows.video("a"))
    copy = pickle.loads(pickle.dumps(video))
    assert [f.name for f in fields(copy)][-1] == "proposals"
    assert (copy.id, copy.seconds_per_snippet, copy.duration) == ("v", 0.5, 1.5)
    assert_array_equal(copy.maps["cas"], np.eye(3))
    assert_array_equal(copy.scores["video"], [1, 2, 3])
    assert_array_equal(copy.warp, warp)
    assert_equal_segments(copy.proposals, rows.video("a"))


# ----------------------------------------------------------------------------------------------------------- videos


def test_video_keeps_its_arrays():
    cas, attention = np.zeros((8, 3), np.float16), np.zeros(8)
    video = Video("v", {"cas": cas, "attention": attention}, {"video": [1, 2, 3]})
    assert video.num_snippets == 8
    assert video.maps["cas"] is cas
    assert video.maps["attention"] is attention
    assert video.scores["video"].dtype == np.float64
    assert (video.seconds_per_snippet, video.duration, video.warp, video.proposals) == (None, None, None, None)
    assert Video("v", {}).num_snippets == 0


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"maps": {"cas": np.zeros((8, 3)), "attention": np.zeros(7)}},
            ValueError,
            r"`maps\['attention'\]` must have 8 snippets like the other maps, got 7",
        ),
        ({"maps": {"cas": np.zeros((8, 3, 1))}}, ValueError, r"`maps\['cas'\]` must have shape \(T,\) or \(T, K\)"),
        ({"maps": {"cas": np.zeros((8, 3), complex)}}, TypeError, r"`maps\['cas'\]` must hold real numbers"),
        ({"maps": {"cas": [[1, 2], [3]]}}, ValueError, r"`maps\['cas'\]` must be a rectangular array"),
        ({"scores": {"video": np.zeros((1, 3))}}, ValueError, r"`scores\['video'\]` must have shape \(N,\)"),
        ({"scores": {"video": [0, np.nan]}}, ValueError, r"`scores\['video'\]` must be finite.*row 1 is nan"),
        ({"seconds_per_snippet": 0.0}, ValueError, "`seconds_per_snippet` must be above 0, got 0"),
        ({"seconds_per_snippet": "0.64"}, TypeError, "`seconds_per_snippet` must be a number, got '0.64'"),
        ({"duration": -1}, ValueError, "`duration` must be above 0, got -1"),
        ({"duration": np.inf}, ValueError, "`duration` must be finite.*got inf"),
        ({"warp": ([0.0], [0.0])}, ValueError, "`warp` needs at least 2 knots"),
        ({"warp": ([0.0, 1.0, 2.0], [0.0, 1.0])}, ValueError, r"`warp\[1\]` must have shape \(3,\), one per knot"),
        ({"warp": ([0.0, 2.0, 1.0], [0.0, 1.0, 2.0])}, ValueError, "`warp.*never decreas"),
        ({"warp": ([0.0, 1.0, 2.0], [0.0, 2.0, 1.0])}, ValueError, "`warp.*never decreas"),
        ({"warp": ([0.0, np.nan], [0.0, 1.0])}, ValueError, r"`warp\[0\]` must be finite"),
    ],
)
def test_bad_videos_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        Video(**{"id": "v", "maps": {"cas": np.zeros((8, 3))}} | changes)


def test_warp_may_stand_still():
    video = Video("v", {}, warp=([0, 1, 1, 2], [0, 0, 3, 3]))
    assert_array_equal(video.warp, [[0, 1, 1, 2], [0, 0, 3, 3]])


# ---------------------------------------------------------------------------------------------------------- results


def result_at(thresholds, values) -> MeanAveragePrecision:
    per_class = np.array(values, float)[:, None]
    return MeanAveragePrecision(
        np.array(thresholds, float), np.zeros(1, int), per_class, per_class[:, 0], "activitynet", np.ones(1), np.ones(1)
    )


def test_ranges_are_decimal_literals():
    assert {name: (len(values), values[0], values[-1]) for name, values in TIOU_RANGES.items()} == {
        "0.1:0.5": (5, 0.1, 0.5),
        "0.3:0.7": (5, 0.3, 0.7),
        "0.1:0.7": (7, 0.1, 0.7),
        "0.5:0.95": (10, 0.5, 0.95),
    }
    for values in TIOU_RANGES.values():
        assert values == tuple(float(f"{value:.2f}") for value in values)
        assert_allclose(np.diff(values), values[1] - values[0], atol=1e-12)


@pytest.mark.parametrize("name", TIOU_RANGES)
def test_average_over_finds_its_thresholds(name):
    """Among others, in any order, and with the drift of numpy.arange."""
    everything = np.concatenate([np.arange(0.05, 1.0, 0.05), [0.33]])[::-1]
    values = np.arange(len(everything), dtype=float) ** 2
    wanted = [values[np.abs(everything - value).argmin()] for value in TIOU_RANGES[name]]
    result = result_at(everything, values)
    assert result.average_over(name) == np.mean(wanted)
    assert result.average == values.mean()


def test_average_over_says_what_is_missing():
    result = result_at([0.5, 0.7], [0.4, 0.2])
    with pytest.raises(ValueError, match=r"the average 0.3:0.7 needs tIoU 0.30, which was not evaluated \(3 missing\)"):
        result.average_over("0.3:0.7")
    with pytest.raises(ValueError, match=r"`name` must be one of '0.1:0.5', .* got 'thumos'"):
        result.average_over("thumos")
    assert result_at([], np.empty(0)).average == 0.0
