"""DeltaPseudoLabels and RefreshSchedule: the oracle, every option, all or nothing, checkpoints, hostile states."""

from __future__ import annotations

import base64
import copy
import io
import itertools
import json
import pickle
import pickletools
import threading
import warnings
import weakref
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc import FormatError, Segments, UnitError
from tal_postproc.config import RefreshSchedule, from_dict
from tal_postproc.label_bank import DeltaPseudoLabels
from tal_postproc.types import LabelChurn, LabelCollapseWarning

from .oracles import labels_bank as oracle

quiet = pytest.mark.filterwarnings("ignore::tal_postproc.types.LabelCollapseWarning")
PARTS = ("scores", "boundaries", "appeared", "vanished", "elsewhere")
values = st.sampled_from([0.0, 0.0, 0.0, -0.0, 0.25, 0.25, 0.5, -0.5, 1 / 3, 5e-324])


@st.composite
def refreshes(draw):
    """Shapes of some videos, then for each refresh a map and instances of every one."""
    num_classes = draw(st.integers(1, 3))
    lengths = draw(st.lists(st.integers(0, 8), min_size=1, max_size=3))
    rounds = []
    for _ in range(draw(st.integers(1, 3))):
        maps, rows = {}, {}
        for v, length in enumerate(lengths):
            size = length * num_classes
            cells = draw(st.lists(values, min_size=size, max_size=size))
            maps[f"v{v}"] = np.array(cells, float).reshape(length, num_classes)
            half_units = st.integers(0, 2 * length).map(lambda k: k / 2)
            found = draw(st.lists(st.tuples(st.integers(0, num_classes - 1), half_units, half_units), max_size=5))
            rows[f"v{v}"] = [(label, min(a, b), max(a, b)) for label, a, b in found]
        rounds.append((maps, rows))
    return rounds


def as_segments(rows):
    return Segments(np.array([row[1:] for row in rows], float).reshape(-1, 2), [row[0] for row in rows])


def assert_same_bits(found, expected):
    assert found.dtype == np.float64
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


def assert_report(found: LabelChurn, expected):
    for name, value in expected.items():
        got = getattr(found, name)
        if value is None:
            assert got is None, name
        else:
            assert_allclose(got, value, rtol=1e-12, atol=1e-12, err_msg=name)


# ----------------------------------------------------------------------------------------------------- the oracle
@quiet
@given(refreshes(), st.sampled_from([0.25, 1 / 3, 0.5, 1.0]), st.booleans())
def test_bank_equals_oracle(rounds, threshold, with_instances):
    bank = DeltaPseudoLabels()
    before, earlier = {}, {}
    for maps, rows in rounds:
        instances = {v: as_segments(rows[v]) for v in maps} if with_instances else None
        found = bank.update(maps, instances, tiou_threshold=threshold)
        after = {v: (maps[v], rows[v] if with_instances else None) for v in maps}
        assert_report(found, oracle.churn(before, after, threshold))
        if with_instances:
            total = sum(getattr(found, name) for name in PARTS)
            assert_allclose(total, found.change, rtol=1e-12, atol=1e-12)
        for v, label_map in maps.items():
            assert_same_bits(bank.labels(v), label_map)
            if before:
                assert_same_bits(bank.previous(v), before[v][0])
                assert_array_equal(bank.targets(v, scale=2.15), 2.15 * (label_map - before[v][0]))
            else:
                assert bank.previous(v) is None
                assert_same_bits(bank.targets(v, scale=2.15), label_map)
            assert_same_bits(bank.targets(v, scale=None), label_map)
        before, earlier = after, before
    restored = DeltaPseudoLabels()
    restored.load_state_dict(bank.state_dict())
    assert restored.state_dict() == bank.state_dict()
    for v in before:
        assert_same_bits(restored.labels(v), before[v][0])
        assert (restored.previous(v) is None) == (not earlier)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int8])
@pytest.mark.parametrize("order", ["C", "F"])
def test_dense_maps_come_back_bit_for_bit(rng, dtype, order):
    label_map = np.asarray(rng.integers(0, 3, (40, 7)) * rng.integers(0, 2, (40, 7)), dtype, order=order)
    label_map[:, 3] = 0
    before = label_map.copy()
    bank = DeltaPseudoLabels()
    bank.update([("v", label_map)])
    assert_same_bits(bank.labels("v"), before.astype(np.float64))
    assert bank.labels("v").flags.c_contiguous
    assert_array_equal(label_map, before)


