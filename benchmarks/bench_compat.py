"""Functions of published codebases under their own names and signatures, against literal transcriptions of them."""

from __future__ import annotations

import importlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tal_postproc import PostProcessor, Segments, synthetic
from tal_postproc._kernels import kernel
from tal_postproc.formats import to_dataframe
from tests.oracles import compat_attention as literal_attention
from tests.oracles import compat_basnet as literal_basnet
from tests.oracles import compat_leonhlj as literal_leonhlj
from tests.oracles import compat_supervised as literal_supervised
from tests.oracles import evaluation as literal_evaluation

from . import common
from .bench_segments import _dead_mask_loop, _torch
from .common import Report, Row, Unavailable

NAME = "compat"
TIOUS = np.linspace(0.1, 0.7, 7)
QUICK: dict[str, Any] = {"most": 30, "repeats": 2, "slow_repeats": 1}


@dataclass(frozen=True)
class Case:
    """One function of one codebase: both callables take what `make(size)` returns, and must give the same."""

    codebase: str  # as the codebase calls itself
    function: str  # the original's name
    counts: str  # what `size` counts
    size: int
    make: Callable[[int], tuple[Any, ...]]
    published: Callable[..., Any]  # the literal oracle, in the original's signature
    ours: Callable[..., Any]
    tolerance: float = 1e-6
    who: str = "literal Python"  # what `published` is


# ---------------------------------------------------------------------------------------------------------------- cases
# A function for every codebase, named after its file in `tal_postproc.compat`.  It imports within, because a codebase
# may need torch or pandas, and raises `Unavailable` where they are not here.


def _need(module: str, package: str | None = None) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(f"not installed (pip install {package or module})") from error


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []  # annotation folders; they go with the process


def _thumos_set(count: int) -> tuple[list[np.ndarray], list[np.ndarray], list[int], str]:
    """Video scores, maps, lengths and annotation folder of THUMOS14-like test videos."""
    data = synthetic.make_videos(count, seed=0)
    truth = data.ground_truth
    used = np.unique(truth.labels)
    names = np.array(data.classes, "S")[used]
    arrays = {
        "segments": [one.segments.tolist() for one in truth.split()],
        "labels": [[data.classes[c] for c in one.labels] for one in truth.split()],
    }
    _FOLDERS.append(tempfile.TemporaryDirectory())
    folder = Path(_FOLDERS[-1].name)
    for stem, lists in arrays.items():
        column = np.empty(count, object)
        column[:] = lists
        np.save(folder / f"{stem}.npy", column)
    np.save(folder / "classlist.npy", names)
    np.save(folder / "videoname.npy", np.array([video.id for video in data], "S"))
    np.save(folder / "subset.npy", np.full(count, b"test"))
    (folder / "Ambiguous_test.txt").write_text(f"{data[0].id}  1.0 2.0\n")
    scores = [video.scores["video"][used] for video in data]
    maps = [video.maps["cas"][:, used].astype(np.float64) for video in data]
    return scores, maps, [len(one) for one in maps], str(folder)


def _thumos_options(start: float, end: float, step: float, class_threshold: float) -> SimpleNamespace:
    return SimpleNamespace(
        feature_type="I3D",
        class_threshold=class_threshold,
        start_threshold=start,
        end_threshold=end,
        threshold_interval=step,
        use_new_predictor=True,
        eval_temperature=0.2,
    )


def _proposals(count: int) -> np.ndarray:
    """Rows [video, start, end, score, inner] of one class: nested and repeated, as many thresholds find them."""
    rng = np.random.default_rng(0)
    start = rng.integers(0, 2000, count)
    end = start + rng.integers(2, 60, count)
    return np.column_stack([np.zeros(count), start, end, rng.random(count), rng.random(count)])


