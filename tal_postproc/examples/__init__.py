"""Training loops that use the library: ``tal-postproc train NAME`` or ``python -m tal_postproc.examples.NAME``.

`data` holds features, `engine` is the loop that all share, `backbones` the networks, and every other file a method.
This needs torch (``pip install tal_postproc[torch]``).
"""
