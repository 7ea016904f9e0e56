"""The chain for batches of tensors: for every preset and setting what the core gives on the same videos."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

torch = pytest.importorskip("torch")

import tal_postproc as tpp  # noqa: E402
import tal_postproc.torch as tpt  # noqa: E402
from tal_postproc import Segments, Video, config, presets  # noqa: E402
from tal_postproc.torch import _ragged  # noqa: E402

from .test_pipeline import LISTED, golden_video, random_maps  # noqa: E402

MAPS = ("cas", "logits", "ots", "rts")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def some_videos(rng, lengths=(0, 1, 2, 3, 40, 70, 25), classes=4, scale=1.0):
    """Videos with all maps that presets read."""
    videos = []
    for i, length in enumerate(lengths):
        maps = {name: random_maps(rng, length, classes) * scale + rng.random((length, classes)) * 5e-3 for name in MAPS}
        for name in ("attention", "magnitude", "flow_act", "rgb_act"):
            maps[name] = random_maps(rng, length, 1)[:, 0]
        videos.append(Video(f"v{i}", maps, {"video": rng.random(classes)}, 0.5 + i / 10, duration=30.0))
    return videos


def as_lists(videos, dtype=torch.float64):
    """The arguments of a call, maps as lists."""
    given = {
        "maps": {name: [torch.from_numpy(v.maps[name]).to(dtype) for v in videos] for name in videos[0].maps},
        "seconds_per_snippet": [v.seconds_per_snippet or np.nan for v in videos],
        "duration": [v.duration or np.nan for v in videos],
        "video_ids": [v.id for v in videos],
    }
    if videos[0].scores:
        given["video_scores"] = torch.from_numpy(np.stack([v.scores["video"] for v in videos]))
    if any(v.warp for v in videos):
        given["warp"] = [v.warp for v in videos]
    return given


def as_padded(videos, fill=float("nan")):
    """The arguments of a call, maps padded with what must not be looked at."""
    given = as_lists(videos)
    given["lengths"] = torch.tensor([v.num_snippets for v in videos])
    longest = int(given["lengths"].max()) + 3
    for name, parts in given["maps"].items():
        given["maps"][name] = block = torch.full((len(videos), longest, *parts[0].shape[1:]), fill, dtype=torch.float64)
        for row, part in zip(block, parts):
            row[: len(part)] = part
    return given


def assert_same(found, expected, atol=1e-9):
    """The rows of both, in one order; integers are equal."""
    assert isinstance(found, Segments)
    assert (found.unit, found.video_ids) == (expected.unit, expected.video_ids)
    assert_array_equal(found.offsets, expected.offsets)
    assert_array_equal(found.labels, expected.labels)
    assert found.columns.keys() == expected.columns.keys()
    pairs = {name: (column, expected.columns[name]) for name, column in found.columns.items()}
    pairs |= {name: (getattr(found, name), getattr(expected, name)) for name in ("segments", "scores")}
    for name, (one, other) in pairs.items():
        assert one.dtype == other.dtype, name
        assert_allclose(one, other, rtol=0, atol=0 if one.dtype.kind == "i" else atol, err_msg=name)


def check(pipeline, videos, **options):
    """What the batch gives is what the core gives."""
    expected = Segments.concatenate(tpp.PostProcessor(pipeline).process(videos, 1))
    process = tpt.PostProcessor(pipeline)
    with tpt.backend("batched"):
        found = process(**as_lists(videos))
        padded = process(**as_padded(videos), **options)
    assert_same(found, expected)
    assert_same(padded, expected)
    return found


@pytest.mark.parametrize("name", [name for name in presets.names() if presets.get(name).banks])
def test_every_preset_gives_what_the_core_gives(rng, name):
    low = name.startswith(("rskp", "gaufuse", "facnet")) or name == "two_stream_anet13"
    videos = some_videos(rng, scale=0.06 if low else 1.0)
    found = check(presets.get(name), videos)
    assert len(found) > 10
    with tpt.backend("core"):
        assert_same(tpt.PostProcessor.from_preset(name)(**as_padded(videos)), found)


@pytest.mark.parametrize("name", [name for name in presets.names() if not presets.get(name).banks])
def test_every_preset_of_given_proposals_gives_what_the_core_gives(rng, name):
    counts, step, duration = (0, 40, 90), 0.5, 45.0
    start = rng.uniform(-2, 90, sum(counts))
    given = Segments(
        np.column_stack([start, start + rng.uniform(0, 3, sum(counts)) ** 2]),
        rng.integers(0, 3, sum(counts)),
        rng.uniform(0, 1, sum(counts)),
        np.concatenate([[0], np.cumsum(counts)]),
    )
    process = tpp.PostProcessor.from_preset(name)
    videos = [Video(f"v{i}", {}, {}, step, duration, proposals=part) for i, part in enumerate(given.split())]
    expected = Segments.concatenate(process.process(videos, 1))
    for backend in ("core", "batched"):
        with tpt.backend(backend):
            found = tpt.PostProcessor.from_preset(name)(
                proposals=tpt.Segments.from_numpy(given),
                seconds_per_snippet=step,
                duration=duration,
                video_ids=[video.id for video in videos],
            )
        assert_same(found, expected)
    assert len(expected) > 10


@pytest.mark.parametrize("name", ["gaufuse", "rskp", "basnet", "cola", "asmloc", "hamnet", "co2net"])
def test_the_videos_of_published_outputs(golden, name):
    maps = golden("tcams")
    videos = [golden_video(maps, v, scores=name not in ("hamnet", "co2net")) for v in range(len(maps["names"]))]
    if name == "asmloc":
        for v in range(0, len(videos), 2):
            ends = videos[v].seconds_per_snippet * videos[v].num_snippets
            videos[v] = replace(
                videos[v], warp=(np.array([0.0, 0.3, 0.3, 1.0]) * ends, np.array([0, 0.5, 0.6, 1]) * ends)
            )
    assert len(check(presets.get(name), videos)) > 300


BANK = config.Bank(thresholds=(0.7, 0.1, 0.3, 0.5))
ON_ATTENTION = replace(BANK, signal=config.Signal(mix=(("attention", 1.0),)))
BLEND = config.Signal(mix=(("cas", 0.7), ("attention", 0.3)))
SETTINGS = {
    **{f"listing, {name}": (banks, stages, {}) for name, (banks, stages) in LISTED.items()},
    "dilated": (replace(BANK, dilate=4, min_length=5), (config.Nms(threshold=0.4),), {}),
    "dilated, up to the last snippet, slices around": (
        config.Bank(
            thresholds=(0.3, 0.6),
            signal=config.Signal(extrapolate=False),
            upsample=5,
            dilate=7,
            score=config.Score(margin=config.Margin(layout="cmcs")),
        ),
        (),
        {},
    ),
    "times the mean": (replace(BANK, relative="times_mean"), (), {}),
    "below the maximum": (replace(BANK, relative="below_max", inclusive=True), (), {}),
    "attention alone": (ON_ATTENTION, (), {}),
    "attention, scores on the map": (replace(ON_ATTENTION, score=config.Score(signal=config.Signal())), (), {}),
    "a blend, zero below": (replace(ON_ATTENTION, score=config.Score(signal=BLEND, zero_below=True)), (), {}),
    "a blend, its map zero below": (replace(BANK, score=config.Score(signal=BLEND, zero_below=True)), (), {}),
    "zero below": (replace(BANK, score=config.Score(zero_below=True)), (), {}),
    "no margin, maxima": (replace(BANK, score=config.Score(inner="max", margin=None)), (), {}),
    "a product, upsampled": (
        replace(BANK, signal=config.Signal(mix=(("logits*attention", 2.0),), normalize="minmax"), upsample=3),
        (),
        {},
    ),
    "video scores": (
        replace(BANK, score=config.Score(video_weight=0.5, constant=0.1, scale=2.0)),
        (),
        {"classes": config.Classes(threshold=0.7, inclusive=False, fallback="argmax")},
    ),
    "video scores that are met": (BANK, (), {"classes": config.Classes(threshold=0.5)}),
    "video scores that are not passed": (BANK, (), {"classes": config.Classes(threshold=0.5, inclusive=False)}),
    **{
        f"video scores from maps, {soft}": (
            BANK,
            (),
            {
                "video_scores": config.TopKMean(map="logits*attention", ratio=3, softmax=soft),
                "classes": config.Classes(threshold=0.27 if soft else 0.55),
            },
        )
        for soft in (True, False)
    },
    "background": (BANK, (), {"background": "first", "classes": config.Classes(threshold=0.3)}),
    "fitted fusion": (
        BANK,
        (config.Fuse(threshold=0.3, temperature=0.1, distribution="student_t", dof=3.0, scale="fit"),),
        {},
    ),
    "soft-NMS": (BANK, (config.SoftNms(sigma=0.3, max_detections=3),), {}),
    "soft-NMS of negative scores": (
        replace(BANK, score=config.Score(constant=-0.5)),
        (config.SoftNms(sigma=0.3, min_score=-0.3, decay_negative=True),),
        {},
    ),
    "soft-NMS, linear, the first stays": (
        BANK,
        (config.SoftNms(method="linear", threshold=0.3, min_score=0.6, keep_first=True),),
        {},
    ),
    "fusion of negative scores": (
        replace(BANK, score=config.Score(constant=-0.5)),
        (config.Fuse(threshold=0.3, temperature=0.1, signed_denominator=True),),
        {},
    ),
    "voting": (BANK, (config.Nms(threshold=0.1), config.Vote(threshold=0.2, times_iou=True)), {}),
    "voting of all classes": (BANK, (config.Nms(threshold=0.1), config.Vote(threshold=0.2, per_class=False)), {}),
    "fusion of scores": (BANK, (config.Fuse(threshold=0.3, temperature=0.1, weights="threshold"),), {}),
    "the best": (BANK, (config.Keep(min_score=0.1, min_length=1.0, top=3, cumulative=0.8),), {}),
    "the best of each class": (BANK, (config.Keep(top=2, per="class"),), {}),
    "most of the scores, and negative ones": (BANK, (config.Keep(cumulative=0.5),), {}),
    "most of the scores": (BANK, (config.Keep(min_score=0.0, cumulative=0.5),), {}),
    "seconds": (BANK, (config.Expand(ratio=0.3), config.Seconds(clamp=True), config.Expand(ratio=0.1)), {}),
    "fused seconds": (BANK, (config.Fuse(threshold=0.3, temperature=0.1), config.Seconds()), {}),
    "rounded": (BANK, (config.Expand(ratio=0.11), config.Round(segments=1, scores=2)), {}),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_every_setting_does_what_it_does_in_the_core(rng, case):
    bank, stages, fields = SETTINGS[case]
    videos = some_videos(rng)
    if "from maps" in case:
        videos = [replace(video, scores={}) for video in videos]
    if "that are" in case:
        videos = [replace(video, scores={"video": np.array([0.5, 0.75, 0.25, 0.5])}) for video in videos]
    if "seconds" in case:
        warp = np.array([0.0, 5.0, 5.0, 60.0]), np.array([1.0, 9.0, 10.0, 50.0])
        videos = [replace(video, warp=warp if i % 2 else None) for i, video in enumerate(videos)]
    other = replace(bank, thresholds=(0.2, 0.6), score=config.Score())
    for banks in ((bank,), (bank, other)):
        assert len(check(config.Pipeline(banks=banks, stages=stages, **fields), videos)) > 5


def test_sums_of_another_device_give_the_same_rows(rng, monkeypatch):
    monkeypatch.setattr("tal_postproc.torch._sequences._on_cpu", lambda tensor: False)
    videos = some_videos(rng)
    for name in ("gaufuse", "cola", "basnet", "hamnet", "two_stream"):
        check(presets.get(name), videos)


def test_plateaus_and_thresholds_met_exactly(rng):
    for name in ("two_stream", "ptlr", "cola", "basnet", "gaufuse"):
        videos = []
        for i in range(8):
            maps = {key: np.round(rng.uniform(-0.2, 1, (30, 3)) * 8) / 8 for key in MAPS}
            maps["attention"] = np.round(rng.uniform(-0.2, 1, 30) * 8) / 8
            videos.append(Video(f"v{i}", maps, {"video": rng.random(3)}, seconds_per_snippet=0.5))
        check(presets.get(name), videos)


@pytest.mark.parametrize("backend", ["core", "batched"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32])
def test_any_dtype_layout_and_history(rng, backend, dtype):
    tcam = torch.from_numpy(np.round(rng.uniform(0, 1, (3, 40, 5)) * 4))
    scores = torch.tensor([[0.5, 0.25, 1.0, 0.0, 0.125]]).expand(3, 5)
    process = tpt.PostProcessor.from_preset("two_stream_thumos", background="none")
    with tpt.backend(backend):
        expected = process(tcam, scores)
        assert len(expected) > 30
        for layout in (lambda t: t, lambda t: t.mT.contiguous().mT, lambda t: t.repeat(1, 1, 2)[..., :5]):
            given = layout(tcam.to(dtype))
            before = given.clone()
            for history in (True, False):
                assert_same(process(given.requires_grad_(history and dtype.is_floating_point), scores), expected, 0)
            assert torch.equal(given, before)


@pytest.mark.parametrize("backend", ["core", "batched"])
def test_one_video_is_a_batch_of_one(rng, backend):
    video = some_videos(rng, (50,))[0]
    tcam, attention = (torch.from_numpy(video.maps[name]) for name in ("cas", "attention"))
    scores = torch.from_numpy(video.scores["video"])
    process = tpt.PostProcessor.from_preset("cola")
    expected = replace(tpp.PostProcessor.from_preset("cola")(video), video_ids=())
    with tpt.backend(backend):
        assert_same(process(tcam, scores, attention=attention, seconds_per_snippet=0.5), expected)
        batch = process(tcam[None], scores[None], attention=attention[None], seconds_per_snippet=torch.tensor([0.5]))
        assert_same(batch, expected)
        on = process([tcam], scores[None], attention=[attention], seconds_per_snippet=0.5, on_device=True)
        assert isinstance(on, tpt.Segments)
        assert_same(on.numpy(), expected)
        short = process(tcam, scores, attention=attention, seconds_per_snippet=0.5, lengths=20)
        cut = replace(video, maps={"cas": video.maps["cas"][:20], "attention": video.maps["attention"][:20]})
        assert_same(short, replace(tpp.PostProcessor.from_preset("cola")(cut), video_ids=()))
        warp = np.array([0.0, 5.0, 30.0]), np.array([1.0, 4.0, 25.0])
        bent = process(tcam, scores, attention=attention, seconds_per_snippet=0.5, warp=warp)
        assert_same(bent, replace(tpp.PostProcessor.from_preset("cola")(replace(video, warp=warp)), video_ids=()))


@pytest.mark.parametrize("backend", ["core", "batched"])
@pytest.mark.parametrize("name", ["gaufuse", "cola", "co2net", "rskp"])
def test_nothing_in_nothing_out(backend, name):
    process = tpt.PostProcessor.from_preset(name)
    unit = "second" if name == "cola" else "snippet"
    for count, length, classes in ((0, 5, 3), (2, 0, 3), (2, 5, 0), (2, 5, 3)):
        tcam = torch.zeros(count, length, classes)
        scores = torch.full((count, classes), -1.0)
        with tpt.backend(backend):
            found = process(tcam, scores, attention=torch.zeros(count, length), seconds_per_snippet=1.0)
            assert (len(found), found.num_videos, found.unit) == (0, count, unit)
            assert found.segments.shape == (0, 2)
            on = process(tcam, scores, attention=torch.zeros(count, length), seconds_per_snippet=1.0, on_device=True)
            assert (len(on), on.num_videos, on.unit) == (0, count, unit)
    with tpt.backend(backend):
        assert process([], torch.zeros(0, 3), attention=[]).num_videos == 0


@pytest.mark.parametrize("backend", ["core", "batched"])
def test_given_proposals_go_through_the_stages(backend):
    given = tpt.Segments(
        torch.tensor([[0.0, 4], [1, 5], [8, 9], [0, 4], [0, 5]]),
        torch.tensor([1, 1, 0, 2**40, 2**40]),
        torch.tensor([0.5, 0.9, 0.2, 0.1, 0.3]),
        torch.tensor([0, 3, 5]),
    )
    process = tpt.PostProcessor(config.Pipeline(stages=(config.Nms(threshold=0.3), config.Expand(ratio=0.5))))
    with tpt.backend(backend):
        found = process(proposals=given)
        assert found.segments.tolist() == [[7.75, 9.25], [0, 6], [0, 6.25]]
        assert found.labels.tolist() == [0, 1, 2**40]
        assert found.offsets.tolist() == [0, 2, 3]
        with pytest.raises(ValueError, match=r"`segments` needs start <= end; row 0"):
            process(proposals=tpt.Segments(torch.tensor([[1.0, 0.0]])))


def test_the_same_bytes_however_memory_is_cut(rng, monkeypatch):
    videos = some_videos(rng)
    for name in ("gaufuse", "cola", "co2net"):
        process = tpt.PostProcessor.from_preset(name)
        with tpt.backend("batched"):
            expected = process(**as_padded(videos))
            alone = [process(**as_lists([video])) for video in videos]
            torch.use_deterministic_algorithms(True)
            try:
                assert_same(process(**as_lists(videos)), expected, 0)
            finally:
                torch.use_deterministic_algorithms(False)
            with monkeypatch.context() as patch:
                patch.setitem(_ragged.CHUNK_BYTES, "cpu", 64)
                assert_same(process(**as_lists(videos)), expected, 0)
        assert_same(Segments.concatenate(alone), expected, 0)


@pytest.mark.parametrize("backend", ["core", "batched"])
@pytest.mark.parametrize("name", ["gaufuse", "gaufuse_paper", "cola"])
def test_labels_are_those_of_the_core(rng, backend, name):
    videos = some_videos(rng, scale=1.0 if name == "cola" else 0.06)
    pipeline = presets.for_labels(name)
    rule = dataclasses.asdict(pipeline.labels)
    known = [rng.random(5) < 0.7 for _ in videos]
    lengths = [video.num_snippets for video in videos]
    found = Segments.concatenate(tpp.PostProcessor(pipeline).process(videos, 1))
    if found.unit == "second":
        found = found.to_snippets([video.seconds_per_snippet for video in videos])
    expected = tpp.linpro_label_maps(found, lengths, 5, known_labels=known, background="last", **rule)
    assert sum(one.labels.any() for one in expected) > 2
    process = tpt.PostProcessor(pipeline)
    with tpt.backend(backend):
        for given in (as_padded(videos), as_lists(videos)):
            labels, report = process.labels(**given, num_classes=5, known_labels=known, background="last")
            width = given["maps"]["cas"].shape[1] if "lengths" in given else max(lengths)
            assert labels.shape == (len(videos), width, 6)
            for row, length, one in zip(labels, lengths, expected):
                assert_allclose(row[:length].numpy(), one.labels, rtol=0, atol=1e-9)
                assert not row[length:].any()
            assert_allclose(report.objective.numpy(), [one.objective for one in expected], rtol=0, atol=1e-9)
        if name == "cola":
            warped = as_lists(videos) | {"warp": [([0.0, 1.0], [0.0, 2.0])] * len(videos)}
            with pytest.raises(ValueError, match="instances in seconds need `seconds_per_snippet`, and no `warp`"):
                process.labels(**warped, num_classes=5)


@pytest.mark.parametrize("backend", ["core", "batched"])
def test_errors_name_what_is_wrong(backend):
    process = tpt.PostProcessor.from_preset("rskp")
    tcam, scores = torch.zeros(2, 6, 3), torch.tensor([[0.9, 0.0, 0.0], [0.0, 0.9, 0.0]])
    broken = tcam.clone()
    broken[1, 4, 1] = torch.nan
    with tpt.backend(backend):
        process(broken, scores, lengths=[6, 4])
        process(broken, scores.flip(0))  # not the class that is searched
        with pytest.raises(ValueError, match=r"video 'b': `maps\['cas'\]` must be finite; snippet 4"):
            process(broken, scores, video_ids=["a", "b"])
        with pytest.raises(ValueError, match=r"video '1': `maps\['cas'\]` must lie within"):
            process(broken.double().nan_to_num(1e200), scores)
        with pytest.raises(ValueError, match=r"video '1': `maps\['logits'\]` must be finite; snippet 4"):
            tpt.PostProcessor.from_preset("co2net")(broken, attention=tcam[..., 0])
        with pytest.raises(ValueError, match=r"`scores\['video'\]` must be finite"):
            process(tcam, scores * torch.inf)
        with pytest.raises(ValueError, match=r"`video_scores` is needed: the pipeline searches"):
            process(tcam)
        with pytest.raises(ValueError, match=r"the pipeline needs the map 'cas', got 'rgb'"):
            process(None, scores, maps={"rgb": tcam})
        with pytest.raises(ValueError, match=r"`video_scores` must have 3 classes"):
            process(tcam, torch.ones(2, 5))
        with pytest.raises(ValueError, match=r"`seconds_per_snippet` is needed"):
            tpt.PostProcessor.from_preset("cola")(tcam, scores, attention=tcam[..., 0])
        with pytest.raises(ValueError, match=r"`proposals` are needed"):
            tpt.PostProcessor(config.Pipeline())(tcam)
    with pytest.raises(ValueError, match=r"`cas` must hold the snippets of all videos"):
        process(tcam, scores, lengths=[7, 2])
    with pytest.raises(ValueError, match=r"`lengths` must have shape \(2,\), one per video"):
        process(tcam, scores, lengths=[6])
    with pytest.raises(ValueError, match=r"`video_scores` must have shape \(2, K\)"):
        process(tcam, scores[:1])
    with pytest.raises(TypeError, match=r"`cas` must be a tensor, or a list of them, got ndarray; tal_postproc.PostPr"):
        process(tcam.numpy(), scores)
    with pytest.raises(TypeError, match=r"`tcam`, `maps` or `proposals` must be given"):
        process()
    with pytest.raises(ValueError, match=r"`video_ids` must name 2 videos"):
        process(tcam, scores, video_ids=["a", "a"])
    with pytest.raises(TypeError, match=r"`pipeline` must be a config.Pipeline"):
        tpt.PostProcessor("rskp")


@pytest.mark.gpu
def test_a_device_gives_what_the_core_gives(rng):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    videos = some_videos(rng)
    for name in ("gaufuse", "cola", "asmloc", "co2net", "two_stream"):
        given = as_padded(videos)
        given["maps"] = {key: value.cuda() for key, value in given["maps"].items()}
        given["video_scores"] = given["video_scores"].cuda()
        expected = Segments.concatenate(tpp.PostProcessor.from_preset(name).process(videos, 1))
        assert_same(tpt.PostProcessor.from_preset(name)(**given), expected)
