"""tal_postproc.torch: every function on every backend, against the oracles and the core; dtypes, memory, gradients."""

from __future__ import annotations

import inspect
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import tal_postproc as tpp

from .oracles import segments as oracle
from .strategies import segment_sets, tcams, tiou_thresholds

torch = pytest.importorskip("torch")
import tal_postproc.torch as tpt  # noqa: E402
from tal_postproc.torch import _bridge  # noqa: E402

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
BACKENDS = [
    pytest.param(("core", "cpu"), id="core"),
    pytest.param(("batched", "cpu"), id="batched"),
    *(
        pytest.param((name, "cuda"), id=f"cuda-{name}", marks=[pytest.mark.gpu, needs_gpu])
        for name in ("auto", "batched", "core")
    ),
]
HOW = st.fixed_dictionaries(
    {
        "overlap": st.sampled_from(["iou", "candidate"]),
        "length_offset": st.sampled_from([0.0, 1.0]),
        "area_eps": st.sampled_from([0.0, 0.5]),
    }
)
# the fixture is a block around all examples, which is what is wanted
FEW = settings(max_examples=40, suppress_health_check=[*HealthCheck])


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=BACKENDS)
def place(request):
    """A device, within a block in which the backend is chosen."""
    name, device = request.param
    with tpt.backend(name):
        yield torch.device(device)


def literal(how):
    return {"kind": how["overlap"], "length_offset": how["length_offset"], "area_eps": how["area_eps"]}


def tensors(place, *arrays):
    return [None if array is None else torch.from_numpy(np.array(array)).to(place) for array in arrays]


def same(found, expected, atol=1e-12):
    """Tensors or objects of them against arrays or those of the core: integers equal, floats to `atol`, dtypes kept."""
    if isinstance(found, torch.Tensor):
        found = found.cpu().numpy()
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        if found.dtype.kind == "f":
            assert_allclose(found, expected, rtol=1e-12, atol=atol)
        else:
            assert_array_equal(found, expected)
    elif isinstance(expected, tuple):
        for one, other in zip(found, expected):
            same(one, other, atol)
    else:
        assert type(found.numpy()) is type(expected)
        for name in type(expected).__dataclass_fields__:
            one, other = getattr(found, name), getattr(expected, name)
            if isinstance(other, dict):
                assert list(one) == list(other)
                same(tuple(one.values()), tuple(other.values()), atol)
            elif isinstance(other, np.ndarray):
                same(one, other, atol)
            else:
                assert one == other


# --------------------------------------------------------------------------------------------- against the oracles


@FEW
@given(rows=segment_sets(groups=3), threshold=tiou_thresholds, inclusive=st.booleans(), how=HOW)
def test_nms_equals_oracle(place, rows, threshold, inclusive, how):
    segments, scores, idxs = rows
    inclusive = inclusive and threshold > 0
    for groups, most in ((None, None), (idxs, None), (idxs, 2)):
        expected = oracle.nms(segments, scores, threshold, groups, inclusive, most, **literal(how))
        x, y, z = tensors(place, segments, scores, groups)
        options = {"tiou_threshold": threshold, "inclusive": inclusive, "max_detections": most, **how}
        found = tpt.nms(x, y, idxs=z, **options)
        assert found.dtype == torch.int64
        assert found.device.type == place.type
        assert found.tolist() == list(expected)
        if groups is not None and how == {"overlap": "iou", "length_offset": 0.0, "area_eps": 0.0} and not inclusive:
            assert tpt.batched_nms(x, y, z, threshold).tolist()[:most] == list(expected)


@FEW
@given(a=segment_sets(), b=segment_sets(), how=HOW)
def test_tiou_matrix_equals_oracle(place, a, b, how):
    found = tpt.tiou_matrix(*tensors(place, a[0], b[0]), **how)
    assert_array_equal(found.cpu().numpy(), oracle.overlap_matrix(a[0], b[0], **literal(how)))


@FEW
@given(
    rows=segment_sets(groups=3),
    method=st.sampled_from(
        [
            {"method": "gaussian", "sigma": 0.5},
            {"method": "linear", "tiou_threshold": 0.5},
            {"method": "gated", "gate": (0.25, 0.125)},
            {"method": "improved", "gate": (0.25, 0.125), "sigma": 0.25},
        ]
    ),
    options=st.sampled_from([{}, {"min_score": 0.25}, {"min_score": 0.5, "keep_first": True}, {"max_detections": 3}]),
    how=HOW,
)
def test_soft_nms_equals_oracle(place, rows, method, options, how):
    segments, scores, idxs = rows
    for groups, shift, raises in ((None, 0.0, False), (idxs, 0.0, False), (idxs, 0.5, True), (None, 0.5, True)):
        mine = {**method, **options, "decay_negative": raises}
        theirs = {("threshold" if key == "tiou_threshold" else key): value for key, value in mine.items()}
        rows_, values = oracle.soft_nms(segments, scores - shift, idxs=groups, **theirs, **literal(how))
        x, y, z = tensors(place, segments, scores - shift, groups)
        keep, new_scores = tpt.soft_nms(x, y, idxs=z, **mine, **how)
        assert keep.tolist() == list(rows_)
        assert_allclose(new_scores.cpu().numpy(), values, rtol=1e-12, atol=1e-15)


