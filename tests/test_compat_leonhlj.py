"""RSKP, FAC-Net, GauFuse and W-TALC under their own names: against their outputs and against literal transcriptions."""

from __future__ import annotations

import copy
import errno
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc.compat import facnet, gaufuse, rskp, wtalc

from .oracles import compat_leonhlj as oracle

CODEBASES = {"rskp": rskp, "facnet": facnet, "gaufuse": gaufuse}
OPTIONS = {
    "rskp": {"start_threshold": 0.001, "end_threshold": 0.04, "threshold_interval": 0.002, "class_threshold": 0.1},
    "facnet": {"start_threshold": 0.03, "end_threshold": 0.055, "threshold_interval": 0.005, "class_threshold": 0.1},
    "gaufuse": {"start_threshold": 0.001, "end_threshold": 0.04, "threshold_interval": 0.002, "class_threshold": 0.16},
}


def options(codebase, **changes):
    more = {"use_new_predictor": True, "eval_temperature": 0.2, "dist_temperature": 0.1, "frm_coef_pseudo": 0.8}
    return SimpleNamespace(**{"feature_type": "I3D", "class_num": 20, **OPTIONS[codebase], **more, **changes})


def objects(items):
    made = np.empty(len(items), dtype=object)
    made[:] = items
    return made


def write_folder(folder: Path, names, subsets, segments, labels, classes, ambiguous=None) -> Path:
    folder.mkdir(exist_ok=True)
    np.save(folder / "videoname.npy", np.array(names, "S"))
    np.save(folder / "subset.npy", np.array(subsets, "S"))
    np.save(folder / "classlist.npy", np.array(classes, "S"))
    np.save(folder / "segments.npy", objects(segments))
    np.save(folder / "labels.npy", objects(labels))
    if ambiguous is not None:
        lines = [f"{name}  {start} {end}\n" for name, start, end in ambiguous]
        (folder / "Ambiguous_test.txt").write_text("".join(lines))
    return folder


def assert_same_lists(found, expected, columns=4, atol=1e-12):
    assert isinstance(found, list)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected):
        assert isinstance(ours, np.ndarray)
        assert ours.dtype == np.float64
        assert ours.shape == (len(theirs), columns)
        assert_allclose(ours, np.reshape(theirs, (-1, columns)), rtol=0, atol=atol)


# ----------------------------------------------------------------------------------------------------- random data sets
CLASSES = ("Wave", "Dive", "Clap", "Jump")  # not in the order of the alphabet


def data_set(seed, folder, *, ambiguous=True, classes=CLASSES, float32=False):
    """Test and other videos, some without instances, and outputs of a model for the test videos.

    Values are multiples of 1/1024, so that sums are exact, scores tie, and thresholds of 1/64 are met.
    """
    rng = np.random.default_rng(seed)
    names, subsets, segments, labels, vid_preds, frm_preds, spans = [], [], [], [], [], [], []
    for v in range(9):
        names.append(f"video_test_{v:04d}")
        subsets.append("validation" if v in (1, 4) else "test")
        length = int(rng.choice([2, 3, 9, 40, 90]))
        count = 0 if v == 6 else len(classes) if v == 0 else int(rng.integers(1, 5))
        starts = rng.integers(0, max(1, length - 1), count) * 0.64
        segments.append([[float(s), float(s + rng.choice([0.2, 0.96, 3.0, 6.5]))] for s in starts])
        labels.append(list(classes) if v == 0 else rng.choice(classes, count).tolist())
        if v in (2, 3):
            spans += [(names[v], 1.3, 2.9), (names[v], 9.0, 9.1)]
        if subsets[v] == "test":
            tcam = np.repeat(rng.integers(0, 60, (length, len(classes) + 1)), rng.integers(1, 5), axis=0)[:length]
            tcam[rng.random(tcam.shape) < 0.3] = 0
            if v == 7:
                tcam[:] = 16
            frm_preds.append((tcam / 1024).astype(np.float32 if float32 else np.float64))
            vid_preds.append(rng.choice([0.05, 0.1, 0.16, 0.5, 0.9], len(classes) + 1))
    write_folder(folder, names, subsets, segments, labels, classes, spans if ambiguous else None)
    return vid_preds, frm_preds, [None] * len(frm_preds), folder


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("codebase", CODEBASES)
def test_localisation_equals_the_oracle(codebase, seed, tmp_path):
    vid_preds, frm_preds, vid_lens, folder = data_set(seed, tmp_path, ambiguous=seed != 1, float32=seed == 2)
    thresholds = [1 / 64, 3 / 64, 1 / 128, 0.0]
    before = copy.deepcopy((vid_preds, frm_preds))
    args = options(codebase, feature_type="UNT" if seed == 3 else "I3D")
    found = CODEBASES[codebase].getActLoc(vid_preds, frm_preds, vid_lens, thresholds, folder, args)
    wide = [tcam.astype(np.float64) for tcam in frm_preds]  # means of float32 are taken in float64
    expected = oracle.get_act_loc(codebase, vid_preds, wide, vid_lens, thresholds, folder, args)
    assert_same_lists(found, expected, atol=1e-9 if codebase == "gaufuse" else 1e-12)
    assert sum(map(len, found)) > 20
    for ours, theirs in zip(before, (vid_preds, frm_preds)):
        for one, other in zip(ours, theirs):
            assert_array_equal(one, other, strict=True)


