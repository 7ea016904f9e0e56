"""``tal-postproc bench``: how fast this machine is."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata

import numpy as np

from .. import __version__
from ..evaluation import mean_average_precision
from ..pipeline import PostProcessor
from ..suppression import nms
from ..types import Segments
from ._common import Commands, Parser, add_threads, declare, step_of, table


def bench(args: argparse.Namespace) -> None:
    """Seconds of NMS, of two presets and of mAP on synthetic data: the same work wherever it runs."""
    if args.videos < 1 or args.repeats < 1:
        raise ValueError(f"bench needs at least 1 video and 1 repeat, got {args.videos} and {args.repeats}")
    from .. import synthetic

    data = synthetic.make_videos(args.videos)
    calls: dict[str, Callable[[], object]] = {}
    for n in (1_000, 10_000, 100_000):
        rng = np.random.default_rng(0)
        start = rng.uniform(0, n, n)  # any moment lies in about ten segments, however many there are
        segments, scores = np.column_stack((start, start + 10 * rng.lognormal(-0.5, 1.0, n))), rng.random(n)
        calls[f"NMS of {n:,} segments"] = partial(nms, segments, scores, tiou_threshold=0.5)
    for preset in ("rskp", "gaufuse"):
        for threads in dict.fromkeys((1, args.threads)):
            process = partial(PostProcessor.from_preset(preset).process, data.videos, threads)
            calls[f"{preset}, {args.videos} videos, threads: {threads or 'all'}"] = lambda process=process: list(
                process()
            )  # type: ignore[misc]
    found = Segments.concatenate(list(PostProcessor.from_preset("rskp").process(data.videos, args.threads)))
    seconds = found.to_seconds([step_of(video) for video in data.videos])
    calls[f"mAP of {len(found):,} detections at 7 tIoU"] = partial(
        mean_average_precision, seconds, data.ground_truth, empty_class="zero_ap"
    )
    rows = []
    for name, call in calls.items():
        call()  # compile, or load what was compiled
        times = []
        for _ in range(args.repeats):
            started = time.perf_counter()
            call()
            times.append(1000 * (time.perf_counter() - started))
        rows.append([name, *(f"{value:.3g}" for value in (np.median(times), min(times), max(times)))])
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("numpy", "numba"))
    print(f"tal_postproc {__version__}, {versions}, Python {platform.python_version()}, {platform.system()}")
    print(f"{os.cpu_count()} cores; milliseconds of {args.repeats} runs; nothing is compiled in them\n")
    print(table(["", "median", "least", "most"], rows))


def register(commands: Commands[Parser]) -> None:
    """Add the command to the parser."""
    command = declare(
        commands,
        bench,
        "bench",
        "How fast this machine is: NMS, the chains of two presets and mAP, timed on synthetic data.",
        "tal-postproc bench --videos 1000",
    )
    command.add_argument("--videos", type=int, default=200, help="number of synthetic videos (default 200)")
    command.add_argument("--repeats", type=int, default=5, help="runs of everything (default 5)")
    add_threads(command)
