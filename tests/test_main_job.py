"""The main job at real size: TCAMs in a file, detections out, mAP under every protocol, against literal oracles."""

from __future__ import annotations

import numpy as np
import pytest

from tal_postproc import Segments, cli, formats, mean_average_precision, presets, synthetic
from tal_postproc.evaluation import PROTOCOLS

from .oracles import evaluation as evaluators
from .oracles import pipelines as chains

pytestmark = pytest.mark.slow

THRESHOLDS = [0.3, 0.5, 0.7]
PER_SNIPPET = 16 / 25


def literal_rows(data, preset: str) -> list[tuple[int, int, float, float, float]]:
    """(video, label, start, end, score) of every detection, in snippets, by the literal chain."""
    pipeline = presets.get(preset)
    bank, stage = pipeline.banks[0], pipeline.stages[0]
    rows = []
    for v, video in enumerate(data.videos):
        found = chains.rskp(
            video.maps["cas"],
            video.scores["video"],
            thresholds=bank.thresholds,
            class_threshold=pipeline.classes.threshold,
            ratio=bank.score.margin.scale,
            power=bank.score.margin.power,
            nms_threshold=stage.threshold,
            temperature=getattr(stage, "temperature", None),
        )
        rows += [(v, int(c), s, e, score) for c, s, e, score in found.tolist()]
    return rows


@pytest.mark.parametrize("preset", ["rskp", "gaufuse"])
def test_from_a_file_of_tcams_to_every_map(tmp_path, preset):
    data = synthetic.make_videos(150, seed=7)
    tcams, output = tmp_path / "tcams.npz", tmp_path / "found.json"
    formats.write_tcams(tcams, data.videos, classes=data.classes, annotations=data.annotations)
    assert cli.main(["detect", str(tcams), "--preset", preset, "-o", str(output)]) == 0
    found = formats.read_detections(output, classes=data.classes)

    expected = np.array(literal_rows(data, preset))
    assert len(found) == len(expected) > 500
    np.testing.assert_array_equal(found.video_index, expected[:, 0])
    np.testing.assert_array_equal(found.labels, expected[:, 1])
    np.testing.assert_allclose(found.segments, expected[:, 2:4] * PER_SNIPPET, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.scores, expected[:, 4], rtol=0, atol=1e-9)

    truth = data.ground_truth
    instances = [(v, k, s, e) for v, k, (s, e) in zip(truth.video_index, truth.labels, truth.segments.tolist())]
    exact = Segments(
        np.round(expected[:, 2:4]) if preset == "rskp" else expected[:, 2:4],
        expected[:, 1].astype(int),
        expected[:, 4],
        np.searchsorted(expected[:, 0], np.arange(truth.num_videos + 1)),
        video_ids=truth.video_ids,
    )
    for protocol, rule in PROTOCOLS.items():
        snippets = rule.unit == "snippet"
        rows = exact if snippets else exact.to_seconds(PER_SNIPPET)
        literal = [
            (v, k, s, e, score)
            for v, k, (s, e), score in zip(rows.video_index, rows.labels, rows.segments.tolist(), rows.scores)
        ]
        ap = getattr(evaluators, protocol)(literal, instances, THRESHOLDS)
        wanted = np.array([ap[k] for k in sorted(ap)]).T
        result = mean_average_precision(rows, truth, tiou_thresholds=THRESHOLDS, protocol=protocol)
        np.testing.assert_allclose(result.per_class, wanted, rtol=0, atol=1e-9, err_msg=protocol)
        assert result.average > 0.2
        if preset == "rskp":  # whole snippets survive the way through seconds and a file
            again = mean_average_precision(found, truth, tiou_thresholds=THRESHOLDS, protocol=protocol)
            np.testing.assert_allclose(again.per_class, wanted, rtol=0, atol=1e-9, err_msg=protocol)


def test_the_demo_over_real_annotations(tmp_path, thumos, capsys):
    assert cli.main(["demo", "--annotations", str(thumos), "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "212 videos, 3358 instances, 20 classes" in printed
    rows = [line for line in printed.splitlines() if line.startswith(("NMS", "soft-NMS", "fusion"))]
    assert len(rows) == 6
    averages = [float(row.split()[-3]) for row in rows]
    assert min(averages) > 20.0
    for file in (tmp_path / "out").glob("detections_*.json"):
        assert formats.read_detections(file, classes=formats.read_annotations(thumos).classes).num_videos == 212
