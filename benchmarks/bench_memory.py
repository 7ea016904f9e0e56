"""Peak memory of the chain: a fresh process for every figure."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from .common import ROOT, Report, Row, ratio

NAME = "memory"
QUICK: dict[str, Any] = {"num_videos": 4, "repeats": 1}
WORKERS = ("ours, 1 thread", "ours, all threads", "literal Python")


def run(*, clones: Mapping[str, Path] | None = None, num_videos: int = 200, repeats: int = 3) -> Report:
    from tal_postproc import synthetic

    videos = synthetic.make_videos(num_videos).videos
    size = sum(video.maps["cas"].nbytes for video in videos) / 1e6
    report = Report(
        NAME, f"Peak memory, {num_videos} THUMOS-like videos", {"preset": "gaufuse", "TCAMs in MB": round(size, 1)}
    )
    with tempfile.TemporaryDirectory(prefix="tal_postproc_bench_") as folder:
        file = Path(folder) / "tcams.npz"
        arrays: dict[str, Any] = {f"cas{v}": video.maps["cas"] for v, video in enumerate(videos)}
        np.savez(file, scores=np.array([video.scores["video"] for video in videos]), **arrays)
        _worker_process(WORKERS[0], file)  # fills numba's cache: compilation has a peak of its own
        found = {who: [_worker_process(who, file) for _ in range(repeats)] for who in WORKERS}
    counts = {who: {one["detections"] for one in runs} for who, runs in found.items()}
    if len(set.union(*counts.values())) != 1:
        raise RuntimeError(f"the workers found different numbers of detections: {counts}")
    for what, key in (("whole process", "peak"), ("added by the chain", "added")):
        base = [one[key] for one in found[WORKERS[0]]]
        for who, runs in found.items():
            values = tuple(one[key] for one in runs)
            report.rows.append(Row(what, who, values, unit="MB", ratio=ratio(values, base) if min(base) else None))
    report.notes += [
        "Peak resident memory of a fresh process that loads the TCAMs and runs the chain once; warm numba cache. "
        "Added: that peak minus the peak after one video (interpreter, imports, compiled code, TCAMs).",
        "Ours pays for numba (LLVM) once per process; the chain itself keeps the proposals of a few videos at a time.",
    ]
    return report


def _worker_process(who: str, file: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_memory", who, str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the worker for {who!r} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def peak_memory() -> float:
    """MB.  Linux's own record where there is one: getrusage also counts the parent of a fresh process."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def worker(who: str, file: str) -> None:
    from . import contenders

    with np.load(file) as arrays:
        videos = [
            SimpleNamespace(maps={"cas": arrays[f"cas{v}"]}, scores={"video": scores})
            for v, scores in enumerate(arrays["scores"])
        ]
    chosen = next(one for one in contenders.contenders("chain", {}) if one.name == who)
    chosen.prepare(contenders.ChainJob(videos[:1], "gaufuse"))()  # imports, and compiled code from the cache
    call = chosen.prepare(contenders.ChainJob(videos, "gaufuse"))
    before = peak_memory()
    found = call()
    peak = peak_memory()
    print(json.dumps({"peak": peak, "added": peak - before, "detections": len(chosen.compared(found))}))


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in WORKERS:
        worker(*sys.argv[1:])
    else:
        from .__main__ import main

        main([NAME])
