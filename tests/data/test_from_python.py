"""``as_image_set``: every kind of item, and the refusal of whatever would have to be guessed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset
from torchvision.datasets import FakeData
from torchvision.transforms import Compose, Normalize, ToTensor

from liquid_ode.data import DataError, ImageSet, as_image_set, to_model_range

BYTES = torch.randint(0, 256, (5, 3, 6, 7), generator=torch.Generator().manual_seed(0)).to(
    torch.uint8
)
ARRAYS = BYTES.permute(0, 2, 3, 1).numpy()  # (N, H, W, C)
PICTURES = [Image.fromarray(array) for array in ARRAYS]
LABELS = [2, 0, 1, 1, 0]


class Endless(Dataset[Any]):
    """Has a length, and goes on behind its end, as many a user's dataset does."""

    classes = ("cat", "dog", "eel")

    def __init__(self, items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        item = self.items[index % len(self.items)]
        return item, LABELS[index % 5]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(BYTES)

    def __len__(self) -> int:
        return 5


@pytest.mark.parametrize(
    "dataset",
    [
        BYTES,
        ARRAYS,
        list(BYTES),
        PICTURES,
        tuple(zip(PICTURES, [None] * 5, strict=True)),
        TensorDataset(BYTES),
        Stream(),
        (array[::-1][::-1] for array in ARRAYS),  # no negative strides in torch
        DataLoader(ImageSet(BYTES), batch_size=None),
    ],
    ids=lambda dataset: type(dataset).__name__,
)
def test_bytes_come_through_untouched(dataset: Any) -> None:
    found = as_image_set(dataset)
    assert found.images.dtype == torch.uint8
    assert torch.equal(found.images, BYTES)
    assert found.labels is None
    assert found.class_names is None


def test_labels_and_names_of_a_dataset() -> None:
    found = as_image_set(Endless(ARRAYS))
    assert torch.equal(found.images, BYTES)
    assert found.labels is not None
    assert found.labels.tolist() == LABELS
    assert found.class_names == ("cat", "dog", "eel")
    assert found.name == "Endless"
    assert as_image_set(Endless(ARRAYS), class_names="abcd").class_names == ("a", "b", "c", "d")
    part = as_image_set(Subset(Endless(ARRAYS), [3, 1]), name="part")
    assert (part.name, part.class_names) == ("part", None)
    assert torch.equal(part.images, BYTES[[3, 1]])


@pytest.mark.parametrize(
    "label", [1, True, np.int64(1), np.array([1]), torch.tensor(1), torch.tensor([1])], ids=repr
)
def test_what_counts_as_a_label(label: Any) -> None:
    labels = as_image_set([(BYTES[0], label)]).labels
    assert labels is not None
    assert labels.tolist() == [1]
    assert labels.dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_floats_round_to_the_bytes_they_came_from(dtype: torch.dtype) -> None:
    unit = (BYTES.double() / 255).to(dtype)
    assert torch.equal(as_image_set(unit, value_range=(0, 1)).images, BYTES)
    assert torch.equal(as_image_set(2 * unit - 1, value_range=(-1, 1)).images, BYTES)
    assert torch.equal(as_image_set(to_model_range(BYTES), value_range=(-1, 1)).images, BYTES)


def test_torchvision_datasets_with_its_transforms() -> None:
    scaled = Compose([ToTensor(), Normalize([0.5] * 3, [0.5] * 3)])
    plain, unit, both = (
        FakeData(4, (3, 8, 8), num_classes=3, transform=transform)
        for transform in (None, ToTensor(), scaled)
    )
    images = as_image_set(plain)
    assert torch.equal(as_image_set(unit, value_range=(0, 1)).images, images.images)
    assert torch.equal(as_image_set(both, value_range=(-1, 1)).images, images.images)
    assert images.labels is not None
    assert images.labels.tolist() == [plain[i][1] for i in range(4)]


def test_sixteen_bits_by_their_range() -> None:
    deep = torch.tensor([[0, 257, 65535]], dtype=torch.int32)
    assert as_image_set([deep], value_range=(0, 65535)).images.flatten().tolist() == [0, 1, 255]
    picture = Image.fromarray(deep.numpy().astype(np.uint16))
    assert as_image_set([picture]).images.flatten().tolist() == [0, 1, 255]


def test_grey_and_alpha() -> None:
    assert as_image_set(BYTES[:, 0]).images.shape == (5, 1, 6, 7)
    assert as_image_set(ARRAYS[..., 0]).images.shape == (5, 1, 6, 7)
    assert as_image_set([Image.new("L", (7, 6), 9)]).images.unique().tolist() == [9]
    four = as_image_set([Image.new("RGBA", (2, 3), (1, 2, 3, 4))])
    assert four.images[0, :, 0, 0].tolist() == [1, 2, 3, 4]
    assert four.image_shape == (4, 3, 2)


def test_pictures_are_brought_to_one_form() -> None:
    mixed = [Image.new("L", (9, 20), 50), Image.new("RGB", (30, 8), (50, 50, 50))]
    found = as_image_set(mixed, image_size="4x6", image_channels=3)
    assert found.images.shape == (2, 3, 4, 6)
    assert found.images.unique().tolist() == [50]


def test_an_image_set_is_left_as_it_is() -> None:
    data = ImageSet(BYTES, torch.tensor(LABELS), ("a", "b", "c"), "mine")
    assert as_image_set(data, image_size="6x7", image_channels=3) is data
    first = as_image_set(data, limit=2)
    assert (len(first), first.class_names, first.name) == (2, ("a", "b", "c"), "mine")
    with pytest.raises(DataError, match=r"mine has images of 6x7 with 3 channels, where 8x8"):
        as_image_set(data, image_size=8)


def test_the_limit_ends_what_has_no_end() -> None:
    def forever() -> Iterator[torch.Tensor]:
        while True:
            yield BYTES[0]

    assert len(as_image_set(forever(), limit=3)) == 3
    assert len(as_image_set(BYTES, limit=99)) == 5


NAN = torch.full((1, 2, 2), torch.nan)


@pytest.mark.parametrize(
    ("dataset", "match"),
    [
        ([BYTES[0] / 255], r"item 0: its values are float32, not bytes.*value_range=\(0, 1\)"),
        ([BYTES[0].int()], "its values are int32, not bytes"),
        ([BYTES[0], BYTES[1, :, :4]], "item 1 is 4x7 with 3 channels, where 6x7 with 3"),
        ([BYTES[0], BYTES[1, :1]], "item 1 is 6x7 with 1 channels"),
        ([BYTES[0].permute(1, 2, 0)], "must be .C, H, W.*channels are at the other end"),
        ([BYTES[0].numpy()], "must be .H, W, C.*channels are at the other end"),
        ([BYTES[:2]], r"got \(2, 3, 6, 7\). It looks like a batch"),
        (DataLoader(TensorDataset(BYTES, torch.tensor(LABELS)), batch_size=2), "like a batch"),
        ([BYTES[:, 0]], r"with 1, 3 or 4 channels"),
        ([(BYTES[0], 1), (BYTES[1], None)], "item 1 has no label"),
        ([BYTES[0], (BYTES[1], 1)], "item 1 has a label"),
        ([(BYTES[0], 0.5)], "item 0 has the label 0.5: expected a whole number"),
        ([(BYTES[0], torch.ones(40))], "item 0 has the label 'Tensor'"),
        ([(BYTES[0], 1, 2)], "item 0 has 3 parts"),
        ([{"image": BYTES[0], "label": 1}], r"item 0 is a mapping with 'image', 'label'.*row"),
        (["a.png"], "got str"),
        ("folder", "got str. A folder of files is load_folder"),
        ({"a": BYTES[0]}, "got dict"),
        (7, "got int: it has neither"),
        ([], "no items"),
        ([Image.new("P", (2, 2))], "item 0: it has pixel mode 'P': choose image_channels"),
        ([Image.fromarray(np.ones((2, 2), np.float32))], "item 0: .*pixel mode 'F'"),
    ],
)
def test_what_cannot_be_known_is_refused(dataset: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        as_image_set(dataset)


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (2 * torch.rand(1, 1, 4, 4) - 1.1, "item 0: its values run from -"),
        (255 * torch.rand(1, 1, 4, 4), "outside value_range=.0, 1.: name the range"),
        (NAN[None], "run from nan to nan"),
        (BYTES, "run from [0-9]+ to 2[0-9]+, outside"),
    ],
)
def test_values_outside_their_range_are_refused(images: torch.Tensor, match: str) -> None:
    with pytest.raises(DataError, match=match):
        as_image_set(images, value_range=(0, 1))


def test_arguments_out_of_range() -> None:
    for options, match in (
        ({"limit": 0}, "limit must be at least 1"),
        ({"value_range": (1, 0)}, "black below white"),
        ({"image_channels": 2}, "must be 1 .grey., 3 .RGB. or 4"),
        ({"image_size": "8x"}, "height and width, as 24x32, got '8x'"),
        ({"image_size": (1, 2, 3)}, "image_size"),
        ({"image_size": 0}, "at least 1 pixel"),
    ):
        with pytest.raises(ValueError, match=match):
            as_image_set(BYTES, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="outside the 2 classes"):
        as_image_set(Endless(ARRAYS), class_names=("a", "b"))
