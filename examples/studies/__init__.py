"""Measurements and comparisons: programs, and the tables and plots that they share.

The programs are ``compare_solvers.py``, ``fit_sequence.py`` and ``vision_block.py``, and such as
measure one thing. What lies beside them is imported as ``studies.NAME``, with ``examples/`` on the
path. What a command of the package needs is in ``liquid_ode.measuring`` and
``liquid_ode.comparing``.
"""
