"""What every benchmark shares: timing, agreement, the machine's stamp, JSON and the tables of docs/benchmarks.md.

A benchmark is a module ``bench_<topic>.py`` with ``NAME``, ``QUICK`` and ``run(*, clones, **sizes) -> Report``.
"""

from __future__ import annotations

import json
import math
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
IMAGES = ROOT / "docs" / "images"
BEGIN, END = "<!-- results: begin (python -m benchmarks writes this part) -->", "<!-- results: end -->"
LEAST = {"MB": 0.1}  # what a figure must exceed to mean anything
SUMMARY_BEGIN, SUMMARY_END = (part.replace("results", "summary") for part in (BEGIN, END))


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
    size: int | None = None  # where a picture puts it

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Row:
        return cls(**{**entry, "values": tuple(entry["values"])})


@dataclass(frozen=True)
class Panel:
    """Axes of a picture: the rows of `job` that have a size, one line per contender."""

    job: str
    x: str  # what a size counts, "videos"
    power: int = 1  # the slope to compare with


@dataclass(frozen=True)
class Picture:
    file: str  # in docs/images
    title: str
    panels: tuple[Panel, ...]


@dataclass
class Report:
    """All rows of one benchmark, with what a reader must know about them."""

    name: str
    title: str
    settings: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # contender: why
    notes: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    packages: tuple[str, ...] = ()  # that were compared, besides those of every stamp

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "machine": machine(self.packages)}


def machine(packages: Sequence[str] = ()) -> dict[str, Any]:
    """What the figures depend on; nothing that tells whose machine it is."""
    versions: dict[str, str | None] = {}
    for package in ("numpy", "numba", "scipy", "highspy", "pandas", *packages):
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


def time_together(
    calls: Mapping[K, Callable[[], Any]], repeats: Mapping[K, int], clock: Callable[[], float] = time.perf_counter
) -> dict[K, tuple[float, ...]]:
    """Seconds of every call on a clock.  Contenders take turns, so that a machine that slows down slows all of them.

    Everything must have been called once before: compilation is never timed.  What takes less than 1 ms is called once
    more before each timing, since the caches are full of another contender's data.
    """
    seconds: dict[K, list[float]] = {name: [] for name in calls}
    for turn in range(max(repeats[name] for name in calls)):
        for name, call in calls.items():
            if turn < repeats[name]:
                if min(seconds[name], default=1.0) < 1e-3:
                    call()
                started = clock()
                call()
                seconds[name].append(clock() - started)
    return {name: tuple(values) for name, values in seconds.items()}


def ratio(values: Sequence[float], base: Sequence[float]) -> float:
    return statistics.median(values) / statistics.median(base)


def exponent(rows: Sequence[Row]) -> float | None:
    """Slope of the least squares line through the logarithms of the medians, over the two largest decades of sizes."""
    sizes = {row.size: row.median for row in rows if row.size and row.median > LEAST.get(row.unit, 0.0)}
    points = [(math.log(n), math.log(value)) for n, value in sizes.items() if n >= max(sizes) / 100]
    if len(points) < 2:
        return None
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope


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


