"""A search over settings: how fast, what the reuse saves, and how much a tenth of the grid loses."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import tal_postproc as tpp
from tal_postproc.config import Nms, Pipeline, SoftNms
from tal_postproc.tuning import TuningResult, tune
from tal_postproc.tuning._search import METHODS, _by_optuna, _drawn, _evaluated
from tal_postproc.tuning._space import Space

from .common import Disagreement, Report, Row, ratio

NAME = "tuning"
QUICK: dict[str, Any] = {"videos": 12, "held_out": 12, "seeds": 2, "repeats": 1, "step": 3}
LIMIT = 120.0  # seconds for the grid


def run(
    *,
    clones: Mapping[str, Path] | None = None,
    videos: int = 200,
    held_out: int = 200,
    seeds: int = 20,
    repeats: int = 3,
    step: int = 1,
) -> Report:
    """`step` takes every so many values of the grid."""
    data = tpp.synthetic.make_videos(videos, seed=0)
    rskp = replace(tpp.presets.get("rskp"), background="none", num_classes=None, protocol="activitynet")
    grid = {name: values[::step] for name, values in _grid().items()}
    size = int(np.prod([len(values) for values in grid.values()]))
    report = Report(
        NAME, "Search over settings", {"videos": videos, "held-out videos": held_out, "settings": size, "seeds": seeds}
    )
    tune(data.videos[:6], data.ground_truth, rskp, {"stages.0": grid["stages.0"]}, folds=2)  # compiled from here on
    whole = _time(report, "preset rskp", data, rskp, grid, repeats, limit=True)
    cola = replace(tpp.presets.get("cola"), background="none", num_classes=None)
    slow = {
        "banks.*.score.margin.scale": [0.1, 0.25, 0.4],
        "banks.*.score.video_weight": [0.0, 0.2],
        "stages.1.threshold": [0.3, 0.4, 0.5, 0.6],
        "classes.threshold": [0.1, 0.2],
    }
    _time(report, "preset cola, two banks upsampled 24 times", data, cola, slow, repeats, limit=False)
    _regret(report, data, rskp, grid, whole, held_out, seeds)
    return report


def _grid() -> dict[str, list[Any]]:
    """1,000 settings."""
    suppression = [Nms(threshold=t / 10) for t in range(1, 6)] + [SoftNms(sigma=s) for s in (0.1, 0.2, 0.3, 0.5, 0.8)]
    return {
        "thresholds.last": [0.02, 0.04, 0.08, 0.16, 0.32],
        "margin.scale": [0.05, 0.15, 0.25, 0.4, 0.6],
        "classes.threshold": [0.05, 0.1, 0.2, 0.4],
        "stages.0": [one.to_dict() for one in suppression],
    }


def _time(
    report: Report, what: str, data: tpp.Videos, start: Pipeline, space: Mapping[str, Any], repeats: int, limit: bool
) -> TuningResult:
    """Seconds of the whole grid with and without reuse, in turns, with all threads and with one."""
    size = int(np.prod([len(values) for values in space.values()]))
    ways = {"reuse": {}, "everything anew": {"cache_bytes": 0}, "reuse, one thread": {"num_threads": 1}}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    work: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, TuningResult] = {}
    for _ in range(repeats):
        for name, options in ways.items():
            started, worked = time.perf_counter(), time.process_time()
            results[name] = tune(data.videos, data.ground_truth, start, space, **options)  # type: ignore[arg-type]
            seconds[name].append(time.perf_counter() - started)
            work[name].append(time.process_time() - worked)
    for name, one in results.items():
        if one != results["reuse"]:
            raise Disagreement(f"{name}: another result than with reuse")
    for job, measured in ((what, seconds), (f"{what}, processor time", work)):
        for name, values in measured.items():
            times = ratio(values, measured["reuse"])
            row = Row(f"{size:,} settings, {job}", name, tuple(values), ratio=times, agreement="same result")
            if limit and name == "reuse" and measured is seconds:
                row = replace(row, ratio=None, goal=f"below {LIMIT:g} s", reached=row.median < LIMIT)
            report.rows.append(row)
    return results["reuse"]


class _Known:
    """A judge that looks up what the whole grid has found."""

    def __init__(self, space: Space, result: TuningResult) -> None:
        self._scores = {space.make(row.setting)[0]: row.score for row in result.table}

    def scores(self, pipeline: Pipeline) -> np.ndarray:
        return np.array([self._scores[pipeline]])


def _regret(
    report: Report,
    data: tpp.Videos,
    start: Pipeline,
    grid: Mapping[str, Any],
    whole: TuningResult,
    held_out: int,
    seeds: int,
) -> None:
    """mAP on other videos of the grid's best, less that of what a tenth of the evaluations chooses."""
    others = tpp.synthetic.make_videos(held_out, seed=1)
    elsewhere = tune(others.videos, others.ground_truth, start, grid, num_resamples=2)
    known = {repr(row.setting): row.score for row in (elsewhere.baseline, *elsewhere.table)}
    best = known[repr(whole.best_setting)]
    error = tpp.bootstrap_map(_detected(others, whole.best), others.ground_truth, protocol=whole.protocol).std
    count = max(1, len(whole.table) // 10)
    space = Space(start, grid)
    judge: Any = _Known(space, whole)
    for method in METHODS[1:]:
        how: dict[str, Any] = {"method": method, "evaluations": count, "num_resamples": 2}
        try:
            real = tune(data.videos, data.ground_truth, start, grid, seed=0, **how)
        except tpp.MissingExtraError as missing:
            report.skipped[method] = str(missing)
            continue
        chosen = []
        for seed in range(seeds):
            if method == "optuna":
                found = list(_by_optuna(space, judge, count, seed, int))
            else:
                found = _evaluated(space, judge, _drawn(space, count, seed), 1, int)
            setting, _, best_score = max(found, key=lambda one: float(one[2][0]))
            chosen.append(setting if float(best_score[0]) > whole.baseline.score else {})
        if real.best_setting != chosen[0]:
            raise Disagreement(f"{method}: a search and what it would find in the grid differ")
        regrets = tuple(100 * (best - known[repr(setting)]) for setting in chosen)
        report.rows.append(
            Row(
                f"regret of {count} of {len(whole.table):,} settings, on held-out videos",
                method,
                regrets,
                unit="points",
                goal=f"median within {100 * error:.2f}, the bootstrap's standard error",
                reached=bool(np.median(regrets) <= 100 * error),
            )
        )
    scores = {
        "starting pipeline": elsewhere.baseline.score,
        "best of the grid": best,
        "best there": elsewhere.best_score,
    }
    report.rows += [Row("mAP on held-out videos", who, (100 * score,), unit="points") for who, score in scores.items()]
    report.notes.append(
        f"The grid says: {whole.verdict}; on its own videos its best has {100 * whole.best_score:.2f}, the starting "
        f"pipeline {100 * whole.baseline.score:.2f}. The mAP is the average over 0.1:0.7."
    )


def _detected(data: tpp.Videos, pipeline: Pipeline) -> tpp.Segments:
    parts = list(tpp.PostProcessor(pipeline).process(data.videos))
    return tpp.Segments.concatenate(parts).to_seconds([video.seconds_per_snippet or 1.0 for video in data.videos])


if __name__ == "__main__":
    from .__main__ import main

    main([NAME])
