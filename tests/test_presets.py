"""Published presets against literal oracles, which published output proves, and number by number."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc import PostProcessor, Segments, Video, presets
from tal_postproc.config import (
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
    SoftNms,
    TopKMean,
    Vote,
)

from .oracles import pipelines as oracle

# The published lists, as their codes write them.
BASNET = np.arange(0, 0.25, 0.025)
ACTIONNESS = np.arange(0.1, 0.925, 0.025)
ASMLOC = np.arange(0.15, 0.25, 0.05)
HAMNET = np.linspace(0.1, 0.9, 10)
DELU = np.linspace(0.1, 0.9, 20)
ANET12 = np.arange(0, 0.15, 0.015)
RSKP = np.arange(0.001, 0.04, 0.002)
FACNET = np.arange(0.03, 0.055, 0.005)
MAGNITUDE = np.arange(0.4, 0.625, 0.025)
FOREGROUND = np.arange(0.5, 0.725, 0.025)
ASL = np.arange(0.1, 1, 0.1)
ACMNET = np.arange(0.15, 1.0, 0.05)
ANET13 = [0.005, 0.01, 0.015, 0.02]
PSEUDO = np.arange(0.4, 0.925, 0.025)
PSEUDO_ANET13 = np.arange(0.1, 0.305, 0.005)

ORACLES: dict[str, Callable[[Video], np.ndarray]] = {
    "basnet": lambda v: oracle.basnet(v.maps["cas"], action(v), v.seconds_per_snippet, thresholds=BASNET),
    "cola": lambda v: oracle.cola(
        v.maps["cas"],
        v.maps["attention"],
        action(v),
        v.seconds_per_snippet,
        cas_thresholds=BASNET,
        attention_thresholds=ACTIONNESS,
    ),
    "cola_anet12": lambda v: oracle.cola(
        v.maps["cas"],
        v.maps["attention"],
        action(v),
        v.seconds_per_snippet,
        cas_thresholds=ANET12,
        attention_thresholds=ACTIONNESS,
        class_threshold=0.1,
    ),
    "um": lambda v: oracle.um(
        v.maps["cas"],
        v.maps["magnitude"],
        action(v),
        v.seconds_per_snippet,
        thresholds=BASNET,
        magnitude_thresholds=MAGNITUDE,
    ),
    "lacp": lambda v: oracle.lacp(
        v.maps["cas"],
        v.maps["attention"],
        action(v),
        v.seconds_per_snippet,
        thresholds=BASNET,
        foreground_thresholds=FOREGROUND,
    ),
    "asl": lambda v: oracle.asl(
        v.maps["cas"],
        v.maps["flow_act"],
        v.maps["rgb_act"],
        v.scores["video"].tolist(),
        v.seconds_per_snippet,
        thresholds=ASL,
    ),
    "asmloc": lambda v: asmloc(v, ASMLOC, ACTIONNESS, warp=v.warp),
    "asmloc_pseudo": lambda v: oracle.asmloc_selected(
        asmloc(v, [], PSEUDO, warp=v.warp), alpha=0.7, delta=0.5, end=v.duration
    ),
    "acmnet": lambda v: asmloc(v, ASMLOC, ACMNET, nms=0.55),
    "asmloc_anet13": lambda v: asmloc(v, ANET13, ANET13, chain=oracle.asmloc_anet, warp=v.warp),
    "asmloc_anet13_pseudo": lambda v: oracle.asmloc_selected(
        asmloc(v, PSEUDO_ANET13, [], chain=oracle.asmloc_anet, warp=v.warp), alpha=0.3, delta=0.0, end=v.duration
    ),
    "acmnet_anet13": lambda v: asmloc(v, ANET13, ANET13, chain=oracle.asmloc_anet),
    "hamnet": lambda v: oracle.hamnet(v.maps["logits"], v.maps["attention"], v.seconds_per_snippet, thresholds=HAMNET),
    "hamnet_anet12": lambda v: oracle.hamnet(
        v.maps["logits"], v.maps["attention"], v.seconds_per_snippet, thresholds=HAMNET, ratio=20
    ),
    "co2net": lambda v: oracle.co2net(v.maps["logits"], v.maps["attention"], thresholds=HAMNET),
    "co2net_anet12": lambda v: oracle.co2net(v.maps["logits"], v.maps["attention"], thresholds=HAMNET),
    "delu": lambda v: oracle.co2net(v.maps["logits"], v.maps["attention"], thresholds=DELU),
    "delu_anet12": lambda v: oracle.co2net(v.maps["logits"], v.maps["attention"], thresholds=DELU),
    "delu_thumos_test": lambda v: oracle.co2net(v.maps["logits"], v.maps["attention"], thresholds=DELU, longer_than=1),
    "wtalc": lambda v: oracle.wtalc(v.maps["cas"]),
    "cmcs": lambda v: oracle.cmcs(
        v.maps["cas"], action(v), v.seconds_per_snippet, v.duration, share=1.0, decimals=(2, 4)
    ),
    "cmcs_anet": lambda v: oracle.cmcs(v.maps["cas"], action(v), v.seconds_per_snippet, v.duration, share=1e-7),
}
OWN_SCORES = ("hamnet", "co2net", "delu", "wtalc")  # they make their video scores


def asmloc(video: Video, cas_thresholds, attention_thresholds, chain=oracle.asmloc, **options) -> np.ndarray:
    return chain(
        video.maps["cas"],
        video.maps["attention"],
        action(video),
        video.seconds_per_snippet,
        cas_thresholds=cas_thresholds,
        attention_thresholds=attention_thresholds,
        **options,
    )


def action(video: Video) -> list[float]:
    """Video scores without background."""
    return video.scores["video"][:-1].tolist()


def bumps(rng: np.random.Generator, length: int, width: int) -> np.ndarray:
    """(T, width) in about [-0.1, 1.1]: smooth bumps and irrational noise, so that no order hangs on the last bit."""
    steps = rng.normal(size=(length, width)).cumsum(axis=0)
    span = np.ptp(steps, axis=0) if length > 1 else 4.0
    return (steps - steps.min(axis=0, initial=0)) / span + rng.normal(scale=0.03, size=(length, width))


def random_videos(seed: int, lengths: tuple[int, ...]) -> list[Video]:
    """Three action classes and background; every other video has no class above its threshold, and a warp."""
    rng = np.random.default_rng(seed)
    videos = []
    for i, length in enumerate(lengths):
        step, odd = 0.3 + rng.random(), i % 2 == 1
        maps = {
            "cas": bumps(rng, length, 4),
            "attention": bumps(rng, length, 1)[:, 0],
            "logits": 4 * bumps(rng, length, 4) - 1 + (0, 0, -1, 6 * odd),
        }
        maps |= {name: bumps(rng, length, 1)[:, 0] for name in ("magnitude", "flow_act", "rgb_act")}
        knots = np.cumsum([0.0, *rng.random(6)])
        warp = (knots / knots[-1] * length * step, np.linspace(0.0, length * step, 7)) if odd and length else None
        scores = {"video": rng.random(4) * (0.09 if odd else 1.0)}
        videos.append(Video(f"v{i}", maps, scores, seconds_per_snippet=step, duration=max(length, 1) * step, warp=warp))
    return videos


def assert_same(found, expected: np.ndarray, what: str) -> None:
    assert_array_equal(found.labels, expected[:, 0], err_msg=what)
    assert_allclose(found.segments, expected[:, 1:3], rtol=0, atol=1e-9, err_msg=what)
    assert_allclose(found.scores, expected[:, 3], rtol=0, atol=1e-9, err_msg=what)


def assert_equal_chains(preset: str, videos: list[Video]) -> int:
    """Rows compared.  A warp is ASM-Loc's alone; W-TALC takes no video of fewer than 8 snippets."""
    if preset.startswith(OWN_SCORES):
        videos = [replace(video, scores={}) for video in videos]
    if not preset.startswith("asmloc"):
        videos = [replace(video, warp=None) for video in videos]
    if preset == "wtalc":
        videos = [video for video in videos if video.num_snippets >= 8]
    process = PostProcessor.from_preset(preset, num_classes=3)
    rows = 0
    for video, found in zip(videos, process.process(videos, num_threads=1)):
        expected = ORACLES[preset](video)
        assert_same(found, expected, f"{preset}, {video.id}, T = {video.num_snippets}")
        assert found.unit == ("snippet" if preset.startswith(("co2net", "delu", "wtalc")) else "second")
        rows += len(expected)
    return rows


