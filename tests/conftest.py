"""One thread for each test process, and for those that tests start.

pytest-xdist runs a process for every core: with more threads than cores all are ten times slower.
``OMP_NUM_THREADS=4 python -m pytest -n 0`` runs the tests in one process with four.
"""

import os

# Before anything imports torch, which reads them once, as NumPy's libraries do.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ[name] = "1"
    os.environ.setdefault(name, "1")
