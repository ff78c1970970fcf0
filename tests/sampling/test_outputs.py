"""Images in bulk: what is written, and that a kill changes no image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from liquid_ode.diffusion import Sampled, seeded_noise
from liquid_ode.sampling import ArrayOutput, Batch, FolderOutput, Output, sample_to

RECORD: dict[str, object] = {"sampler": "DDIM(steps=2)", "seed": 3}
SEEDS = list(range(3, 13))


def draw(batch: Batch) -> Sampled:
    """Images that depend on the batch as well, as products of matrices may in their last bits."""
    images = seeded_noise(batch.seeds, (3, 4, 4)).tanh() * (1 - 0.1 * len(batch.seeds))
    return Sampled(images, torch.full((len(images),), 7))


class Killed(BaseException):
    pass


def killed_after(batches: int) -> Callable[[Batch], Sampled]:
    left = [batches]

    def drawing(batch: Batch) -> Sampled:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return draw(batch)

    return drawing


def folder(path: Path, record: dict[str, object] = RECORD) -> Output:
    return FolderOutput(path / "images", record)


def arrays(path: Path, record: dict[str, object] = RECORD) -> Output:
    return ArrayOutput(path / "images.npz", record, len(SEEDS))


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("make", [folder, arrays])
@pytest.mark.parametrize("labels", [None, [0, 1] * 5])
def test_a_kill_changes_no_image(
    tmp_path: Path, make: Callable[[Path], Output], labels: list[int] | None
) -> None:
    whole = tmp_path / "whole"
    output = make(whole)
    assert sample_to([output], SEEDS, labels, 4, draw).tolist() == [7] * 10
    output.finish()

    broken = tmp_path / "broken"
    for after in (1, 0, 1):
        with pytest.raises(Killed):
            sample_to([make(broken)], SEEDS, labels, 4, killed_after(after))
    if make is folder:  # in the midst of a batch
        next(iter((broken / "images").glob("seed_000004*"))).unlink()
    output = make(broken)
    drawn = sample_to([output], SEEDS, labels, 4, draw)
    assert len(drawn) == (6 if make is folder else 2)  # of batches of 4, 4 and 2
    output.finish()
    assert contents(broken) == contents(whole)

    again = make(broken)  # nothing is left to do
    assert len(sample_to([again], SEEDS, labels, 4, killed_after(0))) == 0
    again.finish()
    assert contents(broken) == contents(whole)


def test_the_array_file_holds_pixels_seeds_and_labels(tmp_path: Path) -> None:
    output = ArrayOutput(tmp_path / "a.npz", RECORD, 10)
    sample_to([output], SEEDS, list(range(10)), 4, draw)
    with np.load(output.finish()) as found:
        assert found["images"].shape == (10, 4, 4, 3)
        assert found["images"].dtype == np.uint8
        assert found["seeds"].tolist() == SEEDS
        assert found["labels"].tolist() == list(range(10))
        first = draw(Batch(0, SEEDS[:4], None)).images[0].permute(1, 2, 0)
        expected = np.clip(np.round((first.numpy() + 1) * 127.5), 0, 255)
        assert np.array_equal(found["images"][0], expected)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]

    output = ArrayOutput(tmp_path / "b.npz", RECORD, 2)
    sample_to([output], SEEDS[:2], None, 4, draw)
    with np.load(output.finish()) as found:
        assert found["labels"].tolist() == [-1, -1]


def test_a_folder_may_grow(tmp_path: Path) -> None:
    few = folder(tmp_path)
    sample_to([few], SEEDS[:6], None, 4, draw)
    before = contents(tmp_path)
    sample_to([folder(tmp_path)], SEEDS, None, 4, draw)
    after = contents(tmp_path)
    assert len(after) == 11
    assert {name: after[name] for name in before} == before
    with Image.open(tmp_path / "images" / "seed_000012.png") as image:
        assert image.size == (4, 4)


@pytest.mark.parametrize("make", [folder, arrays])
@pytest.mark.parametrize("finished", [True, False])
def test_images_that_were_made_otherwise_are_not_mixed(
    tmp_path: Path, make: Callable[..., Output], finished: bool
) -> None:
    output = make(tmp_path)
    sample_to([output], SEEDS, None, 4, draw)
    if finished:
        output.finish()
    other = {**RECORD, "sampler": "DDIM(steps=3)"}
    with pytest.raises(ValueError, match=r"sampler 'DDIM\(steps=2\)' \(now 'DDIM\(steps=3\)'\)"):
        make(tmp_path, other)
    if make is arrays:
        with pytest.raises(ValueError, match="n 10 "):
            ArrayOutput(tmp_path / "images.npz", RECORD, 11)


def test_what_is_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "other.npz").write_text("not an array")
    np.savez(tmp_path / "array.npz", images=np.zeros(3))
    with pytest.raises(ValueError, match="is a file: name a folder"):
        FolderOutput(tmp_path / "file", RECORD)
    for name in ("other.npz", "array.npz"):
        with pytest.raises(ValueError, match=r"no file of sampled images"):
            ArrayOutput(tmp_path / name, RECORD, 3)
    with pytest.raises(ValueError, match=r"must be named .npz"):
        ArrayOutput(tmp_path / "images.zip", RECORD, 3)
