"""Sets of images measured against a reference."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor, nn

from liquid_ode.data import ImageSet, to_model_range
from liquid_ode.evaluation import (
    ImageFeatures,
    PixelStatistics,
    Yardstick,
    evaluate_images,
    frechet_distance,
    kernel_distance,
    quantised,
)


class MeanColours(ImageFeatures):
    """The mean of each channel: three features in closed form."""

    title = "FD-colour"
    num_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Parameter(torch.ones(()))
        self.seen: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        return self.unit * images.float().mean((2, 3))


def noise(n: int, seed: int, low: int = 0, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (n, channels, 6, 4)
    return torch.randint(low, 256, shape, generator=generator).to(torch.uint8)


def test_scores_are_the_distances_of_the_features() -> None:
    images, reference, training = noise(30, 1, low=40), noise(50, 2), noise(70, 3)
    scores = evaluate_images(images, reference, training, features=MeanColours(), batch_size=7)
    a, b = images.double().mean((2, 3)), reference.double().mean((2, 3))
    assert scores.images.n == 30
    assert scores.images.fd == pytest.approx(frechet_distance(a, b), rel=1e-5)
    assert (scores.images.kid, scores.images.kid_std) == pytest.approx(
        kernel_distance(a, b), rel=1e-4
    )
    assert scores.reference_n == 50
    assert scores.real is not None
    assert scores.real.n == 30
    assert scores.real.fd < scores.images.fd
    assert str(scores).startswith(f"FD-colour {scores.images.fd:.2f} at n = 30 (real images ")
    assert json.loads(json.dumps(scores.to_dict()))["images"]["fd"] == scores.images.fd


def test_floats_are_measured_as_a_file_would_hold_them() -> None:
    pixels = noise(20, 1)
    ruler = Yardstick(noise(30, 2), features=MeanColours())
    wanted = ruler.measure(pixels)
    assert ruler.measure(to_model_range(pixels)) == wanted
    # Less than half a grey level off, and beyond the ends.
    off = to_model_range(pixels) + (torch.rand(pixels.shape) - 0.5) * 0.9 / 127.5
    off[pixels == 255] = 1.3
    assert ruler.measure(off) == wanted
    assert wanted.real is None
    assert str(wanted).endswith("at n = 20")


def test_the_reference_is_looked_at_once_and_real_images_once_for_each_n() -> None:
    features = MeanColours()
    ruler = Yardstick(ImageSet(noise(40, 2)), ImageSet(noise(60, 3)), features=features)
    first = ruler.measure(noise(10, 4))
    again = ruler.measure(noise(10, 5))
    assert features.seen == [40, 10, 10, 10]
    assert first.real is again.real
    known = ruler.features(noise(10, 4))
    assert ruler.measure(noise(10, 4), known) == first
    more = ruler.measure(noise(100, 4)).real
    assert more is not None
    assert more.n == 60  # all there are, and it says so


def test_real_images_are_drawn_by_the_seed() -> None:
    def real(seed: int) -> float:
        ruler = Yardstick(noise(40, 2), noise(60, 3), features=MeanColours(), seed=seed)
        found = ruler.real(15)
        assert found is not None
        return found.fd

    assert real(0) == real(0) != real(1)


def test_grey_images_are_three_equal_channels() -> None:
    grey, reference = noise(20, 1, channels=1), noise(30, 2, channels=1)
    scores = Yardstick(reference, features=MeanColours()).features(grey)
    assert torch.equal(scores, grey.float().mean((2, 3)).double().expand(-1, 3))


def test_contrast_by_definition() -> None:
    images = noise(11, 1)
    images[0, 0] = 255
    found = PixelStatistics.of(images)
    assert found.std == pytest.approx(float(to_model_range(images).double().std(correction=0)))
    wanted = ((images == 0) | (images == 255)).double().mean()
    assert found.saturated == pytest.approx(float(wanted))
    flat = PixelStatistics.of(torch.full((2, 3, 4, 4), 255, dtype=torch.uint8))
    assert (flat.std, flat.saturated) == (0, 1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (to_model_range(noise(20, 1)) * 127.5 + 127.5, r"run from 0 to 255: floats must be"),
        (to_model_range(noise(20, 1)) / 2 + 0.5, r"not in \[0, 1\]"),
        (torch.full((20, 3, 6, 4), math.nan), "are NaN"),
        (torch.full((20, 3, 6, 4), -math.inf), "run from -inf"),
        (noise(20, 1).long(), "torch.int64"),
        (noise(20, 1)[:, :2], "1 or 3 channels"),
        (noise(20, 1)[0], "shape"),
        (noise(0, 1), "N > 0"),
        (noise(20, 1)[..., :3], r"\(3, 6, 3\) and the reference \(3, 6, 4\)"),
        (noise(20, 1, channels=1), r"\(1, 6, 4\) and the reference"),
        (noise(3, 1), "needs more than 3 images, got 3"),
    ],
)
def test_what_cannot_be_measured_is_refused(images: Tensor, message: str) -> None:
    ruler = Yardstick(noise(30, 2), features=MeanColours())
    with pytest.raises(ValueError, match=message):
        ruler.measure(images)


def test_references_are_checked_too() -> None:
    with pytest.raises(ValueError, match="reference must be uint8"):
        Yardstick(to_model_range(noise(5, 1)), features=MeanColours())
    with pytest.raises(ValueError, match="the training images are"):
        Yardstick(noise(5, 1), noise(5, 1)[..., :3], features=MeanColours())
    with pytest.raises(ValueError, match="more than 3 reference images, got 3"):
        Yardstick(noise(3, 1), features=MeanColours())
    assert (
        Yardstick(noise(5, 1), noise(3, 2), features=MeanColours()).measure(noise(9, 3)).real
        is None
    )
    assert quantised(noise(5, 1)).dtype == torch.uint8
