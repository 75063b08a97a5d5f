"""The post tower against a loop over items; missing channels; sets of images; refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.data.batches.item_features import ItemFeatures
from recsys.data.content.text import HashedTextConfig, pretrained_tokens
from recsys.data.contract.schema import Feature, FeatureKind, FeatureSide
from recsys.systems.post_tower.images import ImageSet
from recsys.systems.post_tower.net import PostTower, PostTowerConfig
from recsys.systems.post_tower.text import HashedText, PretrainedText

CONFIG = PostTowerConfig(
    width=8, output_width=6, hashed_text=HashedTextConfig(buckets=20), id_dropout=0.0
)
IMAGE_WIDTH = 3
GIVEN_WIDTH = 4
FEATURES = [
    Feature("item_id", FeatureSide.ITEM, FeatureKind.CATEGORICAL, 100),
    Feature("author_id", FeatureSide.ITEM, FeatureKind.CATEGORICAL, 5),
    Feature("media", FeatureSide.ITEM, FeatureKind.CATEGORICAL, 4),
]
EVERYTHING: dict[str, Any] = {
    "has_text": True,
    "image_width": IMAGE_WIDTH,
    "categorical": FEATURES,
    "num_dense": 2,
    "given_width": GIVEN_WIDTH,
}


def build(config: PostTowerConfig = CONFIG, **inputs: Any) -> PostTower:
    torch.manual_seed(0)
    tower = PostTower(config, **(EVERYTHING | inputs)).eval()
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return tower


def items() -> ItemFeatures:
    """Everything; everything, other images; text only; nothing; no text and no dense."""
    generator = torch.Generator().manual_seed(0)
    return ItemFeatures(
        text=torch.tensor([1, 2, 3, 4, 19, 7]),
        text_lengths=torch.tensor([2, 1, 3, 0, 0]),
        images=torch.randn(6, IMAGE_WIDTH, generator=generator),
        image_lengths=torch.tensor([3, 1, 0, 0, 2]),
        categorical=torch.tensor([[1, 1, 2], [2, 0, 1], [3, 0, 0], [4, 0, 0], [5, 4, 3]]),
        dense=torch.randn(5, 2, generator=generator),
        has_dense=torch.tensor([True, True, False, False, False]),
        given=torch.randn(5, GIVEN_WIDTH, generator=generator),
        has_given=torch.tensor([True, False, True, False, False]),
    )


def reference(tower: PostTower, item: ItemFeatures) -> Tensor:
    """One item [W], one channel after the other, those it does not have left out."""
    channels: list[Tensor | None] = [None] * len(tower.norms)
    if len(item.text):
        assert isinstance(tower.text, HashedText)
        channels[0] = tower.text.bag.weight[item.text].mean(dim=0)
    if len(item.images):
        assert tower.images is not None
        total = sum(tower.images.each(image) for image in item.images)
        channels[1] = tower.images.all(total)
    own, author, media = item.categorical[0].tolist()
    if author or media:
        assert tower.metadata is not None
        authors, medias = tower.metadata.tables.parameters()
        channels[2] = tower.metadata.mlp(torch.cat([authors[author], medias[media]]))
    if own and tower.post_id is not None:
        channels[3] = tower.post_id.embedding.weight[own]
    if item.has_dense:
        assert tower.dense is not None
        channels[-2] = tower.dense(item.dense[0])
    if item.has_given:
        assert tower.given is not None
        channels[-1] = tower.given(item.given[0])
    normed = [
        torch.zeros(8) if channel is None else F.layer_norm(channel, [8], norm.weight, norm.bias)
        for channel, norm in zip(channels, tower.norms, strict=True)
    ]
    if all(channel is None for channel in channels):
        return torch.zeros(6)
    logits = tower.fusion.projection(torch.cat(normed))
    weights = torch.exp(logits) * torch.tensor([float(c is not None) for c in channels])
    fused = sum(w * c for w, c in zip(weights / weights.sum(), normed, strict=True))
    projected = tower.projection(fused)
    return projected / projected.norm()


@pytest.mark.parametrize("post_id", [False, True], ids=["content", "with ids"])
def test_embeddings_agree_with_the_loop_over_items(post_id: bool) -> None:
    tower, batch = build(replace(CONFIG, post_id=post_id)), items()
    batch.categorical[3:, 0] = 0  # new items
    embedding = tower(**batch.columns())
    assert embedding.shape == (5, 6)
    alone = [batch.select(torch.tensor([item])) for item in range(5)]
    torch.testing.assert_close(embedding, torch.stack([reference(tower, item) for item in alone]))
    torch.testing.assert_close(embedding, torch.cat([tower(**item.columns()) for item in alone]))
    assert torch.equal(embedding[3], torch.zeros(6))


def test_the_items_own_id_is_not_looked_at_and_a_new_author_is_unknown() -> None:
    tower, batch = build(), items()
    expected = tower(**batch.columns())
    renamed = batch.categorical.clone()
    renamed[:, 0] = 50
    assert torch.equal(tower(**replace(batch, categorical=renamed).columns()), expected)
    renamed[0, 1], batch.categorical[0, 1] = 77, 0
    torch.testing.assert_close(
        tower(**replace(batch, categorical=renamed).columns())[0], tower(**batch.columns())[0]
    )


def test_an_item_is_at_times_taken_for_a_new_one_in_training() -> None:
    config = replace(CONFIG, post_id=True, id_dropout=0.5)
    nothing_else = {"has_text": False, "image_width": 0, "num_dense": 0, "given_width": 0}
    tower = build(config, **nothing_else, categorical=FEATURES[:1])
    known = items().select(torch.zeros(400, dtype=torch.int64))
    assert bool(tower(**known.columns()).norm(dim=1).bool().all())
    trained = tower.train()(**known.columns()).norm(dim=1).bool()
    assert 130 < int(trained.sum()) < 270


def test_an_embedding_per_item_without_ids_of_items_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs item_id among"):
        build(replace(CONFIG, post_id=True), categorical=FEATURES[1:])


def test_what_a_missing_channel_holds_is_not_looked_at() -> None:
    tower, batch = build(), items()
    expected = tower(**batch.columns())
    batch.dense[2:] = float("nan")
    torch.testing.assert_close(tower(**batch.columns()), expected)


def test_images_are_a_set() -> None:
    torch.manual_seed(0)
    module = ImageSet(IMAGE_WIDTH, 8)
    images = torch.randn(3, IMAGE_WIDTH)
    expected = module(images, torch.tensor([3]))
    torch.testing.assert_close(module(images[[2, 0, 1]], torch.tensor([3])), expected)
    assert not torch.allclose(module(images[:2], torch.tensor([2])), expected)


@pytest.mark.parametrize(
    "only",
    [
        {"has_text": True},
        {"image_width": 3},
        {"categorical": FEATURES},
        {"num_dense": 2},
        {"given_width": GIVEN_WIDTH},
    ],
    ids=lambda only: next(iter(only)),
)
def test_a_channel_that_items_do_not_have_is_not_built(only: dict[str, Any]) -> None:
    nothing: dict[str, Any] = {"has_text": False, "image_width": 0, "num_dense": 0}
    nothing |= {"categorical": FEATURES[:1], "given_width": 0}
    tower = build(**(nothing | only))
    assert len(tower.norms) == 1
    assert torch.isfinite(tower(**items().columns())).all()


def test_items_without_anything_to_encode_are_refused() -> None:
    with pytest.raises(ConfigError, match="nothing a post tower could encode"):
        build(has_text=False, image_width=0, categorical=FEATURES[:1], num_dense=0, given_width=0)


def test_gradients_are_finite_and_reach_every_weight() -> None:
    tower = build().train()
    embedding = tower(**items().columns())
    (embedding * torch.randn_like(embedding)).sum().backward()
    for name, parameter in tower.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_a_pretrained_encoder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder"):
        build(replace(CONFIG, pretrained_text=str(tmp_path / "xlm-r")))


@pytest.fixture
def tiny_bert(tmp_path: Path) -> Path:
    """A random BERT of two layers with a vocabulary of a few words, saved as any other."""
    transformers = pytest.importorskip("transformers", reason="the package is not installed")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "toy", "story", "heat"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    torch.manual_seed(0)
    transformers.BertModel(
        transformers.BertConfig(
            vocab_size=8,
            hidden_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=16,
        )
    ).save_pretrained(tmp_path)
    return tmp_path


def test_pretrained_text_is_the_mean_of_the_encoders_states(tiny_bert: Path) -> None:
    texts = ["toy story", None, "heat", "toy toy toy toy toy toy"]
    tokens, lengths = pretrained_tokens(texts, tiny_bert, max_tokens=6)
    assert lengths.tolist() == [4, 0, 3, 6]  # [CLS] and [SEP] included; the last one is cut
    assert tokens[:4].tolist() == [2, 5, 6, 3]
    channel = PretrainedText(tiny_bert, 5)
    channel(torch.empty(0, dtype=torch.int64), torch.tensor([0, 0])).sum().backward()
    trained = {name: one for name, one in channel.named_parameters() if one.requires_grad}
    assert [name for name, one in trained.items() if one.grad is None] == []
    channel.eval()
    encoded = channel(torch.from_numpy(tokens), torch.from_numpy(lengths))
    for item, ids in enumerate(torch.from_numpy(tokens).split(lengths.tolist())):
        expected = torch.zeros(5)
        if len(ids):
            states = channel.encoder(input_ids=ids.unsqueeze(0)).last_hidden_state[0]
            expected = channel.projection(states.mean(dim=0))
        torch.testing.assert_close(encoded[item], expected, rtol=1e-4, atol=1e-5)
    nothing = channel(torch.empty(0, dtype=torch.int64), torch.tensor([0, 0]))
    assert torch.equal(nothing, torch.zeros(2, 5))


def test_a_folder_without_encoder_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the package is not installed")
    with pytest.raises(ConfigError, match="holds no encoder"):
        PretrainedText(tmp_path, 5)
    with pytest.raises(ConfigError, match="holds no tokeniser"):
        pretrained_tokens(["text"], tmp_path, 8)
