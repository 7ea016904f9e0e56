"""``tal-postproc demo``: methods side by side."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import presets
from ..config import Fuse, Nms, Overlap, Pipeline, SoftNms, Stage
from ..evaluation import mean_average_precision
from ..formats import write_detections
from ..pipeline import PostProcessor
from ..types import Annotations, MissingExtraError, Segments, Video
from ._common import Commands, Parser, add_threads, declare, map_cells, map_header, read_truth, step_of, table

DEMO_PRESET = "gaufuse"
_SHARED = Overlap(kind="candidate", length_offset=1.0)
# Table 3 of the GauFuse paper: the same proposals, another way to make detections of them; T as in its testing section.
DEMO_METHODS: dict[str, Stage] = {
    "NMS": Nms(threshold=0.25, overlap=_SHARED),
    "soft-NMS": SoftNms(sigma=0.3, min_score=0.001, max_detections=200),
    **{
        f"fusion, {distribution}": Fuse(threshold=0.25, temperature=0.03, overlap=_SHARED, distribution=distribution)
        for distribution in ("gaussian", "exponential", "student_t", "uniform")
    },
}


def demo(args: argparse.Namespace) -> None:
    """NMS, soft-NMS and the four fusions on the same proposals, side by side."""
    videos, truth, what = _demo_videos(args)
    if not len(videos):
        raise ValueError("the demo needs at least 1 video, got 0")
    pipeline = replace(presets.get(DEMO_PRESET), stages=(), num_classes=None, background="none")
    started = time.perf_counter()
    found = list(PostProcessor(pipeline).process(videos, args.threads, progress=True))
    count = sum(map(len, found))
    print(f"{what}: {len(videos)} videos, {len(truth.segments)} instances, {len(truth.classes)} classes")
    print(
        f"{count} proposals of preset {DEMO_PRESET!r} in {time.perf_counter() - started:.2f} s (compilation included)\n"
    )

    given = [replace(video, proposals=proposals) for video, proposals in zip(videos, found)]
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    detections: dict[str, Segments] = {}
    rows = []
    for name, stage in DEMO_METHODS.items():
        process = PostProcessor(Pipeline(stages=(stage,)))
        list(process.process(given[:2], 1))  # compile, or load what was compiled
        started = time.perf_counter()
        parts = list(process.process(given, args.threads))
        elapsed = time.perf_counter() - started
        detections[name] = Segments.concatenate(parts).to_seconds([step_of(video) for video in videos])
        result = mean_average_precision(
            detections[name], truth.segments, ambiguous=truth.ambiguous, protocol=args.protocol
        )
        rows.append([name, *map_cells(result), str(len(detections[name])), f"{1000 * elapsed:.0f}"])
        file = folder / f"detections_{name.replace(', ', '_')}.json"
        write_detections(file, detections[name], classes=truth.classes)
    header = ["mAP in %, tIoU", *map_header(result.tiou_thresholds.tolist()), "detections", "ms"]
    print(table(header, rows))
    print(f"\nprotocol {args.protocol!r}; wrote {len(rows)} files of detections to {folder}")
    _demo_picture(folder, videos, detections, truth)


def _demo_videos(args: argparse.Namespace) -> tuple[Sequence[Video], Annotations, str]:
    from .. import synthetic

    if args.annotations is None:
        if args.subset is not None:
            raise ValueError(f"--subset {args.subset} needs --annotations")
        truth, what = synthetic.make_annotations(args.videos, args.seed), f"synthetic data, seed {args.seed}"
    else:
        truth = read_truth(args.annotations, args.subset)
        what = f"annotations of {Path(args.annotations).name}, TCAMs simulated with seed {args.seed}"
    videos = synthetic.simulate_tcams(truth.segments, truth.durations, num_classes=len(truth.classes), seed=args.seed)
    return videos, truth, what


def _demo_picture(folder: Path, videos: Sequence[Video], detections: dict[str, Segments], truth: Annotations) -> None:
    from ..plotting import timeline

    chosen = _most_telling(videos, np.diff(truth.segments.offsets).tolist())
    try:
        timeline(
            videos[chosen],
            detections,
            truth.segments,
            classes=truth.classes,
            max_detections=40,
            path=folder / "timeline.png",
        )
        print(f"picture of {videos[chosen].id}: {folder / 'timeline.png'}")
    except MissingExtraError as error:
        print(f"no picture: {error}")


def _most_telling(videos: Sequence[Video], sizes: Sequence[int]) -> int:
    """The video that shows most in one picture: nearest to ten instances, and short."""
    return min(range(len(videos)), key=lambda i: (abs(sizes[i] - 10), videos[i].num_snippets))


def register(commands: Commands[Parser]) -> None:
    """Add the command to the parser."""
    command = declare(
        commands,
        demo,
        "demo",
        "NMS, soft-NMS and four fusions on the same proposals: mAP, time, detections and a picture.",
        "tal-postproc demo --annotations Thumos14reduced-Annotations",
    )
    command.add_argument(
        "--annotations", metavar="DIR", help="simulate TCAMs over these annotations (folder, JSON, npz)"
    )
    command.add_argument("--subset", help="part of the annotations (default: test for a folder, else all)")
    command.add_argument("--videos", type=int, default=200, help="number of synthetic videos (default 200)")
    command.add_argument("--seed", type=int, default=0, help="seed of the simulation (default 0)")
    command.add_argument("--protocol", default="activitynet", help="evaluator (default activitynet)")
    command.add_argument("-o", "--output", default="tal_postproc_demo", help="folder (default tal_postproc_demo)")
    add_threads(command)
