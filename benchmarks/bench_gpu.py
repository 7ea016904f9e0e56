"""Batches of tensors on a GPU, or on the CPU where there is none, against the NumPy core on all cores."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tal_postproc import PostProcessor, Segments, Video, nms, soft_nms, synthetic
from tal_postproc.config import LinPro
from tal_postproc.linpro import linpro_label_maps

from . import bench_segments, common
from .common import Report, Row, Unavailable

NAME = "gpu"
CORE = "NumPy core, all threads"
FLOOR = "floor: bytes over bandwidth"
DETECT, LABEL = "gaufuse", "gaufuse_pseudo"
THRESHOLD, SIGMA = 0.5, 0.5
TIMES = 10.0  # of the core, at most, for batched operations on the CPU
GOALS = {"THUMOS-like, TCAM to labels": 0.010, "ActivityNet-like, TCAM to detections": 0.050}  # seconds on a GPU
# The most rows of one group, for NMS and for soft-NMS, of what would take minutes for more.
MOST = {"torch loop": (10_000, 0), "batched on cpu": (1_000_000, 3_000), "batched on cuda": (1_000_000, 10_000)}
BUDGET = 2.0  # seconds after which a contender is not called again
QUICK: dict[str, Any] = {
    "thumos": 3,
    "anet": 6,
    "sizes": (50,),
    "groups": 5,
    "repeats": 1,
    "bytes_copied": 1 << 20,
}

Call = Callable[[], Any]


def run(
    *,
    clones: Mapping[str, Path] | None = None,
    thumos: int = 200,
    anet: int = 4_728,
    sizes: Sequence[int] = (1_000, 10_000, 100_000),
    groups: int = 10_000,
    repeats: int = 7,
    bytes_copied: int = 1 << 28,
) -> Report:
    try:
        bench = _Bench(repeats, bytes_copied)
    except Unavailable as reason:
        report = Report(NAME, "Batches of tensors", {})
        report.skipped["everything"] = str(reason)
        return report
    report = bench.report
    report.settings |= {"THUMOS-like videos": thumos, "ActivityNet-like videos": anet, "groups": groups}
    _detections(bench, "THUMOS-like", _Given(bench, synthetic.make_videos(thumos).videos))
    _labels(bench, "THUMOS-like", _Given(bench, synthetic.make_videos(thumos, background="last").videos))
    _detections(bench, "ActivityNet-like", _Given(bench, make_short_videos(anet)))
    for n in sizes:
        _rows(bench, "in one group", *bench_segments.make_rows(n), None, n)
    many = [bench_segments.make_rows(100, seed) for seed in range(groups)]
    segments, scores = (np.concatenate(parts) for parts in zip(*many))
    _rows(bench, f"in {groups:,} groups of 100", segments, scores, np.repeat(np.arange(groups), 100), len(scores))
    report.notes += [
        f"Tensors lie on the device, arrays of the core in memory; results are compared before anything is timed. "
        f"Ratio: median over the median of the core, in this run. {FLOOR.capitalize()}: the bytes of what is given and "
        f"what comes back, over the {bench.bandwidth / 1e9:.0f} GB/s of a copy of {bytes_copied / 1e6:.0f} MB on the "
        "device.",
        f"Detections: preset {DETECT}, thresholds, contrast, fusion. Labels: preset {LABEL}, the same and LinPro. "
        "ActivityNet-like: 100 snippets, 200 classes, one or two of them acting. Rows as in `bench_segments.py`.",
        "Torch loop: in the manner of AFSD, one pick at a time; it and batched soft-NMS, which take a step per pick of "
        "the largest group, are not given groups that would take minutes. " + bench.how,
    ]
    return report


def make_short_videos(count: int, seed: int = 0) -> list[Video]:
    """Like ActivityNet's: (100, 200) float32, one or two classes that act in smooth stretches, all others near 0."""
    rng = np.random.default_rng(seed)
    videos = []
    for number in range(count):
        tcam = rng.random((100, 200), dtype=np.float32) * 5e-4
        scores = rng.random(200) * 0.05
        for label in rng.choice(200, rng.integers(1, 3), replace=False):
            noise = np.convolve(rng.normal(size=120), np.hanning(21), "valid")
            tcam[:, label] = 0.05 / (1 + np.exp(-noise))
            scores[label] = rng.uniform(0.2, 1.0)
        videos.append(Video(f"v{number}", {"cas": tcam}, {"video": scores}))
    return videos


