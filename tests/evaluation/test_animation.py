"""Animations: which frames are kept, and the GIF."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image

from liquid_ode.evaluation import Frames, save_animation


def filled(value: int) -> torch.Tensor:
    return torch.full((2, 3, 4, 4), value, dtype=torch.uint8)


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 57, 200])
def test_frames_are_thinned_out_evenly_and_end_with_the_last(count: int) -> None:
    frames = Frames(most=10)
    for index in range(count):
        frames.add(filled(index))
    kept = [int(frame.flatten()[0]) for frame in frames.frames()]
    assert kept[0] == 0
    assert kept[-1] == count - 1
    assert len(kept) <= 11
    assert len(kept) >= min(count, 5)
    strides = {b - a for a, b in pairwise(kept[:-1])}
    assert len(strides) <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_the_gif_moves_and_rests_on_the_last(tmp_path: Path, channels: int) -> None:
    frames = Frames()
    for value in (0, 90, 200):
        frames.add(torch.full((5, channels, 4, 4), value, dtype=torch.uint8))
    path = save_animation(frames, tmp_path / "new" / "it.gif", columns=3, scale=2, seconds=1.0)
    with Image.open(path) as gif:
        assert gif.n_frames == 3
        assert gif.size == (3 * 10 + 2, 2 * 10 + 2)
        assert gif.info["loop"] == 0
        seen, durations = [], []
        for index in range(3):
            gif.seek(index)
            seen.append(gif.convert("L").getpixel((4, 4)))
            durations.append(gif.info["duration"])
    assert seen == pytest.approx([0, 90, 200], abs=2)
    assert durations[0] == durations[1] == pytest.approx(333, abs=10)
    assert durations[2] == 2000


def test_what_is_no_animation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        save_animation(Frames(), tmp_path / "none.gif")
    with pytest.raises(ValueError, match="at least 2 frames"):
        Frames(most=1)
