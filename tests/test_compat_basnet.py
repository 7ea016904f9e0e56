"""The functions of BaS-Net, UM, LACP, CoLA and ASL: published output, and literal oracles."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc.compat import asl, basnet, cola, lacp, um

from .oracles import compat_basnet as oracle

CAS = np.arange(0, 0.25, 0.025)
ACTIONNESS = np.arange(0.1, 0.925, 0.025)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def random_map(rng: np.random.Generator, length: int, width: int) -> np.ndarray:
    """(1, T, C) in about [-0.1, 1.1], without regularities that ties could come from."""
    steps = rng.normal(size=(length, width)).cumsum(axis=0)
    span = np.ptp(steps, axis=0) if length > 1 else 4.0
    return ((steps - steps.min(axis=0)) / span + rng.normal(scale=0.03, size=(length, width)))[None]


def half_grid(rng: np.random.Generator, length: int, width: int) -> np.ndarray:
    """(S, P, 1) of multiples of 1/4, where runs meet thresholds and both ends, and plateaus abound."""
    return rng.integers(0, 5, (length, width, 1)) / 4


def assert_same_rows(ours, theirs) -> None:
    """Lists of lists of rows: the same structure, plain lists, the same numbers."""
    assert type(ours) is list
    assert [len(rows) for rows in ours] == [len(rows) for rows in theirs]
    for mine, other in zip(ours, theirs):
        assert type(mine) is list
        assert all(type(row) is list for row in mine)
        if mine:
            assert_allclose(np.array(mine, float), np.array(other, float), rtol=0, atol=1e-9)


# ------------------------------------------------------------------------------------------------------- the functions


@pytest.mark.parametrize("shape", [(2,), (7, 3), (25, 3, 1), (2, 1, 1)])
@pytest.mark.parametrize("scale", [1, 5, 24])
def test_upgrade_resolution(shape, scale):
    arr = np.random.default_rng(0).normal(size=shape)
    fine = basnet.upgrade_resolution(arr, scale)
    assert fine.dtype == np.float64
    assert_allclose(fine, oracle.upgrade_resolution(arr, scale), rtol=0, atol=1e-12)


def test_upgrade_resolution_of_nothing_and_of_one():
    assert basnet.upgrade_resolution(np.zeros((0, 3, 1)), 24).shape == (0, 3, 1)
    assert basnet.upgrade_resolution(np.zeros((4, 0, 1)), 2).shape == (8, 0, 1)
    assert basnet.upgrade_resolution([[3.0]], 4).tolist() == [[3.0]] * 4


PROPOSALS = {
    basnet: {"always": True},
    asl: {"always": True},
    um: {"shortest": 2},
    cola: {"shortest": 2},
    lacp: {},
}


@pytest.mark.parametrize("module", PROPOSALS, ids=lambda module: module.__name__.split(".")[-1])
@pytest.mark.parametrize("length", [1, 2, 3, 9, 60])
@pytest.mark.parametrize(("margin", "gamma"), [(0.25, 0.2), (0.0, 0.0), (0.5, 1.0)])
def test_get_proposal_oic(module, length, margin, gamma):
    rng = np.random.default_rng(length)
    found = 0
    for _ in range(30):
        maps = half_grid(rng, length, 3)
        scores, classes = rng.random(7), np.array([6, 0, 2])
        where = [np.where(maps[:, i, 0] >= rng.choice([0.25, 0.5, 1.0])) for i in range(3)]
        before = maps.copy()
        given = where, maps, scores, classes, 24, 210, 25, 750
        ours = module.get_proposal_oic(*given, margin, gamma)
        assert_same_rows(ours, oracle.get_proposal_oic(*given, margin, gamma, **PROPOSALS[module]))
        assert_array_equal(maps, before)
        found += sum(len(rows) for rows in ours)
        for rows in ours:
            for row in rows:
                assert type(row[0]) is np.int64
                assert [type(value) for value in row[1:]] == [np.float64] * 3
    assert found > 10 or length == 1  # index 0 alone


@pytest.mark.parametrize("module", PROPOSALS, ids=lambda module: module.__name__.split(".")[-1])
def test_get_proposal_oic_at_its_defaults_and_edges(module):
    maps = np.array([0.0, 0.25, 1.0, 0.5, 0.0, 0.25, 0.5, 0.5])[:, None, None]
    given = [np.where(maps[:, 0, 0] > 0)], maps, {4: 0.5}, [4], 1, 8, 16, 8
    assert_same_rows(module.get_proposal_oic(*given), oracle.get_proposal_oic(*given, **PROPOSALS[module]))
    name = "lambda_" if module in (basnet, asl) else "_lambda"
    wide = module.get_proposal_oic(*given, **{name: 0.5})
    assert_same_rows(wide, oracle.get_proposal_oic(*given, 0.5, **PROPOSALS[module]))
    every = module in (basnet, asl)
    first = [(np.array([0]),), (np.array([], np.int64),)]
    assert module.get_proposal_oic(first, maps[:, [0, 0]], [1.0, 1.0], [0, 1], 1, 8, 16, 8) == [[], []] * every
    assert module.get_proposal_oic([], maps[:, :0], [], [], 1, 8, 16, 8) == []
    # no snippets: a time of 0, and no proposals
    assert module.get_proposal_oic([first[1]], maps[:0], [1.0], [0], 24, 0, 25, 0) == [[]] * every


def random_rows(rng: np.random.Generator, count: int) -> list[list[float]]:
    start = rng.integers(0, 40, count) / 2
    return np.column_stack(
        [np.full(count, 3.0), rng.random(count), start, start + rng.integers(0, 20, count) / 2]
    ).tolist()


@pytest.mark.parametrize("thresh", [-1.0, 0.0, 0.2, 0.5, 0.7, 1.0, 1.5])
@pytest.mark.parametrize("count", [1, 2, 30, 300])
def test_nms(thresh, count):
    rows = random_rows(np.random.default_rng(count), count)
    rows += rows[: count // 3]  # equal rows, hence equal scores
    for given in (rows, np.array(rows)):
        kept = basnet.nms(given, thresh)
        assert kept == oracle.nms(rows, thresh)
        assert type(kept[0][0]) is float


def test_the_later_of_equal_scores_goes_first():
    rows = [[0, 0.5, 0.0, 9.0], [1, 0.5, 0.0, 9.0], [2, 0.5, 50.0, 60.0]]
    assert [row[0] for row in basnet.nms(rows, 0.5)] == [2, 1]
    assert [row[0] for row in basnet.nms(rows, 2.0)] == [2, 1, 0]
    assert basnet.nms([], 0.5) == []
    assert basnet.nms(np.empty((0, 4)), 0.5) == []
    with pytest.raises(ValueError, match=r"`proposals` must have rows .* got shape \(1, 3\)"):
        basnet.nms([[0.5, 1.0, 2.0]], 0.5)


def test_published_nms(golden):
    arrays = golden("nms")
    compared = 0
    for key in [name[: -len("__idx")] for name in arrays if name.startswith("bas_nms") and name.endswith("__idx")]:
        offsets = arrays[f"{key}__offsets"]
        for i, (a, b) in enumerate(zip(arrays["set_offsets"], arrays["set_offsets"][1:])):
            if arrays[f"{key}__used"][i] and arrays[f"{key}__stable"][i]:
                rows = np.column_stack([np.zeros(b - a), arrays["scores"][a:b], arrays["segments"][a:b]])
                idx = arrays[f"{key}__idx"][offsets[i] : offsets[i + 1]]
                assert_array_equal(basnet.nms(rows, float(key.split("_")[-1])), rows[idx])
                compared += len(idx)
    assert compared > 1000


@pytest.mark.parametrize("thresh", [-1.0, 0.0, 0.2, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("alpha", [0, 0.35])
def test_one_shot_soft_nms(thresh, alpha):
    for count in (1, 2, 40):
        rows = random_rows(np.random.default_rng(count), count) + [[3.0, 0.5, 1.0, 4.0]] * 3
        before = [list(row) for row in rows]
        assert asl.basnet_nms(rows, thresh) == oracle.nms(rows, thresh)
        soft = asl.basnet_nms(rows, thresh, soft_nms=True, nms_alpha=alpha)
        assert_allclose(soft, oracle.nms(rows, thresh, True, alpha), rtol=0, atol=1e-12)
        assert len(soft) == len(rows)
        assert rows == before
    assert asl.basnet_nms([], thresh, True, alpha) == []


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 9, 3), (1, 9)])
def test_minmax_norm(torch, precision, shape):
    """Columns that rise from below 0, that lie above it, and that are constant."""
    dtype = getattr(torch, precision)
    values = torch.tensor(np.random.default_rng(0).normal(size=shape), dtype=dtype)
    if len(shape) == 3:
        values[:, :, 1] += 9
        values[:, :, 2] = 0.5
    before = values.clone()
    for module in (basnet, um, cola, lacp):
        out = module.minmax_norm(values)
        expected = oracle.minmax_norm(values.double().numpy(), clip=module is not basnet)
        assert out.dtype == dtype
        assert_allclose(out.numpy(), expected, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-12)
        assert module.minmax_norm(values[:, :0]).shape == values[:, :0].shape
    for module in (um, cola, lacp):
        low, high = torch.tensor(0.25, dtype=dtype), torch.tensor(0.75, dtype=dtype)
        expected = oracle.minmax_norm(values.double().numpy(), 0.25, 0.75)
        assert_allclose(module.minmax_norm(values, min_val=low, max_val=high).numpy(), expected, rtol=0, atol=1e-6)
        # one of the two alone is not read
        for alone in ({"min_val": low}, {"max_val": high}):
            assert torch.equal(module.minmax_norm(values, **alone), module.minmax_norm(values))
    assert torch.equal(values, before)
    with pytest.raises(TypeError, match="`act_map` must be a tensor"):
        basnet.minmax_norm(np.zeros((1, 3, 1)))


def test_which_gradients_flow_through_the_range(torch):
    """The largest value is 1 whatever it is; LACP holds the range fixed."""
    for module, expected in ((um, 0.0), (lacp, 0.2)):
        values = torch.tensor([[1.0, 3.0, 6.0]], requires_grad=True)
        module.minmax_norm(values)[0, 2].backward()
        assert values.grad[0, 2].item() == pytest.approx(expected)


def test_get_oic_score(torch):
    rng = np.random.default_rng(0)
    for length in (1, 2, 9, 40):
        values = rng.random(length)
        for _ in range(40):
            start, end = np.sort(rng.integers(0, length, 2)).tolist()
            delta = rng.choice([0.0, 0.25, 0.5])
            tensor = torch.tensor(values, dtype=torch.float32, requires_grad=True)
            score = lacp.get_oic_score(tensor, start, end, delta)
            assert score.dtype == torch.float32
            assert score.shape == ()
            assert score.item() == pytest.approx(oracle.get_oic_score(values, start, end, delta), abs=1e-6)
            score.backward()
            assert tensor.grad[start] > 0
    assert lacp.get_oic_score(tensor, 8, 15) == lacp.get_oic_score(tensor, 8, 15, 0.25)
    assert lacp.get_oic_score(tensor, 8, 15) != lacp.get_oic_score(tensor, 8, 15, 0.5)


@pytest.mark.parametrize("length", [1, 2, 3, 12, 50])
def test_select_seed(torch, length):
    """Scores exactly on both thresholds, points at both ends and beside each other, videos without a point."""
    rng = np.random.default_rng(length)
    filled = 0
    for share in (0.0, 0.05, 0.2, 0.6):
        background = rng.choice([0.05, 0.1, 0.3, 0.7, 0.95, 0.97], (4, length), p=[0.2, 0.3, 0.2, 0.1, 0.1, 0.1])
        background -= rng.random((4, length)) * np.where(np.isin(background, [0.1, 0.95]), 0, 1e-3)
        points = (rng.random((4, length, 3)) < share / 3).astype(np.float32)
        cas = torch.tensor(np.concatenate([points, background[:, :, None]], axis=2), dtype=torch.float64)
        given = torch.tensor(points)
        act, bkg = lacp.select_seed(cas, given)
        expected_act, expected_bkg = oracle.select_seed(background, points)
        assert act.dtype == bkg.dtype == torch.float32
        assert_array_equal(act.numpy(), expected_act)
        assert_array_equal(bkg.numpy(), expected_bkg)
        assert_array_equal(given.numpy(), points)
        single, _ = lacp.select_seed(cas.float(), given)  # thresholds in the dtype of the scores
        assert_array_equal(single.numpy(), expected_act)
        filled += int(act.sum() - given.sum())
    assert filled > 5 or length < 12


def test_get_pred_activations(torch):
    rng = np.random.default_rng(0)
    config, pred = SimpleNamespace(UP_SCALE=24, NUM_CLASSES=5), np.array([4, 1])
    for values in (random_map(rng, 9, 5), random_map(rng, 9, 1)[:, :, 0]):
        out = cola.get_pred_activations(torch.tensor(values), pred, config)
        assert out.dtype == np.float64
        assert_allclose(out, oracle.cola_activations(values, pred, 24, 5), rtol=0, atol=1e-12)
    assert cola.get_pred_activations(torch.zeros(1, 0, 5), pred, config).shape == (0, 2, 1)


@pytest.mark.parametrize("length", [2, 3, 20])
def test_get_proposal_dict(length):
    """Classes that only the actionness finds, thresholds in any order, and all of a class too short."""
    rng = np.random.default_rng(length)
    found = 0
    for turn in range(20):
        column, other = half_grid(rng, 2 * length, 3), half_grid(rng, 2 * length, 3)
        column[:, turn % 4 : turn % 4 + 1] = 0.0
        pred, scores = np.array([6, 0, 2]), rng.random(7)
        config = SimpleNamespace(CAS_THRESH=[0.5, 0.25, 0.75], ANESS_THRESH=[0.25, 1.0], UP_SCALE=2, FEATS_FPS=25)
        same = SimpleNamespace(cas=config.CAS_THRESH, other=config.ANESS_THRESH, scale=2, fps=25)
        ours = cola.get_proposal_dict(column, other, pred, scores, 33, config)
        expected = oracle.cola_dict(column, other, pred, scores, 33, same)
        assert list(ours) == list(expected)
        assert_same_rows(list(ours.values()), list(expected.values()))
        found += sum(len(rows) for rows in ours.values())
    assert found > 50
    none = SimpleNamespace(CAS_THRESH=[], ANESS_THRESH=[], UP_SCALE=2, FEATS_FPS=25)
    assert cola.get_proposal_dict(column, other, pred, scores, 33, none) == {}
    assert cola.get_proposal_dict(column[:0], other[:0], pred, scores, 33, config) == {}
    assert cola.get_proposal_dict(column[:, :0], other[:, :0], [], scores, 33, config) == {}


def test_instance_selection_function(torch):
    cas, flow = np.ones((1, 4, 3)), np.zeros((1, 4, 1))
    assert_array_equal(asl.instance_selection_function(cas, flow, flow), np.full((1, 4, 3), 1 / 3))
    assert isinstance(asl.instance_selection_function(torch.ones(2)), torch.Tensor)


# ------------------------------------------------------------------------------------------------------- whole videos

BASE = {"class_thresh": 0.25, "scale": 24, "feature_fps": 25}


def same_config(config: SimpleNamespace, cas: str, other: str = "", nms: str = "") -> SimpleNamespace:
    """The names that the oracles have for the numbers of a published config."""
    values = dict(vars(config))
    return SimpleNamespace(
        cas=values[cas],
        other=values.get(other),
        nms=values.get(nms),
        scale=values.get("scale", values.get("UP_SCALE")),
        fps=values.get("feature_fps", values.get("FEATS_FPS")),
        class_thresh=values.get("class_thresh", values.get("CLASS_THRESH")),
        gamma=values.get("gamma"),
        soft_nms=values.get("soft_nms"),
        nms_alpha=values.get("nms_alpha"),
    )


def run_basnet(rng, length, scores):
    config = SimpleNamespace(**BASE, act_thresh=CAS)
    scores, cas = np.append(scores, [[0.3]], axis=1), random_map(rng, length, 4)
    return basnet.detect(scores, cas, 211, config), oracle.basnet(scores, cas, 211, same_config(config, "act_thresh"))


def run_um(rng, length, scores):
    config = SimpleNamespace(**BASE, act_thresh_cas=CAS, act_thresh_magnitudes=np.arange(0.4, 0.625, 0.025))
    cas, magnitude = random_map(rng, length, 3), random_map(rng, length, 3)
    same = same_config(config, "act_thresh_cas", "act_thresh_magnitudes")
    return um.detect(scores, cas, magnitude, 211, config), oracle.um(scores, cas, magnitude, 211, same)


def run_lacp(rng, length, scores):
    config = SimpleNamespace(**BASE, act_thresh_cas=CAS, act_thresh_agnostic=np.arange(0.5, 0.725, 0.025))
    cas = random_map(rng, length, 4)
    same = same_config(config, "act_thresh_cas", "act_thresh_agnostic")
    return [lacp.detect(scores, cas, 211, config)], [oracle.lacp(scores, cas, 211, same)]


def run_cola(rng, length, scores):
    config = SimpleNamespace(
        CLASS_THRESH=0.25, CAS_THRESH=CAS, ANESS_THRESH=ACTIONNESS, UP_SCALE=24, FEATS_FPS=25, NMS_THRESH=0.6
    )
    cas, actionness = random_map(rng, length, 3), random_map(rng, length, 1)[:, :, 0]
    same = same_config(config, "CAS_THRESH", "ANESS_THRESH", "NMS_THRESH")
    return cola.detect(scores, actionness, cas, 211, config), oracle.cola(scores, actionness, cas, 211, same)


def run_asl(rng, length, scores, soft=False):
    config = SimpleNamespace(
        **BASE, act_thresh=np.arange(0.1, 1.0, 0.1), gamma=0.1, nms_thresh=0.4, soft_nms=soft, nms_alpha=0.35
    )
    cas = random_map(rng, length, 3)
    return (
        asl.detect(scores, cas, 211, config),
        oracle.asl(scores, cas, 211, same_config(config, "act_thresh", nms="nms_thresh")),
    )


def run_asl_soft(rng, length, scores):
    return run_asl(rng, length, scores, soft=True)


RUNS = [run_basnet, run_um, run_lacp, run_cola, run_asl, run_asl_soft]


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("length", [2, 3, 17, 60])
def test_whole_videos_equal_the_literal_loops(run, length):
    """Classes on the threshold, none of them, and class 0 alone: BaS-Net drops it, UM falls back to it."""
    total = 0
    for i, scores in enumerate(([0.25, 0.9, 0.1], [0.1, 0.2, 0.24], [0.9, 0.1, 0.2], [0.2, 0.3, 0.7])):
        ours, expected = run(np.random.default_rng(10 * length + i), length, np.array([scores]))
        assert_same_rows(ours, expected)
        assert all(type(value) is float for rows in ours for row in rows for value in row)
        total += sum(len(rows) for rows in ours)
    assert total >= 4


def test_tensors_and_what_is_empty(torch):
    config = SimpleNamespace(**BASE, act_thresh=CAS)
    cas, scores = random_map(np.random.default_rng(0), 20, 3), np.array([[0.1, 0.9, 0.0]])
    found = basnet.detect(torch.tensor(scores, requires_grad=True), torch.tensor(cas), 33, config)
    assert found == basnet.detect(scores, cas, 33, config)
    assert found
    assert basnet.detect(scores, cas[:, :0], 33, config) == []
    assert basnet.detect(scores, np.zeros((1, 9, 3)), 33, config) == []
    with pytest.raises(ValueError, match="`cas_supp` must be a batch of one video with 3 axes"):
        basnet.detect(scores, np.zeros((2, 9, 3)), 33, config)
    settings = SimpleNamespace(**BASE, act_thresh_cas=CAS, act_thresh_magnitudes=[0.5])
    magnitude = np.ones((1, 20))
    same = um.detect(scores, cas, np.repeat(magnitude[:, :, None], 3, axis=2), 33, settings)
    assert um.detect(scores, cas, magnitude, 33, settings) == same


@pytest.mark.parametrize(
    ("key", "value"), [("scale", 12), ("feature_fps", 30), ("class_thresh", 0.4), ("act_thresh", [0.5, 0.3])]
)
def test_the_config_decides(key, value):
    rng = np.random.default_rng(1)
    cas, scores = random_map(rng, 30, 3), np.array([[0.3, 0.9, 0.5, 0.0]])
    results = []
    for config in (BASE, {**BASE, key: value}):
        config = SimpleNamespace(**{"act_thresh": CAS, **config})
        results.append(basnet.detect(scores, cas, 33, config))
        assert_same_rows(results[-1], oracle.basnet(scores, cas, 33, same_config(config, "act_thresh")))
    assert results[0] != results[1]


def in_one_order(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(rows.round(6).T)]


@pytest.mark.parametrize("file", ["basnet", "cola"])
def test_published_detections(golden, file):
    """All videos.  Where the published code stops or leaves a video out, there is nothing."""
    maps, published = golden("tcams"), golden(file)
    fragile = {tuple(pair) for pair in published["fragile_pairs"].tolist()}
    compared = 0
    for i, name in enumerate(maps["names"]):
        here = slice(*maps["offsets"][i : i + 2])
        cas, scores = maps["tcam"][None, here, :20], maps["video_scores"][i][None]
        if file == "basnet":
            found = basnet.detect(scores, cas, maps["v_len"][i], SimpleNamespace(**BASE, act_thresh=CAS))
        else:
            config = SimpleNamespace(
                CLASS_THRESH=0.2, CAS_THRESH=CAS, ANESS_THRESH=ACTIONNESS, UP_SCALE=24, FEATS_FPS=25, NMS_THRESH=0.6
            )
            found = cola.detect(scores[:, :20], maps["attention"][None, here], cas, maps["v_len"][i], config)
        expected = published["detections"][published["det_offsets"][i] : published["det_offsets"][i + 1], 1:]
        if published["status"][i]:
            assert found == [], name
            continue
        rows = np.array([row for part in found for row in part]).reshape(-1, 4)
        assert_array_equal(np.unique(rows[:, 0]), np.unique(expected[:, 0]))
        for c in np.unique(expected[:, 0]):
            if (i, c) not in fragile:
                mine, theirs = (in_one_order(table[table[:, 0] == c]) for table in (rows, expected))
                assert_allclose(mine, theirs, rtol=0, atol=1e-6, err_msg=f"{name}, class {c}")
                compared += len(theirs)
    assert compared > 1000


@pytest.mark.parametrize("file", ["basnet", "cola"])
def test_published_proposals(golden, torch, file):
    """The functions in the order in which the published loops call them, up to suppression."""
    maps, published = golden("tcams"), golden(file)
    for i in range(13):  # all real videos, and one of two snippets
        here = slice(*maps["offsets"][i : i + 2])
        cas, attention = torch.tensor(maps["tcam"][None, here, :20]), torch.tensor(maps["attention"][None, here])
        scores, v_len, rows = maps["video_scores"][i][:20], maps["v_len"][i], []
        if file == "basnet":
            pred = np.where(scores >= 0.25)[0]
            column = basnet.minmax_norm(cas)[0].numpy()[:, pred].reshape(cas.shape[1], -1, 1)
            column = basnet.upgrade_resolution(column, 24)
            for threshold in CAS:
                zeroed = np.where(column < threshold, 0, column)
                where = [np.where(zeroed[:, c, 0] > 0) for c in range(len(pred))]
                for part in basnet.get_proposal_oic(where, zeroed, np.ones(20), pred, 24, v_len, 25, cas.shape[1]):
                    rows += part
        else:
            config = SimpleNamespace(CAS_THRESH=CAS, ANESS_THRESH=ACTIONNESS, UP_SCALE=24, FEATS_FPS=25)
            pred = np.where(scores >= 0.2)[0]
            pred = pred if len(pred) else np.array([np.argmax(scores)])
            both = (cola.get_pred_activations(values, pred, config) for values in (cas, attention))
            for part in cola.get_proposal_dict(*both, pred, scores, v_len, config).values():
                rows += part
        expected = published["raw"][published["raw_offsets"][i] : published["raw_offsets"][i + 1], 1:]
        assert len(expected) > 3
        assert_allclose(in_one_order(np.array(rows)), in_one_order(expected), rtol=0, atol=1e-6)
