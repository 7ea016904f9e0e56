"""Drop-ins for ActionFormer and OpenTAD: published results, the literal oracle, types, edges, evaluators."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

torch = pytest.importorskip("torch")

from tal_postproc.compat import actionformer, opentad  # noqa: E402

from .oracles import compat_supervised as oracle  # noqa: E402
from .strategies import segment_sets  # noqa: E402
from .test_suppression import published  # noqa: E402

POSITIVE = st.integers(1, 8).map(lambda k: k / 8)
SEGS = [[0.0, 10.0], [1.0, 10.0], [2.0, 10.0], [20.0, 30.0]]
SCORES = [0.7, 0.9, 0.8, 0.5]
LABELS = [0, 1, 0, 1]


def tensors(segments, scores, labels=None, dtype=torch.float32):
    rows = (
        torch.tensor(np.asarray(segments, float).reshape(-1, 2)).to(dtype),
        torch.tensor(np.asarray(scores)).to(dtype),
    )
    return rows if labels is None else (*rows, torch.tensor(np.asarray(labels, np.int64)))


def given_tensors():
    return tensors(SEGS, SCORES, LABELS)


def check_rows(found, expected, segs):
    """(segs, scores, labels) are the oracle's rows, of the dtype of the input, and share no memory with it."""
    table = np.array(expected, float).reshape(-1, 4)
    assert [one.dtype for one in found] == [segs.dtype, segs.dtype, torch.int64]
    assert found[0].shape == (len(table), 2)
    assert_allclose(found[0].numpy(), table[:, :2], rtol=1e-6, atol=1e-6)
    assert_allclose(found[1].numpy(), table[:, 2], rtol=1e-6, atol=1e-7)
    assert_array_equal(found[2].numpy(), table[:, 3])
    assert found[0].data_ptr() != segs.data_ptr() or not len(segs)


# ------------------------------------------------------------------------------------------------ published results


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_published_nms(golden, threshold):
    for _, segments, scores, _, results, ordered in published(golden("nms"), f"af_nms_{threshold}"):
        for module in (actionformer, opentad):
            found = module.nms_1d_cpu.nms(torch.tensor(segments), torch.tensor(scores), iou_threshold=threshold)
            assert found.dtype == torch.int64
            mine, theirs = found.numpy(), results["idx"]
            assert_array_equal(*((mine, theirs) if ordered else (np.sort(mine), np.sort(theirs))))


@pytest.mark.parametrize(
    ("method", "threshold", "sigma", "min_score"),
    [(0, 0.5, 0.5, 0.001), (1, 0.3, 0.5, 0.01), (1, 0.5, 0.5, 0.001)]
    + [(2, 0.1, s, m) for s in (0.3, 0.5, 0.75, 0.9) for m in (0.001, 0.01)],
)
def test_published_softnms(golden, method, threshold, sigma, min_score):
    key = f"af_soft_m{method}_t{threshold}_s{sigma}_min{min_score}"
    for _, segments, scores, _, results, ordered in published(golden("nms"), key):
        for module in (actionformer, opentad):
            dets = torch.full((len(scores), 3), -7.0)
            more = {"t1": 0.0, "t2": 0.0} if module is opentad else {}
            options = {"iou_threshold": threshold, "sigma": sigma, "min_score": min_score, "method": method, **more}
            found = module.nms_1d_cpu.softnms(torch.tensor(segments), torch.tensor(scores), dets, **options).numpy()
            assert (dets[len(found) :] == -7).all()
            assert_array_equal(dets[: len(found), :2], segments[found])
            mine, theirs = (slice(None),) * 2 if ordered else (np.argsort(found), np.argsort(results["idx"]))
            assert_array_equal(found[mine], results["idx"][theirs])
            assert_allclose(dets[: len(found), 2].numpy()[mine], results["score"][theirs], rtol=0, atol=1e-6)


