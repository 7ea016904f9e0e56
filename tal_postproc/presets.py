"""Published post-processing chains as data: `names`, `get`, `for_labels`, and where every one comes from.

A preset is a `config.Pipeline`.  Names without a data set are aliases: ``"gaufuse"`` is ``"gaufuse_thumos"``.
Thresholds are the very numbers of the published lists, the rounding of ``numpy.arange`` included.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from . import _checks
from .config import (
    Bank,
    Classes,
    Fuse,
    Keep,
    LinPro,
    Margin,
    Nms,
    Overlap,
    Pipeline,
    Score,
    Seconds,
    Signal,
    SoftNms,
    TopKMean,
)

__all__ = ["aliases", "for_labels", "get", "names"]


def _arange(start: float, stop: float, step: float) -> tuple[float, ...]:
    return tuple(np.arange(start, stop, step).tolist())


def _decimals(first: float, last: float, step: float) -> tuple[float, ...]:
    """Both ends included, as decimal literals: what a paper means by "from first to last in steps of step"."""
    return tuple(round(first + k * step, 6) for k in range(round((last - first) / step) + 1))


_CANDIDATE = Overlap(kind="candidate", length_offset=1.0)  # NMS of the RSKP family: over the candidate, "+1"
_PLUS_ONE = Overlap(length_offset=1.0)  # NMS of the BaS-Net family: "+1" in whatever unit the rows have
_OIC_A = Margin(scale=0.25, layout="oic_a")
_ARGMAX_20 = Classes(threshold=0.2, fallback="argmax")


def _rskp_family() -> dict[str, Pipeline]:
    bank = Bank(
        thresholds=_arange(0.001, 0.04, 0.002),
        min_length=2,
        extend_end=1,
        score=Score(margin=Margin(scale=0.25, layout="oic_b")),
    )
    base = Pipeline(background="last", num_classes=20, protocol="wtalc_interpolated")
    fuse = Fuse(
        threshold=0.25, temperature=0.2, weights="inner", overlap=_CANDIDATE, signed_denominator=True, ties="last"
    )
    gaufuse = replace(
        base,
        banks=(replace(bank, score=Score(margin=Margin(scale=0.0785, power=0.9, layout="oic_b"))),),
        classes=Classes(threshold=0.16),
        stages=(fuse,),
        labels=LinPro(normalization="sum", margin_scale=0.0785, margin_power=0.9, layout="gaufuse"),
        provenance="zhou745/GauFuse_WSTAL, evaluation/detectionMAP.py: getActLoc with the fusion predictor",
    )
    return {
        "gaufuse_thumos": gaufuse,
        "gaufuse_thumos_nms": replace(
            gaufuse,
            stages=(Nms(threshold=0.25, overlap=_CANDIDATE, ties="last"),),
            provenance="zhou745/GauFuse_WSTAL, evaluation/detectionMAP.py: getActLoc without the fusion predictor",
        ),
        "gaufuse_thumos_pseudo": replace(
            gaufuse,
            stages=(replace(fuse, temperature=0.1),),
            background="none",
            num_classes=None,
            provenance="zhou745/GauFuse_WSTAL, utils/utils.py: generate_segs; all 21 columns, background too",
        ),
        "rskp_thumos": replace(
            base,
            banks=(bank,),
            classes=Classes(threshold=0.1),
            stages=(Nms(threshold=0.5, overlap=_CANDIDATE, ties="last"),),
            provenance="LeonHLJ/RSKP, evaluation/detectionMAP.py: getActLoc",
        ),
        "facnet_thumos": replace(
            base,
            banks=(
                replace(
                    bank,
                    thresholds=_arange(0.03, 0.055, 0.005),
                    min_length=3,
                    score=replace(bank.score, outer_weight=0.6),
                ),
            ),
            classes=Classes(threshold=0.1),
            stages=(Nms(threshold=0.2, overlap=_CANDIDATE, ties="last"),),
            provenance="LeonHLJ/FAC-Net, evaluation/detectionMAP.py: getActLoc, one stream",
        ),
    }


def _basnet_family() -> dict[str, Pipeline]:
    base = Pipeline(background="last", num_classes=20, protocol="activitynet")
    scaled = Signal(normalize="minmax_relu", clip=True)
    cas = Bank(
        thresholds=_arange(0, 0.25, 0.025),
        signal=scaled,
        upsample=24,
        inclusive=True,
        positive=True,
        skip_lone_first=True,
        min_length=2,
        score=Score(margin=_OIC_A, zero_below=True, video_weight=0.2),
    )
    actionness = replace(
        cas,
        thresholds=_arange(0.1, 0.925, 0.025),
        signal=replace(scaled, mix=(("attention", 1.0),)),
        score=Score(margin=_OIC_A, signal=scaled, video_weight=0.2),
    )
    narrow = Margin(scale=0.2, layout="oic_a")
    raw = replace(
        cas,
        thresholds=_arange(0.15, 0.25, 0.05),
        signal=Signal(),
        upsample=20,
        score=Score(margin=narrow, zero_below=True),
    )
    attention = replace(
        raw,
        thresholds=_arange(0.1, 0.925, 0.025),
        signal=Signal(mix=(("attention", 1.0),)),
        score=Score(margin=narrow, signal=Signal()),
    )
    cola = replace(
        base,
        banks=(cas, actionness),
        classes=_ARGMAX_20,
        stages=(Seconds(), Nms(threshold=0.6, overlap=_PLUS_ONE, inclusive=True, ties="last")),
        provenance="zhang-can/CoLA, main_cola.py: test_all; maps cas and attention (its actionness)",
    )
    return {
        "basnet_thumos": replace(
            base,
            banks=(
                replace(
                    cas,
                    signal=replace(scaled, clip=False),
                    min_length=1,
                    # the published code has rounded its video scores to 0 and 1 before it adds 0.2 times them
                    score=Score(margin=_OIC_A, zero_below=True, constant=0.2),
                ),
            ),
            classes=Classes(threshold=0.25, inclusive=False),
            stages=(Seconds(), Nms(threshold=0.7, overlap=_PLUS_ONE, inclusive=True, ties="last")),
            provenance="Pilhyeon/BaSNet-pytorch, test.py: test",
        ),
        "cola_thumos": cola,
        "cola_anet12": replace(
            cola,
            banks=(replace(cas, thresholds=_arange(0, 0.15, 0.015)), actionness),
            classes=Classes(threshold=0.1, fallback="argmax"),
            num_classes=100,
        ),
        "asmloc_thumos": replace(
            base,
            banks=(raw, attention),
            classes=Classes(threshold=0.25, inclusive=False, fallback="argmax"),
            stages=(Seconds(), Nms(threshold=0.45, overlap=_PLUS_ONE, inclusive=True, ties="last")),
            provenance="boheumd/ASM-Loc, main_THUMOS.py: test; Video.warp holds its dynamic segment warp",
        ),
    }


def _hamnet_family() -> dict[str, Pipeline]:
    """Thresholds on the attention, scores on attention-weighted logits, soft-NMS."""
    bank = Bank(
        thresholds=tuple(np.linspace(0.1, 0.9, 10).tolist()),
        signal=Signal(mix=(("attention", 1.0),)),
        skip_lone_first=True,
        score=Score(margin=_OIC_A, signal=Signal(mix=(("logits*attention", 1.0),)), video_weight=0.2),
    )
    soft = SoftNms(sigma=0.3, overlap=_PLUS_ONE, decay_negative=True)
    hamnet = Pipeline(
        banks=(bank,),
        classes=Classes(threshold=0.2),
        stages=(Seconds(), soft),
        video_scores=TopKMean(map="logits*attention", ratio=10),
        background="last",
        num_classes=20,
        protocol="activitynet",
        provenance="asrafulashiq/hamnet, system/tester.py: Tester.eval_one_batch",
    )
    co2net = replace(
        hamnet,
        classes=_ARGMAX_20,
        stages=(soft,),
        protocol="activitynet_snippet",
        provenance="harlanhong/MM2021-CO2-Net, proposal_methods.py: multiple_threshold_hamnet",
    )
    delu = replace(
        co2net,
        banks=(replace(bank, thresholds=tuple(np.linspace(0.1, 0.9, 20).tolist())),),
        provenance="MengyuanChen21/ECCV2022-DELU, proposal_methods.py: multiple_threshold_hamnet",
    )
    return {
        "hamnet_thumos": hamnet,
        "hamnet_anet12": replace(hamnet, video_scores=TopKMean(map="logits*attention", ratio=20), num_classes=100),
        "co2net_thumos": co2net,
        "co2net_anet12": replace(co2net, num_classes=100),
        "delu_thumos": delu,
        "delu_thumos_test": replace(
            delu,
            stages=(soft, Keep(min_length=1.0)),
            provenance=delu.provenance + ", and the length test of its test.py",
        ),
        "delu_anet12": replace(delu, num_classes=100),
    }


def _from_papers() -> dict[str, Pipeline]:
    """Chains as their papers say, numbers and all; choices in docs/conventions.md."""
    fuse = Fuse(threshold=0.25, temperature=0.03)
    gaufuse = Pipeline(
        banks=(Bank(thresholds=_arange(0.001, 0.04, 0.002), min_length=2, score=Score(margin=Margin(scale=0.25))),),
        classes=Classes(threshold=0.16),
        stages=(fuse,),
        background="last",
        num_classes=20,
        labels=LinPro(normalization="sum", upper_bound=None),
        protocol="wtalc_interpolated",
        provenance="GauFuse (CVPR 2023), sections 3.1, 3.2 and testing details in 4.2, Eq. 1 to 6; not given there: "
        "thresholds, shortest run, class threshold and h_fuse (from its code), margin (from RSKP)",
    )
    two_stream = Pipeline(
        banks=(
            Bank(
                thresholds=_decimals(0.1, 0.9, 0.025),
                score=Score(margin=Margin(scale=0.2, denominator="fixed"), video_weight=0.2),
            ),
        ),
        classes=Classes(threshold=0.1),
        stages=(Nms(threshold=0.5),),
        background="first",
        num_classes=20,
        protocol="activitynet",
        provenance="Two-Stream Networks with Semantic-Aware Mechanisms (CVPR 2023), sections 3.7 and 4.1, Eq. 9",
    )
    network = Bank(
        thresholds=_decimals(0.0, 0.5, 0.025),
        inclusive=True,
        positive=True,
        score=Score(margin=Margin(scale=0.25)),
    )
    ptlr = Pipeline(
        banks=tuple(replace(network, signal=Signal(mix=((name, 1.0),))) for name in ("ots", "rts")),
        stages=(Nms(threshold=0.7),),
        background="first",
        num_classes=20,
        protocol="activitynet",
        provenance="Temporal multi-resolution ILG + PTLR, section III-C (inference) and IV-A; maps ots and rts",
    )
    return {
        "gaufuse_paper_thumos": gaufuse,
        "gaufuse_paper_thumos_pseudo": replace(
            gaufuse,
            stages=(replace(fuse, temperature=0.1),),
            provenance=gaufuse.provenance.replace("testing", "training"),
        ),
        "two_stream_thumos": two_stream,
        "two_stream_anet13": replace(
            two_stream,
            banks=(replace(two_stream.banks[0], thresholds=_decimals(0.005, 0.025, 0.005)),),
            num_classes=200,
        ),
        "ptlr_thumos": ptlr,
        "ptlr_anet13": replace(ptlr, num_classes=200),
    }


_PRESETS = {**_rskp_family(), **_basnet_family(), **_hamnet_family(), **_from_papers()}
_ALIASES = {name.replace("_thumos", ""): name for name in _PRESETS if "_thumos" in name}


def names() -> tuple[str, ...]:
    """All presets, in the order of the documentation."""
    return tuple(_PRESETS)


def aliases() -> dict[str, str]:
    """Short name -> preset."""
    return dict(_ALIASES)


def get(name: str) -> Pipeline:
    """The pipeline of a preset or alias.

    >>> get("rskp").stages[0].threshold
    0.5
    >>> get("rskp") is get("rskp_thumos")
    True
    """
    return _PRESETS[_full(name)]


def for_labels(name: str) -> Pipeline:
    """The pipeline that makes pseudo labels where the preset of that name makes detections.

    That is the preset named after it with ``_pseudo`` at the end, where there is one, else the preset itself; its
    `labels` are those of the publication, else the defaults of `config.LinPro`.

    >>> get("gaufuse").stages[0].temperature, for_labels("gaufuse").stages[0].temperature
    (0.2, 0.1)
    >>> get("cola").labels, for_labels("cola").labels.normalization
    (None, 'mean')
    """
    full = _full(name)
    pipeline = _PRESETS.get(f"{full}_pseudo", _PRESETS[full])
    return replace(pipeline, labels=pipeline.labels or LinPro())


def _full(name: str) -> str:
    """The name of a preset, from that or from its alias."""
    full = _ALIASES.get(name, name)
    return _checks.as_choice(full, "name", tuple(_PRESETS) + tuple(_ALIASES))
