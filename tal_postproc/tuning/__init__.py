"""Better settings: a search on validation videos that says whether its gain is more than noise."""

from ._search import Trial, TuningResult, tune
from ._space import Range

__all__ = ["Range", "Trial", "TuningResult", "tune"]
