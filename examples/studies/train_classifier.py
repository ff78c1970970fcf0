"""Train the classifier of CIFAR-10 in whose features FD-cnn and KID are measured.

python examples/studies/train_classifier.py -o classifier.safetensors

Stochastic gradient descent with Nesterov's momentum on a triangle of learning rates, with label
smoothing, shifted images, and flips that alternate from epoch to epoch; the first half sees the
images at 24 pixels a side, which costs half as much. The file that the package ships came from
this script with its defaults. Equal seeds give equal weights on the same machine, versions and
threads. Stopped and started again, it goes on from its last epoch.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from liquid_ode.data import ImageSet, load_cifar10, to_model_range
from liquid_ode.evaluation.classifier import Classifier
from liquid_ode.training.machine import keep_freed_memory
from solvers.storage import write_tensors

SHIFT = 2  # pixels, each way
SMOOTHING = 0.1
SMALL = 24  # pixels a side in the first half of the epochs


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--epochs", type=int, default=10, metavar="N", help="(default: 10)")
    add("--batch-size", type=int, default=250, metavar="N", help="(default: 250)")
    add("--learning-rate", type=float, default=0.25, metavar="X", help="the peak (default: 0.25)")
    add("--weight-decay", type=float, default=5e-4, metavar="X", help="(default: 5e-4)")
    add("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    add("--images", type=int, metavar="N", help="train on the first N only, to try the script")
    add("--data-root", metavar="DIR", help="where CIFAR-10 is cached")
    add(
        "-o", "--output", type=Path, default=Path("classifier.safetensors"), metavar="FILE",
        help="the weights (default: classifier.safetensors)",
    )  # fmt: skip
    return parser


def main() -> None:
    options = make_parser().parse_args()
    keep_freed_memory()
    train_set = load_cifar10(options.data_root)
    test_set = load_cifar10(options.data_root, split="test")
    assert train_set.labels is not None
    count = options.images or len(train_set)
    train_set = ImageSet(train_set.images[:count], train_set.labels[:count])
    torch.manual_seed(options.seed)
    model = Classifier().to(memory_format=torch.channels_last)
    model.whiten(to_model_range(train_set.images[:5000]))
    train(model, train_set, test_set, options)
    accuracy = measure(model, test_set)
    header = {"test_accuracy": accuracy, "epochs": options.epochs, "seed": options.seed}
    write_tensors(options.output, "classifier", 1, header, model.state_dict())
    print(f"accuracy on the test images {accuracy:.2%}; written to {options.output}")


def train(
    model: Classifier, train_set: ImageSet, test_set: ImageSet, options: argparse.Namespace
) -> None:
    """All epochs that its state file does not hold already."""
    per_epoch = len(train_set) // options.batch_size
    total = per_epoch * options.epochs
    optimizer = make_optimizer(model, options.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: options.learning_rate * triangle((step + 1) / (total + 1))
    )
    state_file = options.output.with_suffix(".state.pt")
    first = 0
    if state_file.is_file():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first = state["epochs"]
    assert test_set.labels is not None
    few = ImageSet(test_set.images[:2000], test_set.labels[:2000])  # to see how it goes
    for epoch in range(first, options.epochs):
        began = time.perf_counter()
        loss = train_epoch(model, train_set, optimizer, schedule, epoch, options)
        seconds = time.perf_counter() - began
        print(
            f"epoch {epoch + 1}: loss {loss:.4f}, accuracy {measure(model, few):.2%}, "
            f"{per_epoch * options.batch_size / seconds:.0f} images/s",
            flush=True,
        )
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "epochs": epoch + 1,
        }
        temporary = state_file.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(state_file)


def make_optimizer(model: Classifier, weight_decay: float) -> torch.optim.SGD:
    """Momentum 0.9 after Nesterov; no decay of the biases and of the normalisations."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True)


def triangle(part: float, peak: float = 0.2) -> float:
    """From 0 up to 1 at ``peak`` of the training, and down to 0 at its end."""
    return min(part / peak, (1 - part) / (1 - peak))


def train_epoch(
    model: Classifier,
    data: ImageSet,
    optimizer: torch.optim.SGD,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    epoch: int,
    options: argparse.Namespace,
) -> float:
    """One pass over the images in a new order; the mean loss."""
    assert data.labels is not None
    model.train()
    draws = torch.Generator().manual_seed(options.seed * 1000 + epoch)
    first_flips = torch.rand(
        len(data), generator=torch.Generator().manual_seed(options.seed * 1000 + 999)
    )
    flips = (first_flips < 0.5) ^ bool(epoch % 2)
    order = torch.randperm(len(data), generator=draws)
    losses = []
    steps = len(data) // options.batch_size
    for step in range(steps):
        chosen = order[step * options.batch_size :][: options.batch_size]
        images = augment(data.images[chosen], flips[chosen], draws)
        if epoch < options.epochs // 2:
            images = F.interpolate(images, size=SMALL, mode="bilinear", antialias=True)
        labels = data.labels[chosen]
        loss = F.cross_entropy(model(images), labels, label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        if (step + 1) % 50 == 0:
            print(f"  step {step + 1} of {steps}: loss {torch.stack(losses[-50:]).mean():.4f}",
                  flush=True)  # fmt: skip
    return float(torch.stack(losses).mean())


def augment(images: Tensor, flips: Tensor, draws: torch.Generator) -> Tensor:
    """Images flipped where ``flips`` says so, and shifted by up to SHIFT pixels, in [-1, 1]."""
    x = to_model_range(images)
    x = torch.where(flips.view(-1, 1, 1, 1), x.flip(-1), x)
    size = x.shape[-1]
    x = F.pad(x, (SHIFT,) * 4, mode="reflect")
    shifts = torch.randint(2 * SHIFT + 1, (2, len(x), 1), generator=draws)
    places = torch.arange(size) + shifts  # (2, N, size): the rows and the columns to keep
    image = torch.arange(len(x)).view(-1, 1, 1)
    kept = x.permute(0, 2, 3, 1)[image, places[0].unsqueeze(2), places[1].unsqueeze(1)]
    return kept.permute(0, 3, 1, 2)  # (N, 3, size, size), channels last


@torch.no_grad()
def measure(model: Classifier, data: ImageSet, batch_size: int = 500) -> float:
    """The share of the images whose class the model names."""
    assert data.labels is not None
    model.eval()
    right = 0
    for start in range(0, len(data), batch_size):
        images = to_model_range(data.images[start : start + batch_size])
        images = images.contiguous(memory_format=torch.channels_last)
        found = model(images).argmax(1)
        right += int((found == data.labels[start : start + batch_size]).sum())
    return right / len(data)


if __name__ == "__main__":
    main()
