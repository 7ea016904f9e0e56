"""tal_postproc.torch on a device that is pretended: tensors stay together and on it, and nothing waits per group."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest

from tal_postproc import presets

torch = pytest.importorskip("torch")
import tal_postproc.torch as tpt  # noqa: E402

from . import pretend  # noqa: E402

SEGMENTS = {
    "tiou_matrix": lambda s, q, i: tpt.tiou_matrix(s, s),
    "nms": lambda s, q, i: tpt.nms(s, q, tiou_threshold=0.5),
    "nms, groups, any touch": lambda s, q, i: tpt.nms(s, q, tiou_threshold=0.0, idxs=i),
    "batched_nms": lambda s, q, i: tpt.batched_nms(s, q, i, 0.5),
    "soft_nms, linear": lambda s, q, i: tpt.soft_nms(s, q, method="linear", tiou_threshold=0.3, idxs=i),
    "soft_nms, gated": lambda s, q, i: tpt.soft_nms(s, q, method="gated", gate=(0.2, 0.1), idxs=i),
    "soft_nms": lambda s, q, i: tpt.soft_nms(s, q, min_score=0.05, max_detections=20, idxs=i),
    "segment_voting": lambda s, q, i: tpt.segment_voting(s[:5], s, q, tiou_threshold=0.5, kept_idxs=i[:5], idxs=i),
    "weighted_segment_fusion": lambda s, q, i: tpt.weighted_segment_fusion([s, s + 1], [q, q], [i, i]),
    "linpro_labels": lambda s, q, i: tpt.linpro_labels(s[:20], q[:20], 60),
    "linpro_labels, one component": lambda s, q, i: tpt.linpro_labels(s, q, 60, normalization="sum"),
    "hard_label_map": lambda s, q, i: tpt.hard_label_map(_rows(s, q, i), 60, 3),
    "score_label_map": lambda s, q, i: tpt.score_label_map(_rows(s, q, i), 60, 3),
    "gaussian_label_map": lambda s, q, i: tpt.gaussian_label_map(_rows(s, q, i), 60, 3),
    "tri_state_label_map": lambda s, q, i: tpt.tri_state_label_map(_rows(s, q, i), 60, 3, start_std=q, end_std=q),
    **{
        f"fuse_segments, {name}": lambda s, q, i, name=name: tpt.fuse_segments(
            s, q, tiou_threshold=0.4, temperature=0.2, distribution=name, idxs=i
        )
        for name in ("gaussian", "exponential", "student_t", "uniform")
    },
}
MAPS = {
    "extract_proposals": lambda x: tpt.extract_proposals(x, [0.2, 0.5, 0.7], relative="below_max"),
    "oic_scores": lambda x: tpt.oic_scores(x, tpt.extract_proposals(x, [0.5])),
    "upsample_tcam": lambda x: tpt.upsample_tcam(x, 4),
    "smooth_label_map": lambda x: tpt.smooth_label_map(x),
    "two_threshold_label_map": lambda x: tpt.two_threshold_label_map(x, background_threshold=0.3),
}


def _rows(segments, scores, labels):
    return tpt.Segments(segments, labels, scores, labels.new_tensor([0, len(labels)]))


def _segments(rng, groups: int, size: int):
    start = rng.uniform(0, 50, groups * size)
    segments = np.column_stack((start, start + rng.uniform(0.5, 9, groups * size)))
    return segments, rng.uniform(0.1, 1, groups * size), np.repeat(np.arange(groups), size)


def _tensors(value) -> list:
    """All tensors of a result."""
    if isinstance(value, torch.Tensor):
        return [value]
    if is_dataclass(value):
        value = [getattr(value, field.name) for field in fields(value)]
    if isinstance(value, dict):
        value = list(value.values())
    return [one for part in value for one in _tensors(part)] if isinstance(value, (list, tuple)) else []


def _same(call, *arrays) -> None:
    """On the device: what the batched operations give on the CPU, and all of it on the device."""
    with tpt.backend("batched"):
        expected = _tensors(call(*map(torch.as_tensor, arrays)))
        with pretend.pretended_cuda():
            found = _tensors(call(*map(pretend.put, arrays)))
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected):
        assert isinstance(one, pretend.Pretended)
        assert one.dtype == other.dtype
        torch.testing.assert_close(one.held, other, rtol=0, atol=1e-9)


def test_a_mistake_is_noticed():
    with pretend.pretended_cuda():
        here, there = torch.zeros(3), pretend.put(np.zeros(3))
        assert there.device.type == "cuda"
        assert torch.arange(3, device=there.device).is_cuda
        with pytest.raises(RuntimeError, match="on cuda:0 and on cpu"):
            there + here
        with pytest.raises(RuntimeError):
            there.numpy()
        before = pretend.waits[0]
        assert bool((there == 0).all())
        assert there.cpu().tolist() == [0, 0, 0]
        assert pretend.waits[0] == before + 2


@pytest.mark.parametrize("name", SEGMENTS)
def test_segments_on_a_device(name, rng):
    _same(SEGMENTS[name], *_segments(rng, 3, 20))


@pytest.mark.parametrize("name", MAPS)
def test_maps_on_a_device(name, rng):
    _same(MAPS[name], rng.uniform(0, 1, (40, 4)))


def _given(pipeline, rng, videos: int, place) -> dict:
    """Random maps of four classes, of whatever names a pipeline reads."""
    shapes = {
        name: (videos, 40) if name in ("attention", "actionness") else (videos, 40, 4) for name in pipeline.map_names()
    }
    maps = {name: place(rng.uniform(0, 1, shape)) for name, shape in shapes.items()}
    return {"maps": maps, "video_scores": place(rng.uniform(0.2, 1, (videos, 4)))}


@pytest.mark.parametrize("name", [name for name in presets.names() if presets.get(name).banks])
def test_presets_on_a_device(name):
    """All stages of all presets."""
    process = tpt.PostProcessor.from_preset(name, num_classes=None, background="none")
    how = {"seconds_per_snippet": 0.5, "duration": 20.0, "lengths": [40, 31]}
    with tpt.backend("batched"):
        expected = process(**_given(process.pipeline, np.random.default_rng(1), 2, torch.as_tensor), **how)
        with pretend.pretended_cuda():
            found = process(**_given(process.pipeline, np.random.default_rng(1), 2, pretend.put), **how)
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.segments, expected.segments, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-9)


def test_labels_stay_on_the_device():
    pipeline = replace(presets.for_labels("gaufuse"), num_classes=None, background="none")
    process = tpt.PostProcessor(pipeline)
    with tpt.backend("batched"):
        expected, _ = process.labels(**_given(pipeline, np.random.default_rng(1), 3, torch.as_tensor), num_classes=4)
        with pretend.pretended_cuda():
            found, report = process.labels(**_given(pipeline, np.random.default_rng(1), 3, pretend.put), num_classes=4)
    assert found.is_cuda
    assert all(column.is_cuda for column in report)
    torch.testing.assert_close(found.held, expected, rtol=0, atol=1e-9)
    assert expected.count_nonzero() > 20


def _waits(call) -> int:
    before = pretend.waits[0]
    with tpt.backend("batched"), pretend.pretended_cuda():
        call()
    return pretend.waits[0] - before


@pytest.mark.parametrize("name", ["batched_nms", "soft_nms", "segment_voting", "fuse_segments, gaussian"])
def test_nothing_waits_for_the_device_per_group(name, rng):
    few, many = (tuple(map(pretend.put, _segments(rng, groups, 12))) for groups in (10, 500))
    waits = [_waits(lambda rows=rows: SEGMENTS[name](*rows)) for rows in (few, many)]
    assert waits[1] <= waits[0] + 12, waits


def test_nothing_waits_for_the_device_per_video(rng):
    process = tpt.PostProcessor.from_preset("gaufuse", num_classes=None, background="none")
    few, many = (_given(process.pipeline, rng, videos, pretend.put) for videos in (3, 60))
    waits = [_waits(lambda given=given: process(**given)) for given in (few, many)]
    assert waits[1] <= waits[0] + 12, waits
