"""The parts of the loop by themselves: learning rate, batches, precision."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from liquid_ode.data import ImageSet, to_model_range
from liquid_ode.training.batches import Batches, derived_seed
from liquid_ode.training.machine import (
    reproducible,
    resolve_device,
    resolve_precision,
)
from liquid_ode.training.rates import learning_rate


def numbered(count: int) -> ImageSet:
    """Images of which each shows its own index."""
    values = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1)
    return ImageSet(values.expand(-1, 3, 2, 2).contiguous(), torch.arange(count) % 3)


def shown(images: torch.Tensor) -> list[int]:
    return ((images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


# Learning rate --------------------------------------------------------------------------------


def test_the_learning_rate_goes_from_its_peak_to_zero() -> None:
    rates = [learning_rate(2e-4, step, 100) for step in range(101)]
    assert rates[0] == 2e-4
    assert rates[50] == pytest.approx(1e-4)
    assert rates[100] == 0
    assert rates == sorted(rates, reverse=True)


def test_the_learning_rate_warms_up_and_may_stay() -> None:
    rates = [learning_rate(1.0, step, 100, warmup=20) for step in range(101)]
    assert rates[:20] == [(step + 1) / 20 for step in range(20)]
    assert rates[20] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[100] == 0
    rates = [learning_rate(1.0, k, 9, schedule="constant", warmup=2) for k in range(9)]
    assert rates == [0.5] + 8 * [1.0]


# Batches --------------------------------------------------------------------------------------


def test_an_epoch_shows_every_image_once_and_the_next_in_another_order() -> None:
    batches = Batches(numbered(12), batch_size=2, accumulation=2, seed=5)
    assert batches.steps_per_epoch == 3
    epochs = [
        [index for step in range(3 * e, 3 * e + 3) for b in batches.step(step)
         for index in shown(b.images)]
        for e in range(2)
    ]  # fmt: skip
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]


def test_a_step_is_the_same_whenever_it_is_asked_for() -> None:
    def draw(batches: Batches, step: int) -> tuple[list[int], torch.Tensor, torch.Tensor]:
        (batch,) = batches.step(step)
        return shown(batch.images), torch.rand(3, generator=batch.generator), torch.rand(3)

    one, other = (Batches(numbered(32), batch_size=4, seed=1) for _ in range(2))
    for step in range(9):
        draw(one, step)
    late, direct = draw(one, 9), draw(other, 9)
    assert late[0] == direct[0]
    assert torch.equal(late[1], direct[1])
    assert torch.equal(late[2], direct[2])  # the global generator, for dropout
    assert not torch.equal(draw(one, 10)[1], direct[1])


def test_processes_share_a_step_and_an_image_meets_the_same_in_any_of_them() -> None:
    images = torch.randint(0, 256, (32, 3, 4, 4), dtype=torch.uint8)
    data, settings = ImageSet(images), {"batch_size": 8, "accumulation": 2, "flip": True}
    whole = list(Batches(data, **settings).step(1))
    parts = [list(Batches(data, **settings, process=p, processes=4).step(1)) for p in range(4)]
    for index, batch in enumerate(whole):
        shares = [part[index] for part in parts]
        assert torch.equal(torch.cat([share.images for share in shares]), batch.images)
        assert [share.rows for share in shares] == [(0, 8), (2, 8), (4, 8), (6, 8)]
        assert batch.rows == (0, 8)
        draws = {float(torch.rand(1, generator=b.generator)) for b in [batch, *shares]}
        assert len(draws) == 1
    steps = (Batches(data, **settings, process=p, processes=4).step(1) for p in range(4))
    assert len({(next(step), float(torch.rand(())))[1] for step in steps}) == 1  # for the model
    with pytest.raises(ValueError, match=r"3 processes cannot share 8 equally.*multiple of 3"):
        Batches(data, batch_size=8, processes=3)


def test_images_and_labels_stay_together() -> None:
    (batch,) = Batches(numbered(9), batch_size=5, labelled=True).step(0)
    assert batch.labels is not None
    assert batch.labels.tolist() == [index % 3 for index in shown(batch.images)]


def test_flips_mirror_some_images_and_are_repeatable() -> None:
    images = torch.randint(0, 256, (16, 3, 4, 4), dtype=torch.uint8)
    plain = to_model_range(images)
    first, second = (
        next(Batches(ImageSet(images), batch_size=16, flip=True).step(0)).images for _ in range(2)
    )
    assert torch.equal(first, second)
    same = [bool((plain == image).flatten(1).all(1).any()) for image in first]
    mirrored = [bool((plain.flip(-1) == image).flatten(1).all(1).any()) for image in first]
    assert all(a or b for a, b in zip(same, mirrored, strict=True))
    assert 0 < sum(mirrored) < 16


def test_too_few_images_and_missing_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"10 images, fewer than the 16 .* lower batch_size"):
        Batches(numbered(10), batch_size=8, accumulation=2)
    with pytest.raises(ValueError, match="class_conditional needs labels"):
        Batches(ImageSet(numbered(10).images), batch_size=2, labelled=True)


def test_seeds_differ_by_purpose_and_numbers() -> None:
    seeds = {derived_seed(p, a, b) for p in ("noise", "flip") for a in range(9) for b in range(9)}
    assert len(seeds) == 162
    assert derived_seed("noise", 1, 11) != derived_seed("noise", 11, 1)
    assert all(0 <= seed < 2**63 for seed in seeds)


# Device and process ---------------------------------------------------------------------------


def test_precision_and_device() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) == "no"
    assert resolve_precision("bf16", cpu) == "bf16"
    with pytest.raises(ValueError, match="'fp16' needs a GPU"):
        resolve_precision("fp16", cpu)
    assert resolve_device("cpu") == cpu
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"'cuda' is not available here \(there is: .*cpu"):
            resolve_device("cuda")


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("two_threads")
def test_process_wide_settings_come_back() -> None:
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    random = torch.get_rng_state()
    with reproducible(3, deterministic=True, threads=1):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 1
        first = torch.rand(2)
    with reproducible(3, deterministic=False, threads=None):
        assert torch.equal(torch.rand(2), first)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    assert torch.get_num_threads() == 2
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == workspace
    assert torch.equal(torch.get_rng_state(), random)


def test_freed_memory_is_kept_where_glibc_is_the_c_library() -> None:
    # In a process of its own, since it cannot be undone; blocks of 8 MiB are mapped by default.
    code = (
        "import resource, torch\n"
        "from liquid_ode.training.machine import keep_freed_memory\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(20): kept = [torch.ones(2**21) for _ in range(8)]; del kept\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "by_default = faults()\n"
        "done = keep_freed_memory()\n"
        "faults()\n"
        "print(int(done), by_default, faults())\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    done, by_default, kept = map(int, run.stdout.split())
    if platform.libc_ver()[0] == "glibc":
        assert done
    if done:
        assert kept < by_default / 10
