"""Pictures of what the methods do; this needs matplotlib (`pip install tal_postproc[plot]`)."""

from ._errors import errors
from ._timeline import timeline

__all__ = ["errors", "timeline"]
