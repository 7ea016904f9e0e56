"""The whole chain, TCAMs to detections and to mAP: ours against the published chain, presets gaufuse and rskp."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tal_postproc import PostProcessor, Videos, presets, synthetic
from tal_postproc.config import Pipeline

from . import common, contenders
from .common import Report, Row

NAME = "chain"
GOAL = 200.0
QUICK: dict[str, Any] = {"num_videos": 8, "repeats": 2, "slow_repeats": 1}


def run(
    *,
    clones: Mapping[str, Path] | None = None,
    num_videos: int = 200,
    names: Sequence[str] = ("gaufuse", "rskp"),
    repeats: int = 9,
    slow_repeats: int = 3,
) -> Report:
    data = synthetic.make_videos(num_videos)
    videos = data.videos
    snippets = sum(video.num_snippets for video in videos)
    report = Report(
        NAME,
        f"Whole chain, {num_videos} THUMOS-like videos",
        {"videos": num_videos, "snippets": snippets, "classes": 20, "thresholds": len(contenders.THRESHOLDS)},
    )
    for preset in names:
        _whole(report, videos, preset, clones or {}, repeats, slow_repeats)
        _stages(report, videos, preset, repeats, slow_repeats)
    _to_map(report, data, repeats, slow_repeats)
    report.notes += [
        "Ratio: median over the median of ours in one thread for the same job, in this run.",
        "Floor: the columns of the searched classes gathered from every TCAM, and arrays of the size of the detections "
        "written for every video; nothing else.",
        "The two stages are timed on their own, each with handing over its rows: their sum is more than the whole.",
        "The literal chain is our transcription of the published one, in its manner: Python lists over snippets for "
        "every threshold, a NumPy mean per proposal, fusion member by member. All get the same float64 maps.",
    ]
    return report


def _to_map(report: Report, data: Videos, repeats: int, slow_repeats: int) -> None:
    """TCAMs to the mAP of the paper's table: what a training script runs after every few epochs."""
    job = contenders.ChainJob(data.videos, "rskp")  # whole snippets: int() of a fused boundary may hang on its last bit
    truth = data.ground_truth
    instances = [
        (int(v), int(k), s, e) for v, k, (s, e) in zip(truth.video_index, truth.labels, truth.segments.tolist())
    ]
    calls = {
        "ours, 1 thread": contenders.ours_to_map(job, truth, 1),
        "ours, all threads": contenders.ours_to_map(job, truth, None),
        "literal Python": contenders.literal_to_map(job, instances),
    }
    found = {name: call() for name, call in calls.items()}
    ours = found.pop("ours, 1 thread")
    agreement = {name: common.require_equal_values(ours, ap, name, 1e-9) for name, ap in found.items()}
    turns = {name: repeats if name.startswith("ours") else slow_repeats for name in calls}
    _judge(report, "rskp, TCAM to mAP at 7 tIoU", common.time_together(calls, turns), agreement)


def _judge(report: Report, job: str, seconds: Mapping[str, Sequence[float]], agreement: Mapping[str, str]) -> None:
    """One row per contender; the first is the measure, and those that are not ours are held against the goal."""
    base = next(iter(seconds.values()))
    for name, values in seconds.items():
        times = common.ratio(values, base)
        judged = not name.startswith("ours")
        report.rows.append(
            Row(
                job,
                name,
                tuple(values),
                ratio=times,
                goal=f"at least {GOAL:g} times" if judged else "",
                reached=times >= GOAL if judged else None,
                agreement=agreement.get(name, ""),
            )
        )


def _whole(
    report: Report, videos: Sequence[Any], preset: str, clones: Mapping[str, Path], repeats: int, slow_repeats: int
) -> None:
    job = contenders.ChainJob(videos, preset)
    calls, agreement, turns = {}, {}, {}
    reference = None
    for contender in contenders.contenders("chain", clones):
        try:
            call = contender.prepare(job)
        except common.Unavailable as reason:
            report.skipped[f"{contender.name} ({preset})"] = str(reason)
            continue
        rows = contender.compared(call())  # also the warm-up
        if reference is None:
            reference = rows
            agreement[contender.name] = f"{len(rows)} detections"
        else:
            agreement[contender.name] = common.require_equal_rows(reference, rows, f"{contender.name} ({preset})")
        calls[contender.name] = call
        turns[contender.name] = slow_repeats if contender.slow else repeats
    floor = _floor(job)
    floor()
    seconds = common.time_together({**calls, "floor": floor}, {**turns, "floor": repeats})
    least = seconds.pop("floor")
    _judge(report, f"{preset}, TCAM to detections", seconds, agreement)
    report.rows.append(
        Row(
            f"{preset}, TCAM to detections",
            "floor: gather and write",
            least,
            ratio=common.ratio(least, next(iter(seconds.values()))),
        )
    )


def _floor(job: contenders.ChainJob) -> Callable[[], None]:
    """What no chain can do without: the searched columns in one buffer per video, and detections written per video."""
    threshold = contenders.published(job.preset)["class_threshold"]
    sources = [(video.maps["cas"], np.flatnonzero(video.scores["video"] >= threshold)) for video in job.videos]
    results = [(found.segments, found.labels, found.scores) for found in contenders.ours_chain(job, 1)()]

    def call() -> None:
        for tcam, classes in sources:
            np.ascontiguousarray(tcam[:, classes].T)
        for columns in results:
            for column in columns:
                column.copy()

    return call


def _stages(report: Report, videos: Sequence[Any], preset: str, repeats: int, slow_repeats: int) -> None:
    """Proposals with their scores, and what suppression or fusion adds: where the time goes."""
    pipeline = presets.get(preset)
    propose = PostProcessor(replace(pipeline, stages=()))
    suppress = PostProcessor(Pipeline(stages=pipeline.stages))
    given = [replace(video, proposals=found) for video, found in zip(videos, propose.process(videos, 1))]
    literal = [(len(video.maps["cas"]), list(contenders.literal_proposals(video, preset))) for video in videos]
    calls = {
        ("proposals and scores", "ours, 1 thread"): lambda: list(propose.process(videos, 1)),
        ("proposals and scores", "literal Python"): lambda: [
            list(contenders.literal_proposals(video, preset)) for video in videos
        ],
        ("suppression", "ours, 1 thread"): lambda: list(suppress.process(given, 1)),
        ("suppression", "literal Python"): lambda: [
            list(contenders.literal_suppression(rows, preset, length)) for length, found in literal for _, rows in found
        ],
    }
    for call in calls.values():
        call()
    turns = {key: repeats if key[1].startswith("ours") else slow_repeats for key in calls}
    seconds = common.time_together(calls, turns)
    for (stage, who), values in seconds.items():
        base = seconds[stage, "ours, 1 thread"]
        report.rows.append(Row(f"{preset}, {stage}", who, values, ratio=common.ratio(values, base)))


if __name__ == "__main__":
    from .__main__ import main

    main([NAME])
