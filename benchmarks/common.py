"""What every benchmark shares: timing, agreement, the machine's stamp, JSON and the tables of docs/benchmarks.md.

A benchmark is a module ``bench_<topic>.py`` with ``NAME`` and ``run(*, clones, **sizes) -> Report``.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

K = TypeVar("K", bound=Hashable)

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
DOCS = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- results: begin (python -m benchmarks writes this part) -->", "<!-- results: end -->"


class Disagreement(Exception):
    """Two contenders gave different results: there is nothing to time."""


class Unavailable(Exception):
    """A contender cannot run here; the message says why."""


# -------------------------------------------------------------------------------------------------------------- results


@dataclass(frozen=True)
class Row:
    """One measured figure.  `ratio` is its median over the median of what it is compared with, in the same run."""

    job: str
    who: str
    values: tuple[float, ...]
    unit: str = "s"  # "s", "MB" or "%"
    ratio: float | None = None
    goal: str = ""
    reached: bool | None = None
    agreement: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass
class Report:
    """All rows of one benchmark, with what a reader must know about them."""

    name: str
    title: str
    settings: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # contender: why
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "machine": machine()}


def machine() -> dict[str, Any]:
    """What the figures depend on; nothing that tells whose machine it is."""
    versions: dict[str, str | None] = {}
    for package in ("numpy", "numba", "scipy", "highspy", "pandas"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **versions,
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


# --------------------------------------------------------------------------------------------------------------- timing


def time_together(calls: Mapping[K, Callable[[], Any]], repeats: Mapping[K, int]) -> dict[K, tuple[float, ...]]:
    """Seconds of every call.  Contenders take turns, so that a machine that slows down slows all of them.

    Everything must have been called once before: compilation is never timed.
    """
    seconds: dict[K, list[float]] = {name: [] for name in calls}
    for turn in range(max(repeats[name] for name in calls)):
        for name, call in calls.items():
            if turn < repeats[name]:
                started = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - started)
    return {name: tuple(values) for name, values in seconds.items()}


def ratio(values: Sequence[float], base: Sequence[float]) -> float:
    return statistics.median(values) / statistics.median(base)


# ------------------------------------------------------------------------------------------------------------ agreement


def require_equal_rows(ours: np.ndarray, theirs: np.ndarray, who: str, tolerance: float = 1e-6) -> str:
    """Both hold the same rows [video, class, start, end, score], in any order; how many were compared, in words."""
    if len(ours) == 0:
        raise Disagreement(f"{who}: nothing to compare, there are no detections")
    pairs = np.unique(np.concatenate([ours[:, :2], theirs[:, :2]]), axis=0)
    for video, label in pairs.tolist():
        one, other = (_of_pair(rows, video, label) for rows in (ours, theirs))
        if len(one) != len(other):
            raise Disagreement(
                f"{who}: video {video:g}, class {label:g}: {len(other)} detections instead of {len(one)}"
            )
        worst = float(np.abs(one - other).max(initial=0.0))
        if not worst <= tolerance:
            raise Disagreement(f"{who}: video {video:g}, class {label:g}: detections differ by {worst:.3g}")
    return f"{len(ours)} detections equal within {tolerance:g}"


def _of_pair(rows: np.ndarray, video: float, label: float) -> np.ndarray:
    rows = rows[(rows[:, 0] == video) & (rows[:, 1] == label)][:, 2:]
    # one number per row that tells different rows apart and hardly moves when a row moves in its last bits
    return rows[np.argsort(rows @ np.sqrt([2.0, 3.0, 5.0]))]


def require_equal_values(ours: np.ndarray, theirs: np.ndarray, who: str, tolerance: float) -> str:
    """Both are the same array; how many values were compared, in words."""
    if ours.shape != theirs.shape:
        raise Disagreement(f"{who}: shape {theirs.shape} instead of {ours.shape}")
    if not ours.size or not ours.any():
        raise Disagreement(f"{who}: nothing to compare, all values are 0")
    worst = float(np.abs(ours - theirs).max())
    if not worst <= tolerance:
        raise Disagreement(f"{who}: values differ by {worst:.3g}, more than {tolerance:g}")
    return f"{ours.size} values equal within {tolerance:g}"


# --------------------------------------------------------------------------------------------------------------- output


def write_json(report: Report, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.name}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(report.to_dict(), indent=1) + "\n")
    temporary.replace(path)


def write_docs(folder: Path, page: Path, names: Sequence[str]) -> None:
    """Rewrite the part of `page` between the markers from the JSON files of `folder`."""
    text = page.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"{page.name} has lost its markers {BEGIN!r} and {END!r}")
    found = [json.loads((folder / f"{name}.json").read_text()) for name in names if (folder / f"{name}.json").exists()]
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    temporary = page.with_suffix(".tmp")
    temporary.write_text("\n".join([before + BEGIN, *(f"\n{markdown(one)}" for one in found), END]) + after)
    temporary.replace(page)


def markdown(report: Mapping[str, Any]) -> str:
    """The table of a report that was read from JSON, or of `Report.to_dict`."""
    stamp = ", ".join(
        f"{key} {value}" if key != "cpu" else str(value) for key, value in report["machine"].items() if value
    )
    settings = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in report["settings"].items())
    header = ["job", "who", "median", "min to max", "runs", "ratio", "goal", "agreement"]
    lines = [f"### {report['title']}", "", f"*{stamp}. Settings: {settings}.*", ""]
    lines += ["| " + " | ".join(header) + " |", "|---|---|---:|---:|---:|---:|---|---|"]
    for entry in report["rows"]:
        row = Row(**{**entry, "values": tuple(entry["values"])})
        goal = row.goal and f"{row.goal}: {'reached' if row.reached else '**not reached**'}"
        spread = f"{_number(min(row.values), row.unit)} to {_number(max(row.values), row.unit)}"
        cells = [row.job, row.who, _number(row.median, row.unit), spread, str(len(row.values))]
        cells += ["" if row.ratio is None else f"{row.ratio:.3g}", goal, row.agreement]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [""]
    lines += [f"* Skipped: {name}: {why}." for name, why in report["skipped"].items()]
    lines += [f"* {note}" for note in report["notes"]]
    return "\n".join(lines).rstrip() + "\n"


def _number(value: float, unit: str) -> str:
    if unit != "s":
        return f"{value:.1f} {unit}"
    factor, name = (1.0, "s") if abs(value) >= 1 else (1e3, "ms") if abs(value) >= 1e-3 else (1e6, "µs")
    return f"{value * factor:.3g} {name}" if abs(value * factor) < 1000 else f"{value * factor:.0f} {name}"