def rskp() -> Sequence[Case]:
    from tal_postproc.compat import rskp as ours

    args = _thumos_options(0.001, 0.04, 0.002, 0.1)
    return (
        Case(
            "RSKP",
            "NonMaximumSuppression",
            "proposals",
            1000,
            lambda size: (_proposals(size)[:, :4], 0.5),
            literal_leonhlj.nms,
            ours.NonMaximumSuppression,
        ),
        Case(
            "RSKP",
            "getDetectionMAP",
            "videos",
            50,
            lambda size: (*_thumos_set(size), args),
            partial(literal_leonhlj.get_detection_map, "rskp"),
            ours.getDetectionMAP,
        ),
    )


def facnet() -> Sequence[Case]:
    from tal_postproc.compat import facnet as ours

    args = _thumos_options(0.03, 0.055, 0.005, 0.1)
    return (
        Case(
            "FAC-Net",
            "getSingleStreamDetectionMAP",
            "videos",
            50,
            lambda size: (*_thumos_set(size), args),
            partial(literal_leonhlj.get_detection_map, "facnet"),
            ours.getSingleStreamDetectionMAP,
        ),
    )


def gaufuse() -> Sequence[Case]:
    from tal_postproc.compat import gaufuse as ours

    args = _thumos_options(0.001, 0.04, 0.002, 0.16)
    return (
        Case(
            "GauFuse",
            "prediction_fuse_module",
            "proposals",
            1000,
            lambda size: (_proposals(size)[:, 1:], 0.25),
            lambda segs, overlap: literal_leonhlj.fuse(segs, overlap, 0.1),
            ours.prediction_fuse_module,
        ),
        Case(
            "GauFuse",
            "getDetectionMAP",
            "videos",
            50,
            lambda size: (*_thumos_set(size), args),
            partial(literal_leonhlj.get_detection_map, "gaufuse"),
            ours.getDetectionMAP,
        ),
    )


def wtalc() -> Sequence[Case]:
    from tal_postproc.compat import wtalc as ours

    def given(size: int) -> tuple[Any, ...]:
        _, maps, _, folder = _thumos_set(size)
        return maps, folder, _thumos_options(0, 1, 1, 0)

    return (
        Case(
            "W-TALC",
            "getDetectionMAP",
            "videos",
            50,
            given,
            literal_leonhlj.wtalc_detection_map,
            ours.getDetectionMAP,
        ),
    )


# ------------------------------------------------------------------------------------------ fully supervised codebases


@kernel
def _soft_1d(segments, scores, sigma, min_score):  # type: ignore[no-untyped-def]
    """The compiled soft-NMS of ActionFormer: the best goes to the front, what falls below the floor to the back."""
    row, start, end, score = np.arange(len(scores)), segments[:, 0].copy(), segments[:, 1].copy(), scores.copy()
    n, i = len(scores), 0
    while i < n:
        best = i
        for j in range(i + 1, n):
            if score[j] > score[best]:
                best = j
        for column in (start, end, score):
            column[i], column[best] = column[best], column[i]
        row[i], row[best] = row[best], row[i]
        length = end[i] - start[i] + 1e-6
        j = i + 1
        while j < n:
            inter = max(0.0, min(end[i], end[j]) - max(start[i], start[j]))
            overlap = inter / (length + end[j] - start[j] + 1e-6 - inter)
            score[j] *= np.exp(-overlap * overlap / sigma)
            if score[j] < min_score:
                n -= 1
                row[j], start[j], end[j], score[j] = row[n], start[n], end[n], score[n]
                j -= 1
            j += 1
        i += 1
    return row[:n], score[:n]


def _loops_nms(segs: Any, scores: Any, iou_threshold: float) -> Any:
    torch = _torch()
    order = torch.sort(scores, descending=True).indices.numpy()
    return torch.from_numpy(_dead_mask_loop(segs.double().numpy(), order, iou_threshold))


