"""`PostProcessor` for batches of tensors: TCAMs on a device in, detections or pseudo labels out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import _checks, _stages, pipeline
from .._checks import Float, Int
from .._signals import Searched, about, map_name, outer_mix
from ..config import (
    Bank,
    Classes,
    Expand,
    Fuse,
    Keep,
    LinPro,
    Margin,
    Nms,
    Overlap,
    Pipeline,
    Round,
    Seconds,
    Signal,
    SoftNms,
    Stage,
    TopKMean,
    Vote,
)
from ..proposals import _INNERS, _LAYOUTS
from ..types import Segments as CoreSegments
from ..types import Video
from . import _batched, _sequences
from ._bridge import has_triton, result_kind, works_on
from ._ragged import LINEAR, buckets, chunks, group_offsets, offsets_of, padded, score_order
from .linpro import Background, LabelReport, label_maps
from .types import Segments, as_array

__all__ = ["PostProcessor"]

Maps = Tensor | Sequence[Tensor]
Rows: Any = _stages.Rows  # with tensors where the core has arrays


class PostProcessor:
    """A post-processing chain for batches of tensors; see `tal_postproc.PostProcessor`.

    TCAMs on the CPU go to the NumPy core, those on another device are worked on there, all videos at once; see
    `backend`.

    Parameters
    ----------
    pipeline : config.Pipeline
        From `presets.get`, or your own.

    Examples
    --------
    >>> tcam = torch.tensor([[0.0, 0.1], [0.9, 0.1], [0.8, 0.1], [0.9, 0.1], [0.0, 0.1], [0.0, 0.1]])
    >>> process = PostProcessor.from_preset("rskp")
    >>> found = process(torch.stack([tcam, tcam]), torch.tensor([[0.9, 0.05]]).expand(2, 2), lengths=[6, 4])
    >>> found.segments.tolist(), found.offsets.tolist()
    ([[1.0, 5.0], [1.0, 5.0]], [0, 1, 2])
    """

    def __init__(self, pipeline_: Pipeline) -> None:
        self._core = pipeline.PostProcessor(pipeline_)
        self.pipeline = pipeline_

    @classmethod
    def from_preset(cls, name: str, **changes: Any) -> PostProcessor:
        """The preset of that name, with some fields of its `Pipeline` exchanged."""
        return cls(pipeline.PostProcessor.from_preset(name, **changes).pipeline)

    def __repr__(self) -> str:
        return repr(self._core)

    def __call__(
        self,
        tcam: Maps | None = None,
        video_scores: Tensor | None = None,
        *,
        lengths: Any = None,
        maps: Mapping[str, Maps] | None = None,
        attention: Maps | None = None,
        seconds_per_snippet: Any = None,
        duration: Any = None,
        warp: Any = None,
        video_ids: Sequence[str] = (),
        proposals: Segments | None = None,
        on_device: bool = False,
    ) -> Any:
        """Detections of a batch of videos.

        Parameters
        ----------
        tcam : (B, T, K) tensor, or B tensors (T_i, K), optional
            The one map that the pipeline reads besides the attention, as for `tal_postproc.PostProcessor`.  (T, K) is
            one video, whose other arguments then have no batch dimension either.
        video_scores : (B, K) tensor, optional
        lengths : (B,) tensor or list of int, optional
            Snippets of every video; what lies beyond is not looked at.  Default: all T.
        maps : mapping of str to (B, T) or (B, T, K) tensors, or lists of B tensors, optional
            More maps by name, or all of them in place of `tcam`.
        attention : (B, T) tensor, or B tensors (T_i,), optional
        seconds_per_snippet, duration : float, or B of them, optional
            NaN where one is not known.
        warp : B pairs of (M,) array_like or None, optional
            See `tal_postproc.Video`.
        video_ids : sequence of B str, optional
        proposals : Segments of B videos, optional
            For pipelines that only suppress.
        on_device : bool, default False
            Leave the detections on the device.

        Returns
        -------
        tal_postproc.Segments of B videos
            As the videos have them one by one, in float64; one transfer brings them to the CPU.  With `on_device` the
            `tal_postproc.torch.Segments` of the same rows.

        Raises
        ------
        ValueError
            As `tal_postproc.PostProcessor`; a video without an id is called by its position.
        """
        given = _Given.of(
            self._core._main_map,
            tcam,
            video_scores,
            lengths=lengths,
            maps=maps,
            attention=attention,
            seconds_per_snippet=seconds_per_snippet,
            duration=duration,
            warp=warp,
            video_ids=video_ids,
            proposals=proposals,
        )
        return self._found(given, on_device)

    def labels(
        self,
        tcam: Maps | None = None,
        video_scores: Tensor | None = None,
        *,
        num_classes: int,
        known_labels: Any = None,
        background: Background = "none",
        **given: Any,
    ) -> tuple[Tensor, LabelReport]:
        """LinPro labels of a batch of videos, made of its detections without leaving the device.

        Parameters
        ----------
        tcam, video_scores, **given
            As for a call.
        num_classes, known_labels, background
            As for `linpro_label_maps`.

        Returns
        -------
        labels : (B, T, K) tensor of float64
            0 beyond the length of a video.
        report : LabelReport
            What is proven of them, as fields of (B, K) tensors.

        Raises
        ------
        ValueError
            As a call, and if instances in seconds cannot become snippets again.

        Examples
        --------
        >>> from tal_postproc import presets
        >>> process = PostProcessor(presets.for_labels("two_stream"))
        >>> tcam = torch.tensor([[[0.0], [0.5], [0.5], [0.5], [0.0], [0.0]]])
        >>> labels, report = process.labels(tcam, torch.tensor([[0.9]]), num_classes=1)
        >>> labels[0, :, 0].round(decimals=2).tolist(), report.uncertified.tolist()
        ([0.0, 0.68, 0.68, 0.68, 0.0, 0.0], [0])
        """
        read = _Given.of(self._core._main_map, tcam, video_scores, **given)
        on = self._found(read, True)
        segments = on.segments
        if on.unit == "second":
            if any(read.warps) or np.isnan(read.steps).any():
                raise ValueError("instances in seconds need `seconds_per_snippet`, and no `warp`, to become labels")
            segments = segments / read.put(read.steps)[on.video_index][:, None]
        labels, report = label_maps(
            segments,
            on.labels,
            on.scores,
            on.offsets,
            read.put(read.lengths),
            num_classes,
            rule=self.pipeline.labels or LinPro(),
            known_labels=known_labels,
            background=background,
        )
        length = max((one.shape[1] for one in read.maps.values() if isinstance(one, Tensor)), default=0)
        beyond = max(0, length - labels.shape[1])
        return (torch.nn.functional.pad(labels, (0, 0, 0, beyond)) if beyond else labels), report

    # ------------------------------------------------------------------------------------------- a batch, step by step

    def _found(self, given: _Given, on_device: bool) -> Any:
        """Detections of a batch, by whom `backend` says."""
        if not len(given.lengths):
            seconds = any(isinstance(stage, Seconds) for stage in self.pipeline.stages)
            found = CoreSegments.empty("second" if seconds else "snippet", ())
        elif works_on(given.device) == "core":
            found = CoreSegments.concatenate(self._core.process(given.videos())).replace(video_ids=given.ids)
        else:
            on = self._detect(given)
            return on if on_device else _to_host(on)
        return Segments.from_numpy(found, given.device) if on_device else found

    def _detect(self, given: _Given) -> Segments:
        """Detections of a batch, on its device."""
        rows = self._propose(given) if given.proposals is None else _given_rows(given.proposals)
        for stage in self.pipeline.stages:
            rows = _STAGES[type(stage)](stage, rows, given)
        order, _ = score_order(rows.scores, rows.group)
        rows = rows.take(order)
        offsets = torch.searchsorted(rows.video, torch.arange(len(given.lengths) + 1, device=given.device))
        return Segments(rows.segments, rows.labels, rows.scores, offsets, rows.unit, given.ids, rows.columns)

    def _propose(self, given: _Given) -> Any:
        """Scored proposals of every bank: by video, by class, then by bank, then as the bank found them."""
        if not self.pipeline.banks:
            raise ValueError("`proposals` are needed: the pipeline has no banks that could make them")
        batch = _Batch(given, self.pipeline)
        found = [self._score_bank(number, bank, batch) for number, bank in enumerate(self.pipeline.banks)]
        batch.require_bounds()
        columns = [torch.cat(parts) for parts in zip(*found)]
        if len(found) > 1:
            order = torch.sort(columns[0], stable=True).indices
            columns = [column[order] for column in columns]
        row, segments, scores, inner, threshold, source, multiplicity = columns
        extra = {"inner": inner, "threshold": threshold, "bank": source}
        label, video = batch.label[row], batch.video[row]
        return Rows(segments, label, scores, video, row, extra, "snippet", multiplicity=multiplicity)

    def _score_bank(self, number: int, bank: Bank, batch: _Batch) -> tuple[Tensor, ...]:
        """Row, segment, score, inner score, threshold, number of the bank and multiplicity of every proposal."""
        own = batch.signal(bank.signal, bank.upsample)
        once = 0 if bank.score.zero_below else self._core._listing
        runs, threshold = _runs_above(own.values, own.offsets, bank, self._core._thresholds[number], once)
        run_row, _, start, stop, multiplicity = runs
        row = run_row
        if own.shared:  # a (T,) map: the same runs for every class of a video
            first = torch.searchsorted(run_row, own.row)
            counts = torch.searchsorted(run_row, own.row, right=True) - first
            row = torch.repeat_interleave(counts)
            which = torch.arange(len(row), device=row.device) + (first - offsets_of(counts)[:-1])[row]
            start, stop, multiplicity, threshold = (x[which] for x in (start, stop, multiplicity, threshold))
        full, rest, own_weight = batch.score_maps(bank)
        rule = bank.score
        margin = rule.margin or Margin()
        inner, scores = _sequences.score_runs(
            full.values,
            rest,
            full.offsets,
            own.values,
            own.offsets,
            own_weight,
            full.row[row],
            own.row[row],
            start,
            stop,
            threshold,
            bank.inclusive,
            _INNERS[rule.inner],
            _LAYOUTS[margin.layout],
            -1.0 if rule.margin is None else margin.scale,
            margin.power,
            margin.denominator == "fixed",
            rule.outer_weight,
        )
        if rule.video_weight != 0.0:
            scores = scores + rule.video_weight * batch.video_scores(rule.video_weight)[row]
        scores = (scores + rule.constant) * rule.scale
        segments = torch.stack([start, stop + bank.extend_end], 1)
        if bank.upsample > 1:
            segments = segments / bank.upsample
        return row, segments, scores, inner, threshold, torch.full_like(row, number), multiplicity


def _runs_above(
    values: Tensor, offsets: Tensor, bank: Bank, thresholds: Float, once: int
) -> tuple[tuple[Tensor, ...], Tensor]:
    """The runs of `proposals.runs_above`, and the threshold of each."""
    if bank.relative == "absolute":
        slots = np.argsort(thresholds, kind="stable")
        levels, rising, place = (
            torch.from_numpy(x).to(values.device)[None] for x in (thresholds, thresholds[slots], slots)
        )
    else:
        numbers = torch.from_numpy(thresholds).to(values.device)
        if bank.relative == "times_mean":
            total = _sequences.prefix(values, offsets)[offsets[1:] + torch.arange(len(offsets) - 1).to(offsets)]
            levels = (total / offsets.diff())[:, None] * numbers
        else:  # "below_max"
            low, high = (end[:, None] for end in _sequences.extremes(values, offsets))
            levels = high - (high - low) * numbers
        rising, place = torch.sort(levels, dim=1, stable=True)
    how = bank.inclusive, bank.positive, bank.min_length, bank.skip_lone_first, once, bank.dilate
    runs = _sequences.find_runs(values, offsets, rising, place, *how)
    return runs, levels[0 if len(levels) == 1 else runs[0], runs[1]]


def _given_rows(found: Segments) -> Any:
    """Proposals that were given."""
    segments, scores, labels = found.segments.detach().double(), found.scores.detach().double(), found.labels
    fine = (segments.abs() <= _checks.LARGEST).all() & (scores.abs() <= _checks.LARGEST).all() & (labels >= 0).all()
    if not bool(fine & (segments[:, 0] <= segments[:, 1]).all()):
        found.numpy()  # raises, and says where
    video = found.video_index
    classes, compact = torch.unique(labels, return_inverse=True)
    group = video * len(classes) + compact
    return Rows(segments, labels, scores, video, group, dict(found.columns), found.unit)


def _to_host(found: Segments) -> CoreSegments:
    """The same rows as arrays: one transfer brings all columns, packed as 8 bytes each."""
    columns = {"": found.segments, " ": found.labels, "  ": found.scores, "   ": found.offsets, **found.columns}
    wide = {name: x if x.is_floating_point() else x.long().view(torch.float64) for name, x in columns.items()}
    packed = torch.cat([x.double().reshape(-1) for x in wide.values()]).cpu().numpy()
    ends = np.cumsum([x.numel() for x in columns.values()])[:-1]
    parts = dict(zip(columns, np.split(packed, ends)))
    for name, x in columns.items():
        part = parts[name] if x.is_floating_point() else parts[name].view(np.int64)
        parts[name] = part.reshape(tuple(x.shape))
    segments, labels, scores, offsets = (parts.pop(" " * k) for k in range(4))
    return CoreSegments._trusted(segments, labels, scores, offsets, found.unit, found.video_ids, parts)


# --------------------------------------------------------------------------------------------------- what a call brings


class _Map(NamedTuple):
    """Snippets of all videos one after the other, (S,) or (S, K), and where each video's begin."""

    values: Tensor
    first: Int


