"""Evaluators against published outputs, against literal oracles, and against bad input."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc.evaluation import (
    PROTOCOLS,
    average_recall,
    classification_map,
    filter_ambiguous,
    mean_average_precision,
)
from tal_postproc.types import Segments, UnitError

from .oracles import evaluation as oracle
from .strategies import grid_scores, half_units

SETS = ("rskp", "rskp_filtered", "jitter")
# golden name, protocol, thresholds of sets a and b, factor of the detections (stored in snippets), unit, tolerance
GOLDEN_PROTOCOLS = {
    "wtalc_interp": ("wtalc_interpolated", "iou_{}", 1.0, "snippet", 1e-9),
    "anet": ("activitynet", "iou_{}_linspace", 0.64, "second", 1e-9),
    "anet_snippet": ("activitynet_snippet", "iou_{}", 1.0, "snippet", 1e-9),
    "actionformer": ("actionformer", "iou_{}_linspace", 0.64, "second", 1e-9),
    "mmaction": ("mmaction", "iou_{}_linspace", 0.64, "second", 1e-6),
}


# ------------------------------------------------------------------ published outputs
def golden_detections(arrays, name, factor=1.0, unit="snippet"):
    rows = arrays[name]
    return {
        "video": rows[:, 0].astype(int),
        "labels": rows[:, 1].astype(int),
        "segments": rows[:, 2:4] * factor,
        "scores": rows[:, 4],
        "unit": unit,
    }


def golden_truth(arrays, extra=False):
    more = arrays["gtdup_extra"] if extra else np.empty((0, 4))
    return {
        "video": np.append(arrays["gt_video"], more[:, 0].astype(int)),
        "labels": np.append(arrays["gt_class"], more[:, 1].astype(int)),
        "segments": np.vstack([arrays["gt_seconds"], more[:, 2:]]),
    }


def golden_ambiguous(arrays):
    return {"video": arrays["amb_video"], "segments": arrays["amb_seconds"]}


@pytest.mark.parametrize("ious", ["a", "b"])
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("evaluator", GOLDEN_PROTOCOLS)
def test_golden_map(golden, evaluator, name, ious):
    arrays = golden("evaluation")
    protocol, thresholds, factor, unit, tolerance = GOLDEN_PROTOCOLS[evaluator]
    result = mean_average_precision(
        golden_detections(arrays, f"{name}__detections", factor, unit),
        golden_truth(arrays),
        tiou_thresholds=arrays[thresholds.format(ious)],
        protocol=protocol,
    )
    assert_allclose(result.per_class, arrays[f"{name}__{evaluator}_{ious}_ap"], rtol=0, atol=tolerance)
    percent = 100 if evaluator == "wtalc_interp" else 1
    assert_allclose(result.per_threshold * percent, arrays[f"{name}__{evaluator}_{ious}_map"], rtol=0, atol=tolerance)
    if evaluator == "actionformer":
        assert_allclose(result.recall, arrays[f"{name}__actionformer_{ious}_recall"], rtol=0, atol=tolerance)
        assert result.num_ground_truth.sum() == arrays["actionformer_n_gt"][0]


@pytest.mark.parametrize("name", ["rskp_filtered", "jitter"])
def test_golden_near_duplicate_ground_truth(golden, name):
    arrays = golden("evaluation")
    found = golden_detections(arrays, f"{name}__detections", 0.64, "second")
    options = {"tiou_thresholds": arrays["iou_a_linspace"]}
    cleaned = mean_average_precision(found, golden_truth(arrays, extra=True), protocol="actionformer", **options)
    assert_allclose(cleaned.per_class, arrays[f"gtdup_{name}__actionformer_a_ap"], rtol=0, atol=1e-9)
    assert_allclose(cleaned.recall, arrays[f"gtdup_{name}__actionformer_a_recall"], rtol=0, atol=1e-9)
    assert cleaned.num_ground_truth.sum() == arrays["gtdup_actionformer_n_gt"][0]
    raw = mean_average_precision(found, golden_truth(arrays, extra=True), protocol="activitynet", **options)
    assert_allclose(raw.per_class, arrays[f"gtdup_{name}__anet_a_ap"], rtol=0, atol=1e-9)


def test_golden_class_without_detections(golden):
    arrays = golden("evaluation")
    rows = arrays["rskp_filtered__detections"]
    rows = {"rows": rows[rows[:, 1] != arrays["empty_class"][0]]}
    with pytest.warns(UserWarning, match="1 of 12 classes have no detections"):
        zero = mean_average_precision(
            golden_detections(rows, "rows"),
            golden_truth(arrays),
            tiou_thresholds=arrays["iou_a"],
            protocol="wtalc_interpolated",
        )
    assert_array_equal(zero.per_threshold, arrays["empty__wtalc_interp_a_map"])
    fair = mean_average_precision(
        golden_detections(rows, "rows", 0.64, "second"), golden_truth(arrays), tiou_thresholds=arrays["iou_a_linspace"]
    )
    assert_allclose(fair.per_threshold, arrays["empty__anet_a_map"], rtol=0, atol=1e-9)


def test_golden_wtalc(golden):
    arrays = golden("evaluation")
    result = mean_average_precision(
        golden_detections(arrays, "wtalc_detections"),
        golden_truth(arrays),
        tiou_thresholds=arrays["iou_a"],
        protocol="wtalc",
        ambiguous=golden_ambiguous(arrays),
    )
    assert result.num_ambiguous > 0
    assert_allclose(result.per_class, arrays["wtalc_a_ap"], rtol=0, atol=1e-9)
    assert_allclose(result.per_threshold * 100, arrays["wtalc_a_map"], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("key", "most"), [("ar_all", None), ("ar_50", 50)])
@pytest.mark.parametrize("name", SETS)
def test_golden_average_recall(golden, name, key, most):
    arrays = golden("evaluation")
    result = average_recall(
        golden_detections(arrays, f"{name}__detections", 0.64, "second"),
        golden_truth(arrays),
        max_average_proposals=most,
        tiou_thresholds=np.linspace(0.5, 0.95, 10),
    )
    assert_allclose(result.recall, arrays[f"{name}__{key}_recall"], rtol=0, atol=1e-9)
    assert_allclose(result.average_recall, arrays[f"{name}__{key}_avg_recall"], rtol=0, atol=1e-9)
    assert_allclose(result.proposals_per_video, arrays[f"{name}__{key}_proposals_per_video"], rtol=0, atol=1e-9)
    assert_allclose(result.area, arrays[f"{name}__{key}_auc"][0], rtol=0, atol=1e-9)


def test_golden_ambiguous_filter_of_rskp(golden):
    arrays = golden("evaluation")
    before, after = arrays["rskp__detections"], arrays["rskp_filtered__detections"]
    order = np.argsort(before[:, 0], kind="stable")
    found = Segments(
        before[order, 2:4],
        before[order, 1].astype(int),
        before[order, 4],
        offsets=np.searchsorted(before[order, 0], np.arange(13)),
        columns={"row": order},
    )
    spans = Segments(arrays["amb_seconds"], offsets=np.searchsorted(arrays["amb_video"], np.arange(13)), unit="second")
    kept = filter_ambiguous(found, spans)
    assert_array_equal(before[np.sort(kept.columns["row"])], after)
    direct = mean_average_precision(
        found, golden_truth(arrays), ambiguous=spans, protocol="wtalc_interpolated", tiou_thresholds=arrays["iou_a"]
    )
    assert direct.num_ambiguous == len(before) - len(after)
    assert_allclose(direct.per_class, arrays["rskp_filtered__wtalc_interp_a_ap"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("codebase", ["co2net", "delu"])
def test_golden_ambiguous_filter_of_co2net_and_delu(golden, codebase):
    arrays, inputs = golden(codebase), golden("tcams")
    before, after = arrays["prefilter"], arrays["detections"]
    names = inputs["names"].tolist()
    found = Segments(
        before[:, 3:5],
        before[:, 1].astype(int),
        before[:, 2],
        offsets=arrays["prefilter_offsets"],
        video_ids=names,
    )
    spans = Segments(inputs["amb_segments"], offsets=inputs["amb_offsets"], unit="second", video_ids=names)
    kept = filter_ambiguous(found, spans)
    assert len(kept) < len(before)
    assert_array_equal(kept.offsets, arrays["det_offsets"])
    assert_array_equal(np.column_stack([kept.video_index, kept.labels, kept.scores, kept.segments]), after)


# ------------------------------------------------------------------ literal oracles
THRESHOLDS = [0.5, 0.25, 1 / 3, 1.0, 0.6, 0.3]
VIDEOS = ("b", "a", "c")


@st.composite
def problems(draw, max_detections=12, max_instances=8):
    """Detections and instances as tuples: half-unit grid, few distinct overlaps and scores, empty ones, duplicates."""
    spans = st.tuples(half_units, st.integers(0, 8).map(lambda k: k / 2))
    where = st.tuples(st.sampled_from(VIDEOS), st.integers(0, 2))
    detections = [
        (video, label, s, s + l, score)
        for (video, label), (s, l), score in draw(
            st.lists(st.tuples(where, spans, grid_scores), max_size=max_detections)
        )
    ]
    ground_truth = [
        (video, 2 * label, s, s + l)
        for (video, label), (s, l) in draw(st.lists(st.tuples(where, spans), max_size=max_instances))
    ]
    return detections, ground_truth


def columns(rows, unit="second"):
    """Tuples as the mapping that the library takes."""
    table = {
        "video": np.array([row[0] for row in rows], dtype=object),
        "labels": np.array([row[1] for row in rows], dtype=np.int64),
        "segments": np.array([row[2:4] for row in rows], dtype=np.float64).reshape(-1, 2),
        "unit": unit,
    }
    return table if rows and len(rows[0]) == 4 else {**table, "scores": np.array([row[4] for row in rows], dtype=float)}


def as_segments(rows, unit="second", names=VIDEOS):
    """Tuples as Segments, and the order that puts their rows there."""
    order = sorted(range(len(rows)), key=lambda i: names.index(rows[i][0]))
    table = columns([rows[i] for i in order])
    offsets = np.cumsum([0, *(sum(row[0] == name for row in rows) for name in names)])
    return Segments(table["segments"], table["labels"], table.get("scores"), offsets, unit, names)


def quiet_map(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mean_average_precision(*args, **kwargs)


def assert_equals_oracle(result, expected, positives):
    assert_array_equal(result.classes, np.array(sorted(expected), dtype=np.int64))
    wanted = np.array([expected[k] for k in sorted(expected)]).reshape(-1, len(THRESHOLDS)).T
    assert_allclose(result.per_class, wanted, rtol=0, atol=1e-12)
    assert result.num_ground_truth.tolist() == [sum(row[1] == k for row in positives) for k in sorted(expected)]


CLEANED = {"actionformer": oracle.clean_actionformer, "opentad": oracle.clean_opentad}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(problem=problems())
def test_every_protocol_equals_its_oracle(protocol, problem):
    detections, ground_truth = problem
    unit = PROTOCOLS[protocol].unit
    result = quiet_map(columns(detections, unit), columns(ground_truth), tiou_thresholds=THRESHOLDS, protocol=protocol)
    expected = getattr(oracle, protocol)(detections, ground_truth, THRESHOLDS)
    positives = CLEANED.get(protocol, list)(ground_truth)
    assert_equals_oracle(result, expected, positives)
    means = [float(np.mean([row[t] for row in expected.values()])) if expected else 0.0 for t in range(len(THRESHOLDS))]
    if protocol.startswith("wtalc"):
        means = oracle.mean_with_early_exit(detections, ground_truth, expected) or means
    assert_allclose(result.per_threshold, means, rtol=0, atol=1e-12)
    assert result.num_unknown_labels == sum(d[1] not in expected for d in detections)
    assert result.num_detections.tolist() == [sum(d[1] == k for d in detections) for k in sorted(expected)]
    annotated = {g[0] for g in ground_truth}
    assert result.num_unannotated == sum(d[1] in expected and d[0] not in annotated for d in detections)


@pytest.mark.parametrize("protocol", ["actionformer", "opentad"])
@given(problem=problems(), top_kx=st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_top_kx_recall_equals_its_oracle(protocol, problem, top_kx):
    detections, ground_truth = problem
    result = quiet_map(
        columns(detections), columns(ground_truth), tiou_thresholds=THRESHOLDS, protocol=protocol, top_kx=top_kx
    )
    overlap = oracle.tiou if protocol == "actionformer" else oracle.tiou_clipped
    expected = oracle.topkx_recall(detections, CLEANED[protocol](ground_truth), THRESHOLDS, top_kx, overlap)
    assert result.top_kx == tuple(top_kx)
    assert result.recall.shape == (len(THRESHOLDS), len(top_kx), len(expected))
    for k, label in enumerate(sorted(expected)):
        assert_allclose(result.recall[:, :, k], expected[label], rtol=0, atol=1e-12)


@given(problem=problems(), shifts=st.lists(st.sampled_from([0.0, 4e-4, 8e-4, 1.2e-3]), min_size=8, max_size=8))
def test_clean_up_equals_its_oracle_on_near_duplicates(problem, shifts):
    detections, ground_truth = problem
    near = [(v, k, s, e + d) for (v, k, s, e), d in zip(ground_truth, shifts)] + ground_truth
    for protocol, clean in CLEANED.items():
        result = quiet_map(columns(detections), columns(near), tiou_thresholds=THRESHOLDS, protocol=protocol)
        assert_equals_oracle(result, getattr(oracle, protocol)(detections, near, THRESHOLDS), clean(near))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(problem=problems())
def test_matches_are_valid_and_one_to_one(protocol, problem):
    detections, ground_truth = problem
    unit = PROTOCOLS[protocol].unit
    result = quiet_map(columns(detections, unit), columns(ground_truth), tiou_thresholds=[0.25, 0.5], protocol=protocol)
    known = {g[1] for g in CLEANED.get(protocol, list)(ground_truth)}
    for row in result.matches:
        took = [(d, m) for d, m in zip(detections, row) if m >= 0]
        assert len({m for _, m in took}) == len(took)
        assert all(d[:2] == ground_truth[m][:2] for d, m in took)
        assert [m == -2 for m in row] == [d[1] not in known for d in detections]


@given(problem=problems())
def test_segments_and_mappings_agree(problem):
    detections, ground_truth = problem
    flat = quiet_map(
        columns(sorted(detections, key=lambda d: VIDEOS.index(d[0]))), columns(ground_truth), protocol="opentad"
    )
    names = ("x", *VIDEOS[::-1])  # other order, one more video: matched by name
    grouped = quiet_map(as_segments(detections), as_segments(ground_truth, names=names), protocol="opentad")
    assert_allclose(grouped.per_class, flat.per_class, rtol=0, atol=1e-12)
    numbered = quiet_map(
        as_segments(detections).replace(video_ids=()),
        as_segments(ground_truth).replace(video_ids=()),
        protocol="opentad",
    )
    assert_array_equal(numbered.per_class, grouped.per_class)


@given(
    problem=problems(),
    spans=st.lists(st.tuples(st.sampled_from(VIDEOS), half_units, st.integers(0, 6).map(lambda k: k / 2)), max_size=6),
    rate=st.sampled_from([25 / 16, 10 / 4, 1.0]),
)
def test_filter_ambiguous_equals_its_oracle(problem, spans, rate):
    detections = sorted(problem[0], key=lambda d: VIDEOS.index(d[0]))
    ambiguous = [(v, s, s + l) for v, s, l in spans]
    expected = oracle.filter_ambiguous(detections, ambiguous, rate)
    listed = {
        "video": np.array([a[0] for a in ambiguous], dtype=str),
        "segments": np.array([a[1:] for a in ambiguous]).reshape(-1, 2),
    }
    found = as_segments(detections, "snippet").replace(columns={"row": np.arange(len(detections))})
    kept = filter_ambiguous(found, listed, snippets_per_second=rate)
    assert_array_equal(kept.columns["row"], np.flatnonzero(expected))
    assert kept.video_ids == VIDEOS
    seconds = filter_ambiguous(found.to_seconds(2.0), listed, snippets_per_second=0.5)  # the same snippets again
    assert_array_equal(seconds.columns["row"], np.flatnonzero(oracle.filter_ambiguous(detections, ambiguous, 0.5)))
    result = quiet_map(
        columns(detections, "snippet"),
        columns(problem[1]),
        protocol="wtalc_interpolated",
        ambiguous=listed,
        snippets_per_second=rate,
        tiou_thresholds=THRESHOLDS,
    )
    stayed = [d for d, keep in zip(detections, expected) if keep]
    assert_equals_oracle(result, oracle.wtalc_interpolated(stayed, problem[1], THRESHOLDS, rate), problem[1])


@given(problem=problems(), most=st.sampled_from([None, 0.5, 1, 2, 7]))
def test_average_recall_equals_its_oracle(problem, most):
    detections, ground_truth = problem
    names = sorted({g[0] for g in ground_truth})
    by_video = {v: np.array([d[2:] for d in detections if d[0] == v]).reshape(-1, 3) for v in VIDEOS}
    instances = {v: np.array([g[2:] for g in ground_truth if g[0] == v]).reshape(-1, 2) for v in names}
    result = average_recall(
        columns(detections), columns(ground_truth), max_average_proposals=most, tiou_thresholds=THRESHOLDS
    )
    assert result.recall.shape == (len(THRESHOLDS), 100)
    kept = 0
    if names and detections:
        ratio = (most or len(detections) / len(names)) * len(names) / len(detections)
        kept = sum(min(int(len(by_video[v]) * ratio), len(by_video[v])) for v in names)
    if not kept:
        assert not result.recall.any()
        assert result.area == 0.0
        return
    recall, mean, per_video, area = oracle.average_recall(by_video, instances, THRESHOLDS, most)
    assert_allclose(result.recall, recall, rtol=0, atol=1e-12)
    assert_allclose(result.average_recall, mean, rtol=0, atol=1e-12)
    assert_allclose(result.proposals_per_video, per_video, rtol=1e-12)
    assert_allclose(result.area, area, rtol=1e-12, atol=1e-12)


@given(
    scores=st.lists(st.lists(grid_scores, min_size=3, max_size=3), max_size=8),
    labels=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=8, max_size=8),
)
def test_classification_map_equals_its_oracle(scores, labels):
    values = np.array(scores).reshape(-1, 3)
    shown = np.array(labels)[: len(values)]
    result = classification_map(values, shown)
    expected = oracle.classification(values, shown)
    assert result.classes.tolist() == sorted(expected)
    assert_allclose(result.per_class, [expected[k] for k in sorted(expected)], rtol=0, atol=1e-12)
    assert result.num_positives.tolist() == shown.sum(axis=0)[result.classes].tolist()
    assert result.average == pytest.approx(np.mean(list(expected.values())) if expected else 0.0, abs=1e-12)


def random_problem(rng, num_detections=600, num_instances=80):
    """Many instances per group, so that the search for overlapping ones has something to skip."""
    start = rng.uniform(0, 100, num_instances)
    ground_truth = [
        (VIDEOS[v], int(k), s, s + l)
        for v, k, s, l in zip(
            rng.integers(0, 2, num_instances),
            rng.integers(0, 2, num_instances),
            start,
            rng.exponential(4, num_instances),
        )
    ]
    near = rng.integers(0, num_instances, num_detections)
    detections = []
    for j in near:
        video, label, s, e = ground_truth[j]
        s, e = sorted((s + rng.normal(0, 1), e + rng.normal(0, 1)))
        detections.append((video, label, s, e, rng.random()))
    return detections, ground_truth


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_dense_videos_equal_the_oracles(rng, protocol):
    detections, ground_truth = random_problem(rng)
    unit = PROTOCOLS[protocol].unit
    if unit == "snippet":
        detections = [(v, k, s * 25 / 16, e * 25 / 16, score) for v, k, s, e, score in detections]
    result = mean_average_precision(
        columns(detections, unit), columns(ground_truth), tiou_thresholds=THRESHOLDS, protocol=protocol
    )
    assert_equals_oracle(
        result,
        getattr(oracle, protocol)(detections, ground_truth, THRESHOLDS),
        CLEANED.get(protocol, list)(ground_truth),
    )
    assert result.per_class.max() > 0.3


def test_average_recall_equals_its_oracle_on_dense_videos(rng):
    detections, ground_truth = random_problem(rng)
    by_video = {v: np.array([d[2:] for d in detections if d[0] == v]) for v in VIDEOS[:2]}
    instances = {v: np.array([g[2:] for g in ground_truth if g[0] == v]) for v in VIDEOS[:2]}
    for most in (None, 40, 100.5):
        result = average_recall(columns(detections), columns(ground_truth), max_average_proposals=most)
        expected = oracle.average_recall(by_video, instances, result.tiou_thresholds, most)
        for value, wanted in zip(
            (result.recall, result.average_recall, result.proposals_per_video, result.area), expected
        ):
            assert_allclose(value, wanted, rtol=1e-12)


def test_activitynet_equals_the_data_frame_transcription(rng):
    pandas = pytest.importorskip("pandas")
    detections, ground_truth = random_problem(rng, 200, 40)
    frames = [
        pandas.DataFrame(rows, columns=["video", "label", "start", "end", "score"][: len(rows[0])])
        for rows in (detections, ground_truth)
    ]
    expected = oracle.activitynet_pandas(*frames, THRESHOLDS)
    result = mean_average_precision(columns(detections), columns(ground_truth), tiou_thresholds=THRESHOLDS)
    assert_equals_oracle(result, expected, ground_truth)


# ------------------------------------------------------------------ options and meanings
TRUTH = {"video": ["a", "a", "b"], "labels": [0, 0, 3], "segments": [[0, 10], [20, 30], [0, 4]]}
FOUND = {
    "video": ["a", "a", "b"],
    "labels": [0, 0, 3],
    "segments": [[0, 10], [20, 26], [0, 2]],
    "scores": [0.9, 0.8, 0.7],
}


def changed(table, **columns):
    return {**table, **columns}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([5, 5, -7], [5, 5, -7]),  # whole numbers of any kind
        ([0, 0, 10**17], [0, 0, 10**17]),
        (["a", "a", "b"], np.array(["a", "a", "b"], dtype=object)),
        ([b"a", b"a", b"b"], ["a", "a", "b"]),
    ],
)
def test_videos_may_be_names_or_numbers(one, other):
    expected = mean_average_precision(FOUND, TRUTH)
    result = mean_average_precision(changed(FOUND, video=one), changed(TRUTH, video=other))
    assert_array_equal(result.matches, expected.matches)
    assert result.num_unannotated == 0


def test_numbers_are_positions_among_segments():
    truth = Segments(TRUTH["segments"], TRUTH["labels"], offsets=[0, 2, 3], unit="second", video_ids=["a", "b"])
    result = mean_average_precision(changed(FOUND, video=[0, 0, 1]), truth)
    assert_array_equal(result.matches, mean_average_precision(FOUND, TRUTH).matches)
    swapped = mean_average_precision(changed(FOUND, video=[1, 1, 0]), truth)
    assert (swapped.matches == -1).all()


def test_labels_may_be_far_apart():
    far = [3, 3, 2**62]
    result = mean_average_precision(changed(FOUND, labels=far), changed(TRUTH, labels=far))
    assert result.classes.tolist() == [3, 2**62]
    assert_array_equal(result.per_class, mean_average_precision(FOUND, TRUTH).per_class)


def test_thresholds_by_name_are_decimal_literals():
    result = mean_average_precision(FOUND, TRUTH)
    assert result.tiou_thresholds.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    thumos = mean_average_precision(FOUND, TRUTH, tiou_thresholds="thumos")
    assert_array_equal(thumos.per_class, result.per_class)
    dense = mean_average_precision(FOUND, TRUTH, tiou_thresholds="activitynet")
    assert dense.tiou_thresholds.tolist() == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


def test_averages_by_name():
    result = mean_average_precision(FOUND, TRUTH)
    assert_allclose(result.per_threshold, [1, 1, 1, 1, 1, 0.5, 0.25], rtol=0, atol=1e-12)
    assert result.average_over("0.1:0.5") == 1.0
    assert result.average_over("0.3:0.7") == pytest.approx(3.75 / 5, abs=1e-12)
    assert result.average_over("0.1:0.7") == pytest.approx(result.average, abs=1e-12)
    with pytest.raises(ValueError, match=r"needs tIoU 0\.55, which was not evaluated \(7 missing\)"):
        result.average_over("0.5:0.95")
    with pytest.raises(ValueError, match=r"`name` must be one of '0\.1:0\.5'"):
        result.average_over("0.2:0.4")


def test_class_without_detections_has_ap_zero_and_may_zero_the_map():
    alone = {name: column[:2] for name, column in FOUND.items()}
    fair = mean_average_precision(alone, TRUTH, tiou_thresholds=[0.5])
    assert fair.per_class.tolist() == [[1.0, 0.0]]
    assert fair.per_threshold.tolist() == [0.5]
    with pytest.warns(UserWarning, match="1 of 2 classes have no detections, which makes the mAP 0"):
        zero = mean_average_precision(alone, TRUTH, tiou_thresholds=[0.5], empty_class="zero_map")
    assert zero.per_threshold.tolist() == [0.0]
    assert zero.per_class.tolist() == [[1.0, 0.0]]
    for protocol in ("wtalc", "wtalc_interpolated"):
        with pytest.warns(UserWarning, match=f"protocol='{protocol}'"):
            assert not mean_average_precision(alone, TRUTH, protocol=protocol).per_threshold.any()
        assert mean_average_precision(alone, TRUTH, protocol=protocol, empty_class="zero_ap").per_threshold[0] == 0.5


def test_unknown_labels_and_videos_are_counted_and_visible():
    found = {
        "video": ["a", "z", "a", "a", "b"],
        "labels": [0, 0, 9, 0, 3],
        "segments": [[0, 10], [0, 10], [0, 10], [20, 30], [0, 4]],
        "scores": [0.5, 0.9, 1.0, 0.4, 0.1],
    }
    result = mean_average_precision(found, TRUTH, tiou_thresholds=[0.5])
    assert (result.num_unknown_labels, result.num_unannotated, result.num_ambiguous) == (1, 1, 0)
    assert result.matches.tolist() == [[0, -1, -2, 1, 2]]
    assert result.num_detections.tolist() == [3, 1]
    assert_allclose(result.per_class, [[2 / 3, 1.0]], rtol=0, atol=1e-12)


def test_no_known_video_warns():
    with pytest.warns(UserWarning, match="none of the 3 detections lies in a video that has ground truth"):
        mean_average_precision(changed(FOUND, video=["a.mp4", "a.mp4", "b.mp4"]), TRUTH)


def test_equal_scores_and_equal_overlaps_go_to_the_earlier_row():
    truth = {"video": [0, 0], "labels": [0, 0], "segments": [[2, 4], [0, 2]]}
    found = {"video": [0, 0], "labels": [0, 0], "segments": [[1, 3], [0, 4]], "scores": [0.5, 0.5]}
    result = mean_average_precision(found, truth, tiou_thresholds=[0.3])
    assert result.matches.tolist() == [[0, 1]]
    first = mean_average_precision(
        changed(found, segments=[[0, 3], [0, 4]], unit="snippet"),
        changed(truth, unit="snippet"),
        tiou_thresholds=[0.25],
        protocol="wtalc",
    )
    assert first.matches.tolist() == [[0, 1]]  # the first row, although the second one overlaps more
    best = mean_average_precision(
        changed(found, segments=[[0, 3], [0, 4]], unit="snippet"),
        changed(truth, unit="snippet"),
        tiou_thresholds=[0.25],
        protocol="wtalc_interpolated",
    )
    assert best.matches.tolist() == [[1, 0]]


def test_float32_overlap_misses_a_threshold_that_float64_meets():
    truth = {"video": [0], "labels": [0], "segments": [[0, 10]]}
    found = {"video": [0], "labels": [0], "segments": [[0, 7]], "scores": [1.0]}
    assert mean_average_precision(found, truth, tiou_thresholds=[0.7]).average == 1.0
    assert mean_average_precision(found, truth, tiou_thresholds=[0.7], protocol="mmaction").average == 0.0


def test_average_recall_rounds_every_step_to_float32():
    half = Segments([[0.0, 0.1]]), Segments([[0.0, 0.2]])  # 0.49999997 in float32 steps
    assert not average_recall(*half, tiou_thresholds=[0.5]).recall.any()
    assert average_recall(*half, tiou_thresholds=[0.49]).recall[0, -1] == 1.0


@pytest.mark.parametrize(("protocol", "stays"), [("actionformer", 2), ("opentad", 3), ("activitynet", 4)])
def test_clean_up_at_its_limits(protocol, stays):
    spans = [[0.0, 1e-3], [10.0, 12.0], [20.0, 20.0], [0.0, 5e-4 / 2]]  # exactly 1e-3 stays, 0 goes, 2.5e-4 depends
    truth = {"video": [0, 0, 0, 1], "labels": [0] * 4, "segments": spans}
    result = quiet_map({**truth, "scores": [1.0] * 4}, truth, protocol=protocol)
    assert result.num_ground_truth.tolist() == [stays]


def test_near_duplicates_of_a_dropped_instance_stay():
    truth = {"video": [0] * 3, "labels": [0] * 3, "segments": [[0, 10], [8e-4, 10], [16e-4, 10]]}
    result = quiet_map({**truth, "scores": [1.0] * 3}, truth, protocol="actionformer", tiou_thresholds=[0.5])
    assert result.num_ground_truth.tolist() == [2]
    assert sorted(result.matches[0].tolist()) == [-1, 0, 2]


def test_opentad_clips_the_union():
    truth = {"video": [0], "labels": [0], "segments": [[0, 4e-9]]}
    found = {"video": [0], "labels": [0], "segments": [[0, 4e-9]], "scores": [1.0]}
    assert mean_average_precision(found, truth, tiou_thresholds=[0.5]).average == 1.0
    assert mean_average_precision(found, truth, tiou_thresholds=[0.5], protocol="opentad").average == 0.0


def test_snippet_protocols_convert_seconds():
    seconds = mean_average_precision(FOUND, TRUTH, protocol="activitynet_snippet", tiou_thresholds=[0.5, 0.6])
    scaled = changed(FOUND, segments=np.array(FOUND["segments"]) * 25 / 16, unit="snippet")
    whole = changed(TRUTH, segments=np.rint(np.array(TRUTH["segments"]) * 25 / 16), unit="snippet")
    for truth in (TRUTH, whole):
        result = mean_average_precision(scaled, truth, protocol="activitynet_snippet", tiou_thresholds=[0.5, 0.6])
        assert_array_equal(result.per_class, seconds.per_class)
    slow = mean_average_precision(
        FOUND, TRUTH, protocol="wtalc_interpolated", tiou_thresholds=[0.5], snippets_per_second=0.1
    )
    assert slow.per_class.tolist() == [[0.5, 0.0]]  # [20, 26] is range(2, 2), and [0, 4] is range(0, 0)


@pytest.mark.parametrize("protocol", ["wtalc", "wtalc_interpolated"])
def test_whole_snippets_survive_seconds(protocol):
    """29 snippets are 18.56 s, and 18.56 * 25 / 16 is 28.999999999999996, of which int() would make 28."""
    assert int(29 * 0.64 * 25 / 16) == 28
    truth = {"video": [0], "labels": [0], "segments": [[0, 29]], "unit": "snippet"}
    found = changed(truth, scores=[1.0])
    in_seconds = [changed(table, segments=[[0, 29 * 0.64]], unit="second") for table in (found, truth)]
    for pair in ((found, truth), tuple(in_seconds), (in_seconds[0], truth), (found, in_seconds[1])):
        assert mean_average_precision(*pair, protocol=protocol, tiou_thresholds=[1.0]).average == 1.0
    between = changed(found, segments=[[0, 28.9 * 0.64]], unit="second")  # what does lie between two snippets is cut
    assert mean_average_precision(between, truth, protocol=protocol, tiou_thresholds=[1.0]).average == 0.0


@pytest.mark.parametrize("protocol", ["activitynet_snippet", "wtalc", "wtalc_interpolated"])
def test_an_overlap_of_one_half_survives_seconds(protocol):
    """[0, 29] of [0, 58] snippets is exactly 1/2 in seconds, too."""
    truth = {"video": [0], "labels": [0], "segments": [[0, 58 * 0.64]], "unit": "second"}
    found = changed(truth, segments=[[0, 29 * 0.64]], scores=[1.0])
    assert mean_average_precision(found, truth, protocol=protocol, tiou_thresholds=[0.5]).average == 1.0


def test_seconds_protocols_want_one_unit():
    in_snippets = changed(FOUND, unit="snippet")
    with pytest.raises(
        UnitError, match=r"`detections` must be in the unit of `ground_truth`, got 'snippet' and 'second'"
    ):
        mean_average_precision(in_snippets, TRUTH)
    both = mean_average_precision(in_snippets, changed(TRUTH, unit="snippet"))
    assert_array_equal(both.per_class, mean_average_precision(FOUND, TRUTH).per_class)
    relative = changed(FOUND, unit="relative")
    with pytest.raises(UnitError, match="`detections` must be in snippets or seconds, got unit 'relative'"):
        mean_average_precision(relative, TRUTH, protocol="wtalc")
    with pytest.raises(UnitError, match="`proposals` must be in the unit of `ground_truth`"):
        average_recall(relative, TRUTH)
    with pytest.raises(UnitError, match="`ambiguous` must be in snippets or seconds"):
        mean_average_precision(FOUND, TRUTH, ambiguous={"video": ["a"], "segments": [[0, 1]], "unit": "relative"})


def test_average_recall_counts_videos_without_instances():
    found = Segments([[0, 2], [4, 6], [0, 2], [4, 6]], scores=[4, 3, 2, 1], offsets=[0, 2, 4])
    truth = Segments([[4, 6]], offsets=[0, 0, 1])
    result = average_recall(found, truth, tiou_thresholds=[0.5])
    assert result.proposals_per_video[[49, 99]].tolist() == [1.0, 2.0]
    assert result.recall[0, [49, 98, 99]].tolist() == [0.0, 0.0, 1.0]
    best = average_recall(found, truth, tiou_thresholds=[0.5], max_average_proposals=1)
    assert not best.recall.any()


# ------------------------------------------------------------------ bad and unusual input
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_empty_input_has_well_shaped_answers(protocol):
    nothing = {"video": [], "labels": [], "segments": [], "scores": []}
    for found in (nothing, Segments.empty(), Segments.concatenate([])):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if protocol.startswith("wtalc") else "error")
            result = mean_average_precision(found, TRUTH, protocol=protocol)
        assert result.per_class.shape == (7, 2)
        assert result.matches.shape == (7, 0)
        assert not result.per_threshold.any()
    for truth in (nothing, Segments.empty("second")):
        result = mean_average_precision(FOUND, truth, protocol=protocol)
        assert result.per_class.shape == (7, 0)
        assert result.average == 0.0
        assert result.num_unknown_labels == 3
        assert (result.matches == -2).all()


def test_other_functions_take_empty_input():
    assert len(filter_ambiguous(Segments.empty(), Segments.empty("second"))) == 0
    assert len(filter_ambiguous(Segments([[0, 1]]), Segments.empty("second"))) == 1
    for found, truth in ((Segments.empty(), Segments([[0, 1]])), (Segments([[0, 1]]), Segments.empty())):
        result = average_recall(found, truth)
        assert (result.recall.shape, result.area) == ((10, 100), 0.0)
    assert classification_map(np.zeros((0, 3)), np.zeros((0, 3))).average == 0.0
    assert classification_map(np.zeros((3, 0)), np.zeros((3, 0))).per_class.shape == (0,)


BAD_CALLS = [
    ({"protocol": "anet"}, r"`protocol` must be one of 'activitynet', 'activitynet_snippet', 'wtalc'.*got 'anet'"),
    ({"tiou_thresholds": "0.1:0.9"}, r"`tiou_thresholds` must be one of '0\.1:0\.5'.*got '0\.1:0\.9'"),
    ({"tiou_thresholds": [0.5, 0.0]}, r"`tiou_thresholds` must lie in \(0, 1\], got 0 \(1 of 2\)"),
    ({"tiou_thresholds": [50, 70]}, r"`tiou_thresholds` must lie in \(0, 1\], got 50 \(2 of 2\)"),
    ({"tiou_thresholds": []}, r"`tiou_thresholds` must hold at least one threshold"),
    ({"tiou_thresholds": [np.nan]}, r"`tiou_thresholds` must be finite"),
    ({"snippets_per_second": 0}, r"`snippets_per_second` must be above 0, got 0"),
    ({"top_kx": (0,)}, r"`top_kx` must be at least 1, got 0"),
    ({"empty_class": "skip"}, r"`empty_class` must be one of 'zero_ap', 'zero_map', got 'skip'"),
    ({"detections": changed(FOUND, scores=[0.1, np.nan, 0.2])}, r"`detections\['scores'\]` must be finite; row 1"),
    ({"detections": changed(FOUND, segments=[[1, 0]] * 3)}, r"`detections\['segments'\]` needs start <= end; row 0"),
    ({"detections": changed(FOUND, labels=[0, -1, 0])}, r"`detections\['labels'\]` must be >= 0; row 1 is -1"),
    ({"detections": changed(FOUND, labels=[0, 1])}, r"`detections\['labels'\]` must have shape \(3,\)"),
    ({"detections": changed(FOUND, video=["a"])}, r"`detections\['video'\]` must have shape \(3,\)"),
    ({"detections": changed(FOUND, video=[0, 1])}, r"`detections\['video'\]` must have shape \(3,\)"),
    ({"detections": changed(FOUND, video=[0, 0, 1])}, r"`ground_truth` names its videos, so both sides must"),
    ({"detections": changed(FOUND, unit="frames")}, r"`detections\['unit'\]` must be one of 'snippet'"),
    (
        {"detections": TRUTH},
        r"`detections` needs the keys 'video', 'labels', 'segments', 'scores', 'scores' is missing",
    ),
    ({"ground_truth": {"video": ["a"], "segments": [[0, 1]]}}, r"`ground_truth` needs the keys.*'labels' is missing"),
    ({"ambiguous": {"segments": [[0, 1]]}}, r"`ambiguous` needs the keys 'video', 'segments', 'video' is missing"),
]


@pytest.mark.parametrize(("change", "message"), BAD_CALLS)
def test_bad_input_is_named(change, message):
    call = {"detections": FOUND, "ground_truth": TRUTH, **change}
    with pytest.raises(ValueError, match=message):
        mean_average_precision(call.pop("detections"), call.pop("ground_truth"), **call)


def test_wrong_types_are_named():
    with pytest.raises(TypeError, match="`detections` must be Segments or a mapping of flat arrays, got list"):
        mean_average_precision([[0, 1]], TRUTH)
    with pytest.raises(TypeError, match=r"`detections\['video'\]` must hold names or whole numbers"):
        mean_average_precision(changed(FOUND, video=np.array(["a", 1, None], dtype=object)), TRUTH)
    with pytest.raises(TypeError, match="`detections` must be Segments, got dict"):
        filter_ambiguous(FOUND, TRUTH)


def test_positions_need_the_same_number_of_videos():
    found, truth = Segments([[0, 1]], unit="second"), Segments([[0, 1]], offsets=[0, 0, 1], unit="second")
    with pytest.raises(ValueError, match=r"`detections` must have the videos of `ground_truth`.*got 1 and 2"):
        mean_average_precision(found, truth)


def test_bad_recall_and_classification_input():
    with pytest.raises(ValueError, match="`max_average_proposals` must be above 0, got 0"):
        average_recall(FOUND, TRUTH, max_average_proposals=0)
    with pytest.raises(ValueError, match=r"`video_scores` must have shape \(V, K\), got shape \(2,\)"):
        classification_map([1, 2], [[1]])
    with pytest.raises(ValueError, match=r"`video_labels` must have shape \(1, 2\) like `video_scores`, got \(2, 1\)"):
        classification_map([[1, 2]], [[1], [0]])
    with pytest.raises(ValueError, match=r"`video_labels` must be 0 or 1, got 2 \(1 of 2\)"):
        classification_map([[1, 2]], [[1, 2]])
    with pytest.raises(ValueError, match="`video_scores` must be finite"):
        classification_map([[1, np.inf]], [[1, 0]])


VARIANTS = {
    "float16": lambda a: a.astype(np.float16) if a.dtype.kind == "f" else a.astype(np.int8),
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "strided": lambda a: np.repeat(a, 2, axis=0)[::2],
    "fortran": np.asfortranarray,
    "integer": lambda a: a.astype(np.int32) if (a == a.astype(np.int32)).all() else a,
    "read-only": lambda a: a,
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_any_dtype_and_layout_and_nothing_is_mutated(variant):
    def prepare(table):
        made = {}
        for name, column in table.items():
            array = np.array(column)
            array = (
                array
                if array.dtype.kind == "U"
                else VARIANTS[variant](array.astype(float if name == "scores" else array.dtype))
            )
            array.setflags(write=False)
            made[name] = array
        return made

    quarters = changed(FOUND, scores=[0.75, 0.5, 0.25])
    found, truth = prepare(quarters), prepare(TRUTH)
    thresholds = np.array([0.5, 0.6])
    thresholds.setflags(write=False)
    copies = {name: column.copy() for name, column in found.items()}
    expected = mean_average_precision(quarters, TRUTH, tiou_thresholds=[0.5, 0.6], protocol="actionformer")
    result = mean_average_precision(found, truth, tiou_thresholds=thresholds, protocol="actionformer")
    assert_array_equal(result.per_class, expected.per_class, strict=True)
    assert_array_equal(result.recall, expected.recall, strict=True)
    assert_array_equal(average_recall(found, truth).recall, average_recall(quarters, TRUTH).recall, strict=True)
    for name, column in copies.items():
        assert_array_equal(found[name], column, strict=True)


def test_one_compilation_per_kernel():
    from tal_postproc._kernels import matching

    thresholds = np.array([0.5])
    thresholds.setflags(write=False)
    for protocol in PROTOCOLS:
        quiet_map(changed(FOUND, unit=PROTOCOLS[protocol].unit), TRUTH, protocol=protocol, tiou_thresholds=thresholds)
    quiet_map(Segments.empty(), TRUTH, protocol="actionformer")
    average_recall(FOUND, TRUTH)
    classification_map([[0.5]], [[1]])
    for kernel in (matching.match, matching.first_hits, matching.average_precision, matching.distinct):
        assert len(kernel.signatures) == 1, (kernel.__name__, kernel.signatures)


def test_protocols_are_frozen():
    with pytest.raises(TypeError):
        PROTOCOLS["mine"] = PROTOCOLS["wtalc"]
    with pytest.raises(AttributeError):
        PROTOCOLS["wtalc"].unit = "second"


def test_every_detection_is_left_out_for_one_reason():
    spans = {"video": ["a"], "segments": [[0, 5]]}
    result = mean_average_precision(changed(FOUND, labels=[9, 0, 3]), TRUTH, ambiguous=spans)
    assert (result.num_unknown_labels, result.num_ambiguous) == (1, 0)
    result = mean_average_precision(FOUND, TRUTH, ambiguous=spans)
    assert (result.num_unknown_labels, result.num_ambiguous) == (0, 1)
    assert result.matches[0].tolist() == [-2, 1, 2]