@pytest.mark.parametrize("preset", ORACLES)
def test_presets_equal_their_literal_chains(preset):
    """Videos of every length in one stream."""
    videos = random_videos(1, lengths=(0, 1, 2, 3, 25, 60, 25, 60, 4, 5))
    assert assert_equal_chains(preset, videos) > 10


EDGES = {
    "two": [0.9, 0.2],
    "constant": [0.5] * 20,
    "nothing": [0.0] * 20,
    "both ends": [0.9] * 5 + [0.01] * 12 + [0.7] * 4,
    "soon": [0.0, 0.02] + [0.9] * 9 + [0.01] * 9,  # CMCS: a margin that would begin before the video
    "the first alone": [0.9] + [0.0] * 11,
    "the last alone": [0.0] * 11 + [0.9],
    "nested": [0.11, 0.22, 0.33, 0.52, 0.71, 0.93, 0.64, 0.41, 0.26, 0.12],
}


@pytest.mark.parametrize("preset", ORACLES)
def test_presets_equal_their_literal_chains_on_edges(preset):
    videos = []
    for name, values in EDGES.items():
        steps = np.array(values)
        maps = {"cas": np.column_stack([steps, 0.7 * steps, 0 * steps, 0 * steps])}
        maps["logits"] = 5 * maps["cas"] + 1
        maps |= dict.fromkeys(("attention", "magnitude", "flow_act", "rgb_act"), steps)
        scores = {"video": np.array([0.8, 0.6, 0.0, 0.1])}
        videos.append(Video(name, maps, scores, seconds_per_snippet=1.7, duration=1.7 * len(steps)))
    assert assert_equal_chains(preset, videos) > 1