@dataclass(frozen=True)
class _Given:
    """Maps, scores, lengths and timing of a batch; numbers per video are on the host."""

    device: torch.device
    maps: dict[str, Any]
    scores: Tensor | None
    lengths: Int
    proposals: Segments | None
    steps: Float  # seconds per snippet, NaN where they are not known; so are durations
    durations: Float
    warps: tuple[Any, ...]
    ids: tuple[str, ...]

    @classmethod
    def of(
        cls,
        main_map: str,
        tcam: Any,
        scores: Any,
        *,
        lengths: Any = None,
        maps: Any = None,
        attention: Any = None,
        seconds_per_snippet: Any = None,
        duration: Any = None,
        warp: Any = None,
        video_ids: Any = (),
        proposals: Any = None,
    ) -> _Given:
        """The arguments of a call, their shapes checked."""
        named = {} if tcam is None else {main_map: tcam}
        named |= {} if attention is None else {"attention": attention}
        named |= maps or {}
        for name, value in {**named, "video_scores": scores}.items():
            for one in value if isinstance(value, (list, tuple)) else [value]:
                if not isinstance(one, Tensor) and not (name == "video_scores" and one is None):
                    raise TypeError(
                        f"`{name}` must be a tensor, or a list of them, got {type(one).__name__}; "
                        "tal_postproc.PostProcessor takes arrays"
                    )
                if one is not None and one.is_complex():
                    raise TypeError(f"`{name}` must hold real numbers, got dtype {one.dtype}")
        if not named and proposals is None:
            raise TypeError("`tcam`, `maps` or `proposals` must be given, got none of them")
        device, _ = result_kind(list(named.values()), scores, proposals)
        if isinstance(tcam, Tensor) and tcam.ndim < 3:  # one video
            named = {name: value[None] for name, value in named.items()}
            scores = None if scores is None else scores[None]
            lengths = None if lengths is None else [lengths]
            warp = None if warp is None else [warp]
        sizes = {name: _sizes(value, name) for name, value in named.items()}
        count = len(next(iter(sizes.values()))) if sizes else (0 if proposals is None else proposals.num_videos)
        if lengths is None:
            lengths = next(iter(sizes.values()), np.zeros(count, np.int64))
        lengths = as_array(lengths) if isinstance(lengths, Tensor) else lengths
        lengths = _checks.as_integers(lengths, count, "lengths", per="video")
        for name, own in sizes.items():
            padded_map = isinstance(named[name], Tensor)
            if len(own) != count or not ((lengths >= 0) & ((lengths <= own) if padded_map else lengths == own)).all():
                raise ValueError(f"`{name}` must hold the snippets of all videos, {lengths}, got {own}")
        if scores is not None and (scores.ndim != 2 or len(scores) != count):
            raise ValueError(
                f"`video_scores` must have shape ({count}, K), one row per video, got {tuple(scores.shape)}"
            )
        if proposals is not None and proposals.num_videos != count:
            raise ValueError(f"`proposals` must be of {count} videos, got {proposals.num_videos}")
        numbers = []
        for value, name in ((seconds_per_snippet, "seconds_per_snippet"), (duration, "duration")):
            array = as_array(value) if isinstance(value, Tensor) else np.nan if value is None else value
            array = np.full(count, array) if np.ndim(array) == 0 else array
            numbers.append(_checks.as_durations(array, count, name))
        warps = () if warp is None else tuple(warp)
        if warps and len(warps) != count:
            raise ValueError(f"`warp` must have one entry per video ({count}), got {len(warps)}")
        warps = tuple(None if pair is None else _checks.as_warp(pair) for pair in warps)
        ids = tuple(map(str, video_ids))
        if ids and (len(ids) != count or len(set(ids)) != count):
            raise ValueError(f"`video_ids` must name {count} videos, all differently, got {len(ids)}")
        scores = None if scores is None else scores.detach()
        return cls(device, named, scores, lengths, proposals, numbers[0], numbers[1], warps, ids)

    def put(self, array: Any) -> Tensor:
        """An array of the host on the device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def name(self, index: int) -> Video:
        """What errors call a video by."""
        return Video(self.ids[index] if self.ids else str(index), {})

    def map_of(self, name: str, index: int) -> Tensor:
        """One map of one video."""
        return self.maps[name][index].detach()[: int(self.lengths[index])]

    def videos(self) -> list[Video]:
        """The videos of the core, under their names or positions."""
        given = [None] * len(self.lengths) if self.proposals is None else list(self.proposals.numpy().split())
        scores = None if self.scores is None else as_array(self.scores)
        return [
            Video(
                self.ids[i] if self.ids else str(i),
                {name: as_array(self.map_of(name, i)) for name in self.maps},
                {} if scores is None else {"video": scores[i]},
                None if np.isnan(self.steps[i]) else self.steps[i],
                None if np.isnan(self.durations[i]) else self.durations[i],
                self.warps[i] if self.warps else None,
                given[i],
            )
            for i in range(len(self.lengths))
        ]


def _sizes(value: Any, name: str) -> Int:
    """Snippets of every video, padding included."""
    if isinstance(value, Tensor):
        if value.ndim not in (2, 3):
            raise ValueError(f"`{name}` must have shape (B, T) or (B, T, K), got {tuple(value.shape)}")
        return np.full(len(value), value.shape[1], np.int64)
    if any(one.ndim not in (1, 2) or one.shape[1:] != value[0].shape[1:] for one in value):
        shapes = [tuple(one.shape) for one in value]
        raise ValueError(f"`{name}` must hold maps (T,) or (T, K) of the same K, got shapes {shapes}")
    return np.array([len(one) for one in value], np.int64)


# --------------------------------------------------------------------------------------------------- signals of a batch


class _Blended(NamedTuple):
    """Rows of a signal, and which of them each (video, class) pair reads."""

    values: Tensor
    offsets: Tensor
    row: Tensor
    shared: bool  # a row per video for all its classes


class _Kind(NamedTuple):
    """Rows of columns: those of the (video, class) pairs, or one for each of their videos."""

    video: Int
    label: Int
    lengths: Int
    row: Tensor


def _flat(value: Any) -> _Map:
    """A map of all videos without the batch dimension."""
    if isinstance(value, Tensor):
        return _Map(value.detach().flatten(0, 1), np.arange(len(value)) * value.shape[1])
    sizes = np.array([len(one) for one in value])
    return _Map(torch.cat([one.detach() for one in value]), np.cumsum(sizes) - sizes)


class _Batch:
    """The maps of a batch as a pipeline names them; `_signals.Batch` for tensors of one shape."""

    def __init__(self, given: _Given, pipeline: Pipeline) -> None:
        self.given = given
        self.names = {name: map_name(given.maps, name) for name in pipeline.map_names()}
        read = {*self.names.values()}
        if given.scores is None and pipeline.video_scores is not None:
            read |= {map_name(given.maps, name) for name in pipeline.video_scores.map.split("*")}
        self.flat = {name: _flat(given.maps[name]) for name in read}
        # a video without snippets says which maps tell classes apart, and where each has its action classes
        shapes = {name: np.empty((0, *one.values.shape[1:])) for name, one in self.flat.items()}
        scores = {} if given.scores is None else {"video": np.zeros(given.scores.shape[1])}
        self.shape = Searched(Video("", shapes, scores), pipeline, tuple(self.names))
        self._suspects: list[tuple[str, bool, Tensor]] = []
        self.scores = self._video_scores(pipeline.video_scores)
        self._maps: dict[tuple[str, bool], Tensor] = {}
        self._made: dict[tuple[Signal, int], _Blended] = {}
        mask = self._searched(pipeline.classes) & given.put(given.lengths > 0)[:, None]
        pairs = torch.nonzero(mask)
        self.video, self.label = pairs.unbind(1)
        video, label = np.ascontiguousarray(pairs.cpu().numpy().T)
        here, row = np.unique(video, return_inverse=True)
        self.kinds = {
            True: _Kind(video, label, given.lengths[video], torch.arange(len(video), device=given.device)),
            False: _Kind(here, np.zeros_like(here), given.lengths[here], given.put(row)),
        }

    def _video_scores(self, rule: TopKMean | None) -> Tensor | None:
        """(B, K) scores of the action classes."""
        if self.shape.scores is None:
            return None
        scores = self.given.scores
        if scores is None:
            scores = self._top_means(rule)
        elif not bool((scores.abs() <= _checks.LARGEST).all()):
            self.given.videos()  # raises, and says where
        begin = self.shape.first_action(scores.shape[1], "`video_scores`")
        return scores.double()[:, begin : begin + len(self.shape.scores)]

    def _top_means(self, rule: Any) -> Tensor:
        """`_signals._top_mean` of all videos."""
        given = self.given
        maps = {name: self.flat[name] for name in (map_name(given.maps, part) for part in rule.map.split("*"))}
        width = max(one.values.shape[1] if one.values.ndim == 2 else 1 for one in maps.values())
        lengths = given.put(given.lengths)
        best = np.maximum(1, given.lengths // rule.ratio)
        means = torch.zeros(len(given.lengths), width, dtype=torch.float64, device=given.device)
        for longest, videos in buckets(lengths, LINEAR):
            for some in chunks(videos, longest * width):
                steps, real = padded(torch.zeros_like(some), lengths[some], longest)
                block = torch.ones(1, 1, 1, dtype=torch.float64, device=given.device)
                for name, one in maps.items():
                    part = one.values[given.put(one.first)[some, None] + steps].double()
                    block = block * (part if part.ndim == 3 else part[:, :, None])
                    self._watch(name, part, whole=True)
                block = torch.where(real[:, :, None], block, -torch.inf).transpose(1, 2)
                count = given.put(best)[some]
                top = torch.topk(block, int(best[some.cpu().numpy()].max()), dim=2).values
                top = torch.where(torch.arange(top.shape[2], device=top.device) < count[:, None, None], top, 0.0)
                total = _sequences.row_sums(top.flatten(0, 1)).reshape(top.shape[:2])
                means[some] = (total / count[:, None]).expand(-1, width)
        if rule.softmax and width:
            means = torch.exp(means - means.amax(1, keepdim=True))
            means = means / _sequences.row_sums(means)[:, None]
        return means

    def _searched(self, rule: Classes | None) -> Tensor:
        """(B, K) bool: the classes that every video is searched for."""
        count = self.given.lengths
        if rule is None:
            classes = 1 if self.shape.num_classes is None else self.shape.num_classes
            return torch.ones(len(count), classes, dtype=torch.bool, device=self.given.device)
        scores = self.scores
        if scores is None:
            text = f"`video_scores` is needed: the pipeline searches classes with a score of {rule.threshold:g}"
            raise about(self.given.name(0), ValueError(text))
        passing = (scores >= rule.threshold) if rule.inclusive else (scores > rule.threshold)
        if rule.fallback == "argmax" and scores.shape[1]:
            best = torch.arange(scores.shape[1], device=scores.device) == scores.argmax(1, keepdim=True)
            passing = passing | (best & ~passing.any(1, keepdim=True))
        return passing

    def video_scores(self, weight: float) -> Tensor:
        """The video-level score of every pair."""
        if self.scores is None:
            error = ValueError(f"`video_scores` is needed: the pipeline adds {weight:g} times them to a score")
            raise about(self.given.name(0), error)
        return self.scores[self.video, self.label]

    def signal(self, signal: Signal, factor: int) -> _Blended:
        """The blended, normalised and upsampled signal; each is made once."""
        key = (signal, factor)
        if key not in self._made:
            names = [part for name, _ in signal.mix for part in name.split("*")]
            tells = any(self.flat[self.names[name]].values.ndim == 2 for name in names)
            offsets = self._offsets[tells]
            values = _sequences.normalized(self._blend(signal, tells), offsets, signal.normalize, signal.clip)
            values, offsets = _sequences.upsampled(values, offsets, factor, signal.extrapolate)
            self._made[key] = _Blended(values, offsets, self.kinds[tells].row, not tells)
        return self._made[key]

    @cached_property
    def _offsets(self) -> dict[bool, Tensor]:
        return {
            tells: self.given.put(np.concatenate(([0], np.cumsum(kind.lengths)))) for tells, kind in self.kinds.items()
        }

    def _blend(self, signal: Signal, tells: bool) -> Tensor:
        """The weighted sum of maps and products of maps."""
        total: Any = None
        for name, weight in signal.mix:
            first, *others = name.split("*")
            part = self._gathered(first, tells)
            for other in others:
                part = part * self._gathered(other, tells)
            part = part if weight == 1.0 else weight * part
            total = part if total is None else total + part
        return total

    def _gathered(self, name: str, tells: bool) -> Tensor:
        """One map, read once: the searched classes of each video, or one row that they share."""
        key = (name, tells)
        if key not in self._maps:
            values, first = self.flat[self.names[name]]
            kind, width = self.kinds[tells], 1
            begin = first[kind.video]
            if values.ndim == 2:
                width = values.shape[1]
                begin = begin * width + kind.label + self.shape.first_action(width, f"maps[{name!r}]")
            start = np.cumsum(kind.lengths) - kind.lengths
            total = int(kind.lengths.sum())
            shift = self.given.put(np.stack([begin - start * width, kind.lengths]))
            at = torch.repeat_interleave(shift[0], shift[1], output_size=total)
            at += torch.arange(0, total * width, width, device=at.device) if total else 0
            gathered = values.reshape(-1)[at].double()
            self._watch(name, gathered)
            self._maps[key] = gathered
        return self._maps[key]

    def _watch(self, name: str, values: Tensor, whole: bool = False) -> None:
        """Remember whether all values are finite, and small enough; `whole`: those of all classes."""
        self._suspects.append((name, whole, (values.abs() <= _checks.LARGEST).all()))

    def require_bounds(self) -> None:
        """The error of the core where a value that was read is not finite, or too large; waits once."""
        if not self._suspects or bool(torch.stack([fine for *_, fine in self._suspects]).all()):
            return
        searched = self.kinds[True]
        for index in range(len(self.given.lengths)):
            for name, whole, _ in self._suspects:
                array = as_array(self.given.map_of(self.names.get(name, name), index))
                array = array[:, None] if array.ndim == 1 else array
                classes = searched.label[searched.video == index]
                try:
                    columns = None if whole else self.shape.columns(name, classes)[1]
                    _checks.as_columns(array, columns, f"maps[{name!r}]")
                except ValueError as error:
                    raise about(self.given.name(index), error) from error

    def score_maps(self, bank: Bank) -> tuple[_Blended, Tensor | None, float]:
        """What a bank's runs are scored on: see `_signals.Batch.score_maps`."""
        rule = bank.score
        full = self.signal(rule.signal or bank.signal, bank.upsample)
        if not rule.zero_below:
            return full, full.values, 0.0
        weight, others = outer_mix(bank)
        if not others:
            return full, None, weight
        rest = self.signal(replace(rule.signal or bank.signal, mix=others), bank.upsample)
        values = rest.values
        if rest.shared and not full.shared:
            lengths = full.offsets.diff()
            shift = torch.repeat_interleave(
                rest.offsets[rest.row] - full.offsets[:-1], lengths, output_size=len(full.values)
            )
            values = values[shift + torch.arange(len(shift), device=shift.device)]
        return full, values, weight


