"""LinPro for tensors: the core's answers on every backend, its certificates, and that nothing depends on the batch."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import tal_postproc as tpp
from tal_postproc import Segments, linpro
from tal_postproc._kernels import simplex as kernels
from tal_postproc.config import LinPro

from .oracles import linpro as oracle
from .strategies import segment_sets
from .test_linpro import NESTED, OPTIONS, PUBLISHED, SCORES, matrix, some_videos

torch = pytest.importorskip("torch")
import tal_postproc.torch as tpt  # noqa: E402
from tal_postproc.torch import _ragged, _simplex  # noqa: E402
from tal_postproc.torch.linpro import STATES, _in_order, _per_group, label_maps  # noqa: E402

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_gpu])]
EIGHTHS = st.integers(-2, 8).map(lambda k: k / 8)


@pytest.fixture(autouse=True)
def batched():
    """One thread, no operation without a promise of determinism, and the batched backend."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    with tpt.backend("batched"):
        yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture(params=DEVICES)
def device(request):
    return torch.device(request.param)


def on(device, *arrays):
    return [torch.tensor(np.asarray(one), device=device) for one in arrays]


def labels_of(segments, scores, num_snippets, device="cpu", **options):
    rows = torch.tensor(np.asarray(segments, float).reshape(-1, 2), device=device)
    return tpt.linpro_labels(rows, torch.tensor(np.asarray(scores, float), device=device), num_snippets, **options)


def same_answer(found, expected, selection="min_norm"):
    """What is unique agrees: everything for "min_norm", for a vertex all but the labels."""
    unit = max(1.0, np.abs(expected.labels).max(initial=0))
    assert found.labels.shape == expected.labels.shape
    assert found.labels.dtype == torch.float64
    if selection == "min_norm":
        assert_allclose(found.labels.cpu(), expected.labels, rtol=0, atol=1e-9 * unit)
    assert found.status == expected.status
    assert found.uncertified == expected.uncertified
    assert sum(found.solved.values()) == sum(expected.solved.values())
    for name in ("objective", "violation"):
        one, other = torch.as_tensor(getattr(found, name), dtype=torch.float64).cpu(), getattr(expected, name)
        assert_allclose(one, other, rtol=1e-9, atol=1e-9 * unit, err_msg=name)
    assert (torch.as_tensor(found.gap) <= 1e-8).all()


def stress_videos(seeds, largest, **chosen):
    """The stress systems with these options as videos of one class: (videos, lengths, seeds)."""
    found, lengths, kept = [], [], []
    for seed in seeds:
        segments, scores, num_snippets, options = oracle.stress(seed, largest)
        if all(options[name] == value for name, value in chosen.items()):
            found.append(Segments(segments, scores=scores))
            lengths.append(num_snippets)
            kept.append(seed)
    return Segments.concatenate(found), lengths, kept


# -------------------------------------------------------------------------------------------------------- as the core


@pytest.mark.parametrize("selection", ["min_norm", "vertex"])
@pytest.mark.parametrize("upper_bound", [1.0, None, 0.3, 2.0])
@pytest.mark.parametrize("normalization", ["mean", "sum"])
def test_stress(normalization, upper_bound, selection, device):
    """Systems of every awkward kind, those with the same options in one call."""
    how = {"normalization": normalization, "upper_bound": upper_bound}
    solved = dict.fromkeys(linpro._SOLVERS, 0)
    for layout in ("symmetric", "gaufuse"):
        for margin in ((0.25, 1.0), (0.0785, 0.9)):
            options = {**how, "layout": layout, "margin_scale": margin[0], "margin_power": margin[1]}
            videos, lengths, seeds = stress_videos(range(300), 32, **options)
            expected = tpp.linpro_label_maps(videos, lengths, 1, selection=selection, **options)
            rows = tpt.Segments.from_numpy(videos, device)
            found = tpt.linpro_label_maps(rows, lengths, 1, selection=selection, **options)
            for one, other, seed in zip(found, expected, seeds):
                try:
                    same_answer(one, other, selection)
                except AssertionError as error:
                    raise AssertionError(f"oracle.stress({seed}, 32): {error}") from error
                for name in solved:
                    solved[name] += one.solved[name]
    assert solved["simplex"] > 5