@FEW
@given(
    rows=segment_sets(groups=3),
    kept=segment_sets(max_size=5, groups=4),
    threshold=st.sampled_from([0.25, 0.5, 1.0]),
    times_iou=st.booleans(),
    how=HOW,
)
def test_voting_equals_oracle(place, rows, kept, threshold, times_iou, how):
    segments, scores, idxs = rows
    for groups in ((None, None), (kept[2], idxs)):
        expected = oracle.vote(kept[0], segments, scores, threshold, times_iou, *groups, **literal(how))
        k, x, y, kz, z = tensors(place, kept[0], segments, scores, *groups)
        options = {"tiou_threshold": threshold, "times_iou": times_iou, **how}
        found = tpt.segment_voting(k, x, y, kept_idxs=kz, idxs=z, **options)
        assert_allclose(found.cpu().numpy(), expected, rtol=0, atol=1e-12)


@FEW
@given(
    rows=segment_sets(groups=3),
    threshold=tiou_thresholds,
    temperature=st.sampled_from([0.0016, 0.1, 1.0]),
    how=HOW,
    distribution=st.sampled_from(["gaussian", "exponential", "uniform", "student_t"]),
)
def test_fusion_equals_oracle_and_core(place, rows, threshold, temperature, how, distribution):
    segments, scores, idxs = rows
    options = {"tiou_threshold": threshold, "temperature": temperature, "distribution": distribution, **how}
    for groups, weights, inclusive in ((None, None, False), (idxs, scores[::-1].copy(), threshold > 0)):
        x, y, z, w = tensors(place, segments, scores, groups, weights)
        found = tpt.fuse_segments(x, y, idxs=z, weights=w, inclusive=inclusive, **options)
        core = tpp.fuse_segments(segments, scores, idxs=groups, weights=weights, inclusive=inclusive, **options)
        same(found, core, atol=1e-7)  # of spreads, which are roots; centres are told to 1e-12 below
        if distribution == "student_t":
            continue
        clusters = oracle.fuse(
            segments, scores, threshold, temperature, distribution, weights, groups, inclusive, **literal(how)
        )
        assert found.picks.tolist() == [one["members"][0] for one in clusters]
        if clusters:
            assert_allclose(found.segments.cpu().numpy(), [one["segment"] for one in clusters], rtol=0, atol=1e-12)
            assert_allclose(found.scores.cpu().numpy(), [one["score"] for one in clusters], rtol=0, atol=1e-12)


@FEW
@given(
    models=st.lists(segment_sets(max_size=5, groups=2), min_size=1, max_size=3),
    threshold=st.sampled_from([0.0, 0.4, 0.55]),
    conf_type=st.sampled_from(["avg", "max", "box_and_model_avg", "absent_model_aware_avg"]),
    least=st.sampled_from([0.0, 0.25]),
    overflow=st.booleans(),
)
def test_weighted_fusion_equals_oracle(place, models, threshold, conf_type, least, overflow):
    omega = [2.0, 1.0, 0.5][: len(models)]
    overflow = overflow and conf_type == "avg"
    lists = [[tensors(place, model[column])[0] for model in models] for column in range(3)]
    options = {"tiou_threshold": threshold, "min_score": least, "conf_type": conf_type, "allows_overflow": overflow}
    found = tpt.weighted_segment_fusion(*lists, model_weights=omega, **options)
    arrays = [[model[column] for model in models] for column in range(3)]
    expected = oracle.weighted_segment_fusion(*arrays, omega, threshold, least, conf_type, overflow)
    mine = np.column_stack([one.cpu().numpy() for one in (found.labels, found.scores, found.segments)])
    assert_allclose(mine, np.array(expected, dtype=float).reshape(-1, 4), rtol=0, atol=1e-12)
    same(found, tpp.weighted_segment_fusion(*arrays, model_weights=omega, **options))


# ------------------------------------------------------------------------------------------------ against the core


