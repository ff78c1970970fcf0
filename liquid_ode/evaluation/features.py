"""Networks that turn pixels into the features in which sets of images are compared."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from liquid_ode.data import to_model_range
from liquid_ode.evaluation.classifier import Classifier
from solvers.storage import StorageError, read_tensors

WEIGHTS = Path(__file__).with_name("classifier.safetensors")
SMALLEST = 8  # pixels a side
SHA256 = "46cb2f906b03b5451ee52fb41b8cc29a18c81d7cd18567a033f4cbc10a0fc7f0"


class ImageFeatures(nn.Module):
    """Features of images: uint8 ``(N, 3, H, W)`` to ``(N, num_features)``.

    Attributes:
        title: what a Fréchet distance in these features is called.
        num_features: features of an image.
    """

    title: str
    num_features: int

    @torch.no_grad()
    def of(self, images: Tensor, *, batch_size: int = 500) -> Tensor:
        """The features of all images, some at a time: float64 ``(N, num_features)``, on the CPU.

        Args:
            images: uint8 ``(N, C, H, W)`` of 3 channels, or grey ones of 1, which are taken for
                three equal ones.
            batch_size: images at a time.

        Raises:
            ValueError: ``images`` is not as described, or a feature is not finite.
        """
        check_pixels("images", images)
        self.eval()
        device = next(self.parameters()).device
        parts = []
        for part in images.split(batch_size):
            coloured = part.to(device).expand(-1, 3, -1, -1)
            parts.append(self(coloured).cpu().double())  # (B, F)
        found = torch.cat(parts)
        if not bool(found.isfinite().all()):
            raise ValueError(
                f"features of {self.title} are NaN or infinite: its weights are broken"
            )
        return found


class ClassifierFeatures(ImageFeatures):
    """What the last layer of the project's own classifier of CIFAR-10 sees: 192 numbers.

    The Fréchet distance in them is called **FD-cnn**: it compares only with other FD-cnn, never
    with a published FID. The classifier names the class of 90.41% of the test images. Its file,
    whose SHA-256 is ``features.SHA256``, was made by ``examples/studies/train_classifier.py``.

    Args:
        classifier: another classifier; by default the one that the package ships.
    """

    title = "FD-cnn"

    def __init__(self, classifier: Classifier | None = None) -> None:
        super().__init__()
        classifier = load_classifier() if classifier is None else classifier
        self.classifier = classifier.to(memory_format=torch.channels_last)
        self.num_features = classifier.num_features
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        if min(height, width) < SMALLEST:
            raise ValueError(
                f"the classifier needs images of at least {SMALLEST} pixels a side, not "
                f"{height}x{width}"
            )
        x = to_model_range(images).contiguous(memory_format=torch.channels_last)
        return self.classifier.features(x)


class InceptionFeatures(ImageFeatures):
    """The 2048 pooled features of Inception v3, of which the FID is made, as torchmetrics has them.

    torchmetrics takes the network from the package torch-fidelity, which fetches its weights
    (91 MB) the first time.

    Reference: Heusel et al. 2017, GANs trained by a two time-scale update rule, eq. 6.

    Args:
        weights: a file of the weights, where they cannot be fetched.

    Raises:
        ValueError: torch-fidelity is not installed, or the weights cannot be had.
    """

    title = "FID"
    num_features = 2048

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        from torchmetrics.image.fid import FrechetInceptionDistance

        # The option is passed only where it is needed: torchmetrics has it from 1.7 on.
        options: dict[str, Any] = (
            {} if weights is None else {"feature_extractor_weights_path": str(weights)}
        )
        try:
            metric = FrechetInceptionDistance(2048, **options)
        except ModuleNotFoundError as error:
            raise ValueError(
                "the Inception network comes with torch-fidelity, which is not installed: "
                "pip install torch-fidelity, or measure FD-cnn"
            ) from error
        except Exception as error:  # what a download, a broken file or another network raises
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise ValueError(
                f"the weights of Inception could not be had ({reason}): put "
                "weights-inception-2015-12-05-6726825d.pth of torch-fidelity somewhere and name "
                "it, or measure FD-cnn"
            ) from error
        self.network: Any = metric.inception

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(images)
        return features


def load_classifier(path: str | Path | None = None) -> Classifier:
    """The classifier whose weights the package ships, in evaluation mode.

    It was made by ``examples/studies/train_classifier.py``.

    Args:
        path: another file of that script's; it is then not held against the hash of the shipped
            one.

    Raises:
        ValueError: the file is missing, broken, of another network, or not the one whose SHA-256
            the library knows.
    """
    if path is None and (found := file_hash(WEIGHTS)) != SHA256:
        raise ValueError(
            f"{WEIGHTS} is not the file that figures are made with: its SHA-256 is {found}, and "
            f"{SHA256} was expected; install liquid_ode again"
        )
    try:
        _, tensors = read_tensors(Path(path or WEIGHTS), "classifier", 1)
        widths = [tensors[f"levels.{level}.conv.weight"].shape[0] for level in (0, 2, 4)]
        classes, filters = tensors["head.bias"].shape[0], tensors["stem.weight"].shape[0] // 2
        model = Classifier(widths, classes=classes, filters=filters)
        model.load_state_dict(tensors)
    except StorageError as error:
        raise ValueError(f"{error}: make it anew with train_classifier.py") from error
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path} holds another network than the classifier") from error
    return model.eval().requires_grad_(False)


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal; "none" where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "none"


def check_pixels(what: str, images: Tensor) -> None:
    """Raise ValueError where ``images`` is no uint8 ``(N, C, H, W)`` of 1 or 3 channels, N > 0."""
    good = images.dtype == torch.uint8 and images.ndim == 4 and images.shape[1] in (1, 3)
    if not (good and images.numel()):
        raise ValueError(
            f"{what} must be uint8 (N, C, H, W) of 1 or 3 channels with N > 0, got {images.dtype} "
            f"of shape {tuple(images.shape)}"
        )