def test_runs_do_not_cross_classes():
    bank = DeltaPseudoLabels()
    bank.update({"v": [[0, 1, 0], [1, 1, 0], [1, 0, 0]]})
    assert_array_equal(bank.labels("v"), [[0, 1, 0], [1, 1, 0], [1, 0, 0]])
    assert bank.nbytes == 2 * 16


def test_memory_follows_the_runs_not_the_snippets():
    sizes = []
    for length in (200, 20_000):
        label_map = np.zeros((length, 20))
        label_map[20:30, 3], label_map[50:60, 3], label_map[10:90, 7] = 0.5, 0.25, 0.125
        bank = DeltaPseudoLabels()
        bank.update({"v": label_map})
        sizes.append(bank.nbytes)
    assert sizes == [3 * 16] * 2


# -------------------------------------------------------------------------------------------- why labels changed
def churn_of(old_map, old, new_map, new, **options):
    bank = DeltaPseudoLabels()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LabelCollapseWarning)
        bank.update({"v": old_map}, {"v": as_segments(old)})
        return bank.update({"v": new_map}, {"v": as_segments(new)}, **options)


def column(*numbers):
    return np.array(numbers, float)[:, None]


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ([(0, 2, 6)], [(0, 3, 6)], "scores"),  # matched, both cover snippet 4
        ([(0, 2, 4)], [(0, 2, 5)], "boundaries"),  # matched, only the new one covers it
        ([], [(0, 3, 5)], "appeared"),
        ([(0, 3, 5)], [], "vanished"),
        ([(0, 0, 2)], [(0, 0, 2)], "elsewhere"),
        ([(0, 3, 5)], [(0, 4, 12)], "appeared"),  # no match: the new one first
        ([(0, 2, 6), (0, 3, 5)], [(0, 2, 6)], "scores"),
    ],
)
def test_one_snippet_has_one_cause(old, new, part):
    churn = churn_of(np.zeros((12, 1)), old, column(*([0] * 4), 0.5, *([0] * 7)), new)
    assert {name: getattr(churn, name) for name in PARTS} == {**dict.fromkeys(PARTS, 0.0), part: 0.5}
    assert churn.change == 0.5
    assert churn.relative_change == 1.0


def test_threshold_of_the_matching_is_reached_not_passed():
    old, new = [(0, 0, 4)], [(0, 2, 6)]  # tIoU 1/3
    maps = column(*[0.5] * 4, 0, 0), column(0, 0, *[0.5] * 4)
    assert churn_of(maps[0], old, maps[1], new, tiou_threshold=1 / 3).num_matched == 1
    churn = churn_of(maps[0], old, maps[1], new)
    assert (churn.num_matched, churn.num_appeared, churn.num_vanished) == (0, 1, 1)
    assert (churn.appeared, churn.vanished) == (1.0, 1.0)


def test_matching_is_one_to_one_and_the_earlier_rows_win_ties():
    old, new = [(0, 0, 4), (0, 0, 4)], [(0, 0, 4), (0, 0, 4), (0, 0, 4)]
    churn = churn_of(column(1, 1, 1, 1), old, column(1, 1, 1, 1), new)
    assert (churn.num_matched, churn.num_appeared, churn.num_vanished) == (2, 1, 0)
    # two new rows with the same tIoU of 1/2 to the old one: the first is its partner, the second appeared
    churn = churn_of(column(0, 0, 0, 0), [(0, 1, 3)], column(1, 0, 0, 0), [(0, 0, 2.9), (0, 0, 2.9)])
    assert (churn.num_matched, churn.num_appeared, churn.boundaries) == (1, 1, 1.0)


def test_instances_of_other_classes_are_never_partners():
    churn = churn_of(np.zeros((4, 2)), [(0, 0, 4)], np.ones((4, 2)), [(1, 0, 4)])
    assert (churn.num_matched, churn.appeared, churn.vanished) == (0, 4.0, 4.0)