@FEW
@given(
    tcam=tcams(),
    thresholds=st.lists(st.sampled_from([-0.25, 0.0, 0.125, 0.5, 0.5, 0.75]), max_size=4),
    options=st.fixed_dictionaries(
        {
            "relative": st.sampled_from(["absolute", "times_mean", "below_max"]),
            "inclusive": st.booleans(),
            "positive": st.booleans(),
            "normalize": st.sampled_from(["none", "minmax", "minmax_relu"]),
            "clip": st.booleans(),
            "upsample": st.sampled_from([1, 2, 4]),
            "min_length": st.sampled_from([1, 3]),
            "extend_end": st.sampled_from([0, 1, -1]),
            "skip_lone_first": st.booleans(),
            "extrapolate": st.booleans(),
            "dilate": st.integers(0, 4),
        }
    ),
    turn=st.booleans(),
)
def test_extraction_equals_the_core(place, tcam, thresholds, options, turn):
    if options["relative"] == "times_mean" and options["normalize"] != "none":
        options["normalize"] = "none"  # else a mean may differ in its last digit, and a value may equal it
    classes = np.arange(tcam.shape[1])[::-1] if turn else None
    expected = tpp.extract_proposals(tcam, thresholds, classes=classes, **options)
    chosen = None if classes is None else classes.tolist()
    found = tpt.extract_proposals(tensors(place, tcam)[0], thresholds, classes=chosen, **options)
    same(found, expected)
    assert_array_equal(found.segments.cpu().numpy(), expected.segments)
    for goes_on in (True, False):
        fine = tpt.upsample_tcam(tensors(place, tcam)[0], 3, extrapolate=goes_on)
        same(fine, tpp.upsample_tcam(tcam, 3, extrapolate=goes_on))


@FEW
@given(
    tcam=tcams(),
    options=st.fixed_dictionaries(
        {
            "layout": st.sampled_from(["symmetric", "oic_a", "oic_b", "cmcs"]),
            "denominator": st.sampled_from(["pooled", "fixed"]),
            "inner": st.sampled_from(["mean", "max", "none"]),
            "margin_scale": st.sampled_from([0.0, 0.25, 1.0]),
            "margin_power": st.sampled_from([1.0, 0.9]),
            "outer_weight": st.sampled_from([1.0, 0.6]),
            "inclusive": st.booleans(),
            "extend_end": st.sampled_from([0, 1]),
        }
    ),
    zeroed=st.booleans(),
    weight=st.sampled_from([0.0, 0.5]),
)
def test_contrast_equals_the_core(place, tcam, options, zeroed, weight):
    rows = tpp.extract_proposals(tcam, [0.25, 0.5], extend_end=options["extend_end"])
    of_video = np.arange(tcam.shape[1]) / 4
    below = rows.columns["threshold"] if zeroed else None
    expected = tpp.oic_scores(tcam, rows, zero_below=below, video_scores=of_video, video_weight=weight, **options)
    x, segments, labels, y, z = tensors(place, tcam, rows.segments, rows.labels, of_video, below)
    options = {"zero_below": z, "video_scores": y, "video_weight": weight, **options}
    same(tpt.oic_scores(x, tpt.Segments(segments, labels), **options), expected)
    same(tpt.oic_scores(x, segments, labels, **options), expected)


@given(rows=segment_sets(), duration=st.sampled_from([None, 3.5]), warped=st.booleans())
@FEW
def test_seconds_equal_the_core(place, rows, duration, warped):
    warp = ([0.0, 2.0, 4.0], [0.0, 1.0, 4.0]) if warped else None
    found = tpt.segments_to_seconds(tensors(place, rows[0])[0], 0.64, duration=duration, warp=warp)
    assert_array_equal(found.cpu().numpy(), tpp.segments_to_seconds(rows[0], 0.64, duration=duration, warp=warp))


@FEW
@given(
    rows=segment_sets(groups=3, scores=st.integers(-2, 8).map(lambda k: k / 8)),
    length=st.integers(12, 20),
    known=st.sampled_from([None, [1], [True, False, True], []]),
    width=st.sampled_from([0.25, 1.0]),
    weighted=st.booleans(),
    spread=st.sampled_from([0.0, 1.0, 2.5]),
    least=st.sampled_from([None, 0.25]),
)
def test_label_maps_equal_the_core(place, rows, length, known, width, weighted, spread, least):
    segments, scores, labels = rows
    spreads = {"start_std": np.abs(segments[:, 0]) / 4, "end_std": scores**2}
    core = tpp.Segments(segments, labels, scores, columns=spreads)
    mine = tpt.Segments.from_numpy(core, place)
    if (segments[:, 1] < 0).any() or (segments[:, 0] > length).any():
        with pytest.raises(ValueError, match="must touch the video") as expected:
            tpp.hard_label_map(core, length, 3)
        with pytest.raises(ValueError, match="must touch the video") as found:
            tpt.hard_label_map(mine, length, 3)
        assert str(found.value) == str(expected.value)
        return
    expected = [
        tpp.hard_label_map(core, length, 3, known_labels=known),
        tpp.score_label_map(core, length, 3, known_labels=known),
        tpp.gaussian_label_map(core, length, 3, known_labels=known, width=width, weighted=weighted),
        tpp.tri_state_label_map(core, length, 3, known_labels=known, spread=spread, min_score=least),
        tpp.tri_state_label_map(core, length, 3, start_std=np.ones(len(core))),
    ]
    found = [
        tpt.hard_label_map(mine, length, 3, known_labels=known),
        tpt.score_label_map(mine, length, 3, known_labels=known),
        tpt.gaussian_label_map(mine, length, 3, known_labels=known, width=width, weighted=weighted),
        tpt.tri_state_label_map(mine, length, 3, known_labels=known, spread=spread, min_score=least),
        tpt.tri_state_label_map(mine, length, 3, start_std=torch.ones(len(core), device=place)),
    ]
    same(tuple(found), tuple(expected))


