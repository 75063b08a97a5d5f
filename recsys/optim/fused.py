"""Optimisers that run inside the backward pass of the embedding tables (TorchRec, FBGEMM)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode
from torch import Tensor, nn
from torchrec import EmbeddingBagCollection, KeyedJaggedTensor, KeyedTensor
from torchrec.modules.fused_embedding_modules import FusedEmbeddingBagCollection
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from recsys.core.bounds import NotNegative, Positive, Settings
from recsys.core.errors import ConfigError
from recsys.nn.tables.collection import start_table
from recsys.nn.tables.first_rows import Undrawn

#: What FBGEMM fuses on CPU and GPU alike (fbgemm-gpu 1.8: on CPU these are all there are).
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "rowwise_adagrad": RowWiseAdagrad,
    "adagrad": torch.optim.Adagrad,
    "sgd": torch.optim.SGD,
}


@dataclass(frozen=True)
class FusedOptimizerConfig(Settings):
    """How tables are updated.

    Attributes:
        optimizer: ``rowwise_adagrad`` keeps one number per row: state += mean(grad²),
            w -= learning_rate * grad / (sqrt(state) + epsilon); ``adagrad`` one per weight;
            ``sgd`` none.
        learning_rate: of all tables.
        epsilon: of both Adagrads.
    """

    optimizer: str = "rowwise_adagrad"
    learning_rate: NotNegative = 0.02
    epsilon: Positive = 1e-8


class FusedCollection(FusedEmbeddingBagCollection):
    """TorchRec's fused collection, without the work our pooling does not need.

    FBGEMM would compute a gradient of the event weights, as expensive as the update itself; they
    are functions of the log, so nobody asks for it. The features must come in the order of the
    tables, so that the values are passed on as they are instead of being split by key and joined
    again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with Undrawn():  # the rows are ours to give
            super().__init__(*args, **kwargs)
        if len(self._emb_modules) != 1:
            raise ValueError("the tables differ in pooling or data type")
        # One flag per feature; a list is no buffer and stays out of the state dict.
        self._weight_gradients = [
            torch.zeros(len(self._embedding_names), dtype=torch.int32, device=self.device)
        ]

    def forward(self, features: KeyedJaggedTensor) -> KeyedTensor:
        """The pooled rows [B, C * D] of features whose keys are in the order of the tables."""
        if features.keys() != self._embedding_names:
            raise ValueError("the features are not in the order of the tables")
        values = self._emb_modules[0]._emb_module(
            indices=features.values(),
            offsets=features.offsets(),
            per_sample_weights=features.weights_or_none(),
            feature_requires_grad=self._weight_gradients[0],
        )
        return KeyedTensor(self._embedding_names, self._length_per_key, values)


