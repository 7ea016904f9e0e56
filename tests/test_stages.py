"""Every option of every setting does in a pipeline what the public function of that name does on the same rows."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc import (
    PostProcessor,
    Segments,
    Video,
    extract_proposals,
    fuse_segments,
    nms,
    oic_scores,
    segment_voting,
    soft_nms,
    upsample_tcam,
)
from tal_postproc.config import (
    Bank,
    Expand,
    Fuse,
    Keep,
    Margin,
    Nms,
    Overlap,
    Pipeline,
    Round,
    Score,
    Seconds,
    Signal,
    SoftNms,
    Vote,
)


def random_rows(seed: int, count: int = 60, tied: bool = False) -> Segments:
    """Three classes on a half-unit grid, so that overlaps meet thresholds; every fifth score is negative."""
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 40, count) / 2
    scores = rng.integers(1, 5, count) / 4 if tied else rng.random(count)
    scores[::5] -= 1.0
    return Segments(
        np.column_stack([start, start + rng.integers(1, 20, count) / 2]),
        rng.integers(0, 3, count),
        scores,
        columns={"inner": rng.random(count), "signed": rng.random(count) - 0.3},
    )


ROWS, TIED = random_rows(0), random_rows(1, tied=True)


def apply(*stages, rows: Segments = ROWS, **video) -> Segments:
    given = Video("v", video.pop("maps", {}), proposals=rows, **video)
    return PostProcessor(Pipeline(stages=stages))(given)


def keywords(stage, labels: np.ndarray) -> dict:
    """The same options as a public function names them."""
    words = {f.name: getattr(stage, f.name) for f in fields(stage) if f.name != "ties"}
    overlap = words["overlap"]
    words["tiou_threshold"] = words.pop("threshold")
    words["idxs"] = labels if words.pop("per_class") else None
    words |= {"overlap": overlap.kind, "length_offset": overlap.length_offset, "area_eps": overlap.area_eps}
    return words


def assert_rows(found: Segments, segments, labels, scores) -> None:
    """The same rows, by class, best score first."""
    order = np.lexsort((-np.asarray(scores), labels))
    assert_array_equal(found.labels, np.asarray(labels)[order])
    assert_array_equal(found.scores, np.asarray(scores)[order])
    assert_array_equal(found.segments, np.asarray(segments)[order])


def assert_changes(found: Segments, plain: Segments) -> None:
    """What an option is tested on must be able to show it."""
    same = np.array_equal(found.segments, plain.segments) and np.array_equal(found.scores, plain.scores)
    assert not same


OVERLAPS = [Overlap(kind="candidate"), Overlap(length_offset=1.0), Overlap(area_eps=2.0)]


# ------------------------------------------------------------------------------------------------------- suppression


def nms_rows(stage: Nms, rows: Segments) -> np.ndarray:
    return nms(rows.segments, rows.scores, **keywords(stage, rows.labels))


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.25},
        {"inclusive": True},
        {"per_class": False},
        {"inclusive": True, "per_class": False, "overlap": Overlap(kind="candidate", length_offset=1.0)},
        *({"overlap": overlap} for overlap in OVERLAPS),
    ],
)
def test_nms(options):
    plain = Nms(threshold=0.5)
    stage = replace(plain, **options)
    keep = nms_rows(stage, ROWS)
    found = apply(stage)
    assert_rows(found, ROWS.segments[keep], ROWS.labels[keep], ROWS.scores[keep])
    assert_changes(found, apply(plain))


def test_nms_with_equal_scores():
    stage = Nms(threshold=0.4)
    first = nms_rows(stage, TIED)
    backwards = np.arange(len(TIED))[::-1]
    last = backwards[nms_rows(stage, TIED.select(backwards))]
    assert set(first) != set(last)
    for ties, keep in (("first", first), ("last", last)):
        found = apply(replace(stage, ties=ties), rows=TIED)
        table = np.column_stack([found.labels, found.scores, found.segments])
        expected = np.column_stack([TIED.labels, TIED.scores, TIED.segments])[keep]
        assert_array_equal(table[np.lexsort(table.T)], expected[np.lexsort(expected.T)])


@pytest.mark.parametrize(
    "options",
    [
        {"sigma": 0.2},
        {"method": "linear", "threshold": 0.25},
        {"method": "linear", "threshold": 0.5},
        {"method": "gated", "gate": (0.1, 0.05)},
        {"method": "gated", "gate": (0.25, 0.0)},
        {"method": "gated", "gate": (0.25, 0.02)},
        {"method": "improved", "gate": (0.25, 0.0)},
        {"method": "improved", "gate": (0.25, 0.02)},
        {"min_score": 0.3},
        {"min_score": 1.5, "keep_first": True},
        {"decay_negative": True},
        {"max_detections": 5},
        {"per_class": False},
        {"per_class": False, "max_detections": 5, "min_score": 0.1},
        *({"overlap": overlap} for overlap in OVERLAPS),
    ],
)
def test_soft_nms(options):
    stage = SoftNms(**options)
    keep, scores = soft_nms(ROWS.segments, ROWS.scores, **keywords(stage, ROWS.labels))
    found = apply(stage)
    assert_rows(found, ROWS.segments[keep], ROWS.labels[keep], scores)
    assert_changes(found, apply(SoftNms()))


def test_soft_nms_exempts_the_first_pick_of_a_group_only_when_told():
    assert len(apply(SoftNms(min_score=1.5))) == 0
    assert len(apply(SoftNms(min_score=1.5, keep_first=True))) == 3
    assert len(apply(SoftNms(min_score=1.5, keep_first=True, per_class=False))) == 1


def test_soft_nms_keeps_the_best_of_a_video_after_all_picks():
    """With `decay_negative` a later pick may end up higher than an earlier one."""
    all_of_them = apply(SoftNms(decay_negative=True))
    for count in (0, 1, 45, 1000):
        found = apply(SoftNms(decay_negative=True, max_detections=count))
        assert_array_equal(np.sort(found.scores), np.sort(all_of_them.scores)[max(0, len(all_of_them) - count) :])


# ----------------------------------------------------------------------------------------------------------- fusion


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.25},
        {"inclusive": True},
        {"temperature": 0.02},
        {"distribution": "exponential"},
        {"distribution": "student_t"},
        {"distribution": "student_t", "dof": 1.5},
        {"distribution": "student_t", "scale": "fit"},
        {"distribution": "uniform"},
        {"weights": "inner"},
        {"weights": "signed", "signed_denominator": True},
        {"signed_denominator": True},
        {"per_class": False},
        *({"overlap": overlap} for overlap in OVERLAPS),
    ],
)
def test_fuse(options):
    plain = Fuse(threshold=0.5, temperature=0.2)
    stage = replace(plain, **options)
    words = keywords(stage, ROWS.labels)
    words["weights"] = None if stage.weights == "scores" else ROWS.columns[stage.weights]
    fused = fuse_segments(ROWS.segments, ROWS.scores, **words)
    found = apply(stage)
    labels = ROWS.labels[fused.picks]
    assert_rows(found, fused.segments, labels, fused.scores)
    order = np.lexsort((-fused.scores, labels))
    assert_array_equal(found.columns["pick"], ROWS.segments[fused.picks][order])
    assert_array_equal(found.columns["size"], fused.sizes[order])
    for name in ("effective_size", "start_std", "end_std"):
        assert_array_equal(found.columns[name], getattr(fused, name)[order])
    assert_changes(found, apply(plain))


def test_fuse_options_differ_from_each_other():
    student = Fuse(threshold=0.25, temperature=0.2, distribution="student_t")
    assert_changes(apply(replace(student, dof=1.5)), apply(student))
    assert_changes(apply(replace(student, scale="fit")), apply(student))
    signed = Fuse(threshold=0.25, temperature=0.2, weights="signed")
    assert_changes(apply(replace(signed, signed_denominator=True)), apply(signed))
    for distribution in ("exponential", "student_t", "uniform"):
        with pytest.raises(ValueError, match="signed_denominator"):
            apply(Fuse(threshold=0.5, temperature=0.1, distribution=distribution, signed_denominator=True))


def test_fuse_with_equal_scores():
    stage = Fuse(threshold=0.4, temperature=0.1)
    first = apply(stage, rows=TIED)
    last = apply(replace(stage, ties="last"), rows=TIED)
    mirrored = apply(stage, rows=TIED.select(np.arange(len(TIED))[::-1]))
    assert_changes(last, first)
    for name in ("segments", "scores"):
        one, two = (np.column_stack([part.labels, getattr(part, name)]) for part in (last, mirrored))
        assert_allclose(one[np.lexsort(one.round(9).T)], two[np.lexsort(two.round(9).T)], rtol=0, atol=1e-12)


# ----------------------------------------------------------------------------------------------------------- voting


@pytest.mark.parametrize("options", [{}, {"threshold": 0.5}, {"times_iou": True}, {"per_class": False}])
@pytest.mark.parametrize("suppress", [Nms(threshold=0.3), SoftNms(sigma=0.3), Nms(threshold=0.3, per_class=False)])
def test_vote(suppress, options):
    plain = Vote(threshold=0.2)
    stage = replace(plain, **options)
    kept = apply(suppress)
    expected = segment_voting(
        kept.segments,
        ROWS.segments,
        ROWS.scores,
        tiou_threshold=stage.threshold,
        times_iou=stage.times_iou,
        kept_idxs=kept.labels if stage.per_class else None,
        idxs=ROWS.labels if stage.per_class else None,
    )
    found = apply(suppress, stage)
    assert_array_equal(found.segments, expected)
    assert_array_equal(found.scores, kept.scores)
    if options:
        assert_changes(found, apply(suppress, plain))
    assert_changes(found, kept)


def test_vote_asks_all_rows_that_entered_the_suppression():
    """What `Keep` drops before has no vote; what it drops after the suppression had one."""
    suppress, vote, best = Nms(threshold=0.3), Vote(threshold=0.2), Keep(min_score=0.4)
    after = apply(suppress, best, vote)
    whole = apply(suppress, vote)
    assert_array_equal(after.segments, whole.segments[whole.scores > 0.4])
    before = apply(best, suppress, vote)
    assert_array_equal(after.scores, before.scores)
    assert_changes(before, after)


@pytest.mark.parametrize("stages", [(Vote(threshold=0.5),), (Nms(threshold=0.5), Seconds(), Vote(threshold=0.5))])
def test_vote_needs_a_suppression_in_its_unit(stages):
    with pytest.raises(ValueError, match="`Vote` must follow a suppression in the same unit"):
        apply(*stages, seconds_per_snippet=0.5)


# ------------------------------------------------------------------------------------------------------------- keep


def kept(mask: np.ndarray, rows: Segments = ROWS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return rows.segments[mask], rows.labels[mask], rows.scores[mask]


def test_keep_is_strict():
    limit = float(np.sort(ROWS.scores)[30])
    assert_rows(apply(Keep(min_score=limit)), *kept(ROWS.scores > limit))
    assert len(apply(Keep(min_score=limit))) == 29
    lengths = np.ptp(ROWS.segments, axis=1)
    assert (lengths == 4.0).any()
    assert_rows(apply(Keep(min_length=4.0)), *kept(lengths > 4.0))
    assert_rows(apply(Keep(min_length=4.0, min_score=0.2)), *kept((lengths > 4.0) & (ROWS.scores > 0.2)))


@pytest.mark.parametrize("per", ["video", "class"])
@pytest.mark.parametrize("options", [{"top": 0}, {"top": 7}, {"top": 1000}, {"cumulative": 0.3}, {"cumulative": 0.7}])
def test_keep_counts_by_video_or_class(options, per):
    chosen = []
    for label in range(3):
        mine = np.flatnonzero(ROWS.labels == label) if per == "class" else np.arange(len(ROWS))
        best = mine[np.argsort(-ROWS.scores[mine], kind="stable")]
        if "top" in options:
            best = best[: options["top"]]
        else:
            sums = np.cumsum(ROWS.scores[best])
            best = best[: (sums <= options["cumulative"] * sums.max()).sum()]  # negative scores: sums fall again
        chosen += best.tolist()
    assert_rows(apply(Keep(per=per, **options)), *kept(np.unique(np.array(chosen, int))))
    assert_changes(apply(Keep(per="video", top=7)), apply(Keep(per="class", top=7)))


def test_keep_takes_the_first_of_equals():
    rows = Segments([[0, 1], [2, 3], [4, 5]], scores=[0.5, 0.7, 0.5])
    assert apply(Keep(top=2), rows=rows).segments.tolist() == [[2, 3], [0, 1]]


# ------------------------------------------------------------------------------------------ seconds, expand, round


def test_seconds_by_video():
    """Every video has its own rate, length and warp, also when they are worked on together."""
    warp = (np.array([0.0, 4.0, 30.0]), np.array([0.0, 9.0, 20.0]))
    videos = [
        Video("a", {}, seconds_per_snippet=0.5, duration=8.0, proposals=ROWS),
        Video("b", {}, seconds_per_snippet=2.0, duration=12.0, warp=warp, proposals=TIED),
        Video("c", {}, seconds_per_snippet=1.0, duration=100.0, proposals=ROWS.select(np.zeros(60, bool))),
    ]
    for clamp in (False, True):
        process = PostProcessor(Pipeline(stages=(Seconds(clamp=clamp),)))
        for together in (list(process.process(videos, 1)), [process(video) for video in videos]):
            for video, found in zip(videos, together):
                assert found.unit == "second"
                seconds = video.proposals.segments * video.seconds_per_snippet
                if video.warp is not None:
                    seconds = np.interp(seconds, *warp)
                if clamp:
                    seconds = np.clip(seconds, 0.0, video.duration)
                    assert not len(found) or found.segments.max() == video.duration
                order = np.lexsort((-video.proposals.scores, video.proposals.labels))
                assert_array_equal(found.segments, seconds[order])
    with pytest.raises(ValueError, match="`Seconds` converts snippets, got rows in unit 'second'"):
        apply(Seconds(), rows=ROWS.to_seconds(1.0), seconds_per_snippet=1.0)


def test_suppression_counts_its_plus_one_in_the_unit_of_the_rows():
    suppress = Nms(threshold=0.3, overlap=Overlap(length_offset=1.0))
    early = apply(suppress, Seconds(), seconds_per_snippet=0.25)
    late = apply(Seconds(), suppress, seconds_per_snippet=0.25)
    assert len(late) < len(early)


@pytest.mark.parametrize(
    ("rows", "video", "end"),
    [
        (ROWS, {"maps": {"cas": np.zeros((30, 3))}}, 30.0),
        (ROWS.to_seconds(0.5), {"maps": {"cas": np.zeros((30, 3))}, "duration": 14.5}, 14.5),
        (ROWS.to_seconds(0.5), {"maps": {"cas": np.zeros((30, 3))}}, np.inf),
        (ROWS.replace(segments=ROWS.segments / 30, unit="relative"), {"maps": {"cas": np.zeros((30, 3))}}, 1.0),
        (ROWS, {}, np.inf),
    ],
)
def test_expand_stays_in_the_video(rows, video, end):
    start, stop = rows.segments.T
    length = stop - start
    for ratio in (0.0, 0.5, 2.0):
        wide = np.column_stack([start - ratio / 2 * length, stop + ratio / 2 * length])
        found = apply(Expand(ratio=ratio), rows=rows, **video)
        order = np.lexsort((-rows.scores, rows.labels))
        assert_allclose(found.segments, np.clip(wide, 0.0, end)[order], rtol=0, atol=1e-12)
    assert found.segments.min() == 0.0
    if np.isfinite(end):
        assert found.segments.max() == end


def test_round_has_decimals_of_its_own_for_boundaries_and_scores():
    rows = ROWS.replace(segments=ROWS.segments / 7)
    found = apply(Round(segments=1, scores=3), rows=rows)
    assert_rows(found, rows.segments.round(1), rows.labels, rows.scores.round(3))
    assert_changes(found, apply(Round(segments=3, scores=1), rows=rows))


# ------------------------------------------------------------------------------------------------ banks and scores


def bumps(seed: int, noise: float) -> np.ndarray:
    """(60, 3) random walks on multiples of 1/8 from -2/8 to 8/8, and a peak on the first snippet of class 0."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-2, 3, (60, 3)).cumsum(axis=0)
    steps = np.abs((steps - steps.min(axis=0)) % 20 - 10) - 2
    steps[0, 0], steps[1, 0] = 12, 0
    return steps / 8 + noise * rng.random((60, 3))


