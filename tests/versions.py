"""What needs a later PyTorch than the lowest that the library runs with."""

from __future__ import annotations

import pytest
import torch

VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])

needs_compiler = pytest.mark.skipif(
    VERSION < (2, 9), reason="torch.compile, torch.export and ONNX need torch 2.9"
)
needs_fake_cuda = pytest.mark.skipif(
    VERSION < (2, 10),
    reason="before torch 2.10 tensors without data on a CUDA device need a driver",
)
