"""Ablations: the papers' tables, trained and tested here, with what the videos and the seeds make uncertain.

A run is a folder that is named by its settings.  What is there is not made again: an interrupted table goes on, and
tables share runs.  docs/tutorials/ablations.md has the tables as measured.
"""

from __future__ import annotations

import csv
import functools
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from .._checks import Float
from .._files import atomic_write
from .._jobs import end_with_parent
from .._tcam_files import read_tcams, write_tcams
from ..bootstrap import bootstrap_map
from ..formats import read_detections, write_detections
from ..pipeline import PostProcessor
from ..types import BootstrapMAP, FormatError, MissingExtraError, PairedBootstrap, Segments
from . import _command
from ._tables import TABLES, Row, Table, Trial
from .data import TrainTest
from .engine import Profile, Recipe, Run, as_device, make_data, train

try:
    import torch
except ImportError:
    raise MissingExtraError("torch", "torch", "tal_postproc.examples.ablation") from None

__all__ = ["TABLES", "Measured", "Plan", "ablate", "pooled"]

Say = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to make tables.

    Parameters
    ----------
    folder : str or path
        Of the runs and the tables.
    profile : str
        "smoke", "default" or "paper".
    seeds : tuple of int
        Of the runs, and of their synthetic data.
    jobs : int
        Processes of one thread that train at the same time.
    device : str
        As torch names it.
    wtalc : str or path, optional
        THUMOS14 in the layout of W-TALC, in place of synthetic data.
    activitynet : pair of str or path, optional
        Features and annotations of ActivityNet, in place of synthetic data.
    resamples : int
        Of the videos, for the intervals.
    """

    folder: str | os.PathLike[str]
    profile: str = "default"
    seeds: tuple[int, ...] = (0, 1, 2)
    jobs: int = 1
    device: str = "cpu"
    wtalc: str | os.PathLike[str] | None = None
    activitynet: tuple[str, str] | None = None
    resamples: int = 1000

    @property
    def source(self) -> str:
        """What the data are."""
        return "THUMOS14" if self.wtalc is not None else "synthetic" if self.activitynet is None else "ActivityNet"

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"`seeds` must be one or more different numbers, got {self.seeds}")
        if self.jobs < 1:
            raise ValueError(f"`jobs` must be at least 1, got {self.jobs}")
        as_device(self.device)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A trial: its metrics for every seed, in percent, and where they are mAPs the resamples of its videos."""

    values: Float  # (seeds, metrics)
    resamples: tuple[BootstrapMAP, ...] = ()  # of every seed