# plateaus that meet thresholds, and irrational values
MAPS = {
    "grid": {"cas": bumps(2, 0.0), "attention": bumps(3, 0.0)[:, 1]},
    "noise": {"cas": bumps(4, 0.1), "attention": bumps(5, 0.1)[:, 1]},
}
VIDEO_SCORES = np.array([0.9, 0.2, 0.5])
ATTENTION = Signal(mix=(("attention", 1.0),))


def blend(signal: Signal, maps: dict) -> np.ndarray:
    total = np.zeros((60, 3))
    for name, weight in signal.mix:
        product = np.ones((60, 3))
        for part in name.split("*"):
            product = product * maps[part].reshape(60, -1)
        total = total + weight * product
    return total


def normalized(values: np.ndarray, signal: Signal) -> np.ndarray:
    low, high = values.min(axis=0), values.max(axis=0)
    if signal.normalize == "minmax_relu":
        low, high = np.maximum(low, 0.0), np.maximum(high, 0.0)
    if signal.normalize != "none":
        values = (values - low) / (high - low)
    return np.clip(values, 0.0, 1.0) if signal.clip else values


def expected_of(bank: Bank, maps: dict) -> Segments:
    """`extract_proposals`, then `oic_scores`, with the options of the bank."""
    signal, rule = bank.signal, bank.score
    found = extract_proposals(
        blend(signal, maps),
        bank.thresholds,
        relative=bank.relative,
        inclusive=bank.inclusive,
        positive=bank.positive,
        normalize=signal.normalize,
        clip=signal.clip,
        upsample=bank.upsample,
        min_length=bank.min_length,
        extend_end=bank.extend_end,
        skip_lone_first=bank.skip_lone_first,
        extrapolate=signal.extrapolate,
        dilate=bank.dilate,
    )
    judge = rule.signal or signal
    margin = rule.margin or Margin()
    scores = oic_scores(
        upsample_tcam(normalized(blend(judge, maps), judge), bank.upsample, extrapolate=judge.extrapolate),
        np.rint(found.segments * bank.upsample),
        found.labels,
        margin_scale=margin.scale,
        margin_power=margin.power,
        layout=margin.layout,
        denominator=margin.denominator,
        outer_weight=0.0 if rule.margin is None else rule.outer_weight,
        inner=rule.inner,
        zero_below=found.columns["threshold"] if rule.zero_below else None,
        inclusive=bank.inclusive,
        extend_end=bank.extend_end,
        video_scores=VIDEO_SCORES,
        video_weight=rule.video_weight,
    )
    return found.replace(scores=(scores + rule.constant) * rule.scale)


