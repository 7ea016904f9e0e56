"""Drop-ins for mmaction2, torchvision, AFSD, BSN and ensemble-boxes: published results, literal oracles, edges."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc.compat import bsn, ensemble_boxes, mmaction

from .oracles import compat_supervised as oracle
from .strategies import segment_sets
from .test_suppression import published

POSITIVE = st.integers(1, 8).map(lambda k: k / 8)
INFO = {"duration_frame": 3011, "duration_second": 120.7}


def triples(segments, scores):
    return np.column_stack((np.asarray(segments, float).reshape(-1, 2), np.asarray(scores, float)))


def unit(segments):
    """Half units of 0 to 18 as fractions, some of them outside [0, 1]."""
    return segments / 12.0


# --------------------------------------------------------------------------------------------------------- mmaction2


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("mm_bmn_a0.4_l0.5_h0.9_k100", (0.4, 0.5, 0.9, 100)),
        ("mm_bsn_a0.75_l0.65_h0.9_k100", (0.75, 0.65, 0.9, 100)),
        ("mm_tcanet_a0.4_l0_h0_k100", (0.4, 0.0, 0.0, 100)),
    ],
)
def test_published_mmaction_soft_nms(golden, key, options):
    for _, segments, scores, _, results, _ in published(golden("nms"), key):
        found = mmaction.soft_nms(triples(segments, scores), *options)
        assert found.dtype == np.float64
        assert_allclose(found.T, [results[c] for c in ("start", "end", "score")], rtol=0, atol=1e-12)
        assert len(found) == min(101, len(segments))


def test_published_mmaction_post_processing(golden):
    for _, segments, scores, _, results, _ in published(golden("nms"), "mm_post_bmn"):
        found = mmaction.post_processing(triples(segments, scores), INFO, 0.4, 0.5, 0.9, 100, 16)
        rows = np.array([(*one["segment"], one["score"]) for one in found])
        assert_allclose(rows.T, [results[c] for c in ("start", "end", "score")], rtol=0, atol=1e-9)
        assert {type(value) for one in found for value in (one["score"], *one["segment"])} == {float}


@given(
    segment_sets(scores=POSITIVE),
    st.sampled_from([0.4, 0.75]),
    st.sampled_from([(0.5, 0.9), (0.0, 0.0), (0.65, 0.9)]),
    st.sampled_from([-1, 0, 2, 100]),
)
def test_mmaction_equals_oracle(rows, alpha, gate, top_k):
    proposals = np.insert(triples(unit(rows[0]), rows[1]), 2, 7.0, axis=1)  # a column that is dropped
    before = proposals.copy()
    options = alpha, *gate, top_k
    expected = oracle.mmaction_soft_nms(proposals, *options)
    assert_allclose(mmaction.soft_nms(proposals, *options), expected, rtol=1e-12)
    if top_k >= 0:
        found = mmaction.post_processing(proposals, INFO, *options, 16)
        expected = oracle.mmaction_post_processing(proposals, INFO, *options, 16)
        assert [one.keys() for one in found] == [one.keys() for one in expected]
        for mine, theirs in zip(found, expected):
            assert_allclose([mine["score"], *mine["segment"]], [theirs["score"], *theirs["segment"]], rtol=1e-12)
    assert_array_equal(proposals, before)


def test_mmaction_types_and_edges():
    rows = np.array([[0, 0.3, 0.9], [0, 0.3, 0.8], [0.5, 0.9, 0.4]], np.float32)
    assert mmaction.soft_nms(rows, 0.4, 0.5, 0.9, 5).dtype == np.float32
    assert mmaction.soft_nms(np.array([[0, 1, 3]]), 0.4, 0.5, 0.9, 5).tolist() == [[0.0, 1.0, 3.0]]
    assert mmaction.soft_nms(np.zeros((0, 3)), 0.4, 0.5, 0.9, 5).shape == (0, 3)
    assert mmaction.soft_nms([], 0.4, 0.5, 0.9, 5).shape == (0, 3)
    assert mmaction.post_processing(np.zeros((0, 3)), INFO, 0.4, 0.5, 0.9, 5, 16) == []
    json.dumps(mmaction.post_processing(rows, INFO, 0.4, 0.5, 0.9, 5, 16))
    with pytest.raises(ValueError, match=r"`proposals` must have rows \[start, end, score\], got shape \(2, 2\)"):
        mmaction.soft_nms(np.zeros((2, 2)), 0.4, 0.5, 0.9, 5)


def test_temporal_iou_and_iop():
    start, end = np.array([0.0, 5.0, 7.0]), np.array([10.0, 15.0, 7.0])
    assert_allclose(mmaction.temporal_iou(start, end, 0.0, 10.0), [1, 1 / 3, 0])
    assert_allclose(mmaction.temporal_iou(0.0, 10.0, start, end), [1, 1 / 3, 0])
    assert_allclose(mmaction.temporal_iop(start, end, 0.0, 20.0), [1, 1, 0])
    assert_allclose(mmaction.temporal_iop(0.0, 20.0, start, end), [0.5, 0.5, 0])
    assert mmaction.temporal_iop(0.0, 4.0, 2.0, 9.0) == 0.5
    with pytest.raises(ValueError, match=r"one side must be a single segment, got .* \(3,\) and \(3,\)"):
        mmaction.temporal_iou(start, end, start, end)


def evaluation_files(folder, arrays, name):
    classes, videos = arrays["classes"].tolist(), arrays["video_names"].tolist()
    truth = {f"v_{video}": {"annotations": []} for video in videos}
    for v, k, segment in zip(arrays["gt_video"], arrays["gt_class"], arrays["gt_seconds"].tolist()):
        truth[f"v_{videos[v]}"]["annotations"].append({"label": classes[k], "segment": segment})
    results = {video: [] for video in videos}
    for v, k, s, e, p in arrays[f"{name}__detections"].tolist():
        results[videos[int(v)]].append({"label": classes[int(k)], "segment": [s * 0.64, e * 0.64], "score": p})
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps({"results": results}))
    return folder / "truth.json", folder / "found.json"


@pytest.mark.parametrize("name", ["rskp", "rskp_filtered", "jitter"])
def test_published_mmaction_map(golden, name, tmp_path, capsys):
    arrays = golden("evaluation")
    truth, found = evaluation_files(tmp_path, arrays, name)
    for ious in "ab":
        thresholds = arrays[f"iou_{ious}_linspace"]
        evaluator = mmaction.ActivityNetLocalization(truth, found, thresholds, verbose=ious == "b")
        mAP, average = evaluator.evaluate()
        order = [evaluator.activity_index[label] for label in arrays["classes"].tolist()]
        assert_allclose(evaluator.ap[:, order], arrays[f"{name}__mmaction_{ious}_ap"], rtol=0, atol=1e-6)
        assert_allclose(mAP, arrays[f"{name}__mmaction_{ious}_map"], rtol=0, atol=1e-6)
        assert average == pytest.approx(mAP.mean())
        assert bool(capsys.readouterr().out) == (ious == "b")
    assert_array_equal(mmaction.ActivityNetLocalization(truth, found).tiou_thresholds, np.linspace(0.5, 0.95, 10))


def test_mmaction_localization_refuses(tmp_path):
    truth, found = tmp_path / "truth.json", tmp_path / "found.json"
    truth.write_text(json.dumps({"v_a": {"annotations": [{"label": "x", "segment": [0, 1]}]}}))
    found.write_text(json.dumps({"results": {"a": [{"label": "y", "segment": [0, 1], "score": 1.0}]}}))
    with pytest.raises(KeyError, match="y"):
        mmaction.ActivityNetLocalization(truth, found)
    with pytest.raises(OSError, match="`prediction_filename` must be a JSON file"):
        mmaction.ActivityNetLocalization(truth)
    for empty in ({}, {"a": []}):
        found.write_text(json.dumps({"results": empty}))
        assert mmaction.ActivityNetLocalization(truth, found, [0.5]).evaluate() == (np.zeros(1), 0.0)


@pytest.mark.parametrize(("key", "most"), [("ar_all", None), ("ar_50", 50)])
@pytest.mark.parametrize("name", ["rskp", "jitter"])
def test_published_average_recall(golden, name, key, most):
    arrays = golden("evaluation")
    videos, rows = arrays["video_names"].tolist(), arrays[f"{name}__detections"]
    truth = {video: arrays["gt_seconds"][arrays["gt_video"] == v] for v, video in enumerate(videos)}
    found = {video: rows[rows[:, 0] == v][:, 2:] * [0.64, 0.64, 1] for v, video in enumerate(videos)}
    recall, average, per_video, auc = mmaction.average_recall_at_avg_proposals(truth, found, len(rows), most)
    assert_allclose(recall, arrays[f"{name}__{key}_recall"], rtol=0, atol=1e-9)
    assert_allclose(average, arrays[f"{name}__{key}_avg_recall"], rtol=0, atol=1e-9)
    assert_allclose(per_video, arrays[f"{name}__{key}_proposals_per_video"], rtol=0, atol=1e-9)
    assert auc == pytest.approx(arrays[f"{name}__{key}_auc"][0])


def test_average_recall_edges():
    truth, found = {"a": [[0, 10]], "b": []}, {"a": [[0, 10, 0.9, 77.0]], "c": [[0, 1, 0.5, 77.0]]}
    recall, average, per_video, auc = mmaction.average_recall_at_avg_proposals(truth, found, 2, None, [0.5])
    assert recall.shape == (1, 100)
    assert per_video[-1] == 1
    assert average[-1] == 1
    assert auc > 0
    nothing = mmaction.average_recall_at_avg_proposals(truth, {}, 0)
    assert (nothing[0].shape, nothing[3]) == ((10, 100), 0.0)
    with pytest.raises(ValueError, match="`total_num_proposals` must be 2, the rows of `proposals`, got 3"):
        mmaction.average_recall_at_avg_proposals(truth, found, 3)


# --------------------------------------------------------------------------------------------------------------- BSN


@given(segment_sets(scores=POSITIVE))
def test_bsn_equals_oracle(rows):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(triples(unit(rows[0]), rows[1]), columns=["xmin", "xmax", "score"])
    before = frame.copy()
    found = bsn.Soft_NMS(frame)
    pandas.testing.assert_frame_equal(found, oracle.bsn_soft_nms(frame), rtol=1e-12)
    pandas.testing.assert_frame_equal(frame, before)


def test_bsn_stops_at_101_and_leaves_the_last():
    pandas = pytest.importorskip("pandas")
    start = np.arange(150.0)
    for n, rows in ((0, 0), (1, 0), (2, 1), (101, 100), (150, 101)):
        frame = pandas.DataFrame({"xmin": start[:n], "xmax": start[:n] + 0.5, "score": np.arange(n) + 1.0, "other": 0})
        found = bsn.Soft_NMS(frame)
        assert list(found.columns) == ["score", "xmin", "xmax"]
        assert (len(found), set(map(str, found.dtypes))) == (rows, {"float64"})


# -------------------------------------------------------------------------------------------------------------- AFSD


def afsd_module():
    pytest.importorskip("torch")
    from tal_postproc.compat import afsd

    return afsd


@given(
    segment_sets(scores=POSITIVE),
    st.sampled_from([0.25, 0.5, 0.9]),
    st.sampled_from([0, 1, 3, 1000]),
    st.sampled_from([0.001, 0.3, 0.6]),
)
def test_afsd_equals_oracle(rows, overlap, top_k, threshold):
    afsd = afsd_module()
    import torch

    table = triples(*rows[:2])
    segments = torch.tensor(table)
    found, count = afsd.softnms_v2(segments, overlap, top_k, threshold)
    expected = oracle.afsd_softnms_v2(table.tolist(), overlap, top_k, threshold)
    assert_allclose(found, expected, rtol=1e-12)
    assert (count.dtype, count.shape, int(count)) == (torch.int64, (), len(expected))

    keep, number = afsd.nms(segments, overlap, top_k)
    expected = oracle.afsd_nms(table.tolist(), overlap, top_k)
    assert keep.tolist() == expected + [0] * (len(table) - len(expected))
    assert (keep.dtype, number) == (torch.int64, len(expected))

    found, number = afsd.soft_nms(segments, overlap, 0.5, top_k)
    expected = oracle.afsd_soft_nms(table.tolist(), overlap, 0.5, top_k)
    assert_allclose(found, expected, rtol=1e-9, atol=1e-300)
    assert (found.dtype, number) == (torch.float64, len(expected))
    assert_array_equal(segments, table)


def test_afsd_types_and_edges():
    afsd = afsd_module()
    import torch

    rows = torch.tensor([[0.0, 10.0, 0.8], [0.0, 10.0, 0.9], [20.0, 30.0, 0.5]])
    found, count = afsd.softnms_v2(rows)
    assert (found.dtype, int(count)) == (torch.float32, 2)
    assert found[:, 2].tolist() == pytest.approx([0.9, 0.5])
    for n in (0, 1):
        found, count = afsd.softnms_v2(rows[:n])
        assert (tuple(found.shape), int(count)) == ((0, 3), 0)
        found, number = afsd.soft_nms(rows[:n])
        assert (tuple(found.shape), number) == ((0, 3), 0)
    keep, number = afsd.nms(rows[:0])
    assert (tuple(keep.shape), number) == ((0,), 0)
    assert afsd.nms(rows, 0.0)[1] == 1  # every pair reaches it
    assert not afsd.softnms_v2(rows.requires_grad_())[0].requires_grad


def test_afsd_many_rows(rng):
    """The last pick is lost only where nothing was left beside it."""
    afsd = afsd_module()
    import torch

    start = rng.uniform(0, 60, 200)
    table = triples(np.column_stack((start, start + rng.uniform(1, 20, 200))), rng.permutation(200) / 200)
    for threshold in (1e-9, 0.001, 0.1, 0.5, 0.9):
        found, _ = afsd.softnms_v2(torch.tensor(table), 0.5, 1000, threshold)
        assert_allclose(found, oracle.afsd_softnms_v2(table.tolist(), 0.5, 1000, threshold), rtol=1e-9)


# ------------------------------------------------------------------------------------------------------- torchvision


@given(segment_sets(groups=3), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_torchvision_nms(rows, threshold):
    torch = pytest.importorskip("torch")
    from tal_postproc.compat import torchvision

    from .oracles import segments as core_oracle

    segments, scores, idxs = (torch.tensor(column) for column in rows)
    found = torchvision.nms(segments.float(), scores.float(), threshold)
    assert found.dtype == torch.int64
    assert_array_equal(found, core_oracle.nms(rows[0], rows[1], threshold))
    found = torchvision.batched_nms(segments, scores, idxs, iou_threshold=threshold)
    assert_array_equal(found, core_oracle.nms(rows[0], rows[1], threshold, idxs=rows[2]))


def test_torchvision_equals_the_package():
    torch, ops = pytest.importorskip("torch"), pytest.importorskip("torchvision.ops")
    from tal_postproc.compat import torchvision

    generator = torch.Generator().manual_seed(0)
    start = torch.rand(200, generator=generator) * 50
    segments = torch.stack((start, start + torch.rand(200, generator=generator) * 10), 1)
    scores, idxs = torch.rand(200, generator=generator), torch.randint(0, 3, (200,), generator=generator)
    boxes = torch.stack((segments[:, 0], torch.zeros(200), segments[:, 1], torch.ones(200)), 1)
    assert torch.equal(torchvision.nms(segments, scores, 0.5), ops.nms(boxes, scores, 0.5))
    found = torchvision.batched_nms(segments, scores, idxs, 0.5)
    assert torch.equal(found, ops.batched_nms(boxes, scores, idxs, 0.5))


def test_torchvision_refuses_boxes():
    torch = pytest.importorskip("torch")
    from tal_postproc.compat import torchvision

    with pytest.raises(ValueError, match=r"must have shape \(N, 2\), got boxes of shape \(3, 4\)"):
        torchvision.nms(torch.zeros(3, 4), torch.ones(3), 0.5)
    with pytest.raises(ValueError, match="use torchvision for boxes"):
        torchvision.batched_nms(torch.zeros(3, 4), torch.ones(3), torch.zeros(3), 0.5)
    assert torchvision.nms(torch.zeros(0, 2), torch.zeros(0), 0.5).shape == (0,)


# ---------------------------------------------------------------------------------------------------- ensemble-boxes

CONFIDENCES = ("avg", "max", "box_and_model_avg", "absent_model_aware_avg")


@pytest.mark.parametrize(
    ("key", "options"),
    [
        *((f"wbf_{c}", {"conf_type": c}) for c in CONFIDENCES),
        ("wbf_avg_overflow", {"allows_overflow": True}),
        *(
            (
                f"wbf_{c}_w2_1_.5_t0.4_skip0.1",
                {"conf_type": c, "weights": [2, 1, 0.5], "iou_thr": 0.4, "skip_box_thr": 0.1},
            )
            for c in CONFIDENCES
        ),
    ],
)
def test_published_weighted_boxes_fusion(golden, key, options):
    arrays = golden("nms")
    where, out = arrays["set_offsets"], arrays[f"{key}__offsets"]
    for i in np.flatnonzero(arrays[f"{key}__used"] & arrays[f"{key}__stable"]):
        own, rows = slice(where[i], where[i + 1]), slice(out[i], out[i + 1])
        model = np.arange(where[i + 1] - where[i]) % 3
        lists = [[arrays[name][own][model == m] for m in range(3)] for name in ("segments", "scores", "labels")]
        boxes, scores, labels = ensemble_boxes.weighted_boxes_fusion_1d(*lists, **options)
        assert [one.dtype for one in (boxes, scores, labels)] == [np.float64] * 3
        assert_array_equal(labels, arrays[f"{key}__label"][rows])
        assert_allclose(scores, arrays[f"{key}__score"][rows], rtol=0, atol=3e-7)
        expected = np.column_stack((arrays[f"{key}__start"][rows], arrays[f"{key}__end"][rows]))
        assert_allclose(boxes, expected, rtol=0, atol=3e-7)


def lists_of(rng, models=3, n=40):
    start = rng.uniform(0, 0.9, (models, n))
    boxes = np.stack((start, start + rng.uniform(0.01, 0.3, (models, n))), axis=2)
    return boxes.tolist(), rng.uniform(0.05, 1, (models, n)).tolist(), rng.integers(-1, 2, (models, n)).tolist()


@pytest.mark.parametrize("conf_type", CONFIDENCES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"allows_overflow": True},
        {"weights": [3, 1, 2]},
        {"iou_thr": 0.3},
        {"skip_box_thr": 0.5},
        {"weights": [1, 2]},
    ],
)
def test_weighted_boxes_fusion_equals_the_package(rng, conf_type, options, capsys):
    package = pytest.importorskip("ensemble_boxes")
    lists = lists_of(rng)  # some labels are -1, some boxes reach beyond 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = package.weighted_boxes_fusion_1d(*lists, conf_type=conf_type, **options)
        found = ensemble_boxes.weighted_boxes_fusion_1d(*lists, conf_type=conf_type, **options)
    assert [one.dtype for one in found] == [one.dtype for one in expected]
    assert_allclose(found[1], expected[1], rtol=1e-6)
    assert_array_equal(found[2], expected[2])
    assert_allclose(found[0], expected[0], rtol=0, atol=3e-7)


def test_weighted_boxes_fusion_repairs_with_a_warning():
    boxes = [[[0.5, 0.2], [-0.1, 1.5], [0.3, 0.3], [0.9, 1.2]]]
    before = json.dumps(boxes)
    with pytest.warns(UserWarning, match=" segments ") as seen:
        found = ensemble_boxes.weighted_boxes_fusion_1d(boxes, [[0.9, 0.8, 0.7, 0.6]], [[0, 1, 0, 2.7]])
    assert [str(one.message) for one in seen] == [
        "1 segments end before they start: swapped",
        "2 segments reach out of [0, 1]: clipped; divide by the duration first",
        "1 segments have no length: left out",
    ]
    assert_allclose(found[0], [[0.2, 0.5], [0, 1], [0.9, 1]])
    assert found[2].tolist() == [0.0, 1.0, 2.0]
    assert json.dumps(boxes) == before
    with pytest.warns(UserWarning, match=r"`weights` must have one entry per model \(1\)"):
        ensemble_boxes.weighted_boxes_fusion_1d([[[0, 1]]], [[1.0]], [[0]], weights=[1, 2])


def test_weighted_boxes_fusion_edges():
    for lists in (([], [], []), ([[]], [[]], [[]]), ([[[0.1, 0.2]]], [[0.1]], [[0]])):
        found = ensemble_boxes.weighted_boxes_fusion_1d(*lists, skip_box_thr=0.5)
        assert [one.shape for one in found] == [(0, 2), (0,), (0,)]
        assert [one.dtype for one in found] == [np.float64] * 3
    with pytest.raises(ValueError, match="must have one entry per model, got 1, 2 and 1"):
        ensemble_boxes.weighted_boxes_fusion_1d([[]], [[], []], [[]])
    with pytest.raises(ValueError, match=r"`scores_list\[0\]` must have shape \(1,\)"):
        ensemble_boxes.weighted_boxes_fusion_1d([[[0, 1]]], [[0.5, 0.6]], [[0]])
    with pytest.raises(ValueError, match="`conf_type` must be one of"):
        ensemble_boxes.weighted_boxes_fusion_1d([[[0, 1]]], [[0.5]], [[0]], conf_type="median")
