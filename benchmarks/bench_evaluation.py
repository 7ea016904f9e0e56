"""mAP: ours against the ActivityNet evaluator, and ours under every protocol."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tal_postproc import mean_average_precision, synthetic
from tal_postproc.evaluation import PROTOCOLS

from . import common, contenders
from .common import Report, Row

NAME = "evaluation"
GOAL, SECONDS = 500.0, 2.0
QUICK: dict[str, Any] = {"num_detections": 200, "num_videos": 12, "repeats": 2, "slow_repeats": 1, "many": 1_000}


def make_job(
    num_detections: int,
    num_videos: int,
    thresholds: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
    seed: int = 0,
) -> contenders.MapJob:
    """THUMOS-like ground truth, and detections around it.

    Of the detections 60 % are jittered instances, the others lie anywhere in a video that has instances; a tenth has a
    wrong class.  Scores are distinct.
    """
    rng = np.random.default_rng(seed)
    truth = synthetic.make_annotations(num_videos, seed)
    instances = truth.segments
    row = rng.integers(len(instances), size=num_detections)
    length = np.diff(instances.segments, axis=1)[row, 0]
    centre = instances.segments.mean(axis=1)[row] + 0.2 * length * rng.standard_normal(num_detections)
    anywhere = rng.random(num_detections) < 0.4
    centre = np.where(anywhere, rng.random(num_detections) * truth.durations[instances.video_index[row]], centre)
    half = 0.5 * length * rng.lognormal(0.0, 0.3, num_detections)
    wrong = rng.random(num_detections) < 0.1
    names = np.array(instances.video_ids)
    detections = {
        "video": names[instances.video_index[row]],
        "label": np.where(wrong, rng.integers(len(truth.classes), size=num_detections), instances.labels[row]),
        "start": np.maximum(centre - half, 0.0),
        "end": np.maximum(centre, 0.0) + half,
        "score": rng.random(num_detections) - 0.3 * anywhere,
    }
    ground_truth = {
        "video": names[instances.video_index],
        "label": instances.labels,
        "start": instances.segments[:, 0],
        "end": instances.segments[:, 1],
    }
    known = np.isin(detections["label"], instances.labels)  # the original stops at a class without ground truth
    return contenders.MapJob({key: column[known] for key, column in detections.items()}, ground_truth, thresholds)


def run(
    *,
    clones: Mapping[str, Path] | None = None,
    num_detections: int = 14_000,
    num_videos: int = 212,
    repeats: int = 21,
    slow_repeats: int = 3,
    many: int = 1_000_000,
) -> Report:
    job = make_job(num_detections, num_videos)
    count = len(job.detections["score"])
    report = Report(
        NAME,
        f"mAP of {count:,} detections",
        {
            "detections": count,
            "instances": len(job.ground_truth["label"]),
            "videos": num_videos,
            "classes": len(set(job.ground_truth["label"].tolist())),
            "thresholds": len(job.thresholds),
        },
    )
    calls, agreement, turns = {}, {}, {}
    reference = None
    for contender in contenders.contenders("evaluation", clones or {}):
        try:
            call = contender.prepare(job)
        except common.Unavailable as reason:
            report.skipped[contender.name] = str(reason)
            continue
        ap = call()  # also the warm-up
        if reference is None:
            reference = ap
            agreement[contender.name] = f"mAP {100 * ap.mean():.2f} %"
        else:
            agreement[contender.name] = common.require_equal_values(reference, ap, contender.name, 1e-9)
        calls[contender.name] = call
        turns[contender.name] = slow_repeats if contender.slow else repeats
    seconds = common.time_together(calls, turns)
    for name, values in seconds.items():
        times = common.ratio(values, seconds["ours"])
        judged = name != "ours"
        report.rows.append(
            Row(
                "activitynet",
                name,
                values,
                ratio=times,
                goal=f"at least {GOAL:g} times" if judged else "",
                reached=times >= GOAL if judged else None,
                agreement=agreement[name],
            )
        )
    _protocols(report, job, repeats, seconds["ours"])
    report.rows.append(_many(many, num_videos, slow_repeats))
    report.notes += [
        "Ratio: median over the median of ours under the protocol activitynet, in this run.",
        "All start from what they work on: ours from `Segments`, the others from data frames. Reading is not timed.",
        "The literal evaluator is our transcription of ActivityNet's in its manner, and works in one process.",
    ]
    return report


def _many(num_detections: int, num_videos: int, repeats: int) -> Row:
    """Too many for the others: ours alone, on the same ground truth."""
    job = make_job(num_detections, num_videos)
    call = contenders.ours_evaluation(job)
    average = call().mean()
    values = common.time_together({"ours": call}, {"ours": repeats})["ours"]
    return Row(
        f"activitynet, {len(job.detections['score']):,} detections",
        "ours",
        values,
        goal=f"below {SECONDS:g} s",
        reached=statistics.median(values) < SECONDS,
        agreement=f"mAP {100 * average:.2f} %",
    )


def _protocols(report: Report, job: contenders.MapJob, repeats: int, base: Sequence[float]) -> None:
    detections, truth = contenders.as_segments(job.detections), contenders.as_segments(job.ground_truth)
    calls = {
        name: lambda name=name: (
            mean_average_precision(detections, truth, tiou_thresholds=job.thresholds, protocol=name).average
        )
        for name in PROTOCOLS
        if name != "activitynet"
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class without detections, in small runs
        average = {name: call() for name, call in calls.items()}
        seconds = common.time_together(calls, dict.fromkeys(calls, repeats))
    report.rows += [
        Row(name, "ours", values, ratio=common.ratio(values, base), agreement=f"mAP {100 * average[name]:.2f} %")
        for name, values in seconds.items()
    ]


if __name__ == "__main__":
    from .__main__ import main

    main([NAME])