def test_every_option_of_localisation_counts(tmp_path):
    given = data_set(0, tmp_path)
    changes = {
        "class_threshold": 0.5,
        "use_new_predictor": False,
        "eval_temperature": 0.01,
        "feature_type": "UNT",
        "start_threshold": 0.02,
        "end_threshold": 0.05,
        "threshold_interval": 0.03,
    }

    def located(args):
        return gaufuse.getActLoc(*given[:3], oracle.thresholds_of(args), tmp_path, args)

    plain = located(options("gaufuse"))
    for name, value in changes.items():
        args = options("gaufuse", **{name: value})
        other = located(args)
        expected = oracle.get_act_loc("gaufuse", *given[:3], oracle.thresholds_of(args), tmp_path, args)
        assert_same_lists(other, expected, atol=1e-9)
        same = [len(a) == len(b) and np.array_equal(a, b) for a, b in zip(plain, other)]
        assert not all(same), name


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("codebase", CODEBASES)
def test_maps_equal_the_oracle(codebase, seed, tmp_path):
    """Classes 0 to K - 1 in the order of the alphabet, as THUMOS14 has them."""
    *given, folder = data_set(seed, tmp_path, classes=sorted(CLASSES))
    given[0] = [np.full(5, 0.9) for _ in given[0]]  # every class has detections
    rng = np.random.default_rng(seed)
    given[1] = [tcam + 1e-4 * rng.random(tcam.shape) for tcam in given[1]]  # no ties
    args = options(codebase, feature_type="UNT" if seed == 3 else "I3D", end_threshold=0.05)
    name = "getSingleStreamDetectionMAP" if codebase == "facnet" else "getDetectionMAP"
    found, ious = getattr(CODEBASES[codebase], name)(*given, folder, args)
    expected, their_ious = oracle.get_detection_map(codebase, *given, folder, args)
    assert isinstance(found, list)
    assert all(isinstance(one, np.float64) for one in found)
    assert ious == their_ious
    assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert max(found) > 0
    detections = CODEBASES[codebase].getActLoc(*given, oracle.thresholds_of(args), folder, args)
    one = CODEBASES[codebase].getLocMAP(detections, 0.3, folder, args)
    assert_allclose(one, expected[2], rtol=0, atol=1e-9)


def test_rows_are_looked_up_by_class_id_as_published(tmp_path):
    """The list has an entry per class with instances, in the order of the alphabet, and is read by class id."""
    *given, folder = data_set(1, tmp_path)
    args = options("rskp")
    detections = rskp.getActLoc(*given, [0.005, 0.02], folder, args)
    expected = oracle.get_loc_map(detections, 0.1, folder, args)
    assert_allclose(rskp.getLocMAP(detections, 0.1, folder, args), expected, rtol=0, atol=1e-9)
    in_order = [detections[sorted(CLASSES).index(name)] for name in CLASSES]
    right = rskp.getLocMAP(in_order, 0.1, folder, args)
    assert abs(right - expected) > 1
    with pytest.raises(IndexError):
        rskp.getLocMAP(detections[:2], 0.1, folder, args)