def test_the_batch_settles_what_it_takes():
    """Of the components of at most 16 instances, all but a few degenerate ones are certified where they are solved."""
    programs = left = 0
    for normalization in ("mean", "sum"):
        for upper in (1.0, np.inf):
            videos, lengths, _ = stress_videos(
                range(400), 16, normalization=normalization, upper_bound=None if upper == np.inf else upper
            )
            bounds = linpro.margin_bounds(videos.segments, np.repeat(lengths, np.diff(videos.offsets)), LinPro())
            order = np.lexsort((videos.scores, *bounds.T[::-1], videos.video_index))
            bounds, scores = bounds[order], videos.scores[order]
            offsets = kernels.find_components(videos.video_index, bounds)
            given = on("cpu", videos.video_index, bounds, scores, offsets)
            assert_array_equal(_simplex.find_components(*given[:2]), offsets)
            solver = _simplex.solve_components(*given[1:], normalization == "mean", upper, True, 16)[0].numpy()
            programs += (np.diff(offsets) > 1).sum()
            left += (solver == kernels.OPEN).sum()
    assert programs > 250
    assert left <= 0.001 * programs


@given(segment_sets(max_size=5, scores=EIGHTHS), st.integers(1, 10), OPTIONS)
@settings(max_examples=40, suppress_health_check=[*HealthCheck])
def test_small_grids_equal_exact_arithmetic(rows, num_snippets, options):
    segments, scores, _ = rows
    inside = (segments[:, 0] <= num_snippets) & (segments[:, 1] >= 0)
    segments, scores = segments[inside], scores[inside]
    found = labels_of(segments, scores, num_snippets, **options)
    same_answer(found, tpp.linpro_labels(segments, scores, num_snippets, **options))
    W, cap = matrix(segments, num_snippets, options), options["upper_bound"]
    violation, objective = oracle.solve_exactly(W, scores, cap) if len(scores) else (0, 0)
    assert abs(found.violation - float(violation)) < 1e-12
    assert abs(found.objective - float(objective)) < 1e-12
    assert oracle.min_norm_error(W, scores, cap, found.labels.numpy()) < 1e-8 or not len(scores)


def test_published_systems(golden, device):
    arrays = golden("lp")
    for i in range(len(arrays["pair"])):
        rows = arrays["segments"][slice(*arrays["seg_offsets"][i : i + 2])]
        num_snippets = int(np.diff(arrays["x_offsets"])[i])
        found = labels_of(rows[:, :2], rows[:, 2], num_snippets, device, **PUBLISHED)
        same_answer(found, tpp.linpro_labels(rows[:, :2], rows[:, 2], num_snippets, **PUBLISHED))
        if arrays["highs_status"][i] == 0:
            assert_allclose(found.objective, arrays["highs_fun"][i], rtol=0, atol=1e-8)


@pytest.mark.parametrize("nonpositive", ["keep", "drop", "clip"])
@pytest.mark.parametrize("solver", ["auto", "highs"])
def test_negative_scores_and_solvers(nonpositive, solver, rng):
    segments = np.sort(rng.integers(0, 40, (60, 2)), axis=1)
    scores, offsets = rng.uniform(-0.5, 1.0, 60), np.arange(0, 61, 4)
    videos = Segments(segments, scores=scores, offsets=offsets)
    options = {"nonpositive": nonpositive, "solver": solver}
    expected = tpp.linpro_label_maps(videos, [40] * 15, 1, **options)
    found = tpt.linpro_label_maps(tpt.Segments.from_numpy(videos), [40] * 15, 1, **options)
    for one, other in zip(found, expected):
        same_answer(one, other)
        assert (one.solved["highs"] > 0) == (other.solved["highs"] > 0)


# ------------------------------------------------------------------------------------------- nothing depends on others