PUBLISHED = {
    "af_batched_multiclass_soft": (0.1, 0.001, 200, True, True, 0.5, 0.7),
    "af_batched_multiclass_hard": (0.5, 0.01, 1000, False, True, 0.5, 0.7),
    "af_batched_agnostic_soft_vote0.9": (0.1, 0.001, 100, True, False, 0.75, 0.9),
    "af_batched_agnostic_hard_vote0.7": (0.5, 0.01, 100, False, False, 0.5, 0.7),
    "af_batched_agnostic_soft_novote": (0.1, 0.01, 2000, True, False, 0.9, 0.0),
    "ot_multiclass_soft": (0.1, 0.001, 200, True, True, 0.5, 0.7),
    "ot_agnostic_soft_vote0.9": (0.1, 0.001, 100, True, False, 0.75, 0.9),
    "ot_agnostic_hard_vote0.7": (0.5, 0.01, 100, False, False, 0.5, 0.7),
    "ot_agnostic_soft_vote0.95_bmn": (0.0, 0.01, 100, True, False, 0.5, 0.95),
    "ot_agnostic_linear": (0.5, 0.01, 100, True, False, 0.5, 0.0, 1),
    "ot_method3_t0.5_0.4": (0.0, 0.001, 100, True, False, 0.5, 0.0, 3, 0.5, 0.4),
}


@pytest.mark.parametrize("key", PUBLISHED)
def test_published_batched_nms(golden, key):
    module = actionformer if key.startswith("af") else opentad
    for _, segments, scores, labels, results, _ in published(golden("nms"), key):
        given = torch.tensor(segments), torch.tensor(scores), torch.tensor(labels)
        segs, new_scores, cls_idxs = module.batched_nms(*given, *PUBLISHED[key])
        assert_array_equal(cls_idxs, results["label"])
        assert_allclose(new_scores, results["score"], rtol=0, atol=1e-6)
        assert_allclose(segs, np.stack((results["start"], results["end"]), 1), rtol=1e-6, atol=1e-6)


# ------------------------------------------------------------------------------------------------------- the oracle


@given(segment_sets(scores=POSITIVE), st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0]))
def test_nms_equals_oracle(rows, threshold):
    segs, scores = tensors(*rows[:2], dtype=torch.float64)
    found = actionformer.nms(segs, scores, threshold)
    assert found.tolist() == oracle.nms_1d(rows[0].tolist(), rows[1].tolist(), threshold)


@given(
    segment_sets(scores=POSITIVE),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.25, 0.5]),
    st.sampled_from([0.3, 0.9]),
    st.sampled_from([0.0, 0.3]),
)
def test_softnms_equals_oracle(rows, method, threshold, sigma, min_score):
    given = tensors(*rows[:2], dtype=torch.float64)
    dets = torch.zeros(len(rows[1]), 3, dtype=torch.float64)
    options = threshold, sigma, min_score, method
    expected = oracle.softnms_1d(rows[0].tolist(), rows[1].tolist(), *options, 0.5, 0.01)
    found = opentad.softnms(*given, dets, *options, 0.5, 0.01)
    assert found.tolist() == expected[0]
    assert_allclose(dets[: len(found), 2], expected[1], rtol=1e-12)
    if method < 3:
        assert actionformer.softnms(*given, dets, *options).tolist() == expected[0]


@given(
    segment_sets(groups=3, scores=POSITIVE),
    st.sampled_from([0.0, 0.25, 0.5]),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([-1, 0, 2, 100]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.3, 0.9]),
    st.sampled_from([0.0, 0.4, 0.9]),
    st.integers(0, 3),
)
def test_batched_nms_equals_oracle(rows, threshold, min_score, most, use_soft, multiclass, sigma, voting, method):
    segs, scores, labels = tensors(*rows)
    before = [one.clone() for one in (segs, scores, labels)]
    plain = [column.tolist() for column in rows]
    options = threshold, min_score, most, use_soft, multiclass, sigma, voting
    if method == 2:
        check_rows(actionformer.batched_nms(segs, scores, labels, *options), oracle.batched_nms(*plain, *options), segs)
    more = method, 0.5, 0.01
    expected = oracle.batched_nms(*plain, *options, *more, times_iou=False)
    check_rows(opentad.batched_nms(segs, scores, labels, *options, *more), expected, segs)
    assert all(torch.equal(one, other) for one, other in zip((segs, scores, labels), before))