class _Bench:
    """The device, its clock and its bandwidth, and the report."""

    def __init__(self, repeats: int, bytes_copied: int) -> None:
        self.torch = bench_segments._package("torch", "torch")
        self.tpt = bench_segments._package("tal_postproc.torch", "tal_postproc[torch]")
        self.repeats = repeats
        # The core has all cores, plain operations on the CPU one: their threads wait for each other at every operation.
        self.torch.set_num_threads(1)
        self.cuda = self.torch.cuda.is_available()
        self.device = self.torch.device("cuda" if self.cuda else "cpu")
        name = self.torch.cuda.get_device_name() if self.cuda else "CPU"
        self.report = Report(
            NAME,
            f"Batches of tensors on {f'a GPU, {name}' if self.cuda else 'the CPU: there was no CUDA device'}",
            {"device": name, "threads of torch": 1},
            packages=("torch", "triton", "torchvision"),
        )
        self.how = "Timed with CUDA events." if self.cuda else "No CUDA device: figures of a GPU are not measured here."
        self.backends = ("triton", "batched") if self.cuda and self.tpt._bridge.has_triton() else ("batched",)
        source = self.torch.ones(bytes_copied // 8, dtype=self.torch.float64, device=self.device)
        target = self.torch.empty_like(source)
        copies = [self.seconds(partial(target.copy_, source)) for _ in range(5)]
        self.bandwidth = 2 * bytes_copied / min(copies)

    def seconds(self, call: Call) -> float:
        """One call; on a GPU between two events, all of the host's part included."""
        if not self.cuda:
            started = time.perf_counter()
            call()
            return time.perf_counter() - started
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.torch.cuda.synchronize()
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    def put(self, array: Any) -> Any:
        return self.torch.as_tensor(array, device=self.device)

    def on_backends(self, call: Call) -> dict[str, Call]:
        """The call on every backend of this device, by name."""

        def within(backend: str) -> Any:
            with self.tpt.backend(backend):
                return call()

        return {f"{name} on {self.device.type}": partial(within, name) for name in self.backends}

    def judge(
        self, job: str, calls: Mapping[str, Call], compare: Callable[[Any, Any, str], str], size: int | None = None
    ) -> None:
        """Rows of everybody; the core comes first, and all others must give what it gives."""
        expected, agreement = calls[CORE](), {CORE: ""}
        kept = {CORE: calls[CORE]}
        for who, call in calls.items():
            if who == CORE or (size is not None and self._too_many(job, who, size)):
                continue
            try:
                agreement[who] = compare(expected, call(), who)  # also the warm-up
                kept[who] = call
            except Unavailable as reason:
                self.report.skipped[who] = str(reason)
        seconds: dict[str, list[float]] = {who: [] for who in kept}
        for _ in range(self.repeats):
            for who, call in kept.items():
                if sum(seconds[who]) < BUDGET:
                    seconds[who].append(self.seconds(call))
        for who, values in seconds.items():
            times, goal, reached = common.ratio(values, seconds[CORE]), "", None
            if who in self.on_backends(lambda: None) and job in GOALS:
                limit = GOALS[job]
                goal = f"below {1e3 * limit:g} ms" if self.cuda else f"at most {TIMES:g} times"
                reached = sorted(values)[len(values) // 2] < limit if self.cuda else times <= TIMES
            self.report.rows.append(Row(job, who, tuple(values), "s", times, goal, reached, agreement[who], size=size))

    def _too_many(self, job: str, who: str, size: int) -> bool:
        return "one group" in job and who in MOST and size > MOST[who]["soft" in job]

    def floor(self, job: str, nbytes: int, size: int | None = None) -> None:
        base = next(row for row in self.report.rows if (row.job, row.size, row.who) == (job, size, CORE))
        least = nbytes / self.bandwidth
        self.report.rows.append(Row(job, FLOOR, (least,), "s", least / base.median, size=size))


# --------------------------------------------------------------------------------------------------------------- chains


class _Given:
    """Videos for the core and the same tensors on the device."""

    def __init__(self, bench: _Bench, videos: Sequence[Video]) -> None:
        self.videos = [Video("", video.maps, video.scores) for video in videos]
        self.tcams = [bench.put(video.maps["cas"]) for video in videos]
        self.scores = bench.put(np.stack([video.scores["video"] for video in videos]))
        self.nbytes = sum(video.maps["cas"].nbytes for video in videos)


def _detections(bench: _Bench, name: str, given: _Given) -> None:
    process, core = bench.tpt.PostProcessor.from_preset(DETECT), PostProcessor.from_preset(DETECT)
    calls: dict[str, Call] = {CORE: lambda: Segments.concatenate(core.process(given.videos))}
    calls |= bench.on_backends(lambda: process(given.tcams, given.scores))
    job = f"{name}, TCAM to detections"
    bench.judge(job, calls, _equal_detections)
    bench.floor(job, given.nbytes + 32 * len(calls[CORE]()))


def _labels(bench: _Bench, name: str, given: _Given) -> None:
    process, core = bench.tpt.PostProcessor.from_preset(LABEL), PostProcessor.from_preset(LABEL)
    rule = core.pipeline.labels or LinPro()
    lengths = [video.num_snippets for video in given.videos]
    num_classes = given.tcams[0].shape[1]
    instances = list(core.process(given.videos))
    on_device = [bench.tpt.Segments.from_numpy(one, bench.device) for one in instances]

    def on_core(found: Sequence[Segments]) -> list[np.ndarray]:
        return [made.labels for made in linpro_label_maps(found, lengths, num_classes, **vars(rule))]

    def on_backend() -> list[Any]:
        return [made.labels for made in bench.tpt.linpro_label_maps(on_device, lengths, num_classes, **vars(rule))]

    for what, calls, nbytes in (
        (
            "TCAM",
            {CORE: lambda: on_core(list(core.process(given.videos)))}
            | bench.on_backends(lambda: process.labels(given.tcams, given.scores, num_classes=num_classes)[0]),
            given.nbytes,
        ),
        (
            "instances",
            {CORE: lambda: on_core(instances)} | bench.on_backends(on_backend),
            32 * sum(map(len, instances)),
        ),
    ):
        job = f"{name}, {what} to labels"
        bench.judge(job, calls, partial(_equal_labels, lengths))
        bench.floor(job, nbytes + 8 * num_classes * sum(lengths))


def _equal_detections(mine: Segments, theirs: Segments, who: str) -> str:
    if not (np.array_equal(mine.labels, theirs.labels) and np.array_equal(mine.offsets, theirs.offsets)):
        raise common.Disagreement(f"{who}: other rows, {len(theirs)} instead of {len(mine)}")
    common.require_equal_values(mine.segments, theirs.segments, who, 1e-6)
    common.require_equal_values(mine.scores, theirs.scores, who, 1e-6)
    return f"{len(mine)} detections equal within 1e-06"


def _equal_labels(lengths: Sequence[int], mine: Sequence[np.ndarray], theirs: Any, who: str) -> str:
    rows = [np.asarray(one.cpu())[:length] for one, length in zip(theirs, lengths)]
    return common.require_equal_values(np.concatenate(mine), np.concatenate(rows), who, 1e-6)


# ----------------------------------------------------------------------------------------------------------------- rows


def _rows(
    bench: _Bench, where: str, segments: np.ndarray, scores: np.ndarray, idxs: np.ndarray | None, size: int
) -> None:
    rows, values = bench.put(segments), bench.put(scores)
    groups = None if idxs is None else bench.put(idxs)
    job = f"NMS {where}"
    calls: dict[str, Call] = {CORE: lambda: nms(segments, scores, tiou_threshold=THRESHOLD, idxs=idxs)}
    calls |= bench.on_backends(lambda: bench.tpt.nms(rows, values, tiou_threshold=THRESHOLD, idxs=groups))
    calls["torchvision"] = partial(_torchvision, bench, rows, values, groups)
    if groups is None:
        calls["torch loop"] = partial(_torch_loop, bench, rows, values)
    bench.judge(job, calls, _equal_rows, size)
    bench.floor(job, segments.nbytes + scores.nbytes + 8 * len(calls[CORE]()), size)

    job = f"soft-NMS {where}"
    calls = {CORE: lambda: soft_nms(segments, scores, sigma=SIGMA, idxs=idxs)}
    calls |= bench.on_backends(lambda: bench.tpt.soft_nms(rows, values, sigma=SIGMA, idxs=groups))
    bench.judge(job, calls, _equal_decayed, size)
    bench.floor(job, segments.nbytes + 3 * scores.nbytes, size)


def _equal_rows(mine: np.ndarray, theirs: Any, who: str) -> str:
    if not np.array_equal(mine, np.asarray(theirs.cpu())):
        raise common.Disagreement(f"{who}: {len(theirs)} other rows than the {len(mine)} that are kept")
    return f"{len(mine)} rows kept by both"


def _equal_decayed(mine: Sequence[np.ndarray], theirs: Sequence[Any], who: str) -> str:
    return common.require_equal_values(mine[1], np.asarray(theirs[1].cpu()), who, 1e-9)


def _torchvision(bench: _Bench, segments: Any, scores: Any, groups: Any) -> Any:
    """Boxes of height 1; groups by its own `batched_nms`."""
    ops = bench_segments._package("torchvision.ops", "torchvision")
    zeros = bench.torch.zeros_like(scores)
    boxes = bench.torch.stack((segments[:, 0], zeros, segments[:, 1], zeros + 1), 1)
    return ops.nms(boxes, scores, THRESHOLD) if groups is None else ops.batched_nms(boxes, scores, groups, THRESHOLD)


def _torch_loop(bench: _Bench, segments: Any, scores: Any) -> Any:
    """One pick at a time, each with its overlaps with all rows left."""
    starts, ends = segments.unbind(1)
    left, keep = scores.argsort(descending=True), []
    while len(left):
        pick, left = left[0], left[1:]
        keep.append(pick)
        overlaps = bench_segments._torch_overlaps(bench.torch, starts, ends, pick, left)
        left = left[overlaps <= THRESHOLD]
    return bench.torch.stack(keep)