def test_order_of_instances_and_chunks_change_no_bit(monkeypatch, rng, device):
    videos, lengths, _ = stress_videos(range(150), 20, normalization="mean", upper_bound=1.0)
    rows = tpt.Segments.from_numpy(videos, device)
    expected = tpt.linpro_label_maps(rows, lengths, 1)
    video = np.repeat(np.arange(len(lengths)), np.diff(videos.offsets))
    order = np.lexsort((rng.uniform(size=len(video)), video))
    mixed = Segments(videos.segments[order], scores=videos.scores[order], offsets=videos.offsets)
    others = [tpt.linpro_label_maps(tpt.Segments.from_numpy(mixed, device), lengths, 1)]
    calls = []
    monkeypatch.setattr(_simplex, "build", lambda *given, make=_simplex.build: calls.append(1) or make(*given))
    for size in (1, 1 << 14):
        monkeypatch.setitem(_ragged.CHUNK_BYTES, device.type, size)
        others.append(tpt.linpro_label_maps(rows, lengths, 1))
    assert len(calls) >= 1.1 * sum(one.solved["simplex"] for one in expected)  # one by one, and a few together
    alone = [tpt.linpro_label_map(rows.video(v), length, 1) for v, length in enumerate(lengths)]
    for other in (*others, alone):
        for one, two in zip(expected, other):
            assert_array_equal(one.labels.cpu().numpy(), two.labels.cpu().numpy())
            for name in ("objective", "violation", "gap"):
                assert torch.equal(getattr(one, name), getattr(two, name)), name
            assert (one.status, one.solved, one.uncertified) == (two.status, two.solved, two.uncertified)


def test_instances_are_brought_into_the_order_of_the_core(rng):
    bounds, group = np.sort(rng.integers(0, 4, (500, 4)), axis=1), rng.integers(0, 3, 500)
    scores = rng.integers(0, 3, 500) / 2
    expected = np.lexsort((scores, *bounds.T[::-1], group))
    assert_array_equal(_in_order(*on("cpu", bounds, scores, group), 4), expected)


def test_a_shift_in_time_shifts_the_labels(rng):
    for seed in range(20):
        n = 1 + seed % 12
        start = rng.integers(20, 60, n)
        segments = np.column_stack((start, start + rng.integers(1, 16, n)))
        scores = rng.uniform(-0.1, 1, n)
        options = {"normalization": "sum"} if seed % 2 else {"layout": "gaufuse"}
        found = labels_of(segments, scores, 100, **options).labels
        moved = labels_of(segments + 700, scores, 800, **options).labels
        assert torch.equal(moved[700:], found)
        assert not moved[:700].any()


def test_outside_is_zero_and_inside_is_the_level(device):
    rows = [[0, 3], [5, 9], [20, 30]]
    found = labels_of(rows, [0.1, 0.7, 0.3], 40, device, margin_scale=0.0).labels.tolist()
    assert found == [0.1] * 3 + [0.0] * 2 + [0.7] * 4 + [0.0] * 11 + [0.3] * 10 + [0.0] * 10


def test_sums_and_maxima_per_group(rng):
    group = np.sort(rng.integers(0, 30, 200))
    group = group[group != 7]
    values = rng.uniform(size=(len(group), 2))
    for combine, literal in ((torch.add, np.sum), (torch.maximum, np.max)):
        found = _per_group(*on("cpu", group, values), 31, combine).numpy()
        expected = [literal(values[group == k], axis=0) if (group == k).any() else [0.0, 0.0] for k in range(31)]
        assert_allclose(found, expected, rtol=1e-14)


# ------------------------------------------------------------------------------------------------- many, and the report