def test_a_class_without_detections_makes_the_map_zero_as_published(tmp_path):
    *given, folder = data_set(0, tmp_path, classes=sorted(CLASSES))
    args = options("rskp", class_threshold=0.0)
    detections = rskp.getActLoc(*given, [0.005, 0.02], folder, args)
    assert rskp.getLocMAP(detections, 0.1, folder, args) > 0
    for nothing in ([], np.empty((0, 4))):
        with pytest.warns(UserWarning, match="1 of 4 classes have no detections"):
            assert rskp.getLocMAP([nothing, *detections[1:]], 0.1, folder, args) == 0
    with pytest.warns(UserWarning, match="4 of 4 classes"):
        assert rskp.getDetectionMAP(*given, folder, options("rskp", class_threshold=2.0))[0] == [0.0] * 7


def test_nothing_found_is_well_shaped(tmp_path):
    *given, folder = data_set(0, tmp_path)
    for codebase, module in CODEBASES.items():
        found = module.getActLoc(*given, [2.0], folder, options(codebase))
        assert_same_lists(found, [np.empty((0, 4))] * 4)


def test_videos_that_are_not_finite_are_named(tmp_path):
    vid_preds, frm_preds, vid_lens, folder = data_set(0, tmp_path)
    frm_preds[2][1, 1] = np.nan
    with pytest.raises(ValueError, match="video_test_0003"):
        rskp.getActLoc(vid_preds, frm_preds, vid_lens, [0.01], folder, options("rskp", class_threshold=0.0))


# ---------------------------------------------------------------------------------------------------------- suppression
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
@pytest.mark.parametrize("count", [0, 1, 2, 30, 200])
def test_suppression_equals_the_oracle(count, dtype, rng):
    starts = rng.integers(0, 60, count)
    rows = np.column_stack([np.full(count, 3), starts, starts + rng.integers(0, 30, count)]).astype(np.float64)
    rows = np.column_stack([rows, rng.integers(0, 12, count), rng.integers(-3, 40, count) / 64]).astype(dtype)
    rows.setflags(write=False)
    for threshold in (0.0, 0.25, 0.5, 1.0):
        pick = rskp.NonMaximumSuppression(rows[:, :4], threshold)
        assert isinstance(pick, list)
        assert pick == oracle.nms(rows[:, :4].astype(float), threshold)
        assert not count or isinstance(pick[0], np.int64)
        assert facnet.NonMaximumSuppression(rows[:, :4], threshold) == pick
        picked, _ = gaufuse.NonMaximumSuppression(rows, threshold, 90)
        assert picked == pick


def test_of_equal_rows_the_last_stays():
    assert rskp.NonMaximumSuppression(np.array([[0, 1, 5, 0.5], [0, 1, 5, 0.5]]), 0.5) == [1]
    assert gaufuse.prediction_fuse_module([[1, 5, 0.5, 0.5], [1, 5, 0.5, 0.5]], 0.5)[0] == [1]


def test_suppression_of_nothing():
    for nothing in ([], np.array([]), np.empty((0, 4))):
        assert rskp.NonMaximumSuppression(nothing, 0.5) == []
        assert gaufuse.NonMaximumSuppression(nothing, 0.5, 10) == ([], [])
        assert gaufuse.prediction_fuse_module(nothing, 0.5) == ([], [])


def test_published_suppression(golden):
    arrays = golden("nms")
    keys = [key.removesuffix("__idx") for key in arrays if key.startswith("ioc_nms") and key.endswith("__idx")]
    assert keys
    for key in keys:
        for i in np.flatnonzero(arrays[f"{key}__used"] & arrays[f"{key}__stable"]):
            own = slice(*arrays["set_offsets"][i : i + 2])
            rows = np.column_stack([np.zeros(own.stop - own.start), arrays["segments"][own], arrays["scores"][own]])
            theirs = arrays[f"{key}__idx"][slice(*arrays[f"{key}__offsets"][i : i + 2])]
            assert_array_equal(rskp.NonMaximumSuppression(rows, float(key.removeprefix("ioc_nms_"))), theirs)


