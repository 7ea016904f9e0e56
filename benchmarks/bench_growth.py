"""How time and memory grow: with the rows, and for the whole chain with T, thresholds, classes, videos and threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tal_postproc import (
    PostProcessor,
    Segments,
    Video,
    compensate_missing,
    fuse_segments,
    mean_average_precision,
    nms,
    non_maximum_weighted,
    presets,
    segment_voting,
    soft_nms,
    synthetic,
    timeline_fusion,
    weighted_segment_fusion,
)

from . import common, contenders
from .bench_evaluation import make_job
from .bench_memory import peak_memory
from .bench_segments import TEMPERATURE, THRESHOLD, VOTES, make_models, make_rows
from .common import ROOT, Panel, Picture, Report, Row, Unavailable

NAME = "growth"
PER_VIDEO = 200  # detections of one video, as in what ActivityNet's evaluator is given
QUICK: dict[str, Any] = {
    "sizes": (100, 1_000),
    "snippets": (100, 200),
    "thresholds": (5, 10),
    "classes": (1, 2),
    "videos": (2, 4),
    "threads": (1, 2),
    "memory": ("nms",),
    "repeats": 2,
    "slow_repeats": 1,
}
TIME, MEMORY = "time against rows", "memory against rows"
PRESETS = ("gaufuse", "rskp")
# glibc gives what is freed back at once, and never puts a large array where a freed one was
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}

Call = Callable[[], Any]


# ---------------------------------------------------------------------------------------------- functions of many rows


def _voting(n: int) -> Call:
    segments, scores = make_rows(n)
    kept = segments[nms(segments, scores, tiou_threshold=THRESHOLD)]
    return lambda: segment_voting(kept, segments, scores, tiou_threshold=VOTES)


def _weighted(n: int) -> Call:
    lists = [np.split(column, 5) for column in (*make_models(n), np.zeros(n, np.int64))]
    return lambda: weighted_segment_fusion(*lists)


def _instances(n: int) -> Segments:
    segments, scores = make_rows(n)
    return Segments(segments, scores=scores)


def _timeline(n: int) -> Call:
    rows = _instances(n)
    snippets = int(rows.segments.max()) + 1
    return lambda: timeline_fusion(rows, snippets, factor=1)


def _missing(n: int) -> Call:
    rows = _instances(n)
    kept = rows.select(nms(rows.segments, rows.scores, tiou_threshold=THRESHOLD)[::2])
    return lambda: compensate_missing(kept, rows, tiou_threshold=THRESHOLD)


def _map(n: int) -> Call:
    job = make_job(n, max(1, n // PER_VIDEO))
    detections, truth = contenders.as_segments(job.detections), contenders.as_segments(job.ground_truth)
    options: dict[str, Any] = {"tiou_thresholds": contenders.TIOUS, "empty_class": "zero_ap"}
    return lambda: mean_average_precision(detections, truth, **options)


def _rows(function: Callable[..., Any], **options: Any) -> Callable[[int], Call]:
    def prepare(n: int) -> Call:
        segments, scores = make_rows(n)
        return lambda: function(segments, scores, **options)

    return prepare


FUNCTIONS: dict[str, Callable[[int], Call]] = {
    "nms": _rows(nms, tiou_threshold=THRESHOLD),
    "soft_nms": _rows(soft_nms),
    "fuse_segments": _rows(fuse_segments, tiou_threshold=THRESHOLD, temperature=TEMPERATURE),
    "non_maximum_weighted": _rows(non_maximum_weighted, tiou_threshold=THRESHOLD),
    "segment_voting": _voting,
    "weighted_segment_fusion": _weighted,
    "timeline_fusion": _timeline,
    "compensate_missing": _missing,
    "mean_average_precision": _map,
}


def _time(sizes: Sequence[int], repeats: int, slow_repeats: int) -> Iterator[Row]:
    for n in sizes:
        calls = {name: prepare(n) for name, prepare in FUNCTIONS.items()}
        for call in calls.values():
            call()
        turns = dict.fromkeys(calls, repeats if n <= 10_000 else slow_repeats)
        for name, values in common.time_together(calls, turns).items():
            yield Row(TIME, name, values, size=n)


def _memory(names: Sequence[str], sizes: Sequence[int], repeats: int) -> Iterator[Row]:
    for name in names:
        for n in sizes:
            values = tuple(_added(name, n) for _ in range(repeats))
            yield Row(MEMORY, name, values, unit="MB", size=n)


def _added(name: str, n: int) -> float:
    """MB that one call adds to the peak of a fresh process."""
    command = [sys.executable, "-m", "benchmarks.bench_growth", name, str(n)]
    environment = {**os.environ, **MALLOC}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the worker for {name!r} failed: {done.stderr[-2000:]}")
    answer = json.loads(done.stdout)
    if answer is None:
        raise Unavailable("this system does not let a process reset its peak (/proc/self/clear_refs)")
    return float(answer)


def worker(name: str, n: int) -> None:
    """Prints the MB that the call adds; what is compiled is loaded before, by a call with fewer rows."""
    FUNCTIONS[name](5_000)()
    call = FUNCTIONS[name](n)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far becomes what there is now
    except OSError:
        print(json.dumps(None))
        return
    before = peak_memory()
    found = call()
    print(json.dumps(peak_memory() - before))
    del found


# ----------------------------------------------------------------------------------------------------- the whole chain


def make_video(num_snippets: int, num_classes: int = 20, seed: int = 0) -> Video:
    """Every class has activity in about a tenth of the video, in runs of some ten snippets, and all are searched."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((num_snippets + 9, num_classes))
    smooth = np.cumsum(noise, axis=0)
    smooth = (smooth[9:] - np.concatenate((np.zeros((1, num_classes)), smooth[:-10])))[:num_snippets] / np.sqrt(10)
    return Video("", {"cas": 0.03 * np.maximum(smooth - 0.8, 0.0)}, {"video": np.full(num_classes, 0.9)})


