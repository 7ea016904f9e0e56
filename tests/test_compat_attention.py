"""HAM-Net, CO2-Net, DELU and P-MIL under their own names: against published output, and against literal loops."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc.compat import co2net, delu, hamnet, pmil

from .oracles import compat_attention as oracle

pd = pytest.importorskip("pandas")

TEN, TWENTY = np.linspace(0.1, 0.9, 10), np.linspace(0.1, 0.9, 20)
NUMBERS = ["t-start", "t-end", "label", "score"]


def maps(rng, length, classes=3, lead=0.0):
    """(1, T, C + 1) logits with `lead` on the background, and (1, T, 1) attention, from bumps and noise."""
    steps = rng.normal(size=(length, classes + 2)).cumsum(axis=0)
    steps = (steps - steps.min(axis=0, initial=0)) / (np.ptp(steps, axis=0) if length > 1 else 4.0)
    steps += rng.normal(scale=0.03, size=steps.shape)
    logits = 4 * steps[:, :-1] - 1
    logits[:, -1] += lead
    return logits[None], np.clip(steps[:, -1:], 0, 1)[None]


def rows_of(frame):
    return frame[["label", "score", "t-start", "t-end"]].to_numpy()


# ------------------------------------------------------------------------------------------------- published output
@pytest.mark.parametrize(("codebase", "function"), [("co2net", co2net), ("delu", delu)])
def test_published_detections(golden, codebase, function):
    inputs, arrays = golden("tcams"), golden(codebase)
    spans = [
        [str(inputs["names"][v]), "", str(s), str(e)]
        for v in range(len(inputs["names"]))
        for s, e in inputs["amb_segments"][inputs["amb_offsets"][v] : inputs["amb_offsets"][v + 1]]
    ]
    filtered = 0
    for v, name in enumerate(inputs["names"]):
        here = slice(*inputs["offsets"][v : v + 2])
        outputs = {"cas": inputs["logits"][here][None], "attn": inputs["attention"][here][None, :, None]}
        for key, ambilist in (("detections", spans), ("prefilter", [])):
            offsets = arrays["det_offsets" if key == "detections" else "prefilter_offsets"]
            expected = arrays[key][offsets[v] : offsets[v + 1]]
            found = function.multiple_threshold_hamnet(str(name).encode(), outputs, ambilist=ambilist)
            assert_allclose(rows_of(found), expected[:, 1:].reshape(-1, 4), rtol=0, atol=1e-9, err_msg=str(name))
            filtered += len(expected) if key == "prefilter" else -len(expected)
    assert filtered > 50


def test_published_detections_of_hamnet(golden):
    inputs, arrays = golden("tcams"), golden("hamnet")
    names = {c: str(c) for c in range(20)}
    for v in range(len(inputs["names"])):
        here = slice(*inputs["offsets"][v : v + 2])
        found = hamnet.eval_one_video(
            inputs["logits"][here][None], inputs["attention"][here][None, :, None], inputs["v_len"][v], names
        )
        expected = arrays["detections"][arrays["det_offsets"][v] : arrays["det_offsets"][v + 1], 1:].reshape(-1, 4)
        rows = np.array([[int(one["label"]), one["score"], *one["segment"]] for one in found]).reshape(-1, 4)
        assert_allclose(rows, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("co2_soft_gaussian_s0.3", {}),
        ("co2_soft_linear_t0.7", {"method": "linear"}),
        ("co2_soft_hard_t0.5", {"method": "hard", "iou_thr": 0.5}),
    ],
)
def test_published_soft_nms(golden, key, options):
    arrays = golden("nms")
    sets, results = arrays["set_offsets"], arrays[f"{key}__offsets"]
    checked = 0
    for i in np.flatnonzero(arrays[f"{key}__used"]):
        here, there = slice(*sets[i : i + 2]), slice(*results[i : i + 2])
        scores, segments = arrays["scores"][here], arrays["segments"][here]
        found = np.array(co2net.soft_nms(np.column_stack([np.zeros(len(scores)), scores, segments]), **options))
        expected = np.column_stack([arrays[f"{key}__{name}"][there] for name in ("score", "start", "end")])
        assert_allclose(found[:, 1], expected[:, 0], rtol=0, atol=1e-12)
        positive = found[:, 1] > 0  # rows of score 0 come in the order of rows here, in none there
        assert_array_equal(found[positive, 2:], expected[positive, 1:])
        rest, other = found[~positive, 2:], expected[~positive, 1:]
        assert_array_equal(rest[np.lexsort(rest.T)], other[np.lexsort(other.T)])
        checked += 1
    assert checked > 10


# ------------------------------------------------------------------------------------------------- literal loops
@pytest.mark.parametrize("method", ["gaussian", "linear", "hard"])
def test_soft_nms_equals_its_loop(rng, method):
    """Negative scores rise and may overtake, equal rows come in their order, thresholds are met exactly."""
    for n in (1, 2, 7, 40, 200):
        dets = np.column_stack([np.full(n, 3), rng.normal(size=n), rng.integers(0, 60, n), np.zeros(n)])
        dets[:, 3] = dets[:, 2] + rng.integers(0, 20, n)
        dets = np.vstack([dets, dets[: n // 2]])
        before = dets.copy()
        for options in ({}, {"sigma": 0.7, "iou_thr": 0.5}, {"iou_thr": 1 / 3}):
            expected = oracle.soft_nms(dets, method=method, **options)
            assert_allclose(oracle.soft_nms_arrays(dets, method=method, **options), expected, rtol=0, atol=1e-12)
            assert_allclose(co2net.soft_nms(dets, method=method, **options), expected, rtol=0, atol=1e-12)
            swapped = dets[:, [2, 3, 0, 1]]
            expected = oracle.soft_nms(swapped, method=method, columns=(0, 1, 3), **options)
            assert_allclose(pmil.soft_nms(swapped, method=method, **options), expected, rtol=0, atol=1e-12)
        assert_array_equal(dets, before)


def test_soft_nms_takes_lists_and_nothing():
    kept = co2net.soft_nms([[3, 0.9, 0, 9], [3, 0.8, 0, 9]], 0.7, "gaussian", 0.3)
    assert type(kept) is list
    assert [type(x) for x in kept[0]] == [float] * 4
    assert co2net.soft_nms([]) == co2net.soft_nms(np.zeros((0, 4))) == pmil.soft_nms([]) == []
    with pytest.raises(ValueError, match="`dets` needs start <= end"):
        co2net.soft_nms([[0, 0.5, 9, 3]])
    with pytest.raises(ValueError, match="`sigma` must be above 0"):
        co2net.soft_nms([[0, 0.5, 0, 3]], sigma=0)


@pytest.mark.parametrize("options", [{}, {"lambda_": 0.5}, {"gamma": 0.7}, {"loss_type": "inner"}])
def test_proposals_equal_their_loop(rng, options):
    for length in (1, 2, 3, 30, 80):
        wtcam = rng.normal(size=(length, 4, 1))
        final, c_pred = rng.random(6), np.array([1, 5, 0, 2])
        found = [np.where(wtcam[:, c, 0] > level) for c, level in enumerate((-0.2, 0.4, -9, 9))]
        found[2] = (np.zeros(1, np.int64),)  # a run of step 0 alone
        before = wtcam.copy()
        mine = co2net.get_proposal_oic_2(found, wtcam, final, c_pred, 1, length, 25, length, **options)
        expected = oracle.proposals(found, wtcam, final, c_pred, **options)
        assert len(mine) == len(expected)
        for rows, theirs in zip(mine, expected):
            assert_allclose(np.array(rows, float), np.array(theirs, float), rtol=0, atol=1e-12)
            assert all(isinstance(row[1], np.float64) and isinstance(row[2], np.int64) for row in rows)
        assert_array_equal(wtcam, before)
        seconds = hamnet.get_proposal_oic(found, wtcam, final, c_pred, 2, 57, 25, length, **options)
        t_factor = 16 * 57 / (2 * length * 25)
        for rows, theirs in zip(seconds, oracle.proposals(found, wtcam, final, c_pred, t_factor, **options)):
            assert_allclose(np.array(rows, float), np.array(theirs, float), rtol=0, atol=1e-12)
    assert co2net.get_proposal_oic_2([], np.zeros((3, 0, 1)), [], [], 1, 3, 25, 3) == []


@pytest.mark.parametrize(
    ("name", "thresholds"),
    [("co2net", TEN), ("delu", TWENTY), ("modified", TEN), ("hamnet", TEN), ("hamnet_options", [0.3, 0.6])],
)
def test_videos_equal_their_loops(rng, name, thresholds):
    rows = 0
    for length in (0, 1, 2, 3, 25, 60, 61):
        for lead in (0.0, 6.0):  # with and without a class above the threshold
            cas, attention = maps(rng, length, lead=lead)
            before = cas.copy(), attention.copy()
            outputs = {"cas": cas, "attn": attention}
            if name == "modified":
                labels = np.array([1, 0, 1], np.float32)
                frame, correct, searched = delu.multiple_threshold_hamnet_modified(b"v", outputs, labels, gamma_oic=0.4)
                found = rows_of(frame)
                expected = oracle.chain(cas[0], attention[0, :, 0], thresholds, class_threshold=0.01, gamma=0.4)
                scores = oracle.video_scores(cas[0] * attention[0], 10) if length else [0.0] * 3
                one_hot = np.array([score >= 0.01 for score in scores], np.float32)
                if length and not one_hot.any():
                    one_hot[np.argmax(scores)] = 1
                if length:
                    assert_array_equal(searched, one_hot)
                    assert_array_equal(correct, one_hot * labels)
                assert searched.dtype == correct.dtype == np.float32
            elif name.startswith("hamnet"):
                options = {"rat": 4, "class_thresh": 0.3, "act_thresh": thresholds, "gamma_oic": 0.4, "feature_fps": 10}
                options = options if name == "hamnet_options" else {}
                found = hamnet.eval_one_video(cas, attention, 57, dict(enumerate("abc")), **options)
                found = [["abc".index(one["label"]), one["score"], *one["segment"]] for one in found]
                expected = oracle.chain(
                    cas[0],
                    attention[0, :, 0],
                    thresholds,
                    class_threshold=options.get("class_thresh", 0.2),
                    fallback=False,
                    ratio=options.get("rat", 10),
                    gamma=options.get("gamma_oic", 0.2),
                    t_factor=16 * 57 / (max(length, 1) * options.get("feature_fps", 25)),
                )
            else:
                function = co2net if name == "co2net" else delu
                found = rows_of(function.multiple_threshold_hamnet("v", outputs, gamma_oic=0.4, ambilist=[]))
                expected = oracle.chain(cas[0], attention[0, :, 0], thresholds, gamma=0.4)
            assert_allclose(np.reshape(found, (-1, 4)), np.reshape(expected, (-1, 4)), rtol=0, atol=1e-9)
            assert_array_equal(cas, before[0])
            assert_array_equal(attention, before[1])
            rows += len(expected)
    assert rows > 15


def test_the_scale_of_hamnet_makes_finer_steps(rng):
    cas, attention = maps(rng, 30)
    fine = hamnet.eval_one_video(cas, attention, 30, dict(enumerate("abc")), scale=4)
    starts = np.array([one["segment"][0] for one in fine]) / 0.64
    assert_allclose(4 * starts, np.rint(4 * starts), atol=1e-9)
    assert (np.abs(starts - np.rint(starts)) > 0.1).any()


def test_tensors_come_as_they_are(rng):
    torch = pytest.importorskip("torch")
    cas, attention = maps(rng, 40)
    arrays = co2net.multiple_threshold_hamnet(b"v", {"cas": cas, "attn": attention}, ambilist=[])
    tensors = {"cas": torch.tensor(cas, requires_grad=True), "attn": torch.tensor(attention)}
    pd.testing.assert_frame_equal(co2net.multiple_threshold_hamnet(b"v", tensors, ambilist=[]), arrays)
    halves = {name: value.detach().bfloat16() for name, value in tensors.items()}
    assert len(co2net.multiple_threshold_hamnet(b"v", halves, ambilist=[]))


def test_the_table_has_the_published_columns(rng):
    for attention in (np.full((1, 9, 1), 0.5), np.zeros((1, 9, 1))):  # some rows, and none
        found = co2net.multiple_threshold_hamnet(b"name", {"cas": np.ones((1, 9, 3)), "attn": attention})
        assert list(found.columns) == ["video-id", *NUMBERS]
        assert (found.dtypes[NUMBERS] == np.float64).all()
    with pytest.raises(ValueError, match=r"got cas of shape \(9, 3\)"):
        co2net.multiple_threshold_hamnet(b"name", {"cas": np.ones((9, 3)), "attn": attention})


def test_ambiguous_rows_go(rng, tmp_path, monkeypatch):
    rows = np.column_stack([rng.integers(0, 60, 50), np.zeros(50), rng.random((50, 2))])
    rows[:, 1] = rows[:, 0] + rng.integers(0, 9, 50) + 0.5
    lines = [["a", "", "3.0", "9.0"], ["b", "", "0.0", "99.0"], ["a", "", "20.1", "22.3"]]
    expected = oracle.unambiguous(rows, "a", lines)
    assert 0 < len(expected) < 50
    assert_array_equal(co2net.filter_segments(rows, "a", lines), expected)
    listed = tmp_path / "Thumos14reduced-Annotations" / "Ambiguous_test.txt"
    listed.parent.mkdir()
    listed.write_text("".join(f"{v}  {s} {e}\n" for v, _, s, e in lines))
    monkeypatch.chdir(tmp_path)
    assert_array_equal(co2net.filter_segments(rows, "a"), expected)  # the relative path of the original
    monkeypatch.chdir(listed.parent)
    assert_array_equal(co2net.filter_segments(rows, "a"), rows)  # and no list there
    assert co2net.filter_segments([], "a", lines).shape == (0, 4)


# ------------------------------------------------------------------------------------------------- P-MIL
def pmil_outputs(rng, count, dtype=np.float64):
    width = {"cas": 4, "attn": 1, "iou": 1}
    return {f"prop_{s}_{k}": rng.normal(size=(1, count, width[k])).astype(dtype) for s in "vf" for k in width}


@pytest.mark.parametrize("threshold", [0.2, 0.9])
def test_pmil_equals_its_loop(rng, threshold):
    for count in (1, 2, 30, 120):
        outputs = pmil_outputs(rng, count)
        starts = rng.integers(0, 90, count)
        proposals = np.column_stack([starts, starts + rng.integers(1, 20, count)]).astype(float)
        lines = [["v", "", "10.0", "14.0"]]
        dataset = SimpleNamespace(videonames=[b"u", b"v"], proposals=[None, proposals], ambilist=lines)
        args = SimpleNamespace(threshold_cls=threshold, gamma_vid=0.3)
        frame, pred, scores = pmil.get_prediction(b"v", outputs, dataset, args)
        rows, classes, video = oracle.pmil(outputs, proposals, threshold, 0.3)
        rows = np.reshape(oracle.unambiguous(rows, "v", lines), (-1, 4))
        assert_allclose(frame[NUMBERS].to_numpy(), rows, rtol=0, atol=1e-9)
        assert_array_equal(pred, classes)
        assert_allclose(scores, video, atol=1e-12)
        assert (frame["video-id"] == "v").all()


def test_pmil_keeps_the_dtype_and_takes_no_proposals(rng):
    torch = pytest.importorskip("torch")
    dataset = SimpleNamespace(videonames=[b"v"], proposals=[np.zeros((0, 2))], ambilist=[])
    args = SimpleNamespace(threshold_cls=0.2, gamma_vid=0.3)
    empty = {name: torch.tensor(value) for name, value in pmil_outputs(rng, 0, np.float32).items()}
    frame, pred, scores = pmil.get_prediction(b"v", empty, dataset, args)
    assert len(frame) == 0
    assert pred.tolist() == [0]
    assert (scores.dtype, scores.shape) == (np.float32, (3,))


def test_pseudo_instances_equal_their_loop(rng):
    torch = pytest.importorskip("torch")
    for count in (1, 2, 40, 150):
        starts = rng.integers(0, 300, count)
        proposals = np.column_stack([starts, starts + rng.integers(0, 12, count)]).astype(np.float32)
        attention = rng.choice([0.7, 0.8, 0.9, 1.0], count).astype(np.float32)  # ties, and the threshold exactly
        for gamma in (0.5, 0.8):
            expected = oracle.pseudo_instances(proposals.tolist(), attention.astype(float).tolist(), gamma)
            found = pmil.pseudo_instances(torch.tensor(proposals), torch.tensor(attention), gamma)
            assert_array_equal(found.numpy(), proposals[expected])
            assert oracle.pseudo_instances_arrays(proposals.astype(float), attention.astype(float), gamma) == expected
            assert found.dtype == torch.float32
    assert pmil.pseudo_instances(proposals[:0], attention[:0], 0.8).shape == (0, 2)


def test_completeness_loss_equals_its_loop(rng):
    torch = pytest.importorskip("torch")
    starts = rng.integers(0, 60, (2, 20))
    proposals = np.stack([starts, starts + rng.integers(1, 12, (2, 20))], axis=2).astype(float)
    predicted, attention = rng.random((2, 20, 1)), rng.random((2, 20, 1))
    mask = torch.ones(2, 20, 1, dtype=torch.bool)
    mask[1, 15:] = False
    leaf = torch.tensor(predicted, requires_grad=True)
    listed = [torch.tensor(proposals[0]), torch.tensor(proposals[1, :15])]
    loss = pmil.prop_comp_loss(None, leaf, torch.tensor(attention), mask, listed, 0.8)
    expected = 0.0
    for b, n in enumerate((20, 15)):
        chosen = oracle.pseudo_instances(proposals[b, :n].tolist(), attention[b, :n, 0].tolist(), 0.8)
        expected += oracle.completeness(predicted[b, :n, 0], proposals[b, :n], chosen) / 2
    assert_allclose(float(loss.detach()), expected, rtol=1e-12)
    loss.backward()
    assert (leaf.grad[1, 15:] == 0).all()
    assert (leaf.grad[0] != 0).any()