@given(segment_sets(scores=POSITIVE), segment_sets(), st.sampled_from([0.25, 0.5, 1.0]))
def test_seg_voting_equals_oracle(rows, kept, threshold):
    (segs, scores), nms_segs = tensors(*rows[:2]), torch.tensor(kept[0]).float()
    for module in (actionformer, opentad):
        expected = oracle.voting(kept[0].tolist(), *(c.tolist() for c in rows[:2]), threshold, module is actionformer)
        found = module.seg_voting(nms_segs, segs, scores, threshold, 99.0)
        assert found.dtype == torch.float32
        assert_allclose(found, np.array(expected).reshape(-1, 2), rtol=1e-6, atol=1e-6)


def test_voting_equals_the_dense_tensors():
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 100, 300)
    segs = torch.tensor(np.column_stack((start, start + rng.uniform(1, 20, 300)))).float()
    scores = torch.tensor(rng.uniform(0.01, 1, 300)).float()
    dense = oracle.seg_voting_dense(segs[:50], segs, scores, 0.6)
    assert_allclose(actionformer.seg_voting(segs[:50], segs, scores, 0.6), dense, rtol=1e-5)


# ---------------------------------------------------------------------------------------------- options, types, edges


@pytest.mark.parametrize(
    ("options", "labels", "scores"),
    [
        ({}, [1, 0, 1, 0], [0.9, 0.8, 0.5, 0.7 * np.exp(-(0.8**2) / 0.5)]),
        ({"sigma": 0.1}, [1, 0, 1], [0.9, 0.8, 0.5]),  # 0.7 falls below 0.01
        ({"multiclass": False, "voting_thresh": 0.0, "max_seg_num": 2}, [1, 1], [0.9, 0.5]),
        ({"use_soft_nms": False}, [1, 0, 1], [0.9, 0.8, 0.5]),
        ({"use_soft_nms": False, "iou_threshold": 0.85}, [1, 0, 0, 1], [0.9, 0.8, 0.7, 0.5]),
        ({"use_soft_nms": False, "min_score": 0.5}, [1, 0], [0.9, 0.8]),
        ({"max_seg_num": 0}, [], []),
        ({"max_seg_num": -1, "use_soft_nms": False}, [1, 0], [0.9, 0.8]),
    ],
)
def test_every_option_of_batched_nms_counts(options, labels, scores):
    given = {"iou_threshold": 0.3, "min_score": 0.01, "max_seg_num": 200, **options}
    _, found, cls_idxs = actionformer.batched_nms(*given_tensors(), **given)
    assert cls_idxs.tolist() == labels
    assert_allclose(found, scores, rtol=1e-5)


def test_defaults_are_those_of_the_codebases():
    segs, scores, labels = given_tensors()
    one = actionformer.batched_nms(segs, scores, labels, 0.1, 0.001, 200)
    other = actionformer.batched_nms(segs, scores, labels, 0.1, 0.001, 200, True, True, 0.5, 0.75)
    assert all(map(torch.equal, one, other))
    one = opentad.batched_nms(segs, scores, labels)
    other = opentad.batched_nms(segs, scores, labels, 0.0, 0.0, 100, True, True, 0.5, 0.0, 2, 0, 0)
    assert all(map(torch.equal, one, other))