def _with_thresholds(preset: str, count: int) -> PostProcessor:
    pipeline = presets.get(preset)
    bank = replace(pipeline.banks[0], thresholds=tuple(np.linspace(0.001, 0.04, count).tolist()))
    return PostProcessor(replace(pipeline, banks=(bank,)))


def _processor(preset: str, num_classes: int = 20) -> PostProcessor:
    return PostProcessor(replace(presets.get(preset), num_classes=num_classes))


def _chain(job: str, sizes: Sequence[int], make: Callable[[str, int], Call], repeats: int) -> Iterator[Row]:
    """All sizes take turns, too: what slows the machine for a while bends no line."""
    calls = {(preset, n): make(preset, n) for preset in PRESETS for n in sizes}
    for call in calls.values():
        call()
    for (preset, n), values in common.time_together(calls, dict.fromkeys(calls, repeats)).items():
        yield Row(job, preset, values, size=n)


def _whole(
    snippets: Sequence[int],
    thresholds: Sequence[int],
    classes: Sequence[int],
    videos: Sequence[int],
    threads: Sequence[int],
    repeats: int,
) -> Iterator[Row]:
    def process(processor: PostProcessor, given: Sequence[Video], num_threads: int = 1) -> Call:
        return lambda: list(processor.process(given, num_threads))

    one, many = make_video(1_000), synthetic.make_videos(max(videos)).videos
    yield from _chain(
        "chain against T", snippets, lambda preset, n: process(_processor(preset), [make_video(n)]), repeats
    )
    yield from _chain(
        "chain against thresholds", thresholds, lambda preset, n: process(_with_thresholds(preset, n), [one]), repeats
    )
    yield from _chain(
        "chain against classes",
        classes,
        lambda preset, n: process(_processor(preset, n), [make_video(1_000, n)]),
        repeats,
    )
    yield from _chain("chain against videos", videos, lambda preset, n: process(_processor(preset), many[:n]), repeats)
    short = many[: min(200, len(many))]
    long = [make_video(2_000, seed=seed) for seed in range(max(2, len(short) // 10))]
    for job, given in (("chain against threads, short videos", short), ("chain against threads, long videos", long)):
        yield from _chain(job, threads, lambda preset, n, given=given: process(_processor(preset), given, n), repeats)


def all_threads() -> tuple[int, ...]:
    """1, 2, 4, ... and all cores."""
    cores = common.machine()["cores"]
    return tuple(sorted({*(2**i for i in range(cores.bit_length()) if 2**i <= cores), cores}))


def run(
    *,
    clones: Mapping[str, Path] | None = None,
    sizes: Sequence[int] = (100, 1_000, 10_000, 100_000, 1_000_000),
    snippets: Sequence[int] = (100, 1_000, 10_000, 100_000),
    thresholds: Sequence[int] = (5, 20, 80, 320),
    classes: Sequence[int] = (1, 10, 100, 1_000),
    videos: Sequence[int] = (10, 100, 1_000),
    threads: Sequence[int] | None = None,
    memory: Sequence[str] = tuple(FUNCTIONS),
    repeats: int = 9,
    slow_repeats: int = 3,
) -> Report:
    threads = all_threads() if threads is None else threads
    report = Report(NAME, "Growth of time and memory", {"presets": " and ".join(PRESETS), "thresholds": 20})
    report.rows += _time(sizes, repeats, slow_repeats)
    try:
        report.rows += _memory(memory, sizes, slow_repeats)
    except Unavailable as reason:
        report.skipped["memory"] = str(reason)
    report.rows += _whole(snippets, thresholds, classes, videos, threads, repeats)
    report.pictures += [
        Picture("growth_time.png", "Time of one call", (Panel(TIME, "rows"),)),
        Picture("growth_memory.png", "Memory that one call adds", (Panel(MEMORY, "rows"),)),
        Picture(
            "growth_chain.png",
            "Time of the whole chain, TCAMs to detections, in one thread",
            (
                Panel("chain against T", "snippets of one video, all of 20 classes searched"),
                Panel("chain against thresholds", "thresholds, one video of 1,000 snippets"),
                Panel("chain against classes", "classes that are searched, one video of 1,000 snippets"),
                Panel("chain against videos", "THUMOS-like videos"),
            ),
        ),
        Picture(
            "growth_threads.png",
            "Time of the whole chain against the number of threads",
            (
                Panel("chain against threads, short videos", f"threads, of {common.machine()['cores']} cores", -1),
                Panel("chain against threads, long videos", f"threads, of {common.machine()['cores']} cores", -1),
            ),
        ),
    ]
    if report.skipped:
        report.pictures = [picture for picture in report.pictures if picture.file != "growth_memory.png"]
    report.notes += [
        "Exponent: slope of the line through the logarithms of the medians, over the two largest decades of sizes. In "
        "brackets: least and largest figure.",
        "Any moment lies in about ten segments, however many there are. mAP: 7 tIoU, one video per "
        f"{PER_VIDEO} detections. The other options are those of the benchmark of segments.",
        "Memory: what one call adds to the peak of resident memory of a fresh process, its result included, its "
        "arguments and compiled code not; freed memory goes back to the system at once. Below "
        "0.1 MB a process cannot tell.",
        "T, thresholds, classes: one video in which every class acts in about a tenth of the time. Threads: 200 "
        "THUMOS-like videos, and 20 such videos of 2,000 snippets.",
    ]
    return report


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in FUNCTIONS:
        worker(sys.argv[1], int(sys.argv[2]))
    else:
        from .__main__ import main

        main([NAME])