@pytest.mark.parametrize(
    ("preset", "level"),
    [
        ("basnet", BASNET[4]),
        ("um", BASNET[4]),
        ("lacp", BASNET[4]),
        ("cola", BASNET[4]),
        ("asmloc", ASMLOC[1]),
        ("acmnet_anet13", ANET13[2]),
        ("co2net", HAMNET[3]),
        ("delu", DELU[9]),
    ],
)
def test_a_plateau_on_a_threshold_counts_as_published(preset, level):
    """Ten snippets exactly on a threshold: reached by BaS-Net's kin, not exceeded for HAM-Net's."""
    rng = np.random.default_rng(6)
    steps = np.repeat([0.0, level, 0.0, 1.0, 0.0], [6, 10, 5, 4, 5])
    maps = {
        "cas": np.column_stack([steps, steps, np.zeros((30, 2))]),
        "attention": steps if preset in ("co2net", "delu") else np.zeros(30),
        "logits": rng.normal(size=(30, 4)) + 2,
        "magnitude": np.ones(30),
        "flow_act": steps,
        "rgb_act": steps,
    }
    scores = {} if preset in ("co2net", "delu") else {"video": np.array([0.9, 0.3, 0.0, 0.0])}
    video = Video("v", maps, scores, seconds_per_snippet=1.7, duration=51.0)
    found = PostProcessor.from_preset(preset, num_classes=3)(video)
    assert_same(found, ORACLES[preset](video), preset)
    on_it = np.abs(found.columns["threshold"] - level) < 1e-12
    assert on_it.any()


def test_wtalc_asks_for_more_than_halfway_and_for_eight_snippets():
    """A stretch halfway between the extremes is none.  The published code finds nothing in a video of 7 snippets."""
    process = PostProcessor.from_preset("wtalc")
    tcam = np.array([0, 0, 0.5, 0.5, 0, 1, 1, 0.0])[:, None]
    assert process(tcam).segments.tolist() == [[5, 7]]
    assert oracle.wtalc(tcam)[:, 1:3].tolist() == [[5, 7]]
    assert process(tcam[1:]).segments.tolist() == [[4, 6]]
    assert len(oracle.wtalc(tcam[1:])) == 0


def test_published_detections_of_wtalc(golden):
    maps, published = golden("tcams"), golden("evaluation")
    process = PostProcessor.from_preset("wtalc")
    rows = published["wtalc_detections"]
    for v, name in enumerate(published["video_names"]):
        i = maps["names"].tolist().index(name)
        here = slice(*maps["offsets"][i : i + 2])
        found = process(maps["tcam"][here][:, published["class_ids"]] - 0.01)
        mine = rows[rows[:, 0] == v]
        mine = mine[np.lexsort((-mine[:, 4], mine[:, 1]))]
        assert_same(found, mine[:, 1:], name)
    assert len(rows) > 500


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("basnet", ""),
        ("cola", ""),
        ("asmloc", "plain_"),
        ("asmloc", "warp_"),
        ("hamnet", ""),
        ("co2net", "prefilter"),
        ("delu", "prefilter"),
    ],
)
def test_published_output_proves_the_literal_chains(golden, file, part):
    """The oracles themselves, on a few videos: what the published code printed for them."""
    maps, published = golden("tcams"), golden(file)
    offsets = published["prefilter_offsets" if part == "prefilter" else f"{part}det_offsets"]
    rows = published[part if part == "prefilter" else f"{part}detections"]
    fragile = published[f"{part}fragile_pairs" if file == "asmloc" else "fragile_pairs"]
    shortest = np.argsort(maps["length"] + 10_000 * maps["is_edge"], kind="stable")[:6]
    edges = [i for i, name in enumerate(maps["names"]) if name in ("edge_t2", "edge_lastframe", "edge_nested")]
    compared = 0
    for i in [*shortest, *edges]:
        here = slice(*maps["offsets"][i : i + 2])
        step = 16 * maps["v_len"][i] / (25 * (here.stop - here.start))
        warp = None
        if part == "warp_":
            sums = published["warp_cumsum"][slice(*published["warp_offsets"][i : i + 2])]
            end = 16 * maps["v_len"][i] / 25
            warp = (sums / sums[-1] * end, np.linspace(0.0, end, len(sums)))
        arrays = {"cas": maps["tcam"][here], "attention": maps["attention"][here], "logits": maps["logits"][here]}
        found = ORACLES[file](Video("v", arrays, {"video": maps["video_scores"][i]}, step, warp=warp))
        expected = rows[offsets[i] : offsets[i + 1]][:, [1, 3, 4, 2]]
        for c in range(20):
            if not (fragile == (i, c)).all(axis=1).any():
                mine, theirs = (_in_one_order(table[table[:, 0] == c]) for table in (found, expected))
                assert_allclose(mine, theirs, rtol=0, atol=1e-6, err_msg=f"{file}, {maps['names'][i]}, class {c}")
                compared += len(theirs)
    assert compared > 50


def _in_one_order(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(rows.round(6).T)]


# ------------------------------------------------------------------------------------------- proposals that are given