@FEW
@given(
    tcam=tcams(),
    options=st.sampled_from(
        [
            {"action_threshold": 0.5, "background_threshold": 0.25},
            {"action_threshold": 0.5, "background_threshold": 0.25, "background": "first"},
            {"action_threshold": 0.5, "background_threshold": 0.25, "background": "last", "background_rule": "own"},
            {"action_threshold": 0.25, "known_labels": []},
        ]
    ),
    kernel=st.sampled_from([(0.075, 0.85, 0.075), (0.0, 1.0, 2.0), (1.0,), (1.0, 2.0, 4.0, 0.0, 0.5)]),
)
def test_labels_of_activations_equal_the_core(place, tcam, options, kernel):
    (x,) = tensors(place, tcam)
    same(tpt.two_threshold_label_map(x, **options), tpp.two_threshold_label_map(tcam, **options))
    same(tpt.smooth_label_map(x, kernel=kernel), tpp.smooth_label_map(tcam, kernel=kernel))
    same(tpt.smooth_label_map(x[:, 0]), tpp.smooth_label_map(tcam[:, 0]))


def test_negative_spreads_are_refused(place):
    mine = tpt.Segments(torch.tensor([[1.0, 4.0]], device=place))
    below = torch.tensor([-1.0], device=place)
    with pytest.raises(ValueError, match=r"`end_std` must be >= 0; row 0 is -1 \(1 of 1 rows\)"):
        tpt.tri_state_label_map(mine, 8, 1, start_std=-below, end_std=below)


def test_labels_without_snippets_or_instances(place):
    one, none = tpp.Segments([[0.0, 0.0]]), tpp.Segments(np.empty((0, 2)))
    for core, shape in ((one, (0, 1)), (none, (4, 2)), (none, (0, 0)), (one, (1, 1))):
        mine = tpt.Segments.from_numpy(core, place)
        for name in ("hard_label_map", "score_label_map", "gaussian_label_map"):
            same(getattr(tpt, name)(mine, *shape), getattr(tpp, name)(core, *shape))


def test_evaluation_is_that_of_the_core(place):
    core = tpp.Segments([[1.0, 4.0], [2.0, 6.0]], [0, 1], [0.8, 0.5])
    mine = tpt.Segments.from_numpy(core, place)
    same(tpt.filter_ambiguous(mine, mine), tpp.filter_ambiguous(core, core))
    assert tpt.mean_average_precision(mine, mine).average == 1.0
    flat = {"segments": mine.segments, "labels": mine.labels, "scores": mine.scores, "video": ["a", "a"]}
    assert tpt.mean_average_precision(flat, flat).average == 1.0
    assert tpt.average_recall(mine, mine).area == tpp.average_recall(core, core).area
    scores = torch.tensor([[0.75, 0.1], [0.05, 0.5]], device=place)
    assert tpt.classification_map(scores, scores > 0.3).average == 1.0
    assert tpt.pseudo_label_quality(tpt.hard_label_map(mine, 8, 2), mine).precision == 1.0


# ---------------------------------------------------------------------------------------- tensors as they come along


DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def calls():
    """Every function of rows and of maps: name, and how to call it with rows, scores, groups and a map."""
    how = {"tiou_threshold": 0.5}
    return {
        "tiou_matrix": lambda x, y, z, m: tpt.tiou_matrix(x, x),
        "nms": lambda x, y, z, m: tpt.nms(x, y, idxs=z, **how),
        "batched_nms": lambda x, y, z, m: tpt.batched_nms(x, y, z, 0.5),
        "soft_nms": lambda x, y, z, m: tpt.soft_nms(x, y, idxs=z),
        "segment_voting": lambda x, y, z, m: tpt.segment_voting(x, x, y, kept_idxs=z, idxs=z, **how),
        "fuse_segments": lambda x, y, z, m: tpt.fuse_segments(x, y, idxs=z, temperature=0.5, **how),
        "weighted_segment_fusion": lambda x, y, z, m: tpt.weighted_segment_fusion([x, x], [y, y], [z, z]),
        "upsample_tcam": lambda x, y, z, m: tpt.upsample_tcam(m, 2),
        "extract_proposals": lambda x, y, z, m: tpt.extract_proposals(m, [0.25, 0.5]),
        "oic_scores": lambda x, y, z, m: tpt.oic_scores(m, tpt.Segments(x.detach().abs().sort(1).values, z)),
        "segments_to_seconds": lambda x, y, z, m: tpt.segments_to_seconds(x, 0.5),
        "smooth_label_map": lambda x, y, z, m: tpt.smooth_label_map(m),
    }


ROWS = [[-2.0, 4.0], [-1.0, 4.0], [2.5, 6.0], [2.5, 6.0], [1.0, 1.0]]
MAP = [[0.125, 0.5], [0.5, 0.75], [0.875, 0.25], [0.25, 0.5], [0.75, 0.0], [0.0, 0.5]]


def parts_of(result):
    """All tensors of a result."""
    return list(_bridge.tensors_in(result))


@pytest.mark.parametrize("name", calls())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes_history_and_strides_change_nothing(place, name, dtype):
    call = calls()[name]
    x, y, z, m = (
        torch.tensor(ROWS, dtype=dtype, device=place),
        torch.tensor([0.5, 0.75, 0.5, 0.25, 0.5], dtype=dtype, device=place),
        torch.tensor([0, 0, 1, 1, 0], device=place),
        torch.tensor(MAP, dtype=dtype, device=place),
    )
    before = [one.clone() for one in (x, y, z, m)]
    exact = parts_of(call(x.double(), y.double(), z, m.double()))
    for given_ in (
        (x, y, z, m),
        (x.clone().requires_grad_(), y.clone().requires_grad_(), z, m.clone().requires_grad_()),
        (x.T.contiguous().T, y.repeat_interleave(2)[::2], z.repeat_interleave(2)[::2], m.T.contiguous().T),
    ):
        found = parts_of(call(*given_))
        assert len(found) == len(exact)
        for one, other in zip(found, exact):
            assert one.device.type == place.type
            assert one.dtype == (dtype if other.is_floating_point() else other.dtype)
            assert torch.equal(one.detach(), other.to(one.dtype))
    assert all(torch.equal(one, other) for one, other in zip((x, y, z, m), before))


@pytest.mark.parametrize("name", calls())
def test_nothing_gives_well_shaped_nothing(place, name):
    x, y, z = torch.zeros(0, 2, device=place), torch.zeros(0, device=place), torch.zeros(0, device=place).long()
    for m in (torch.zeros(0, 2, device=place), torch.zeros(6, 0, device=place)):
        if name == "oic_scores" and m.shape[1] == 0:
            continue
        found = parts_of(calls()[name](x, y, z, m))
        assert all(one.numel() == 0 or one.tolist() == [0, 0] for one in found)
        assert all(one.dtype == torch.float32 for one in found if one.is_floating_point())


