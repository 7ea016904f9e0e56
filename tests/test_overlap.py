"""tiou_matrix: hand-made cases, every option, the oracle, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tal_postproc._kernels import segments as kernels
from tal_postproc.overlap import tiou_matrix

from .oracles import segments as oracle
from .strategies import segment_sets

HOW = st.fixed_dictionaries(
    {
        "overlap": st.sampled_from(["iou", "candidate"]),
        "length_offset": st.sampled_from([0.0, 0.5, 1.0]),
        "area_eps": st.sampled_from([0.0, 0.5, 1e-6]),
    }
)


def literal(how):
    return {"kind": how["overlap"], "length_offset": how["length_offset"], "area_eps": how["area_eps"]}


@given(segment_sets(), segment_sets(), HOW)
def test_equals_oracle(left, right, how):
    expected = oracle.overlap_matrix(left[0], right[0], **literal(how))
    found = tiou_matrix(left[0], right[0], **how)
    assert_array_equal(found, expected, strict=True)
    assert ((found >= 0) & (found <= 1)).all()


@given(segment_sets())
def test_iou_is_symmetric_and_one_with_itself(given_set):
    segments = given_set[0]
    overlaps = tiou_matrix(segments, segments)
    assert_array_equal(overlaps, overlaps.T, strict=True)
    assert_array_equal(np.diag(overlaps), (segments[:, 1] > segments[:, 0]).astype(float), strict=True)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, 1 / 7),  # [0, 4] and [3, 7]
        ({"overlap": "candidate"}, 1 / 4),
        ({"length_offset": 1.0}, 2 / 8),
        ({"area_eps": 1.0}, 1 / 9),
        ({"overlap": "candidate", "length_offset": 1.0, "area_eps": 1.0}, 2 / 6),
    ],
)
def test_every_option_counts(how, expected):
    assert tiou_matrix([[0, 4]], [[3, 7]], **how)[0, 0] == pytest.approx(expected, abs=1e-15)


def test_candidate_is_the_row_of_b():
    assert tiou_matrix([[0, 10]], [[0, 2]], overlap="candidate").item() == 1.0
    assert tiou_matrix([[0, 2]], [[0, 10]], overlap="candidate").item() == 0.2


def test_published_plus_one_in_seconds():
    """Disjoint segments overlap under "+1", as in the code of the BaS-Net family."""
    assert tiou_matrix([[0, 1]], [[0.5, 1.5]], length_offset=1).item() == pytest.approx(0.6)
    assert tiou_matrix([[0, 2]], [[2.5, 4.5]], length_offset=1).item() == pytest.approx(0.5 / 5.5)


def test_zero_lengths_and_negative_times():
    assert_array_equal(tiou_matrix([[1, 1]], [[1, 1], [0, 2]]), [[0.0, 0.0]])
    assert tiou_matrix([[-4, -2]], [[-3, -1]]).item() == pytest.approx(1 / 3)
    assert tiou_matrix([[1, 1]], [[1, 1]], length_offset=1).item() == 1.0


@pytest.mark.parametrize(("a", "b", "shape"), [([], [], (0, 0)), ([], [[0, 1]], (0, 1)), ([[0, 1]], [], (1, 0))])
def test_empty(a, b, shape):
    assert tiou_matrix(a, b).shape == shape
    assert tiou_matrix(a, b).dtype == np.float64


@pytest.mark.parametrize(
    ("a", "b", "how", "message"),
    [
        ([[0, np.nan]], [[0, 1]], {}, r"`a` must be finite; row 0 is \[0.0, nan\] \(1 of 1 rows\)"),
        ([[0, 1]], [[0, 1], [3, 2]], {}, r"`b` needs start <= end; row 1 is \[3.0, 2.0\] \(1 of 2 rows\)"),
        ([[0, 1, 2]], [[0, 1]], {}, r"`a` must have shape \(N, 2\).*\(1, 3\)"),
        ([[0, 1]], [[0, 1]], {"overlap": "giou"}, "`overlap` must be one of 'iou', 'candidate', got 'giou'"),
        ([[0, 1]], [[0, 1]], {"length_offset": -1}, "`length_offset` must be at least 0, got -1"),
        ([[0, 1]], [[0, 1]], {"area_eps": np.inf}, "`area_eps` must be finite"),
    ],
)
def test_bad_input(a, b, how, message):
    with pytest.raises(ValueError, match=message):
        tiou_matrix(a, b, **how)


def test_layouts_dtypes_and_no_second_compilation():
    rows = np.array([[0.0, 4.0], [2.0, 6.0]])
    expected = tiou_matrix(rows, rows)
    frozen = rows.copy()
    frozen.setflags(write=False)
    for some in (
        frozen,
        np.asfortranarray(rows),
        np.repeat(rows, 2, axis=0)[::2],
        rows.astype(">f4"),
        rows.astype(int),
    ):
        assert_array_equal(tiou_matrix(some, frozen, length_offset=0), expected, strict=True)
    assert_array_equal(frozen, rows)
    assert len(getattr(kernels.overlap_matrix, "signatures", [None])) == 1
