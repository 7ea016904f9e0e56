"""NMS, soft-NMS, fusion, voting, weighted fusion against compiled loops, torch, torchvision and ensemble-boxes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from tal_postproc import _checks, fuse_segments, nms, segment_voting, soft_nms, weighted_segment_fusion
from tal_postproc._kernels import kernel

from . import common
from .common import Panel, Picture, Report, Row, Unavailable

NAME = "segments"
SIGMA, THRESHOLD, TEMPERATURE, VOTES = 0.5, 0.5, 0.1, 0.6
GOALS = {
    **{("NMS", "dead-mask loop", n): goal for n, goal in ((10_000, 20.0), (100_000, 200.0))},
    **{("NMS", "kept-list loop", n): goal for n, goal in ((10_000, 5.0), (100_000, 80.0))},
    **{
        (job, "compacting loop", n): goal
        for job in ("soft-NMS", "fusion")
        for n, goal in ((10_000, 5.0), (100_000, 40.0))
    },
    ("weighted fusion, five models", "ensemble-boxes", 5_000): 100.0,
}
QUICK: dict[str, Any] = {
    "sizes": (100, 300),
    "dense": 200,
    "boxes": (100,),
    "repeats": 3,
    "slow_repeats": 1,
}

PACKAGES = ("torch", "torchvision", "ensemble-boxes")
SLOW = ("ensemble-boxes", "torch loop")

Call = Callable[[], Any]


def make_rows(n: int, seed: int = 0, density: float = 10.0) -> tuple[np.ndarray, np.ndarray]:
    """Segments whose density does not grow with n: any moment lies in about ten of them; distinct scores."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 10.0 * n / density, n)
    return np.column_stack((start, start + 10.0 * rng.lognormal(-0.5, 1.0, n))), rng.permutation(n) / n + 0.5 / n


