"""Pseudo labels: LinPro of a training set against the published linear programs, its steps, growth and stability."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tal_postproc import PostProcessor, Segments, linpro, linpro_label_maps, linpro_labels, presets, synthetic
from tal_postproc._kernels import kernel
from tal_postproc._kernels import simplex as kernels
from tal_postproc.config import LinPro

from . import common, contenders
from .common import Report, Row
from .contenders import LabelJob

NAME = "labels"
GOALS = {"auto": 50.0, "highs": 10.0}
TOLERANCE = 1e-6  # of objective and violation; linprog's own is 1e-7
NORMALIZATIONS = "sum", "mean"
STRICT = "as published", "linprog alone"  # they have no answer where scores cannot be met
REFERENCE = "linprog, relaxed"
QUICK: dict[str, Any] = {
    "num_videos": 6,
    "dense_videos": 1,
    "repeats": 3,
    "slow_repeats": 1,
    "lengths": (100, 1000),
    "counts": (1, 10, 150),
    "draws": 2,
}


def run(
    *,
    clones: Mapping[str, Path] | None = None,
    num_videos: int = 200,
    dense_videos: int = 20,
    repeats: int = 11,
    slow_repeats: int = 11,
    lengths: Sequence[int] = (100, 1000, 10_000, 100_000, 1_000_000),
    counts: Sequence[int] = (1, 3, 10, 32, 100, 192, 193, 316, 1000),
    draws: int = 5,
) -> Report:
    job = make_job(num_videos)
    dense = make_job(dense_videos, fused=False)
    report = Report(
        NAME,
        f"Pseudo labels by LinPro, {num_videos} THUMOS-like videos",
        {
            **{"videos": num_videos, "snippets": sum(job.lengths), "columns": job.num_classes},
            **{"instances": sum(map(len, job.found)), "systems": len(list(job.systems()))},
            **{"dense videos": dense_videos, "dense instances": sum(map(len, dense.found))},
        },
    )
    for normalization in NORMALIZATIONS:
        given = replace(job, normalization=normalization)
        _refresh(report, "refresh", given, STRICT, len(contenders.SELECTIONS), repeats, slow_repeats)
    for normalization in NORMALIZATIONS:
        given = replace(dense, normalization=normalization)
        _refresh(report, "dense", given, (*STRICT, REFERENCE), 1, repeats, min(slow_repeats, 3))
    _steps(report, "refresh, sum: where the time goes", job, "auto", 5 * repeats)
    _steps(report, "dense, sum: where the time goes", dense, "auto", repeats)
    _steps(report, "refresh, sum: where the time goes, highs", job, "highs", repeats)
    _growth_of_time(report, lengths, repeats)
    _growth_of_instances(report, counts, repeats)
    for normalization in NORMALIZATIONS:
        _stability(report, replace(job, normalization=normalization), draws)
    report.notes += [
        "A system is a class of a video that has instances. Refresh: the fused instances of preset gaufuse_pseudo, "
        "its background column too. Dense: the same proposals before fusion, many of which no labels can meet.",
        "As published: our transcription of the published matrices, Python lists over the snippets, and "
        "`scipy.optimize.linprog(ones(T), A_eq, b_eq, bounds=(0, 1))`; NaN where the scores cannot be met. "
        "linprog alone: the same with the matrices given. linprog, relaxed: the slow oracle of the tests, which has an "
        "answer for every system, by further linear programs over all snippets; everybody is held against it. "
        "Instances are made outside the timing for all.",
        "Ratio: median over the median of ours in one thread for the same solver and selection, in this run.",
        "Agreement: of every system the sum of labels and the violation of its scores, taken from the label maps "
        f"by the full matrices, within {TOLERANCE:g} of 1 + both. The labels themselves may differ.",
        "Where the time goes: the kernels one after the other on the same systems, in one thread, `min_norm`, each the "
        "fastest of many turns, since other work on a machine disturbs long calls more than short ones; the ratio is "
        "the share of the whole. Steps that were timed with an earlier one, and the last row, are differences.",
        "Stability: every system has one boundary of one of its instances, drawn by chance, moved by one snippet; the "
        "change is the l1 distance of both labels over the l1 norm of the first. A run is one draw for all systems.",
    ]
    return report


def make_job(num_videos: int, fused: bool = True) -> LabelJob:
    """What the published refresh makes label maps of; with `fused` false the proposals before fusion."""
    videos = synthetic.make_videos(num_videos, background="last").videos
    pipeline = presets.get("gaufuse_pseudo")
    process = PostProcessor(pipeline if fused else replace(pipeline, stages=()))
    lengths = [video.num_snippets for video in videos]
    return LabelJob(list(process.process(videos)), lengths, videos[0].maps["cas"].shape[1])


def _options(job: LabelJob, **changes: Any) -> LinPro:
    rule = presets.get("gaufuse_pseudo").labels
    assert rule is not None
    return replace(rule, normalization=job.normalization, **changes)


# -------------------------------------------------------------------------------------------------------------- refresh


def _refresh(
    report: Report, name: str, job: LabelJob, others: Sequence[str], selections: int, repeats: int, slow_repeats: int
) -> None:
    """Everybody must agree; `others` and the first `selections` of ours are timed and get a row."""
    known = {one.name: one for one in contenders.contenders("labels", {})}
    calls = {who: one.prepare(job) for who, one in known.items()}
    agreement = compare(job, {who: known[who].compared(call()) for who, call in calls.items()})  # also the warm-up
    chosen = contenders.SELECTIONS[:selections]
    ours = {way: [f"ours, {way[0]}, {way[1]}, {threads}" for threads in ("1 thread", "all threads")] for way in chosen}
    timed = {who: calls[who] for who in (*chain.from_iterable(ours.values()), *others)}
    seconds = common.time_together(timed, {who: slow_repeats if known[who].slow else repeats for who in timed})
    for (solver, selection), (alone, threaded) in ours.items():
        for who in (alone, threaded, *others):
            times = common.ratio(seconds[who], seconds[alone])
            judged = name == "refresh" and who == "as published"
            report.rows.append(
                Row(
                    f"{name}, {job.normalization}: {solver}, {selection}",
                    who.replace(f"{solver}, {selection}, ", ""),
                    seconds[who],
                    ratio=times,
                    goal=f"at least {GOALS[solver]:g} times" if judged else "",
                    reached=times >= GOALS[solver] if judged else None,
                    agreement=agreement[who],
                )
            )


def compare(job: LabelJob, maps: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Labels of the same violation and sum for every system, NaN from linprog only where scores cannot be met."""
    first = np.cumsum([0, *job.lengths])
    worst, met, unsolved = dict.fromkeys(maps, 0.0), 0, 0
    systems = list(job.systems())
    for video, label, rows, length in systems:
        matrix, scores = contenders.published_system(rows, length, job.normalization)
        figures = {}
        for who, labels in maps.items():
            own = labels[first[video] : first[video + 1], label]
            figures[who] = np.array([np.abs(matrix @ own - scores).sum(), own.sum()])
        expected = figures[REFERENCE]
        met += bool(expected[0] <= TOLERANCE)
        for who, (violation, total) in figures.items():
            if np.isnan(total) and who in STRICT and expected[0] > TOLERANCE:
                unsolved += who == STRICT[0]
                continue
            error = float(np.abs(np.subtract((violation, total), expected)).max())
            if not error <= TOLERANCE * (1.0 + expected.sum()):
                raise common.Disagreement(
                    f"{who}: class {label} of video {video}: labels of violation {violation:.9g} and sum {total:.9g} "
                    f"instead of {expected[0]:.9g} and {expected[1]:.9g}"
                )
            worst[who] = max(worst[who], error)
    told = f"{met} systems met, {len(systems) - met} relaxed, within {{:.1g}}"
    return {
        who: f"{len(systems) - unsolved} systems solved, {unsolved} NaN" if who in STRICT else told.format(worst[who])
        for who in maps
    }