DECAY = oracle.gaussian
AF = {"least": 0.001}
GIVEN: dict[str, Callable[[list, tuple[float, float]], np.ndarray]] = {
    "pmil": lambda rows, grid: oracle.pmil(rows),
    "actionformer": lambda rows, grid: oracle.actionformer(
        rows, DECAY(0.5), limit=200, per_class=True, shortest=0.05, grid=grid, **AF
    ),
    "actionformer_anet": lambda rows, grid: oracle.actionformer(
        rows, DECAY(0.75), limit=100, per_class=False, shortest=0.001, voting=0.9, by_overlap=True, grid=grid, **AF
    ),
    "actionformer_epic": lambda rows, grid: oracle.actionformer(
        rows, DECAY(0.4), limit=2000, per_class=True, shortest=0.05, grid=grid, **AF
    ),
    "actionformer_ego4d": lambda rows, grid: oracle.actionformer(
        rows, DECAY(0.9), limit=2000, per_class=True, shortest=0.05, grid=grid, **AF
    ),
    "opentad": lambda rows, grid: oracle.actionformer(
        rows, DECAY(0.5), limit=2000, per_class=True, top=2000, grid=grid, decimals=(2, 4), **AF
    ),
    "opentad_anet": lambda rows, grid: oracle.actionformer(
        rows, DECAY(0.75), limit=100, per_class=False, top=2000, voting=0.9, grid=grid, decimals=(2, 4), **AF
    ),
    "opentad_bmn_recall": lambda rows, grid: oracle.actionformer(
        rows, oracle.improved(0.4, 0.5, 0.4), limit=100, per_class=False, floor=None, voting=0.95
    ),
    "mmaction_bmn": lambda rows, grid: oracle.mmaction(rows, 0.4, 0.5, 0.9, 100),
    "mmaction_bsn": lambda rows, grid: oracle.mmaction(rows, 0.75, 0.65, 0.9, 100),
    "mmaction_tcanet": lambda rows, grid: oracle.mmaction(rows, 0.4, 0.0, 0.0, 100),
    "mmaction_drn": lambda rows, grid: oracle.mmaction(rows, 0.4, 0.5, 0.9, 5),
}


@pytest.mark.parametrize("count", [0, 1, 2, 300])
@pytest.mark.parametrize("preset", GIVEN)
def test_presets_of_given_proposals_equal_their_literal_chains(preset, count):
    """Two classes; some proposals too short, some with scores below every floor, some that stick out of the video."""
    rng = np.random.default_rng(count)
    relative = preset.startswith("mmaction") or preset == "opentad_bmn_recall"
    middle, length = rng.uniform(0, 1, count), rng.uniform(0, 0.3, count) ** 2
    length[3::20] = 1e-6
    segments = np.column_stack([middle - length, middle + length]) * (1.0 if relative else 400.0)
    scores = rng.uniform(0, 1, count) ** 2
    scores[5::20] = 1e-4 * rng.uniform(0, 1, len(scores[5::20]))
    labels = rng.integers(0, 2, count)
    if preset == "pmil":
        scores = scores - 0.1
    given = Segments(segments, labels, scores, unit="relative" if relative else "snippet")
    video = Video("v", {}, seconds_per_snippet=0.3, duration=119.0, proposals=given)
    found = PostProcessor.from_preset(preset)(video)
    expected = GIVEN[preset](np.column_stack([labels, segments, scores]).tolist(), (0.3, 119.0))
    assert_same(found, expected, preset)
    if count == 300:
        assert 5 < len(expected) <= 300
        assert found.unit == ("relative" if relative else "snippet" if preset == "pmil" else "second")


@pytest.mark.parametrize(
    ("preset", "key", "changes"),
    [
        ("actionformer", "af_batched_multiclass_soft", {}),
        ("actionformer_anet", "af_batched_agnostic_soft_vote0.9", {}),
        ("actionformer_ego4d", "af_batched_agnostic_soft_novote", {"min_score": 0.01, "per_class": False}),
        ("opentad", "ot_multiclass_soft", {"max_detections": 200}),
        ("opentad_anet", "ot_agnostic_soft_vote0.9", {}),
        ("opentad_bmn_recall", "ot_method3_t0.5_0.4", {"sigma": 0.5, "min_score": 0.001}),
        ("mmaction_bmn", "mm_bmn_a0.4_l0.5_h0.9_k100", {}),
        ("mmaction_bsn", "mm_bsn_a0.75_l0.65_h0.9_k100", {}),
        ("mmaction_tcanet", "mm_tcanet_a0.4_l0_h0_k100", {}),
    ],
)
def test_published_suppressors_prove_the_presets(golden, preset, key, changes):
    """What the published function returned for the suppression and the voting of a preset."""
    arrays, stages = golden("nms"), presets.get(preset).stages
    stages = tuple(stage for stage in stages if isinstance(stage, SoftNms | Vote))
    if key == "ot_method3_t0.5_0.4":
        stages = stages[:1]  # called without voting
    stages = (replace(stages[0], **changes), *stages[1:])
    voted = isinstance(stages[-1], Vote)
    process = PostProcessor(Pipeline(stages=stages))
    compared = 0
    for i in np.flatnonzero(arrays[f"{key}__used"] & arrays[f"{key}__stable"]):
        rows = slice(*arrays["set_offsets"][i : i + 2])
        given = Segments(arrays["segments"][rows], arrays["labels"][rows], arrays["scores"][rows])
        if key.startswith("mm_"):
            given = given.replace(labels=np.zeros(len(given), np.int64))
        found = process(Video("v", {}, proposals=given))
        here = slice(*arrays[f"{key}__offsets"][i : i + 2])
        score, start, end = (arrays[f"{key}__{name}"][here].astype(np.float64) for name in ("score", "start", "end"))
        label = np.zeros(len(score)) if key.startswith("mm_") else arrays[f"{key}__label"][here]
        order = np.lexsort((-score, label))
        assert_array_equal(found.labels, label[order])
        assert_allclose(found.scores, score[order], rtol=0, atol=1e-6)
        boundaries = np.column_stack([start, end])[order]
        assert_allclose(found.segments, boundaries, rtol=1e-6 if voted else 0, atol=1e-6 if voted else 0)
        compared += len(score)
    assert compared > 100