def test_the_operations_cut_and_filter():
    segs, scores, labels = given_tensors()
    found = actionformer.NMSop.apply(segs, scores, labels, 0.5, 0.6, 0)
    assert found[1].tolist() == pytest.approx([0.9])
    assert len(actionformer.NMSop.apply(segs, scores, labels, 0.5, 0.0, -1)[0]) == 2
    assert len(opentad.NMSop.apply(segs, scores, labels, 0.95, 0.0, 3)[0]) == 3
    rows = actionformer.SoftNMSop.apply(segs, scores, labels, 0.1, 0.5, 0.001, 2, 3)
    assert len(rows[0]) == 3
    assert rows[2].tolist() == [1, 1, 0]
    gated = opentad.SoftNMSop.apply(segs, scores, labels, 0.1, 0.5, 0.001, 3, -1, 0.95, 0.0)
    assert gated[1].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.5])
    assert len(opentad.SoftNMSop.apply(segs, scores, labels, 0.5, 0.5, 0.0, 0, 3, 0, 0)[0]) == 3  # one has score 0


def test_the_first_pick_stays_and_linear_decay_may_begin_at_once():
    segs, scores = tensors([[0, 10], [0, 10], [9.5, 30]], [0.3, 0.2, 0.25], dtype=torch.float64)
    dets = torch.zeros(3, 3, dtype=torch.float64)
    for method in (0, 1, 2):
        assert actionformer.softnms(segs, scores, dets, 0.5, 0.5, 0.9, method).tolist() == [0]
        labels = torch.tensor([0, 0, 1])
        found = opentad.batched_nms(segs, scores, labels, 0.5, 0.9, method=method)
        assert found[2].tolist() == [0, 1]  # of every class
    assert opentad.softnms(segs, scores, dets, 0.0, 0.5, 0.1, 3, 0.5, 0.0).tolist() == [0, 2]
    assert opentad.softnms(segs, scores, dets, 0.0, 0.5, 0.1, 3, 0.0, 0.5).tolist() == [
        0,
        2,
        1,
    ]  # 0.5 * 10 is never met
    assert actionformer.softnms(segs, scores, dets, 0.0, 0.5, 0.01, 1).tolist() == [0, 2]
    assert dets[1, 2].item() == pytest.approx(0.25 * (1 - 0.5 / 30), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_dtypes(dtype):
    given = tensors(SEGS, SCORES, LABELS, dtype)
    found = actionformer.batched_nms(*given, 0.5, 0.0, 9, multiclass=False)
    assert [one.dtype for one in found] == [dtype, dtype, torch.int64]
    found = opentad.batched_nms(*given, 0.5, 0.0, 9, multiclass=False, voting_thresh=0.7)
    assert [one.dtype for one in found] == [torch.float32, torch.float32, torch.int64]


@pytest.mark.parametrize("use_soft", [True, False])
@pytest.mark.parametrize("multiclass", [True, False])
def test_empty_and_nothing_left(use_soft, multiclass):
    for module in (actionformer, opentad):
        empty = torch.zeros(0, 2), torch.zeros(0), torch.zeros(0, dtype=torch.int32)
        found = module.batched_nms(*empty, 0.1, 0.01, 10, use_soft, multiclass, 0.5, 0.7)
        assert [tuple(one.shape) for one in found] == [(0, 2), (0,), (0,)]
        assert [one.dtype for one in found] == [torch.float32, torch.float32, torch.int32]
        low = module.batched_nms(*given_tensors(), 0.1, 0.95, 10, use_soft, multiclass, 0.5, 0.7)
        assert len(low[0]) == ((2 if multiclass else 1) if use_soft else 0)  # soft-NMS never drops its first pick


def test_gradients_and_bad_arguments():
    segs, scores, labels = given_tensors()
    found = actionformer.batched_nms(segs.requires_grad_(), scores, labels, 0.1, 0.001, 9, multiclass=False)
    assert not found[0].requires_grad
    with pytest.raises(ValueError, match="`method` must be one of 0, 1, 2, got 3"):
        actionformer.softnms(segs, scores, torch.zeros(4, 3), 0.1, 0.5, 0.0, 3)
    with pytest.raises(ValueError, match=r"`dets` must have shape \(4, 3\), got shape \(1, 3\)"):
        actionformer.softnms(segs, scores, torch.zeros(1, 3), 0.1, 0.5, 0.0, 2)
    with pytest.raises(TypeError, match="must be a tensor, got a NumPy array"):
        actionformer.nms(np.array(SEGS), np.array(SCORES), 0.5)


def test_both_extensions_in_one_process():
    """What the compiled modules could not: the same name, two signatures."""
    segs, scores, _ = given_tensors()
    one = actionformer.nms_1d_cpu.softnms(segs, scores, torch.zeros(4, 3), 0.1, 0.5, 0.001, 2)
    other = opentad.nms_1d_cpu.softnms(segs, scores, torch.zeros(4, 3), 0.1, 0.5, 0.001, 2, 0, 0)
    assert torch.equal(one, other)
    with pytest.raises(TypeError, match="t1"):
        opentad.nms_1d_cpu.softnms(segs, scores, torch.zeros(4, 3), 0.1, 0.5, 0.001, 2)


def test_importing_the_evaluators_does_not_import_torch():
    code = "import sys; from tal_postproc.compat import actionformer, opentad; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"fps": -1, "resize_length": 128, "duration": 64.0}, [[0, 4], [32, 64]]),
        ({"fps": 4.0, "snippet_stride": 2, "offset_frames": 4, "duration": 30.0}, [[0, 5], [30, 30]]),
        (
            {"fps": 4.0, "snippet_stride": 2, "offset_frames": 4, "duration": 99.0, "window_start_frame": 8},
            [[1, 7], [35, 99]],
        ),
    ],
)
def test_convert_to_seconds(meta, expected):
    segments = torch.tensor([[-4.0, 8.0], [64.0, 200.0]])
    for rows in (segments, segments.numpy()):
        found = opentad.convert_to_seconds(rows, meta)
        assert type(found) is type(rows)
        assert_array_equal(np.asarray(found), expected)
    assert segments[0, 0] == -4
    assert opentad.convert_to_seconds(torch.zeros(0, 2), meta).shape == (0, 2)