def test_parts_are_only_there_when_both_refreshes_have_instances():
    bank = DeltaPseudoLabels()
    rows = {"v": as_segments([(0, 0, 1)])}
    assert bank.update({"v": column(1, 0)}).scores is None
    assert bank.update({"v": column(0, 1)}, rows).scores is None
    assert bank.update({"v": column(0.5, 0)}, rows).scores == 0.5
    assert bank.update({"v": column(1, 0)}).num_matched is None


def test_counts_and_masses():
    bank = DeltaPseudoLabels()
    first = bank.update({"a": column(1, 0, 0), "b": column(0, 0)})
    assert (first.num_videos, first.num_compared, first.num_kept, first.num_empty) == (2, 0, 0, 1)
    assert (first.mass_before, first.mass, first.change, first.relative_change) == (0.0, 0.0, 0.0, 0.0)
    assert first.nonzero_share == 1 / 3
    second = bank.update({"a": column(0, 3, 0), "c": column(1, 0)}, missing="keep")
    assert (second.num_videos, second.num_compared, second.num_kept, second.num_empty) == (2, 1, 1, 0)
    assert (second.mass_before, second.mass, second.change, second.relative_change) == (1.0, 3.0, 4.0, 1.0)


def test_the_report_and_the_state_know_no_order(rng):
    ids = [f"v{k}" for k in range(12)]
    rounds = []
    for _ in range(2):
        maps = {v: rng.random((9, 2)) * (rng.random((9, 2)) < 0.4) for v in ids}
        rows = {v: as_segments([(k % 2, s, s + 3.3) for k, s in enumerate(rng.uniform(0, 9, 3))]) for v in ids}
        rounds.append((maps, rows))
    reports, states = [], []
    for order in (ids, ids[::-1]):
        bank = DeltaPseudoLabels()
        for maps, rows in rounds:
            report = bank.update([(v, maps[v]) for v in order], rows)
        reports.append(report)
        states.append(bank.state_dict())
    assert reports[0] == reports[1]
    assert json.dumps(states[0]) == json.dumps(states[1])


# ----------------------------------------------------------------------------------------------- what comes in
def test_instances_by_id_in_order_and_as_one_object():
    maps = {"b": column(1, 0), "a": column(0, 1)}
    rows = {"a": as_segments([(0, 1, 2)]), "b": as_segments([(0, 0, 1)]), "other": as_segments([])}
    named = Segments.concatenate([rows["a"], rows["b"]]).replace(video_ids=("a", "b"))
    unnamed = Segments.concatenate([rows["b"], rows["a"]])
    states = []
    for instances in (rows, [rows["b"], rows["a"]], iter([rows["b"], rows["a"]]), named, unnamed):
        bank = DeltaPseudoLabels()
        bank.update(iter(maps.items()), instances)
        states.append(bank.state_dict())
    assert all(state == states[0] for state in states)


def test_one_dense_map_at_a_time():
    """A stream's last map is gone before the next one is made."""
    alive, pairs = [], []

    class Map(np.ndarray):
        pass

    def stream():
        for k in range(4):
            assert not [made for made in alive if made() is not None]
            label_map = np.eye(5, 2).view(Map)
            alive.append(weakref.ref(label_map))
            pairs.append((f"v{k}", label_map))
            del label_map
            yield pairs.pop()

    bank = DeltaPseudoLabels()
    bank.update(stream())
    assert len(bank) == 4


def test_what_goes_in_and_comes_out_is_nobody_elses():
    label_map, rows = column(0, 0.5, 0), as_segments([(0, 1, 2)])
    bank = DeltaPseudoLabels()
    bank.update({"v": label_map}, {"v": rows})
    state = bank.state_dict()
    label_map[:] = 7
    rows.segments[:] = 0
    for made in (bank.labels("v"), bank.targets("v"), bank.targets("v", scale=None)):
        made[:] = 9
    assert bank.state_dict() == state


def test_a_video_that_is_missing():
    bank = DeltaPseudoLabels()
    bank.update({"a": column(1, 0), "b": column(0, 1)})
    bank.update({"a": column(2, 0), "b": column(0, 2)})
    with pytest.raises(ValueError, match=r"`maps` .* 'b' is missing \(1 of 2 videos\)"):
        bank.update({"a": column(3, 0)})
    assert bank.targets("a")[0, 0] == 1
    bank.update({"a": column(5, 0), "c": column(0, 1)}, missing="keep")
    assert bank.video_ids == ("a", "b", "c")
    assert [bank.targets(v).sum() for v in bank.video_ids] == [3, 1, 1]
    assert bank.previous("c") is None


