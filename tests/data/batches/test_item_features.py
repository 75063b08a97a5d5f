"""Selecting items, against a loop."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.batches.item_features import ItemFeatures


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_selected_items_are_those_of_a_loop(data: st.DataObject) -> None:
    number = data.draw(st.integers(1, 5))
    sizes = st.lists(st.integers(0, 3), min_size=number, max_size=number)
    text_lengths, image_lengths = (torch.tensor(data.draw(sizes)) for _ in range(2))
    chosen = data.draw(st.lists(st.integers(0, number - 1), max_size=6))
    items = ItemFeatures(
        text=torch.arange(int(text_lengths.sum())),
        text_lengths=text_lengths,
        images=torch.arange(2.0 * int(image_lengths.sum())).reshape(-1, 2),
        image_lengths=image_lengths,
        categorical=torch.arange(number * 3).reshape(number, 3),
        dense=torch.rand(number, 2),
        has_dense=torch.rand(number) > 0.5,
        given=torch.rand(number, 4),
        has_given=torch.rand(number) > 0.5,
    )
    selected = items.select(torch.tensor(chosen, dtype=torch.int64))
    texts = items.text.split(text_lengths.tolist())
    images = items.images.split(image_lengths.tolist())
    assert selected.text.tolist() == [t for item in chosen for t in texts[item].tolist()]
    assert selected.images.tolist() == [i for item in chosen for i in images[item].tolist()]
    assert selected.text_lengths.tolist() == [len(texts[item]) for item in chosen]
    assert selected.image_lengths.tolist() == [len(images[item]) for item in chosen]
    for name in ("categorical", "dense", "has_dense", "given", "has_given"):
        expected = [getattr(items, name)[item].tolist() for item in chosen]
        assert getattr(selected, name).tolist() == expected