# ---------------------------------------------------------------------------------------------------------------- runs


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A run with all that is wanted of it."""

    plan: Plan
    trial: Trial  # what decides the training; not its test, end and entry
    seed: int
    tests: list[Mapping[str, Any]] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)  # epochs after which it is tested, besides the last

    @property
    def recipe(self) -> type[Recipe]:
        return _command.recipe(self.trial.recipe)

    @property
    def base(self) -> Profile:
        if self.plan.profile not in self.recipe.profiles:
            raise ValueError(f"`profile` must be one of {', '.join(self.recipe.profiles)}, got {self.plan.profile!r}")
        return self.recipe.profiles[self.plan.profile]

    @property
    def profile(self) -> Profile:
        """With what the run changes."""
        return replace(self.base, epochs=self.epochs(), options={**self.base.options, **self.trial.options})

    def epochs(self, part: float | None = None) -> int:
        return round(self.base.epochs * (self.trial.length if part is None else part))

    @property
    def kind(self) -> str:
        """The run but for its seed, named by what differs from the profile."""
        changed = _changed(self.trial.options, self.base.options)
        if self.epochs() != self.base.epochs:
            changed["epochs"] = self.epochs()
        return f"{self.plan.profile},{self.trial.recipe}{_named(changed)}"

    @property
    def folder(self) -> Path:
        return Path(self.plan.folder) / f"{self.kind},seed={self.seed}"

    def file(self, kind: str, *, after: int | None = None, test: Mapping[str, Any] | None = None) -> Path:
        """ "detections" or "result", of the end or after an epoch, of the run's own test or another."""
        until = f",after={after}" if after is not None else ""
        return self.folder / f"{kind}{until}{_named(_changed(test or {}, self.profile.options))}.json"

    def end(self, trial: Trial) -> int | None:
        """The epoch after which a trial of this run is tested; None: the last."""
        epochs = self.epochs(trial.until)
        return None if epochs == self.epochs() else epochs

    def seconds(self) -> list[float]:
        """Of every epoch that the log has."""
        path = self.folder / "log.csv"
        if not path.exists():
            return []
        with open(path, newline="", encoding="utf-8") as file:
            return [float(row["seconds"]) for row in csv.DictReader(file)]

    @property
    def is_trained(self) -> bool:
        path = self.folder / "done.json"
        if not path.exists():
            return False
        before, now = json.loads(path.read_text(encoding="utf-8"))["settings"], json.loads(json.dumps(self.settings))
        if changed := sorted(key for key in {*now, *before} if before.get(key) != now.get(key)):
            raise ValueError(f"{self.folder}: made with other settings ({', '.join(changed)}); take another folder")
        return all(self.file("detections", after=stop).exists() for stop in self.stops)

    @property
    def settings(self) -> dict[str, Any]:
        """What the run depends on."""
        return {**asdict(self.profile), "seed": self.seed, "data": self.plan.source}

    @property
    def is_done(self) -> bool:
        return self.is_trained and all(self.file("detections", test=test).exists() for test in self.tests)

    def make(self) -> float:
        """Train, keep the maps of the test set, and test; what is there stays.  Seconds that it took."""
        begun = time.perf_counter()
        data = self.data()
        if not self.is_trained:
            self._train(data)
        for test in self.tests:
            if not (path := self.file("detections", test=test)).exists():
                recipe = self._recipe(data, replace(self.profile, options={**self.profile.options, **test}))
                _detect(recipe, self.folder / "maps.npz", path)
        return time.perf_counter() - begun

    def data(self) -> TrainTest:
        given: Any = self.plan.wtalc, self.plan.activitynet
        return _data(*given, _sizes(self.base), self.seed)

    def run(self, **changed: Any) -> Run:
        return Run(
            profile=self.plan.profile,
            seed=self.seed,
            epochs=self.epochs(),
            device=self.plan.device,
            output=self.folder,
            options=self.trial.options,
            threads=1,
            **changed,
        )

    def _recipe(self, data: TrainTest, profile: Profile) -> Recipe:
        recipe = self.recipe(data.train, profile, self.seed, as_device(self.plan.device))
        recipe.networks.to(recipe.device)
        return recipe

    def _train(self, data: TrainTest) -> None:
        done = len(self.seconds())
        for stop in sorted(self.stops):
            if not (path := self.file("detections", after=stop)).exists():
                train(self.recipe, data, self.run(stop_after=stop, resume=done <= stop))
                done = stop
                shutil.copyfile(self.file("result"), self.file("result", after=stop))
                os.replace(self.file("detections"), path)  # last: it says that both are there
        train(self.recipe, data, self.run(resume=True))
        recipe = self._recipe(data, self.profile)
        state = torch.load(self.folder / "checkpoint.pt", map_location=recipe.device, weights_only=True)
        recipe.load_state(state["recipe"])
        write_tcams(self.folder / "maps.npz", recipe.videos(data.test), annotations=data.test.annotations)
        with atomic_write(self.folder / "done.json") as file:
            told = {"protocol": recipe.pipeline.protocol, "settings": self.settings}
            file.write(json.dumps(told, indent=2) + "\n")

    def first_epoch(self) -> float:
        """Seconds of the first epoch, which is trained now and then a part of the run."""
        train(self.recipe, self.data(), self.run(stop_after=1))
        return self.seconds()[0]

    def measure(self, trial: Trial, table: Table) -> Measured:
        """A trial of this run."""
        after = self.end(trial)
        if table.is_of_summary:
            summary = json.loads(self.file("result", after=after).read_text(encoding="utf-8"))
            entry = functools.reduce(lambda found, key: found[key], trial.entry, summary)
            return Measured(values=np.array([[100 * entry[metric] for metric in table.metrics]]))
        truth = read_tcams(self.folder / "maps.npz").annotations
        if truth is None:
            raise FormatError(f"{self.folder / 'maps.npz'}: must have the ground truth that it was written with")
        found = read_detections(self.file("detections", after=after, test=trial.test), classes=truth.classes)
        resampled = bootstrap_map(
            found,
            truth.segments,
            tiou_thresholds=table.tiou_thresholds,
            protocol=json.loads((self.folder / "done.json").read_text(encoding="utf-8"))["protocol"],
            ambiguous=truth.ambiguous,
            num_resamples=self.plan.resamples,
            seed=self.seed if self.plan.source == "synthetic" else 0,  # the same videos: drawn alike for all seeds
        )
        per_threshold = dict(zip(table.tiou_thresholds, resampled.point.mean(axis=1)))
        values = [resampled.value if metric == "avg" else per_threshold[metric] for metric in table.metrics]  # type: ignore[index]
        return Measured(values=100 * np.array([values]), resamples=(resampled,))


