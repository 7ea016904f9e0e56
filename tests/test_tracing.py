"""A trace tells what the pipeline does: the same detections, and clusters that hold what they say they hold."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tal_postproc import PostProcessor, Segments, Video, fuse_segments, synthetic
from tal_postproc.config import Bank, Fuse, Keep, Nms, Overlap, Pipeline, Round, Seconds, SoftNms
from tal_postproc.tracing import Trace
from tests.oracles.segments import overlap


@pytest.fixture(scope="module")
def videos():
    return synthetic.make_videos(3, seed=4).videos


def equal(a: Segments, b: Segments) -> None:
    assert_array_equal(a.segments, b.segments)
    assert_array_equal(a.labels, b.labels)
    assert_array_equal(a.scores, b.scores)
    assert (a.unit, a.video_ids, sorted(a.columns)) == (b.unit, b.video_ids, sorted(b.columns))
    for name, column in a.columns.items():
        assert_array_equal(column, b.columns[name])


@pytest.mark.parametrize("preset", ["gaufuse", "rskp", "cola", "gaufuse_paper"])
def test_detections_are_those_of_the_pipeline(videos, preset):
    process = PostProcessor.from_preset(preset)
    for video in videos:
        equal(process.trace(video).detections, process(video))


def test_members_of_a_fusion_give_its_boundaries(videos):
    """The mean of the members, weighted by the softmax of their weights, is where the detection is."""
    stage = Fuse(threshold=0.5, temperature=0.2)
    for video in videos:
        trace = PostProcessor.from_preset("rskp", stages=(stage, Seconds(clamp=False), Keep(top=2))).trace(video)
        assert len(trace.detections)
        assert (trace.assignment == -1).any()  # of what Keep left out
        for detection in range(len(trace.detections)):
            members = trace.members(detection)
            times = trace.proposals.columns["times"][members]
            assert times.sum() == trace.detections.columns["size"][detection]
            weights = times * np.exp(trace.proposals.scores[members] / 0.2)
            centre = weights @ trace.proposals.segments[members] / weights.sum() * video.seconds_per_snippet
            assert_allclose(trace.detections.segments[detection], centre, rtol=1e-9)


@pytest.mark.parametrize("ties", ["first", "last"])
def test_nms_assigns_what_it_drops_to_the_row_that_drops_it(videos, ties):
    stage = Nms(threshold=0.4, overlap=Overlap(), ties=ties)
    for video in videos:
        trace = PostProcessor.from_preset("rskp", stages=(stage,)).trace(video)
        assert (trace.assignment >= 0).all()
        for row, to in enumerate(trace.assignment):
            mine, kept = trace.proposals.segments[row], trace.detections.segments[to]
            assert trace.proposals.labels[row] == trace.detections.labels[to]
            assert (mine == kept).all() or overlap(mine, kept) > 0.4
            assert trace.proposals.scores[row] <= trace.detections.scores[to]


def test_stages_in_a_row_lead_on():
    rows = Segments([[0, 10], [1, 10], [30, 40], [0, 10.4]], scores=[0.9, 0.8, 0.7, 0.6])
    stages = (Nms(threshold=0.5), SoftNms(sigma=0.5, min_score=0.0), Round(segments=0, scores=3), Keep(top=1))
    trace = PostProcessor(Pipeline(stages=stages)).trace(Video("v", {}, proposals=rows))
    assert_array_equal(trace.assignment, [0, 0, -1, 0])
    assert trace.detections.segments.tolist() == [[0, 10]]
    assert "_row" not in trace.detections.columns
    assert trace.signals == ()


def test_signals_are_what_the_thresholds_are_compared_with():
    tcam = np.array([[0.0, 0.2], [1.0, 0.4], [0.5, 0.6]])
    banks = (Bank(thresholds=(0.25, 0.5)), Bank(thresholds=(0.5,), relative="below_max", upsample=2))
    trace = PostProcessor(Pipeline(banks=banks, stages=(Nms(threshold=0.5),))).trace(Video("v", {"cas": tcam}))
    assert [(one.bank, one.label) for one in trace.signals] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert_array_equal(trace.signals[1].values, tcam[:, 1])
    assert_array_equal(trace.signals[1].thresholds, [0.25, 0.5])
    assert len(trace.signals[3].values) == 6
    high, low = trace.signals[3].values.max(), trace.signals[3].values.min()
    assert_allclose(trace.signals[3].thresholds, [high - 0.5 * (high - low)])
    for bank, label, values, _ in trace.signals:  # a run holds what is above its threshold
        own = (trace.proposals.columns["bank"] == bank) & (trace.proposals.labels == label)
        for (start, end), level in zip(trace.proposals.segments[own], trace.proposals.columns["threshold"][own]):
            factor = len(values) // 3
            assert (values[int(start * factor) : int(end * factor)] > level).all()


def test_a_fusion_on_its_own_and_nothing_at_all():
    rows = Segments([[0, 10], [2, 10], [20, 30]], [4, 4, 3], [0.5, 0.5, 0.4], unit="second")
    fused = fuse_segments(rows.segments, rows.scores, tiou_threshold=0.5, temperature=0.1, idxs=rows.labels)
    trace = Trace.of_fusion(rows, fused)
    assert trace.detections.labels.tolist() == [4, 3]
    assert trace.detections.unit == "second"
    assert_array_equal(trace.members(0), [0, 1])
    assert_array_equal(trace.detections.columns["start_std"], fused.start_std)
    empty = PostProcessor.from_preset("rskp").trace(Video("v", {"cas": np.zeros((0, 20))}, {"video": np.zeros(20)}))
    assert (len(empty.proposals), len(empty.detections), empty.assignment.shape) == (0, 0, (0,))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"assignment": [0, 1]}, ValueError, r"`assignment` must be -1 or below 1.*row 1 is 1 \(1 of 2 rows\)"),
        ({"assignment": [0, -2]}, ValueError, "`assignment` must be -1 or below 1"),
        ({"assignment": [0]}, ValueError, "`assignment` must have"),
        ({"proposals": [[0, 1]]}, TypeError, "`proposals` must be Segments, got list"),
        ({"detections": Segments.empty(video_ids=["a", "b"])}, ValueError, "`detections` must be of one video, got 2"),
    ],
)
def test_mistakes_are_named(changes, error, message):
    given = {"proposals": Segments([[0, 1], [2, 3]]), "detections": Segments([[0, 1]]), "assignment": [0, 0]}
    with pytest.raises(error, match=message):
        Trace(**{**given, **changes})
