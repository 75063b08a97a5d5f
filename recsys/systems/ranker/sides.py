"""Which inputs of the experts follow from the user alone, and which need a candidate.

Legend: V vectors of a row, U of them the user's, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.systems.ranker.net import RankerNet


@dataclass(frozen=True, eq=False)
class Sides:
    """The inputs of a ranker's experts by side.

    A row's vectors are taken with the user's U at the end.

    Attributes:
        user: columns of the user: its vectors, the products of two of them, its embedding.
        candidate: all other columns: vectors, products, what is counted. Of cross layers, which mix
            both sides, all vectors are here.
        user_pairs: places of the user's own products among [U, U].
        pairs: places of the other products among [V, V].
        vectors: [V · D] where the numbers of the vectors, in this order, are in the net's.
    """

    user: Tensor
    candidate: Tensor
    user_pairs: Tensor
    pairs: Tensor
    vectors: Tensor


def sides_of(net: RankerNet) -> Sides:
    """The sides of a ranker."""
    number, width = net.vectors, net.entities.dimension
    first, last = net.user_vectors
    order = torch.tensor([*range(first), *range(last, number), *range(first, last)])
    own = number - (last - first)
    vectors = (order[:, None] * width + torch.arange(width)).flatten()
    one, other = torch.triu_indices(number, number, offset=1)
    of_user = one >= own
    place = torch.zeros(number, number, dtype=torch.int64)
    place[one, other] = torch.arange(len(one))
    place = (place + place.t())[order][:, order][one, other] + number * width
    if net.cross is not None:
        user, candidate, counted = [], [vectors], number * width
    else:
        user, candidate = [vectors[own * width :], place[of_user]], [vectors[: own * width]]
        candidate.append(place[~of_user])
        counted = number * width + len(one)
    published = counted + len(net.counted_mean)
    candidate.append(torch.arange(counted, published))
    user.append(torch.arange(published, net.inputs))
    return Sides(
        user=torch.cat(user),
        candidate=torch.cat(candidate),
        user_pairs=((one - own) * (number - own) + other - own)[of_user],
        pairs=(one * number + other)[~of_user],
        vectors=vectors,
    )