# ------------------------------------------------------------------------------------------------- number by number

CANDIDATE = Overlap(kind="candidate", length_offset=1.0)
PLUS_ONE = Overlap(length_offset=1.0)
GAUFUSE = Fuse(
    threshold=0.25, temperature=0.2, weights="inner", overlap=CANDIDATE, signed_denominator=True, ties="last"
)
SOFT = SoftNms(sigma=0.3, overlap=PLUS_ONE, decay_negative=True)


def hard(threshold: float) -> tuple[Seconds, Nms]:
    return Seconds(), Nms(threshold=threshold, overlap=PLUS_ONE, inclusive=True, ties="last")


def over_candidate(threshold: float) -> Nms:
    return Nms(threshold=threshold, overlap=CANDIDATE, ties="last")


def compiled(min_score: float | None = 0.001, **options) -> SoftNms:
    return SoftNms(overlap=Overlap(area_eps=1e-6), min_score=min_score, keep_first=True, **options)


def gated(sigma: float, gate: tuple[float, float], count: int) -> SoftNms:
    return SoftNms(method="gated", sigma=sigma, gate=gate, max_detections=count, per_class=False)


ABOVE_025 = Classes(threshold=0.25, inclusive=False, fallback="argmax")
ABOVE_01 = Classes(threshold=0.1, inclusive=False, fallback="argmax")
ENOUGH, IN_VIDEO, ROUNDED = Keep(min_score=0.001, min_length=0.05), Seconds(clamp=True), Round(segments=2, scores=4)
TWO_STREAM = [round(0.1 + 0.025 * k, 3) for k in range(33)]
PTLR = [round(0.025 * k, 3) for k in range(21)]