# ------------------------------------------------------------------------------------------------- external scores


def results_of(rng, videos=3, n=7):
    return {
        "video-id": [f"v{i}" for i in rng.integers(0, videos, n)],
        **{name: rng.uniform(0, 9, n) for name in ("t-start", "t-end")},
        "label": rng.integers(0, 5, n),
        "score": rng.permutation(n) / n,
    }


@pytest.mark.parametrize("options", [{}, {"num_pred": 2}, {"topk": 3}, {"topk": 0}])
def test_postprocess_results_equals_oracle(rng, options, tmp_path):
    results = results_of(rng, n=40)
    cls_scores = {f"v{v}": (rng.permutation(5) / 5).tolist() for v in range(3)}
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"results": cls_scores}))
    expected = oracle.postprocess_results(results, cls_scores, **options)
    for source in (str(path), cls_scores):
        found = actionformer.postprocess_results(results, source, **options)
        assert found["video-id"] == expected["video-id"]
        for name in ("t-start", "t-end", "label", "score"):
            assert_allclose(found[name], expected[name], rtol=1e-12)
        assert found["label"].dtype == np.int64


def test_postprocess_results_of_nothing_and_of_pickles(rng):
    empty = {name: [] for name in ("video-id", "t-start", "t-end", "label", "score")}
    found = actionformer.postprocess_results(empty, {})
    assert found["video-id"] == []
    assert found["score"].shape == (0,)
    with pytest.raises(ValueError, match=r"`cls_score_file` must be a JSON file or a mapping, got 'scores.pkl'"):
        actionformer.postprocess_results(results_of(rng), "scores.pkl")
    with pytest.raises(TypeError, match="`results` must be a dictionary of arrays, got str"):
        actionformer.postprocess_results("results.pkl", {})
    with pytest.raises(KeyError):
        actionformer.postprocess_results(results_of(rng), {})


# ----------------------------------------------------------------------------------------------------- evaluators