def _changed(options: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value != base.get(key)}


def _named(changed: Mapping[str, Any]) -> str:
    return "".join(f",{key}={changed[key]}" for key in sorted(changed))


def _sizes(profile: Profile) -> tuple[int, ...]:
    return profile.num_train, profile.num_test, profile.num_rgb, profile.num_flow, profile.num_classes


@functools.lru_cache(maxsize=1)
def _data(wtalc: Any, activitynet: Any, sizes: tuple[int, ...], seed: int) -> TrainTest:
    """Of the user, or synthetic; runs of one seed follow one another and share them."""
    given = _command.read_data(wtalc, activitynet)
    names = ("num_train", "num_test", "num_rgb", "num_flow", "num_classes")
    return make_data(Profile(**dict(zip(names, sizes))), seed) if given is None else given  # type: ignore[arg-type]


def _detect(recipe: Recipe, maps: Path, path: Path) -> None:
    """Detections of stored maps by the pipeline of a recipe, in seconds."""
    videos = read_tcams(maps)
    found = Segments.concatenate(list(PostProcessor(recipe.pipeline).process(videos)))
    if found.unit != "second":
        found = found.to_seconds([cast(float, video.seconds_per_snippet) for video in videos])
    write_detections(path, found, classes=videos.classes)


def _job(trial: Trial, plan: Plan, seed: int) -> _Job:
    return _Job(plan=plan, trial=replace(trial, test={}, until=None, entry=(), paper=()), seed=seed)


def _jobs(tables: Iterable[Table], plan: Plan) -> dict[Path, _Job]:
    """Every run that the tables need, once; seed by seed."""
    jobs: dict[Path, _Job] = {}
    for seed in plan.seeds:
        for trial in (trial for table in tables for row in table.rows for trial in row.trials):
            job = _job(trial, plan, seed)
            job = jobs.setdefault(job.folder, job)
            if trial.test and trial.test not in job.tests:
                job.tests.append(trial.test)
            if (stop := job.end(trial)) is not None and stop not in job.stops:
                job.stops.append(stop)
    return jobs


def _make_all(jobs: Sequence[_Job], plan: Plan, say: Say) -> None:
    """What is not there yet; before that, how long it will take."""
    left = [job for job in jobs if not job.is_trained]
    say(f"{len(jobs)} runs: {len(jobs) - len(left)} are there, {len(left)} to train")
    if left:
        _say_compute(jobs, left, plan, say)
    todo = [job for job in jobs if not job.is_done]
    for number, (job, seconds) in enumerate(_made(todo, plan.jobs), 1):
        say(f"[{number}/{len(todo)}] {job.folder.name}: {seconds:.0f} s")


def _made(jobs: Sequence[_Job], processes: int) -> Iterator[tuple[_Job, float]]:
    if processes == 1:
        yield from ((job, job.make()) for job in jobs)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        running = {pool.submit(job.make): job for job in jobs}
        try:
            yield from ((running[future], future.result()) for future in as_completed(running))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after a failure nothing new begins