def detect(*banks: Bank, maps: dict) -> Segments:
    return PostProcessor(Pipeline(banks=banks))(Video("v", maps, {"video": VIDEO_SCORES}))


def table_of(found: Segments) -> np.ndarray:
    """All numbers of all rows, in an order that does not hang on the last bit."""
    rows = np.column_stack([found.labels, found.columns["threshold"], found.segments, found.scores])
    return rows[np.lexsort(rows.round(9).T[::-1])]


PLAIN = Bank(thresholds=(0.5, 0.0, 0.25))
RAISED = Score(margin=Margin(layout="oic_a"), zero_below=True)


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize(
    "options",
    [
        {"thresholds": (0.125,)},
        {"relative": "times_mean"},
        {"relative": "below_max"},
        {"inclusive": True},
        {"inclusive": True, "thresholds": (-0.25, 0.0, 0.5)},
        {"inclusive": True, "positive": True},
        {"thresholds": (-0.25, -0.125, 0.0), "positive": True},
        {"thresholds": (1.25, 0.5), "skip_lone_first": True},
        {"min_length": 3},
        {"dilate": 1},
        {"dilate": 2, "thresholds": (0.75, 0.5, 1.0)},
        {"dilate": 3, "min_length": 6, "upsample": 2},
        {"upsample": 5, "signal": Signal(extrapolate=False), "dilate": 6, "relative": "times_mean"},
        {"extend_end": 1},
        {"extend_end": -1},
        {"upsample": 5},
        {"upsample": 5, "min_length": 9, "extend_end": 1},
        {"upsample": 4, "relative": "times_mean", "signal": Signal(normalize="minmax", clip=True)},
        {"signal": Signal(normalize="minmax")},
        {"signal": Signal(normalize="minmax_relu")},
        {"signal": Signal(clip=True)},
        {"signal": Signal(normalize="minmax_relu", clip=True)},
        {"signal": Signal(mix=(("cas", 0.5), ("attention", 0.5)))},
        {"signal": Signal(mix=(("cas*attention", 1.0),))},
        {"signal": ATTENTION},
        {"signal": ATTENTION, "score": Score(signal=Signal())},
        {"signal": ATTENTION, "score": Score(signal=Signal(normalize="minmax")), "upsample": 3},
        {"score": Score(inner="max")},
        {"score": Score(inner="none")},
        {"score": Score(margin=None)},
        {"score": Score(outer_weight=0.6)},
        {"score": Score(video_weight=0.2)},
        {"score": Score(constant=0.2)},
        {"score": Score(scale=0.1, constant=0.2, video_weight=0.7)},
        {"score": Score(margin=Margin(scale=0.7))},
        {"score": Score(margin=Margin(power=0.9))},
        {"score": Score(margin=Margin(denominator="fixed"))},
        {"score": Score(margin=Margin(layout="oic_a"))},
        {"score": Score(margin=Margin(layout="oic_b")), "extend_end": 1},
        {"score": Score(margin=Margin(layout="cmcs"))},
        {"score": Score(margin=Margin(layout="cmcs", scale=0.8), inner="max"), "upsample": 3},
        {"score": Score(zero_below=True)},
        {"score": RAISED},
        {"score": RAISED, "inclusive": True},
        {"score": replace(RAISED, margin=Margin(scale=2.0, layout="oic_a")), "inclusive": True, "upsample": 2},
    ],
)
def test_banks(kind, options):
    bank, maps = replace(PLAIN, **options), MAPS[kind]
    found = detect(bank, maps=maps)
    assert len(found) > 3
    expected = expected_of(bank, maps)
    assert_allclose(table_of(found), table_of(expected), rtol=0, atol=1e-11)
    assert (np.diff(found.labels) >= 0).all()
    for label in range(3):
        assert (np.diff(found.scores[found.labels == label]) <= 0).all()


