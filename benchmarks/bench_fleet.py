"""What a fleet is sized by: seconds and bytes per video on one core, and what Ray adds per shard."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .common import Disagreement, Report, Row, ratio, time_together

NAME = "fleet"
QUICK: dict[str, Any] = {"num_videos": 6, "repeats": 1, "shards": 4}
PRESET = "gaufuse"
KINDS = {"THUMOS-like": 20, "ActivityNet-like": 200}  # classes
SLEEP = 0.2  # seconds that a shard lasts which only waits


def run(
    *, clones: Mapping[str, Path] | None = None, num_videos: int = 1000, repeats: int = 5, shards: int = 40
) -> Report:
    report = Report(
        NAME,
        f"Sizing a fleet: shards of {num_videos} videos, one core",
        {"preset": PRESET, "maps": "cas and attention in float32"},
        packages=("pyarrow", "ray"),
    )
    with tempfile.TemporaryDirectory(prefix="tal_postproc_bench_") as folder:
        for kind in KINDS:
            _stages(report, kind, Path(folder), num_videos, repeats)
    try:
        import ray.data
    except ImportError:
        report.skipped["Ray"] = "it is not installed"
    else:
        _ray(report, ray, repeats, shards)
    report.notes += [
        "Seconds and bytes are per video; ratios are shares of the whole shard. Whole shard: from npz to its finished "
        "file, synced to disk, one thread. Plan: the look at all inputs before the work. Files come from "
        "the page cache: reading is decoding, not the disk.",
        f"Waiting shards sleep {SLEEP:g} s and do nothing, two at a time at best; empty ones return at once.",
    ]
    return report


def _videos(kind: str, num_videos: int) -> tuple[list[Any], tuple[str, ...]]:
    """THUMOS-like as `synthetic` makes them; ActivityNet-like with 200 classes and all videos of 100 snippets."""
    from tal_postproc import synthetic

    truth = synthetic.make_annotations(num_videos, num_classes=KINDS[kind])
    durations, segments = truth.durations, truth.segments
    if kind == "ActivityNet-like":
        length = 100 * synthetic.SECONDS_PER_SNIPPET
        scale = (length / durations)[segments.video_index]
        segments, durations = segments.replace(segments=segments.segments * scale[:, None]), np.full(num_videos, length)
    videos = synthetic.simulate_tcams(segments, durations, num_classes=KINDS[kind])
    names = ("cas", "attention")
    return [replace(v, maps={name: v.maps[name].astype(np.float32) for name in names}) for v in videos], truth.classes


def _stages(report: Report, kind: str, folder: Path, num_videos: int, repeats: int) -> None:
    from tal_postproc import PostProcessor, Segments, _jobs, formats, presets

    videos, classes = _videos(kind, num_videos)
    source, output = folder / f"{kind}.npz", folder / f"{kind}.json"
    formats.write_tcams(source, videos, classes=classes)
    process = PostProcessor.from_preset(PRESET)
    plan = partial(_jobs.plan, "detect", [source], presets.get(PRESET), output, shard_videos=num_videos)
    job = plan()

    def detect() -> Segments:
        parts = process.process(videos, 1)
        return Segments.concatenate(
            part.to_seconds(video.seconds_per_snippet or 0.0) for video, part in zip(videos, parts)
        )

    detections = detect()
    Path(job.folder).mkdir()
    shard = job.path(job.shards[0])
    calls: dict[str, Callable[[], Any]] = {
        "plan": plan,
        "read": lambda: formats.read_tcams(source),
        "detect": detect,
        "write": lambda: formats.write_detections(output, detections, classes=classes),
        "whole shard": lambda: _jobs.run_shard(job, job.shards[0], 1),
        "merge": lambda: formats.merge_detections(folder / "merged.json", [shard] * 2),
    }
    try:
        calls["detect, Arrow to Arrow"] = _arrow(videos)
    except ImportError as error:
        report.skipped["Arrow"] = str(error)
    for call in calls.values():
        call()
    if shard.read_bytes() != output.read_bytes():
        raise Disagreement(f"{kind}: the shard is not what its stages made")
    seconds = time_together(calls, dict.fromkeys(calls, repeats))
    for name, values in seconds.items():
        count = num_videos * (2 if name == "merge" else 1)
        share = ratio(values, seconds["whole shard"]) * num_videos / count
        report.rows.append(Row(f"{kind}, {name}", "ours, 1 thread", tuple(v / count for v in values), ratio=share))
    for name, who, path in (("bytes in", "npz", source), ("bytes out", "JSON", output)):
        report.rows.append(Row(f"{kind}, {name}", who, (path.stat().st_size / num_videos / 1e3,), "kB"))


def _arrow(videos: Sequence[Any]) -> Callable[[], Any]:
    from tal_postproc import distributed

    table, call = distributed.videos_to_arrow(videos), distributed.Detect(PRESET)
    return lambda: call(table)


def _ray(report: Report, ray: Any, repeats: int, shards: int) -> None:
    """Seconds per shard on two workers: the tasks of `--engine ray`, and Ray Data, with its reserves and without."""
    from tal_postproc import distributed

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    start = _seconds(lambda: distributed._join(ray, None, 2))
    settings = ray.data.DataContext.get_current()
    settings.enable_progress_bars = False

    def tasks(wait: Callable[[Any], Any]) -> None:
        if len(list(distributed.over_ray(wait, range(shards)))) != shards:
            raise Disagreement("tasks were lost")

    def rows(wait: Callable[[Any], Any], reserves: bool) -> None:
        settings.op_resource_reservation_enabled = reserves
        source = ray.data.from_items(list(range(shards)), override_num_blocks=shards)
        if source.map_batches(wait, batch_size=None, batch_format="pyarrow").materialize().count() != shards:
            raise Disagreement("rows were lost")

    for job, seconds in (("empty shard", 0.0), ("waiting shard", SLEEP)):
        wait = partial(_wait, seconds=seconds)
        calls = {
            "tasks": partial(tasks, wait),
            "Ray Data": partial(rows, wait, True),
            "Ray Data, no reserves": partial(rows, wait, False),
        }
        for call in calls.values():
            call()
        found = time_together(calls, dict.fromkeys(calls, repeats))
        for who, values in found.items():
            per_shard = tuple(value / shards for value in values)
            report.rows.append(Row(job, who, per_shard, ratio=ratio(values, found["tasks"])))
    end = _seconds(ray.shutdown)
    report.rows += [Row("a cluster for one call", who, (value,)) for who, value in (("start", start), ("end", end))]


def _wait(item: Any, seconds: float) -> Any:
    time.sleep(seconds)
    return item


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    from .__main__ import main

    main([NAME])
