"""Optimisers that run inside the backward pass of the embedding tables (TorchRec, FBGEMM)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode
from torch import nn
from torchrec import EmbeddingBagCollection, KeyedJaggedTensor, KeyedTensor
from torchrec.modules.fused_embedding_modules import FusedEmbeddingBagCollection
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from recsys.errors import ConfigError

#: What FBGEMM fuses on CPU and GPU alike (fbgemm-gpu 1.8: on CPU these are all there are).
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "rowwise_adagrad": RowWiseAdagrad,
    "adagrad": torch.optim.Adagrad,
    "sgd": torch.optim.SGD,
}


@dataclass(frozen=True)
class FusedOptimizerConfig:
    """How tables are updated.

    Attributes:
        optimizer: ``rowwise_adagrad`` keeps one number per row: state += mean(grad²),
            w -= learning_rate * grad / (sqrt(state) + epsilon); ``adagrad`` one per weight;
            ``sgd`` none.
        learning_rate: of all tables.
        epsilon: of both Adagrads.
    """

    optimizer: str = "rowwise_adagrad"
    learning_rate: float = 0.02
    epsilon: float = 1e-8


class FusedCollection(FusedEmbeddingBagCollection):
    """TorchRec's fused collection, without the work our pooling does not need.

    FBGEMM would compute a gradient of the event weights, as expensive as the update itself; they
    are functions of the log, so nobody asks for it. The features must come in the order of the
    tables, so that the values are passed on as they are instead of being split by key and joined
    again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
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


class FusedTables:
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

    def parameters(self) -> list[nn.Parameter]:
        """The tables' weights, updated in the backward: no other optimiser may hold them."""
        return [
            parameter
            for collection in self.collections.values()
            for parameter in collection.parameters()
        ]

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use this learning rate from the next backward on."""
        for collection in self.collections.values():
            optimizer = collection.fused_optimizer()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()  # hands the rate to FBGEMM; the update itself is in the backward

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
        if set(state) != set(self.collections):
            raise ConfigError(
                f"The checkpoint holds optimiser state of {sorted(state)}, the model has "
                f"{sorted(self.collections)}; resume with the configuration it was trained with."
            )
        for name, collection in self.collections.items():
            collection.fused_optimizer().load_state_dict(state[name])


def fuse_tables(module: nn.Module, config: FusedOptimizerConfig) -> FusedTables:
    """Replace every TorchRec ``EmbeddingBagCollection`` in ``module`` by its fused counterpart.

    Weights and the keys of the state dict stay as they are.

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
    collections = {}
    for name, child in list(module.named_modules()):
        if isinstance(child, EmbeddingBagCollection):
            if not name:
                raise ValueError("fuse_tables replaces collections inside a module, not itself")
            collections[name] = _fused(child, config)
            parent, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(parent), attribute, collections[name])
    return FusedTables(config, collections)


def _fused(
    collection: EmbeddingBagCollection, config: FusedOptimizerConfig
) -> FusedEmbeddingBagCollection:
    options: dict[str, Any] = {
        "lr": config.learning_rate,
        # Pooling folds every index into its table, so FBGEMM need not look at each one again.
        "bounds_check_mode": BoundsCheckMode.NONE,
    }
    if config.optimizer != "sgd":
        options["eps"] = config.epsilon
    fused = FusedCollection(
        collection.embedding_bag_configs(),
        optimizer_type=OPTIMIZERS[config.optimizer],
        optimizer_kwargs=options,
        is_weighted=collection.is_weighted(),
        device=collection.device,
    )
    fused.load_state_dict(collection.state_dict())
    return fused
