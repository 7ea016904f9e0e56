"""Post-processing and pseudo labels for weakly supervised temporal action localization."""

from .types import (
    AverageRecall,
    FormatError,
    FusedSegments,
    MeanAveragePrecision,
    MissingExtraError,
    Segments,
    UnitError,
    Video,
)

__version__ = "0.1.0"

__all__ = [
    "AverageRecall",
    "FormatError",
    "FusedSegments",
    "MeanAveragePrecision",
    "MissingExtraError",
    "Segments",
    "UnitError",
    "Video",
]