# --------------------------------------------------------------------------------------------------------------- fusion
@pytest.mark.parametrize("temperature", [0.01, 0.1, 0.2])
def test_fusion_equals_the_oracle(temperature, rng):
    starts = rng.integers(0, 60, 80)
    scores, inner = rng.integers(0, 40, 80) / 64, rng.integers(1, 60, 80) / 64
    rows = np.column_stack([starts, starts + rng.integers(2, 30, 80), scores, inner]).astype(float)
    rows.setflags(write=False)
    pick, refined = gaufuse.prediction_fuse_module(rows, 0.25, 10.5, temperature)
    expected = oracle.fuse(rows, 0.25, temperature)
    assert pick == expected[0]
    assert isinstance(refined, list)
    assert isinstance(refined[0], list)
    assert_allclose(refined, expected[1], rtol=0, atol=1e-9)
    assert gaufuse.prediction_fuse_module(rows, 0.25, fuse_power=1, T=temperature) == (pick, refined)
    videos = np.column_stack([np.full(80, 7.0), rows])
    picked, named = gaufuse.NonMaximumSuppression(videos, 0.25, 90, temperature)
    assert picked == pick
    assert named == [[7.0, *row] for row in refined]
    assert gaufuse.NonMaximumSuppression(videos, 0.25, 90) == gaufuse.NonMaximumSuppression(videos, 0.25, 90, T=0.01)
    assert gaufuse.prediction_fuse_module(rows, 0.25) == gaufuse.prediction_fuse_module(rows, 0.25, T=0.1)


def test_the_sign_of_the_inner_mean_counts_in_the_divisor():
    rows = np.array([[0, 10, 0.5, 0.2], [1, 10, 0.4, -0.1], [2, 10, 0.3, 0.1]])
    assert_allclose(
        gaufuse.prediction_fuse_module(rows, 0.25, T=0.5)[1], oracle.fuse(rows, 0.25, 0.5)[1], rtol=1e-12, atol=0
    )


def test_fusion_where_the_original_has_no_answer():
    with np.errstate(divide="ignore", invalid="ignore"):
        assert not np.isfinite(oracle.fuse(np.array([[0, 10, 0.5, 0.0]]), 0.25, 0.1)[1]).all()
    assert gaufuse.prediction_fuse_module([[0, 10, 0.5, 0.0]], 0.25)[1] == [[0, 10, 0.5]]
    assert gaufuse.prediction_fuse_module([[0, 10, 0.5, 2.0]], 0.25, T=0.0016)[1] == [[0, 10, 0.5]]


def test_published_picks_and_fusion(golden):
    arrays = golden("gaufuse")
    for p in np.flatnonzero(~arrays["fragile"]):
        own, out = slice(*arrays["raw_offsets"][p : p + 2]), slice(*arrays["fused_offsets"][p : p + 2])
        columns = (arrays["raw_segments"][own], arrays["raw_score"][own], arrays["raw_inner"][own])
        rows = np.column_stack(columns)
        for name, temperature in (("fused_T01", 0.1), ("fused_T02", 0.2)):
            pick, refined = gaufuse.prediction_fuse_module(rows, 0.25, T=temperature)
            assert_allclose(np.reshape(refined, (-1, 3)), arrays[name][out], rtol=0, atol=1e-9)
            assert_array_equal(rows[pick], rows[arrays["pick"][out]])


# ------------------------------------------------------------------------------------------------------- whole datasets
def whole_set(golden, folder):
    """An annotation folder in which all golden videos have instances of all classes, and the inputs."""
    inputs = golden("tcams")
    names, classes = inputs["names"].tolist(), inputs["classes"].tolist()
    spans = [[[0.0, 1.0] for _ in classes] for _ in names]
    write_folder(folder, names, ["test"] * len(names), spans, [list(classes) for _ in names], classes)
    where = inputs["offsets"]
    tcams = [inputs["tcam"][start:stop] for start, stop in pairwise(where)]
    return list(inputs["video_scores"]), tcams, [np.array([length]) for length in inputs["length"]]