def test_before_the_second_refresh():
    bank = DeltaPseudoLabels()
    bank.update({"v": column(0, 0.5)})
    assert bank.targets("v", scale=3.0).sum() == 0.5
    assert_array_equal(bank.targets("v", before="zeros"), column(0, 0))
    assert bank.targets("v", scale=None, before="zeros").sum() == 0.5
    bank.update({"v": column(0, 0.25)})
    assert bank.targets("v", before="zeros").sum() == -0.25


def test_empty_banks_and_empty_maps():
    bank = DeltaPseudoLabels()
    report = bank.update({})
    assert (report.num_videos, report.change, report.scores, len(bank), bank.num_classes) == (0, 0.0, 0.0, 0, 0)
    bank.update({"none": np.empty((0, 3)), "some": np.eye(4, 3)}, {"none": Segments.empty(), "some": Segments.empty()})
    bank.update({"none": np.empty((0, 3)), "some": np.eye(4, 3)})
    assert bank.targets("none").shape == (0, 3)
    assert bank.num_classes == 3
    assert "some" in bank
    assert "else" not in bank
    assert "2 videos, 3 classes" in repr(bank)


class Broken(Exception):
    pass


def failing():
    yield "a", column(3, 0)
    raise Broken("half way")


@pytest.mark.parametrize(
    ("maps", "instances", "error", "match"),
    [
        (failing, None, Broken, "half"),
        ({"a": column(1, np.nan), "b": column(0, 1)}, None, ValueError, r"`maps\['a'\]` must be finite"),
        ({"a": column(1, 0, 0), "b": column(0, 1)}, None, ValueError, r"shape it had before, \(2, 1\), got \(3, 1\)"),
        ({"a": column(1, 0), "b": column(1, 0), "c": np.eye(2)}, None, ValueError, "must have 1 classes"),
        ({"a": np.zeros(2), "b": column(0, 1)}, None, ValueError, r"must have shape \(T, K\)"),
        ({"a": [["x"]], "b": column(0, 1)}, None, TypeError, "real numbers"),
        ([("a", column(1, 0)), ("a", column(1, 0))], None, ValueError, "'a' stands twice"),
        ([("a", column(1, 0), 0)], None, TypeError, "pairs"),
        ({1: column(1, 0)}, None, TypeError, "text"),
        ({"a\0": column(1, 0)}, None, ValueError, "NUL"),
        ({"a": column(1, 0), "b": column(0, 1)}, {"a": Segments([[0, 1]])}, ValueError, "'b' is missing"),
        ({"a": column(1, 0), "b": column(0, 1)}, [Segments([[0, 1]])], ValueError, "got 1 for more maps"),
        ({"a": column(1, 0), "b": column(0, 1)}, [Segments([[0, 1]])] * 3, ValueError, "more than 2"),
        ({"a": column(1, 0)}, {"a": [[0, 1]]}, TypeError, r"`instances\['a'\]` must be Segments"),
        ({"a": column(1, 0)}, {"a": Segments([[0, 1]], offsets=[0, 1, 1])}, TypeError, "got 2 videos"),
        ({"a": column(1, 0)}, {"a": Segments([[0, 1]], unit="second")}, UnitError, "snippets"),
        ({"a": column(1, 0)}, {"a": Segments([[0, 1]], [1])}, ValueError, r"labels` must lie in \[0, 1\)"),
        ({"a": column(1, 0)}, {"a": Segments([[5, 6]])}, ValueError, r"`instances\['a'\]` must touch the video"),
        ({"a": column(0, 0), "b": column(0, 0)}, None, LabelCollapseWarning, "all 2 videos are 0"),
    ],
)
def test_all_or_nothing(maps, instances, error, match):
    bank = DeltaPseudoLabels()
    bank.update({"a": column(1, 0), "b": column(0, 1)})
    state = bank.state_dict()
    with pytest.raises(error, match=match):
        bank.update(maps() if callable(maps) else maps, instances)
    assert bank.state_dict() == state


