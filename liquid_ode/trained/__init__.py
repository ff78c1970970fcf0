"""Trained runs that come with the package: their averaged weights, settings, metrics and measures.

>>> from liquid_ode.trained import trained_run, trained_runs
>>> trained_runs()  # doctest: +ELLIPSIS
[...'unet-seed0'...]
>>> diffusion = load_run(trained_run("unet-seed0"))  # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def trained_runs() -> list[str]:
    """The names of the runs."""
    return sorted(record.parent.name for record in _HERE.glob("*/config.json"))


def trained_run(name: str) -> Path:
    """The directory of a run, for :func:`liquid_ode.load_run` and the scripts of ``examples/``.

    Raises:
        ValueError: there is no run of that name.
    """
    if name not in trained_runs():
        raise ValueError(f"unknown run {name!r}; there are {', '.join(trained_runs())}")
    return _HERE / name