# ---------------------------------------------------------------------------------------------------- where time goes


@kernel
def _up_to(bounds, scores, offsets, mean, upper, step):  # type: ignore[no-untyped-def]
    """The first steps of `solve_components`: build, simplex, certify, least squares."""
    done = 0.0
    for c in range(len(offsets) - 1):
        low, high = offsets[c], offsets[c + 1]
        matrix, sizes, rhs, weight, top, largest, _, _ = kernels.build(bounds[low:high], scores[low:high], mean)
        caps = upper * sizes / (top * largest)
        if step > 1:
            x, one, two = kernels.lexicographic(matrix, caps, rhs, weight)
            done += x[0]
            if step > 2:
                done += kernels.finish(matrix, sizes, caps, rhs, weight, x, one, two, step > 3)[2]
    return done


def _steps(report: Report, name: str, job: LabelJob, solver: str, repeats: int) -> None:
    """One row per step, its fastest turn; of a step that includes an earlier one, the earlier one is taken off."""
    rule = _options(job, solver=solver)
    lengths = np.array(job.lengths)
    rows = linpro._gather(job.found, lengths, job.num_classes, [None] * len(lengths), rule)
    group = np.repeat(np.arange(len(lengths)) * job.num_classes, np.diff(rows.offsets)) + rows.labels
    how = rule.normalization == "mean", float(rule.upper_bound or np.inf)
    limit = linpro._DENSE_ROWS if solver == "auto" else 0

    def sort() -> tuple[Any, ...]:
        edges = (rows.bounds[:, side] for side in (3, 2, 1, 0))
        order = np.lexsort((rows.scores, *edges, group))
        bounds, scores = rows.bounds[order], rows.scores[order]
        return bounds, scores, kernels.find_components(group[order], bounds), group[order]

    bounds, scores, offsets, home = sort()
    solved = partial(kernels.solve_components, bounds, scores, offsets, *how)
    state = solved(True, limit, *linpro._NOT_GIVEN)[0]
    dense, left = (_part(bounds, scores, offsets, np.flatnonzero(state == which)) for which in (1, kernels.OPEN))
    system = home[offsets[:-1]][state == kernels.OPEN]
    answer = linpro._by_highs(*left, system, *how) if len(system) else None

    whole = partial(linpro_label_maps, job.found, job.lengths, job.num_classes, num_threads=1, **asdict(rule))
    made = whole()
    found = {key: sum(one.solved[key] for one in made) for key in made[0].solved}
    calls: dict[str, Callable[[], Any]] = {
        "whole": whole,
        "checks and regions": lambda: linpro._gather(job.found, lengths, job.num_classes, [None] * len(lengths), rule),
        "sorting, components": sort,
    }
    includes: dict[str, str] = {}
    if found["closed_form"]:
        calls["closed form"] = lambda: solved(True, 1, *linpro._NOT_GIVEN)
    if found["simplex"]:
        steps = [f"small programs: {step}" for step in ("matrices", "simplex", "certificate", "least squares")]
        calls |= {step: partial(_up_to, *dense, *how, number) for number, step in enumerate(steps, 1)}
        includes |= dict(zip(steps[1:], steps))
    if answer is not None:
        calls["HiGHS: matrices"] = lambda: kernels.assemble(*left, *how)
        calls["HiGHS: solver and its calls"] = lambda: linpro._by_highs(*left, system, *how)
        calls["HiGHS: certificate, least squares"] = lambda: kernels.solve_components(
            *left, *how, True, len(bounds), *answer
        )
        includes["HiGHS: solver and its calls"] = "HiGHS: matrices"
    for call in calls.values():
        call()
    fastest = {step: min(values) for step, values in common.time_together(calls, dict.fromkeys(calls, repeats)).items()}
    own = {step: value - fastest.get(includes.get(step, ""), 0.0) for step, value in fastest.items()}
    own["painting, results, all else"] = 2.0 * own["whole"] - sum(own.values())
    status = Counter(state for one in made for state in one.status)
    told = {
        "whole": f"{status['optimal']} systems met, {status['relaxed']} relaxed, {status['uncertified']} uncertified, "
        f"largest gap {max(one.gap.max() for one in made):.1g}",
        "closed form": f"{found['closed_form']} components",
        "small programs: simplex": f"{found['simplex']} components",
        "HiGHS: solver and its calls": f"{found['highs']} components",
    }
    for step, value in own.items():
        report.rows.append(Row(name, step, (value,), ratio=value / own["whole"], agreement=told.get(step, "")))