def _say_compute(jobs: Sequence[_Job], left: Sequence[_Job], plan: Plan, say: Say) -> None:
    """Epochs to train times the measured seconds of one, for every kind of run."""
    total = 0.0
    for kind in dict.fromkeys(job.kind for job in left):
        of_kind = [job for job in left if job.kind == kind]
        measured = [seconds for job in jobs if job.kind == kind for seconds in job.seconds()]
        seconds = float(np.mean(measured)) if measured else of_kind[0].first_epoch()
        epochs = sum(job.epochs() - len(job.seconds()) for job in of_kind)
        total += epochs * seconds
        say(f"  {kind}: {len(of_kind)} to train, {epochs} epochs of {seconds:.2f} s")
    say(f"{total / 60:.0f} minutes of training in all, {total / 60 / plan.jobs:.0f} with {plan.jobs} at a time")


# -------------------------------------------------------------------------------------------------------------- tables


def pooled(resamples: Sequence[BootstrapMAP], metric: float | str) -> BootstrapMAP:
    """The mean over seeds, as it is and in every resample, of the mAP at a tIoU or of "avg", that over all tIoU.

    A `PairedBootstrap` of two of them compares two methods: resample r draws the same videos for both, in the data set
    of every seed.  Its interval is about other videos, not about other seeds.
    """
    at = [i for i, threshold in enumerate(resamples[0].tiou_thresholds) if metric in ("avg", threshold)]
    first = resamples[0]
    point = np.mean([found.point.mean(axis=1)[at] for found in resamples], axis=0)
    per_threshold = np.mean([found.per_threshold[:, at] for found in resamples], axis=0)
    return BootstrapMAP(
        first.tiou_thresholds[at],
        np.zeros(1, np.int64),
        point[:, None],
        per_threshold[..., None],
        per_threshold,
        first.level,
    )


def ablate(
    names: Sequence[str], plan: Plan, say: Say = len, *, only: str = "", tables: Mapping[str, Table] = TABLES
) -> str:
    """Make tables of the papers.

    Parameters
    ----------
    names : sequence of str
        Keys of `tables`.
    plan : Plan
        Folder, profile, seeds, data.
    say : callable
        Gets the lines about the work: what it will take, and every run that is done.
    only : str
        Leave out the groups of columns whose name does not contain this.
    tables : mapping of str to Table, optional
        Default: those of the papers.

    Returns
    -------
    str
        Markdown: every table in the paper's layout, mean and standard deviation over the seeds, the paper's number in
        brackets; differences from the reference rows with intervals of a paired bootstrap; and the orderings that do
        not come out as in the paper.  The folder has it as NAME.md, and a figure of the paper as NAME.png, if
        matplotlib is there.
    """
    for name in names:
        if name not in tables:
            raise ValueError(f"a table must be one of {', '.join(tables)}, got {name!r}")
    chosen = {name: _only(tables[name], only) for name in names}
    jobs = _jobs(chosen.values(), plan)
    _make_all(list(jobs.values()), plan, say)
    texts = []
    for name, table in chosen.items():
        found = [[_measured(trial, table, plan) for trial in row.trials] for row in table.rows]
        texts.append(_written(name, table, found, plan))
        with atomic_write(Path(plan.folder) / f"{name}.md") as file:
            file.write(texts[-1])
        if table.figure:
            _draw(table, found, Path(plan.folder) / f"{name}.png", say)
    return "\n".join(texts)


def _only(table: Table, text: str) -> Table:
    kept = [column for column, group in enumerate(table.groups) if text in group]
    if not kept:
        raise ValueError(f"`only` must be in the name of a group of columns ({', '.join(table.groups)}), got {text!r}")
    rows = tuple(replace(row, trials=tuple(row.trials[column] for column in kept)) for row in table.rows)
    return replace(table, rows=rows, groups=tuple(table.groups[column] for column in kept))


def _measured(trial: Trial, table: Table, plan: Plan) -> Measured:
    """Of all seeds."""
    found = [_job(trial, plan, seed).measure(trial, table) for seed in plan.seeds]
    resamples = tuple(one for seed in found for one in seed.resamples)
    return Measured(values=np.concatenate([seed.values for seed in found]), resamples=resamples)


def _spread(values: Float, sign: str = "") -> str:
    """Mean and standard deviation over the seeds."""
    return f"{values.mean():{sign}.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")


