"""Where data lies on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from liquid_ode.data.images import DataError


def expanded(path: Path | str, what: str) -> Path:
    """``path`` with a leading ``~`` or ``~user`` replaced by that home folder.

    Raises:
        DataError: there is no such user, or no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(
            f"{what} {path} begins with a home folder that is not known: there is no such user, or "
            "HOME is not set. Write the path out"
        ) from error


def data_root(root: Path | str | None) -> Path:
    """The data cache: the argument, else ``LIQUID_ODE_DATA``, else the user's cache folder.

    Raises:
        DataError: it begins with a home folder that is not known.
    """
    given = root if root is not None else os.environ.get("LIQUID_ODE_DATA")
    if given:
        return expanded(given, "The data cache")
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return expanded(cache, "") / "liquid_ode"
    except DataError as error:
        raise DataError(
            "There is no home folder for the data cache (HOME is not set): name one by --data-root "
            "or the environment variable LIQUID_ODE_DATA"
        ) from error