@pytest.mark.parametrize(
    ("codebase", "key", "fused"),
    [
        ("rskp", "detections", None),
        ("facnet", "detections", None),
        ("gaufuse", "det_fused_T02", True),
        ("gaufuse", "det_nms", False),
    ],
)
def test_published_detections(codebase, key, fused, golden, tmp_path):
    arrays, given = golden(codebase), whole_set(golden, tmp_path)
    args = options(codebase, use_new_predictor=fused)
    found = CODEBASES[codebase].getActLoc(*given, oracle.thresholds_of(args), tmp_path, args)
    fragile = set(zip(arrays["pair_video"][arrays["fragile"]], arrays["pair_class"][arrays["fragile"]]))
    theirs = arrays[key]
    compared = 0
    for c in range(20):
        mine = found[c]
        other = theirs[theirs[:, 1] == c][:, [0, 2, 3, 4]]
        steady = [np.array([(row[0], c) not in fragile for row in rows], bool) for rows in (mine, other)]
        mine, other = mine[steady[0]], other[steady[1]]
        assert mine.shape == other.shape
        order = [np.lexsort(np.round(rows, 7).T) for rows in (mine, other)]
        assert_allclose(mine[order[0]], other[order[1]], rtol=0, atol=1e-9)
        if codebase == "facnet":
            assert_array_equal(mine[:, 0], other[:, 0])
        assert_allclose(mine[:, 3], other[:, 3], rtol=0, atol=1e-9)  # in the same order
        compared += len(mine)
    assert compared > 200


def evaluation_folder(arrays, folder, ambiguous=True):
    """The annotations that `evaluation.npz` was computed on."""
    names, classes = arrays["video_names"].tolist(), arrays["classes"].tolist()
    own = [arrays["gt_video"] == v for v in range(len(names))]
    spans = [arrays["gt_seconds"][rows].tolist() for rows in own]
    labels = [[classes[c] for c in arrays["gt_class"][rows]] for rows in own]
    unclear = [(names[v], s, e) for v, (s, e) in zip(arrays["amb_video"], arrays["amb_seconds"].tolist())]
    write_folder(folder, names, ["test"] * len(names), spans, labels, classes, unclear if ambiguous else None)
    return len(classes)


@pytest.mark.parametrize("name", ["rskp", "rskp_filtered", "jitter"])
def test_published_maps(name, golden, tmp_path):
    arrays = golden("evaluation")
    count = evaluation_folder(arrays, tmp_path)
    rows = arrays[f"{name}__detections"]
    per_class = [rows[rows[:, 1] == c][:, [0, 2, 3, 4]] for c in range(count)]
    for ious in ("a", "b"):
        found = [rskp.getLocMAP(per_class, th, tmp_path, options("rskp")) for th in arrays[f"iou_{ious}"]]
        assert_allclose(found, arrays[f"{name}__wtalc_interp_{ious}_map"], rtol=0, atol=1e-9)


def test_published_ambiguous_filter(golden, tmp_path):
    arrays, inputs = golden("evaluation"), golden("tcams")
    count = evaluation_folder(arrays, tmp_path)
    chosen, where = np.append(arrays["class_ids"], 20), inputs["offsets"]
    tcams = [inputs["tcam"][start:stop][:, chosen] for start, stop in pairwise(where)][:12]
    args = options("rskp")
    scores = [row[chosen] for row in inputs["video_scores"][:12]]
    found = rskp.getActLoc(scores, tcams, [None] * 12, oracle.thresholds_of(args), tmp_path, args)
    theirs = arrays["rskp_filtered__detections"]
    assert_same_lists(found, [theirs[theirs[:, 1] == c][:, [0, 2, 3, 4]] for c in range(count)], atol=1e-9)


def test_published_fusion_of_float32_maps(golden):
    """The original takes means of float32 in float32, we take them in float64."""
    arrays, inputs = golden("gaufuse"), golden("tcams")
    args = options("gaufuse", dist_temperature=0.2)
    compared = 0
    for v in np.flatnonzero(~inputs["is_edge"]):
        tcam = inputs["tcam"][slice(*inputs["offsets"][v : v + 2])].astype(np.float32)
        found = gaufuse.generate_segs_eval(inputs["video_scores"][v].astype(np.float32), tcam, args)
        for p in np.flatnonzero((arrays["pair_video"] == v) & ~arrays["fragile"]):
            theirs = arrays["f32_fused_T02"][slice(*arrays["f32_fused_offsets"][p : p + 2])]
            mine = found[arrays["pair_class"][p]]
            assert_allclose(mine, theirs[np.argsort(-theirs[:, 2], kind="stable")], rtol=0, atol=1e-4)
            compared += len(mine)
    assert compared > 100


