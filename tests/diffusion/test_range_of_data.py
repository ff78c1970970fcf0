"""Training data that are no images in [-1, 1]: refused, or a little out of range and taken."""

import pytest
import torch

from tests.diffusion.test_gaussian import LABELS, gen, images, make


@pytest.mark.parametrize("scale", [12.0, 127.5, 255.0, 65_535.0])
def test_images_of_0_to_255_are_refused_with_the_remedy(scale):
    x0 = (images(0) + 1) / 2 * scale
    for call in (make().loss, lambda x: make().per_sample_loss(x, LABELS, images(1))):
        with pytest.raises(
            ValueError, match=r"must be images in \[-1, 1\].*x / 127.5 - 1"
        ) as found:
            call(x0)
        assert "\n" not in str(found.value)
    with pytest.raises(ValueError, match=r"must lie in \[0, 3\]"):  # the labels come first
        make(3).loss(x0, LABELS + 9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_data_a_little_out_of_range_are_taken(dtype):
    noise = torch.randn(8, 3, 64, 64, generator=gen())  # beyond ±4
    for x0 in (1.5 * images(0), noise, 2.6 * images(0)):  # resized, whitened, standardised
        assert torch.isfinite(make().loss(x0.to(dtype)))


def test_data_that_are_no_images_are_not_bounded():
    assert torch.isfinite(make(clip_sample=False).loss(1e4 * images(0)))
    with pytest.raises(ValueError, match="finite"):
        make(clip_sample=False).loss(images(0) / 0)
