"""The made CIFAR-10 in place of the real one."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
from torchvision.datasets import CIFAR10

from liquid_ode.data import _batches, _sources
from liquid_ode.data._batches import TEST, TRAIN
from tests.data.made_cifar10 import NAMES, Made, md5


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """The made distribution, its checksums in place of the official ones, and no network."""
    made = Made()
    digests = {name: md5(made.batch(number)) for number, name in enumerate(NAMES)}
    monkeypatch.setattr(_batches, "MD5", digests)
    pickles = {Path(name).name: md5(data) for name, data in made.python().items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, pickles[name]] for name in TRAIN])
    monkeypatch.setattr(CIFAR10, "test_list", [[name, pickles[name]] for name in TEST])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": pickles["batches.meta"]})

    def no_network(self: CIFAR10) -> None:
        raise URLError("no network in this test")

    monkeypatch.setattr(CIFAR10, "download", no_network)
    monkeypatch.setattr(_sources.shutil, "which", lambda program: None)
    return made
