"""Published presets against literal oracles, which published output proves, and number by number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc import PostProcessor, Video, presets
from tal_postproc.config import Classes, Fuse, Keep, LinPro, Margin, Nms, Overlap, Pipeline, Seconds, SoftNms, TopKMean

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
    "asmloc": lambda v: oracle.asmloc(
        v.maps["cas"],
        v.maps["attention"],
        action(v),
        v.seconds_per_snippet,
        cas_thresholds=ASMLOC,
        attention_thresholds=ACTIONNESS,
        warp=v.warp,
    ),
    "hamnet": lambda v: oracle.hamnet(v.maps["logits"], v.maps["attention"], v.seconds_per_snippet, thresholds=HAMNET),
    "hamnet_anet12": lambda v: oracle.hamnet(
        v.maps["logits"], v.maps["attention"], v.seconds_per_snippet, thresholds=HAMNET, ratio=20
    ),
    "co2net": lambda v: oracle.co2net(v.maps["logits"], v.maps["attention"], thresholds=HAMNET),
    "co2net_anet12": lambda v: oracle.co2net(v.maps["logits"], v.maps["attention"], thresholds=HAMNET),
    "delu": lambda v: oracle.co2net(v.maps["logits"], v.maps["attention"], thresholds=DELU),
    "delu_anet12": lambda v: oracle.co2net(v.maps["logits"], v.maps["attention"], thresholds=DELU),
    "delu_thumos_test": lambda v: oracle.co2net(v.maps["logits"], v.maps["attention"], thresholds=DELU, longer_than=1),
}


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
        knots = np.cumsum([0.0, *rng.random(6)])
        warp = (knots / knots[-1] * length * step, np.linspace(0.0, length * step, 7)) if odd and length else None
        scores = {"video": rng.random(4) * (0.09 if odd else 1.0)}
        videos.append(Video(f"v{i}", maps, scores, seconds_per_snippet=step, warp=warp))
    return videos


def assert_same(found, expected: np.ndarray, what: str) -> None:
    assert_array_equal(found.labels, expected[:, 0], err_msg=what)
    assert_allclose(found.segments, expected[:, 1:3], rtol=0, atol=1e-9, err_msg=what)
    assert_allclose(found.scores, expected[:, 3], rtol=0, atol=1e-9, err_msg=what)


@pytest.mark.parametrize("preset", ORACLES)
def test_presets_equal_their_literal_chains(preset):
    """Videos of every length in one stream.  A warp is ASM-Loc's alone; HAM-Net's kin make their own video scores."""
    videos = random_videos(1, lengths=(0, 1, 2, 3, 25, 60, 25, 60, 4, 5))
    if preset.startswith(("hamnet", "co2net", "delu")):
        videos = [replace(video, scores={}) for video in videos]
    if preset != "asmloc":
        videos = [replace(video, warp=None) for video in videos]
    process = PostProcessor.from_preset(preset, num_classes=3)
    rows = 0
    for video, found in zip(videos, process.process(videos, num_threads=1)):
        expected = ORACLES[preset](video)
        assert_same(found, expected, f"{preset}, {video.id}, T = {video.num_snippets}")
        assert found.unit == ("snippet" if preset.startswith(("co2net", "delu")) else "second")
        rows += len(expected)
    assert rows > 20


@pytest.mark.parametrize(
    ("preset", "level"),
    [("basnet", BASNET[4]), ("cola", BASNET[4]), ("asmloc", ASMLOC[1]), ("co2net", HAMNET[3]), ("delu", DELU[9])],
)
def test_a_plateau_on_a_threshold_counts_as_published(preset, level):
    """Ten snippets exactly on a threshold: reached by BaS-Net's kin, not exceeded for HAM-Net's."""
    rng = np.random.default_rng(6)
    steps = np.repeat([0.0, level, 0.0, 1.0, 0.0], [6, 10, 5, 4, 5])
    maps = {
        "cas": np.column_stack([steps, steps, np.zeros((30, 2))]),
        "attention": steps if preset in ("co2net", "delu") else np.zeros(30),
        "logits": rng.normal(size=(30, 4)) + 2,
    }
    scores = {} if preset in ("co2net", "delu") else {"video": np.array([0.9, 0.3, 0.0, 0.0])}
    video = Video("v", maps, scores, seconds_per_snippet=1.7)
    found = PostProcessor.from_preset(preset, num_classes=3)(video)
    assert_same(found, ORACLES[preset](video), preset)
    on_it = np.abs(found.columns["threshold"] - level) < 1e-12
    assert on_it.any()


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
    "cola_thumos": ([BASNET, ACTIONNESS], 2, Classes(threshold=0.2, fallback="argmax"), hard(0.6)),
    "cola_anet12": ([ANET12, ACTIONNESS], 2, Classes(threshold=0.1, fallback="argmax"), hard(0.6)),
    "asmloc_thumos": (
        [ASMLOC, ACTIONNESS],
        2,
        Classes(threshold=0.25, inclusive=False, fallback="argmax"),
        hard(0.45),
    ),
    "hamnet_thumos": ([HAMNET], 1, Classes(threshold=0.2), (Seconds(), SOFT)),
    "hamnet_anet12": ([HAMNET], 1, Classes(threshold=0.2), (Seconds(), SOFT)),
    "co2net_thumos": ([HAMNET], 1, Classes(threshold=0.2, fallback="argmax"), (SOFT,)),
    "co2net_anet12": ([HAMNET], 1, Classes(threshold=0.2, fallback="argmax"), (SOFT,)),
    "delu_thumos": ([DELU], 1, Classes(threshold=0.2, fallback="argmax"), (SOFT,)),
    "delu_thumos_test": ([DELU], 1, Classes(threshold=0.2, fallback="argmax"), (SOFT, Keep(min_length=1.0))),
    "delu_anet12": ([DELU], 1, Classes(threshold=0.2, fallback="argmax"), (SOFT,)),
    "gaufuse_paper_thumos": ([RSKP], 2, Classes(threshold=0.16), (Fuse(threshold=0.25, temperature=0.03),)),
    "gaufuse_paper_thumos_pseudo": ([RSKP], 2, Classes(threshold=0.16), (Fuse(threshold=0.25, temperature=0.1),)),
    "two_stream_thumos": ([TWO_STREAM], 1, Classes(threshold=0.1), (Nms(threshold=0.5),)),
    "two_stream_anet13": ([[0.005, 0.01, 0.015, 0.02, 0.025]], 1, Classes(threshold=0.1), (Nms(threshold=0.5),)),
    "ptlr_thumos": ([PTLR, PTLR], 1, None, (Nms(threshold=0.7),)),
    "ptlr_anet13": ([PTLR, PTLR], 1, None, (Nms(threshold=0.7),)),
}  # fmt: skip

# margin, weight of the outer score, of the video score, constant
OIC_A = Margin(scale=0.25, layout="oic_a")
SCORES = {
    "gaufuse": (Margin(scale=0.0785, power=0.9, layout="oic_b"), 1.0, 0.0, 0.0),
    "gaufuse_paper": (Margin(scale=0.25, layout="symmetric"), 1.0, 0.0, 0.0),
    "rskp": (Margin(scale=0.25, layout="oic_b"), 1.0, 0.0, 0.0),
    "facnet": (Margin(scale=0.25, layout="oic_b"), 0.6, 0.0, 0.0),
    "basnet": (OIC_A, 1.0, 0.0, 0.2),
    "cola": (OIC_A, 1.0, 0.2, 0.0),
    "asmloc": (Margin(scale=0.2, layout="oic_a"), 1.0, 0.0, 0.0),
    "hamnet": (OIC_A, 1.0, 0.2, 0.0),
    "co2net": (OIC_A, 1.0, 0.2, 0.0),
    "delu": (OIC_A, 1.0, 0.2, 0.0),
    "two": (Margin(scale=0.2, denominator="fixed"), 1.0, 0.2, 0.0),
    "ptlr": (Margin(scale=0.25), 1.0, 0.0, 0.0),
}

# family: inclusive and positive comparison, first step alone skipped, upsampling, end, background, protocol
FAMILIES = {
    ("gaufuse", "rskp", "facnet"): (False, False, 1, 1, "last", "wtalc_interpolated"),
    ("gaufuse_paper",): (False, False, 1, 0, "last", "wtalc_interpolated"),
    ("basnet", "cola"): (True, True, 24, 0, "last", "activitynet"),
    ("asmloc",): (True, True, 20, 0, "last", "activitynet"),
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
    for bank, values in zip(pipeline.banks, thresholds):
        assert_array_equal(bank.thresholds, values)
        assert bank.min_length == min_length
        assert bank.relative == "absolute"
        score = bank.score
        assert (score.margin, score.outer_weight, score.video_weight, score.constant) == SCORES[kin]
        assert (score.inner, score.scale) == ("mean", 1.0)

    family = next(names for names in FAMILIES if kin in names)
    inclusive, skips, upsample, end, background, protocol = FAMILIES[family]
    for bank in pipeline.banks:
        assert (bank.inclusive, bank.positive) == (inclusive, inclusive)
        assert (bank.skip_lone_first, bank.upsample, bank.extend_end) == (skips, upsample, end)
    sizes = {"thumos": 20, "anet12": 100, "anet13": 200}
    if name == "gaufuse_thumos_pseudo":
        assert (pipeline.background, pipeline.num_classes) == ("none", None)  # a pseudo label for background, too
    else:
        assert (pipeline.background, pipeline.num_classes) == (background, sizes[next(n for n in sizes if n in name)])
    assert pipeline.protocol == protocol
    assert pipeline.labels == LABELS.get(kin)
    if family[0] in ("hamnet", "co2net"):
        ratio = 20 if name == "hamnet_anet12" else 10
        assert pipeline.video_scores == TopKMean(map="logits*attention", ratio=ratio)
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
