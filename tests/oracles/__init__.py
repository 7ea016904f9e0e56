"""Slow, literal answers, one module per room.  They import nothing from tal_postproc."""