def test_published_fused_detections_have_our_map_once_they_are_rounded(golden, tmp_path):
    """The original's sums say 15.999999999999998 where all members of a cluster say 16, and its int() makes that 15."""
    arrays, fused, inputs = golden("evaluation"), golden("gaufuse"), golden("tcams")
    evaluation_folder(arrays, tmp_path, ambiguous=False)
    ids, args = arrays["class_ids"], options("gaufuse")
    tcams = [inputs["tcam"][start:stop][:, ids] for start, stop in pairwise(inputs["offsets"])][:12]
    scores = [row[ids] for row in inputs["video_scores"][:12]]
    found, ious = gaufuse.getDetectionMAP(scores, tcams, [None] * 12, tmp_path, args)
    theirs = fused["det_fused_T02"]
    rows = [theirs[(theirs[:, 0] < 12) & (theirs[:, 1] == c)][:, [0, 2, 3, 4]] for c in ids]
    rounded = [np.round(one, 9) for one in rows]
    assert_allclose(found, [gaufuse.getLocMAP(rounded, iou, tmp_path, args) for iou in ious], rtol=0, atol=1e-9)
    noise = np.subtract(found, [gaufuse.getLocMAP(rows, iou, tmp_path, args) for iou in ious])
    assert 0.5 < np.abs(noise).max() < 1.5


# -------------------------------------------------------------------------------------------------------------- FAC-Net
@pytest.mark.parametrize("seed", range(4))
def test_two_streams_equal_the_oracle(seed, rng):
    rng = np.random.default_rng(seed)

    def stream():
        count = int(rng.integers(0, 60))
        starts = rng.integers(0, 30, count)
        videos = np.sort(rng.choice([0, 1, 2, 5, 211, 212, 300], count))
        return np.column_stack([videos, starts, starts + rng.integers(1, 20, count), rng.integers(0, 9, count) / 8.0])

    rgb, flow = [stream() for _ in range(5)] + [[], []], [stream() for _ in range(5)] + [np.empty((0, 4)), stream()]
    args = SimpleNamespace(class_num=7)
    for threshold in (0.2, 0.9):
        found = facnet.IntergrateSegs(rgb, flow, threshold, args)
        assert_same_lists(found, oracle.integrate_segs(rgb, flow, threshold, args), atol=0)
    assert_same_lists(facnet.IntergrateSegs(rgb, flow, 0.9, SimpleNamespace(class_num=1)), found[:1], atol=0)
    assert all((rows[:, 0] < 212).all() for rows in found)


def test_two_stream_map_equals_the_oracle(tmp_path):
    *given, folder = data_set(0, tmp_path, classes=sorted(CLASSES))
    rng = np.random.default_rng(0)
    scores = [np.full(5, 0.9)] * len(given[1])
    flow = [rng.permutation(tcam) for tcam in given[1]]
    args = options("facnet", class_num=4, start_threshold=1 / 64, end_threshold=0.05, threshold_interval=1 / 64)
    found, ious = facnet.getTwoStreamDetectionMAP(scores, scores, given[1], flow, given[2], folder, args)
    thresholds = oracle.thresholds_of(args)
    rgb = oracle.get_act_loc(
        "facnet", scores, [tcam * 0.1 for tcam in given[1]], given[2], thresholds * 0.1, folder, args
    )
    own = oracle.get_act_loc("facnet", scores, flow, given[2], thresholds, folder, args)
    both = oracle.integrate_segs(rgb, own, 0.9, args)
    assert_allclose(found, [oracle.get_loc_map(both, iou, folder, args) for iou in ious], rtol=0, atol=1e-9)
    assert max(found) > 0


# -------------------------------------------------------------------------------------------------------- pseudo labels
@pytest.mark.parametrize("seed", range(3))
def test_segments_for_pseudo_labels_equal_the_oracle(seed, tmp_path):
    vid_preds, frm_preds, *_ = data_set(seed, tmp_path)
    for temperature in (0.1, 0.02):
        args = options("gaufuse", dist_temperature=temperature)
        for scores, tcam in zip(vid_preds, frm_preds):
            found = gaufuse.generate_segs_eval(scores, tcam, args, num_cls=5)
            assert_same_lists(found, oracle.generate_segs(scores, tcam, args, num_cls=5), columns=3, atol=1e-9)
            again = gaufuse.generate_segs(scores, tcam, len(tcam), np.zeros((1, 3)), args)
            assert_same_lists(again, found[:3], columns=3, atol=0)


