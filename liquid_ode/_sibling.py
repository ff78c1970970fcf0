"""Whether the package ``solvers``, which comes with this one, is the one that Python finds.

Its name is a common one, and a ``solvers.py`` beside a user's script would hide it.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

_OURS = "torchdiffeq_adapter.py"  # which a folder of that name has by no chance


def _is_ours(place: Path) -> bool:
    """Beside this package, as it is installed (in an archive too), or with our files."""
    return place.parent == Path(__file__).parent.parent or (place / _OURS).is_file()


def refuse_other_solvers() -> None:
    """Raise ImportError where another ``solvers`` is found first; nothing is imported.

    Raises:
        ImportError: with the file that is in the way, and what to do.
    """
    loaded = sys.modules.get("solvers")
    spec = find_spec("solvers") if loaded is None else loaded.__spec__
    if spec is None and loaded is None:
        raise ImportError(
            "liquid_ode needs the package 'solvers', which is installed with it and is missing: "
            "install liquid_ode anew"
        )
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    if any(_is_ours(Path(place)) for place in places):
        return
    found = getattr(loaded, "__file__", None) or getattr(spec, "origin", None) or places
    raise ImportError(
        f"liquid_ode comes with a package 'solvers', and another one hides it: {found}. Rename "
        "that file or folder, or take the folder that holds it off the path (where Python looks "
        "first is the folder of the script, or with python -m and -c the current one)"
    )