def _written(name: str, table: Table, found: Sequence[Sequence[Measured]], plan: Plan) -> str:
    """A table with all that belongs to it."""
    heads = [f"{group} {_head(metric)}".strip() for group in table.groups for metric in table.metrics]
    rows = []
    for row, measured in zip(table.rows, found):
        cells = []
        for trial, one in zip(row.trials, measured):
            papers = [f" ({paper:g})" for paper in trial.paper] + [""] * len(table.metrics)
            cells += [_spread(values) + paper for values, paper in zip(one.values.T, papers)]
        rows.append([row.label, *cells])
    seeds = ", ".join(map(str, plan.seeds))
    about = f"Profile {plan.profile}, seeds {seeds}, {plan.source} data; in % (paper)."
    parts = [f"### {table.title}\n", f"{about} {table.note}".rstrip() + "\n", _markdown([name, *heads], rows)]
    for column, group in enumerate(table.groups):
        rows_of_group = [(row, row.trials[column], one[column]) for row, one in zip(table.rows, found)]
        where = f", {group}" if group else ""
        parts.append(f"\nDifferences in {_head(table.headline)}{where}:\n")
        parts.append(_differences(rows_of_group, table))
        if (text := _orderings(rows_of_group, table)) is not None:
            parts.append(f"\n{text}")
    return "\n".join(parts) + "\n"


def _head(metric: float | str) -> str:
    return metric.replace("_", " ") if isinstance(metric, str) else f"{metric:g}"


def _differences(rows: Sequence[tuple[Row, Trial, Measured]], table: Table) -> str:
    """Every row against its reference."""
    lines = []
    for number, (row, _, one) in enumerate(rows):
        if row.reference != number:
            other, _, base = rows[row.reference]
            lines.append([row.label, other.label, *_difference(one, base, table)])
    return _markdown(["", "against", "difference", "95 % interval", "p"], lines)


def _difference(one: Measured, base: Measured, table: Table) -> tuple[str, str, str]:
    """Mean and standard deviation over seeds, interval and p over resamples of the videos."""
    column = table.metrics.index(table.headline)
    spread = _spread(one.values[:, column] - base.values[:, column], "+")
    if not one.resamples:
        return spread, "", ""
    pair = PairedBootstrap(pooled(one.resamples, table.headline), pooled(base.resamples, table.headline))
    low, high = pair.interval
    return spread, f"{100 * low:+.1f} to {100 * high:+.1f}", f"{pair.p_value:.3f}"


def _orderings(rows: Sequence[tuple[Row, Trial, Measured]], table: Table) -> str | None:
    """Which pairs of rows stand in another order than in the paper; None where the paper has no numbers."""
    column = table.metrics.index(table.headline)
    told = [item for item in rows if len(item[1].paper) > column]
    pairs = [(better, worse) for better in told for worse in told if better[1].paper[column] > worse[1].paper[column]]
    if not pairs:
        return None
    lines = []
    for (better, of_better, one), (worse, of_worse, base) in pairs:
        if one.values[:, column].mean() <= base.values[:, column].mean():
            spread, interval, p = _difference(one, base, table)
            rest = f", {interval}, p {p}" if p else ""
            papers = f"{of_better.paper[column]:g} > {of_worse.paper[column]:g}"
            lines.append(f"- {better.label} > {worse.label} (paper {papers}): here {spread}{rest}")
    agree = f"{len(pairs) - len(lines)} of {len(pairs)} pairs of rows stand in the paper's order"
    return "\n".join([f"{agree}; not so:\n", *lines]) if lines else f"{agree}."


def _draw(table: Table, found: Sequence[Sequence[Measured]], path: Path, say: Say) -> None:
    """The paper's figure: the headline over the labels of the rows, a line for every group."""
    from ..plotting._curves import curves

    column = table.metrics.index(table.headline)
    lines = {
        group: np.stack([measured[number].values[:, column] for measured in found])
        for number, group in enumerate(table.groups)
    }
    try:
        curves(
            [float(row.label) for row in table.rows], lines, x_label="temperature", y_label="mAP, avg (%)", path=path
        )
    except MissingExtraError as error:
        say(f"no picture: {error}")


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that reads well as text, too."""
    widths = [max(2, *(len(row[i]) for row in [header, *rows])) for i in range(len(header))]  # a rule has a dash
    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    aligned = [
        [cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))] for row in rows
    ]
    head = [cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(header, widths))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *aligned])