def test_one_width_for_all():
    bank = DeltaPseudoLabels()
    with pytest.raises(ValueError, match=r"`maps\['b'\]` must have 1 classes"):
        bank.update({"a": column(1, 0), "b": np.eye(2)})
    bank.update({"a": column(1, 0)})
    with pytest.raises(ValueError, match=r"`maps\['b'\]` must have 1 classes"):
        bank.update({"b": np.eye(2)}, missing="keep")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"missing": "drop"}, ValueError),
        ({"tiou_threshold": 0.0}, ValueError),
        ({"tiou_threshold": 1.5}, ValueError),
        ({"tiou_threshold": "x"}, TypeError),
    ],
)
def test_bad_options_of_update(options, error):
    with pytest.raises(error, match=next(iter(options))):
        DeltaPseudoLabels().update({}, **options)


def test_bad_reads():
    bank = DeltaPseudoLabels()
    bank.update({"v": column(0, 1)})
    for read in (bank.labels, bank.previous, bank.targets):
        with pytest.raises(KeyError, match="no video 'w' among the 1"):
            read("w")
    with pytest.raises(ValueError, match="scale"):
        bank.targets("v", scale=np.inf)
    with pytest.raises(ValueError, match="before"):
        bank.targets("v", before="nothing")


# ------------------------------------------------------------------------------------------------------ collapse
def test_collapse_is_warned_of():
    bank = DeltaPseudoLabels()
    with pytest.warns(LabelCollapseWarning, match="the labels of all 2 videos are 0"):
        bank.update({"a": np.zeros((5, 2)), "b": np.zeros((3, 2))})
    full = np.zeros((100, 2))
    full[:96, 0] = 0.5
    with pytest.warns(LabelCollapseWarning, match=r"96\.0% .* 95%, .* in 1 of 2 videos") as caught:
        DeltaPseudoLabels().update({"a": full, "b": np.zeros((3, 2))})
    assert caught[0].filename == __file__
    full[95, 0] = 0
    DeltaPseudoLabels().update({"a": full})  # 95 % are not more than 95 %


# --------------------------------------------------------------------------------------------------- checkpoints
@pytest.fixture
def bank():
    made = DeltaPseudoLabels()
    grid = np.arange(60).reshape(20, 3)
    maps = [np.round(np.sin(grid + k), 1) * (grid % 5 > 2) for k in (0, 1)]
    made.update({"v": maps[0], "ä": maps[1][:7]}, {"v": as_segments([(1, 2, 5)]), "ä": as_segments([])})
    made.update({"v": maps[1], "ä": maps[0][:7]}, {"v": as_segments([(1, 2, 6), (2, 0, 1)]), "ä": as_segments([])})
    made.update([(np.str_("new"), maps[0][:4])], missing="keep")
    return made


def assert_same_bank(found, expected):
    assert found.video_ids == expected.video_ids
    for v in expected.video_ids:
        assert_same_bits(found.labels(v), expected.labels(v))
        assert_same_bits(found.targets(v), expected.targets(v))
    again = {v: expected.labels(v) + 0.125 for v in expected.video_ids}
    rows = {v: as_segments([(1, 2, 4)]) for v in expected.video_ids}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LabelCollapseWarning)
        assert found.update(again, rows) == copy.deepcopy(expected).update(again, rows)


def test_state_dict(bank):
    state = json.loads(json.dumps(bank.state_dict()))
    other = DeltaPseudoLabels()
    other.load_state_dict(state)
    assert other.state_dict() == state
    assert_same_bank(other, bank)
    other.load_state_dict(DeltaPseudoLabels().state_dict())
    assert len(other) == 0


def test_state_dict_is_what_a_restricted_unpickler_takes(bank):
    """``torch.save`` pickles by protocol 2; nothing in it is looked up by name, so nothing can be refused."""
    opcodes = {op.name for op, _, _ in pickletools.genops(pickle.dumps(bank.state_dict(), protocol=2))}
    allowed = "PROTO EMPTY_DICT EMPTY_LIST MARK BINUNICODE BINPUT BINGET APPEND APPENDS SETITEM SETITEMS STOP"
    assert opcodes <= set(allowed.split())


