"""Pictures of what the methods do; but for the page they need matplotlib (`pip install tal_postproc[plot]`)."""

from ._errors import errors
from ._figure import video_timeline
from ._page import video_page
from ._surface import surface
from ._timeline import timeline

__all__ = ["errors", "surface", "timeline", "video_page", "video_timeline"]