def write_truth(path, arrays, extra=False, subset="Test"):
    database = {name: {"subset": subset, "annotations": []} for name in arrays["video_names"].tolist()}
    rows = [
        (int(v), int(k), *map(float, t))
        for v, k, t in zip(arrays["gt_video"], arrays["gt_class"], arrays["gt_seconds"])
    ]
    rows += [(int(v), int(k), s, e) for v, k, s, e in arrays["gtdup_extra"].tolist()] if extra else []
    for video, label, start, end in rows:
        event = {"segment": [start, end], "label_id": label, "label": arrays["classes"].tolist()[label]}
        database[arrays["video_names"].tolist()[video]]["annotations"].append(event)
    path.write_text(json.dumps({"database": database}))
    return path


def detections_of(arrays, name):
    rows = arrays[f"{name}__detections"]
    return {
        "video-id": [arrays["video_names"].tolist()[int(v)] for v in rows[:, 0]],
        "t-start": rows[:, 2] * 0.64,
        "t-end": rows[:, 3] * 0.64,
        "label": rows[:, 1].astype(np.int64),
        "score": rows[:, 4],
    }


@pytest.mark.parametrize("name", ["rskp", "rskp_filtered", "jitter"])
def test_published_actionformer_map(golden, name, tmp_path, capsys):
    pandas = pytest.importorskip("pandas")
    arrays = golden("evaluation")
    thresholds = arrays["iou_a_linspace"]
    found = detections_of(arrays, name)
    for extra, key in ((False, name), (True, f"gtdup_{name}")):
        if f"{key}__actionformer_a_ap" not in arrays:
            continue
        evaluator = actionformer.ANETdetection(write_truth(tmp_path / "gt.json", arrays, extra), "test", thresholds)
        frame = pandas.DataFrame(found)
        before = frame.copy()
        path = tmp_path / "found.json"
        events = {v: [] for v in found["video-id"]}
        for v, s, e, k, p in zip(*(list(found[c]) for c in ("video-id", "t-start", "t-end", "label", "score"))):
            events[v].append({"segment": [s, e], "label_id": int(k), "scores": p})
        path.write_text(json.dumps({"database": events}))
        tensors_too = {c: torch.tensor(np.asarray(v)) if c != "video-id" else v for c, v in found.items()}
        for preds in (found, frame, str(path), tensors_too):
            mAP, average, recall = evaluator.evaluate(preds, verbose=False)
            assert_allclose(evaluator.ap, arrays[f"{key}__actionformer_a_ap"], rtol=0, atol=1e-9)
            assert_allclose(evaluator.recall, arrays[f"{key}__actionformer_a_recall"], rtol=0, atol=1e-9)
            assert_allclose(mAP, evaluator.ap.mean(1))
            assert_allclose(recall, evaluator.recall.mean(2))
            assert average == pytest.approx(mAP.mean())
        pandas.testing.assert_frame_equal(frame, before)
        count = arrays["gtdup_actionformer_n_gt" if extra else "actionformer_n_gt"][0]
        assert len(evaluator.ground_truth) == count
    assert capsys.readouterr().out == ""
    evaluator.evaluate(found)
    assert "Recall@5x" in capsys.readouterr().out


def truth_file(tmp_path, events, subset="test"):
    path = tmp_path / "small.json"
    path.write_text(json.dumps({"database": {v: {"subset": subset, "annotations": e} for v, e in events.items()}}))
    return path


def test_actionformer_labels_as_published(tmp_path):
    pytest.importorskip("pandas")
    events = {
        "a": [{"segment": [0, 10], "label_id": 3, "pair": [2, 5]}, {"segment": [20, 30], "label_id": 8, "pair": [0, 1]}]
    }
    path = truth_file(tmp_path, events)
    evaluator = actionformer.ANETdetection(path, "test", [0.5], top_k=(1,), dataset_name="small")
    assert evaluator.activity_index == {3: 0, 8: 1}
    found = {"video-id": ["a"], "t-start": [0.0], "t-end": [10.0], "score": [0.9]}
    assert evaluator.evaluate({**found, "label": [3]}, verbose=False)[1] == 0.5
    assert evaluator.evaluate({**found, "label": [0]}, verbose=False)[1] == 0.5  # 0 is no class, but a column
    assert evaluator.evaluate({**found, "label": [8]}, verbose=False)[1] == 0.0
    assert evaluator.recall.shape == (1, 1, 2)
    paired = actionformer.ANETdetection(path, label="pair", label_offset=10)
    assert list(paired.activity_index) == [1 + 1 + 10 + 0, 1 + 5 + 10 + 2]
    none = actionformer.ANETdetection(path, "train", [0.5, 0.7])
    mAP, average, recall = none.evaluate({name: [] for name in (*found, "label")}, verbose=False)
    assert (mAP.tolist(), average, recall.shape) == ([0, 0], 0.0, (2, 2))


