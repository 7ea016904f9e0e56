"""Slow literal answers for label maps and their quality, one snippet at a time; imports nothing from the package.

Instances are triples ((start, end), class, score), in snippets.
"""

from __future__ import annotations

import math

import numpy as np


def covers(start, end, t, num_snippets):
    """Whether [start, end) holds the middle of snippet t; without any middle: whether t holds its own middle."""
    if any(start <= u + 0.5 < end for u in range(num_snippets)):
        return start <= t + 0.5 < end
    return t == min(max(math.floor((start + end) / 2), 0), num_snippets - 1)


def label_map(instances, num_snippets, num_classes, known, value):
    """The largest of 0 and value(instance, t) over the known instances that cover t."""
    out = np.zeros((num_snippets, num_classes))
    for t in range(num_snippets):
        for instance in instances:
            (start, end), label, _ = instance
            if label in known and covers(start, end, t, num_snippets):
                out[t, label] = max(out[t, label], value(instance, t))
    return out


def hard(instance, t):
    return 1.0


def score(instance, t):
    return instance[2]


def gaussian(width, weighted):
    """A bell around the instance's middle; an instance shorter than a snippet is as wide as a snippet."""

    def value(instance, t):
        (start, end), _, score = instance
        sigma = width * max(end - start, 1.0)
        return (score if weighted else 1.0) * math.exp(-((t + 0.5 - (start + end) / 2) ** 2) / (2 * sigma**2))

    return value


def tri_state(instances, stds, num_snippets, num_classes, known, spread, min_score):
    """1 action, 0 background, -1 ignore; action wins over ignore, ignore over background."""
    out = np.zeros((num_snippets, num_classes), dtype=int)
    for t in range(num_snippets):
        for ((start, end), label, score), (start_std, end_std) in zip(instances, stds):
            if label not in known:
                continue
            near = any(
                centre - spread * std <= t + 0.5 < centre + spread * std
                for centre, std in ((start, start_std), (end, end_std))
            )
            inside = covers(start, end, t, num_snippets)
            if inside and not near and (min_score is None or score >= min_score):
                out[t, label] = 1
            elif (inside or near) and out[t, label] == 0:
                out[t, label] = -1
    return out


def smooth(labels, kernel):
    """Weighted mean over the taps that lie in the video."""
    labels, half = np.asarray(labels, dtype=float), len(kernel) // 2
    out = np.zeros_like(labels)
    for t in range(len(labels)):
        taps = [d for d in range(-half, half + 1) if 0 <= t + d < len(labels)]
        total = sum(kernel[half + d] for d in taps)
        out[t] = sum(kernel[half + d] / total * labels[t + d] for d in taps)
    return out


def two_threshold(tcam, action, background, known, column, own):
    """ILG: a score of at least `action`: action; else a sum of action scores below `background`: background."""
    tcam = np.asarray(tcam, dtype=float)
    classes = [c for c in range(tcam.shape[1]) if c != column]
    out = np.full((len(tcam), len(classes)), -1)
    for t, row in enumerate(tcam):
        found = [k for k, c in enumerate(classes) if k in known and row[c] >= action]
        idle = row[column] >= background if own else sum(row[c] for c in classes) < background
        if found or idle:
            out[t] = 0
            out[t, found] = 1
    return out


def quality(maps, truths):
    """Counts over sets of (frame, class): `maps` of codes 1, 0, -1 or of True and False, `truths` of True and False."""
    num_classes = maps[0].shape[1]
    count = {"labelled": np.zeros(num_classes), "correct": np.zeros(num_classes), "truth": np.zeros(num_classes)}
    count |= {"background": 0, "correct_background": 0, "correct_frames": 0, "num_frames": 0}
    for states, truth in zip(maps, truths):
        for state, acts in zip(states, truth):
            named = {k for k in range(num_classes) if state[k] == 1}
            real = {k for k in range(num_classes) if acts[k]}
            background = states.dtype != bool and all(code == 0 for code in state)
            count["num_frames"] += 1
            for k in named:
                count["labelled"][k] += 1
                count["correct"][k] += k in real
            for k in real:
                count["truth"][k] += 1
            count["background"] += background
            count["correct_background"] += background and not real
            count["correct_frames"] += (background and not real) or (bool(named) and named <= real)
    return count
