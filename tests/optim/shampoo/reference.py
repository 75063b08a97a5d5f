"""Shampoo written to be read: NumPy in float64, one parameter and one block at a time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray


@dataclass
class Settings:
    lr: float = 0.02
    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-6
    weight_decay: float = 0.0
    l2: bool = False
    max_dim: int = 64
    frequency: int = 1
    start: int = 1
    bias_correction: bool = True
    grafting: str | None = None  # sgd, adagrad, rmsprop, adam
    grafting_beta2: float = 0.9
    grafting_epsilon: float = 1e-8
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False


@dataclass
class BlockState:
    factors: list[Array]
    roots: list[Array]
    first: Array
    square: Array
    buffer: Array


def merged(shape: tuple[int, ...], largest: int) -> list[int]:
    sizes = [size for size in shape if size != 1] or [1]
    result: list[int] = []
    for size in sizes[::-1]:
        if result and result[-1] * size <= largest:
            result[-1] *= size
        else:
            result.append(size)
    return result[::-1]


def pieces(shape: list[int], largest: int) -> list[tuple[slice, ...]]:
    cuts = [[slice(i, i + largest) for i in range(0, size, largest)] for size in shape]
    return list(itertools.product(*cuts))


def inverse_root(matrix: Array, root: int, epsilon: float) -> Array:
    values, vectors = np.linalg.eigh(matrix + epsilon * np.eye(len(matrix)))
    values = values + max(0.0, epsilon - values.min())
    return vectors @ np.diag(values ** (-1.0 / root)) @ vectors.T


def along(array: Array, matrix: Array, axis: int) -> Array:
    return np.moveaxis(np.tensordot(matrix, array, axes=(1, axis)), 0, axis)


@dataclass
class Reference:
    """The parameters of one group; ``step`` takes a gradient or None for each."""

    parameters: list[Array]
    settings: Settings
    t: int = 0
    states: dict[tuple[int, int], BlockState] = field(default_factory=dict)
    #: parameters whose roots are computed at their next step with a gradient
    waiting: set[int] = field(default_factory=set)

    def step(self, gradients: list[Array | None]) -> None:
        if all(gradient is None for gradient in gradients):
            return
        self.t += 1
        start, frequency = self.settings.start, self.settings.frequency
        if self.t == start or (self.t > start and self.t % frequency == 0):
            self.waiting = set(range(len(gradients)))
        for index, gradient in enumerate(gradients):
            if gradient is None:
                continue
            refresh = index in self.waiting
            self.waiting.discard(index)
            shape = merged(self.parameters[index].shape, self.settings.max_dim)
            weights = self.parameters[index].reshape(shape).copy()
            gradient = gradient.reshape(shape)
            for number, where in enumerate(pieces(shape, self.settings.max_dim)):
                key = (index, number)
                if key not in self.states:
                    self.states[key] = self.new(weights[where])
                direction = self.direction(
                    self.states[key], gradient[where], weights[where], refresh
                )
                weights[where] = weights[where] - self.settings.lr * direction
            self.parameters[index] = weights.reshape(self.parameters[index].shape)

    def new(self, block: Array) -> BlockState:
        zeros: Any = np.zeros(block.shape)
        return BlockState(
            [np.zeros((n, n)) for n in block.shape],
            [np.eye(n) for n in block.shape],
            zeros.copy(),
            zeros.copy(),
            zeros.copy(),
        )

    def direction(self, state: BlockState, gradient: Array, weights: Array, refresh: bool) -> Array:
        s, t, order = self.settings, self.t, gradient.ndim
        if s.l2:
            gradient = gradient + s.weight_decay * weights
        for axis in range(order):
            rows = np.moveaxis(gradient, axis, 0).reshape(gradient.shape[axis], -1)
            state.factors[axis] = decayed(state.factors[axis], rows @ rows.T, s.beta2)
        graft_beta2 = 1.0 if s.grafting == "adagrad" else s.grafting_beta2
        state.square = decayed(state.square, gradient**2, graft_beta2)
        if refresh:
            correction = 1 - s.beta2**t if s.bias_correction and s.beta2 < 1 else 1.0
            state.roots = [
                inverse_root(factor / correction, 2 * order, s.epsilon) for factor in state.factors
            ]
        state.first = s.beta1 * state.first + (1 - s.beta1) * gradient
        first = state.first / (1 - s.beta1**t) if s.bias_correction else state.first
        grafted = self.grafted(state.square, first, graft_beta2)
        if t < s.start:
            direction = grafted
        else:
            direction = first
            for axis in range(order):
                direction = along(direction, state.roots[axis], axis)
            if s.grafting is not None:
                length = np.sqrt((direction**2).sum()) + 1e-16
                direction = direction * np.sqrt((grafted**2).sum()) / length
        if not s.l2:
            direction = direction + s.weight_decay * weights
        if s.momentum:
            state.buffer = s.momentum * state.buffer + (1 - s.dampening) * direction
            if s.nesterov:
                return (1 - s.dampening) * direction + s.momentum * state.buffer
            return state.buffer
        return direction

    def grafted(self, square: Array, first: Array, beta2: float) -> Array:
        s = self.settings
        if s.grafting in (None, "sgd"):
            return first
        if s.grafting == "adam":
            square = square / (1 - beta2**self.t)
        return first / (np.sqrt(square) + s.grafting_epsilon)


def decayed(average: Array, new: Array, beta2: float) -> Array:
    return average + new if beta2 == 1 else beta2 * average + (1 - beta2) * new
