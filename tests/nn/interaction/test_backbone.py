"""The backbone against TorchRec's DLRM parts, and its handling of ids, labels and requests."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torchrec.models.dlrm import InteractionArch

from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Feature, FeatureKind, FeatureSide, Task, TaskKind
from recsys.nn.interaction.backbone import (
    ITEM_TABLES,
    USER_TABLES,
    BackboneConfig,
    FeatureVectors,
)
from recsys.nn.interaction.dlrm import DLRM, TaskHeads, pairwise_products
from recsys.nn.interaction.siamese import Siamese
from recsys.nn.losses import LabelStatistics
from recsys.nn.tables.collection import DEFAULT_SPREAD
from tests.manifests import EMPTY

DIMENSION, NUM_USER_EMBEDDINGS = 4, 3
TASKS = (Task("liked"), Task("watch_time", TaskKind.REGRESSION), Task("skip"))
STATISTICS = LabelStatistics(torch.tensor([0.2, 30.0, 0.0]), torch.tensor([0.16, 400.0, 1.0]))
CATEGORICAL, DENSE = FeatureKind.CATEGORICAL, FeatureKind.DENSE


def manifest(dense: bool = True) -> DatasetManifest:
    features = [
        Feature("user_id", FeatureSide.USER, CATEGORICAL, 10),
        Feature("item_id", FeatureSide.ITEM, CATEGORICAL, 20),
        Feature("author_id", FeatureSide.ITEM, CATEGORICAL, 6),
        Feature("hour", FeatureSide.CONTEXT, CATEGORICAL, 24),
    ]
    if dense:
        features += [
            Feature("activity", FeatureSide.USER, DENSE),
            Feature("age", FeatureSide.ITEM, DENSE),
            Feature("position", FeatureSide.CONTEXT, DENSE),
        ]
    return replace(
        EMPTY,
        tasks=TASKS,
        features=tuple(features),
        vocabulary_sizes={"user": 10, "item": 20, "author": 6, "topic": 3},
        surfaces=("feed",),
        media_types=("video",),
    )


def inputs(dense: bool = True) -> dict[str, torch.Tensor]:
    """Two requests, of three rows and one."""
    generator = torch.Generator().manual_seed(3)
    return {
        "user_embedding": torch.randn(2, NUM_USER_EMBEDDINGS, DIMENSION, generator=generator),
        "user_categorical": torch.tensor([[3], [9]]),
        "user_dense": torch.randn(2, int(dense), generator=generator),
        "item_categorical": torch.tensor([[1, 2, 0], [19, 5, 23], [1, 2, 3], [7, 0, 3]]),
        "item_dense": torch.randn(4, 2 * int(dense), generator=generator),
        "request_index": torch.tensor([0, 0, 0, 1]),
    }


def backbone(dense: bool = True, user_embeddings: int = NUM_USER_EMBEDDINGS) -> DLRM:
    torch.manual_seed(0)
    config = BackboneConfig(user_vectors=2, dense_hidden_sizes=[5], over_sizes=[8, 6])
    return DLRM(
        manifest(dense), DIMENSION, user_embeddings, config, DEFAULT_SPREAD, STATISTICS
    ).eval()


def siamese() -> Siamese:
    torch.manual_seed(0)
    config = BackboneConfig(kind="siamese", dense_hidden_sizes=[5], over_sizes=[8, 6])
    return Siamese(
        manifest(), DIMENSION, NUM_USER_EMBEDDINGS, config, DEFAULT_SPREAD, STATISTICS
    ).eval()


def test_interactions_are_those_of_torchrec_computed_per_row() -> None:
    model, batch = backbone(), inputs()
    user = model.user_features(batch["user_categorical"], batch["user_dense"])
    item = model.item_features(batch["item_categorical"], batch["item_dense"])
    index = batch["request_index"]
    crossed = torch.bmm(item, user.index_select(0, index).transpose(1, 2)).flatten(1)
    ours = torch.cat([pairwise_products(user)[index], pairwise_products(item), crossed], dim=1)

    together = torch.cat([user[index], item], dim=1)  # [R, V_u + V_i, D]
    arch = InteractionArch(together.shape[1] - 1)
    theirs = arch(together[:, 0], together[:, 1:])[:, DIMENSION:]
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours.sort(dim=1).values, theirs.sort(dim=1).values)


def test_output_is_the_network_computed_row_by_row() -> None:
    """No sharing between rows of a request, one concatenated input, one head after the other."""
    model, batch = backbone(), inputs()
    outputs = model(**batch)
    assert outputs.shape == (4, 3)
    for row, request in enumerate(batch["request_index"].tolist()):
        embedding = batch["user_embedding"][request]
        user = model.user_features(
            batch["user_categorical"][[request]], batch["user_dense"][[request]]
        )[0]
        item = model.item_features(batch["item_categorical"][[row]], batch["item_dense"][[row]])[0]
        projected = model.user_projection.weight @ embedding
        vectors = torch.cat([user, projected])
        pairs = [vectors[i] @ vectors[j] for i in range(4) for j in range(i + 1, 4)]
        item_pairs = [item[i] @ item[j] for i in range(4) for j in range(i + 1, 4)]
        crossed = [one @ other for one in item for other in vectors]
        together = torch.cat(
            [
                user.flatten(),
                embedding.flatten(),
                torch.stack(pairs),
                item.flatten(),
                torch.stack(item_pairs),
                torch.stack(crossed),
            ]
        )
        first = torch.cat([model.over_user.weight, model.over_row.weight], dim=1)
        hidden = torch.nn.functional.silu(first @ together + model.over_row.bias)
        shared = model.over(hidden)
        raw = []
        for task in range(3):
            part = slice(task * 16, (task + 1) * 16)
            unit = torch.nn.functional.silu(
                model.heads.hidden.weight[part] @ shared + model.heads.hidden.bias[part]
            )
            raw.append(model.heads.weight[task] @ unit + model.heads.bias[task])
        expected = [
            raw[0] + torch.logit(torch.tensor(0.2)),
            30.0 + 20.0 * raw[1],
            raw[2] + torch.logit(torch.tensor(1e-4)),
        ]
        torch.testing.assert_close(outputs[row], torch.stack(expected))


def test_siamese_is_a_dot_product_per_task_computed_row_by_row() -> None:
    model, batch = siamese(), inputs()
    outputs = model(**batch)
    user_features = model.user_features(batch["user_categorical"], batch["user_dense"])
    item_features = model.item_features(batch["item_categorical"], batch["item_dense"])
    assert item_features.shape == (4, 3, DIMENSION)  # two ids and the dense ones: no context
    for row, request in enumerate(batch["request_index"].tolist()):
        user = torch.cat([user_features[request], batch["user_embedding"][request]]).flatten()
        item = item_features[row].flatten()
        user, item = model.user_tower(user), model.item_tower(item)
        expected = []
        for task, (offset, scale) in enumerate(zip(model.offset, model.scale, strict=True)):
            part = slice(task * 16, (task + 1) * 16)
            of_user = model.user_of_task.weight[part] @ user
            of_item = model.item_of_task.weight[part] @ item
            expected.append(offset + scale * (of_user @ of_item + model.bias[task]))
        torch.testing.assert_close(outputs[row], torch.stack(expected))


def test_siamese_does_not_see_the_context() -> None:
    model, batch = siamese(), inputs()
    moved = {"item_categorical": batch["item_categorical"].clone()}
    moved["item_categorical"][:, 2] = 7  # the hour
    moved["item_dense"] = batch["item_dense"] * torch.tensor([1.0, -3.0])  # the position
    torch.testing.assert_close(model(**batch | moved), model(**batch), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [DLRM, Siamese])
@pytest.mark.parametrize(
    ("features", "seen"),
    [
        ("all", {"user_id", "item_id", "author_id", "hour", "activity", "age", "position"}),
        ("sparse", {"user_id", "item_id", "author_id", "hour"}),
        ("dense", {"item_id", "author_id", "activity", "age", "position"}),
        ("none", {"item_id", "author_id"}),
    ],
)
def test_features_that_are_removed_change_nothing(
    kind: type[DLRM | Siamese], features: str, seen: set[str]
) -> None:
    """Every feature is moved by itself; item and author of the candidate are always seen."""
    config = BackboneConfig(user_vectors=2, over_sizes=[8], features=features)
    torch.manual_seed(0)
    model = kind(
        manifest(), DIMENSION, NUM_USER_EMBEDDINGS, config, DEFAULT_SPREAD, STATISTICS
    ).eval()
    batch = inputs()
    before = model(**batch)
    places = {
        "user_id": ("user_categorical", 0),
        "item_id": ("item_categorical", 0),
        "author_id": ("item_categorical", 1),
        "hour": ("item_categorical", 2),
        "activity": ("user_dense", 0),
        "age": ("item_dense", 0),
        "position": ("item_dense", 1),
    }
    changed = set()
    for name, (argument, column) in places.items():
        moved = batch[argument].clone()
        moved[:, column] = 5 - moved[:, column].clamp(max=5)
        if not torch.equal(model(**batch | {argument: moved}), before):
            changed.add(name)
    assert changed == seen - (set() if kind is DLRM else {"hour", "position"})
    asked = model.lookups(batch["user_categorical"], batch["item_categorical"])
    has_users = "user_id" in seen
    assert set(asked) == {*([USER_TABLES] if has_users else []), ITEM_TABLES}


@pytest.mark.parametrize("kind", [DLRM, Siamese])
def test_with_neither_features_nor_timelines_a_candidate_has_one_score(
    kind: type[DLRM | Siamese],
) -> None:
    config = BackboneConfig(over_sizes=[8], features="none")
    model = kind(manifest(), DIMENSION, 0, config, DEFAULT_SPREAD, STATISTICS).eval()
    outputs = model(**inputs() | {"user_embedding": None})
    assert outputs.isfinite().all()
    assert torch.equal(outputs[0, 0], outputs[2, 0])  # another hour
    model(**inputs() | {"user_embedding": None}).sum().backward()


def test_outputs_start_at_the_base_rates() -> None:
    for model in (backbone(), siamese()):
        weight = model.heads.weight if isinstance(model, DLRM) else model.item_of_task.weight
        torch.nn.init.zeros_(weight)
        outputs = model(**inputs())
        torch.testing.assert_close(outputs[:, 0].sigmoid(), torch.full((4,), 0.2))
        torch.testing.assert_close(outputs[:, 1], torch.full((4,), 30.0))


def test_base_rates_travel_with_the_state() -> None:
    neutral = DLRM(
        manifest(),
        DIMENSION,
        NUM_USER_EMBEDDINGS,
        BackboneConfig(user_vectors=2, dense_hidden_sizes=[5], over_sizes=[8, 6]),
        DEFAULT_SPREAD,
        LabelStatistics.neutral(3),
    ).eval()
    neutral.load_state_dict(backbone().state_dict())
    torch.testing.assert_close(neutral(**inputs()), backbone()(**inputs()))


@pytest.mark.parametrize("dense", [True, False])
def test_without_timelines_the_other_features_remain(dense: bool) -> None:
    model = backbone(dense, user_embeddings=0)
    batch = inputs(dense) | {"user_embedding": None}
    outputs = model(**batch)
    assert outputs.shape == (4, 3)
    moved = batch | {"user_categorical": torch.tensor([[4], [9]])}
    changed = (model(**moved) != outputs).any(dim=1)
    assert changed.tolist() == [True, True, True, False]


def test_dropped_ids_read_row_0_and_other_features_stay() -> None:
    features = manifest().select(FeatureSide.ITEM, CATEGORICAL) + manifest().select(
        FeatureSide.CONTEXT, CATEGORICAL
    )
    vectors = FeatureVectors(features, 0, DIMENSION, BackboneConfig(id_dropout=1.0), DEFAULT_SPREAD)
    ids, nothing = torch.tensor([[1, 2, 3], [7, 5, 4]]), torch.empty(2, 0)
    dropped = vectors.train()(ids, nothing)
    unknown = vectors.eval()(torch.tensor([[0, 0, 3], [0, 0, 4]]), nothing)
    torch.testing.assert_close(dropped, unknown)
    assert not torch.equal(vectors(ids, nothing), unknown)


def test_an_index_beyond_the_table_is_unknown() -> None:
    features = manifest().select(FeatureSide.ITEM, CATEGORICAL)
    vectors = FeatureVectors(features, 0, DIMENSION, BackboneConfig(), DEFAULT_SPREAD).eval()
    nothing = torch.empty(2, 0)
    beyond = vectors(torch.tensor([[20, 5], [19, 6]]), nothing)
    torch.testing.assert_close(beyond, vectors(torch.tensor([[0, 5], [19, 0]]), nothing))


def test_task_heads_do_not_touch_each_other() -> None:
    heads = TaskHeads(5, 4, 3)
    shared = torch.randn(7, 5)
    heads(shared)[:, 1].sum().backward()
    gradient = heads.hidden.weight.grad.reshape(3, 4, 5)
    assert gradient[1].abs().sum() > 0
    assert gradient[[0, 2]].abs().sum() == 0
    assert heads.weight.grad[[0, 2]].abs().sum() == 0
