"""Sampling from a trained run: the command line, and images in bulk."""

from liquid_ode.sampling.outputs import (
    AnimationOutput,
    ArrayOutput,
    Batch,
    FolderOutput,
    GridOutput,
    Output,
    sample_to,
)

__all__ = [
    "AnimationOutput",
    "ArrayOutput",
    "Batch",
    "FolderOutput",
    "GridOutput",
    "Output",
    "sample_to",
]
