"""Post-processing and pseudo labels for weakly supervised temporal action localization.

``import tal_postproc as tpp``: TCAMs in, detections and mAP out.  The conventions are in docs/conventions.md.
"""

import logging

from . import config, diagnosis, formats, presets, synthetic, tuning
from .bootstrap import bootstrap_map, paired_bootstrap
from .evaluation import (
    average_recall,
    classification_map,
    filter_ambiguous,
    mean_average_precision,
    pseudo_label_quality,
)
from .fusion import fuse_segments, non_maximum_weighted, weighted_segment_fusion
from .label_bank import DeltaPseudoLabels
from .linpro import linpro_label_map, linpro_label_maps, linpro_labels
from .overlap import tiou_matrix
from .pipeline import PostProcessor, warm_up
from .proposals import extract_proposals, oic_scores, segments_to_seconds, upsample_tcam
from .pseudo_labels import (
    gaussian_label_map,
    hard_label_map,
    score_label_map,
    smooth_label_map,
    tri_state_label_map,
    two_threshold_label_map,
)
from .refinement import (
    DurationPrior,
    agreement_weights,
    boundary_ignore_band,
    compensate_missing,
    filter_durations,
    quality_weights,
    snap_boundaries,
    timeline_fusion,
)
from .refresh import LabelRefresher
from .suppression import batched_nms, nms, segment_voting, soft_nms
from .tracing import Trace
from .tuning import TuningResult, tune
from .types import (
    Annotations,
    AverageRecall,
    BootstrapMAP,
    ClassificationMAP,
    EnsembledSegments,
    ErrorBreakdown,
    FormatError,
    FusedSegments,
    LabelChurn,
    LabelCollapseWarning,
    LabelQuality,
    LabelState,
    LinProLabelMap,
    LinProLabels,
    MeanAveragePrecision,
    MissedInstances,
    MissingExtraError,
    PairedBootstrap,
    RefreshReport,
    Segments,
    UnitError,
    Video,
    Videos,
)

__version__ = "0.1.0"

__all__ = [
    "Annotations",
    "AverageRecall",
    "BootstrapMAP",
    "ClassificationMAP",
    "DeltaPseudoLabels",
    "DurationPrior",
    "EnsembledSegments",
    "ErrorBreakdown",
    "FormatError",
    "FusedSegments",
    "LabelChurn",
    "LabelCollapseWarning",
    "LabelQuality",
    "LabelRefresher",
    "LabelState",
    "LinProLabelMap",
    "LinProLabels",
    "MeanAveragePrecision",
    "MissedInstances",
    "MissingExtraError",
    "PairedBootstrap",
    "PostProcessor",
    "RefreshReport",
    "Segments",
    "Trace",
    "TuningResult",
    "UnitError",
    "Video",
    "Videos",
    "agreement_weights",
    "average_recall",
    "batched_nms",
    "bootstrap_map",
    "boundary_ignore_band",
    "classification_map",
    "compensate_missing",
    "config",
    "diagnosis",
    "extract_proposals",
    "filter_ambiguous",
    "filter_durations",
    "formats",
    "fuse_segments",
    "gaussian_label_map",
    "hard_label_map",
    "linpro_label_map",
    "linpro_label_maps",
    "linpro_labels",
    "mean_average_precision",
    "nms",
    "non_maximum_weighted",
    "oic_scores",
    "paired_bootstrap",
    "presets",
    "pseudo_label_quality",
    "quality_weights",
    "score_label_map",
    "segment_voting",
    "segments_to_seconds",
    "smooth_label_map",
    "snap_boundaries",
    "soft_nms",
    "synthetic",
    "timeline_fusion",
    "tiou_matrix",
    "tri_state_label_map",
    "tune",
    "tuning",
    "two_threshold_label_map",
    "upsample_tcam",
    "warm_up",
    "weighted_segment_fusion",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())