# --------------------------------------------------------------------------------------------------------------- stages


def _kernel(name: str, device: torch.device) -> Callable[..., Any]:
    """The kernel of the backend that works on a device."""
    if works_on(device) == "triton" and has_triton():
        from . import _triton

        return getattr(_triton, name, getattr(_batched, name))
    return getattr(_batched, name)


def _ordered(rows: Any, per_class: bool, ties: str = "first") -> tuple[Tensor, Tensor]:
    """Rows by group, best first, and the groups' offsets."""
    return score_order(rows.scores, rows.groups(per_class), ties == "last")


def _nms(stage: Nms, rows: Any, given: _Given) -> Any:
    order, offsets = _ordered(rows, stage.per_class, stage.ties)
    how = stage.threshold, stage.inclusive, *_stages._measure(stage.overlap)
    keep, _ = _kernel("nms_groups", given.device)(rows.segments, rows.scores, order, offsets, *how)
    return replace(rows.take(keep), pool=rows, multiplicity=None)


def _soft_nms(stage: SoftNms, rows: Any, given: _Given) -> Any:
    order, offsets = _ordered(rows, stage.per_class)
    rule = _stages.soft_nms_rule(stage, len(order))
    keep, scores, _ = _kernel("soft_nms_groups", given.device)(rows.segments, rows.scores, order, offsets, *rule)
    kept = replace(rows.take(keep), scores=scores, pool=rows)
    return kept if stage.max_detections is None else _keep(Keep(top=stage.max_detections), kept, given)