def test_published_segments_for_pseudo_labels(golden):
    arrays, inputs = golden("gaufuse"), golden("tcams")
    args = options("gaufuse")
    for v in range(len(inputs["names"])):
        tcam = inputs["tcam"][slice(*inputs["offsets"][v : v + 2])]
        found = gaufuse.generate_segs_eval(inputs["video_scores"][v], tcam, args)
        assert len(found) == 21
        for p in np.flatnonzero((arrays["pair_video"] == v) & ~arrays["fragile"]):
            theirs = arrays["fused_T01"][slice(*arrays["fused_offsets"][p : p + 2])]
            mine = found[arrays["pair_class"][p]]
            assert_allclose(mine, theirs[np.argsort(-theirs[:, 2], kind="stable")], rtol=0, atol=1e-9)


def test_score_matrix_equals_the_oracle(rng):
    for length in (1, 2, 17, 60):
        start = rng.uniform(0, length, 40)
        rows = np.column_stack([start, np.minimum(start + rng.uniform(0, 20, 40), length + 1), rng.random(40)])
        rows.setflags(write=False)
        matrix, scores = gaufuse.compute_score_matrix(rows, length)
        expected = oracle.score_matrix(rows, length)
        assert matrix.dtype == scores.dtype == np.float64
        assert_array_equal(matrix, expected[0])
        assert_array_equal(scores, expected[1])
    assert [part.shape for part in gaufuse.compute_score_matrix(np.empty((0, 3)), 5)] == [(0, 5), (0,)]


def test_published_score_matrix_and_labels(golden):
    arrays, lengths = golden("lp"), golden("tcams")["length"]
    assert (arrays["highs_status"] == 2).any()
    for q, (video, status) in enumerate(zip(arrays["video"], arrays["highs_status"])):
        own, length = slice(*arrays["seg_offsets"][q : q + 2]), int(lengths[video])
        segments = arrays["segments"][own]
        matrix, scores = gaufuse.compute_score_matrix(segments, length)
        expected = np.zeros_like(matrix)
        for row, (left, start, stop, right) in zip(expected, arrays["row_bounds"][own]):
            row[left:right] = -1
            row[start:stop] = 1
        assert_array_equal(matrix, expected)
        labels = gaufuse.convert_segment_to_tensor([[], segments], length, num_cls=2)
        assert labels.shape == (length, 2)
        assert labels.dtype == np.float64
        assert not labels[:, 0].any()
        assert labels.min() >= 0
        assert labels.max() <= 1
        if status == 0:
            assert_allclose(labels.sum(), arrays["highs_fun"][q], rtol=0, atol=1e-7)
            assert_allclose(matrix @ labels[:, 1], scores, rtol=0, atol=1e-7)


def test_labels_where_the_original_writes_nan():
    rows = [[[40, 47, 0.0317], [0, 101, 0.0042]]]
    assert np.isnan(oracle.segment_to_tensor([np.array(rows[0])], 100, 1)).all()
    labels = gaufuse.convert_segment_to_tensor(rows, 100, num_cls=1)
    assert np.isfinite(labels).all()
    assert labels.sum() > 0