OPTIONS = {
    "inclusive": (PLAIN, {"inclusive": True}),
    "positive": (replace(PLAIN, inclusive=True), {"positive": True}),
    "skip_lone_first": (replace(PLAIN, thresholds=(1.25, 0.5)), {"skip_lone_first": True}),
    "min_length": (PLAIN, {"min_length": 2}),
    "extend_end": (PLAIN, {"extend_end": 1}),
    "upsample": (PLAIN, {"upsample": 2}),
    "extrapolate": (replace(PLAIN, upsample=5), {"signal": Signal(extrapolate=False)}),
    "dilate": (PLAIN, {"dilate": 2}),
    "cmcs": (PLAIN, {"score": Score(margin=Margin(layout="cmcs"))}),
    "times_mean": (PLAIN, {"relative": "times_mean"}),
    "below_max": (PLAIN, {"relative": "below_max"}),
    "minmax": (PLAIN, {"signal": Signal(normalize="minmax")}),
    "minmax_relu": (replace(PLAIN, signal=Signal(normalize="minmax")), {"signal": Signal(normalize="minmax_relu")}),
    "clip": (PLAIN, {"signal": Signal(clip=True)}),
    "zero_below": (PLAIN, {"score": Score(zero_below=True)}),
    "outer_weight": (PLAIN, {"score": Score(outer_weight=0.6)}),
    "oic_a": (PLAIN, {"score": Score(margin=Margin(layout="oic_a"))}),
    "oic_b": (PLAIN, {"score": Score(margin=Margin(layout="oic_b"))}),
    "fixed": (PLAIN, {"score": Score(margin=Margin(denominator="fixed"))}),
    "scale": (PLAIN, {"score": Score(margin=Margin(scale=0.3))}),
    "power": (PLAIN, {"score": Score(margin=Margin(power=0.9))}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_shows_on_these_maps(name):
    """Or the comparison above would prove nothing."""
    base, change = OPTIONS[name]
    before, after = (table_of(detect(bank, maps=MAPS["grid"])) for bank in (base, replace(base, **change)))
    assert before.shape != after.shape or np.abs(before - after).max() > 1e-3


def test_the_zeroed_contrast_compares_as_the_bank_does():
    """Snippet 2 stands exactly on the threshold, in the margin of the run of snippet 0: it counts if it passes."""
    maps = {"cas": np.array([[1.0], [0.0], [0.5], [0.0]])}
    score = Score(margin=Margin(scale=2.0, layout="oic_a"), zero_below=True)
    for inclusive, outer in ((True, 0.5 / 2), (False, 0.0)):
        bank = Bank(thresholds=(0.5,), inclusive=inclusive, score=score)
        found = PostProcessor(Pipeline(banks=(bank,)))(Video("v", maps))
        assert_allclose(found.scores[found.segments[:, 0] == 0.0], [1.0 - outer], rtol=0, atol=1e-15)


def test_banks_stand_in_their_order():
    """Equal scores: by class, then bank, then threshold, then time."""
    flat = Score(inner="none", margin=None)
    one, two = Bank(thresholds=(0.5, 0.25), score=flat), Bank(thresholds=(0.75, 0.25), signal=ATTENTION, score=flat)
    maps = MAPS["noise"]
    parts = [expected_of(bank, maps) for bank in (one, two)]
    for first, second in ((0, 1), (1, 0)):
        found = detect(*((one, two)[i] for i in (first, second)), maps=maps)
        expected = [
            np.column_stack([part.labels[mine], part.segments[mine], part.columns["threshold"][mine]])
            for label in range(3)
            for part in (parts[first], parts[second])
            for mine in [part.labels == label]
        ]
        rows = np.column_stack([found.labels, found.segments, found.columns["threshold"]])
        assert_array_equal(rows, np.concatenate(expected))
        counts = [len(part) for part in expected]
        assert_array_equal(found.columns["bank"], np.repeat([0, 1] * 3, counts))
        assert (found.scores == 0).all()


def test_inner_column_is_the_mean_inside():
    found = detect(replace(PLAIN, score=Score(video_weight=1.0, constant=3.0)), maps=MAPS["noise"])
    for (start, stop), label, inner in zip(found.segments.astype(int), found.labels, found.columns["inner"]):
        assert_allclose(inner, MAPS["noise"]["cas"][start:stop, label].mean(), rtol=0, atol=1e-13)
