"""The functions of STPN and CMCS against literal oracles."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc.compat import cmcs, stpn

from .oracles import compat_basnet as oracle

# ----------------------------------------------------------------------------------------------------------------- STPN


def camera(rng: np.random.Generator, length: int, width: int) -> np.ndarray:
    """(T, C) logits that cross the threshold now and then."""
    return rng.normal(scale=0.6, size=(length, width)).cumsum(axis=0) - 3


def assert_same_lists(ours, theirs) -> None:
    assert [len(rows) for rows in ours] == [len(rows) for rows in theirs]
    for mine, other in zip(ours, theirs):
        if len(mine):
            assert_allclose(np.array(mine, float), np.array(other, float), rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("alpha", [0.5, 0.2])
def test_maps_of_stpn(dtype, alpha):
    rng = np.random.default_rng(0)
    main, sub = camera(rng, 30, 5).astype(dtype), camera(rng, 30, 5).astype(dtype)
    attention, pred = rng.random((30, 1)).astype(dtype), np.array([3, 1])
    both = stpn.get_wtCAM(main, sub, attention, alpha, pred)
    assert both.shape == (30, 2, 2)
    assert both.dtype == dtype
    before = both.copy()
    fine = stpn.interpolated_wtCAM(both, 24)
    expected = oracle.stpn_maps(*(x.astype(np.float64) for x in (main, sub, attention)), alpha, pred, 24)
    assert fine.dtype == np.float64
    assert_allclose(fine, expected, rtol=0, atol=1e-5 if dtype is np.float32 else 1e-12)
    assert (fine == 0).any()
    assert_array_equal(both, before)
    for one, column in zip(stpn.get_tempseg_list(fine, 2), (0, 1)):
        assert_array_equal(one[0], np.flatnonzero(fine[:, column, 0]))
    assert len(stpn.get_tempseg_list(fine, 1)) == 1
    exactly = np.array([[[0.05, 1.0]], [[0.0499, 1.0]]])
    assert stpn.interpolated_wtCAM(exactly, 1)[:, 0, 1].tolist() == [1.0, 0.0]


def test_proposals_of_stpn():
    rng = np.random.default_rng(0)
    found = 0
    for length in (1, 2, 3, 40):
        for _ in range(10):
            maps, pred = rng.random((length, 3, 2)), np.array([7, 0, 2])
            where = [np.where(maps[:, i, 0] > 0.5) for i in range(3)]
            ours = stpn.get_temp_proposal(where, maps, pred, 24, 321)
            assert_same_lists(ours, oracle.stpn_proposals(where, maps, pred, 24, 321))
            found += sum(len(rows) for rows in ours)
    assert found > 100
    empty = [(np.array([], np.int64),)]
    assert stpn.get_temp_proposal(empty, np.zeros((0, 1, 2)), [1], 24, 0) == [[]]


def test_suppression_of_stpn():
    """Half-second rows meet IoU 0.5 exactly, which does not suppress; ties keep the order."""
    rng = np.random.default_rng(0)
    for count in (1, 5, 60):
        start = rng.integers(0, 20, count) / 2
        length = rng.integers(0, 8, count) / 2
        rows = np.column_stack([np.zeros(count), rng.integers(0, 9, count) / 8, start, start + length])
        kept = stpn.nms_prop(rows)
        assert kept.dtype == np.int32
        assert kept.tolist() == oracle.stpn_nms(rows)
    assert stpn.nms_prop([[0, 0.9, 0, 2], [0, 0.8, 0, 1]]).tolist() == [0, 1]
    assert stpn.nms_prop([]).tolist() == []
    apart = np.column_stack([np.zeros(1200), np.linspace(1, 0, 1200), np.arange(1200), np.arange(1200) + 1])
    assert stpn.nms_prop(apart).tolist() == list(range(1000))


def test_both_streams_together():
    rng = np.random.default_rng(0)
    total = {"both": 0, "one": 0}
    for _ in range(30):
        lists, classes = [], []
        for _ in range(2):
            classes.append(sorted(rng.choice(6, 3, replace=False).tolist()))
            starts = [rng.integers(0, 20, rng.integers(0, 12)) / 2 for _ in range(3)]
            # few different scores and lengths: ties, and rows that both streams have
            lists.append(
                [
                    [[c, rng.integers(1, 4) / 4, s, s + rng.integers(1, 3)] for s in part]
                    for c, part in zip(classes[-1], starts)
                ]
            )
        ours = stpn.integrated_prop(*lists, *classes)
        expected = oracle.stpn_integrated(*lists, *classes)
        assert len(ours) == len(expected)
        for mine, other in zip(ours, expected):
            assert type(mine) is type(other)
            assert_array_equal(np.array(mine, float), np.array(other, float))
            total["both" if isinstance(mine, np.ndarray) else "one"] += 1
    assert min(total.values()) > 50
    assert stpn.integrated_prop([[]], [[]], [1], [1]) == []
    assert stpn.integrated_prop([], [], [], []) == []
    far = [[20, 0.5, 0.0, 1.0]]
    assert stpn.integrated_prop([far], [], [20], []) == []


def test_whole_videos_of_stpn():
    rng = np.random.default_rng(0)
    lists = []
    for rgb, flow in (
        ([[0.9, 0.5, 0.0]], [[0.2, 0.05, 0.3]]),  # class 0 in both, the others in one
        ([[0.9, 0.1, 0.0]], [[0.2, 0.9, 0.3]]),  # one stream predicts class 0 alone, which counts as nothing
        ([[0.2, 0.9, 0.3]], [[0.0, 0.0, 0.0]]),
        ([[0.9, 0.0, 0.0]], [[0.0, 0.1, 0.0]]),
    ):
        given = [camera(rng, 40, 3), camera(rng, 40, 3), rng.random((40, 1)), rng.random((40, 1)), np.array(rgb)]
        given += [np.array(flow), 321]
        ours, expected = stpn.detect(*given), oracle.stpn(*given)
        assert_same_lists(ours, expected)
        assert_same_lists(stpn.detect(*given, 12), oracle.stpn(*given, 12))
        lists.append(len(ours))
    assert lists == [1, 3, 3, 0]
    assert stpn.detect(*given[:5], [[0.0, 0.2, 0.0]], 321, 24, 0.5) == []


# ----------------------------------------------------------------------------------------------------------------- CMCS


def test_normalize():
    x = np.random.default_rng(0).normal(size=(9, 1))
    before = x.copy()
    assert_array_equal(cmcs.normalize(x), oracle.cmcs_normalize(x))
    assert_array_equal(x, before)
    assert np.isnan(cmcs.normalize(np.ones((3, 1)))).all()
    assert cmcs.normalize(np.ones((0, 1))).shape == (0, 1)
    assert cmcs.normalize(np.ones(3, np.float32)).dtype == np.float32


@pytest.mark.parametrize("kind", ["linear", "nearest", "quadratic"])
@pytest.mark.parametrize("frame_cnt", [48, 63, 64, 65, 200])
@pytest.mark.parametrize("ticks", [("i3d", 16, 16), ("i3d", 8, 16), ("untri", 15, None)])
def test_interpolate(kind, frame_cnt, ticks):
    feature_type, rate, size = ticks
    count = len(oracle.cmcs_ticks(feature_type, frame_cnt, rate, size))
    x = np.random.default_rng(count).random(count)
    ours = cmcs.interpolate(x, feature_type, frame_cnt, rate, size, kind)
    assert ours.dtype == np.float64
    assert_allclose(ours, oracle.cmcs_interpolate(x, feature_type, frame_cnt, rate, size, kind), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"`x` must have shape"):
        cmcs.interpolate(x[:-1], feature_type, frame_cnt, rate, size, kind)


def test_interpolate_what_is_too_short():
    assert cmcs.interpolate([], "i3d", 10, 16, 16).tolist() == []
    assert cmcs.interpolate([0.5], "i3d", 20, 16, 16).tolist() == [0.5]
    with pytest.raises(ValueError, match="`snippet_size` must be"):
        cmcs.interpolate([0.5], "i3d", 20, 16)
    with pytest.raises(ValueError, match="`feature_type`"):
        cmcs.interpolate([0.5], "flow", 20, 16, 16)


@pytest.mark.parametrize("thrh", [("mean", 1.0), ("mean", 1e-7), ("max", 0.5)])
@pytest.mark.parametrize(
    "proc", [("dilation", 1), ("dilation", 2), ("dilation", 3), ("dilation", 20), ("median", 1), ("median", 5)]
)
def test_detect_with_thresholding(thrh, proc):
    rng = np.random.default_rng(0)
    for length in (1, 2, 5, 80):
        metric = rng.integers(0, 5, (length, 1)) / 4 * (rng.random((length, 1)) < 0.4)
        before = metric.copy()
        ours = cmcs.detect_with_thresholding(metric, *thrh, *proc)
        assert ours.dtype == np.bool_
        assert_array_equal(ours, oracle.cmcs_mask(metric, *thrh, *proc))
        assert_array_equal(metric, before)
    assert cmcs.detect_with_thresholding(np.zeros((0, 1)), *thrh, *proc).shape == (0, 1)


def test_refusals_of_the_mask():
    for options in (("min", 1.0, "dilation", 3), ("max", 1.0, "erosion", 3), ("max", 1.0, "median", 4)):
        with pytest.raises(ValueError, match=r"`thrh_type`|`proc_type`|`proc_value` must be odd"):
            cmcs.detect_with_thresholding(np.ones((5, 1)), *options)


@pytest.mark.parametrize("weights", [(1, -1), (0.5, -0.25)])
def test_mask_to_detections(weights):
    """Runs at both ends, runs so near the start that the left margin's slice turns, and one that fills the video."""
    rng = np.random.default_rng(0)
    turned = 0
    for length in (1, 2, 9, 60):
        for share in (0.3, 0.8, 1.0):
            for _ in range(10):
                mask, metric = rng.random((length, 1)) < share, rng.random((length, 1))
                ours = cmcs.mask_to_detections(mask, metric, *weights)
                expected = oracle.cmcs_detections(mask, metric, *weights)
                assert [row[:3] for row in ours] == [row[:3] for row in expected]
                assert_allclose([row[3] for row in ours], [row[3] for row in expected], rtol=0, atol=1e-12)
                turned += sum(0 < s < 0.25 * (e - s) - 1 for s, e, _, _ in expected)
    assert turned > 0
    assert cmcs.mask_to_detections(np.zeros((4, 1), bool), np.ones((4, 1)), *weights) == []
    assert cmcs.mask_to_detections(np.zeros((0, 1), bool), np.ones((0, 1)), *weights) == []