# threshold lists, shortest run of every bank, classes, stages
NUMBERS = {
    "gaufuse_thumos": ([RSKP], 2, Classes(threshold=0.16), (GAUFUSE,)),
    "gaufuse_thumos_nms": ([RSKP], 2, Classes(threshold=0.16), (over_candidate(0.25),)),
    "gaufuse_thumos_pseudo": ([RSKP], 2, Classes(threshold=0.16), (replace(GAUFUSE, temperature=0.1),)),
    "rskp_thumos": ([RSKP], 2, Classes(threshold=0.1), (over_candidate(0.5),)),
    "facnet_thumos": ([FACNET], 3, Classes(threshold=0.1), (over_candidate(0.2),)),
    "basnet_thumos": ([BASNET], 1, Classes(threshold=0.25, inclusive=False), hard(0.7)),
    "um_thumos": ([BASNET, MAGNITUDE], 2, Classes(threshold=0.2, fallback="argmax"), hard(0.6)),
    "lacp_thumos": ([BASNET, FOREGROUND], 1, Classes(threshold=0.5, fallback="argmax"), hard(0.7)),
    "cola_thumos": ([BASNET, ACTIONNESS], 2, Classes(threshold=0.2, fallback="argmax"), hard(0.6)),
    "cola_anet12": ([ANET12, ACTIONNESS], 2, Classes(threshold=0.1, fallback="argmax"), hard(0.6)),
    "asl_thumos": ([ASL], 1, Classes(threshold=0.25, fallback="argmax"), hard(0.4)),
    "acmnet_thumos": ([ASMLOC, ACMNET], 2, ABOVE_025, hard(0.55)),
    "acmnet_anet13": ([ANET13, ANET13], 2, ABOVE_01, hard(0.9)),
    "asmloc_thumos": ([ASMLOC, ACTIONNESS], 2, ABOVE_025, hard(0.45)),
    "asmloc_thumos_pseudo": (
        [PSEUDO],
        2,
        ABOVE_025,
        (*hard(0.45), Keep(cumulative=0.7, per="class"), Expand(ratio=1.0)),
    ),
    "asmloc_anet13": ([ANET13, ANET13], 2, ABOVE_01, hard(0.9)),
    "asmloc_anet13_pseudo": ([PSEUDO_ANET13], 2, ABOVE_01, (*hard(0.9), Keep(cumulative=0.3, per="class"))),
    "hamnet_thumos": ([HAMNET], 1, Classes(threshold=0.2), (Seconds(), SOFT)),
    "hamnet_anet12": ([HAMNET], 1, Classes(threshold=0.2), (Seconds(), SOFT)),
    "co2net_thumos": ([HAMNET], 1, Classes(threshold=0.2, fallback="argmax"), (SOFT,)),
    "co2net_anet12": ([HAMNET], 1, Classes(threshold=0.2, fallback="argmax"), (SOFT,)),
    "delu_thumos": ([DELU], 1, Classes(threshold=0.2, fallback="argmax"), (SOFT,)),
    "delu_thumos_test": ([DELU], 1, Classes(threshold=0.2, fallback="argmax"), (SOFT, Keep(min_length=1.0))),
    "delu_anet12": ([DELU], 1, Classes(threshold=0.2, fallback="argmax"), (SOFT,)),
    "wtalc_thumos": ([[0.5]], 2, Classes(threshold=0.0, inclusive=False), ()),
    "cmcs_thumos": ([[1.0]], 1, Classes(threshold=0.1, inclusive=False), (IN_VIDEO, ROUNDED)),
    "cmcs_anet": ([[1e-7]], 1, Classes(threshold=0.1, inclusive=False), (IN_VIDEO,)),
    "pmil_thumos": ([], 0, None, (SOFT,)),
    "actionformer_thumos": ([], 0, None, (ENOUGH, compiled(sigma=0.5, max_detections=200), IN_VIDEO)),
    "actionformer_anet": (
        [],
        0,
        None,
        (
            Keep(min_score=0.001, min_length=0.001),
            compiled(sigma=0.75, max_detections=100, per_class=False),
            Vote(threshold=0.9, times_iou=True, per_class=False),
            IN_VIDEO,
        ),
    ),
    "actionformer_epic": ([], 0, None, (ENOUGH, compiled(sigma=0.4, max_detections=2000), IN_VIDEO)),
    "actionformer_ego4d": ([], 0, None, (ENOUGH, compiled(sigma=0.9, max_detections=2000), IN_VIDEO)),
    "opentad_thumos": (
        [],
        0,
        None,
        (Keep(min_score=0.001, top=2000), compiled(sigma=0.5, max_detections=2000), IN_VIDEO, ROUNDED),
    ),
    "opentad_anet": (
        [],
        0,
        None,
        (
            Keep(min_score=0.001, top=2000),
            compiled(sigma=0.75, max_detections=100, per_class=False),
            Vote(threshold=0.9, per_class=False),
            IN_VIDEO,
            ROUNDED,
        ),
    ),
    "opentad_bmn_recall": (
        [],
        0,
        None,
        (
            compiled(
                method="improved", gate=(0.5, 0.4), sigma=0.4, max_detections=100, min_score=None, per_class=False
            ),
            Vote(threshold=0.95, per_class=False),
        ),
    ),
    "mmaction_bmn": ([], 0, None, (gated(0.4, (0.5, 0.9 - 0.5), 101),)),
    "mmaction_bsn": ([], 0, None, (gated(0.75, (0.65, 0.9 - 0.65), 101),)),
    "mmaction_tcanet": ([], 0, None, (gated(0.4, (0.0, 0.0), 101),)),
    "mmaction_drn": ([], 0, None, (gated(0.4, (0.5, 0.9 - 0.5), 6),)),
    "gaufuse_paper_thumos": ([RSKP], 2, Classes(threshold=0.16), (Fuse(threshold=0.25, temperature=0.03),)),
    "gaufuse_paper_thumos_pseudo": ([RSKP], 2, Classes(threshold=0.16), (Fuse(threshold=0.25, temperature=0.1),)),
    "two_stream_thumos": ([TWO_STREAM], 1, Classes(threshold=0.1), (Nms(threshold=0.5),)),
    "two_stream_anet13": ([[0.005, 0.01, 0.015, 0.02, 0.025]], 1, Classes(threshold=0.1), (Nms(threshold=0.5),)),
    "ptlr_thumos": ([PTLR, PTLR], 1, None, (Nms(threshold=0.7),)),
    "ptlr_anet13": ([PTLR, PTLR], 1, None, (Nms(threshold=0.7),)),
}  # fmt: skip

DECIMALS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
LITERAL_ANET = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
# Where the published evaluators look, as they write it: for THUMOS14, and for ActivityNet.
TIOUS = {
    ("gaufuse", "gaufuse_paper", "rskp", "facnet", "two", "ptlr"): (DECIMALS[:7], LITERAL_ANET),
    ("um", "lacp", "cola"): (np.linspace(0.1, 0.7, 7), np.linspace(0.5, 0.95, 10)),
    ("basnet", "asl", "hamnet"): (np.linspace(0.1, 0.9, 9), np.linspace(0.5, 0.95, 10)),
    ("asmloc", "acmnet"): (np.arange(0.1, 1, 0.1), np.arange(0.5, 1, 0.05)),
    ("co2net", "delu", "pmil"): (DECIMALS, LITERAL_ANET),
    ("wtalc",): (DECIMALS[:5], None),
    ("cmcs",): (DECIMALS, np.linspace(0.5, 0.95, 10)),
    ("opentad",): (DECIMALS[2:7], LITERAL_ANET),
    ("actionformer",): (np.linspace(0.3, 0.7, 5), np.linspace(0.5, 0.95, 10)),
    ("mmaction",): (None, np.linspace(0.5, 0.95, 10)),
}
ANET_ONLY = ("opentad_bmn_recall", "mmaction_bmn", "mmaction_bsn", "mmaction_tcanet", "mmaction_drn")