def read_reports(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """What earlier runs have written, those of `names` that are there."""
    return [json.loads((folder / f"{name}.json").read_text()) for name in names if (folder / f"{name}.json").exists()]


def write_docs(folder: Path, page: Path, names: Sequence[str]) -> None:
    """Rewrite the parts of `page` between the markers from the JSON files of `folder`."""
    found = read_reports(folder, names)
    text = _between(page, page.read_text(), SUMMARY_BEGIN, SUMMARY_END, summary(found))
    text = _between(page, text, BEGIN, END, "\n\n".join(markdown(one) for one in found))
    temporary = page.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(page)


def _between(page: Path, text: str, begin: str, end: str, part: str) -> str:
    if begin not in text or end not in text:
        raise ValueError(f"{page.name} has lost its markers {begin!r} and {end!r}")
    return f"{text.split(begin)[0]}{begin}\n\n{part}\n{end}{text.split(end)[1]}"


def summary(reports: Sequence[Mapping[str, Any]]) -> str:
    """Every goal of every report in one table, those that are not reached first."""
    judged = [(report["name"], row) for report in reports for row in map(Row.of, report["rows"]) if row.goal]
    judged.sort(key=lambda entry: bool(entry[1].reached))
    missed = sum(not row.reached for _, row in judged)
    body = [
        [name, _job(row), row.who, _measured(row), row.goal, "yes" if row.reached else "**no**"] for name, row in judged
    ]
    lines = [f"{len(judged) - missed} of {len(judged)} goals are reached, {missed} not.", ""]
    lines += _table(["benchmark", "job", "who", "measured", "goal", "reached"], body, "lllrll")
    return "\n".join(lines) + "\n"


def _measured(row: Row) -> str:
    return _number(row.median, row.unit) if row.ratio is None else f"{_times(row.ratio)} times"


def _times(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _job(row: Row) -> str:
    return row.job if row.size is None else f"{row.job}, n = {row.size:,}"


def markdown(report: Mapping[str, Any]) -> str:
    """The table of a report that was read from JSON, or of `Report.to_dict`."""
    stamp = ", ".join(
        f"{key} {value}" if key != "cpu" else str(value) for key, value in report["machine"].items() if value
    )
    settings = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in report["settings"].items())
    lines = [f"### {report['title']}", "", f"*{stamp}. Settings: {settings}.*", ""]
    for picture in report.get("pictures", ()):
        lines += [f"![{picture['title']}](images/{picture['file']})", ""]
    rows = [Row.of(entry) for entry in report["rows"]]
    grown = all(row.size is not None and row.ratio is None for row in rows)  # of ours alone, at many sizes
    lines += _by_size(rows) if rows and grown else _one_by_one(rows)
    lines += [""]
    lines += [f"* Skipped: {name}: {why}." for name, why in report["skipped"].items()]
    lines += [f"* {note}" for note in report["notes"]]
    return "\n".join(lines).rstrip() + "\n"


def _one_by_one(rows: Sequence[Row]) -> list[str]:
    header = ["job", "who", "median", "min to max", "runs", "ratio", "goal", "agreement"]
    body = []
    for row in rows:
        goal = row.goal and f"{row.goal}: {'reached' if row.reached else '**not reached**'}"
        cells = [_job(row), row.who, _number(row.median, row.unit), _spread(row), str(len(row.values))]
        body.append([*cells, "" if row.ratio is None else _times(row.ratio), goal, row.agreement])
    return _table(header, body, "llrrrrll")


def _by_size(rows: Sequence[Row]) -> list[str]:
    """One line per contender, one table per job: growth is read along a line."""
    lines = []
    for job in dict.fromkeys(row.job for row in rows):
        of_job = [row for row in rows if row.job == job]
        sizes = sorted({row.size for row in of_job if row.size is not None})
        body = []
        for who in dict.fromkeys(row.who for row in of_job):
            own = {row.size: row for row in of_job if row.who == who}
            slope = exponent(list(own.values()))
            cells = [f"{_number(own[n].median, own[n].unit)} ({_spread(own[n])})" if n in own else "" for n in sizes]
            body.append([who, *cells, "" if slope is None else f"{slope:.2f}"])
        lines += _table([job, *(f"{size:,}" for size in sizes), "exponent"], body, "l" + "r" * (len(sizes) + 1))
        lines += [""]
    return lines[:-1]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> list[str]:
    rule = "".join({"l": "---|", "r": "---:|"}[side] for side in align)
    return ["| " + " | ".join(header) + " |", "|" + rule, *("| " + " | ".join(cells) + " |" for cells in rows)]


def _spread(row: Row) -> str:
    return f"{_number(min(row.values), row.unit)} to {_number(max(row.values), row.unit)}"


def _number(value: float, unit: str) -> str:
    if unit != "s":
        return f"{value:.1f} {unit}"
    factor, name = (1.0, "s") if abs(value) >= 1 else (1e3, "ms") if abs(value) >= 1e-3 else (1e6, "µs")
    return f"{value * factor:.3g} {name}" if abs(value * factor) < 1000 else f"{value * factor:.0f} {name}"
