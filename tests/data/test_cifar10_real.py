"""The real CIFAR-10, wherever this machine can get it from."""

from __future__ import annotations

import hashlib

import pytest
import torch

from liquid_ode.data import DataError, ImageSet, load_cifar10

OFFICIAL_MD5 = [
    "5dd7e06a14cb22eb9f671a540d1b7c25",
    "5ea93a67294ea407fff1d09f752e9692",
    "942cd6a4bcdd0dd3c604fbe906cb4421",
    "ae636b3ba5c66a11e91e8cb52e771fcb",
    "53f37980c15c3d472c316c40844f3f0d",
    "803d5f7f4d78ea53de84dbe85f74fb6d",
]


@pytest.fixture(scope="session")
def cifar10() -> tuple[ImageSet, ImageSet]:
    """CIFAR-10 out of the default root, fetched if need be; skips where it cannot be had."""
    try:
        return load_cifar10(), load_cifar10(split="test")
    except DataError as error:
        pytest.skip(str(error))


def test_real_data_has_the_official_checksums(cifar10: tuple[ImageSet, ImageSet]) -> None:
    found = []
    for dataset in cifar10:
        assert dataset.labels is not None
        for start in range(0, len(dataset), 10_000):
            rows = slice(start, start + 10_000)
            labels = dataset.labels[rows, None].to(torch.uint8)
            records = torch.cat([labels, dataset.images[rows].flatten(1)], 1)
            found.append(hashlib.md5(records.numpy().data).hexdigest())
    assert found == OFFICIAL_MD5


def test_real_data_has_its_shape_and_balance(cifar10: tuple[ImageSet, ImageSet]) -> None:
    for dataset, count in zip(cifar10, (50_000, 10_000), strict=True):
        assert dataset.images.shape == (count, 3, 32, 32)
        assert dataset.labels is not None
        assert dataset.labels.bincount().tolist() == [count // 10] * 10
        assert dataset.num_classes == 10