# margin, weight of the outer score, of the video score of every bank, constant
OIC_A = Margin(scale=0.25, layout="oic_a")
SCORES = {
    "gaufuse": (Margin(scale=0.0785, power=0.9, layout="oic_b"), 1.0, [0.0], 0.0),
    "gaufuse_paper": (Margin(scale=0.25, layout="symmetric"), 1.0, [0.0], 0.0),
    "rskp": (Margin(scale=0.25, layout="oic_b"), 1.0, [0.0], 0.0),
    "facnet": (Margin(scale=0.25, layout="oic_b"), 0.6, [0.0], 0.0),
    "basnet": (OIC_A, 1.0, [0.0], 0.2),
    "um": (OIC_A, 1.0, [0.2, 0.2], 0.0),
    "lacp": (OIC_A, 1.0, [0.2, 0.2], 0.0),
    "cola": (OIC_A, 1.0, [0.2, 0.2], 0.0),
    "asl": (OIC_A, 1.0, [0.2], 0.0),
    "asmloc": (Margin(scale=0.2, layout="oic_a"), 1.0, [0.0, 0.0], 0.0),
    "acmnet": (Margin(scale=0.2, layout="oic_a"), 1.0, [0.0, 0.0], 0.0),
    "asmloc_anet13": (Margin(scale=0.15, layout="oic_a"), 1.0, [0.0, 0.25], 0.0),
    "acmnet_anet13": (Margin(scale=0.15, layout="oic_a"), 1.0, [0.0, 0.25], 0.0),
    "hamnet": (OIC_A, 1.0, [0.2], 0.0),
    "co2net": (OIC_A, 1.0, [0.2], 0.0),
    "delu": (OIC_A, 1.0, [0.2], 0.0),
    "wtalc": (None, 1.0, [0.7], 0.0),
    "cmcs": (Margin(scale=0.25, layout="cmcs"), 1.0, [0.25], 0.0),
    "two": (Margin(scale=0.2, denominator="fixed"), 1.0, [0.2], 0.0),
    "ptlr": (Margin(scale=0.25), 1.0, [0.0, 0.0], 0.0),
}

# family: inclusive and positive comparison, first step alone skipped, upsampling, end, background, protocol
FAMILIES = {
    ("gaufuse", "rskp", "facnet"): (False, False, 1, 1, "last", "wtalc_interpolated"),
    ("gaufuse_paper",): (False, False, 1, 0, "last", "wtalc_interpolated"),
    ("basnet", "um", "lacp", "cola"): (True, True, 24, 0, "last", "activitynet"),
    ("asl",): (True, True, 24, 0, "none", "activitynet"),
    ("asmloc", "acmnet"): (True, True, 20, 0, "last", "activitynet"),
    ("wtalc",): (False, False, 1, 0, "none", "wtalc"),
    ("cmcs",): (False, False, 16, 0, "last", "activitynet"),
    ("pmil",): (None, None, None, None, "none", "activitynet_snippet"),
    ("actionformer",): (None, None, None, None, "none", "actionformer"),
    ("opentad",): (None, None, None, None, "none", "opentad"),
    ("mmaction",): (None, None, None, None, "none", "mmaction"),
    ("hamnet",): (False, True, 1, 0, "last", "activitynet"),
    ("co2net", "delu"): (False, True, 1, 0, "last", "activitynet_snippet"),
    ("two",): (False, False, 1, 0, "first", "activitynet"),
    ("ptlr",): (True, False, 1, 0, "first", "activitynet"),
}


# how instances become pseudo labels: released code of GauFuse, and its paper
LABELS = {
    "gaufuse": LinPro(normalization="sum", upper_bound=1.0, margin_scale=0.0785, margin_power=0.9, layout="gaufuse"),
    "gaufuse_paper": LinPro(
        normalization="sum", upper_bound=None, margin_scale=0.25, margin_power=1.0, layout="symmetric"
    ),
}