def test_float64_on_the_cpu_is_not_copied(monkeypatch):
    """The core gets the tensors' own memory, and makes canonical arrays of it without a copy."""
    seen = {}
    original = tpp._checks.as_segments
    monkeypatch.setattr(tpp._checks, "as_segments", lambda value, *rest: seen.setdefault("x", original(value, *rest)))
    x, y = torch.tensor(ROWS, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    tpt.nms(x, y, tiou_threshold=0.5)
    assert seen["x"].ctypes.data == x.data_ptr()
    seen.clear()
    tpt.nms(x.requires_grad_(), y, tiou_threshold=0.5)
    assert seen["x"].ctypes.data == x.data_ptr()


def test_results_do_not_share_memory_with_inputs(place):
    x, m = torch.tensor(ROWS, device=place).double(), torch.tensor(MAP, device=place).double()
    column = m[:, 0].contiguous()
    for given_, found in (
        (m, tpt.upsample_tcam(m, 1)),
        (m[:, :1], tpt.upsample_tcam(m[:, :1], 1)),
        (column, tpt.upsample_tcam(column, 1)),
        (x, tpt.segments_to_seconds(x, 1.0)),
        (x, tpt.segment_voting(x, x[:0], x[:0, 0], tiou_threshold=0.5)),
    ):
        before = given_.clone()
        found.zero_()
        assert torch.equal(given_, before)


def test_one_huge_group_among_tiny_ones(place):
    rng = np.random.default_rng(3)
    idxs = np.concatenate([np.zeros(700, np.int64), rng.integers(1, 200, 500)])
    start = rng.integers(-40, 400, 1200) / 2
    segments = np.stack((start, start + rng.integers(0, 60, 1200) / 2), 1)
    scores = rng.integers(0, 32, 1200) / 32
    x, y, z = tensors(place, segments, scores, idxs)
    assert_array_equal(
        tpt.nms(x, y, tiou_threshold=0.4, idxs=z).cpu(), tpp.nms(segments, scores, tiou_threshold=0.4, idxs=idxs)
    )
    options = {"tiou_threshold": 0.4, "temperature": 0.1}
    same(tpt.fuse_segments(x, y, idxs=z, **options), tpp.fuse_segments(segments, scores, idxs=idxs, **options), 1e-7)
    keep, new_scores = tpt.soft_nms(x, y, idxs=z, max_detections=50)
    same((keep, new_scores), tpp.soft_nms(segments, scores, idxs=idxs, max_detections=50))


@pytest.mark.parametrize("name", ["nms", "soft_nms", "segment_voting", "fuse_segments", "extract_proposals"])
def test_two_runs_give_the_same_bits_under_deterministic_algorithms(place, name):
    rng = np.random.default_rng(4)
    start = rng.uniform(-5, 100, 300)
    x, y = (
        torch.tensor(np.stack((start, start + 7.3), 1), device=place),
        torch.tensor(rng.uniform(size=300), device=place),
    )
    z, m = torch.tensor(rng.integers(0, 9, 300), device=place), torch.tensor(rng.uniform(size=(80, 3)), device=place)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (parts_of(calls()[name](x, y, z, m)) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(one, other) for one, other in zip(first, second))


# ------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"distribution": "uniform"},
        {"distribution": "exponential"},
        {"signed_denominator": True},
        {"idxs": torch.tensor([0, 0, 0, 1, 1, 0])},
    ],
    ids=lambda options: next(iter(options), "gaussian"),
)
def test_fusion_can_be_differentiated(place, options):
    """Finite differences agree: the clusters do not change within their reach."""
    x = torch.tensor(
        [[0.1, 10.2], [2.3, 10.9], [0.7, 11.6], [20.0, 30.0], [21.5, 29.0], [1.1, 9.3]], dtype=torch.float64
    )
    y = torch.tensor([0.9, 0.45, 0.31, 0.4, 0.38, 0.27], dtype=torch.float64)
    w = torch.tensor([0.3, 0.5, 0.2, -0.1, 0.4, 0.45], dtype=torch.float64)
    x, y, w = (one.to(place).requires_grad_() for one in (x, y, w))
    options = {key: value.to(place) if isinstance(value, torch.Tensor) else value for key, value in options.items()}
    options = {"tiou_threshold": 0.5, "temperature": 0.3, **options}

    def fused(x, y, w):
        found = tpt.fuse_segments(x, y, weights=w, **options)
        return found.segments, found.scores

    assert torch.autograd.gradcheck(fused, (x, y, w))
    assert torch.autograd.gradcheck(lambda x, y: tpt.fuse_segments(x, y, **options).segments, (x, y))
    (gradient,) = torch.autograd.grad(fused(x, y, w)[0].sum(), x)
    assert_allclose(gradient.sum(0).cpu(), [2.0, 2.0] if "signed_denominator" not in options else gradient.sum(0).cpu())


def test_values_with_a_gradient_are_those_without(place):
    x, y = torch.tensor(ROWS, device=place), torch.tensor([0.5, 0.75, 0.5, 0.25, 0.5], device=place)
    for distribution in ("gaussian", "exponential", "student_t", "uniform"):
        options = {"tiou_threshold": 0.3, "temperature": 0.2, "distribution": distribution}
        plain = tpt.fuse_segments(x, y, **options)
        graph = tpt.fuse_segments(x.clone().requires_grad_(), y, **options)
        assert graph.segments.requires_grad == (distribution != "student_t")
        assert torch.equal(graph.segments.detach(), plain.segments)
        assert not graph.start_std.requires_grad
        with torch.no_grad():
            assert not tpt.fuse_segments(x.clone().requires_grad_(), y, **options).segments.requires_grad


# ----------------------------------------------------------------------------------------- signatures, errors, backends


def test_signatures_are_those_of_the_core():
    for name in tpp._checks.TENSOR_TWINS & set(tpt.__all__):
        if inspect.isfunction(getattr(tpt, name)):
            ours, core = (
                [(p.name, p.kind, p.default) for p in inspect.signature(getattr(module, name)).parameters.values()]
                for module in (tpt, tpp)
            )
            if ours[-1][1] is inspect.Parameter.VAR_KEYWORD:  # handed on by name
                ours, core = ours[:-1], core[: len(ours) - 1]
            assert ours == core, name


NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("nms", {"segments": [[0.0, 1.0], [NAN, 1.0]]}),
        ("nms", {"segments": [[0.0, 1.0], [2.0, 1.0]]}),
        ("nms", {"segments": [[0.0, 1.0, 2.0]]}),
        ("nms", {"scores": [0.5]}),
        ("nms", {"scores": [0.5, 1e200]}),
        ("nms", {"idxs": [0.5, 0.0]}),
        ("nms", {"tiou_threshold": 2.0}),
        ("nms", {"tiou_threshold": 0.0, "inclusive": True}),
        ("nms", {"max_detections": -1}),
        ("nms", {"overlap": "giou"}),
        ("nms", {"length_offset": -1.0}),
        ("soft_nms", {"sigma": 0.0}),
        ("soft_nms", {"method": "linear"}),
        ("soft_nms", {"gate": (0.5, 0.1)}),
        ("soft_nms", {"segments": [[0.0, float("inf")], [0.0, 1.0]]}),
        ("fuse_segments", {"temperature": 0.0}),
        ("fuse_segments", {"scale": "fit"}),
        ("fuse_segments", {"weights": [1.0]}),
        ("fuse_segments", {"distribution": "uniform", "signed_denominator": True}),
        ("segment_voting", {"idxs": [0, 0]}),
        ("weighted_segment_fusion", {"scores_list": [[0.5, -0.5]]}),
        ("weighted_segment_fusion", {"labels_list": [[0, -1]]}),
        ("weighted_segment_fusion", {"model_weights": [0.0]}),
        ("weighted_segment_fusion", {"conf_type": "max", "allows_overflow": True}),
        ("weighted_segment_fusion", {"scores_list": []}),
        ("extract_proposals", {"tcam": [[0.5], [NAN]]}),
        ("extract_proposals", {"thresholds": [NAN]}),
        ("extract_proposals", {"classes": [1]}),
        ("extract_proposals", {"relative": "no"}),
        ("oic_scores", {"segments": [[0.0, 9.0]]}),
        ("oic_scores", {"labels": [3]}),
        ("oic_scores", {"video_weight": 1.0}),
        ("oic_scores", {"zero_below": [0.5, 0.5]}),
        ("upsample_tcam", {"factor": 0}),
        ("segments_to_seconds", {"seconds_per_snippet": 0.0}),
        ("tiou_matrix", {"b": [[1.0, 0.0]]}),
        ("smooth_label_map", {"kernel": [0.5, 0.5]}),
        ("smooth_label_map", {"labels": [0.5, NAN]}),
        ("two_threshold_label_map", {"background_rule": "own"}),
        ("two_threshold_label_map", {"tcam": [0.5]}),
    ],
)
def test_errors_are_those_of_the_core(place, name, change):
    rows = {"segments": [[0.0, 1.0], [0.0, 2.0]], "scores": [0.5, 0.25]}
    given_ = {
        "nms": {**rows, "tiou_threshold": 0.5},
        "soft_nms": rows,
        "fuse_segments": {**rows, "tiou_threshold": 0.5, "temperature": 0.5},
        "segment_voting": {"kept_segments": rows["segments"], **rows, "tiou_threshold": 0.5},
        "weighted_segment_fusion": {
            "segments_list": [rows["segments"]],
            "scores_list": [rows["scores"]],
            "labels_list": [[0, 0]],
        },
        "extract_proposals": {"tcam": [[0.5], [0.75]], "thresholds": [0.5]},
        "oic_scores": {"tcam": [[0.5], [0.75]], "segments": [[0.0, 1.0]], "labels": [0]},
        "upsample_tcam": {"tcam": [0.5]},
        "segments_to_seconds": {"segments": rows["segments"]},
        "tiou_matrix": {"a": rows["segments"]},
        "smooth_label_map": {"labels": [0.5, 0.25]},
        "two_threshold_label_map": {"tcam": [[0.5]]},
    }[name] | change
    small = ("thresholds", "classes", "model_weights", "gate", "kernel")

    def placed(key, value):
        if key in small or not isinstance(value, list):
            return value
        if key.endswith("_list"):
            return [torch.tensor(one, device=place) for one in value]
        return torch.tensor(value, dtype=torch.float64 if key != "idxs" else None, device=place)

    mine = {key: placed(key, value) for key, value in given_.items()}
    theirs = {
        key: [one.cpu().numpy() for one in value]
        if key.endswith("_list")
        else value.cpu().numpy()
        if isinstance(value, torch.Tensor)
        else value
        for key, value in mine.items()
    }
    with pytest.raises((ValueError, TypeError)) as expected:
        getattr(tpp, name)(**theirs)
    with pytest.raises(expected.type) as found:
        getattr(tpt, name)(**mine)
    assert str(found.value) == str(expected.value)


