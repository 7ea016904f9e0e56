"""Which snippets an interval of real numbers covers, and label maps painted by it: one rule for all labels.

Snippet t lies in an interval when its middle, t + 0.5, does.
"""

from __future__ import annotations

import numpy as np

from ._checks import Float, Int

__all__ = ["covered", "paint_largest", "to_snippets"]


def to_snippets(boundaries: Float, num_snippets: int | Int) -> Int:
    """The first snippet whose middle is not before each boundary, within [0, T]; int64 of the same shape.

    [a, b) holds the middles of the snippets ``to_snippets(a) .. to_snippets(b)``, the last one not included.
    """
    return np.clip(np.ceil(boundaries - 0.5), 0, num_snippets).astype(np.int64)


def covered(segments: Float, num_snippets: int | Int, name: str = "segments") -> tuple[Int, Int]:
    """(N,) first snippet that each (checked) segment covers, and (N,) the one after its last, int64.

    `num_snippets` is one length or (N,), that of every row's video.
    A segment that holds the middle of no snippet of the video covers the one snippet that holds its own middle, or the
    nearest of the video.  A segment beyond either end of the video is an error.  Without snippets nothing is covered.
    """
    beyond = (segments[:, 0] > num_snippets) | (segments[:, 1] < 0)
    if beyond.any():
        first = int(beyond.argmax())
        length = np.broadcast_to(num_snippets, beyond.shape)[first]
        raise ValueError(
            f"`{name}` must touch the video, [0, {length}] in snippets; row {first} is "
            f"{segments[first].tolist()} ({int(beyond.sum())} of {len(segments)} rows)"
        )
    start, stop = to_snippets(segments[:, 0], num_snippets), to_snippets(segments[:, 1], num_snippets)
    without = (start >= stop) & (np.asarray(num_snippets) > 0)
    if without.any():
        last = np.broadcast_to(num_snippets, without.shape)[without] - 1
        start[without] = np.clip(np.floor(segments[without].mean(axis=1)), 0, last).astype(np.int64)
        stop[without] = start[without] + 1
    return start, stop


def paint_largest(start: Int, stop: Int, labels: Int, values: Float, shape: tuple[int, int]) -> Float:
    """(T, K) map of the largest of 0 and the values of the regions ``start .. stop`` of each class.

    A region is two blocks, perhaps overlapping, whose length is a power of 2; blocks are halved, the longest first,
    until they are snippets.  O(N + T K log T), whatever the regions' lengths.
    """
    num_snippets, num_classes = shape
    length = stop - start
    level = np.frexp(length)[1] - 1  # of the largest power of 2 within the length; -1 where it is 0
    first = labels * num_snippets + start
    flat = np.zeros(num_classes * num_snippets)  # flat[i]: largest value of the blocks of this level that begin at i
    for power in range(int(level.max(initial=-1)), -1, -1):
        rows = level == power
        np.maximum.at(flat, first[rows], values[rows])
        np.maximum.at(flat, (first + length)[rows] - 2**power, values[rows])
        half = 2**power // 2
        if half:
            flat[half:] = np.maximum(flat[half:], flat[:-half])
    return np.ascontiguousarray(flat.reshape(num_classes, num_snippets).T)