def _fuse(stage: Fuse, rows: Any, given: _Given) -> Any:
    weights = _stages.fusion_weights(stage, rows).double()
    order, offsets = _ordered(rows, stage.per_class, stage.ties)
    rule = _stages.fusion_rule(stage)
    fused, _ = _kernel("fuse_groups", given.device)(
        rows.segments, rows.scores, weights, order, offsets, multiplicity=rows.multiplicity, **rule
    )
    return _stages.fused_rows(rows, fused)


def _vote(stage: Vote, rows: Any, given: _Given) -> Any:
    pool: Any = _stages.voters(rows)
    if not len(rows.scores):
        return rows
    groups, order = torch.sort(pool.groups(stage.per_class), stable=True)
    offsets = group_offsets(groups)
    found = torch.searchsorted(groups[offsets[:-1]], rows.groups(stage.per_class))
    found, kept_order = torch.sort(found, stable=True)
    kept_offsets = torch.searchsorted(found, torch.arange(len(offsets), device=given.device))
    voted = _kernel("vote_groups", given.device)(
        rows.segments,
        kept_order,
        kept_offsets,
        pool.segments,
        pool.scores,
        order,
        offsets,
        stage.threshold,
        stage.times_iou,
        *_stages._measure(Overlap()),
    )
    return replace(rows, segments=voted)