def _part(bounds: np.ndarray, scores: np.ndarray, offsets: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, ...]:
    """The rows of some components, with their offsets."""
    mine = np.concatenate([np.empty(0, int), *(np.arange(offsets[c], offsets[c + 1]) for c in chosen)])
    return bounds[mine], scores[mine], np.cumsum([0, *np.diff(offsets)[chosen]])


# --------------------------------------------------------------------------------------------------------------- growth


def _growth_of_time(report: Report, lengths: Sequence[int], repeats: int) -> None:
    """10 instances near the start of ever longer videos, and spread over them; each beside an array of that length."""
    rng = np.random.default_rng(0)
    start = rng.uniform(0.0, 75.0, 10)
    segments, scores = np.column_stack([start, start + rng.uniform(4.0, 25.0, 10)]), rng.uniform(0.05, 0.3, 10)
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    for length in lengths:
        job = f"10 instances, T = {length}"
        calls[job, "ours, in the first 100 snippets"] = partial(linpro_labels, segments, scores, length)
        calls[job, "np.zeros(T)"] = partial(np.zeros, length)
        calls[job, "ours, over the whole video"] = partial(linpro_labels, segments * (length / 100), scores, length)
        calls[job, "np.full(T, 0.5)"] = partial(np.full, length, 0.5)
    _growth(report, calls, repeats, [f"10 instances, T = {length}" for length in lengths], lengths)


