"""Progress of what takes long, for people who wait."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

logger = logging.getLogger("liquid_ode.data")

Item = TypeVar("Item")


def shown(
    items: Iterable[Item], total: int | None, what: str, *, interval: float = 30.0
) -> Iterator[Item]:
    """The items, one by one; meanwhile a bar on a terminal, elsewhere a logged line now and then.

    Args:
        items: what is gone through.
        total: how many there are; None where nobody knows.
        what: what is being done, as "Reading images".
        interval: seconds between lines, the first of which comes after as many.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, what, total, unit="image", dynamic_ncols=True, delay=1.0)
        return
    told = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        if time.monotonic() - told >= interval:
            told = time.monotonic()
            logger.info("%s: %s%s", what, f"{count:,}", f" of {total:,}" if total else "")