class PlacedTables(ABC):
    """The tables of a module where they are trained, and the state of their optimiser.

    The state is that of whole tables, whatever part of them a process holds: collection →
    ``{"state": {"<table>.weight": {"<table>.weight.momentum_1": Tensor}}}``.

    Attributes:
        config: how they are updated.
        collections: by their name in the module.
    """

    config: FusedOptimizerConfig
    collections: Mapping[str, Any]

    def parameters(self) -> list[nn.Parameter]:
        """The tables' weights in this process: no other optimiser may hold them."""
        return [
            parameter
            for collection in self.collections.values()
            for parameter in collection.parameters()
        ]

    def first_rows(self) -> dict[str, Any]:
        """What fills a new table, by the name of its weight in the module."""
        return {
            f"{name}.embedding_bags.{table.name}.weight": table.init_fn
            for name, collection in self.collections.items()
            for table in collection.embedding_bag_configs()
        }

    @abstractmethod
    def set_learning_rate(self, learning_rate: float) -> None:
        """Use this learning rate from the next backward on."""

    def after_backward(self) -> None:
        """Update the tables that the backward has not updated; all are, unless said otherwise."""
        return

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Optimiser state per collection, by its name in the module."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave.

        Raises:
            ConfigError: the state is of other tables.
        """


class FusedTables(PlacedTables):
    """The fused collections of a module and the state of their optimisers.

    Args:
        config: what they were fused with.
        collections: by their name in the module.
    """

    def __init__(
        self,
        config: FusedOptimizerConfig,
        collections: Mapping[str, FusedEmbeddingBagCollection],
    ) -> None:
        self.config = config
        self.collections = dict(collections)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use this learning rate from the next backward on."""
        for collection in self.collections.values():
            set_fused_rate(collection.fused_optimizer(), learning_rate)

    def state_dict(self) -> dict[str, Any]:
        """Optimiser state per collection, by its name in the module."""
        return {
            name: collection.fused_optimizer().state_dict()
            for name, collection in self.collections.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave.

        Raises:
            ConfigError: the state is of other tables.
        """
        refuse_other_tables(state, self.collections)
        for name, collection in self.collections.items():
            optimizer = collection.fused_optimizer()
            own = optimizer.state_dict()["state"]
            saved = {
                table: {key: merged_columns(value, own[table][key]) for key, value in kept.items()}
                for table, kept in state[name]["state"].items()
            }
            optimizer.load_state_dict({"state": saved})


def set_fused_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give FBGEMM the learning rate of the next backward, through TorchRec's fused optimiser."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()  # hands the rate over; the update itself is in the backward


def refuse_other_tables(state: Mapping[str, Any], collections: Mapping[str, Any]) -> None:
    """Check that a state is of these collections.

    Raises:
        ConfigError: it is not.
    """
    if set(state) != set(collections):
        raise ConfigError(
            f"The checkpoint holds optimiser state of {sorted(state)}, the model has "
            f"{sorted(collections)}; resume with the configuration it was trained with."
        )


def fuse_tables(
    module: nn.Module, config: FusedOptimizerConfig, device: torch.device | None = None
) -> FusedTables:
    """Replace every TorchRec ``EmbeddingBagCollection`` in ``module`` by its fused counterpart.

    Weights and the keys of the state dict stay as they are; tables without memory get it here, and
    their first rows in place. FBGEMM decides how it looks up, and
    where it keeps what is no weight, when a collection is fused: moving it afterwards does not do.

    Args:
        module: what has the collections.
        config: how they are updated.
        device: where they are trained; None for where they are.

    Raises:
        ConfigError: the optimiser is not one of ``OPTIMIZERS``, or a rate is not positive.
    """
    check_optimizer(config)
    collections = {}
    for name, child in list(module.named_modules()):
        if isinstance(child, EmbeddingBagCollection):
            if not name:
                raise ValueError("fuse_tables replaces collections inside a module, not itself")
            collections[name] = _fused(child, config, device or child.device)
            parent, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(parent), attribute, collections[name])
    return FusedTables(config, collections)


def _fused(
    collection: EmbeddingBagCollection, config: FusedOptimizerConfig, device: torch.device
) -> FusedEmbeddingBagCollection:
    fused = FusedCollection(
        collection.embedding_bag_configs(),
        optimizer_type=OPTIMIZERS[config.optimizer],
        # Pooling folds every index into its table, so FBGEMM need not look at each one again.
        optimizer_kwargs=optimizer_options(config) | {"bounds_check_mode": BoundsCheckMode.NONE},
        is_weighted=collection.is_weighted(),
        device=device,
    )
    for table in collection.embedding_bag_configs():
        start_table(collection, table, [((0, 0), fused.embedding_bags[table.name].weight)])
    return fused


def check_optimizer(config: FusedOptimizerConfig) -> None:
    """Check what a user gave.

    Raises:
        ConfigError: the optimiser is not one of ``OPTIMIZERS``, or a rate is not positive.
    """
    if config.optimizer not in OPTIMIZERS:
        raise ConfigError(
            f"optimizer={config.optimizer!r} cannot run in the tables' backward; "
            f"choose one of {', '.join(OPTIMIZERS)}."
        )
    if config.learning_rate <= 0 or config.epsilon <= 0:
        raise ConfigError(
            f"The tables' optimiser has learning_rate={config.learning_rate} and "
            f"epsilon={config.epsilon}; both must be positive."
        )


def optimizer_options(config: FusedOptimizerConfig) -> dict[str, Any]:
    """What the class in ``OPTIMIZERS`` is made with."""
    options = {"lr": config.learning_rate}
    if config.optimizer != "sgd":
        options["eps"] = config.epsilon
    return options


def merged_columns(state: Tensor, like: Tensor) -> Tensor:
    """Row-wise state [S · rows] of a table in S column shards as the state [rows] of a whole one.

    Row-wise Adagrad of a column shard sums the mean of grad² over the shard's own columns; the
    mean over shards of equal width is the sum that the whole table would have. Other states come
    back as they are.
    """
    if state.shape == like.shape:
        return state
    return state.view(-1, len(like)).mean(dim=0)