def test_torch_checkpoint(bank, tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"labels": bank.state_dict()}, tmp_path / "checkpoint.pt")
    other = DeltaPseudoLabels()
    other.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True)["labels"])
    assert_same_bank(other, bank)


def test_files(bank, tmp_path):
    for made, name in ((bank, "a.npz"), (copy.deepcopy(bank), "b.npz"), (DeltaPseudoLabels(), "c.npz")):
        made.save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert_same_bank(DeltaPseudoLabels.load(tmp_path / "a.npz"), bank)
    assert DeltaPseudoLabels.load(tmp_path / "c.npz").video_ids == ()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["video_ids"].tolist() == list(bank.video_ids)


def test_pickles_for_workers(bank):
    assert_same_bank(pickle.loads(pickle.dumps(bank)), bank)


def test_reads_during_an_update_see_one_state():
    bank = DeltaPseudoLabels()
    bank.update({v: column(1, 0) for v in "abc"})
    bank.update({v: column(2, 0) for v in "abc"})
    seen, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            seen.add(float(bank.targets("b").sum()))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for k in range(3, 60):
        bank.update({v: column(2 + 3.0 ** (k % 5), 0) for v in "abc"})
    stop.set()
    for thread in threads:
        thread.join()
    steps = [2 + 3.0 ** (k % 5) for k in range(3, 60)]
    assert seen <= {1.0} | {b - a for a, b in itertools.pairwise([2.0, *steps])}


def edited(state, name, dtype, change):
    array = np.frombuffer(base64.b64decode(state[name]), dtype).copy()
    made = change(array)
    array = array if made is None else made
    return {**state, name: base64.b64encode(np.asarray(array, dtype).tobytes()).decode()}


def put(index, value):
    def change(array):
        array[index] = value

    return change


HOSTILE = [
    ("shapes", "<i8", put(0, -1), "must lie in"),
    ("shapes", "<i8", put(0, 2**40), "must lie in"),
    ("shapes", "<i8", put(0, 2**31 - 1), "at most"),
    ("shapes", "<i8", put(1, 2), "one number of classes"),
    ("shapes", "<i8", put(0, 1), "within the map"),
    ("shapes", "<i8", lambda a: a[:-1], "must have 6 entries"),
    ("has_previous", "u1", put(0, 2), "must be 0 or 1"),
    ("has_previous", "u1", put(1, 0), "must be empty where"),
    ("has_previous", "u1", lambda a: a[:-1], "must have 3 entries"),
    ("has_instances", "u1", put(1, 0), "must be empty where"),
    ("has_instances", "u1", put(1, 9), "must be 0 or 1"),
    ("run_offsets", "<i8", put(0, 1), "must rise from 0"),
    ("run_offsets", "<i8", put(1, 2**60), "must rise from 0"),
    ("run_offsets", "<i8", lambda a: a[:-1], "must have 7 entries"),
    ("run_offsets", "<i8", lambda a: a[:0], "must have 7 entries"),
    ("starts", "<i4", put(0, -1), "within the map"),
    ("starts", "<i4", put(0, 2**31 - 1), "before `stops`"),
    ("starts", "<i4", lambda a: a[:-1], "must rise from 0"),
    ("stops", "<i4", put(0, 2**31 - 1), "within the map"),
    ("stops", "<i4", lambda a: a[:-1], "one entry per stop"),
    ("stops", "<i4", put(0, 7), "another class|without overlap"),
    ("values", "<f8", put(0, np.nan), "finite"),
    ("values", "<f8", put(0, np.inf), "finite"),
    ("values", "<f8", put(0, 0.0), "must not be 0"),
    ("values", "<f8", lambda a: a[:-1], "one entry per stop"),
    ("instance_offsets", "<i8", put(-1, 1), "must rise from 0"),
    ("instance_offsets", "<i8", lambda a: a[1:], "must have 4 entries"),
    ("instance_labels", "<i8", put(0, 3), "must lie in"),
    ("instance_labels", "<i8", put(0, -1), "must be >= 0"),
    ("instance_bounds", "<f8", put(0, np.nan), "finite"),
    ("instance_bounds", "<f8", put(0, 19.5), "start <= end"),
    ("instance_bounds", "<f8", put(slice(2), 99.0), "touch the video"),
    ("instance_bounds", "<f8", lambda a: a[:-1], "two entries per label"),
]