def test_the_backend_is_the_one_that_was_asked_for(monkeypatch):
    called = []
    original = _bridge.as_array
    monkeypatch.setattr(_bridge, "as_array", lambda tensor: called.append(tensor) or original(tensor))
    x, y = torch.tensor(ROWS), torch.rand(5)

    @contextmanager
    def counted(expected):
        called.clear()
        yield
        assert bool(called) == expected

    with counted(True):
        tpt.nms(x, y, tiou_threshold=0.5)
    with counted(False), tpt.backend("batched"):
        tpt.nms(x, y, tiou_threshold=0.5)
    with counted(True), tpt.backend("batched"), tpt.backend("core"):
        tpt.nms(x, y, tiou_threshold=0.5)
    with pytest.raises(ValueError, match="`name` must be one of 'auto', 'core', 'batched', 'triton', got 'cuda'"):
        tpt.backend("cuda").__enter__()
    assert _bridge.works_on(torch.device("cpu")) == "core"
    for version, expected in (("3.4.0", "triton"), ("3.1.0", "batched"), (None, "batched")):
        triton = None if version is None else SimpleNamespace(__version__=version)  # None: it is not installed
        monkeypatch.setitem(sys.modules, "triton", triton)
        _bridge.has_triton.cache_clear()
        assert _bridge.works_on(torch.device("cuda")) == expected
    _bridge.has_triton.cache_clear()
    assert _bridge.works_on(torch.device("xpu")) == "batched"
    assert _bridge.works_on(torch.device("mps")) == "core"


def test_segments_go_to_numpy_and_back():
    core = tpp.Segments(
        [[0, 1], [2, 3], [4, 5]], [0, 1, 0], offsets=[0, 1, 3], video_ids=["a", "b"], columns={"inner": [1.0, 2.0, 3.0]}
    )
    mine = tpt.Segments.from_numpy(core, dtype=torch.float32)
    assert mine.segments.dtype == torch.float32
    same(mine.to(dtype=torch.float64), core)
    same(mine.to(dtype=torch.float64).video("b"), core.video("b"))
    same(next(mine.to(dtype=torch.float64).split()), core.video(0))
    same(mine.to(dtype=torch.float64).to_seconds([0.5, 2.0]), core.to_seconds([0.5, 2.0]))
    assert_array_equal(mine.video_index, core.video_index)
    with pytest.raises(tpp.UnitError):
        mine.require_unit("second")
    with pytest.raises(ValueError, match=r"`scores` must have 1 rows, got shape \(2,\)"):
        tpt.Segments(torch.zeros(1, 2), scores=torch.zeros(2))
    with pytest.raises(ValueError, match=r"`segments` must have shape \(N, 2\)"):
        tpt.Segments(torch.zeros(1, 3))
    assert len(tpt.Segments(torch.zeros(0))) == 0


def test_the_page_shows_every_name():
    page = (Path(__file__).parents[1] / "docs" / "api" / "torch.md").read_text(encoding="utf-8")
    assert not [name for name in tpt.__all__ if f" tal_postproc.torch.{name}\n" not in page]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nms", "soft_nms", "fuse_segments", "segment_voting"])
def test_two_million_groups(place, name):
    """One launch per bucket, not one per group."""
    rng, count = np.random.default_rng(0), 2_000_000
    idxs = np.concatenate((np.arange(count), rng.integers(0, count, 400_000), np.full(3000, 7)))
    start = rng.integers(0, 40, len(idxs)) / 2
    segments, scores = np.stack((start, start + 5), 1), rng.integers(0, 64, len(idxs)) / 64
    x, y, z = tensors(place, segments, scores, idxs)
    if name == "segment_voting":
        options = {"tiou_threshold": 0.5}
        found = tpt.segment_voting(x[:5000], x, y, kept_idxs=z[:5000], idxs=z, **options)
        same(found, tpp.segment_voting(segments[:5000], segments, scores, kept_idxs=idxs[:5000], idxs=idxs, **options))
        return
    options = {
        "nms": {"tiou_threshold": 0.5},
        "soft_nms": {"method": "linear", "tiou_threshold": 0.25},  # without exp(), whose last digit differs
        "fuse_segments": {"tiou_threshold": 0.5, "temperature": 1},
    }
    same(
        getattr(tpt, name)(x, y, idxs=z, **options[name]),
        getattr(tpp, name)(segments, scores, idxs=idxs, **options[name]),
        atol=1e-7,
    )
