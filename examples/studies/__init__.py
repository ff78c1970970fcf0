"""Measurements and comparisons: programs, and the tables and plots that they share.

The programs are ``compare_solvers.py``, ``fit_sequence.py`` and ``vision_block.py``. What lies
beside them is imported as ``studies.NAME``, with ``examples/`` on the path, so that the other
examples and the benchmarks can share it too.
"""
