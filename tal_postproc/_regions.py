"""Which snippets an interval of real numbers covers: one rule for all labels.

Snippet t lies in an interval when its middle, t + 0.5, does.
"""

from __future__ import annotations

import numpy as np

from ._checks import Float, Int

__all__ = ["covered", "to_snippets"]


def to_snippets(boundaries: Float, num_snippets: int) -> Int:
    """The first snippet whose middle is not before each boundary, within [0, T]; int64 of the same shape.

    [a, b) holds the middles of the snippets ``to_snippets(a) .. to_snippets(b)``, the last one not included.
    """
    return np.clip(np.ceil(boundaries - 0.5), 0, num_snippets).astype(np.int64)


def covered(segments: Float, num_snippets: int) -> tuple[Int, Int]:
    """(N,) first snippet that each (checked) segment covers, and (N,) the one after its last, int64.

    A segment that holds the middle of no snippet of the video covers the one snippet that holds its own middle, or the
    nearest of the video.  A segment beyond either end of the video is an error.  Without snippets nothing is covered.
    """
    beyond = (segments[:, 0] > num_snippets) | (segments[:, 1] < 0)
    if beyond.any():
        first = int(beyond.argmax())
        raise ValueError(
            f"`segments` must touch the video, [0, {num_snippets}] in snippets; row {first} is "
            f"{segments[first].tolist()} ({int(beyond.sum())} of {len(segments)} rows)"
        )
    start, stop = to_snippets(segments[:, 0], num_snippets), to_snippets(segments[:, 1], num_snippets)
    without = start >= stop
    if without.any() and num_snippets:
        middle = np.floor(segments[without].mean(axis=1))
        start[without] = np.clip(middle, 0, num_snippets - 1).astype(np.int64)
        stop[without] = start[without] + 1
    return start, stop