def _keep(stage: Keep, rows: Any, given: _Given) -> Any:
    passing = torch.ones_like(rows.scores, dtype=torch.bool)
    if stage.min_score is not None:
        passing &= rows.scores > stage.min_score
    if stage.min_length is not None:
        passing &= rows.segments[:, 1] - rows.segments[:, 0] > stage.min_length
    rows = rows.take(torch.nonzero(passing)[:, 0])
    if stage.top is None and stage.cumulative is None:
        return rows
    order, offsets = _ordered(rows, stage.per == "class")
    if stage.top is not None:
        first = offsets[_sequences.rows_of(offsets, len(order))]
        order = order[torch.arange(len(order), device=order.device) - first < stage.top]
        offsets = offsets_of(offsets.diff().clamp(max=stage.top))
    if stage.cumulative is not None and len(order):
        group = _sequences.rows_of(offsets, len(order))
        places = torch.arange(len(order), device=order.device) + group + 1
        sums = _sequences.prefix(rows.scores[order], offsets)[places]
        filled = offsets[1:] > offsets[:-1]
        largest = torch.zeros(len(filled), dtype=sums.dtype, device=sums.device)
        largest = largest.scatter_reduce(0, group, sums, "amax", include_self=False)
        count = torch.zeros_like(largest, dtype=torch.int64)
        count = count.index_add(0, group, (sums <= stage.cumulative * largest[group]).long())
        order = order[torch.arange(len(order), device=order.device) - offsets[group] < count[group]]
    return rows.take(order)