@pytest.mark.parametrize(("name", "dtype", "change", "match"), HOSTILE)
def test_hostile_states(bank, name, dtype, change, match):
    state = bank.state_dict()
    with pytest.raises(FormatError, match=match):
        bank.load_state_dict(edited(state, name, dtype, change))
    assert bank.state_dict() == state


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s: None, "NoneType"),
        (lambda s: [*s], "list"),
        (lambda s: {}, "must have format"),
        (lambda s: {**s, "more": ""}, "more"),
        (lambda s: {k: v for k, v in s.items() if k != "values"}, "must have format"),
        (lambda s: {**s, "format": "tal_postproc.DeltaPseudoLabels 2"}, "`format` must be"),
        (lambda s: {**s, "format": ["x"]}, "`format` must be"),
        (lambda s: {**s, "video_ids": "abc"}, "must be a list"),
        (lambda s: {**s, "video_ids": [1, 2, 3]}, "must be text"),
        (lambda s: {**s, "video_ids": ["a", "b\0", "c"]}, "must be text"),
        (lambda s: {**s, "video_ids": ["b", "a", "c"]}, "must rise"),
        (lambda s: {**s, "video_ids": ["a", "a", "c"]}, "must rise"),
        (lambda s: {**s, "video_ids": ["a", "b"]}, "must have 4 entries"),
        (lambda s: {**s, "values": 3}, "base64"),
        (lambda s: {**s, "values": "ä"}, "base64"),
        (lambda s: {**s, "values": s["values"][:-3]}, "base64"),
        (lambda s: {**s, "values": base64.b64encode(b"12345").decode()}, "base64 of <f8"),
    ],
)
def test_states_that_are_not_whole(bank, change, match):
    state = bank.state_dict()
    with pytest.raises(FormatError, match=match):
        bank.load_state_dict(change(state))
    assert bank.state_dict() == state


def test_overlapping_runs_are_refused():
    bank = DeltaPseudoLabels()
    bank.update({"v": column(1, 0, 2, 0)})
    with pytest.raises(FormatError, match="without overlap"):
        bank.load_state_dict(edited(bank.state_dict(), "stops", "<i4", put(0, 3)))


def test_hostile_files(bank, tmp_path):
    path = tmp_path / "bank.npz"
    bank.save(path)
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(FormatError):
            DeltaPseudoLabels.load(path)
    with np.load(io.BytesIO(whole)) as npz:
        arrays = dict(npz)
    for name, array in (
        ("values", arrays["values"].astype(np.float32)),
        ("starts", arrays["starts"][:, None]),
        ("has_previous", arrays["has_previous"].astype(bool)),
        ("video_ids", np.arange(3)),
        ("video_ids", arrays["video_ids"][:, None]),
        ("format", np.array(["x"])),
        ("more", np.zeros(1)),
        ("values", np.full_like(arrays["values"], np.nan)),
    ):
        np.savez(path, **{**arrays, name: array})
        with pytest.raises(FormatError, match=name):
            DeltaPseudoLabels.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("values.npy", pickle.dumps(object))
    with pytest.raises(FormatError):
        DeltaPseudoLabels.load(path)
    with pytest.raises(FileNotFoundError):
        DeltaPseudoLabels.load(tmp_path / "nowhere.npz")


# ----------------------------------------------------------------------------------------------------- schedules
def test_schedules_give_the_published_epochs():
    paper, code = RefreshSchedule.paper(), RefreshSchedule.code()
    assert paper == RefreshSchedule()
    assert paper.epochs(350) == (200, 215, 230, 245, 270, 290)
    assert code.epochs(350) == (200, 230, 245, 260, 275, 300)
    assert [paper.delta_scale(epoch, 350) for epoch in (0, 200, 349)] == [1.0, 1.0, 1.0]
    found = [code.delta_scale(epoch, 350) for epoch in (0, 249, 250, 299, 300, 349)]
    assert found == [None, None, 2.0, 2.0, 2.15, 2.15]


