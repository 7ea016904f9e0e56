"""RSKP's propagation: the n x n solve of the examples against the T x T inverse of the published code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from . import bench_segments
from .common import Panel, Picture, Report, Row, Unavailable, ratio, require_equal_values, time_together

NAME = "walk"
QUICK: dict[str, Any] = {"lengths": (50, 100), "width": 16, "repeats": 1}
JOB, OURS, INVERSE = "walk, forward", "n x n solve", "T x T inverse"
BACKWARD = "walk, forward and backward"
GOALS = {2_000: 7.0, 5_000: 30.0}
TOLERANCE = 1e-5


def run(
    *,
    clones: Mapping[str, Path] | None = None,
    lengths: Sequence[int] = (100, 200, 500, 1_000, 2_000, 5_000),
    width: int = 2048,
    repeats: int = 5,
) -> Report:
    report = Report(
        NAME,
        "RSKP's bipartite random walk against the number of snippets",
        {"D": width, "representative snippets": 8, "dtype": "float32", "threads of torch": "all"},
        packages=("torch",),
    )
    try:
        torch = bench_segments._package("torch", "torch")
    except Unavailable as missing:
        report.skipped["everything"] = str(missing)
        return report
    from tal_postproc.examples.backbones.rskp import assign, random_walk
    from tests.oracles.training import walk_by_inverse

    generator = torch.Generator().manual_seed(0)
    for length in lengths:
        features = torch.rand(length, width, generator=generator).requires_grad_()
        means = torch.rand(8, width, generator=generator).requires_grad_()
        assignment = assign(features, means).detach().requires_grad_()
        given = (features, means, assignment)
        walks = {OURS: partial(random_walk, *given, weight=0.5), INVERSE: partial(walk_by_inverse, *given, 0.5)}

        def learn(walk: Any, given: Any = given) -> None:
            torch.autograd.grad(walk().square().mean(), given)

        both = {
            JOB: walks,
            BACKWARD: {who: partial(learn, walk) for who, walk in walks.items()},
        }
        with torch.no_grad():
            ours, theirs = (walks[who]().numpy() for who in (OURS, INVERSE))
        agreement = require_equal_values(ours, theirs, INVERSE, TOLERANCE)
        for job, calls in both.items():
            for call in calls.values():
                call()
            seconds = time_together(calls, dict.fromkeys(calls, repeats))
            times = ratio(seconds[INVERSE], seconds[OURS])
            goal = GOALS.get(length) if job == JOB else None
            report.rows.append(Row(job, OURS, seconds[OURS], size=length))
            report.rows.append(
                Row(
                    job,
                    INVERSE,
                    seconds[INVERSE],
                    ratio=times,
                    goal="" if goal is None else f"at least {goal:g} times ours",
                    reached=None if goal is None else times >= goal,
                    agreement=agreement,
                    size=length,
                )
            )
    report.pictures = [
        Picture("walk.png", "RSKP's random walk", tuple(Panel(job, "snippets") for job in (JOB, BACKWARD)))
    ]
    report.notes += [
        "Equal outputs are required before anything is timed. Beside the features, the solve keeps some (T, D) and "
        "(T, n) arrays, the inverse a few (T, T).",
    ]
    return report