def _loops_batched_nms(
    segs: Any,
    scores: Any,
    cls_idxs: Any,
    iou_threshold: float,
    min_score: float,
    max_seg_num: int,
    use_soft_nms: bool,
    multiclass: bool,
    sigma: float,
    voting_thresh: float,
) -> Any:
    """ActionFormer's ``batched_nms`` with soft-NMS: tensors, a compiled loop for every class, dense voting."""
    torch = _torch()
    groups = torch.unique(cls_idxs) if multiclass else [None]
    found = []
    for group in groups:
        own = torch.arange(len(segs)) if group is None else torch.where(cls_idxs == group)[0]
        row, new_scores = _soft_1d(segs[own].double().numpy(), scores[own].double().numpy(), sigma, min_score)
        keep = own[torch.from_numpy(row)][:max_seg_num]
        found.append((segs[keep], torch.from_numpy(new_scores[:max_seg_num]).float(), cls_idxs[keep]))
    new_segs, new_scores, labels = (torch.cat(parts) for parts in zip(*found))
    if not multiclass and voting_thresh > 0:
        new_segs = literal_supervised.seg_voting_dense(new_segs, segs, scores, voting_thresh)
    order = new_scores.sort(descending=True).indices[:max_seg_num]
    return new_segs[order], new_scores[order], labels[order]


