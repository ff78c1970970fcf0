"""The weights that a run offers: of its last step, averaged, or averaged afterwards."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from liquid_ode import trained
from liquid_ode.training.averages import length_of, name_of, reconstruction
from liquid_ode.training.checkpoint import part, read_tensors
from liquid_ode.training.errors import CheckpointError
from liquid_ode.training.run_directory import RunDirectory

Weights = tuple[dict[str, Any], dict[str, Tensor]]


def read_weights(run: RunDirectory, which: str) -> Weights:
    """The header and the tensors of a run's weights.

    Args:
        run: the run directory.
        which: "ema" or "model"; or "ema-LENGTH", which is read where the run has averaged with
            that length, and else put together from the averages of its snapshots.

    Raises:
        CheckpointError: they are missing or broken.
        ValueError: there are no weights of that name.
    """
    path, length = run.weights(which), length_of(which)
    if which == "best" and run.config.is_file() and not path.is_file():
        raise CheckpointError(
            f"{run.path} has no best weights: nothing was measured in training. Train with "
            "--evaluate-every, or take the weights 'ema'"
        )
    if run.pretrained and which == "ema" and not trained.is_whole(run.path):
        raise CheckpointError(
            f"{path} is not the file that came with the package: its SHA-256 is another. Install "
            "liquid_ode anew"
        )
    if run.pretrained and not path.is_file():
        raise CheckpointError(f"{run.title} comes with the weights 'ema' alone, not {which!r}")
    if length is None or path.is_file():
        return read_tensors(path, "weights")
    return _reconstructed(run, length)


def _reconstructed(run: RunDirectory, length: float) -> Weights:
    """The average of another length, at the run's last step; one file is in memory at a time."""
    config, _ = run.read_record()
    header, last = read_tensors(run.checkpoint, "checkpoint")
    end = header["progress"]["step"]
    files = {run.step_of(path): path for path in run.snapshots()}
    files = {step: path for step, path in files.items() if step < end} | {end: run.checkpoint}
    kept = [(step, found) for step in files for found in config.ema_lengths]
    if len(config.ema_lengths) < 2 or len(files) < 2:
        raise CheckpointError(
            f"{run.path} has no average {name_of(length)!r}, and too little to make it of: there "
            f"are {', '.join(map(name_of, config.ema_lengths)) or 'no such averages'} at "
            f"{len(files)} steps. Train with --ema-lengths {length:g}, or with two lengths "
            "(0.05 0.1) and --snapshot-every"
        )
    total: dict[str, Tensor] = {}
    weigh = iter(reconstruction(kept, (end, length)))
    for step, path in files.items():
        tensors = last if step == end else read_tensors(path, "checkpoint")[1]
        for found in config.ema_lengths:
            coefficient = next(weigh)
            for entry, tensor in part(tensors, name_of(found)).items():
                name = entry.removeprefix("module.")
                if name == entry:  # the average's own counter
                    continue
                if tensor.is_floating_point():
                    add = coefficient * tensor.double()
                    total[name] = total[name] + add if name in total else add
                else:  # a counter, say: the last one
                    total[name] = tensor
    kinds = part(last, "model")
    return {"model": header["model"]}, {k: v.to(kinds[k].dtype) for k, v in total.items()}