def _seconds(stage: Seconds, rows: Any, given: _Given) -> Any:
    _stages.require_snippets(rows)
    for values, name, needed in (
        (given.steps, "seconds_per_snippet", True),
        (given.durations, "duration", stage.clamp),
    ):
        if needed and np.isnan(values).any():
            error = ValueError(f"`{name}` is needed: the pipeline converts to seconds")
            raise about(given.name(int(np.flatnonzero(np.isnan(values))[0])), error)
    steps = given.put(given.steps)[rows.video]

    def converted(segments: Tensor) -> Tensor:
        seconds = segments * steps[:, None]
        if any(given.warps):
            seconds = _warped(seconds, rows.video, given)
        if stage.clamp:
            seconds = seconds.clamp(min=0.0)
            seconds = torch.minimum(seconds, given.put(given.durations)[rows.video][:, None])
        return seconds

    columns = dict(rows.columns)
    if "pick" in columns:
        columns["pick"] = converted(columns["pick"])
    for name in ("start_std", "end_std"):  # a spread goes through no warp
        if name in columns:
            columns[name] = columns[name] * steps
    return replace(rows, segments=converted(rows.segments), columns=columns, unit="second")


def _warped(seconds: Tensor, video: Tensor, given: _Given) -> Tensor:
    """Seconds through the warp of each row's video, as `numpy.interp` does it; all videos at once."""
    pairs = [pair if pair is not None else (np.zeros(1), np.zeros(1)) for pair in given.warps]
    counts = np.array([0 if pair is None else len(pair[0]) for pair in given.warps])
    knots, times = (given.put(np.concatenate([pair[side] for pair in pairs])) for side in range(2))
    sizes = np.maximum(counts, 1)
    count, first = (given.put(array)[video][:, None] for array in (counts, np.cumsum(sizes) - sizes))
    passed = torch.zeros_like(seconds, dtype=torch.int64)  # knots at or before
    for bit in reversed(range(int(counts.max()).bit_length())):
        more = passed + (1 << bit)
        reached = (more <= count) & (knots[first + torch.minimum(more, count).sub_(1).clamp_(min=0)] <= seconds)
        passed = torch.where(reached, more, passed)
    low = first + (passed - 1).clamp(min=0)
    high = first + torch.minimum(passed, (count - 1).clamp(min=0))
    slope = (times[high] - times[low]) / (knots[high] - knots[low])
    between = slope * (seconds - knots[low]) + times[low]
    at = torch.where((low == high) | (knots[low] >= seconds), times[low], between)
    return torch.where(count > 0, at, seconds)


def _expand(stage: Expand, rows: Any, given: _Given) -> Any:
    grow = 0.5 * stage.ratio * (rows.segments[:, 1] - rows.segments[:, 0])
    ends = {
        "snippet": given.lengths.astype(np.float64) if given.maps else np.full(len(given.lengths), np.inf),
        "second": np.where(np.isnan(given.durations), np.inf, given.durations),
        "relative": np.ones(len(given.lengths)),
    }[rows.unit]
    grown = torch.stack([rows.segments[:, 0] - grow, rows.segments[:, 1] + grow], 1).clamp(min=0.0)
    return replace(rows, segments=torch.minimum(grown, given.put(ends)[rows.video][:, None]))


def _round(stage: Round, rows: Any, given: _Given) -> Any:
    segments, scores = rows.segments.round(decimals=stage.segments), rows.scores.round(decimals=stage.scores)
    return replace(rows, segments=segments, scores=scores)


_STAGES: dict[type[Stage], Callable[[Any, Any, _Given], Any]] = {
    Nms: _nms,
    SoftNms: _soft_nms,
    Fuse: _fuse,
    Vote: _vote,
    Keep: _keep,
    Seconds: _seconds,
    Expand: _expand,
    Round: _round,
}
