"""The process-wide settings of a run, put back when it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator  # type: ignore[import-untyped]

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def reproducible(seed: int, *, deterministic: bool, threads: int | None) -> Iterator[None]:
    """Seed torch, and within the block use deterministic algorithms and so many threads."""
    cuda = torch.cuda.is_available()
    random = torch.get_rng_state(), torch.cuda.get_rng_state_all() if cuda else []
    debugging: Any = torch.utils.deterministic
    algorithms = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        debugging.fill_uninitialized_memory,
    )
    benchmark, workspace = torch.backends.cudnn.benchmark, os.environ.get(_CUBLAS)
    had_threads = torch.get_num_threads()
    try:
        torch.manual_seed(seed)
        if threads is not None:
            torch.set_num_threads(threads)
        if deterministic:
            os.environ.setdefault(_CUBLAS, ":4096:8")  # cuBLAS is not deterministic without it
            torch.use_deterministic_algorithms(True)
            # Filling every fresh tensor with NaN is for finding bugs, and costs time.
            debugging.fill_uninitialized_memory = False
            torch.backends.cudnn.benchmark = False
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
        debugging.fill_uninitialized_memory = algorithms[2]
        torch.backends.cudnn.benchmark = benchmark
        if workspace is None:
            os.environ.pop(_CUBLAS, None)
        torch.set_num_threads(had_threads)
        torch.set_rng_state(random[0])
        if cuda:
            torch.cuda.set_rng_state_all(random[1])


@contextmanager
def accelerator(precision: str, device: torch.device, accumulation: int) -> Iterator[Accelerator]:
    """An ``Accelerator`` for one run, which leaves none of its process-wide state behind.

    Accelerate keeps its state in class attributes: without this a second run in the same process
    could not choose another precision or device, nor run beside an Accelerator of the caller's.
    Under ``accelerate launch`` the process group is kept, as it cannot be made twice.

    Raises:
        ValueError: the launcher has chosen another device than ``device``.
    """
    from accelerate import Accelerator
    from accelerate.state import (  # type: ignore[import-untyped]
        AcceleratorState,
        GradientState,
        PartialState,
    )
    from accelerate.utils import GradientAccumulationPlugin  # type: ignore[import-untyped]

    shared: list[dict[str, Any]] = [AcceleratorState._shared_state, GradientState._shared_state]
    if not torch.distributed.is_available() or "LOCAL_RANK" not in os.environ:
        shared.append(PartialState._shared_state)
    before = [dict(state) for state in shared]
    try:
        for state in shared:
            state.clear()
        # The plugin, and not the number: an environment variable would override the number.
        plugin = GradientAccumulationPlugin(num_steps=accumulation, sync_with_dataloader=False)
        made = Accelerator(
            mixed_precision=precision,
            cpu=device.type == "cpu",
            gradient_accumulation_plugin=plugin,
        )
        if made.device.type != device.type:
            raise ValueError(f"device {device.type!r} was asked for, but {made.device} was given")
        yield made
    finally:
        for state, had in zip(shared, before, strict=True):
            state.clear()
            state.update(had)