def test_labels_have_the_sum_of_the_oracle(rng):
    segments = [np.array([[3.2, 9.7, 0.4], [20, 28, 0.3], [22, 25, 0.2]]), np.empty((0, 3)), np.array([[1.0, 4, 0.1]])]
    before = copy.deepcopy(segments)
    labels = gaufuse.convert_segment_to_tensor(segments, 40, np.zeros((1, 3)), np.arange(3), 3)
    assert_allclose(labels.sum(axis=0), oracle.segment_to_tensor(segments, 40, 3).sum(axis=0), rtol=0, atol=1e-9)
    assert_allclose(labels[1:4, 2], 0.1 / 3, rtol=0, atol=1e-12)
    for mine, other in zip(segments, before):
        assert_array_equal(mine, other, strict=True)
    assert gaufuse.convert_segment_to_tensor([[]] * 21, 4).shape == (4, 21)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fused_predictions_of_tensors(dtype):
    torch = pytest.importorskip("torch")
    made = torch.Generator().manual_seed(0)

    def branch():
        logits = torch.randn(1, 60, 21, generator=made).cumsum(1)
        scores = torch.rand(1, 21, generator=made)
        out = [scores, None, torch.rand(1, 60, generator=made), logits]
        return [None if one is None else one.to(getattr(torch, dtype)).requires_grad_() for one in out]

    o, m = branch(), branch()
    args = options("gaufuse", class_threshold=0.5)
    found = gaufuse.fuse_current_pred(o, m, None, torch.zeros(1, 21), args)
    assert found.shape == (60, 21)
    assert found.dtype == torch.float64
    assert not found.requires_grad
    with torch.no_grad():
        tcam = (o[3].softmax(-1) * 0.8 + m[3].softmax(-1) * (1 - 0.8)) * o[2][..., None]
        scores = (o[0] * 0.6 + m[0] * 0.4)[0].numpy()
    segments = gaufuse.generate_segs_eval(scores, tcam[0].numpy(), args)
    assert_array_equal(found, gaufuse.convert_segment_to_tensor(segments, 60))
    assert found.sum() > 0
    other = gaufuse.fuse_current_pred(o, m, None, torch.zeros(1, 21), options("gaufuse", frm_coef_pseudo=0.1))
    assert not torch.allclose(found, other)
    with pytest.raises(ValueError, match="`approach` must be one of 'naive', got 'hard'"):
        gaufuse.fuse_current_pred(o, m, None, torch.zeros(1, 21), args, approach="hard")


def test_missing_torch_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"compat.gaufuse.fuse_current_pred needs torch.*tal_postproc\[torch\]"):
        gaufuse.fuse_current_pred([], [], None, None, options("gaufuse"))


# --------------------------------------------------------------------------------------------------------------- W-TALC
@pytest.mark.parametrize("seed", range(4))
def test_wtalc_equals_the_oracle(seed, tmp_path):
    rng = np.random.default_rng(seed)
    _, tcams, _, folder = data_set(seed, tmp_path, classes=sorted(CLASSES))
    predictions = [
        np.round(tcam[:, :4] * 40 - rng.choice([0.2, 0.7], 4), 1) + rng.random((len(tcam), 4)) for tcam in tcams
    ]
    predictions[-1][:] = 0.5
    before = copy.deepcopy(predictions)
    args = SimpleNamespace(feature_type="UNT" if seed == 3 else "I3D")
    found, ious = wtalc.getDetectionMAP(predictions, folder, args)
    assert ious == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert_allclose(found, oracle.wtalc_detection_map(predictions, folder, args)[0], rtol=0, atol=1e-9)
    assert max(found) > 0
    assert all(isinstance(one, np.float64) for one in found)
    assert_allclose(wtalc.getLocMAP(predictions, 0.3, folder, args), found[2], rtol=0, atol=1e-12)
    for mine, other in zip(predictions, before):
        assert_array_equal(mine, other, strict=True)


def test_published_wtalc(golden, tmp_path):
    arrays, inputs = golden("evaluation"), golden("tcams")
    evaluation_folder(arrays, tmp_path)
    where = inputs["offsets"]
    tcams = [inputs["tcam"][start:stop][:, arrays["class_ids"]] - 0.01 for start, stop in pairwise(where)][:12]
    args = SimpleNamespace(feature_type="I3D")
    found = [wtalc.getLocMAP(tcams, th, tmp_path, args) for th in arrays["iou_a"]]
    assert_allclose(found, arrays["wtalc_a_map"], rtol=0, atol=1e-9)


def test_wtalc_needs_the_list_of_ambiguous_spans(tmp_path):
    _, tcams, _, folder = data_set(0, tmp_path, ambiguous=False)
    with pytest.raises(FileNotFoundError) as caught:
        wtalc.getLocMAP(tcams, 0.5, folder, SimpleNamespace(feature_type="I3D"))
    assert caught.value.errno == errno.ENOENT
    assert "Ambiguous_test.txt" in str(caught.value.filename)
