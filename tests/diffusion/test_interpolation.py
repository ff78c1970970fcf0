"""Arcs between noises: the circle, lengths, the ends, gradients."""

import math

import pytest
import torch

from liquid_ode.diffusion import arc, seeded_noise, slerp


def test_in_the_plane_it_is_the_circle():
    first = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    last = torch.tensor([[0.0, 2.0]], dtype=torch.float64)
    for share in (0.0, 0.2, 0.5, 0.9, 1.0):
        angle = share * math.pi / 2
        expected = torch.tensor([[2 * math.cos(angle), 2 * math.sin(angle)]], dtype=torch.float64)
        torch.testing.assert_close(slerp(first, last, share), expected, rtol=0, atol=1e-12)


def test_noise_stays_as_long_as_noise():
    first, last = seeded_noise([0, 1], (3, 16, 16)), seeded_noise([2, 3], (3, 16, 16))
    points = arc(first, last, 5)
    assert points.shape == (5, 2, 3, 16, 16)
    torch.testing.assert_close(points[0], first, rtol=0, atol=1e-5)
    torch.testing.assert_close(points[-1], last, rtol=0, atol=1e-5)
    assert points.std(dim=(2, 3, 4)).sub(1).abs().max().item() < 0.05
    assert torch.lerp(first, last, 0.5).std().item() < 0.75  # which the straight line does not
    steps = (points[1:] - points[:-1]).flatten(2).norm(dim=2)
    torch.testing.assert_close(
        steps, steps[:1].expand_as(steps), rtol=0.05, atol=0
    )  # lengths differ a little


def test_lengths_in_between_and_a_share_for_each_sample():
    first, last = torch.eye(3)[:2] * 2, torch.eye(3)[1:] * 4
    out = slerp(first, last, torch.tensor([0.5, 0.25]))
    torch.testing.assert_close(out.norm(dim=1), torch.tensor([3.0, 2.5]))


def test_nearly_parallel_ends_are_a_line():
    first = torch.ones(1, 8)
    for last in (first, first * 3, first + 1e-6 * torch.randn(1, 8)):
        out = slerp(first, last, 0.3)
        torch.testing.assert_close(out, torch.lerp(first, last, 0.3), rtol=1e-5, atol=1e-6)


def test_each_sample_is_a_line_or_an_arc_for_itself():
    """Peers look at the mean angle of the batch, or turn the line around where they take it."""
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    last = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    expected = torch.tensor([[1.25, 0.0], [math.cos(math.pi / 8), math.sin(math.pi / 8)]])
    torch.testing.assert_close(slerp(first, last, 0.25), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_of_large_images(dtype):
    """Their square sum is beyond float16."""
    first, last = (torch.randn(1, 3, 256, 256, dtype=torch.float32).to(dtype) for _ in range(2))
    out = slerp(first, last, 0.5)
    assert out.dtype == dtype
    torch.testing.assert_close(
        out.float(), slerp(first.float(), last.float(), 0.5), rtol=0, atol=0.02
    )


def test_zeros_have_no_direction():
    out = slerp(torch.zeros(1, 4), torch.ones(1, 4), 0.5)
    assert torch.isfinite(out).all()


def test_gradients():
    generator = torch.Generator().manual_seed(0)
    first, last = (
        torch.randn(3, 2, 4, dtype=torch.float64, generator=generator, requires_grad=True)
        for _ in range(2)
    )
    share = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(slerp, (first, last, share))
    same = first.detach().clone().requires_grad_()
    slerp(same, same * 1.0, share).sum().backward()
    assert torch.isfinite(same.grad).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: slerp(torch.ones(2, 3), torch.ones(2, 4), 0.5), "of one shape"),
        (lambda: slerp(torch.ones(3), torch.ones(3), 0.5), "batches"),
        (lambda: slerp(torch.ones(2, 3), torch.ones(2, 3), torch.ones(3)), "share must be"),
        (lambda: slerp(torch.ones(2, 3), -torch.ones(2, 3), 0.5), "opposite"),
        (lambda: arc(torch.ones(2, 3), torch.ones(2, 3), 1), "frames must be at least 2"),
    ],
)
def test_bad_options(call, message):
    with pytest.raises(ValueError, match=message):
        call()