@pytest.mark.parametrize("backend", ["core", "batched"])
@pytest.mark.parametrize("background", ["none", "first", "last"])
def test_a_batch_of_videos(backend, background, device):
    videos, lengths = some_videos(30, seed=3)
    rule = LinPro(normalization="sum")
    mask = np.random.default_rng(0).uniform(size=(30, 4)) < 0.7
    for known in (None, mask):
        expected = tpp.linpro_label_maps(videos, lengths, 4, known_labels=known, background=background, **asdict(rule))
        columns = on(device, videos.segments, videos.labels, videos.scores, videos.offsets, lengths)
        for given_known in (known, None if known is None else torch.tensor(mask, device=device)):
            with tpt.backend(backend):
                labels, report = label_maps(*columns, 4, rule=rule, known_labels=given_known, background=background)
            assert labels.shape == (30, max(lengths), 4 + (background != "none"))
            assert {labels.device.type, *(one.device.type for one in report)} == {device.type}
            for v, one in enumerate(expected):
                assert_allclose(labels[v, : lengths[v]].cpu(), one.labels, rtol=0, atol=1e-9)
                assert not labels[v, lengths[v] :].any()
                assert_allclose(report.objective[v].cpu(), one.objective, rtol=1e-12, atol=1e-12)
                assert_allclose(report.violation[v].cpu(), one.violation, rtol=0, atol=1e-12)
                assert tuple(STATES[k] for k in report.state[v]) == one.status
                assert report.solved[v].sum() == sum(one.solved.values())
                assert report.uncertified[v] == one.uncertified
                assert (report.gap[v] <= 1e-8).all()


def test_maps_one_by_one_and_together():
    videos, lengths = some_videos(12, seed=5)
    lengths = list(map(int, lengths))
    rows = tpt.Segments.from_numpy(videos)
    whole = tpt.linpro_label_maps(rows, torch.tensor(lengths), 4)
    known = [[0, 2], None, torch.tensor([True, False, False, True])] * 4
    some = tpt.linpro_label_maps(list(rows.split()), lengths, 4, known_labels=iter(known), background="first")
    for v, (one, other) in enumerate(zip(whole, tpp.linpro_label_maps(videos, lengths, 4))):
        same_answer(one, other)
        alone = tpt.linpro_label_map(rows.video(v), lengths[v], 4)
        assert torch.equal(alone.labels, one.labels)
        assert not some[v].labels[:, 0].any()
        chosen = np.zeros(4, bool) if known[v] is not None else np.ones(4, bool)
        chosen[known[v] if known[v] is not None else slice(None)] = True
        assert_array_equal(some[v].labels[:, 1:], one.labels * torch.tensor(chosen))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_and_memory(dtype, device):
    segments = torch.tensor(NESTED, dtype=dtype, device=device).T.contiguous().T.requires_grad_()
    scores = torch.tensor(SCORES, dtype=dtype, device=device).repeat_interleave(2)[::2].requires_grad_()
    found = tpt.linpro_labels(segments, scores, 50)
    assert (found.labels.dtype, found.labels.device.type) == (dtype, device.type)
    assert not found.labels.requires_grad
    expected = tpp.linpro_labels(NESTED, scores.detach().double().cpu().numpy(), 50)
    step = torch.finfo(dtype).eps
    assert_allclose(found.labels.double().cpu(), expected.labels, rtol=step, atol=1e-12)
    assert_allclose(found.objective, expected.objective, rtol=1e-12)


@pytest.mark.parametrize("limit", [0, 2, 16, 32])
def test_a_limit_of_rows_moves_work_and_nothing_else(limit, monkeypatch):
    videos, lengths, _ = stress_videos(range(200), 32, normalization="sum", upper_bound=1.0, layout="gaufuse")
    expected = tpp.linpro_label_maps(videos, lengths, 1, normalization="sum", layout="gaufuse")
    monkeypatch.setattr(_simplex, "MOST_ROWS", limit)
    handed = []
    monkeypatch.setattr(
        linpro, "_settle", lambda *given, settle=linpro._settle: handed.extend(np.diff(given[2])) or settle(*given)
    )
    rows = tpt.Segments.from_numpy(videos)
    for one, other in zip(tpt.linpro_label_maps(rows, lengths, 1, normalization="sum", layout="gaufuse"), expected):
        same_answer(one, other)
    assert all(size > limit for size in handed)
    assert limit == 32 or max(handed) > limit


def test_nothing_in_nothing_out(device):
    nothing = torch.empty(0, 2, device=device), torch.empty(0, device=device)
    for num_snippets in (0, 7):
        found = tpt.linpro_labels(*nothing, num_snippets)
        assert (found.labels.shape, found.status, found.objective) == ((num_snippets,), "empty", 0.0)
    empty = tpt.Segments(nothing[0])
    whole = tpt.linpro_label_map(empty, 5, 3, background="last")
    assert (whole.labels.shape, whole.status) == ((5, 4), ("empty",) * 3)
    assert tpt.linpro_label_map(empty, 5, 0).labels.shape == (5, 0)
    assert tpt.linpro_label_maps([], [], 3) == []
    rows = tpt.Segments(torch.zeros(1, 2, device=device), scores=torch.ones(1, device=device))
    found = tpt.linpro_labels(rows.segments, rows.scores, 0)
    assert (found.labels.shape, found.status, found.violation) == ((0,), "relaxed", 1.0)


