"""Fréchet and kernel distance against closed forms, SciPy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.metrics.pairwise import polynomial_kernel

from liquid_ode.evaluation import frechet_distance, kernel_distance


def draw(n: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(n, width, generator=generator, dtype=torch.float64) @ mix + seed


def test_frechet_distance_is_that_of_scipy() -> None:
    a, b = draw(50, 6, 1), draw(80, 6, 2)
    x, y = a.numpy(), b.numpy()
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = sqrtm(first @ second).real
    wanted = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(wanted, rel=1e-9)


def test_frechet_distance_in_closed_form() -> None:
    a = draw(40, 5, 3)
    shift = torch.arange(5.0, dtype=torch.float64)
    assert frechet_distance(a + shift, a) == pytest.approx(float(shift.square().sum()), rel=1e-7)
    # Twice the deviation: tr(4 Σ + Σ − 2 · 2 Σ) = tr Σ
    doubled = a.mean(0) + 2 * (a - a.mean(0))
    assert frechet_distance(doubled, a) == pytest.approx(float(a.T.cov().trace()), rel=1e-7)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_a_model_that_draws_one_image_has_a_distance() -> None:
    """The covariance of a collapsed set has rank 0; SciPy's root of it may be NaN or complex."""
    a = draw(40, 5, 3)
    one = a[:1].expand(40, -1)
    wanted = (a[0] - a.mean(0)).square().sum() + a.T.cov().trace()
    assert frechet_distance(one, a) == pytest.approx(float(wanted), rel=1e-6)
    assert frechet_distance(one, one) >= 0


def test_one_process_of_several_can_measure_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchmetrics would wait for the others, who do not come (its issue 2684)."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("another process was waited for")

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for name in ("all_gather", "barrier", "all_reduce", "get_world_size"):
        monkeypatch.setattr(torch.distributed, name, fail)
    a, b = draw(30, 3, 1), draw(30, 3, 2)
    assert frechet_distance(a, b) > 0
    assert kernel_distance(a, b, subsets=2)[0] > 0


def test_small_differences_far_from_the_origin_keep_their_digits() -> None:
    """Sums of squares in float32 would lose them: the mean is 1e4 times the deviation."""
    a, b = draw(400, 4, 1), draw(400, 4, 1) * 1.01
    near = frechet_distance(a, b + 1e-2)
    far = frechet_distance((a + 1e4).float(), (b + 1e-2 + 1e4).float())
    assert far == pytest.approx(near, rel=0.02)


def test_kernel_distance_of_whole_sets_is_the_unbiased_estimate() -> None:
    a, b = draw(30, 4, 1), draw(30, 4, 2)
    kernel = {"degree": 3, "gamma": 1 / 4, "coef0": 1}
    aa, bb, ab = (polynomial_kernel(x, y, **kernel) for x, y in ((a, a), (b, b), (a, b)))
    off = ~np.eye(30, dtype=bool)
    wanted = aa[off].mean() + bb[off].mean() - 2 * ab.mean()
    mean, spread = kernel_distance(a, b, subsets=3, subset_size=1000)
    assert mean == pytest.approx(wanted, rel=1e-9)
    assert spread == pytest.approx(0, abs=1e-9 * wanted)


def test_kernel_distance_of_one_distribution_is_about_zero_at_any_n() -> None:
    for n in (100, 800):
        mean, spread = kernel_distance(
            torch.randn(n, 8, generator=torch.Generator().manual_seed(1)),
            torch.randn(2000, 8, generator=torch.Generator().manual_seed(2)),
            subsets=50, subset_size=50,
        )  # fmt: skip
        assert abs(mean) < 0.1
        assert 0.01 < spread < 0.5


def test_kernel_distance_follows_its_seed_and_leaves_the_global_one_alone() -> None:
    a, b = draw(60, 3, 1), draw(60, 3, 2)
    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(7)
    first = kernel_distance(a, b, subset_size=20, seed=3)
    assert torch.equal(torch.rand(4), expected)
    assert kernel_distance(a, b, subset_size=20, seed=3) == first
    assert kernel_distance(a, b, subset_size=20, seed=4) != first


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_what_cannot_be_compared_is_refused(distance: object) -> None:
    assert callable(distance)
    good = draw(20, 3, 1)
    with pytest.raises(ValueError, match=r"\(20, 3\) and \(20, 4\)"):
        distance(good, draw(20, 4, 1))
    broken = good.clone()
    broken[3, 1] = float("nan")
    with pytest.raises(ValueError, match="reference features hold NaN"):
        distance(good, broken)
    with pytest.raises(ValueError, match="on each side, got 1"):
        distance(good, good[:1])


def test_no_more_samples_than_features_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 4 images on each side, got 4: take more"):
        frechet_distance(draw(4, 4, 1), draw(20, 4, 2))
    assert frechet_distance(draw(5, 4, 1), draw(20, 4, 2)) > 0
