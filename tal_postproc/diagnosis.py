"""What keeps the mAP down: kinds of errors, ceilings of the post-processing, and a report for a paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _checks
from ._checks import Float, Int
from ._kernels import matching
from .bootstrap import bootstrap_map, paired_bootstrap
from .config import Pipeline, Seconds
from .evaluation import (
    PROTOCOLS,
    SNIPPETS_PER_SECOND,
    Matched,
    largest_overlaps,
    match_all,
    mean_average_precision,
    positions,
)
from .pipeline import PostProcessor
from .types import (
    ERROR_KINDS,
    TIOU_RANGES,
    BootstrapMAP,
    ErrorBreakdown,
    MeanAveragePrecision,
    MissedInstances,
    PairedBootstrap,
    Segments,
    UnitError,
    Video,
)

__all__ = ["BINS", "Ceilings", "PaperReport", "ceilings", "error_breakdown", "paper_report"]

# Upper ends of the bins of DETAD, the end included; the last bin has no end.
BINS: Mapping[str, Mapping[str, tuple[float, ...]]] = MappingProxyType(
    {
        "thumos14": {"length": (3, 6, 12, 18), "coverage": (0.02, 0.04, 0.06, 0.08), "instances": (1, 40, 80)},
        "activitynet": {"length": (30, 60, 120, 180), "coverage": (0.2, 0.4, 0.6, 0.8), "instances": (1, 4, 8)},
    }
)
_BIN_NAMES = ("XS", "S", "M", "L", "XL")
TRUE, DUPLICATE, WRONG_LABEL, BOUNDARIES, CONFUSION, BACKGROUND = range(len(ERROR_KINDS))


def error_breakdown(
    detections: Segments | Mapping[str, Any],
    ground_truth: Segments | Mapping[str, Any],
    *,
    tiou_threshold: float = 0.5,
    background_threshold: float = 0.1,
    protocol: str = "activitynet",
    ambiguous: Segments | Mapping[str, Any] | None = None,
    snippets_per_second: float = SNIPPETS_PER_SECOND,
    multiples: int = 10,
    bins: str = "thumos14",
    durations: ArrayLike | None = None,
    names: Sequence[str] | None = None,
) -> ErrorBreakdown:
    r"""Detections by kind of error, instances that are missed, and the mAP that every kind costs, as in DETAD [1]_.

    Let :math:`o` be the largest overlap of a detection with an instance of its video, of whatever class, :math:`\tau`
    the threshold and :math:`\beta` the background threshold.  A detection that takes an instance, as in
    `mean_average_precision`, is a true positive; another one is

    ================ ================================ =========================================
    kind             overlap                          the instance with that overlap
    ================ ================================ =========================================
    duplicate        :math:`o \ge \tau`               of its class, and taken by a better one
    wrong label      :math:`o \ge \tau`               of another class
    poor boundaries  :math:`\beta \le o < \tau`       of its class ("localization error")
    confusion        :math:`\beta \le o < \tau`       of another class
    background       :math:`o < \beta`                any or none
    ================ ================================ =========================================

    Parameters
    ----------
    detections, ground_truth, protocol, ambiguous, snippets_per_second
        As in `mean_average_precision`.  The ground truth is in seconds or snippets.
    tiou_threshold : float, default 0.5
        :math:`\tau`, in (0, 1].
    background_threshold : float, default 0.1
        :math:`\beta`, above 0 and at most :math:`\tau`.
    multiples : int, default 10
        M: the detections of a class with G instances are counted apart for ranks 1 to G, G + 1 to 2G, ..., up to MG.
    bins : {"thumos14", "activitynet"}, default "thumos14"
        Which of the published `BINS` instances are sorted into; an instance on the end of a bin is in it.
    durations : (V,) array_like of float, optional
        Length of every video in seconds, for the bins by coverage.  Needs `ground_truth` to be `Segments` of V videos.
        Instances in videos whose duration is not known (NaN) are in no bin of coverage.
    names : sequence of str, optional
        Name of every label, for tables and pictures.

    Returns
    -------
    ErrorBreakdown
        ``.kinds`` (N,), ``.counts`` (M + 1, K, 6), ``.gains`` (K, 5), ``.missed`` by length, coverage and instances of
        that class in that video; ``.average``, ``.table()``.  `plotting.errors` draws it.

    Raises
    ------
    UnitError
        As in `mean_average_precision`, and if the ground truth is in relative units.
    ValueError
        If an argument is malformed.

    Notes
    -----
    An instance is missed when no counted detection takes it.  The gain of a kind is the average precision without its
    detections, minus that with them; gains do not add up.

    The released code differs: it takes the ten best multiples only, normalises precision by the mean number of
    instances per class, and of equal overlaps takes the first; here it is the own class, because THUMOS14 annotates
    every cliff diving as diving as well.

    Ties: as in `mean_average_precision`.  Cost: two matchings.

    References
    ----------
    .. [1] H. Alwassel, F. Caba Heilbron, V. Escorcia and B. Ghanem, "Diagnosing Error in Temporal Action Detectors",
           ECCV 2018, and its code.

    Examples
    --------
    >>> truth = {"video": ["a", "a"], "labels": [0, 1], "segments": [[0, 10], [20, 30]]}
    >>> found = {
    ...     "video": ["a"] * 4,
    ...     "labels": [0, 0, 0, 0],
    ...     "segments": [[0, 10], [1, 10], [20, 29], [50, 60]],
    ...     "scores": [0.9, 0.8, 0.7, 0.6],
    ... }
    >>> result = error_breakdown(found, truth)
    >>> [ERROR_KINDS[kind] for kind in result.kinds]
    ['true positive', 'duplicate', 'wrong label', 'background']
    """
    tau = _checks.as_number(tiou_threshold, "tiou_threshold", above=0.0, at_most=1.0)
    beta = _checks.as_number(background_threshold, "background_threshold", above=0.0, at_most=tau)
    layers = _checks.as_count(multiples, "multiples", at_least=1)
    edges = BINS[_checks.as_choice(bins, "bins", tuple(BINS))]
    one = match_all(detections, ground_truth, [tau], protocol, ambiguous, snippets_per_second)
    truth, label = one.truth, _labels_in_order(one)
    taken = one.matches[one.order, 0]

    overlap, own = largest_overlaps(one)
    kind = np.where(
        overlap >= tau,
        np.where(own, DUPLICATE, WRONG_LABEL),
        np.where(overlap >= beta, np.where(own, BOUNDARIES, CONFUSION), BACKGROUND),
    )
    kind[taken >= 0] = TRUE
    kinds = np.full(len(one.found), -1)
    kinds[one.order] = kind
    rank = np.arange(len(label)) - one.offsets[label]
    layer = np.minimum(rank // np.maximum(truth.counts[label], 1), layers)
    counts = np.zeros((layers + 1, len(truth.classes), len(ERROR_KINDS)), np.int64)
    np.add.at(counts, (layer, label, kind), 1)

    ap = [_ap(one, label, taken >= 0, np.full(len(kind), True))]
    ap += [_ap(one, label, taken >= 0, kind != error) for error in range(DUPLICATE, len(ERROR_KINDS))]
    return ErrorBreakdown(
        tiou_threshold=tau,
        protocol=protocol,
        classes=truth.classes,
        names=_names_of(truth.classes, names),
        kinds=kinds,
        counts=counts,
        num_ground_truth=truth.counts,
        per_class=ap[0],
        gains=np.stack([without - ap[0] for without in ap[1:]], axis=1),
        missed=_missed(one, taken, edges, durations, snippets_per_second),
    )


def _labels_in_order(one: Matched) -> Int:
    """Class number of every ordered detection."""
    return np.repeat(np.arange(len(one.truth.classes)), np.diff(one.offsets))


def _ap(one: Matched, label: Int, hits: Any, chosen: Any) -> Float:
    """(K,) average precision of the chosen detections."""
    offsets = np.searchsorted(label[chosen], np.arange(len(one.truth.classes) + 1))
    return matching.average_precision(hits[chosen][:, None], offsets, one.truth.counts, one.rule.interpolate)[0]


def _names_of(classes: Int, names: Sequence[str] | None) -> tuple[str, ...]:
    if names is None:
        return tuple(f"class {label}" for label in classes)
    if len(classes) and len(names) <= classes[-1]:
        raise ValueError(f"`names` must name every label up to {classes[-1]}, got {len(names)} names")
    return tuple(str(names[label]) for label in classes)


def _missed(
    one: Matched, taken: Int, edges: Mapping[str, tuple[float, ...]], durations: ArrayLike | None, rate: float
) -> dict[str, MissedInstances]:
    """Instances, and those that nobody took, by class and bin."""
    truth, annotated = one.truth, one.annotated
    if annotated.unit == "relative":
        raise UnitError("`ground_truth` must be in seconds or snippets, got unit 'relative'")
    free = ~np.isin(truth.rows, taken)
    label = positions(annotated.labels[truth.rows], truth.classes)
    length = np.diff(annotated.segments[truth.rows], axis=1)[:, 0] / (1.0 if annotated.unit == "second" else rate)
    values = {"length": length}
    if durations is not None:
        if annotated.num_videos is None:
            raise ValueError("`durations` need `ground_truth` to be Segments, whose videos they belong to")
        values["coverage"] = length / _checks.as_durations(durations, annotated.num_videos)[annotated.video[truth.rows]]
    values["instances"] = np.repeat(np.diff(truth.offsets), np.diff(truth.offsets)).astype(float)
    result = {}
    for name, value in values.items():
        known = ~np.isnan(value)
        if len(known) and not known.any():
            continue
        where = label[known], np.searchsorted(edges[name], value[known])
        total, missed = np.zeros((2, len(truth.classes), len(edges[name]) + 1), np.int64)
        np.add.at(total, where, 1)
        np.add.at(missed, where, free[known])
        result[name] = MissedInstances(_BIN_NAMES[: len(edges[name]) + 1], edges[name], total, missed)
    return result


# ------------------------------------------------------------------ ceilings
@dataclass(frozen=True, slots=True, eq=False)
class Ceilings:
    """The mAP of a pipeline as it is, and what it would be if one thing were known."""

    results: Mapping[str, MeanAveragePrecision]  # by the names of `table`
    thresholds: Float  # (S,) the pipeline's
    threshold_per_class: Float  # (K,) the best single one of every class

    def table(self) -> str:
        """One line per ceiling: mAP at every threshold and its average, and the gain over the pipeline, in percent."""
        base = self.results["as it is"]
        width = max(map(len, self.results)) + 2
        lines = [f"{'mAP in %, tIoU':<{width}}" + "".join(f"{t:>7g}" for t in base.tiou_thresholds) + "    avg    gain"]
        for name, one in self.results.items():
            cells = "".join(f"{100 * value:7.2f}" for value in (*one.per_threshold, one.average))
            lines.append(f"{name:<{width}}{cells}{100 * (one.average - base.average):+8.2f}")
        return "\n".join(lines)


def ceilings(
    videos: Iterable[Video],
    ground_truth: Segments,
    pipeline: Pipeline,
    *,
    tiou_thresholds: ArrayLike | str | None = None,
    protocol: str | None = None,
    ambiguous: Segments | Mapping[str, Any] | None = None,
    snippets_per_second: float = SNIPPETS_PER_SECOND,
    background_threshold: float = 0.1,
    num_threads: int | None = None,
) -> Ceilings:
    r"""Whether the model or the post-processing is at fault: the mAP of a pipeline when one thing is known.

    * "as it is": the pipeline.
    * "oracle ranking": every detection is scored with its largest overlap with an instance of its class in its video.
      What is left is what was never proposed.
    * "oracle classes": the pipeline searches the classes that the ground truth of a video has, and no others.
    * "oracle boundaries": a detection that overlaps an instance of its class in its video by at least
      `background_threshold` gets the boundaries of the one it overlaps most; its score stays.
    * "all three", ranked by the overlaps before the boundaries move.  What is left is what nothing found, and
      duplicates.
    * "best threshold": of the pipeline's thresholds the one that alone gives the best mAP.
    * "best threshold per class": for every class the one that alone gives its best average precision.

    A large gain by ranking says that good segments are there and badly scored; by boundaries, that actions are found
    and badly cut; by classes, that the video-level scores are at fault; by thresholds, that the settings are.

    Parameters
    ----------
    videos : iterable of Video
        All in memory, as the pipeline is run more than once.
    ground_truth : Segments
        Of those videos, matched by name; where detections come in snippets and the ground truth in seconds, each video
        needs its ``seconds_per_snippet``.
    pipeline : Pipeline
        For example ``presets.get("rskp")``.
    tiou_thresholds : (I,) array_like or str, optional
        As in `mean_average_precision`.  Default: those of the pipeline, "0.1:0.7" where it has none.
    protocol : str, optional
        Default: that of the pipeline.
    ambiguous, snippets_per_second
        As in `mean_average_precision`.
    background_threshold : float, default 0.1
        In (0, 1].
    num_threads : int, optional
        Default: all cores.  The result does not depend on it.

    Returns
    -------
    Ceilings
        ``.results``, a `MeanAveragePrecision` for each; ``.threshold_per_class`` (K,); ``.table()``.

    Raises
    ------
    TypeError, UnitError, ValueError
        As `PostProcessor` and `mean_average_precision` do.

    Notes
    -----
    Class by class ``per_class[:, k].mean()`` decides about thresholds; ties: the lower one.  A class without detections
    has AP 0 under every protocol.  All of them are upper ends in practice, none is a bound: greedy suppression and
    matching make worse of better input now and then.  Cost: two runs of the pipeline, one of them over all classes, and
    one for every threshold.

    Examples
    --------
    >>> from tal_postproc import presets, synthetic
    >>> data = synthetic.make_videos(4, seed=0)
    >>> result = ceilings(data.videos, data.ground_truth, presets.get("rskp"), tiou_thresholds=[0.5])
    >>> result.results["oracle ranking"].average > result.results["as it is"].average
    True
    """
    if not isinstance(ground_truth, Segments):
        _checks.refuse_tensors(ground_truth, "ground_truth")
        raise TypeError(f"`ground_truth` must be Segments, got {type(ground_truth).__name__}")
    if not isinstance(pipeline, Pipeline):
        raise TypeError(f"`pipeline` must be a config.Pipeline (see presets.get), got {type(pipeline).__name__}")
    beta = _checks.as_number(background_threshold, "background_threshold", above=0.0, at_most=1.0)
    protocol = pipeline.protocol if protocol is None else protocol
    tious = pipeline.tiou_thresholds or "0.1:0.7" if tiou_thresholds is None else tiou_thresholds
    rate, all_videos = snippets_per_second, list(videos)

    def run(chain: Pipeline) -> Matched:
        found = _detect(chain, all_videos, ground_truth, protocol, num_threads)
        return match_all(found, ground_truth, tious, protocol, ambiguous, rate)

    def evaluate(one: Matched, chosen: Any, segments: Float, scores: Float) -> MeanAveragePrecision:
        """Of the chosen ones of the ordered detections, as they are or changed."""
        rows = one.order[chosen]
        changed = {
            "video": one.videos[rows],
            "labels": one.found.labels[rows],
            "segments": segments[chosen],
            "scores": scores[chosen],
            "unit": "snippet" if one.rule.unit == "snippet" else one.found.unit,
        }
        truth = ground_truth.replace(video_ids=())
        options: dict[str, Any] = {"tiou_thresholds": tious, "protocol": protocol, "empty_class": "zero_ap"}
        return mean_average_precision(changed, truth, snippets_per_second=rate, **options)

    plain, known = run(pipeline), run(replace(pipeline, classes=None))
    everything, shown = np.full(len(plain.order), True), known.groups >= 0
    score, known_score = plain.found.scores[plain.order], known.found.scores[known.order]
    overlap, moved = _own_instance(plain, beta)
    known_overlap, known_moved = _own_instance(known, beta)
    results = {
        "as it is": evaluate(plain, everything, plain.segments, score),
        "oracle ranking": evaluate(plain, everything, plain.segments, overlap),
        "oracle classes": evaluate(known, shown, known.segments, known_score),
        "oracle boundaries": evaluate(plain, everything, moved, score),
        "all three": evaluate(known, shown, known_moved, known_overlap),
    }
    thresholds = np.unique([threshold for bank in pipeline.banks for threshold in bank.thresholds])
    alone = []
    for threshold in thresholds.tolist():
        banks = [replace(bank, thresholds=(threshold,)) for bank in pipeline.banks if threshold in bank.thresholds]
        one = run(replace(pipeline, banks=tuple(banks)))
        alone.append(evaluate(one, np.full(len(one.order), True), one.segments, one.found.scores[one.order]))
    best = np.zeros(0, np.int64)
    if alone:
        best = np.argmax([one.per_class.mean(axis=0) for one in alone], axis=0)
        single = alone[int(np.argmax([one.average for one in alone]))]
        per_class = single.per_class.copy()
        for k, which in enumerate(best):
            per_class[:, k] = alone[which].per_class[:, k]
        results["best threshold"] = single
        results["best threshold per class"] = replace(
            single,
            per_class=per_class,
            per_threshold=per_class.sum(axis=1) / max(len(best), 1),
            num_detections=np.array([alone[which].num_detections[k] for k, which in enumerate(best)], np.int64),
            matches=None,
            recall=None,
            top_kx=(),
        )
    return Ceilings(results, thresholds, thresholds[best] if alone else np.zeros(0))


def _detect(
    chain: Pipeline, videos: Sequence[Video], ground_truth: Segments, protocol: str, num_threads: int | None
) -> Segments:
    """What a pipeline finds, in the unit in which the protocol can compare it."""
    rule = PROTOCOLS[_checks.as_choice(protocol, "protocol", tuple(PROTOCOLS))]
    if rule.unit == ground_truth.unit == "second" and not any(isinstance(stage, Seconds) for stage in chain.stages):
        chain = replace(chain, stages=(*chain.stages, Seconds()))
    parts = list(PostProcessor(chain).process(videos, num_threads))
    if parts:
        return Segments.concatenate(parts)
    return Segments.empty(ground_truth.unit, ground_truth.video_ids)


def _own_instance(one: Matched, beta: float) -> tuple[Float, Float]:
    """Largest overlap of every ordered detection with an instance of its class in its video; and the detections with
    the boundaries of that instance, where the overlap is at least beta."""
    truth, mine = one.truth, one.found.labels[one.order]
    labels = one.annotated.labels[truth.rows]
    rows, overlap = matching.nearest(one.segments, one.groups, mine, truth.segments, labels, truth.offsets, *one.how)
    moved = one.segments.copy()
    near = overlap >= beta
    moved[near] = truth.segments[rows[near]]
    return overlap, moved


# ------------------------------------------------------------------ for a paper
@dataclass(frozen=True, slots=True, eq=False)
class PaperReport:
    """mAP of one method under several protocols, how far it can be trusted, and how it compares with a baseline."""

    name: str
    results: Mapping[str, MeanAveragePrecision]  # by protocol
    spreads: Mapping[str, BootstrapMAP]
    comparisons: Mapping[str, PairedBootstrap]  # empty without a baseline

    def averages(self, protocol: str) -> dict[str, float]:
        """The usual averages whose thresholds were all evaluated, a fraction for each name; else that of all."""
        result = self.results[protocol]
        known = np.round(result.tiou_thresholds, 9)
        named = {
            name: result.average_over(name) for name, range_ in TIOU_RANGES.items() if np.isin(range_, known).all()
        }
        return named or {"avg": result.average}

    def latex(self, protocol: str | None = None) -> str:
        """A row for a table: the name, the mAP at every threshold, then the averages, in percent with one decimal.

        `protocol` is one of the report's, by default its first.
        """
        chosen = next(iter(self.results)) if protocol is None else protocol
        _checks.as_choice(chosen, "protocol", tuple(self.results))
        values = [*self.results[chosen].per_threshold, *self.averages(chosen).values()]
        name = "".join("\\" + letter if letter in "&%$#_{}" else letter for letter in self.name)
        return " & ".join([name, *(f"{100 * value:.1f}" for value in values)]) + r" \\"

    def table(self) -> str:
        """One line per protocol, in percent: mAP at every threshold, averages, standard error; then the comparison."""
        first = next(iter(self.results))
        width = max(len("mAP in %, tIoU"), *map(len, self.results)) + 1
        heads = [f"{t:g}" for t in self.results[first].tiou_thresholds] + list(self.averages(first)) + ["std"]
        sizes = [max(7, len(head) + 2) for head in heads]
        lines = [f"{'mAP in %, tIoU':<{width}}" + "".join(f"{head:>{size}}" for head, size in zip(heads, sizes))]
        for protocol, result in self.results.items():
            values = [*result.per_threshold, *self.averages(protocol).values(), self.spreads[protocol].std]
            cells = (f"{100 * value:{size}.2f}" for value, size in zip(values, sizes))
            lines.append(f"{protocol:<{width}}" + "".join(cells))
        for protocol, pair in self.comparisons.items():
            low, high = pair.interval
            lines.append(
                f"{protocol}: {100 * pair.difference:+.2f} against the baseline, {100 * pair.detections.level:g} % "
                f"interval {100 * low:+.2f} to {100 * high:+.2f}, two-sided p = {pair.p_value:.3f}"
                + ("; within noise" if low <= 0 <= high else "")
            )
        return "\n".join(lines)


def paper_report(
    detections: Segments | Mapping[str, Any],
    ground_truth: Segments | Mapping[str, Any],
    *,
    baseline: Segments | Mapping[str, Any] | None = None,
    protocols: Sequence[str] = tuple(PROTOCOLS),
    name: str = "ours",
    tiou_thresholds: ArrayLike | str = "0.1:0.7",
    ambiguous: Segments | Mapping[str, Any] | None = None,
    snippets_per_second: float = SNIPPETS_PER_SECOND,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    num_threads: int | None = None,
) -> PaperReport:
    r"""What a paper prints about one method: every protocol, the usual averages, and whether a gain is more than noise.

    Parameters
    ----------
    detections, ground_truth, tiou_thresholds, ambiguous, snippets_per_second
        As in `mean_average_precision`.
    baseline : Segments or mapping, optional
        Other detections, compared on the same resamples of the videos.
    protocols : sequence of str, default all of `PROTOCOLS`
        The first one is that of the LaTeX row.
    name : str, default "ours"
        Of the method.
    num_resamples, seed, level, num_threads
        As in `bootstrap_map`.

    Returns
    -------
    PaperReport
        ``.results``, ``.spreads`` and ``.comparisons`` by protocol; ``.table()`` and ``.latex()``.

    Raises
    ------
    UnitError, ValueError
        As in `mean_average_precision`; and without any protocol.

    Notes
    -----
    Numbers are those of `mean_average_precision`, its warnings included; spreads are those of `bootstrap_map`, where a
    class without detections never makes the whole mAP 0.  Papers print one decimal; halves go to the even digit of the
    binary number, as Python prints them.

    Examples
    --------
    >>> truth = {"video": ["a", "b"], "labels": [0, 0], "segments": [[0, 10], [20, 30]]}
    >>> found = {**truth, "scores": [0.9, 0.8], "segments": [[0, 10], [20, 24]]}
    >>> print(paper_report(found, truth, protocols=["activitynet"], name="A & B").latex())
    A \& B & 100.0 & 100.0 & 100.0 & 100.0 & 50.0 & 50.0 & 50.0 & 90.0 & 70.0 & 78.6 \\
    """
    if not protocols or isinstance(protocols, str):
        raise ValueError(f"`protocols` must be a sequence of at least one name, got {protocols!r}")
    common: dict[str, Any] = {
        "tiou_thresholds": tiou_thresholds,
        "ambiguous": ambiguous,
        "snippets_per_second": snippets_per_second,
    }
    resampling: dict[str, Any] = {
        "num_resamples": num_resamples,
        "seed": seed,
        "level": level,
        "num_threads": num_threads,
    }
    results, spreads, comparisons = {}, {}, {}
    for protocol in protocols:
        results[protocol] = mean_average_precision(detections, ground_truth, protocol=protocol, **common)
        if baseline is None:
            spreads[protocol] = bootstrap_map(detections, ground_truth, protocol=protocol, **common, **resampling)
            continue
        pair = paired_bootstrap(detections, baseline, ground_truth, protocol=protocol, **common, **resampling)
        spreads[protocol], comparisons[protocol] = pair.detections, pair
    return PaperReport(str(name), results, spreads, comparisons)
