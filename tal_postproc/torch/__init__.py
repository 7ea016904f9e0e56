"""`tal_postproc` for tensors: the same names, on the CPU through the NumPy core, on a GPU in batches.

``import tal_postproc.torch as tpt``; docs/api/torch.md lists it all.
"""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as _error:
    from ..types import MissingExtraError

    raise MissingExtraError("torch", "torch", "tal_postproc.torch") from _error

from ._bridge import backend
from .functions import (
    average_recall,
    batched_nms,
    classification_map,
    extract_proposals,
    filter_ambiguous,
    fuse_segments,
    mean_average_precision,
    nms,
    oic_scores,
    pseudo_label_quality,
    segment_voting,
    segments_to_seconds,
    soft_nms,
    tiou_matrix,
    upsample_tcam,
    weighted_segment_fusion,
)
from .labels import (
    gaussian_label_map,
    hard_label_map,
    score_label_map,
    smooth_label_map,
    tri_state_label_map,
    two_threshold_label_map,
)
from .linpro import linpro_label_map, linpro_label_maps, linpro_labels
from .pipeline import PostProcessor
from .types import EnsembledSegments, FusedSegments, LinProLabelMap, LinProLabels, Segments

__all__ = [
    "EnsembledSegments",
    "FusedSegments",
    "LinProLabelMap",
    "LinProLabels",
    "PostProcessor",
    "Segments",
    "average_recall",
    "backend",
    "batched_nms",
    "classification_map",
    "extract_proposals",
    "filter_ambiguous",
    "fuse_segments",
    "gaussian_label_map",
    "hard_label_map",
    "linpro_label_map",
    "linpro_label_maps",
    "linpro_labels",
    "mean_average_precision",
    "nms",
    "oic_scores",
    "pseudo_label_quality",
    "score_label_map",
    "segment_voting",
    "segments_to_seconds",
    "smooth_label_map",
    "soft_nms",
    "tiou_matrix",
    "tri_state_label_map",
    "two_threshold_label_map",
    "upsample_tcam",
    "weighted_segment_fusion",
]
