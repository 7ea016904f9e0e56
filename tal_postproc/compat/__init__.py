"""Drop-in functions for published codebases: a file for each, with the original's names, arguments and results.

Replace the import, keep the call: ``from tal_postproc.compat.rskp import NonMaximumSuppression``.  Three things differ
from the originals on purpose, in every file: inputs are never changed, nothing crashes on empty input, and rows of
equal score come in a defined order.
"""