def _growth_of_instances(report: Report, counts: Sequence[int], repeats: int) -> None:
    """n instances that all hang together, and n in components of five."""
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    for count in counts:
        rng = np.random.default_rng(count)
        start, length, scores = 3.0 * np.arange(count), rng.integers(4, 20, count), rng.uniform(0.05, 0.3, count)
        apart = start + 60.0 * (np.arange(count) // 5)
        for who, begin in (("hanging together", start), ("components of 5", apart)):
            segments = np.column_stack([begin, begin + length])
            parts = -(-count // 5) if who == "components of 5" else 1
            for selection in ("min_norm", "vertex")[: 2 if who == "hanging together" else 1]:
                call = partial(linpro_labels, segments, scores, int(begin[-1]) + 30, selection=selection)
                found = call().solved
                if sum(found.values()) != parts:
                    raise RuntimeError(f"{count} instances, {who}: {found} instead of {parts} components")
                calls[f"n = {count} instances", f"ours, {who}, {selection}"] = call
    _growth(report, calls, repeats, [f"n = {count} instances" for count in counts], counts)


def _growth(
    report: Report,
    calls: Mapping[tuple[str, str], Callable[[], Any]],
    repeats: int,
    jobs: Sequence[str],
    sizes: Sequence[int],
) -> None:
    """Rows of everybody at every size, and the exponent of a straight line through the logarithms."""
    for call in calls.values():
        call()
    seconds = common.time_together(calls, dict.fromkeys(calls, repeats))
    report.rows += [Row(job, who, values) for (job, who), values in seconds.items()]
    for who in dict.fromkeys(who for _, who in calls):
        medians = [np.median(seconds[job, who]) for job in jobs]
        exponents = np.diff(np.log(medians)) / np.diff(np.log(sizes))
        whole = np.polyfit(np.log(sizes), np.log(medians), 1)[0]
        report.notes.append(
            f"Growth, {who}: exponent {whole:.2f} from {jobs[0]} to {jobs[-1]}, {exponents[-1]:.2f} at the end."
        )


# ------------------------------------------------------------------------------------------------------------ stability


def _stability(report: Report, job: LabelJob, draws: int) -> None:
    """By how much labels change, relative to their sum, when one boundary of every system moves by one snippet."""
    known = {one.name: one for one in contenders.contenders("labels", {})}
    ways = ("ours, auto, min_norm", "ours, auto, vertex", "ours, highs, vertex", "linprog alone")
    moved = [_moved(job, draw) for draw in range(draws)]
    shares = {}
    for who in ways:
        prepare = known[f"{who}, 1 thread" if who.startswith("ours") else who].prepare
        before = prepare(job)()
        total = np.nan_to_num([one.sum(axis=0) for one in before])
        change = [
            [np.abs(new - old).sum(axis=0) for new, old in zip(prepare(replace(job, found=found))(), before)]
            for found in moved
        ]
        shares[who] = np.array(change)[:, total > 0.0] / total[total > 0.0]
    for name, figure in (
        ("mean", partial(np.nanmean, axis=1)),
        ("median", partial(np.nanmedian, axis=1)),
        ("90th percentile", partial(np.nanpercentile, q=90.0, axis=1)),
    ):
        for who, share in shares.items():
            percent = tuple((100.0 * figure(share)).tolist())
            report.rows.append(Row(f"one boundary moves, {job.normalization}: {name} change", who, percent, unit="%"))


def _moved(job: LabelJob, seed: int) -> list[Segments]:
    """Every class of every video with one boundary of one instance one snippet off; both ends stay in the video."""
    rng = np.random.default_rng((seed, 7))
    moved = []
    for found, length in zip(job.found, job.lengths):
        segments = found.segments.copy()
        for label in np.unique(found.labels):
            row = rng.choice(np.flatnonzero(found.labels == label))
            side, step = rng.integers(2), rng.choice([-1.0, 1.0])
            new = segments[row].copy()
            new[side] += step
            if not (new[0] >= 0.0 and new[1] <= length and new[1] - new[0] >= 1.0):
                new[side] -= 2.0 * step
            if new[0] >= 0.0 and new[1] - new[0] >= 1.0:
                segments[row] = new
        moved.append(replace(found, segments=segments))
    return moved


if __name__ == "__main__":
    from .__main__ import main

    main([NAME])