def make_models(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """What weighted fusion is for: five models see the same n / 5 instances, each with jitter of its own."""
    rng = np.random.default_rng(seed)
    segments, scores = make_rows(n // 5, seed, density=2.0)
    length = np.diff(segments, axis=1)
    jitter = 0.1 * rng.standard_normal((5, *segments.shape)) * length
    return np.sort((segments + jitter).reshape(-1, 2), axis=1), np.tile(scores, 5) * rng.uniform(
        0.5, 1.0, len(scores) * 5
    )


def make_dense_rows(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Everything overlaps everything."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 1, n)
    return np.column_stack((start, start + rng.uniform(1, 20, n))), rng.permutation(n) / n + 0.5 / n


# ----------------------------------------------------------------------------------------------------- compiled loops
# As one writes them for all rows of one group, without leaving any comparison out.


@kernel
def _overlap(a, b, c, d):  # type: ignore[no-untyped-def]
    shared = min(b, d) - max(a, c)
    return shared / (d - c + (b - a) - shared) if shared > 0.0 else 0.0


@kernel
def _dead_mask_loop(segments, order, threshold):  # type: ignore[no-untyped-def]
    """The published C++ loop: every survivor marks all later rows that it overlaps too much."""
    n = len(order)
    dead, keep, count = np.zeros(n, np.bool_), np.empty(n, np.int64), 0
    for i in range(n):
        if dead[i]:
            continue
        keep[count] = order[i]
        count += 1
        s, e = segments[order[i], 0], segments[order[i], 1]
        for j in range(i + 1, n):
            if not dead[j] and _overlap(s, e, segments[order[j], 0], segments[order[j], 1]) > threshold:
                dead[j] = True
    return keep[:count]


@kernel
def _kept_list_loop(segments, order, threshold):  # type: ignore[no-untyped-def]
    """Every row is compared with the survivors until one suppresses it."""
    n = len(order)
    kept, keep, count = np.empty((n, 2)), np.empty(n, np.int64), 0
    for row in order:
        s, e = segments[row, 0], segments[row, 1]
        alone = True
        for k in range(count):
            if _overlap(kept[k, 0], kept[k, 1], s, e) > threshold:
                alone = False
                break
        if alone:
            keep[count], kept[count, 0], kept[count, 1] = row, s, e
            count += 1
    return keep[:count]


@kernel
def _soft_loop(segments, scores, sigma):  # type: ignore[no-untyped-def]
    """Pick the best, decay all others, put the last one into its place."""
    n = len(scores)
    row, start, end, score = np.arange(n), segments[:, 0].copy(), segments[:, 1].copy(), scores.copy()
    keep, new_scores = np.empty(n, np.int64), np.empty(n)
    best = 0
    for j in range(1, n):
        if score[j] > score[best]:
            best = j
    for count in range(n):
        keep[count], new_scores[count], s, e = row[best], score[best], start[best], end[best]
        last = n - 1 - count
        row[best], start[best], end[best], score[best] = row[last], start[last], end[last], score[last]
        best = 0
        for j in range(last):
            overlap = _overlap(s, e, start[j], end[j])
            if overlap > 0.0:
                score[j] *= np.exp(-overlap * overlap / sigma)
            if score[j] > score[best] or (score[j] == score[best] and row[j] < row[best]):
                best = j
    return keep, new_scores


@kernel
def _fuse_loop(segments, scores, order, threshold, temperature):  # type: ignore[no-untyped-def]
    """Take the best row left and all that overlap it, fuse them, keep the others in order."""
    n = len(order)
    row, start, end = order.copy(), segments[order, 0], segments[order, 1]
    fused, members, left, count = np.empty((n, 3)), np.empty(n, np.int64), n, 0
    while left > 0:
        stay, size = 0, 0
        s, e = start[0], end[0]
        for j in range(left):
            if j == 0 or _overlap(s, e, start[j], end[j]) > threshold:
                members[size] = row[j]
                size += 1
            else:
                row[stay], start[stay], end[stay] = row[j], start[j], end[j]
                stay += 1
        total = 0.0
        fused[count] = 0.0
        for i in range(size):
            weight = np.exp((scores[members[i]] - scores[members[0]]) / temperature)
            total += weight
            fused[count, 0] += weight * segments[members[i], 0]
            fused[count, 1] += weight * segments[members[i], 1]
            fused[count, 2] += weight * scores[members[i]]
        fused[count] /= total
        left = stay
        count += 1
    return fused[:count]


@kernel
def _vote_loop(kept, segments, scores, threshold):  # type: ignore[no-untyped-def]
    """Every kept segment looks at every row."""
    voted = kept.copy()
    for k in range(len(kept)):
        total = start = end = 0.0
        for j in range(len(segments)):
            if _overlap(kept[k, 0], kept[k, 1], segments[j, 0], segments[j, 1]) >= threshold:
                total += scores[j]
                start += scores[j] * segments[j, 0]
                end += scores[j] * segments[j, 1]
        if total > 0.0:
            voted[k, 0], voted[k, 1] = start / total, end / total
    return voted


@kernel
def _running_loop(segments, scores, order, threshold):  # type: ignore[no-untyped-def]
    """Every row looks at every running mean."""
    centre, mass, size, count = np.empty((len(order), 2)), np.empty(len(order)), np.zeros(len(order)), 0
    for row in order:
        best, best_overlap = count, threshold
        for c in range(count):
            overlap = _overlap(centre[c, 0], centre[c, 1], segments[row, 0], segments[row, 1])
            if overlap > best_overlap:
                best, best_overlap = c, overlap
        if best == count:
            centre[best], mass[best] = segments[row], 0.0
            count += 1
        mass[best] += scores[row]
        size[best] += 1
        centre[best] += scores[row] / mass[best] * (segments[row] - centre[best])
    return np.column_stack((centre[:count], mass[:count] / size[:count]))


# --------------------------------------------------------------------------------------------------------- contenders
# A job makes, of rows and scores, calls that all return one array of the same numbers in any order of its rows.


def _checked(segments: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The door that everybody comes through."""
    segments = _checks.as_segments(segments)
    return segments, _checks.as_values(scores, len(segments), "scores")


def _nms(segments: np.ndarray, scores: np.ndarray, threshold: float = THRESHOLD) -> dict[str, Call]:
    def loop(kernel: Callable[..., np.ndarray]) -> Call:
        def call() -> np.ndarray:
            rows, values = _checked(segments, scores)
            return kernel(rows, np.argsort(-values, kind="stable"), threshold)[:, None]

        return call

    return {
        "ours": lambda: nms(segments, scores, tiou_threshold=threshold)[:, None],
        "dead-mask loop": loop(_dead_mask_loop),
        "kept-list loop": loop(_kept_list_loop),
    }


def _touch(segments: np.ndarray, scores: np.ndarray) -> dict[str, Call]:
    return _nms(segments, scores, 0.0)


def _soft(segments: np.ndarray, scores: np.ndarray) -> dict[str, Call]:
    return {
        "ours": lambda: np.column_stack(soft_nms(segments, scores, sigma=SIGMA)),
        "compacting loop": lambda: np.column_stack(_soft_loop(*_checked(segments, scores), SIGMA)),
    }


def _fuse(segments: np.ndarray, scores: np.ndarray) -> dict[str, Call]:
    def ours() -> np.ndarray:
        fused = fuse_segments(segments, scores, tiou_threshold=THRESHOLD, temperature=TEMPERATURE)
        return np.column_stack((fused.segments, fused.scores))

    def loop() -> np.ndarray:
        rows, values = _checked(segments, scores)
        return _fuse_loop(rows, values, np.argsort(-values, kind="stable"), THRESHOLD, TEMPERATURE)  # type: ignore[no-any-return]

    return {"ours": ours, "compacting loop": loop}


def _vote(segments: np.ndarray, scores: np.ndarray) -> dict[str, Call]:
    kept = segments[nms(segments, scores, tiou_threshold=THRESHOLD)]
    return {
        "ours": lambda: segment_voting(kept, segments, scores, tiou_threshold=VOTES),
        "plain loop": lambda: _vote_loop(
            _checks.as_segments(kept, "kept_segments"), *_checked(segments, scores), VOTES
        ),
    }


def _weighted(segments: np.ndarray, scores: np.ndarray) -> dict[str, Call]:
    def ours() -> np.ndarray:
        fused = weighted_segment_fusion([segments], [scores], [np.zeros(len(scores), np.int64)])
        return np.column_stack((fused.segments, fused.scores))

    def loop() -> np.ndarray:
        rows, values = _checked(segments, scores)
        return _running_loop(rows, values, np.argsort(-values, kind="stable"), 0.55)  # type: ignore[no-any-return]

    return {"ours": ours, "plain loop": loop}


def _boxes(segments: np.ndarray, scores: np.ndarray, models: int) -> dict[str, Call]:
    """Lists of equal length, one per model, in [0, 1], so that ensemble-boxes clips nothing."""
    fuse = _package("ensemble_boxes", "ensemble-boxes").weighted_boxes_fusion_1d
    lists = [np.split(column, models) for column in (_unit(segments), scores, np.zeros(len(scores), np.int64))]

    def ours() -> np.ndarray:
        fused = weighted_segment_fusion(*lists)
        return np.column_stack((fused.segments, fused.scores))

    def theirs() -> np.ndarray:
        for rows, values, _ in zip(*lists):
            _checked(rows, values)
        return np.column_stack(fuse(*lists)[:2])

    return {"ours": ours, "ensemble-boxes": theirs}


# ------------------------------------------------------------------------------------------ what need not be installed
# Of rows and scores a call, and what makes of its result the array that is compared.  All pass the same door; what
# brings the rows into a form of their own, boxes say, is not timed.

Prepared = tuple[Call, Callable[[Any], np.ndarray]]


def _package(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(f"not installed (pip install {package})") from error
    except RuntimeError as error:  # torchvision, when it was built for another torch
        raise Unavailable(f"does not load: {error}") from error


def _torch() -> Any:
    torch = _package("torch", "torch")
    torch.set_num_threads(1)  # as ours
    return torch


def _unit(segments: np.ndarray) -> np.ndarray:
    return (segments - segments.min()) / (segments.max() - segments.min())


def _column(keep: Any) -> np.ndarray:
    return np.asarray(keep)[:, None]


def _boxes_nms(segments: np.ndarray, scores: np.ndarray) -> Prepared:
    """Boxes of height 1.  They come back without their rows; scores are distinct, so they tell which ones these are."""
    nms_2d = _package("ensemble_boxes", "ensemble-boxes").nms
    boxes = np.insert(_unit(segments), [1, 2], [0.0, 1.0], axis=1)
    labels, by_score = np.zeros(len(scores), np.int64), np.argsort(scores)

    def call() -> np.ndarray:
        _, values = _checked(segments, scores)
        return nms_2d([boxes], [values], [labels], iou_thr=THRESHOLD)[1]  # type: ignore[no-any-return]

    return call, lambda kept: _column(by_score[np.searchsorted(scores, kept, sorter=by_score)])


def _torchvision_nms(segments: np.ndarray, scores: np.ndarray) -> Prepared:
    torch, ops = _torch(), _package("torchvision.ops", "torchvision")
    boxes = torch.from_numpy(np.insert(segments, [1, 2], [0.0, 1.0], axis=1))
    return lambda: ops.nms(boxes, torch.from_numpy(_checked(segments, scores)[1]), THRESHOLD), _column


def _clone_nms(root: Path, segments: np.ndarray, scores: np.ndarray) -> Prepared:
    """ActionFormer's or OpenTAD's compiled extension, from the folder where it was built; it knows float32 only."""
    torch = _torch()
    sys.path.insert(0, str(root))
    try:
        extension = importlib.import_module("nms_1d_cpu")
    except ImportError as error:
        raise Unavailable(f"nms_1d_cpu does not load: {error}") from error
    finally:
        sys.path.remove(str(root))

    def call() -> Any:
        rows, values = (torch.from_numpy(given).float() for given in _checked(segments, scores))
        return extension.nms(rows, values, iou_threshold=THRESHOLD)

    return call, _column


def _torch_overlaps(torch: Any, starts: Any, ends: Any, pick: Any, rows: Any) -> Any:
    shared = (torch.minimum(ends[pick], ends[rows]) - torch.maximum(starts[pick], starts[rows])).clamp(min=0)
    return shared / (ends[pick] - starts[pick] + ends[rows] - starts[rows] - shared)


def _torch_nms(segments: np.ndarray, scores: np.ndarray) -> Prepared:
    """In the manner of AFSD: a Python loop over picks, each of which computes its overlap with all rows left."""
    torch = _torch()

    def call() -> list[int]:
        rows, values = (torch.from_numpy(given) for given in _checked(segments, scores))
        starts, ends = rows.unbind(1)
        left, keep = values.argsort(descending=True), []
        while len(left):
            pick, left = left[0], left[1:]
            keep.append(int(pick))
            left = left[_torch_overlaps(torch, starts, ends, pick, left) <= THRESHOLD]
        return keep

    return call, _column


def _torch_soft(segments: np.ndarray, scores: np.ndarray) -> Prepared:
    """In the manner of AFSD, but the last row comes back, too: each pick decays the scores of all rows left."""
    torch = _torch()

    def call() -> Any:
        rows, values = (torch.from_numpy(given) for given in _checked(segments, scores))
        starts, ends = rows.unbind(1)
        values, left, keep = values.clone(), torch.ones(len(values), dtype=torch.bool), []
        while left.any():
            pick = torch.where(left, values, -torch.inf).argmax()
            keep.append(int(pick))
            left[pick] = False
            overlaps = _torch_overlaps(torch, starts, ends, pick, slice(None))
            values = torch.where(left, values * torch.exp(-overlaps.square() / SIGMA), values)
        return torch.stack((torch.tensor(keep, dtype=values.dtype), values[keep]), dim=1)

    return call, np.asarray


def _others(
    job: str, clones: Mapping[str, Path]
) -> dict[str, tuple[Callable[[np.ndarray, np.ndarray], Prepared], int]]:
    """Further contenders of a job, each with the most rows it gets, so that the run ends."""
    if job == "soft-NMS":
        return {"torch loop": (_torch_soft, 10_000)}
    if job != "NMS":
        return {}
    clone = {"clone of nms_1d_cpu": (partial(_clone_nms, clones["nms1d"]), 10_000)} if "nms1d" in clones else {}
    return {
        "ensemble-boxes": (_boxes_nms, 10_000),
        "torchvision": (_torchvision_nms, 100_000),
        "torch loop": (_torch_nms, 10_000),
        **clone,
    }


def run(
    *,
    clones: Mapping[str, Path] | None = None,
    sizes: Sequence[int] = (100, 1_000, 10_000, 100_000),
    dense: int = 2_000,
    boxes: Sequence[int] = (500, 5_000),
    repeats: int = 31,
    slow_repeats: int = 3,
) -> Report:
    report = Report(
        NAME,
        "Segments: NMS, soft-NMS, fusion, voting, weighted fusion",
        {"sigma": SIGMA, "threshold": THRESHOLD, "temperature": TEMPERATURE, "voting threshold": VOTES},
        pictures=[
            Picture(
                "contenders.png",
                "Time of one call, of ours and of others",
                (Panel("NMS", "rows"), Panel("soft-NMS", "rows")),
            )
        ],
        packages=PACKAGES,
    )
    clones = clones or {}
    for name, job, tolerance in (
        ("NMS", _nms, 0.0),
        ("NMS, threshold 0", _touch, 0.0),
        ("soft-NMS", _soft, 1e-12),
        ("fusion", _fuse, 1e-6),
        ("voting", _vote, 1e-6),
        ("weighted fusion", _weighted, 1e-6),
    ):
        for n in sizes:
            given = make_rows(n)
            if "nms1d" in clones and name == "NMS":  # it would round
                given = tuple(column.astype(np.float32).astype(np.float64) for column in given)
            calls, compared = job(*given), {}
            for who, (prepare, most) in _others(name, clones).items():
                try:
                    if n <= most:
                        calls[who], compared[who] = prepare(*given)
                except Unavailable as reason:
                    report.skipped[f"{who} ({name})"] = str(reason)
            report.rows += _together(name, n, calls, tolerance, repeats, slow_repeats, compared).values()
        calls = job(*make_dense_rows(dense))
        report.rows += _together(f"{name}, all overlap", dense, calls, tolerance, repeats, repeats).values()
    for n, (name, make, models) in product(
        boxes, (("five models", make_models, 5), ("one list, not what it is for", make_rows, 1))
    ):
        try:
            calls = _boxes(*make(n), models)
        except Unavailable as reason:
            report.skipped["ensemble-boxes (weighted fusion)"] = str(reason)
            break
        report.rows += _together(f"weighted fusion, {name}", n, calls, 1e-6, repeats, slow_repeats).values()
    report.notes += [
        "Ratio: median over the median of ours for the same rows, in this run. Whole Python calls; the loops are "
        "compiled and get their rows through the same argument checks.",
        "The dead-mask loop is the algorithm of the published C++ NMS. The torch loops are Python loops over picks in "
        "the manner of AFSD, in float64 and one thread. ensemble-boxes and torchvision get boxes of height 1, made "
        "beforehand, in [0, 1] for the former. "
        "The compacting loops look at all rows that are left, the plain ones at all rows or means. The fusion loop "
        "makes start, end and score only; ours also membership, sizes and spreads.",
        "Any moment lies in about ten segments, however many there are. Five models: all see the same instances, each "
        "with its boundaries moved by chance, by a tenth of the length.",
    ]
    return report


def _together(
    job: str,
    n: int,
    calls: dict[str, Call],
    tolerance: float,
    repeats: int,
    slow_repeats: int,
    compared: Mapping[str, Callable[[Any], np.ndarray]] | None = None,
) -> dict[str, Row]:
    """Contenders agree, then take turns; the slow ones, and above 10,000 rows all others, have fewer of them."""
    results = {who: _sorted((compared or {}).get(who, np.asarray)(call())) for who, call in calls.items()}
    agreement = {
        who: ""
        if who == "ours"
        else common.require_equal_values(results["ours"], rows, f"{job}, n = {n:,}: {who}", tolerance)
        for who, rows in results.items()
    }
    slow = {who for who in calls if who in SLOW or (who != "ours" and n > 10_000)}
    seconds = common.time_together(calls, {who: slow_repeats if who in slow else repeats for who in calls})
    rows = {}
    for who, values in seconds.items():
        goal = GOALS.get((job, who, n))
        times = common.ratio(values, seconds["ours"])
        rows[who] = Row(
            job,
            who,
            values,
            ratio=times,
            goal="" if goal is None else f"at least {goal:g} times",
            reached=None if goal is None else times >= goal,
            agreement=agreement[who],
            size=n,
        )
    return rows


def _sorted(rows: np.ndarray) -> np.ndarray:
    """Rows by their first column, the row or the start, so that the order that contenders give them does not matter."""
    return rows[np.argsort(rows[:, 0], kind="stable")]


if __name__ == "__main__":
    from .__main__ import main

    main([NAME])
