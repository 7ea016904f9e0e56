"""What the files of `compat` do with rows and tensors that their originals cannot take."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from tal_postproc.compat import asl, asmloc, basnet, cmcs, co2net, gaufuse, mmaction, pmil, rskp, stpn, um

ROWS = {
    "RSKP": (lambda rows: rskp.NonMaximumSuppression(rows, 0.5), "segs", 4),
    "GauFuse": (lambda rows: gaufuse.NonMaximumSuppression(rows, 0.5, 9)[0], "segs", 5),
    "GauFuse fusion": (lambda rows: gaufuse.prediction_fuse_module(rows, 0.5)[0], "segs", 4),
    "GauFuse system": (lambda rows: gaufuse.compute_score_matrix(rows, 9)[1].tolist(), "segment", 3),
    "BaS-Net": (lambda rows: basnet.nms(rows, 0.5), "proposals", 4),
    "ASL": (lambda rows: asl.basnet_nms(rows, 0.5, soft_nms=True), "proposals", 4),
    "STPN": (lambda rows: stpn.nms_prop(rows).tolist(), "arr", 4),
    "CO2-Net": (co2net.soft_nms, "dets", 4),
    "P-MIL": (pmil.soft_nms, "dets", 4),
    "mmaction2": (lambda rows: mmaction.soft_nms(rows, 0.4, 0.5, 0.9, 9).tolist(), "proposals", 3),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows(name):
    call, argument, columns = ROWS[name]
    for nothing in ([], np.zeros(0), np.zeros((0, columns)), np.zeros((0, columns), np.float32)):
        assert call(nothing) == []
    for rows in (np.zeros(columns), np.zeros((2, columns - 1)), np.zeros((2, 1, columns))):
        with pytest.raises(ValueError, match=rf"`{argument}` must have rows \[.+\], got shape \({rows.shape[0]},"):
            call(rows)
    with pytest.raises(TypeError, match=f"`{argument}` must hold real numbers"):
        call([["a"] * columns])


def test_no_rows_have_a_dtype():
    assert mmaction.soft_nms(np.zeros((0, 3), np.float32), 0.4, 0.5, 0.9, 9).dtype == np.float32


@pytest.mark.parametrize("thresh", [np.nan, None, "0.5"])
def test_a_threshold_that_is_none(thresh):
    with pytest.raises((TypeError, ValueError), match="`thresh` must be"):
        basnet.nms([[0, 0.5, 0, 9]], thresh)


def test_a_mean_of_nan_reaches_no_other_run():
    maps = np.array([[np.nan], [0.1], [0.9], [0.9]])
    for call, name in (
        (lambda: asmloc.get_temp_proposal([(np.array([2, 3]),)], maps, [0], [0.5], 1.0), "int_temp_scores"),
        (lambda: cmcs.mask_to_detections(maps > 0.5, maps, 1, -1), "metric"),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be finite; row 0 is nan"):
            call()


def test_tensors_of_a_kind_that_numpy_does_not_have():
    torch = pytest.importorskip("torch")
    config = SimpleNamespace(
        act_thresh_cas=[0.1], act_thresh_magnitudes=[0.5], class_thresh=0.2, scale=4, feature_fps=25
    )
    cas = torch.zeros(1, 8, 2)
    cas[0, 2:5, 1] = 1
    given = torch.tensor([[0.0, 1.0]]), cas, torch.ones(1, 8)
    assert um.detect(*(one.bfloat16() for one in given), 8, config) == um.detect(*given, 8, config)


def test_segments_of_whole_numbers_and_of_none():
    torch = pytest.importorskip("torch")
    from tal_postproc.compat import actionformer, afsd, opentad

    segs = torch.tensor([[0, 10], [0, 10], [1, 9], [20, 30]])
    scores, labels = torch.tensor([0.9, 0.7, 0.8, 0.5]), torch.tensor([1, 1, 0, 0])
    for options in ((True, True), (False, True), (True, False, 0.5, 0.7)):
        found = actionformer.batched_nms(segs, scores, labels, 0.5, 0.001, 9, *options)
        wanted = actionformer.batched_nms(segs.float(), scores, labels, 0.5, 0.001, 9, *options)
        assert all(torch.equal(one.float(), other.float()) for one, other in zip(found, wanted))
        assert found[1].dtype == torch.float32
    assert torch.equal(
        actionformer.SoftNMSop.apply(segs, scores, labels, 0.5, 0.5, 0.001, 2, 9)[1],
        actionformer.SoftNMSop.apply(segs.float(), scores, labels, 0.5, 0.5, 0.001, 2, 9)[1],
    )

    none = torch.zeros(0), scores[:0], labels[:0]
    for one in (
        actionformer.batched_nms(*none, 0.5, 0.001, 9),
        actionformer.batched_nms(*none, 0.5, 0.001, 9, False),
        actionformer.NMSop.apply(*none, 0.5, 0.001, 9),
        actionformer.SoftNMSop.apply(*none, 0.5, 0.5, 0.001, 2, 9),
        opentad.batched_nms(*none),
    ):
        assert [tuple(part.shape) for part in one] == [(0, 2), (0,), (0,)]
    assert len(actionformer.softnms(*none[:2], torch.zeros(0, 3), 0.5, 0.5, 0.001, 2)) == 0

    assert actionformer.nms(segs.float(), scores, 1.5).tolist() == [0, 2, 1, 3]  # no overlap reaches it
    with pytest.raises(ValueError, match="`segments` must be finite"):  # every overlap reaches 0
        opentad.batched_nms(segs * torch.nan, scores, labels, use_soft_nms=False)
    rows = torch.column_stack((segs, scores))
    assert torch.equal(afsd.soft_nms(rows.bfloat16())[0], afsd.soft_nms(rows.bfloat16().float())[0])


def test_mmaction_keeps_near_duplicates_and_rounds_overlaps(tmp_path):
    events = [{"label": "Diving", "segment": [0, 10 + k / 4096]} for k in range(2)]  # ActionFormer's takes them for one
    found = [{"label": "Diving", "segment": [0, 7], "score": 0.9}]
    for name, data in (("truth", {"v_a": {"annotations": events}}), ("found", {"results": {"a": found}})):
        (tmp_path / name).write_text(json.dumps(data))
    mAP, _ = mmaction.ActivityNetLocalization(tmp_path / "truth", tmp_path / "found", [0.5, 0.7]).evaluate()
    assert mAP.tolist() == [0.5, 0.0]  # 0.7 is less in float32
