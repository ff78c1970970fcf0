"""Sampling from a trained run: the command line, and images in bulk."""

from liquid_ode.sampling.outputs import (
    ArrayOutput,
    Batch,
    FolderOutput,
    GridOutput,
    Output,
    sample_to,
)

__all__ = ["ArrayOutput", "Batch", "FolderOutput", "GridOutput", "Output", "sample_to"]
