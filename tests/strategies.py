"""Hypothesis strategies on a half-unit grid, so that ties and exactly met thresholds happen all the time."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

half_units = st.integers(-6, 24).map(lambda k: k / 2)
grid_scores = st.integers(0, 8).map(lambda k: k / 8)
tiou_thresholds = st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.6, 0.75, 1.0])


@st.composite
def segment_sets(draw, max_size: int = 12, groups: int = 1, scores=grid_scores):
    """``(segments (N, 2), scores (N,), idxs (N,))`` with zero lengths, duplicates and negative times."""
    n = draw(st.integers(0, max_size))
    first = draw(st.lists(half_units, min_size=n, max_size=n))
    length = draw(st.lists(st.integers(0, 12).map(lambda k: k / 2), min_size=n, max_size=n))
    segments = np.array([(s, s + l) for s, l in zip(first, length)], dtype=np.float64).reshape(n, 2)
    values = np.array(draw(st.lists(scores, min_size=n, max_size=n)), dtype=np.float64)
    idxs = np.array(draw(st.lists(st.integers(0, groups - 1), min_size=n, max_size=n)), dtype=np.int64)
    return segments, values, idxs


@st.composite
def tcams(draw, max_snippets: int = 24, max_classes: int = 3):
    """(T, K) maps whose values are multiples of 1/8: plateaus, exact thresholds, T = 0, 1, 2 included."""
    t = draw(st.integers(0, max_snippets))
    k = draw(st.integers(1, max_classes))
    values = draw(st.lists(st.integers(-2, 8).map(lambda v: v / 8), min_size=t * k, max_size=t * k))
    return np.array(values, dtype=np.float64).reshape(t, k)
