"""scikit-learn's digits and a small ResNet, for `recsys bench convergence`."""

from __future__ import annotations

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from recsys.distributed.schedules import scheduled_optimizer
from recsys.optim.dense import DenseOptimConfig

_BATCH = 128
_CHOOSE = 0.25
_BRIGHTEST = 16

Batch = tuple[Tensor, ...]


class DigitsData(lightning.LightningDataModule):
    """1,797 images of 8 × 8: three quarters fit, a quarter choose, the same for every seed.

    Args:
        seed: of the order of images.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        images, classes = load_digits(return_X_y=True)
        parts = train_test_split(
            torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / _BRIGHTEST,
            torch.tensor(classes),
            test_size=_CHOOSE,
            stratify=classes,
            random_state=0,
        )
        self.fit = TensorDataset(parts[0], parts[2])
        self.choose = TensorDataset(parts[1], parts[3])
        self._seed = seed

    def train_dataloader(self) -> DataLoader[Batch]:
        """Full batches of the fit images, in another order in every epoch."""
        order = torch.Generator().manual_seed(self._seed)
        return DataLoader(self.fit, _BATCH, shuffle=True, drop_last=True, generator=order)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The choose images in one batch."""
        return DataLoader(self.choose, len(self.choose))


class Digits(lightning.LightningModule):
    """A ResNet of three residual blocks (He et al., 2015) and 39,354 parameters.

    Args:
        optim: of all weights.
    """

    def __init__(self, optim: DenseOptimConfig) -> None:
        super().__init__()
        self.optim = optim
        self.model = nn.Sequential(
            _convolution(1, 16, 3, 1),
            nn.ReLU(),
            _Block(16, 16, 1),
            _Block(16, 32, 2),
            _Block(32, 32, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 10),
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy of a batch."""
        images, classes = batch
        return nn.functional.cross_entropy(self.model(images), classes)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Cross-entropy and share of wrong answers."""
        images, classes = batch
        logits = self.model(images)
        self.log("val/loss", nn.functional.cross_entropy(logits, classes))
        self.log("val/error", (logits.argmax(1) != classes).float().mean())

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser and its schedule."""
        return scheduled_optimizer(self, self.optim)


class _Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(inputs, outputs, 3, stride),
            nn.ReLU(),
            _convolution(outputs, outputs, 3, 1),
        )
        self.shortcut = nn.Identity() if stride == 1 else _convolution(inputs, outputs, 1, stride)

    def forward(self, images: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        return nn.functional.relu(self.body(images) + self.shortcut(images))


def _convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))
