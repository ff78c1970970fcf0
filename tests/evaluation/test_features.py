"""The classifier that the package ships, and the networks whose features are measured in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from liquid_ode.data import to_model_range
from liquid_ode.evaluation import ClassifierFeatures, InceptionFeatures, features, load_classifier
from liquid_ode.evaluation.classifier import Classifier
from solvers.storage import read_tensors, write_tensors


def noise(n: int, side: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, side, side), generator=generator).to(torch.uint8)


def test_the_shipped_classifier_is_small_and_good() -> None:
    assert features.WEIGHTS.stat().st_size < 3e6
    header, _ = read_tensors(features.WEIGHTS, "classifier", 1)
    assert header["test_accuracy"] >= 0.9
    assert not load_classifier().training


def test_features_are_what_the_last_layer_sees() -> None:
    network = ClassifierFeatures()
    images = noise(7)
    found = network.of(images, batch_size=3)
    assert found.shape == (7, network.num_features) == (7, 192)
    assert found.dtype == torch.float64
    model = load_classifier()
    logits = model.head(found.float())
    torch.testing.assert_close(logits, model(to_model_range(images)), rtol=1e-4, atol=1e-4)


def test_features_of_an_image_do_not_depend_on_the_others() -> None:
    network = ClassifierFeatures().train()  # nothing is updated, whatever the mode
    images = noise(5)
    alone = torch.cat([network.of(image[None]) for image in images])
    torch.testing.assert_close(network.of(images), alone, rtol=1e-4, atol=1e-5)


def test_images_of_other_sizes_have_features_too() -> None:
    assert ClassifierFeatures().of(noise(2, 64)).shape == (2, 192)
    assert ClassifierFeatures().of(noise(2, 8)).shape == (2, 192)
    with pytest.raises(ValueError, match="at least 8 pixels a side, not 7x7"):
        ClassifierFeatures().of(noise(2, 7))


def test_another_file_in_its_place_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "classifier.safetensors"
    small = Classifier((8, 8, 16), filters=2)
    write_tensors(other, "classifier", 1, {}, small.state_dict())
    images = to_model_range(noise(2))
    assert torch.equal(load_classifier(other)(images), small.eval()(images))
    monkeypatch.setattr(features, "WEIGHTS", other)
    with pytest.raises(ValueError, match=rf"SHA-256 is .*{features.SHA256} was expected"):
        ClassifierFeatures()
    monkeypatch.setattr(features, "WEIGHTS", tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="SHA-256 is none"):
        ClassifierFeatures()
    write_tensors(other, "classifier", 1, {}, {"head.bias": torch.zeros(3)})
    with pytest.raises(ValueError, match="another network"):
        load_classifier(other)
    other.write_bytes(b"broken")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_classifier(other)


def test_the_whitening_layer_whitens() -> None:
    """Its outputs have unit variance and are uncorrelated on what it was made from."""
    model = Classifier(filters=8)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(50, 3, 6, 6, generator=generator)
    images = 2 * torch.nn.functional.interpolate(coarse, size=24, mode="bilinear") - 1
    model.whiten(images, epsilon=0)
    assert isinstance(model.mean, torch.Tensor)
    assert isinstance(model.std, torch.Tensor)
    normalised = ((images + 1) / 2 - model.mean) / model.std
    filtered = torch.nn.functional.conv2d(normalised, model.stem.weight)  # without the border
    rows = filtered.transpose(0, 1).flatten(1)  # (16, pixels)
    torch.testing.assert_close(rows[:8].cov(), torch.eye(8), rtol=0, atol=1e-3)
    torch.testing.assert_close(rows[8:], -rows[:8])
    assert not model.stem.weight.requires_grad


def test_inception_needs_torch_fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchmetrics.image import fid

    monkeypatch.setattr(fid, "_TORCH_FIDELITY_AVAILABLE", False)
    with pytest.raises(ValueError, match="pip install torch-fidelity") as caught:
        InceptionFeatures()
    assert "\n" not in str(caught.value)
    assert "torch_fidelity" not in sys.modules


def test_inception_weights_that_cannot_be_had_are_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torchmetrics.image import fid

    def fail(*_: object, **__: object) -> None:
        raise OSError("no route\nto the host")

    monkeypatch.setattr(fid, "_TORCH_FIDELITY_AVAILABLE", True)
    monkeypatch.setattr(fid, "NoTrainInceptionV3", fail)
    with pytest.raises(ValueError, match=r"could not be had \(no route\)") as caught:
        InceptionFeatures("weights.pth")
    assert "\n" not in str(caught.value)
