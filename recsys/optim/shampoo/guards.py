"""What Shampoo does when numbers go wrong: keep what is good, count it, and stop when it lasts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from recsys.core.errors import TrainingError
from recsys.optim.shampoo.config import QRTracking
from recsys.optim.shampoo.roots import inverse_roots
from recsys.optim.shampoo.settings import GroupSettings
from recsys.optim.shampoo.stacks import EIGENVECTORS, FACTOR, ROOT, BlockStack


class Guards:
    """Failures of a parameter group.

    Args:
        names: of the group's parameters.
        max_failures: failures in a row of one factor matrix, or refused gradients in a row of one
            parameter, at which the training stops.

    Attributes:
        kept_roots: how often the last good root was kept, because no new one could be computed.
        decomposed_roots: how often an iteration did not converge and a decomposition was taken.
        refused_gradients: how often a parameter was left alone because its gradient was not finite.
    """

    def __init__(self, names: Sequence[str], max_failures: int) -> None:
        self.names = names
        self.max_failures = max_failures
        self.kept_roots = 0
        self.decomposed_roots = 0
        self.refused_gradients = 0
        self._root_failures: dict[tuple[int, int, int], int] = {}
        self._gradient_failures: dict[int, int] = {}

    def finite(self, gradients: dict[int, Tensor]) -> dict[int, Tensor]:
        """The gradients without NaN and infinity, by position of the parameter.

        A parameter whose gradient is not finite is left alone for this step, as one without a
        gradient; its state stays as it was.

        Raises:
            TrainingError: too many in a row.
        """
        if not gradients:
            return gradients
        # a norm is not finite if a number is not, and costs less than a look at each
        norms = torch._foreach_norm(list(gradients.values()))
        if bool(torch.stack([one.double() for one in norms]).isfinite().all()):
            self._gradient_failures.clear()
            return gradients
        finite = {}
        for position, gradient in gradients.items():
            if gradient.isfinite().all():  # the squares alone may overflow
                finite[position] = gradient
                self._gradient_failures.pop(position, None)
            else:
                self._refuse_gradient(position)
        return finite

    def _refuse_gradient(self, position: int) -> None:
        failures = self._gradient_failures.get(position, 0) + 1
        self._gradient_failures[position] = failures
        self.refused_gradients += 1
        name = self.names[position]
        if failures >= self.max_failures:
            raise TrainingError(
                f"The gradient of {name} is not finite for the {failures}th step in a row; its "
                "weights and the state of Shampoo are as before. Lower the learning rate, clip "
                "gradients, or look for the loss that overflows."
            )
        warnings.warn(
            f"The gradient of {name} is not finite; Shampoo leaves it alone in this step.",
            stacklevel=2,
        )

    def refresh(
        self, stack: BlockStack, rows: Sequence[int], settings: GroupSettings, step: int
    ) -> None:
        """Compute the inverse roots of some blocks of a stack anew.

        Args:
            stack: whose roots are replaced.
            rows: positions of the blocks.
            settings: of the group.
            step: of the group, from 1.

        Raises:
            TrainingError: a factor matrix is not finite, or has failed too often in a row.
        """
        everything = len(rows) == len(stack.blocks)
        index: Sequence[int] | slice = slice(None) if everything else rows
        beta2 = settings.betas[1]
        corrected = settings.use_bias_correction and beta2 < 1
        for dimension in range(stack.order):
            matrices = stack.state[f"{FACTOR}_{dimension}"][index]
            self._refuse_overflow(matrices, stack, rows, dimension)
            if corrected:
                matrices = matrices / (1 - beta2**step)
            tracked = isinstance(settings.root_inverse, QRTracking)
            result = inverse_roots(
                matrices,
                2 * stack.order,
                settings.epsilon,
                settings.root_inverse,
                stack.state[f"{EIGENVECTORS}_{dimension}"][index] if tracked else None,
            )
            self.decomposed_roots += result.decomposed
            good = self._count(result.usable, stack, rows, dimension)
            root = stack.state[f"{ROOT}_{dimension}"]
            root[good] = result.roots[result.usable].to(root.dtype)
            if result.eigenvectors is not None:
                vectors = result.eigenvectors[result.usable]
                stack.state[f"{EIGENVECTORS}_{dimension}"][good] = vectors

    def _refuse_overflow(
        self, matrices: Tensor, stack: BlockStack, rows: Sequence[int], dimension: int
    ) -> None:
        finite = matrices.isfinite().flatten(1).all(dim=1)
        if bool(finite.all()):
            return
        place = self._place(stack, rows[int((~finite).nonzero()[0])], dimension)
        raise TrainingError(
            f"{place} is not finite: gradients were too large for its type. Lower the learning "
            "rate, clip gradients, or use preconditioner_dtype=float64."
        )

    def _count(
        self, usable: Tensor, stack: BlockStack, rows: Sequence[int], dimension: int
    ) -> list[int]:
        """Those of ``rows`` with new roots; count the failures of the others."""
        good = []
        for row, succeeded in zip(rows, usable.tolist(), strict=True):
            block = stack.blocks[row]
            key = (block.parameter, block.number, dimension)
            if succeeded:
                self._root_failures.pop(key, None)
                good.append(row)
                continue
            self._root_failures[key] = self._root_failures.get(key, 0) + 1
            self.kept_roots += 1
            if self._root_failures[key] >= self.max_failures:
                raise TrainingError(
                    f"The inverse root of {self._place(stack, row, dimension)} could not be "
                    f"computed {self._root_failures[key]} times in a row, in float64 neither. "
                    "Raise epsilon, or lower the learning rate."
                )
        return good

    def _place(self, stack: BlockStack, row: int, dimension: int) -> str:
        block = stack.blocks[row]
        return (
            f"factor matrix {dimension} of block {block.number} {block.shape} of "
            f"{self.names[block.parameter]}"
        )
