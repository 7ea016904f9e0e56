"""The first call: fresh processes with a cold and with a warm numba cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .common import ROOT, Report, Row

NAME = "start"
QUICK: dict[str, Any] = {"repeats": 1, "cold_repeats": 0, "jobs": ("interpreter", "import")}

FIRST = """
import numpy as np, tal_postproc as tpp
tcam = np.zeros((300, 20)); tcam[100:120, 3] = 0.5
assert len(tpp.PostProcessor.from_preset("gaufuse")(tcam, np.full(20, 0.5)))
"""
JOBS: dict[str, Sequence[str]] = {
    "interpreter": ("-c", "import numpy"),
    "import": ("-c", "import tal_postproc"),
    "import and first detection": ("-c", FIRST),
    "tal-postproc demo": ("-m", "tal_postproc.cli", "demo", "-o", "{output}"),
}
LABELS = {"interpreter": "nothing but Python and NumPy"}
GOALS = {("cold", "tal-postproc demo"): 15.0, ("warm", "import and first detection"): 1.5}


def run(
    *,
    clones: Mapping[str, Path] | None = None,
    repeats: int = 5,
    cold_repeats: int = 3,
    jobs: Sequence[str] = tuple(JOBS),
) -> Report:
    report = Report(NAME, "First call in a fresh process", {"numba cache": "cold is an empty folder per run"})
    with tempfile.TemporaryDirectory(prefix="tal_postproc_bench_") as folder:
        for job in jobs:
            warm = Path(folder) / "warm"
            _seconds(job, warm)  # fills the cache and the system's file cache
            if job != "interpreter":
                cold = tuple(_seconds(job, Path(folder) / f"cold {job} {turn}") for turn in range(cold_repeats))
                _add(report, job, "cold", cold)
            _add(report, job, "warm", tuple(_seconds(job, warm) for _ in range(repeats)))
    report.notes += [
        "Wall time of the whole process, from its start to its end; 200 synthetic videos in the demo.",
        "Cold also means that matplotlib, where it is installed, has no list of fonts yet.",
    ]
    return report


def _add(report: Report, job: str, cache: str, values: tuple[float, ...]) -> None:
    if values:
        limit = GOALS.get((cache, job))
        row = Row(LABELS.get(job, job), f"{cache} cache", values)
        if limit is not None:
            row = Row(row.job, row.who, values, goal=f"below {limit:g} s", reached=row.median < limit)
        report.rows.append(row)


def _seconds(job: str, cache: Path) -> float:
    """Seconds of one fresh process whose caches are in that folder."""
    cache.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache / "numba"), "MPLCONFIGDIR": str(cache / "matplotlib")}
    command = [
        sys.executable,
        *(part.format(output=cache / "demo") if "{output}" in part else part for part in JOBS[job]),
    ]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    elapsed = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{job!r} failed: {done.stderr[-2000:]}")
    return elapsed


if __name__ == "__main__":
    from .__main__ import main

    main([NAME])