def test_every_preset_has_its_numbers_written_down():
    assert tuple(NUMBERS) == presets.names()


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_every_preset(name):
    pipeline: Pipeline = presets.get(name)
    thresholds, min_length, classes, stages = NUMBERS[name]
    kin = "gaufuse_paper" if name.startswith("gaufuse_paper") else name.split("_")[0]
    assert len(pipeline.banks) == len(thresholds)
    assert pipeline.classes == classes
    assert pipeline.stages == stages
    for number, (bank, values) in enumerate(zip(pipeline.banks, thresholds)):
        assert_array_equal(bank.thresholds, values)
        assert bank.min_length == min_length
        assert bank.relative == {"wtalc": "below_max", "cmcs": "times_mean"}.get(kin, "absolute")
        assert bank.dilate == (20 if kin == "cmcs" else 0)
        score = bank.score
        margin, outer_weight, video_weights, constant = SCORES.get(name.removesuffix("_pseudo"), SCORES[kin])
        assert (score.margin, score.outer_weight, score.constant) == (margin, outer_weight, constant)
        assert score.video_weight == video_weights[number]
        assert (score.inner, score.scale) == ("max" if kin == "wtalc" else "mean", 1.0)

    family = next(names for names in FAMILIES if kin in names)
    inclusive, skips, upsample, end, background, protocol = FAMILIES[family]
    for bank in pipeline.banks:
        assert (bank.inclusive, bank.positive) == (inclusive, inclusive)
        assert (bank.skip_lone_first, bank.upsample, bank.extend_end) == (skips, upsample, end)
    sizes = {"thumos": 20, "anet12": 100, "anet13": 200}
    if not pipeline.banks:
        assert pipeline.num_classes is None
        assert pipeline.map_names() == ()
    elif name == "cmcs_anet":
        assert (pipeline.background, pipeline.num_classes) == ("last", None)
    elif name == "gaufuse_thumos_pseudo":
        assert (pipeline.background, pipeline.num_classes) == ("none", None)  # a pseudo label for background, too
    else:
        assert (pipeline.background, pipeline.num_classes) == (background, sizes[next(n for n in sizes if n in name)])
    assert pipeline.protocol == protocol
    if name in ("actionformer_epic", "actionformer_ego4d"):
        tious = np.linspace(0.1, 0.5, 5)
    else:
        tious = next(pair for names, pair in TIOUS.items() if kin in names)["_anet" in name or name in ANET_ONLY]
    assert_array_equal(pipeline.tiou_thresholds, tious)
    assert pipeline.labels == LABELS.get(kin)
    if family[0] in ("hamnet", "co2net"):
        ratio = 20 if name == "hamnet_anet12" else 10
        assert pipeline.video_scores == TopKMean(map="logits*attention", ratio=ratio)
    elif kin == "wtalc":
        assert pipeline.video_scores == TopKMean(map="cas", ratio=8, softmax=False)
    else:
        assert pipeline.video_scores is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gaufuse", "gaufuse_thumos_pseudo"),
        ("gaufuse_thumos_pseudo", "gaufuse_thumos_pseudo"),
        ("gaufuse_nms", "gaufuse_thumos_nms"),
        ("gaufuse_paper", "gaufuse_paper_thumos_pseudo"),
        ("ptlr_anet13", "ptlr_anet13"),
        ("asmloc", "asmloc_thumos_pseudo"),
        ("asmloc_anet13", "asmloc_anet13_pseudo"),
    ],
)
def test_labels_are_made_by_the_partner_of_a_preset(name, expected):
    pipeline = presets.get(expected)
    assert presets.for_labels(name) == replace(pipeline, labels=pipeline.labels or LinPro())
    assert presets.for_labels(name).labels is not None
    with pytest.raises(ValueError, match="`name` must be one of"):
        presets.for_labels("nothing")


def test_the_paper_of_gaufuse_ends_its_instances_where_they_end():
    """Its code reports an end one snippet late, and counts that snippet as inside."""
    tcam = np.zeros((12, 21))
    tcam[3:7, 2] = 0.9
    video_scores = np.where(np.arange(21) == 2, 0.9, 0.0)
    code, paper = (PostProcessor.from_preset(name)(tcam, video_scores) for name in ("gaufuse", "gaufuse_paper"))
    assert_allclose(np.c_[code.segments, code.scores], [[3, 8, 0.72]], atol=1e-9)
    assert_allclose(np.c_[paper.segments, paper.scores], [[3, 7, 0.9]], atol=1e-9)


def test_the_table_has_all_presets_and_what_settings_cannot_say():
    header, *rows = presets.table()
    assert [row[0] for row in rows] == [*presets.names(), *presets.elsewhere()]
    assert {len(row) for row in rows} == {len(header)}
    shown = {row[0]: " | ".join(row[1:]) for row in rows}
    for name, words in {
        "facnet_thumos": ("> 5 from 0.03 to 0.05", "3 / e + 1", "mean - 0.6 outer, oic_b 0.25 n", "Nms share +1 > 0.2"),
        "basnet_thumos": (
            "cas, minmax_relu |",
            "≥ 10 from 0 to 0.225, > 0",
            "zeroed, + 0.2 |",
            "tIoU +1 ≥ 0.7 | second",
        ),
        "acmnet_anet13": (
            "on 0.7 cas + 0.3 attention, + 0.25 video",
            "> 0.1, or the best",
            "activitynet | 10 from 0.5",
        ),
        "hamnet_anet12": ("≥ 0.2, best T / 20", "SoftNms gaussian, σ = 0.3, +1 | second"),
        "cmcs_thumos": ("cas, minmax |", "> 1 mean, dilated by 20 |", "Seconds in the video, Round 2, 4 | second"),
        "wtalc_thumos": ("> max - 0.5 (max - min)", "max, + 0.7 video"),
        "gaufuse_thumos": ("0.0785 n^0.9", "Fuse share +1 > 0.25, T = 0.2 | snippet"),
        "actionformer_anet": ("proposals", "top 100, all classes, Vote ≥ 0.9 by tIoU, Seconds in the video"),
        "opentad_thumos": ("Keep score > 0.001, top 2000, SoftNms gaussian, σ = 0.5, ≥ 0.001", "Round 2, 4 | second"),
        "mmaction_bsn": ("SoftNms gated, σ = 0.75, 0.65 + 0.25 length, top 101, all classes | as given",),
        "asmloc_thumos_pseudo": ("Keep share per class ≤ 0.7, Expand 1",),
        "ptlr_thumos": ("ots; rts", "| all |"),
        "stpn_thumos": ("no settings, but compat.stpn: suppresses only",),
    }.items():
        for word in words:
            assert word in shown[name], (name, word)


def test_aliases_leave_out_thumos14_and_no_other_data_set():
    assert presets.aliases()["asmloc_pseudo"] == "asmloc_thumos_pseudo"
    assert not any("anet" in name for name in presets.aliases())
    assert not set(presets.elsewhere()) & (set(presets.names()) | set(presets.aliases()))
    for module in presets.elsewhere().values():
        importlib.import_module(f"tal_postproc.{module}")