def _points(count: int, span: float = 2304.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What an anchor-free network finds: several segments around each of count / 10 instances, of 20 classes."""
    rng = np.random.default_rng(0)
    home = rng.integers(0, max(count // 10, 1), count)
    start, length, label = rng.uniform(0, span, count)[home], 20 * rng.lognormal(0, 0.7, count)[home], home % 20
    segments = np.sort(start[:, None] + length[:, None] * (np.array([0, 1]) + 0.15 * rng.standard_normal((count, 2))))
    return segments, rng.permutation(count) / count + 0.5 / count, label


def _point_tensors(count: int) -> tuple[Any, Any, Any]:
    torch = _torch()
    segments, scores, labels = _points(count)
    return torch.tensor(segments).float(), torch.tensor(scores).float(), torch.tensor(labels)


def _unit_rows(count: int) -> np.ndarray:
    """Rows start, end, score in fractions of the video."""
    segments, scores, _ = _points(count, 100.0)
    return np.column_stack(((segments - segments.min()) / np.ptp(segments), scores))


def actionformer() -> Sequence[Case]:
    _torch()
    from tal_postproc.compat import actionformer as ours

    def together(*options: Any) -> Callable[[int], tuple[Any, ...]]:
        return lambda size: (*_point_tensors(size), *options)

    compiled: dict[str, Any] = {"who": "compiled loop, as the C++", "tolerance": 2e-3}  # float32 at 2,000 points
    batched = _loops_batched_nms, ours.batched_nms
    thumos, activitynet = (0.1, 0.001, 2000, True, True, 0.5, 0.7), (0.1, 0.001, 100, True, False, 0.75, 0.9)
    return (
        Case(
            "ActionFormer",
            "nms_1d_cpu.nms",
            "segments",
            5000,
            lambda size: (*_point_tensors(size)[:2], 0.5),
            _loops_nms,
            ours.nms_1d_cpu.nms,
            **compiled,
        ),
        Case("ActionFormer", "batched_nms (THUMOS14)", "segments", 10_000, together(*thumos), *batched, **compiled),
        Case(
            "ActionFormer", "batched_nms (ActivityNet)", "segments", 2000, together(*activitynet), *batched, **compiled
        ),
        Case(
            "ActionFormer",
            "seg_voting",
            "segments",
            5000,
            lambda size: (_point_tensors(size)[0][:200], *_point_tensors(size)[:2], 0.7),
            literal_supervised.seg_voting_dense,
            ours.seg_voting,
            who="dense tensors",
            tolerance=2e-3,
        ),
    )


def opentad() -> Sequence[Case]:
    _torch()
    from tal_postproc.compat import opentad as ours

    options = 0.0, 0.001, 100, True, False, 0.5, 0.0, 3, 0.5, 0.4
    return (
        Case(
            "OpenTAD",
            "batched_nms (method 3)",
            "segments",
            300,
            lambda size: (_point_tensors(size)[0] / 2500, *_point_tensors(size)[1:], *options),
            literal_supervised.batched_nms_tensors,
            ours.batched_nms,
        ),
    )


def mmaction() -> Sequence[Case]:
    from tal_postproc.compat import mmaction as ours

    info = {"duration_frame": 3011, "duration_second": 120.7}
    bmn = 0.4, 0.5, 0.9, 100
    return (
        Case(
            "mmaction2",
            "soft_nms (BMN)",
            "proposals",
            1000,
            lambda size: (_unit_rows(size), *bmn),
            literal_supervised.mmaction_soft_nms,
            ours.soft_nms,
        ),
        Case(
            "mmaction2",
            "post_processing (BMN)",
            "proposals",
            1000,
            lambda size: (_unit_rows(size), info, *bmn, 16),
            literal_supervised.mmaction_post_processing,
            ours.post_processing,
        ),
    )


def afsd() -> Sequence[Case]:
    torch = _torch()
    from tal_postproc.compat import afsd as ours

    return (
        Case(
            "AFSD",
            "softnms_v2",
            "segments",
            1000,
            lambda size: (torch.tensor(_unit_rows(size)).float(),),
            literal_supervised.afsd_softnms_v2_tensors,
            ours.softnms_v2,
            who="torch loop",
        ),
    )


def bsn() -> Sequence[Case]:
    pandas = _need("pandas")
    from tal_postproc.compat import bsn as ours

    return (
        Case(
            "BSN",
            "Soft_NMS",
            "proposals",
            1000,
            lambda size: (pandas.DataFrame(_unit_rows(size), columns=["xmin", "xmax", "score"]),),
            literal_supervised.bsn_soft_nms,
            ours.Soft_NMS,
        ),
    )


def torchvision() -> Sequence[Case]:
    torch, ops = _torch(), _need("torchvision.ops", "torchvision")
    from tal_postproc.compat import torchvision as ours

    def boxes(segments: Any, scores: Any, idxs: Any, iou_threshold: float) -> Any:
        zeros = torch.zeros(len(segments))
        rows = torch.stack((segments[:, 0], zeros, segments[:, 1], zeros + 1), 1)
        return ops.batched_nms(rows, scores, idxs, iou_threshold)

    return (
        Case(
            "torchvision",
            "batched_nms",
            "segments",
            5000,
            lambda size: (*_point_tensors(size), 0.5),
            boxes,
            ours.batched_nms,
            who="torchvision, boxes of height 1",
        ),
    )


def ensemble_boxes() -> Sequence[Case]:
    package = _need("ensemble_boxes", "ensemble-boxes")
    from tal_postproc.compat import ensemble_boxes as ours

    def make(size: int) -> tuple[Any, ...]:
        rows = _unit_rows(size)
        return tuple(
            [column[m::3].tolist() for m in range(3)] for column in (rows[:, :2], rows[:, 2], np.arange(size) % 2)
        )

    return (
        Case(
            "ensemble-boxes",
            "weighted_boxes_fusion_1d",
            "segments of 3 models",
            1500,
            make,
            package.weighted_boxes_fusion_1d,
            ours.weighted_boxes_fusion_1d,
            who="ensemble-boxes",
        ),
    )


# ---- ASM-Loc, HAM-Net, CO2-Net, DELU, P-MIL, and the official evaluator
def _attended(length: int) -> tuple[np.ndarray, np.ndarray]:
    """(1, T, 21) logits and (1, T, 1) attention: synthetic videos end to end, background last."""
    parts = [synthetic.make_videos(1, seed=seed)[0].maps for seed in range(-(-length // 300))]
    logits = np.concatenate([part["logits"] for part in parts])[:length]
    attention = np.concatenate([part["attention"] for part in parts])[:length]
    return np.pad(logits, ((0, 0), (0, 1)))[None], attention[None, :, None]


def _scored_rows(count: int) -> list[list[float]]:
    """Rows [class, score, start, end]."""
    return _proposals(count)[:, [0, 3, 1, 2]].tolist()


def _literal_hamnet(name: Any, outputs: dict[str, Any], thresholds: np.ndarray) -> Any:
    pandas = _need("pandas")
    cas, attention = outputs["cas"][0], outputs["attn"][0, :, 0]
    rows = literal_attention.chain(cas, attention, thresholds, suppress=literal_attention.soft_nms_arrays)
    table = np.reshape(rows, (-1, 4))[:, [2, 3, 0, 1]]
    frame = pandas.DataFrame(table, columns=["t-start", "t-end", "label", "score"])
    return frame.assign(**{"video-id": name.decode()})


def _given_attended(length: int) -> tuple[Any, ...]:
    cas, attention = _attended(length)
    return b"v", {"cas": cas, "attn": attention}


def hamnet() -> Sequence[Case]:
    from tal_postproc.compat import hamnet as ours

    slow = literal_attention.soft_nms_arrays
    return (Case("HAM-Net", "soft_nms", "proposals", 1000, lambda n: (_scored_rows(n),), slow, ours.soft_nms),)


def co2net() -> Sequence[Case]:
    _need("pandas")
    from tal_postproc.compat import co2net as ours

    slow = partial(_literal_hamnet, thresholds=np.linspace(0.1, 0.9, 10))
    name = "multiple_threshold_hamnet"
    return (Case("CO2-Net", name, "snippets", 900, _given_attended, slow, ours.multiple_threshold_hamnet),)


def delu() -> Sequence[Case]:
    _need("pandas")
    from tal_postproc.compat import delu as ours

    slow = partial(_literal_hamnet, thresholds=np.linspace(0.1, 0.9, 20))
    name = "multiple_threshold_hamnet"
    return (Case("DELU", name, "snippets", 900, _given_attended, slow, ours.multiple_threshold_hamnet),)


def pmil() -> Sequence[Case]:
    from tal_postproc.compat import pmil as ours

    def given(count: int) -> tuple[Any, ...]:
        return _proposals(count)[:, 1:3], _proposals(count)[:, 3], 0.2

    def slow(proposals: np.ndarray, attention: np.ndarray, gamma: float) -> np.ndarray:
        return proposals[literal_attention.pseudo_instances_arrays(proposals, attention, gamma)]

    return (Case("P-MIL", "the loop of prop_comp_loss", "proposals", 1000, given, slow, ours.pseudo_instances),)


def asmloc() -> Sequence[Case]:
    from tal_postproc.compat import asmloc as ours

    def given(length: int) -> tuple[Any, ...]:
        cas, _ = _attended(length)
        steps = ours.upgrade_resolution(cas[0, :, :5, None], 20)
        found = [np.where(steps[:, c] >= 0.2) for c in range(5)]
        return found, steps, np.arange(5), np.full(5, 0.5), 0.032, 0.2, 0.0

    def slow(found: Any, steps: Any, c_pred: Any, scores: Any, t_factor: float, lamb: float, gamma: float) -> Any:
        return literal_attention.proposals(found, steps, scores, c_pred, t_factor, lamb, gamma, min_length=2)

    return (Case("ASM-Loc", "get_proposal_oic", "snippets", 900, given, slow, ours.get_proposal_oic),)


def anet() -> Sequence[Case]:
    _need("pandas")
    from tal_postproc.compat import anet as ours

    def given(count: int) -> tuple[Any, ...]:
        data = synthetic.make_videos(count, seed=0)
        parts = list(PostProcessor.from_preset("rskp").process(data.videos))
        found = Segments.concatenate(parts).to_seconds(0.64)
        columns = {"video-id": "video", "t-start": "start", "t-end": "end"}
        return *(to_dataframe(rows).rename(columns=columns) for rows in (found, data.ground_truth)), TIOUS

    def slow(found: Any, truth: Any, thresholds: np.ndarray) -> np.ndarray:
        return np.transpose(list(literal_evaluation.activitynet_pandas(found, truth, thresholds).values()))

    def fast(found: Any, truth: Any, thresholds: np.ndarray) -> np.ndarray:
        evaluator = ours.ANETdetection.__new__(ours.ANETdetection)  # the tables are there: nothing to read
        names = {"video": "video-id", "start": "t-start", "end": "t-end"}
        evaluator.prediction, evaluator.ground_truth = found.rename(columns=names), truth.rename(columns=names)
        evaluator.activity_index = {label: label for label in sorted(set(truth["label"].tolist()))}
        evaluator.tiou_thresholds = thresholds
        return evaluator.wrapper_compute_average_precision()

    name = "wrapper_compute_average_precision"
    return (Case("ActivityNet", name, "videos", 12, given, slow, fast, who="pandas, one process"),)


def _activation(length: int, width: int, seed: int) -> np.ndarray:
    """(1, T, C) in [0, 1] with bumps of many lengths."""
    steps = np.random.default_rng(seed).normal(size=(length, width)).cumsum(axis=0)
    return ((steps - steps.min(axis=0)) / np.maximum(np.ptp(steps, axis=0), 1e-9))[None]


def _scores_of_video(width: int) -> np.ndarray:
    """(1, C) of which two classes are searched."""
    return np.where(np.isin(np.arange(width), (4, 7)), 0.9, 0.01)[None]


def _class_rows(count: int) -> list[list[float]]:
    """Rows [class, score, start, end] of one class, in seconds: as the loops of the BaS-Net family collect them."""
    rows = _proposals(count)[:, 1:4] / (10, 10, 1)
    return np.column_stack([np.zeros(count), rows[:, 2], rows[:, :2]]).tolist()


_BASNET = {
    "act_thresh": np.arange(0, 0.25, 0.025),
    "act_thresh_cas": np.arange(0, 0.25, 0.025),
    "act_thresh_magnitudes": np.arange(0.4, 0.625, 0.025),
    "act_thresh_agnostic": np.arange(0.5, 0.725, 0.025),
    "CAS_THRESH": np.arange(0, 0.25, 0.025),
    "ANESS_THRESH": np.arange(0.1, 0.925, 0.025),
    "class_thresh": 0.25,
    "CLASS_THRESH": 0.25,
    "scale": 24,
    "UP_SCALE": 24,
    "feature_fps": 25,
    "FEATS_FPS": 25,
    "NMS_THRESH": 0.6,
}


def _as_published(function: Callable[..., Any], other: str, **more: Any) -> Callable[..., Any]:
    """The literal loop over one video, with a config of its own."""
    config = SimpleNamespace(
        cas=_BASNET["act_thresh"], other=_BASNET.get(other), nms=0.6, scale=24, fps=25, class_thresh=0.25, **more
    )
    return lambda *given: function(*given[:-1], config)


def basnet() -> Sequence[Case]:
    from tal_postproc.compat import basnet as ours

    def steps(size: int) -> tuple[Any, ...]:
        maps = ours.upgrade_resolution(_activation(size, 2, 0)[0][:, :, None], 24)
        maps[maps < 0.2] = 0
        where = [np.where(maps[:, c, 0] > 0) for c in range(2)]
        return where, maps, np.ones(20), np.array([4, 7]), 24, 2 * size, 25, size

    def video(size: int) -> tuple[Any, ...]:
        return _scores_of_video(21), _activation(size, 20, 1), 2 * size, SimpleNamespace(**_BASNET)

    return (
        Case(
            "BaS-Net",
            "get_proposal_oic",
            "snippets",
            750,
            steps,
            partial(literal_basnet.get_proposal_oic, always=True),
            ours.get_proposal_oic,
        ),
        Case("BaS-Net", "nms", "rows", 927, lambda size: (_class_rows(size), 0.7), literal_basnet.nms, ours.nms),
        Case(
            "BaS-Net",
            "test (one video)",
            "snippets",
            750,
            video,
            _as_published(literal_basnet.basnet, ""),
            ours.detect,
        ),
    )


def um() -> Sequence[Case]:
    from tal_postproc.compat import um as ours

    def video(size: int) -> tuple[Any, ...]:
        maps = _activation(size, 20, 1), _activation(size, 20, 2)
        return _scores_of_video(20), *maps, 2 * size, SimpleNamespace(**_BASNET)

    published = _as_published(literal_basnet.um, "act_thresh_magnitudes")
    return (Case("UM", "test (one video)", "snippets", 750, video, published, ours.detect),)


def lacp() -> Sequence[Case]:
    torch = _torch()
    from tal_postproc.compat import lacp as ours

    def video(size: int) -> tuple[Any, ...]:
        return _scores_of_video(20), _activation(size, 21, 1), 2 * size, SimpleNamespace(**_BASNET)

    def points(size: int) -> tuple[Any, ...]:
        background = torch.tensor(_activation(size, 21, 1))
        points = torch.zeros(1, size, 20)
        points[0, 20::50, 3] = 1
        return background, points

    def seeds(cas: Any, points: Any) -> Any:
        act, bkg = literal_basnet.select_seed(cas[:, :, -1].numpy(), points.numpy())
        return torch.tensor(act), torch.tensor(bkg)

    published = _as_published(literal_basnet.lacp, "act_thresh_agnostic")
    return (
        Case("LACP", "test (one video)", "snippets", 750, video, published, ours.detect),
        Case("LACP", "select_seed", "snippets", 750, points, seeds, ours.select_seed),
    )


def cola() -> Sequence[Case]:
    from tal_postproc.compat import cola as ours

    def pair(size: int) -> tuple[Any, ...]:
        maps = (ours.upgrade_resolution(_activation(size, 2, seed)[0][:, :, None], 24) for seed in (1, 2))
        return *maps, np.array([4, 7]), _scores_of_video(20)[0], 2 * size, SimpleNamespace(**_BASNET)

    def video(size: int) -> tuple[Any, ...]:
        actionness = _activation(size, 1, 2)[:, :, 0]
        return _scores_of_video(20), actionness, _activation(size, 20, 1), 2 * size, SimpleNamespace(**_BASNET)

    return (
        Case(
            "CoLA",
            "get_proposal_dict",
            "snippets",
            750,
            pair,
            _as_published(literal_basnet.cola_dict, "ANESS_THRESH"),
            ours.get_proposal_dict,
        ),
        Case(
            "CoLA",
            "test_all (one video)",
            "snippets",
            750,
            video,
            _as_published(literal_basnet.cola, "ANESS_THRESH"),
            ours.detect,
        ),
    )


def asl() -> Sequence[Case]:
    from tal_postproc.compat import asl as ours

    return (
        Case(
            "ASL",
            "basnet_nms",
            "rows",
            927,
            lambda size: (_class_rows(size), 0.4, True, 0.35),
            literal_basnet.nms,
            ours.basnet_nms,
        ),
    )


def stpn() -> Sequence[Case]:
    from tal_postproc.compat import stpn as ours

    def video(size: int) -> tuple[Any, ...]:
        maps = (12 * _activation(size, 20, seed)[0] - 9 for seed in (1, 2))
        attention = (_activation(size, 1, seed)[0] for seed in (3, 4))
        return *maps, *attention, _scores_of_video(20), _scores_of_video(20), 2 * size

    return (Case("STPN", "test (one video)", "snippets", 400, video, literal_basnet.stpn, ours.detect),)


def cmcs() -> Sequence[Case]:
    from tal_postproc.compat import cmcs as ours

    how: dict[str, Any] = {
        "global_score_thrh": 0.1,
        "metric_type": "score",
        "thrh_type": "mean",
        "thrh_value": 1.0,
        "interpolate_type": "linear",
        "proc_type": "dilation",
        "proc_value": 20,
        "sample_offset": 0,
        "weight_inner": 1.0,
        "weight_outter": -1.0,
        "weight_global": 0.25,
    }

    def video(size: int) -> tuple[Any, ...]:
        return 12 * _activation(size, 20, 1)[0], 5 * _scores_of_video(20)[0], size

    def published(scores: np.ndarray, totals: np.ndarray, size: int) -> Any:
        return literal_basnet.cmcs(scores, None, totals, 1e9, 25, 16 * size, 20, ("i3d", 16, 16), how)

    def called(scores: np.ndarray, totals: np.ndarray, size: int) -> Any:
        clip: dict[str, Any] = {"duration": 1e9, "fps": 25, "frame_cnt": 16 * size, "action_class_num": 20}
        clip |= {"feature_type": "i3d", "sample_rate": 16, "base_snippet_size": 16}
        return ours.detect(scores, None, totals, **clip, **how)

    return (Case("CMCS", "detect (one video)", "snippets", 750, video, published, called),)


FAMILIES: tuple[Callable[[], Sequence[Case]], ...] = (
    rskp,
    facnet,
    gaufuse,
    wtalc,
    actionformer,
    opentad,
    mmaction,
    afsd,
    bsn,
    torchvision,
    ensemble_boxes,
    hamnet,
    co2net,
    delu,
    pmil,
    asmloc,
    anet,
    basnet,
    um,
    lacp,
    cola,
    asl,
    stpn,
    cmcs,
)


# ------------------------------------------------------------------------------------------------------------ agreement


def flat(value: Any) -> list[np.ndarray]:
    """The arrays within what a function returned: tensors, frames, lists and dictionaries taken apart, in order."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if hasattr(value, "columns"):
        return [part for name in sorted(value.columns) for part in flat(value[name].to_numpy())]
    if isinstance(value, Mapping):
        return [part for key in sorted(value) for part in flat(value[key])]
    if isinstance(value, (list, tuple)):
        try:
            return [np.asarray(value, dtype=np.float64)]
        except (ValueError, TypeError):  # ragged, or with names
            return [part for one in value for part in flat(one)]
    array = np.asarray(value)
    if array.dtype.kind in "USO":  # names are compared as numbers in the order of the alphabet
        array = np.unique(array.astype(str), return_inverse=True)[1]
    return [array.astype(np.float64)]


def agree(ours: Any, theirs: Any, who: str, tolerance: float) -> str:
    """Same type, same structure, same numbers; how many were compared, in words."""
    if type(ours) is not type(theirs):
        raise common.Disagreement(f"{who}: {type(theirs).__name__} instead of {type(ours).__name__}")
    mine, other = flat(ours), flat(theirs)
    if [part.shape for part in mine] != [part.shape for part in other]:
        raise common.Disagreement(f"{who}: {[p.shape for p in other]} instead of {[p.shape for p in mine]}")
    both = (np.concatenate([np.empty(0), *(part.ravel() for part in parts)]) for parts in (mine, other))
    return common.require_equal_values(*both, who, tolerance)


# ------------------------------------------------------------------------------------------------------------------ run


def run(
    *,
    clones: Mapping[str, Path] | None = None,
    only: str = "",
    most: int | None = None,
    repeats: int = 11,
    slow_repeats: int = 3,
) -> Report:
    """`only` is a codebase's file, to run its cases alone; `most` bounds the sizes."""
    report = Report(NAME, "Drop-in functions: the same call, the same result", {})
    for family in FAMILIES:
        if only not in ("", family.__name__):
            continue
        try:
            cases = family()
        except Unavailable as reason:
            report.skipped[family.__name__] = str(reason)
            continue
        for case in cases:
            report.rows += _measure(case, case.size if most is None else min(case.size, most), repeats, slow_repeats)
    report.notes += [
        "CPU time of all threads, which says the same on a busy machine; functions that use all cores gain more by the "
        "clock.",
        "Whole calls in the original's signature, conversions of tensors, frames and lists included. Both sides return "
        "the same type and the same numbers, or the run stops.",
        "Literal Python is written from a description of the published code, in its data structures, and is what the "
        "tests compare with. A compiled loop stands for what is C++ in the original.",
    ]
    return report


def _measure(case: Case, size: int, repeats: int, slow_repeats: int) -> list[Row]:
    given = case.make(size)
    job = f"{case.codebase} `{case.function}`, {size:,} {case.counts}"
    calls = {"ours": partial(case.ours, *given), case.who: partial(case.published, *given)}
    mine, theirs = calls["ours"](), calls[case.who]()
    agreement = agree(mine, theirs, job, case.tolerance)
    seconds = common.time_together(calls, {"ours": repeats, case.who: slow_repeats}, time.process_time)
    times = {who: common.ratio(values, seconds["ours"]) for who, values in seconds.items()}
    return [
        Row(job, who, values, ratio=times[who], agreement="" if who == "ours" else agreement)
        for who, values in seconds.items()
    ]


if __name__ == "__main__":
    from .__main__ import main

    main([NAME])
