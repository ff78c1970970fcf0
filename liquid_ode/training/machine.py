"""The machine and the process of a run: its device and precision, what is set for all of the
process and put back, and Accelerate."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator  # type: ignore[import-untyped]

PRECISIONS = ("auto", "no", "bf16", "fp16")
DEVICES = ("cpu", "cuda", "mps")

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # what glibc accepts


# Device and precision --------------------------------------------------------------------------


def resolve_device(name: str | None) -> torch.device:
    """The named device, or the best there is for None.

    Raises:
        ValueError: this machine or this build of torch does not have it.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name is None:
        name = next(device for device, there in available.items() if there)
    if not available.get(name, False):
        there = ", ".join(device for device, there in available.items() if there)
        raise ValueError(f"device {name!r} is not available here (there is: {there})")
    return torch.device(name)


def resolve_precision(name: str, device: torch.device) -> str:
    """``name``, or for "auto" what the device gains from: "bf16" or "no".

    Raises:
        ValueError: "fp16" on a device that has no such training mode.
    """
    if name == "fp16" and device.type == "cpu":
        raise ValueError("precision 'fp16' needs a GPU; on the CPU choose 'bf16' or 'no'")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    # On a CPU, models this small lose more to the casts between precisions than the products in
    # bf16 gain, even with AMX: examples/benchmarks/train_speed.py measures it.
    return "no"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context in which a model runs in ``precision`` ("no", "bf16" or "fp16")."""
    if precision == "no":
        return nullcontext()
    return torch.autocast(device.type, torch.float16 if precision == "fp16" else torch.bfloat16)


# The process -----------------------------------------------------------------------------------


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
def accelerator(
    precision: str, device: torch.device, accumulation: int, *, growing: bool = False
) -> Iterator[Accelerator]:
    """An ``Accelerator`` for one run, which leaves none of its process-wide state behind.

    Accelerate keeps its state in class attributes: without this a second run in the same process
    could not choose another precision or device, nor run beside an Accelerator of the caller's.
    Under ``accelerate launch`` the process group is kept, as it cannot be made twice.

    Args:
        precision: "no", "bf16" or "fp16".
        device: where to run.
        accumulation: passes whose gradients make one step.
        growing: whether there are steps that leave parameters out.

    Raises:
        ValueError: the launcher has chosen another device than ``device``, or has started one
            process where several were asked for.
    """
    _refuse_lost_processes()
    from accelerate import Accelerator
    from accelerate.state import (  # type: ignore[import-untyped]
        AcceleratorState,
        GradientState,
        PartialState,
    )
    from accelerate.utils import (  # type: ignore[import-untyped]
        DistributedDataParallelKwargs,
        GradientAccumulationPlugin,
    )

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
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=growing)],
        )
        if made.device.type != device.type:
            raise ValueError(f"device {device.type!r} was asked for, but {made.device} was given")
        yield made
    finally:
        for state, had in zip(shared, before, strict=True):
            state.clear()
            state.update(had)


_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def _refuse_lost_processes() -> None:
    """Raise ValueError where ``accelerate launch --cpu --num_processes 2`` has started but one.

    On CPUs it leaves the starting to MPI. Without MPI it starts one process, which can only tell by
    the address of a main process, which is for several, and no number of them.
    """
    environ = os.environ
    launched = environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_PORT" in environ
    if launched and not any(name in environ for name in _SIZES):
        raise ValueError(
            "accelerate launch was asked for several processes on CPUs and has started one process "
            "only, as it does without MPI: use torchrun --nproc-per-node=N in its place (or unset "
            "MASTER_PORT for one process)"
        )


def use_threads(threads: int | None) -> None:
    """Let torch use so many CPU threads; None leaves it its choice.

    Two processes that both use all cores slow each other tenfold and more: their threads wait for
    each other without giving the core away.

    Raises:
        ValueError: where it is less than 1.
    """
    if threads is None:
        return
    if threads < 1:
        raise ValueError(f"--threads must be at least 1, not {threads}")
    torch.set_num_threads(threads)


def keep_freed_memory() -> bool:
    """Let glibc's malloc reuse the blocks of one step for the next; whether it could be done.

    By default it maps and unmaps every block of a few MiB, and each new page costs a fault: on
    a CPU, a large part of a training step. It changes no result, but is a setting of the whole
    process, for good: for programs to choose, as the command line does. Other C libraries are
    left alone.
    """
    try:
        libc = ctypes.CDLL(None)
        if not hasattr(libc, "gnu_get_libc_version"):
            return False
        done = libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        return bool(done and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
    except (OSError, TypeError, AttributeError):  # no C library by that name (Windows)
        return False
