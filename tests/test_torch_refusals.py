"""A tensor given to a function of the NumPy core is refused by the name of the one that takes it; and the reverse."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import tal_postproc as tpp

torch = pytest.importorskip("torch")
import tal_postproc.torch as tpt  # noqa: E402

ROWS, SCORES = torch.tensor([[0.0, 10.0], [1.0, 10.0]]), torch.tensor([0.8, 0.9])
TCAM = torch.tensor([[0.0], [0.9], [0.0]])


def chain():
    return tpp.PostProcessor.from_preset("rskp")


@pytest.mark.parametrize(
    ("call", "argument", "name"),
    [
        (lambda: tpp.nms(ROWS, SCORES, tiou_threshold=0.5), "segments", "nms"),
        (lambda: tpp.nms(ROWS.numpy(), [*SCORES], tiou_threshold=0.5), "scores", "nms"),
        (lambda: tpp.batched_nms(ROWS.numpy(), SCORES.numpy(), SCORES.long(), 0.5), "idxs", "batched_nms"),
        (lambda: tpp.fuse_segments([*ROWS], SCORES, tiou_threshold=0.5, temperature=1.0), "segments", "fuse_segments"),
        (lambda: tpp.extract_proposals(TCAM.requires_grad_(), 0.5), "tcam", "extract_proposals"),
        (lambda: tpp.weighted_segment_fusion([ROWS], [SCORES], [SCORES.long()]), r"segments_list\[0\]", "weighted_"),
        (lambda: tpp.Segments(ROWS), "segments", "Segments"),
        (lambda: tpp.Segments(ROWS.numpy(), columns={"inner": SCORES}), r"columns\['inner'\]", "Segments"),
        (lambda: tpp.hard_label_map(tpt.Segments(ROWS), 12, 1), "segments", "hard_label_map"),
        (lambda: tpp.linpro_label_map(tpt.Segments(ROWS), 12, 1), "segments", "linpro_label_map"),
        (lambda: tpp.Video("a", {"cas": TCAM}), r"maps\['cas'\]", "PostProcessor"),
        (lambda: chain()(TCAM), r"maps\['cas'\]", "PostProcessor"),
        (lambda: chain()(TCAM.detach().numpy(), video_scores=SCORES), r"scores\['video'\]", "PostProcessor"),
        (lambda: chain().process(TCAM), "videos", "PostProcessor"),
        (
            lambda: tpp.mean_average_precision(tpt.Segments(ROWS), tpp.Segments([[0, 1]])),
            "detections",
            "mean_average_precision",
        ),
        (
            lambda: tpp.mean_average_precision(
                {"video": SCORES, "segments": [[0, 1]], "labels": [0], "scores": [1]}, tpp.Segments([[0, 1]])
            ),
            r"detections\['video'\]",
            "mean_average_precision",
        ),
    ],
)
def test_the_core_names_who_takes_tensors(call, argument, name):
    with pytest.raises(TypeError, match=rf"^`{argument}` must hold NumPy arrays, .*; tal_postproc.torch.{name}"):
        call()


def test_where_there_is_no_twin_none_is_named():
    with pytest.raises(TypeError, match=r"^`durations` .* Tensor; tal_postproc.torch is for tensors$"):
        tpp.Annotations(tpp.Segments([[0, 1]], unit="second", video_ids=["a"]), ["Diving"], SCORES)


def test_parameters_and_subclasses_are_tensors_too():
    class Mine(torch.Tensor):
        pass

    for one in (torch.nn.Parameter(ROWS), ROWS.as_subclass(Mine)):
        with pytest.raises(TypeError, match=r"tal_postproc\.torch\.nms"):
            tpp.nms(one, [0.1, 0.2], tiou_threshold=0.5)


def test_the_refusal_imports_nothing():
    script = (
        "import sys, tal_postproc as tpp\n"
        "Tensor = type('Tensor', (), {'__module__': 'torch', 'ndim': 2})\n"
        "try:\n    tpp.nms(Tensor(), [0.5], tiou_threshold=0.5)\n"
        "except TypeError as error:\n    print(error, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("tal_postproc.torch.nms is for tensors False")


def test_what_has_a_twin_is_what_the_core_names():
    both = set(tpt.__all__) & set(tpp.__all__)
    assert both == tpp._checks.TENSOR_TWINS


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: tpt.nms(ROWS.numpy(), SCORES, tiou_threshold=0.5),
            "`segments` must be a tensor, got a NumPy array; tal_postproc.nms takes arrays",
        ),
        (lambda: tpt.nms(ROWS, SCORES, tiou_threshold=0.5, idxs=np.zeros(2)), "`idxs` must be a tensor, got a NumPy"),
        (lambda: tpt.nms(ROWS.tolist(), SCORES, tiou_threshold=0.5), "`segments` must be a tensor, got list"),
        (lambda: tpt.hard_label_map(tpp.Segments([[0, 1]]), 3, 1), "tal_postproc.hard_label_map takes it"),
        (lambda: tpt.weighted_segment_fusion([ROWS.numpy()], [SCORES], [SCORES]), "`segments_list` must be a tensor"),
        (lambda: tpt.Segments(ROWS.numpy()), "tal_postproc.Segments takes arrays"),
    ],
)
def test_arrays_are_refused_by_the_tensor_functions(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_tensors_of_two_devices_are_refused():
    with pytest.raises(ValueError, match="all tensors must be on one device, got cpu, meta"):
        tpt.nms(ROWS, SCORES.to("meta"), tiou_threshold=0.5)
