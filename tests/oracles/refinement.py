"""Literal versions of the operations beyond the seeds: plain loops over plain numbers."""

from __future__ import annotations

import math

from .segments import clusters, overlap


def non_maximum_weighted(segments, scores, threshold, idxs=None):
    """[(members, segment, score, effective size)] by the score of the head."""
    found = []
    for members in clusters(segments, scores, threshold, idxs):
        head = segments[members[0]]
        weights = [scores[k] * (overlap(head, segments[k]) if k != members[0] else 1.0) for k in members]
        total = sum(weights)
        if total == 0:
            fused, size = list(head), 1.0
        else:
            fused = [sum(w * segments[k][side] for w, k in zip(weights, members)) / total for side in (0, 1)]
            size = total**2 / sum(w * w for w in weights)
        found.append((members, fused, scores[members[0]], size))
    return found


def kernel_value(kind, start, end, at):
    """A kernel of height 1 over the middle of the segment; half its length is its width, and no less than 1."""
    x = (at - (start + end) / 2) / (max(end - start, 2.0) / 2)
    if kind == "gaussian":
        return math.exp(-x * x / 2)
    return (1 - x * x) * math.exp(-x * x / 2)


def timeline(segments, scores, num_snippets, kind):
    """The sum of all kernels at the middle of every step; segments are in steps, too."""
    line = [0.0] * num_snippets
    for (start, end), score in zip(segments, scores):
        if kind == "box":
            inside = [t for t in range(num_snippets) if start <= t + 0.5 < end]
            if not inside and num_snippets:
                inside = [min(max(math.floor((start + end) / 2), 0), num_snippets - 1)]
            for t in inside:
                line[t] += score
        else:
            for t in range(num_snippets):
                line[t] += score * kernel_value(kind, start, end, t + 0.5)
    return line


def read_off(line, share, interpolate):
    """[(start, end, peak)] of the runs above a share of the largest value, their ends on the lines between middles."""
    if not line or max(line) <= 0:
        return []
    level = share * max(line)
    found, t = [], 0
    while t < len(line):
        if not line[t] > level:
            t += 1
            continue
        first = t
        while t < len(line) and line[t] > level:
            t += 1
        start, end = float(first), float(t)
        if interpolate and first > 0:
            start = first - 0.5 + (level - line[first - 1]) / (line[first] - line[first - 1])
        if interpolate and t < len(line):
            end = t - 0.5 + (line[t - 1] - level) / (line[t - 1] - line[t])
        found.append((start, end, max(line[first:t])))
    return found


def compensate(kept, teacher, threshold, min_score):
    """Rows of the teacher, (video, label, segment, score), that overlap nothing kept, nor an added one, too much."""
    settled = [(video, label, segment) for video, label, segment, _ in kept]
    added = []
    for row in sorted(range(len(teacher)), key=lambda i: (-teacher[i][3], i)):
        video, label, segment, score = teacher[row]
        if score < min_score:
            continue
        rivals = [other for v, l, other in settled if (v, l) == (video, label)]
        if all(overlap(other, segment) <= threshold for other in rivals):
            settled.append((video, label, segment))
            added.append(row)
    return sorted(added)


def snap(segment, column, radius):
    """One segment at the steepest rise and the steepest fall within reach; 0 beyond the video."""
    value = dict(enumerate(column))
    moved = []
    for boundary, sign in ((segment[0], 1), (segment[1], -1)):
        best = None
        for b in range(len(column) + 1):
            change = sign * (value.get(b, 0.0) - value.get(b - 1, 0.0))
            if abs(b - boundary) <= radius and change > 0:
                rank = (-change, abs(b - boundary), b)
                best = rank if best is None else min(best, rank)
        moved.append(boundary if best is None else best[2])
    return moved if moved[0] < moved[1] else list(segment)


def agreement(segments, sets):
    """Mean over the sets of the largest overlap with a row of the same video and label."""
    out = []
    for video, label, segment in segments:
        best = [
            max([overlap(o, segment) for v, l, o in rows if (v, l) == (video, label)], default=0.0) for rows in sets
        ]
        out.append(sum(best) / len(best))
    return out