@pytest.mark.parametrize("name", ["rskp_filtered", "jitter"])
def test_opentad_map(golden, name, tmp_path, capsys):
    """Its values are those of ActionFormer where no union is tiny; its classes come in another order."""
    pytest.importorskip("pandas")
    arrays = golden("evaluation")
    classes, thresholds = arrays["classes"].tolist(), arrays["iou_a_linspace"]
    found = detections_of(arrays, name)
    results = {v: [] for v in found["video-id"]}
    for v, s, e, k, p in zip(*(list(found[c]) for c in ("video-id", "t-start", "t-end", "label", "score"))):
        results[v].append({"segment": [s, e], "label": classes[k], "score": p})
    results["nowhere"] = [{"segment": [0, 1], "label": "unheard of", "score": 1.0}]
    truth = write_truth(tmp_path / "gt.json", arrays, subset="validation")
    path = tmp_path / "found.json"
    path.write_text(json.dumps({"results": results}))
    for source in (path, {"results": results}):
        evaluator = opentad.mAP(truth, source, "validation", thresholds, top_k=(1, 5))
        metrics = evaluator.evaluate()
        order = [evaluator.activity_index[label] for label in classes]
        assert_allclose(evaluator.ap[:, order], arrays[f"{name}__actionformer_a_ap"], rtol=0, atol=1e-9)
        assert_allclose(evaluator.recall[..., order], arrays[f"{name}__actionformer_a_recall"], rtol=0, atol=1e-9)
    assert metrics["average_mAP"] == pytest.approx(evaluator.ap.mean())
    assert metrics[f"mAP@{thresholds[1]}"] == evaluator.mAPs[1]
    assert metrics[f"recall@{thresholds[1]}@5"] == evaluator.mRecall[1, 1]
    assert evaluator.prediction["label"].max() == len(classes)
    lines = []
    evaluator.logging(type("Logger", (), {"info": staticmethod(lines.append)}))
    assert capsys.readouterr().out == ""
    evaluator.logging()
    assert capsys.readouterr().out.splitlines() == lines


def test_opentad_options_count(tmp_path):
    pytest.importorskip("pandas")
    truth = truth_file(
        tmp_path, {v: [{"segment": [0, 10], "label": "x"}, {"segment": [4, 4], "label": "y"}] for v in "ab"}
    )
    found = {"results": {v: [{"segment": [0, 10], "label": "x", "score": 1.0}] for v in "ab"}}
    blocked = tmp_path / "blocked.json"
    blocked.write_text('["b"]')
    evaluator = opentad.mAP(truth, found, "test", [0.5], blocked_videos=blocked)
    assert (len(evaluator.ground_truth), len(evaluator.prediction)) == (1, 1)
    assert evaluator.evaluate() == {"average_mAP": 1.0, "mAP@0.5": 1.0}
    assert evaluator.activity_index == {"x": 0}  # the empty instance of y is gone
    assert opentad.mAP(truth, found, "train", [0.5]).evaluate() == {"average_mAP": 0.0, "mAP@0.5": 0.0}
    with pytest.raises(OSError, match="must have the field 'results'"):
        opentad.mAP(truth, {"other": 1}, "test", [0.5])
    with pytest.raises(OSError, match="got nothing"):
        opentad.mAP(truth, None, "test", [0.5])
