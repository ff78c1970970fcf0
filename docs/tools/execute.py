"""Runs the Python blocks of a page, in order, in one namespace, and keeps what they show."""

from __future__ import annotations

import contextlib
import io
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType


@dataclass
class Shown:
    """What a block printed, and the figures it drew, as PNG."""

    text: str = ""
    figures: list[bytes] = field(default_factory=list)


class PageError(RuntimeError):
    """A block of a page raised."""


def execute(codes: Sequence[str], page: str) -> list[Shown]:
    """Run the blocks of a page.

    Raises:
        PageError: with the traceback, where one raises.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["figure.dpi"] = 110
    before = sys.modules.get("__main__")
    sys.modules["__main__"] = main = ModuleType("__main__")  # where classes say they are from
    try:
        return [_run(code, main, f"{page}, block {place}") for place, code in enumerate(codes, 1)]
    finally:
        if before is not None:
            sys.modules["__main__"] = before


def _run(code: str, main: ModuleType, where: str) -> Shown:
    import matplotlib.pyplot as plt

    out, shown = io.StringIO(), Shown()
    try:
        with contextlib.redirect_stdout(out):
            exec(compile(code, where, "exec"), main.__dict__)
    except BaseException as error:
        raise PageError(f"{where}:\n{traceback.format_exc()}") from error
    shown.text = out.getvalue().rstrip()
    for number in plt.get_fignums():
        png = io.BytesIO()
        plt.figure(number).savefig(png, format="png", bbox_inches="tight")
        shown.figures.append(png.getvalue())
    plt.close("all")
    return shown