def test_numbers_of_every_size():
    for scores in ([1e-300, 0.3, 1e-12, 0.5], [1e100, 0.3, -1e100, 0.5], [0.0] * 4, [1e-9, 2e-9, 3e-9, -1e-9]):
        for cap in (1.0, None, 1e-6, 1e6):
            found = labels_of(NESTED, scores, 50, upper_bound=cap)
            expected = tpp.linpro_labels(NESTED, scores, 50, upper_bound=cap)
            same_answer(found, expected)
            assert cap is None or found.labels.max() <= cap


def test_errors_are_those_of_the_core():
    rows, scores = torch.tensor(NESTED, dtype=torch.float64), torch.tensor(SCORES)
    twice = torch.tensor([[4.0, 12.0], [4.0, 12.0]])
    video = tpt.Segments(rows, torch.tensor([0, 1, 0, 1]), scores)
    for call, message in (
        (lambda: tpt.linpro_labels(rows, scores[:3], 50), "scores"),
        (lambda: tpt.linpro_labels(rows, scores * torch.nan, 50), "scores"),
        (lambda: tpt.linpro_labels(rows.flip(1), scores, 50), "segments"),
        (lambda: tpt.linpro_labels(rows + 60, scores, 50), "segments"),
        (lambda: tpt.linpro_labels(rows, scores, 50, upper_bound=0.0), "upper_bound"),
        (lambda: tpt.linpro_labels(twice, scores[:2], 50, infeasible="raise"), r"missed by 0\.2 in all"),
        (lambda: tpt.linpro_label_map(video, 50, 1), "labels"),
        (lambda: tpt.linpro_label_map(video, 50, 2, background="middle"), "background"),
        (lambda: tpt.linpro_label_map(video, 50, 2, known_labels=[4]), "known_labels"),
        (lambda: tpt.linpro_label_maps(video, [50, 50], 2), "num_snippets"),
        (lambda: tpt.linpro_label_maps(video, [50], 2, known_labels=[[0], [1]]), "known_labels"),
        (lambda: tpt.linpro_label_map(video.to_seconds(0.5), 50, 2), "snippet"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match=r"tal_postproc\.linpro_labels takes arrays"):
        tpt.linpro_labels(rows.numpy(), SCORES, 50)


# ---------------------------------------------------------------------------------------------------- the certificate


def programs(seeds, rows):
    """Components of the stress systems, padded to `rows`: (Programs, the core's arrays of each)."""
    for normalization, cap in (("mean", 1.0), ("sum", 2.0), ("mean", np.inf)):
        chosen, own = [], []
        for seed in seeds:
            segments, scores, num_snippets, options = oracle.stress(seed, rows)
            bounds = linpro.margin_bounds(segments, num_snippets, LinPro(**{**options, "upper_bound": 1.0}))
            order = np.lexsort((scores, *bounds.T[::-1]))
            bounds, scores = bounds[order], scores[order]
            offsets = kernels.find_components(np.zeros(len(bounds), np.int64), bounds)
            for low, high in pairwise(offsets):
                if high - low > 1 and scores[low:high].any():
                    chosen.append((bounds[low:high], scores[low:high]))
                    own.append(kernels.build(bounds[low:high], scores[low:high], normalization == "mean"))
        bounds = np.zeros((rows, len(chosen), 4), np.int64)
        scores = np.zeros((rows, len(chosen)))
        for place, (one, asked) in enumerate(chosen):
            bounds[: len(one), place], scores[: len(one), place] = one, asked
        sizes = np.array([len(asked) for _, asked in chosen])
        made, where = _simplex.build(*on("cpu", bounds, scores, sizes), normalization == "mean", cap)
        yield made, where, own, cap


def test_programs_are_those_of_the_core():
    count = 0
    for made, where, own, cap in programs(range(60), 8):
        for b, (matrix_, sizes, rhs, weight, top, largest, _, _) in enumerate(own):
            there = made.sizes[:, b] > 0
            m = len(rhs)
            assert_array_equal(made.matrix[:m, there, b], matrix_)
            assert not made.matrix[m:, :, b].any()
            assert_array_equal(made.sizes[there, b], sizes)
            assert_array_equal(made.caps[there, b], cap * sizes / (top * largest))
            assert_array_equal(made.rhs[:m, b], rhs)
            assert_array_equal(made.weight[:m, b], weight)
            assert (where.unit[b], where.largest[b]) == (top * largest, largest)
            count += 1
    assert count > 50


def test_wrong_answers_have_no_certificate(rng):
    """The bounds are the core's for any masses and multipliers, so that none makes labels look better than they are."""
    refused = 0
    for made, _, own, cap in programs(range(60), 8):
        x, first, second = _simplex.lexicographic(made)
        assert _simplex.finish(made, x, first, second, True)[4].double().mean() > 0.99
        for other in (torch.zeros_like(x), x * 1.01, x + torch.tensor(rng.uniform(0, 0.1, x.shape)) * (made.sizes > 0)):
            for share in (1.0, 0.9):
                found = torch.stack(_simplex.certify(made, other, share * first, second))
                sure = _simplex.finish(made, other, share * first, second, False)[4]
                for b, (matrix_, sizes, rhs, weight, top, largest, _, _) in enumerate(own):
                    there, m = made.sizes[:, b] > 0, len(rhs)
                    given_ = [
                        np.ascontiguousarray(one) for one in (other[there, b], share * first[:m, b], second[:m, b])
                    ]
                    caps = cap * sizes / (top * largest)
                    assert_allclose(found[:, b], kernels.certify(matrix_, caps, rhs, weight, *given_), atol=1e-9)
                    assert bool(sure[b]) == kernels.finish(matrix_, sizes, caps, rhs, weight, *given_, False)[4]
                    refused += not sure[b]
    assert refused > 300


def test_a_wrong_least_square_is_not_certified():
    """A vertex of an optimal face, or multipliers that are wrong, in place of the point of least sum of squares."""
    for made, _, _, _ in programs(range(60), 8):
        x, first, second = _simplex.lexicographic(made)
        right = _simplex.finish(made, x, first, second, True)
        wrong = _simplex.finish(made, x, first, second + 1e-3, True)
        agree = ((wrong[0] - right[0]).abs().amax(0) <= 1e-9) | ~wrong[4]
        assert agree.all()
        assert (~wrong[4]).sum() > 10


@pytest.mark.parametrize(("name", "value"), [("_SOFT", 1e3), ("_ROUNDS", 2)])
def test_a_search_that_ends_early_or_elsewhere_is_not_certified(name, value, monkeypatch):
    """Rows that are let go wrongly, and Newton's method cut short: what is certified is still the one right answer."""
    refused = 0
    for made, _, _, _ in programs(range(120), 8):
        x, first, second = _simplex.lexicographic(made)
        right = _simplex.finish(made, x, first, second, True)
        with monkeypatch.context() as patch:
            patch.setattr(_simplex, name, value)
            found = _simplex.finish(made, x, first, second, True)
        assert (((found[0] - right[0]).abs().amax(0) <= 1e-8) | ~found[4]).all()
        refused += (right[4] & ~found[4]).sum()
    assert refused > 0


def test_multipliers_that_are_a_little_wrong(rng):
    """Where they do not tell the optimal face, nothing is certified."""
    for made, _, _, _ in programs(range(60), 8):
        x, first, second = _simplex.lexicographic(made)
        right = _simplex.finish(made, x, first, second, True)
        for size in (1e-10, 2e-9, 1e-8):
            noise = torch.tensor(size * rng.normal(size=second.shape)) * (made.rhs != 0)
            found = _simplex.finish(made, x, first, second + noise, True)
            assert (((found[0] - right[0]).abs().amax(0) < 1e-6) | ~found[4]).all()
