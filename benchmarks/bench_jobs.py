"""`tal-postproc detect` over whole data sets: where the time goes, and whether it stays the same in a long run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tal_postproc import Annotations, PostProcessor, Segments, Video, _jobs, formats, presets, synthetic

from .bench_memory import peak_memory
from .common import ROOT, Disagreement, Report, Row, ratio, time_together

NAME = "jobs"
QUICK: dict[str, Any] = {"num_videos": 12, "snippets": 30, "streamed": 60, "shard_videos": 3, "repeats": 2}
PRESET, STREAMED_PRESET = "two_stream_anet13", "rskp"
ANET = (4_728, 200)  # videos with annotations in the validation part of ActivityNet 1.3, and classes
TENTHS = 10


def run(
    *,
    clones: Mapping[str, Path] | None = None,
    num_videos: int = ANET[0],
    snippets: int = 100,
    streamed: int = 100_000,
    shard_videos: int = 1000,
    repeats: int = 5,
) -> Report:
    report = Report(
        NAME,
        "Jobs: detect over whole data sets",
        {"preset": f"{PRESET} ({STREAMED_PRESET} for the long run)", "videos per shard": shard_videos, "threads": 1},
    )
    with tempfile.TemporaryDirectory(prefix="tal_postproc_bench_") as folder:
        _whole_job(report, Path(folder), num_videos, snippets, shard_videos, repeats)
        _long_run(report, Path(folder), streamed, shard_videos)
    return report


# --------------------------------------------------------------------------------------------------- ActivityNet's size


def _anet(num_videos: int, snippets: int) -> tuple[str, Annotations, Iterator[Video]]:
    """Maps of so many snippets for every video, simulated over the annotations if they are here."""
    path = Path(os.environ.get("TAL_POSTPROC_ANET", ROOT.parent / "shared/data/activitynet/activitynet_v1-3.json.gz"))
    if path.exists():
        what, truth = (
            "the annotations of ActivityNet 1.3, validation",
            formats.read_annotations(path, subset="validation"),
        )
        kept = np.flatnonzero(np.diff(truth.segments.offsets))[:num_videos]
        segments = Segments.concatenate([truth.segments.video(int(v)) for v in kept])
        truth = Annotations(segments, truth.classes, truth.durations[kept])
    else:
        what, truth = "synthetic annotations", synthetic.make_annotations(num_videos, num_classes=ANET[1])
    unit = truth.durations / snippets  # every video has as many snippets, whatever it lasts
    steps = truth.segments.to_snippets(unit).replace(unit="second")
    lasting = np.full(len(unit), float(snippets))
    videos = synthetic.iter_videos(steps, lasting, num_classes=len(truth.classes), seconds_per_snippet=1.0)
    return (
        what,
        truth,
        (
            Video(
                video.id,
                {"cas": video.maps["cas"].astype(np.float32)},
                video.scores,
                seconds_per_snippet=float(step),
                duration=float(duration),
            )
            for video, step, duration in zip(videos, unit, truth.durations)
        ),
    )


def _whole_job(report: Report, folder: Path, num_videos: int, snippets: int, shard_videos: int, repeats: int) -> None:
    what, truth, videos = _anet(num_videos, snippets)
    tcams = folder / "anet.npz"
    formats.write_tcams(tcams, videos, classes=truth.classes)
    held = formats.read_tcams(tcams).videos
    process = PostProcessor.from_preset(PRESET)
    steps = [video.seconds_per_snippet or 0.0 for video in held]

    def job(shard_videos: int, name: str) -> Callable[[], _jobs.Summary]:
        def call() -> _jobs.Summary:
            planned = _jobs.plan("detect", [tcams], presets.get(PRESET), folder / name, shard_videos=shard_videos)
            return _jobs.execute(planned, folder / name, num_threads=1)

        return call

    def detections() -> Segments:
        found = [
            part if part.unit == "second" else part.to_seconds(step)
            for part, step in zip(process.process(held, 1), steps)
        ]
        return Segments.concatenate(found)

    def read() -> None:
        planned = _jobs.plan("detect", [tcams], presets.get(PRESET), folder / "read.json")
        with _jobs.Worker(planned) as worker:
            for _ in worker.videos(0, len(held)):
                pass

    found, output = detections(), folder / "whole.json"
    calls = {
        "in one piece": job(_jobs.MOST_VIDEOS, "whole.json"),
        f"in shards of {shard_videos}": job(shard_videos, "shards.json"),
        "reading the TCAMs": read,
        "the chain, TCAMs in memory": detections,
        "writing the JSON": lambda: formats.write_detections(folder / "w.json", found, classes=truth.classes),
        "floor: the same bytes read and written": lambda: _copy(tcams, output, folder / "floor.json"),
    }
    for call in calls.values():
        call()
    texts = [(folder / name).read_bytes() for name in ("whole.json", "shards.json", "w.json", "floor.json")]
    if len(set(texts)) != 1:
        raise Disagreement("the outputs of the jobs differ")
    seconds = time_together(calls, dict.fromkeys(calls, repeats))
    base = seconds["in one piece"]
    title = f"{len(held):,} videos, {len(truth.classes)} classes, T = {snippets}"
    for who, values in seconds.items():
        agreement = f"{len(found):,} detections, the same bytes" if "piece" in who or "shards" in who else ""
        report.rows.append(Row(title, who, values, ratio=ratio(values, base), agreement=agreement))
    report.notes += [
        f"{title}: maps simulated over {what}, float32, {tcams.stat().st_size / 1e6:.0f} MB; "
        f"{output.stat().st_size / 1e6:.0f} MB of JSON. The files are in the system's cache. Ratio: to the job in one "
        "piece; reading, chain and writing are measured alone.",
    ]


def _copy(source: Path, result: Path, target: Path) -> None:
    with open(source, "rb") as file:
        while file.read(1 << 22):
            pass
    with open(target, "wb") as file:
        file.write(result.read_bytes())
        file.flush()
        os.fsync(file.fileno())


# ------------------------------------------------------------------------------------------------------- the long run


def _long_run(report: Report, folder: Path, num_videos: int, shard_videos: int) -> None:
    """A job in a fresh process; seconds and peak memory after every tenth of it."""
    inputs = folder / "streamed"
    inputs.mkdir()
    base = synthetic.make_videos(shard_videos)
    held = [replace(v, maps={"cas": v.maps["cas"].astype(np.float16)}) for v in base]
    files = max(TENTHS, num_videos // shard_videos)
    for number in range(files):
        named = [replace(video, id=f"{number:06d}/{video.id}") for video in held]
        formats.write_tcams(inputs / f"{number:06d}.npz", named, classes=base.classes)
    size = sum(path.stat().st_size for path in inputs.iterdir())
    output = folder / "streamed.json"
    _worker_process(inputs / "000000.npz", folder / "first.json", shard_videos)  # fills numba's cache
    found = _worker_process(inputs, output, shard_videos)
    count = files * shard_videos
    title = f"{count:,} videos"
    per_video = [seconds * TENTHS / count for seconds in found["seconds"]]
    own = [seconds * TENTHS / count for seconds in found["own"]]
    first = found["peaks"][0]
    report.rows += [
        Row(title, "seconds per video, first tenth", tuple(per_video[:1])),
        Row(title, "seconds per video, last tenth", tuple(per_video[-1:]), ratio=per_video[-1] / per_video[0]),
        Row(title, "seconds per video, all tenths", tuple(per_video), ratio=ratio(per_video, per_video[:1])),
        Row(title, "the processor's, first tenth", tuple(own[:1])),
        Row(title, "the processor's, last tenth", tuple(own[-1:]), ratio=own[-1] / own[0]),
        Row(title, "seconds of the plan", (found["plan"],)),
        Row(title, "seconds of the merge", (found["merge"],)),
    ]
    for when, peak in (("a tenth", first), ("all tenths", found["peaks"][-1]), ("the merge", found["peak"])):
        report.rows.append(Row(title, f"peak memory after {when}", (peak,), unit="MB", ratio=peak / first))
    report.notes += [
        f"{title}: {files} files of {shard_videos} THUMOS-like videos, float16, {size / 1e9:.1f} GB; the maps of all "
        f"files are the same, the ids differ. {found['rows']:,} detections, {output.stat().st_size / 1e9:.2f} GB of "
        "JSON. A fresh process; the processor's seconds leave out what others do on the machine, and peak memory has "
        "the interpreter, compiled code, one shard and the ids of all videos in it. Ratios: to the first tenth.",
    ]


def _worker_process(inputs: Path, output: Path, shard_videos: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.bench_jobs", str(inputs), str(output), str(shard_videos)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the worker failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def worker(inputs: str, output: str, shard_videos: str) -> None:
    seconds: list[float] = []
    busy: list[float] = []  # of the processor: what others do on the machine is not in it
    peaks: list[float] = []

    def over(job: _jobs.Job, shards: Sequence[_jobs.Shard], tick: _jobs.Tick) -> None:
        with _jobs.Worker(job, 1) as own:
            own.process(next(own.videos(0, 1))[1])  # load what was compiled
            started = time.perf_counter(), time.process_time()
            for number, shard in enumerate(shards, 1):
                own.run(shard, tick=tick)
                if number * TENTHS // len(shards) > len(seconds):
                    now = time.perf_counter(), time.process_time()
                    seconds.append(now[0] - started[0])
                    busy.append(now[1] - started[1])
                    peaks.append(peak_memory())
                    started = now

    started = time.perf_counter()
    job = _jobs.plan("detect", [inputs], presets.get(STREAMED_PRESET), output, shard_videos=int(shard_videos))
    plan = time.perf_counter() - started
    summary = _jobs.execute(job, output, over=over)
    merge = time.perf_counter() - started - plan - sum(seconds)
    found = {"seconds": seconds, "own": busy, "peaks": peaks, "plan": plan, "merge": merge}
    print(json.dumps({**found, "peak": peak_memory(), "rows": summary.rows}))


if __name__ == "__main__":
    if len(sys.argv) == 4:
        worker(*sys.argv[1:])
    else:
        from .__main__ import main

        main([NAME])
