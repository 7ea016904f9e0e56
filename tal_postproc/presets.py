"""Published post-processing chains as data: `names`, `get`, `for_labels`, `table`, and where every one comes from.

A preset is a `config.Pipeline`.  Names without a data set are aliases: ``"gaufuse"`` is ``"gaufuse_thumos"``.
Thresholds are the very numbers of the published lists, the rounding of ``numpy.arange`` included.  Chains that settings
cannot express are functions in `tal_postproc.compat`; `elsewhere` names them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from . import _checks
from .config import (
    Bank,
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
    Score,
    Seconds,
    Signal,
    SoftNms,
    Stage,
    TopKMean,
    Vote,
)

__all__ = ["aliases", "elsewhere", "for_labels", "get", "names", "table"]


def _arange(start: float, stop: float, step: float) -> tuple[float, ...]:
    return tuple(np.arange(start, stop, step).tolist())


def _decimals(first: float, last: float, step: float) -> tuple[float, ...]:
    """Both ends included, as decimal literals: what a paper means by "from first to last in steps of step"."""
    return tuple(round(first + k * step, 6) for k in range(round((last - first) / step) + 1))


def _linspace(first: float, last: float, count: int) -> tuple[float, ...]:
    return tuple(np.linspace(first, last, count).tolist())


_CANDIDATE = Overlap(kind="candidate", length_offset=1.0)  # NMS of the RSKP family: over the candidate, "+1"
_PLUS_ONE = Overlap(length_offset=1.0)  # NMS of the BaS-Net family: "+1" in whatever unit the rows have
_OIC_A = Margin(scale=0.25, layout="oic_a")
_ARGMAX_20 = Classes(threshold=0.2, fallback="argmax")
_SOFT_PLUS_ONE = SoftNms(sigma=0.3, overlap=_PLUS_ONE, decay_negative=True)
_WIDE = _linspace(0.1, 0.9, 9)  # of the evaluators' copies, whose numbers are not always the decimal literals
_TO_07 = _linspace(0.1, 0.7, 7)
_ANET = _linspace(0.5, 0.95, 10)


def _rskp_family() -> dict[str, Pipeline]:
    bank = Bank(
        thresholds=_arange(0.001, 0.04, 0.002),
        min_length=2,
        extend_end=1,
        score=Score(margin=Margin(scale=0.25, layout="oic_b")),
    )
    base = Pipeline(
        background="last",
        num_classes=20,
        protocol="wtalc_interpolated",
        tiou_thresholds=_decimals(0.1, 0.7, 0.1),
    )
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
    base = Pipeline(background="last", num_classes=20, protocol="activitynet", tiou_thresholds=_TO_07)
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
    magnified = replace(scaled, mix=(("cas*magnitude", 1.0),))
    cola = replace(
        base,
        banks=(cas, actionness),
        classes=_ARGMAX_20,
        stages=_in_seconds(0.6),
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
            stages=_in_seconds(0.7),
            tiou_thresholds=_WIDE,
            provenance="Pilhyeon/BaSNet-pytorch, test.py: test; there a score of 0.25 itself passes, and a video of "
            "class 0 alone has nothing (compat.basnet.detect)",
        ),
        "um_thumos": replace(
            base,
            banks=(
                replace(cas, signal=magnified),
                replace(
                    actionness,
                    thresholds=_arange(0.4, 0.625, 0.025),
                    signal=Signal(mix=(("magnitude", 1.0),)),
                    score=replace(actionness.score, signal=magnified),
                ),
            ),
            classes=_ARGMAX_20,
            stages=_in_seconds(0.6),
            provenance="Pilhyeon/WTAL-Uncertainty-Modeling, test.py: test; maps cas (softmax) and magnitude: of the "
            "features, between the video's own ends and limited to [0, 1]; where no class passes, its code searches "
            "class 0, not the best one (compat.um.detect)",
        ),
        "lacp_thumos": replace(
            base,
            banks=(
                replace(cas, signal=Signal(), min_length=1),
                replace(
                    actionness,
                    thresholds=_arange(0.5, 0.725, 0.025),
                    signal=Signal(mix=(("attention", 1.0),)),
                    min_length=1,
                    score=replace(actionness.score, signal=Signal()),
                ),
            ),
            classes=Classes(threshold=0.5, fallback="argmax"),
            stages=_in_seconds(0.7),
            provenance="Pilhyeon/Learning-Action-Completeness-from-Points, test.py: test; maps cas (sigmoid) "
            "and attention, which is 1 - background",
        ),
        "cola_thumos": cola,
        "cola_anet12": replace(
            cola,
            banks=(replace(cas, thresholds=_arange(0, 0.15, 0.015)), actionness),
            classes=Classes(threshold=0.1, fallback="argmax"),
            num_classes=100,
            tiou_thresholds=_ANET,
        ),
        "asl_thumos": replace(
            base,
            banks=(
                replace(
                    cas,
                    thresholds=_arange(0.1, 1.0, 0.1),
                    signal=Signal(mix=tuple((name, 1 / 3) for name in ("cas", "flow_act", "rgb_act"))),
                    min_length=1,
                    score=Score(margin=_OIC_A, video_weight=0.2),
                ),
            ),
            classes=Classes(threshold=0.25, fallback="argmax"),
            stages=_in_seconds(0.4),
            background="none",
            tiou_thresholds=_WIDE,
            provenance="layer6ai-labs/ASL, inference_thumos.py: inference, without its soft suppression; "
            "maps cas (softmax), flow_act and rgb_act; margins of 0.25 n, where its code hands over 0.2 "
            "(compat.asl.detect)",
        ),
    }


def _in_seconds(threshold: float) -> tuple[Seconds, Nms]:
    """How the BaS-Net family ends: its "+1" counts seconds."""
    return Seconds(), Nms(threshold=threshold, overlap=_PLUS_ONE, inclusive=True, ties="last")


def _asmloc_family() -> dict[str, Pipeline]:
    """ACM-Net and ASM-Loc, which adds a time warp and pseudo labels.  Maps as they are, blended for ActivityNet."""
    narrow, narrower = Margin(scale=0.2, layout="oic_a"), Margin(scale=0.15, layout="oic_a")
    foreground = Signal(mix=(("attention", 1.0),))
    blend = Signal(mix=(("cas", 0.7), ("attention", 0.3)))
    cas = Bank(
        thresholds=_arange(0.15, 0.25, 0.05),
        upsample=20,
        inclusive=True,
        positive=True,
        skip_lone_first=True,
        min_length=2,
        score=Score(margin=narrow, zero_below=True),
    )
    attention = replace(
        cas,
        thresholds=_arange(0.1, 0.925, 0.025),
        signal=foreground,
        score=Score(margin=narrow, signal=Signal()),
    )
    thumos = Pipeline(
        banks=(cas, attention),
        classes=Classes(threshold=0.25, inclusive=False, fallback="argmax"),
        stages=_in_seconds(0.45),
        background="last",
        num_classes=20,
        protocol="activitynet",
        tiou_thresholds=_arange(0.1, 1.0, 0.1),
        provenance="boheumd/ASM-Loc, main_THUMOS.py: test; Video.warp holds its dynamic segment warp",
    )
    low = (0.005, 0.01, 0.015, 0.02)
    zeroed = Score(margin=narrower, signal=blend, zero_below=True)
    blended = replace(cas, thresholds=low, score=zeroed)
    anet = replace(
        thumos,
        banks=(blended, replace(blended, signal=foreground, score=replace(zeroed, video_weight=0.25))),
        classes=Classes(threshold=0.1, inclusive=False, fallback="argmax"),
        stages=_in_seconds(0.9),
        num_classes=200,
        tiou_thresholds=_arange(0.5, 1.0, 0.05),
        provenance="boheumd/ASM-Loc, main_ActivityNet.py: test; Video.warp holds its dynamic segment warp",
    )
    acmnet = "ispc-lab/ACM-Net, {}: test"
    pseudo = "boheumd/ASM-Loc, {}: generate_pseudo_segment, and the selection of generate_dynamic_segment_weights"
    return {
        "acmnet_thumos": replace(
            thumos,
            banks=(cas, replace(attention, thresholds=_arange(0.15, 1.0, 0.05))),
            stages=_in_seconds(0.55),
            provenance=acmnet.format("main_thumos.py"),
        ),
        "acmnet_anet13": replace(anet, provenance=acmnet.format("main_activitynet.py")),
        "asmloc_thumos": thumos,
        "asmloc_thumos_pseudo": replace(
            thumos,
            banks=(replace(attention, thresholds=_arange(0.4, 0.925, 0.025)),),
            # 0.5 of the length is added at both ends
            stages=(*thumos.stages, Keep(cumulative=0.7, per="class"), Expand(ratio=1.0)),
            provenance=pseudo.format("main_THUMOS.py"),
        ),
        "asmloc_anet13": anet,
        "asmloc_anet13_pseudo": replace(
            anet,
            banks=(replace(blended, thresholds=_arange(0.1, 0.305, 0.005)),),
            stages=(*anet.stages, Keep(cumulative=0.3, per="class")),
            provenance=pseudo.format("main_ActivityNet.py"),
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
    soft = _SOFT_PLUS_ONE
    hamnet = Pipeline(
        banks=(bank,),
        classes=Classes(threshold=0.2),
        stages=(Seconds(), soft),
        tiou_thresholds=_WIDE,
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
        tiou_thresholds=_decimals(0.1, 0.9, 0.1),
        provenance="harlanhong/MM2021-CO2-Net, proposal_methods.py: multiple_threshold_hamnet",
    )
    delu = replace(
        co2net,
        banks=(replace(bank, thresholds=tuple(np.linspace(0.1, 0.9, 20).tolist())),),
        provenance="MengyuanChen21/ECCV2022-DELU, proposal_methods.py: multiple_threshold_hamnet",
    )
    anet12 = _decimals(0.5, 0.95, 0.05)
    return {
        "hamnet_thumos": hamnet,
        "hamnet_anet12": replace(
            hamnet,
            video_scores=TopKMean(map="logits*attention", ratio=20),
            num_classes=100,
            tiou_thresholds=_ANET,
        ),
        "co2net_thumos": co2net,
        "co2net_anet12": replace(co2net, num_classes=100, tiou_thresholds=anet12),
        "delu_thumos": delu,
        "delu_thumos_test": replace(
            delu,
            stages=(soft, Keep(min_length=1.0)),
            provenance=delu.provenance + ", and the length test of its test.py",
        ),
        "delu_anet12": replace(delu, num_classes=100, tiou_thresholds=anet12),
    }


def _of_one_threshold() -> dict[str, Pipeline]:
    """W-TALC, and CMCS, which looks at every frame (16 to a snippet)."""
    cmcs = Pipeline(
        banks=(
            Bank(
                thresholds=(1.0,),
                relative="times_mean",
                signal=Signal(normalize="minmax", extrapolate=False),
                upsample=16,
                dilate=20,
                score=Score(margin=Margin(scale=0.25, layout="cmcs"), video_weight=0.25),
            ),
        ),
        classes=Classes(threshold=0.1, inclusive=False),
        stages=(Seconds(clamp=True), Round(segments=2, scores=4)),
        background="last",
        num_classes=20,
        tiou_thresholds=_decimals(0.1, 0.9, 0.1),
        provenance="Finspire13/CMCS-Temporal-Action-Localization, detect.py; map cas and video scores are softmaxes "
        "with the background; it was evaluated by the MATLAB kit of THUMOS14",
    )
    return {
        "wtalc_thumos": Pipeline(
            banks=(
                Bank(
                    thresholds=(0.5,),
                    relative="below_max",
                    min_length=2,
                    score=Score(inner="max", margin=None, video_weight=0.7),
                ),
            ),
            classes=Classes(threshold=0.0, inclusive=False),
            video_scores=TopKMean(map="cas", ratio=8, softmax=False),
            num_classes=20,
            protocol="wtalc",
            tiou_thresholds=_decimals(0.1, 0.5, 0.1),
            provenance="sujoyp/wtalc-pytorch, detectionMAP.py: getLocMAP; it finds nothing in fewer than 8 snippets",
        ),
        "cmcs_thumos": cmcs,
        "cmcs_anet": replace(
            cmcs,
            banks=(replace(cmcs.banks[0], thresholds=(1e-7,)),),
            stages=(Seconds(clamp=True),),
            num_classes=None,
            tiou_thresholds=_ANET,
            provenance=cmcs.provenance.split("; it was")[0],
        ),
    }


def _of_given_proposals() -> dict[str, Pipeline]:
    """What happens to proposals that a network has scored: `Video.proposals`."""
    eps = Overlap(area_eps=1e-6)

    def compiled(method: Any = "gaussian", gate: Any = None, min_score: float | None = 0.001, **more: Any) -> SoftNms:
        return SoftNms(method=method, gate=gate, overlap=eps, min_score=min_score, keep_first=True, **more)

    def actionformer(file: str, shortest: float, tious: tuple[float, ...], *suppress: Stage) -> Pipeline:
        return Pipeline(
            stages=(Keep(min_score=0.001, min_length=shortest), *suppress, Seconds(clamp=True)),
            protocol="actionformer",
            tiou_thresholds=tious,
            provenance=f"happyharrycn/actionformer_release, configs/{file}; proposals on the feature grid, "
            "half a window later, the best of every level of its pyramid",
        )

    enough = Keep(min_score=0.001, top=2000)
    rounded = Seconds(clamp=True), Round(segments=2, scores=4)
    opentad = Pipeline(
        stages=(enough, compiled(sigma=0.5, max_detections=2000), *rounded),
        protocol="opentad",
        tiou_thresholds=_decimals(0.3, 0.7, 0.1),
        provenance="sming256/OpenTAD, configs/actionformer/thumos_i3d.py; proposals on the feature grid",
    )
    anet = _decimals(0.5, 0.95, 0.05)
    presets = {
        "pmil_thumos": Pipeline(
            stages=(_SOFT_PLUS_ONE,),
            protocol="activitynet_snippet",
            tiou_thresholds=_decimals(0.1, 0.9, 0.1),
            provenance="RenHuan1999/CVPR2023_P-MIL, utils.py: soft_nms; proposals of the classes that its video scores "
            "choose, scored by cas * attention * iou + 0.2 video score (compat.pmil)",
        ),
        "actionformer_thumos": actionformer(
            "thumos_i3d.yaml", 0.05, _linspace(0.3, 0.7, 5), compiled(sigma=0.5, max_detections=200)
        ),
        "actionformer_anet": actionformer(
            "anet_tsp.yaml",
            0.001,
            _ANET,
            compiled(sigma=0.75, max_detections=100, per_class=False),
            Vote(threshold=0.9, times_iou=True, per_class=False),
        ),
        "actionformer_epic": actionformer(
            "epic_slowfast_verb.yaml", 0.05, _linspace(0.1, 0.5, 5), compiled(sigma=0.4, max_detections=2000)
        ),
        "actionformer_ego4d": actionformer(
            "ego4d_slowfast.yaml", 0.05, _linspace(0.1, 0.5, 5), compiled(sigma=0.9, max_detections=2000)
        ),
        "opentad_thumos": opentad,
        "opentad_anet": replace(
            opentad,
            stages=(
                enough,
                compiled(sigma=0.75, max_detections=100, per_class=False),
                Vote(threshold=0.9, per_class=False),
                *rounded,
            ),
            tiou_thresholds=anet,
            provenance="sming256/OpenTAD, configs/actionformer/anet_tsp.py; proposals on the feature grid",
        ),
        "opentad_bmn_recall": replace(
            opentad,
            stages=(
                compiled("improved", (0.5, 0.4), None, sigma=0.4, max_detections=100, per_class=False),
                Vote(threshold=0.95, per_class=False),
            ),
            tiou_thresholds=anet,
            provenance="sming256/OpenTAD, configs/bmn/anet_tsn_recall.py; proposals in fractions of the video",
        ),
    }
    for name, alpha, low, high, top in (
        ("bmn", 0.4, 0.5, 0.9, 100),
        ("bsn", 0.75, 0.65, 0.9, 100),
        ("tcanet", 0.4, 0.0, 0.0, 100),
        ("drn", 0.4, 0.5, 0.9, 5),
    ):
        gated = SoftNms(method="gated", sigma=alpha, gate=(low, high - low), max_detections=top + 1, per_class=False)
        presets[f"mmaction_{name}"] = Pipeline(
            stages=(gated,),
            protocol="mmaction",
            tiou_thresholds=_ANET,
            provenance=f"open-mmlab/mmaction2, proposal_utils.py: soft_nms as configs/localization/{name} calls it, "
            "which keeps one more than it says; proposals in fractions of the video",
        )
    return presets


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
        tiou_thresholds=_decimals(0.1, 0.7, 0.1),
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
        tiou_thresholds=_decimals(0.1, 0.7, 0.1),
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
        tiou_thresholds=_decimals(0.1, 0.7, 0.1),
        provenance="Temporal multi-resolution ILG + PTLR, section III-D (inference) and IV-A; maps ots and rts",
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
            tiou_thresholds=_decimals(0.5, 0.95, 0.05),
        ),
        "ptlr_thumos": ptlr,
        "ptlr_anet13": replace(ptlr, num_classes=200, tiou_thresholds=_decimals(0.5, 0.95, 0.05)),
    }


_PRESETS = {
    **_rskp_family(),
    **_basnet_family(),
    **_asmloc_family(),
    **_hamnet_family(),
    **_of_one_threshold(),
    **_of_given_proposals(),
    **_from_papers(),
}
_ELSEWHERE = {
    "facnet_thumos_2stream": ("facnet", "merges the detections of two streams", "snippet", "wtalc_interpolated"),
    "asl_thumos_soft": ("asl", "what is suppressed decays once, and stands at the end", "second", "activitynet"),
    "stpn_thumos": ("stpn", "suppresses only where both streams found the class", "second", "activitynet"),
    "afsd_thumos": ("afsd", "gaussian, σ = 0.5, floor 0.001; the last proposal left is lost", "second", "activitynet"),
    "afsd_anet": ("afsd", "gaussian, σ = 0.85, floor 1e-9; the last proposal left is lost", "second", "activitynet"),
    "bsn_tf": (
        "bsn",
        "gated, σ = 0.75, 0.65 + 0.25 length, top 101; the last one left is lost",
        "relative",
        "activitynet",
    ),
}
_ALIASES = {name.replace("_thumos", ""): name for name in _PRESETS if "_thumos" in name}


def names() -> tuple[str, ...]:
    """All presets, in the order of the documentation."""
    return tuple(_PRESETS)


def aliases() -> dict[str, str]:
    """Short name -> preset."""
    return dict(_ALIASES)


def elsewhere() -> dict[str, str]:
    """Published chains that settings cannot express -> the module that has them.

    >>> elsewhere()["stpn_thumos"]
    'compat.stpn'
    """
    return {name: f"compat.{file}" for name, (file, *_) in _ELSEWHERE.items()}


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


# --------------------------------------------------------------------------------------------------- all in one table


def table() -> list[tuple[str, ...]]:
    """All published chains as rows of text, the first of them the header.

    A chain that settings cannot express has the module and the reason in place of its stages.

    >>> header, first, *_ = table()
    >>> header[0], first[0], first[6]
    ('preset', 'gaufuse_thumos', 'mean - outer, oic_b 0.0785 n^0.9')
    """
    rows: list[tuple[str, ...]] = [
        ("preset", "maps", "thresholds", "least n / end", "up", "classes", "score", "then", "unit", "protocol", "tIoU")
    ]
    for name, pipeline in _PRESETS.items():
        banks = pipeline.banks
        stages = [_stage_text(stage) for stage in pipeline.stages]
        unit = "second" if "Seconds" in {text.split()[0] for text in stages} else "snippet" if banks else "as given"
        rows.append(
            (
                name,
                _each(_signal_text(bank.signal) for bank in banks) or "proposals",
                _each(map(_thresholds_text, banks)),
                _each(f"{bank.min_length} / {('e', 'e + 1', 'e - 1')[bank.extend_end]}" for bank in banks),
                _each(str(bank.upsample) for bank in banks),
                _classes_text(pipeline) if banks else "",
                _each(map(_score_text, banks)),
                ", ".join(stages),
                unit,
                pipeline.protocol,
                _list_text(pipeline.tiou_thresholds),
            )
        )
    for name, (file, reason, unit, protocol) in _ELSEWHERE.items():
        rows.append((name, *[""] * 6, f"no settings, but compat.{file}: {reason}", unit, protocol, ""))
    return rows


def _each(texts: Iterable[str]) -> str:
    """What the banks say, once where they agree."""
    return "; ".join(dict.fromkeys(texts))


def _list_text(values: tuple[float, ...]) -> str:
    if len(values) > 2:
        return f"{len(values)} from {values[0]:g} to {values[-1]:g}"
    return ", ".join(map("{:g}".format, values))


def _signal_text(signal: Signal) -> str:
    mixed = " + ".join(name if weight == 1.0 else f"{weight:.3g} {name}" for name, weight in signal.mix)
    return mixed + (f", {signal.normalize}" if signal.normalize != "none" else "") + (", clip" if signal.clip else "")


def _thresholds_text(bank: Bank) -> str:
    shown = {"absolute": "{}", "times_mean": "{} mean", "below_max": "max - {} (max - min)"}[bank.relative]
    text = ("≥ " if bank.inclusive else "> ") + shown.format(_list_text(bank.thresholds)) + ", > 0" * bank.positive
    return text + (f", dilated by {bank.dilate}" if bank.dilate else "")


def _classes_text(pipeline: Pipeline) -> str:
    rule, given = pipeline.classes, pipeline.video_scores
    if rule is None:
        return "all"
    text = f"{'≥' if rule.inclusive else '>'} {rule.threshold:g}" + ", or the best" * (rule.fallback == "argmax")
    return text + (f", best T / {given.ratio}" if given else "")


def _score_text(bank: Bank) -> str:
    rule = bank.score
    text: str = rule.inner
    if rule.margin is not None:
        size = f"{rule.margin.scale:g} n" + (f"^{rule.margin.power:g}" if rule.margin.power != 1.0 else "")
        weight = "" if rule.outer_weight == 1.0 else f"{rule.outer_weight:g} "
        text += f" - {weight}outer, {rule.margin.layout} {size}" + ", zeroed" * rule.zero_below
    if rule.signal is not None and rule.signal != bank.signal:
        text += f", on {_signal_text(rule.signal)}"
    text += f", + {rule.video_weight:g} video" if rule.video_weight else ""
    return text + (f", + {rule.constant:g}" if rule.constant else "")


def _stage_text(stage: Stage) -> str:
    """The stage and its settings that are not the usual ones."""
    kind = type(stage).__name__
    if isinstance(stage, (Nms, Fuse)):
        over = ("share" if stage.overlap.kind == "candidate" else "tIoU") + " +1" * bool(stage.overlap.length_offset)
        more = f", T = {stage.temperature:g}" if isinstance(stage, Fuse) else ""
        return f"{kind} {over} {'≥' if stage.inclusive else '>'} {stage.threshold:g}{more}"
    if isinstance(stage, SoftNms):
        text = f"{kind} {stage.method}, σ = {stage.sigma:g}" + ", +1" * bool(stage.overlap.length_offset)
        text += f", {stage.gate[0]:g} + {stage.gate[1]:g} length" if stage.gate else ""
        text += "" if stage.min_score is None else f", ≥ {stage.min_score:g}"
        text += "" if stage.max_detections is None else f", top {stage.max_detections}"
        return text + ", all classes" * (not stage.per_class)
    if isinstance(stage, Vote):
        return f"{kind} ≥ {stage.threshold:g}" + " by tIoU" * stage.times_iou
    if isinstance(stage, Keep):
        parts = {
            "score >": stage.min_score,
            "length >": stage.min_length,
            "top": stage.top,
            f"share per {stage.per} ≤": stage.cumulative,
        }
        return f"{kind} " + ", ".join(f"{what} {value:g}" for what, value in parts.items() if value is not None)
    if isinstance(stage, Expand):
        return f"{kind} {stage.ratio:g}"
    if isinstance(stage, Round):
        return f"{kind} {stage.segments}, {stage.scores}"
    return kind + " in the video" * (isinstance(stage, Seconds) and stage.clamp)