HOW = {
    "global_score_thrh": 0.2,
    "metric_type": "score",
    "thrh_type": "mean",
    "thrh_value": 1.0,
    "interpolate_type": "linear",
    "proc_type": "dilation",
    "proc_value": 20,
    "sample_offset": 8,
    "weight_inner": 1.0,
    "weight_outter": -1.0,
    "weight_global": 0.25,
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"metric_type": "multiply"},
        {"metric_type": "att-filtering", "att_filtering_value": 0.5},
        {"thrh_type": "max", "thrh_value": 0.3},
        {"interpolate_type": "nearest"},
        {"proc_type": "median", "proc_value": 7},
        {"sample_offset": -20},
        {"weight_inner": 0.5},
        {"weight_outter": 0.0},
        {"weight_global": 1.0},
        {"global_score_thrh": 0.3},
    ],
)
def test_whole_videos_of_cmcs(change):
    rng = np.random.default_rng(0)
    how, length = {**HOW, **change}, 30
    scores, weight = camera(rng, length, 4), rng.random((length, 1))
    totals = np.array([1.5, 1.8, 0.1, 1.6])  # softmax 0.27, 0.37, 0.07, 0.30: the last is background
    given = scores, weight, totals
    frames = 16 * length + 5
    ours = cmcs.detect(
        *given,
        duration=18.9,
        fps=25,
        frame_cnt=frames,
        action_class_num=3,
        feature_type="i3d",
        sample_rate=16,
        base_snippet_size=16,
        **how,
    )
    expected = oracle.cmcs(*given, 18.9, 25, frames, 3, ("i3d", 16, 16), how)
    assert [row[2] for row in ours] == [row[2] for row in expected]
    assert_allclose(np.array(ours, float).reshape(-1, 4), np.array(expected, float).reshape(-1, 4), rtol=0, atol=1e-9)
    assert len(ours) > 1
    assert {row[2] for row in ours} == ({1} if "global_score_thrh" in change else {0, 1})


def test_constant_and_empty_videos_of_cmcs():
    common = {
        "duration": 9.0,
        "fps": 25,
        "frame_cnt": 160,
        "action_class_num": 1,
        "feature_type": "i3d",
        "sample_rate": 16,
        "base_snippet_size": 16,
    }
    assert cmcs.detect(np.zeros((10, 2)), None, [3.0, 0.0], **common, **HOW) == []
    assert cmcs.detect(np.zeros((0, 2)), None, [3.0, 0.0], **{**common, "frame_cnt": 3}, **HOW) == []
    with pytest.raises(ValueError, match="`weight` is needed"):
        cmcs.detect(np.zeros((10, 2)), None, [3.0, 0.0], **common, **{**HOW, "metric_type": "multiply"})
    with pytest.raises(ValueError, match="`att_filtering_value` must be"):
        cmcs.detect(
            np.zeros((10, 2)), np.ones((10, 1)), [3.0, 0.0], **common, **{**HOW, "metric_type": "att-filtering"}
        )
