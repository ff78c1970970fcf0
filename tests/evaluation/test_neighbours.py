"""The nearest training images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from liquid_ode.evaluation import nearest, plot_neighbours


def test_neighbours_are_those_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(7, 2, 3, generator=generator)
    candidates = torch.randn(23, 2, 3, generator=generator)
    found = nearest(queries, candidates, 4, chunk=5)
    other = NearestNeighbors(n_neighbors=4).fit(candidates.flatten(1))
    distances, indices = other.kneighbors(queries.flatten(1))
    assert found.indices.tolist() == indices.tolist()
    torch.testing.assert_close(found.distances, torch.from_numpy(distances).double())


def test_a_copy_has_distance_zero_and_bytes_do_not_wrap() -> None:
    candidates = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    near = candidates[13].clone()
    near[0, 0, 0] = 255 - near[0, 0, 0]
    found = nearest(torch.stack([candidates[29], near]), candidates, 2)
    assert found.indices[:, 0].tolist() == [29, 13]
    change = abs(2.0 * float(candidates[13, 0, 0, 0]) - 255)
    assert found.distances[:, 0].tolist() == [0, change]


@pytest.mark.parametrize(
    ("candidates", "k"), [(torch.zeros(5, 4), 1), (torch.zeros(5, 3), 6), (torch.zeros(5, 3), 0)]
)
def test_what_has_no_neighbours_is_refused(candidates: torch.Tensor, k: int) -> None:
    with pytest.raises(ValueError, match="expected candidates"):
        nearest(torch.zeros(2, 3), candidates, k)
    with pytest.raises(ValueError, match=r"float32 and candidates torch\.float64"):
        nearest(torch.zeros(2, 3), torch.zeros(5, 3).double(), 2)


def test_the_picture_has_the_copies_first(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    training = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8, generator=generator)
    samples = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8, generator=generator)
    samples[4] = training[7]
    features = nearest(samples.flatten(1), training.flatten(1), 3)
    path = plot_neighbours(samples, training, features, tmp_path / "new" / "n.png", rows=2)
    with Image.open(path) as picture:
        assert picture.width > picture.height > 100
    with pytest.raises(ValueError, match="rows must be at least 1"):
        plot_neighbours(samples, training, features, path, rows=0)
