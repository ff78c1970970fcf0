"""How near a set of images is to a reference: the yardstick of this project."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from liquid_ode.data import ImageSet, to_uint8
from liquid_ode.evaluation.distances import frechet_distance, kernel_distance
from liquid_ode.evaluation.features import ClassifierFeatures, ImageFeatures, check_pixels
from liquid_ode.evaluation.pixels import PixelStatistics


@dataclass(frozen=True)
class Distance:
    """How far a set of ``n`` images is from the reference.

    Attributes:
        n: images in the set.
        fd: Fréchet distance, see :func:`frechet_distance`; compare at equal n only.
        kid: kernel distance, see :func:`kernel_distance`.
        kid_std: its standard deviation over the subsets.
    """

    n: int
    fd: float
    kid: float
    kid_std: float


@dataclass(frozen=True)
class Scores:
    """What a set of images is worth beside a reference.

    Attributes:
        title: what ``fd`` is to be called: "FD-cnn" or "FID".
        images: the distance of the images.
        real: the distance of as many real training images: the least that can be hoped for; None
            where no training images were given, or too few.
        pixels: the contrast of the images.
        reference_pixels: the contrast of the reference.
        reference_n: images in the reference.
    """

    title: str
    images: Distance
    real: Distance | None
    pixels: PixelStatistics
    reference_pixels: PixelStatistics
    reference_n: int

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return asdict(self)

    def __str__(self) -> str:
        """One line, with n and the value of real images at the same n."""
        real = f" (real images {self.real.fd:.2f})" if self.real is not None else ""
        return f"{self.title} {self.images.fd:.2f} at n = {self.images.n:,}{real}"


class Yardstick:
    """Measures sets of images against one reference, whose features are computed once.

        yardstick = Yardstick(load_cifar10(split="test"), load_cifar10())
        print(yardstick.measure(samples))

    Args:
        reference: the real images, best not those of the training: CIFAR-10's 10,000 test images.
        training: further real images, drawn as the model's were, to tell what real images score
            at the same n; None leaves it out.
        features: in which features; by default :class:`ClassifierFeatures`.
        device: where to compute the features; by default where ``features`` is, or the CPU.
        batch_size: images at a time.
        seed: of which training images stand for real ones, and of the subsets of the KID.

    Raises:
        ValueError: images are not as :class:`ImageSet` has them, or differ in size, or the
            reference has no more images than there are features.
    """

    def __init__(
        self,
        reference: ImageSet | Tensor,
        training: ImageSet | Tensor | None = None,
        *,
        features: ImageFeatures | None = None,
        device: torch.device | str | None = None,
        batch_size: int = 500,
        seed: int = 0,
    ) -> None:
        self.network = ClassifierFeatures() if features is None else features
        if device is not None:
            self.network = self.network.to(device)
        self.batch_size, self.seed = batch_size, seed
        self.reference = _pixels("reference", reference)
        self._check_count(len(self.reference), "reference images")
        self.training = None if training is None else _pixels("training", training)
        if self.training is not None:
            self._check_size("the training images", self.training)
        self.reference_features = self.features(self.reference)
        self.reference_pixels = PixelStatistics.of(self.reference)
        self._real: dict[int, Distance] = {}

    @property
    def title(self) -> str:
        """What the Fréchet distance is to be called."""
        return self.network.title

    def features(self, images: Tensor) -> Tensor:
        """The features of uint8 images ``(N, C, H, W)``: float64 ``(N, F)``."""
        return self.network.of(images, batch_size=self.batch_size)

    def measure(self, images: Tensor, features: Tensor | None = None) -> Scores:
        """The scores of images.

        Args:
            images: ``(N, C, H, W)``, uint8, or floating point in [-1, 1]: those are clamped and
                rounded to uint8 first, as a file would hold them.
            features: what :meth:`features` gives for them, where it is known already.

        Raises:
            ValueError: another shape, size or type, NaN, values outside [-1, 1] that are no
                rounding, or no more images than features.
        """
        pixels = quantised(images)
        self._check_size("the images", pixels)
        self._check_count(len(pixels), "images")
        return Scores(
            self.title,
            self._distance(self.features(pixels) if features is None else features),
            self.real(len(pixels)),
            PixelStatistics.of(pixels),
            self.reference_pixels,
            len(self.reference),
        )

    def real(self, n: int) -> Distance | None:
        """The distance of ``n`` training images drawn without replacement, or of all there are.

        None where no training images were given, or no more than there are features.
        """
        if self.training is None:
            return None
        n = min(n, len(self.training))
        if n <= self.network.num_features:
            return None
        if n not in self._real:
            draws = torch.Generator().manual_seed(self.seed)
            chosen = torch.randperm(len(self.training), generator=draws)[:n]
            self._real[n] = self._distance(self.features(self.training[chosen]))
        return self._real[n]

    def _distance(self, features: Tensor) -> Distance:
        kid, kid_std = kernel_distance(features, self.reference_features, seed=self.seed)
        fd = frechet_distance(features, self.reference_features)
        return Distance(len(features), fd, kid, kid_std)

    def _check_size(self, what: str, images: Tensor) -> None:
        own, shape = tuple(self.reference.shape[1:]), tuple(images.shape[1:])
        if own != shape:
            raise ValueError(
                f"{what} are (C, H, W) = {shape} and the reference {own}: only images of one size "
                "and number of channels can be compared"
            )

    def _check_count(self, n: int, what: str) -> None:
        width = self.network.num_features
        if n <= width:
            raise ValueError(
                f"{self.title} is a distance in {width} features and needs more than {width} "
                f"{what}, got {n}"
            )


def evaluate_images(
    images: Tensor,
    reference: ImageSet | Tensor,
    training: ImageSet | Tensor | None = None,
    **options: Any,
) -> Scores:
    """The scores of one set of images; for several sets keep a :class:`Yardstick`.

    Args:
        images: see :meth:`Yardstick.measure`.
        reference: see :class:`Yardstick`, as ``training`` and the options.

    Raises:
        ValueError: see :class:`Yardstick` and :meth:`Yardstick.measure`.
    """
    return Yardstick(reference, training, **options).measure(images)


def quantised(images: Tensor) -> Tensor:
    """Images ``(N, C, H, W)`` as uint8: of floats in [-1, 1], or as they are.

    Raises:
        ValueError: another shape or type, NaN, or floats of another scale.
    """
    if images.is_floating_point() and images.numel():
        low, high = images.aminmax()
        if low < -2 or high > 2:  # a sampler without clipping may pass 1, another scale does by far
            raise ValueError(
                f"images run from {float(low):.4g} to {float(high):.4g}: floats must be in [-1, 1] "
                "(images in [0, 255] are given as uint8)"
            )
        if low >= 0:
            raise ValueError(
                "no value of the images is below 0: floats must be in [-1, 1], not in [0, 1]; "
                "scale them by 2 x - 1, or give uint8"
            )
        images = to_uint8(images)
    check_pixels("images", images)
    return images


def _pixels(what: str, images: ImageSet | Tensor) -> Tensor:
    pixels = images.images if isinstance(images, ImageSet) else images
    check_pixels(what, pixels)
    return pixels