def test_explicit_epochs():
    schedule = RefreshSchedule(refreshes=(2, 5), delta_scales=((5, 2.0),), unit="epoch")
    assert schedule.epochs(6) == (2, 5)
    assert [schedule.delta_scale(epoch, 6) for epoch in range(6)] == [None] * 5 + [2.0]
    assert RefreshSchedule(refreshes=(2,), delta_scales=(), unit="epoch").delta_scale(5, 6) is None
    with pytest.raises(ValueError, match="above the last refresh, 5, got 5"):
        schedule.epochs(5)


@given(
    st.lists(st.integers(0, 999), min_size=1, max_size=7, unique=True).map(lambda k: sorted(v / 1000 for v in k)),
    st.integers(1, 60),
)
def test_epochs_equal_oracle(fractions, total):
    schedule = RefreshSchedule(refreshes=tuple(fractions))
    expected = oracle.epochs(fractions, total)
    if expected is None:
        with pytest.raises(ValueError, match="`total` must leave room"):
            schedule.epochs(total)
    else:
        assert schedule.epochs(total) == expected


def test_halves_go_up_also_where_the_product_is_a_little_less():
    assert 0.7 * 45 < 31.5
    assert RefreshSchedule(refreshes=(0.7,)).epochs(45) == (32,)
    assert RefreshSchedule(refreshes=(0.5,)).epochs(5) == (3,)
    assert RefreshSchedule(refreshes=(0.99,)).epochs(10) == (9,)


def test_schedules_are_plain_data():
    for schedule in (RefreshSchedule.code(), RefreshSchedule(refreshes=(2, 5), unit="epoch")):
        assert from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"refreshes": ()}, "at least one"),
        ({"refreshes": (0.5, 0.5)}, "rising fractions"),
        ({"refreshes": (0.5, 1.0)}, "rising fractions"),
        ({"refreshes": (-0.1,)}, "rising fractions"),
        ({"refreshes": (0.5, np.nan)}, "finite"),
        ({"refreshes": (0.5,), "unit": "epoch"}, "rising whole epochs"),
        ({"refreshes": (5, 4), "unit": "epoch"}, "rising whole epochs"),
        ({"delta_scales": ((0.5, 1.0), (0.4, 2.0))}, "delta_scales` must be rising"),
        ({"delta_scales": ((0.5, np.inf),)}, "finite"),
        ({"delta_scales": (0.5, 1.0)}, "pairs"),
        ({"unit": "step"}, "unit"),
    ],
)
def test_bad_schedules(options, match):
    with pytest.raises(ValueError, match=match):
        RefreshSchedule(**options)


def test_bad_epochs():
    with pytest.raises(ValueError, match="total"):
        RefreshSchedule().epochs(0)
    with pytest.raises(TypeError, match="epoch"):
        RefreshSchedule().delta_scale(1.5, 10)


# -------------------------------------------------------------------------------------------- what a loss does with it
@quiet
def test_descent_direction_of_difference_targets(rng):
    """For -sum d log softmax(z) it is d_c - P_c sum(d), and d_c (1 - P_c) only where c is the only class."""
    logits, step = rng.normal(0, 1, 4), 1e-6
    bank = DeltaPseudoLabels()
    for _ in range(2):
        bank.update({"v": rng.uniform(0, 1, (1, 4)) * [1, 1, 1, 0]})
    target = bank.targets("v", scale=2.0)[0]

    def loss(z, d):
        return -(d @ (z - np.log(np.exp(z).sum())))

    def direction(d):
        return [-(loss(logits + e, d) - loss(logits - e, d)) / (2 * step) for e in step * np.eye(4)]

    probabilities = np.exp(logits) / np.exp(logits).sum()
    assert (target < 0).any()
    assert_allclose(direction(target), target - probabilities * target.sum(), atol=1e-8)
    lone = target * [1, 0, 0, 0]
    assert_allclose(direction(lone)[0], lone[0] * (1 - probabilities[0]), atol=1e-8)
    balanced = target - [0, 0, 0, target.sum()]
    assert_allclose(direction(balanced), balanced, atol=1e-8)
    smallest = int(target.argmin())
    deep = [loss(logits - far * np.eye(4)[smallest], target) for far in (0, 1e3, 1e6)]
    assert deep[2] < deep[1] < deep[0]
    assert deep[2] < -1e4
