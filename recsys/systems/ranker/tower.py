"""The ranker by itself, as it is exported: the user side of a request once, then its candidates.

Written for TorchScript, with embedding tables as plain weights: who loads it needs torch alone.
Legend: T recent events, C candidates, F features, V vectors, D width, K tasks, L blocks.
"""

# no `from __future__ import annotations`: TorchScript reads the types of buffers from the class

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.nn.calibrators import Calibrators
from recsys.nn.sequence.targets import OneRequestHSTU
from recsys.systems.ranker.module import Ranker
from recsys.systems.ranker.net import EVEN_WIDTH, prepended
from recsys.systems.ranker.sides import sides_of

#: Candidates that are computed at a time. Libraries choose by the shape of matrices in which order
#: they add: always as many, filled up with zeros, and a candidate's scores have the same bits
#: whatever is beside it.
ROWS_AT_A_TIME = 128


class PlainTables(nn.Module):
    """The rows of categorical features as one table, [n, F] indices → [n, F, D].

    Of fewer columns than there are features they are the first.

    Args:
        tables: by the names of the features, [rows, D] of each.
        width: D.
    """

    cardinalities: Tensor
    offsets: Tensor

    def __init__(self, tables: dict[str, Tensor], width: int) -> None:
        super().__init__()
        rows = torch.tensor([len(table) for table in tables.values()], dtype=torch.int64)
        self.register_buffer("cardinalities", rows)
        self.register_buffer("offsets", rows.cumsum(0) - rows)
        self.table = nn.Embedding.from_pretrained(
            torch.cat([torch.zeros(0, width), *tables.values()])
        )

    def forward(self, index: Tensor) -> Tensor:
        """Look rows up; an index that a table does not have is read as unknown."""
        number = index.shape[1]
        known = index.masked_fill(index >= self.cardinalities[:number], 0)
        rows: Tensor = self.table(known + self.offsets[:number])
        return rows


def tables_of(names: Sequence[str], collection: nn.Module) -> dict[str, Tensor]:
    """The tables of a collection that has one of each name."""
    if not names:
        return {}
    bags = collection.get_submodule("embedding_bags")
    return {name: bags.get_parameter(f"{name}.weight").detach() for name in names}


class RankerTower(nn.Module):
    """``encode_user`` once per request, then ``score`` of as many candidates as there are.

    Args:
        model: trained.
        calibrators: of its probabilities.
    """

    columns: Tensor
    pairs: Tensor
    user_pairs: Tensor
    user_weight: Tensor
    candidate_weight: Tensor
    first_bias: Tensor
    counted_mean: Tensor
    counted_scale: Tensor
    offset: Tensor
    scale: Tensor
    is_binary: Tensor
    cross_down: Tensor
    cross_up: Tensor
    cross_bias: Tensor

    def __init__(self, model: Ranker, calibrators: Calibrators) -> None:
        super().__init__()
        net = model.net
        width = net.entities.dimension
        self.rows_at_a_time = ROWS_AT_A_TIME
        self.max_length = net.recent.max_length
        self.adoption = net.adoption if net.adopted is not None else "none"
        self.adopted = net.adopted
        if net.adopted is not None and self.adoption == "prepended":
            self.max_length -= net.adopted.num_vectors
        users, items = net.user_features, net.item_features
        entities = tables_of(net.entities.names, net.entities.tables)
        self.num_entities = len(entities)
        self.user_tables = PlainTables(tables_of(users.names, users.tables), width)
        # events are looked up by the first columns
        self.tables = PlainTables(entities | tables_of(items.names, items.tables), width)
        self.user_numbers, self.item_numbers = users.dense, items.dense
        recent = net.recent
        self.recent = OneRequestHSTU(recent.blocks, recent.heads, recent.max_length)
        self.actions, self.dwell = net.actions, net.dwell
        self.counted = net.counted
        self.experts, self.towers = net.experts, net.towers
        sides = sides_of(net)
        weight, bias = net.experts.first_layer()
        self.padding = -len(sides.candidate) % EVEN_WIDTH
        self.is_crossed = net.cross is not None
        self.cross_layers = 0
        buffers = {
            "columns": torch.cat([net.entity_columns, net.other_columns]),
            "counted_mean": net.counted_mean,
            "counted_scale": net.counted_scale,
            "offset": net.offset,
            "scale": net.scale,
            "pairs": sides.pairs,
            "user_pairs": sides.user_pairs,
            "user_weight": weight[sides.user],
            "candidate_weight": F.pad(weight[sides.candidate], [0, 0, 0, self.padding]),
            "first_bias": bias,
            "is_binary": torch.zeros(len(net.offset), dtype=torch.bool),
            "cross_down": torch.zeros(0),
            "cross_up": torch.zeros(0),
            "cross_bias": torch.zeros(0),
        }
        buffers["is_binary"][model.binary] = True
        if net.cross is not None:
            self.cross_layers = len(net.cross.V_kernels)
            down, up = (
                torch.stack(list(net.cross.V_kernels)),
                torch.stack(list(net.cross.W_kernels)),
            )
            buffers["cross_down"] = down[:, :, sides.vectors]
            buffers["cross_up"] = up[:, sides.vectors]
            buffers["cross_bias"] = torch.stack(list(net.cross.bias))[:, sides.vectors]
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor.detach().clone())
        self.calibrators = calibrators

    @torch.jit.export
    def encode_user(
        self,
        request_time: Tensor,
        user_categorical: Tensor,
        user_dense: Tensor,
        recent_ids: Tensor,
        recent_action: Tensor,
        recent_time: Tensor,
        recent_dwell: Tensor,
        published: Tensor,
        has_published: bool,
    ) -> dict[str, Tensor]:
        """All that candidates need of a request's user.

        Args:
            request_time: [] int64, ms.
            user_categorical: [F_u] int64.
            user_dense: [D_u] float32.
            recent_ids: [E, 3] int64: item, author and topic of recent events, oldest first; of more
                than T the newest count.
            recent_action: [E] int64: 1 + the position among the log's action names.
            recent_time: [E] int64, ms.
            recent_dwell: [E] float32: log(1 + seconds), 0 where not known.
            published: [N, W] float32, the published user embedding; not looked at without one.
            has_published: whether there is one.
        """
        steps, number = self.max_length, recent_ids.shape[0]
        kept = min(steps, number)
        blank = steps - kept
        ids = F.pad(recent_ids[number - kept :], [0, 0, blank, 0]).contiguous()
        action = F.pad(recent_action[number - kept :], [blank, 0]).unsqueeze(0)
        times = F.pad(recent_time[number - kept :], [blank, 0]).unsqueeze(0)
        dwell = F.pad(recent_dwell[number - kept :], [blank, 0]).unsqueeze(0)
        events = self.tables(ids).sum(dim=1).unsqueeze(0)
        events = events + self.actions(action) + self.dwell(dwell.unsqueeze(2))
        events = events * (action > 0).unsqueeze(2)
        lengths = torch.full([1], kept, dtype=torch.int64)
        user = self._user_vectors(user_categorical, user_dense)
        straight: list[Tensor] = []
        adopted = self.adopted
        if adopted is not None:
            embedding = published.unsqueeze(0)
            there = torch.full([1], has_published, dtype=torch.bool)
            if self.adoption == "unprojected":
                straight.append(adopted.filled(embedding, there).flatten(1))
            elif self.adoption == "prepended":
                vectors = adopted(embedding, there)
                events, lengths, times = prepended(vectors, events, lengths, times)
            else:
                user = torch.cat([user, adopted(embedding, there)], dim=1)
        inputs = [torch.zeros(1, 0)]
        if not self.is_crossed:
            products = torch.bmm(user, user.transpose(1, 2)).flatten(1)
            inputs.append(user.flatten(1))
            inputs.append(products.index_select(1, self.user_pairs))
        inputs.extend(straight)
        keys, values, biases = self.recent.remembered_of_one(
            events, lengths, times, request_time.reshape(1)
        )
        return {
            "user": user[0],
            "first": torch.addmm(self.first_bias, torch.cat(inputs, dim=1), self.user_weight)[0],
            "keys": keys,
            "values": values,
            "biases": biases,
        }

    @torch.jit.export
    def score(
        self,
        state: dict[str, Tensor],
        item_categorical: Tensor,
        item_dense: Tensor,
        counted: Tensor,
    ) -> Tensor:
        """Predictions of candidates, which do not see each other.

        Args:
            state: of ``encode_user``.
            item_categorical: [C, F_i] int64: item features, then context features.
            item_dense: [C, D_i] float32: item features, then context features.
            counted: [C, N] float32, numbers of the candidates.

        Returns:
            [C, K] float64: calibrated probabilities of binary tasks, seconds of regression tasks.
        """
        number, rows = counted.shape[0], self.rows_at_a_time
        found: list[Tensor] = [torch.zeros([0, self.offset.shape[0]], dtype=torch.float64)]
        for first in range(0, number, rows):
            last = min(first + rows, number)
            fill = [0, 0, 0, rows - (last - first)]
            part = self._scored(
                state,
                F.pad(item_categorical[first:last], fill),
                F.pad(item_dense[first:last], fill),
                F.pad(counted[first:last], fill),
            )
            found.append(part[: last - first])
        return torch.cat(found)

    def _user_vectors(self, categorical: Tensor, dense: Tensor) -> Tensor:
        """[1, V, D] of the user's own features."""
        vectors = self.user_tables(categorical.unsqueeze(0))
        network = self.user_numbers
        if network is not None:
            vectors = torch.cat([vectors, network(dense.unsqueeze(0)).unsqueeze(1)], dim=1)
        return vectors

    def _scored(
        self, state: dict[str, Tensor], categorical: Tensor, dense: Tensor, counted: Tensor
    ) -> Tensor:
        """[128, K] of as many candidates."""
        features = self.tables(categorical.index_select(1, self.columns))
        target = features[:, : self.num_entities].sum(dim=1) + self.actions.weight[0]
        attended = self.recent.after_one(state["keys"], state["values"], state["biases"], target)
        counted = (counted - self.counted_mean) * self.counted_scale
        vectors = [features]
        network = self.item_numbers
        if network is not None:
            vectors.append(network(dense).unsqueeze(1))
        vectors.append(attended.unsqueeze(1))
        vectors.append(self.counted(counted).unsqueeze(1))
        met = self._met(torch.cat(vectors, dim=1), state["user"])
        met.append(counted)
        met.append(counted.new_zeros([counted.shape[0], self.padding]))
        first = torch.addmm(state["first"], torch.cat(met, dim=1), self.candidate_weight)
        outputs = self.offset + self.scale * self.towers(self.experts.after_first(first))
        predicted = outputs.double()
        predicted = torch.where(self.is_binary, predicted.sigmoid(), predicted)
        return self.calibrators(predicted)

    def _met(self, own: Tensor, user: Tensor) -> list[Tensor]:
        """The vectors of candidates [128, V - U, D] and of the user [U, D] → what they are
        together, but for what is the user's alone.
        """
        vectors = torch.cat([own, user.unsqueeze(0).expand(own.shape[0], -1, -1)], dim=1)
        if not self.is_crossed:
            products = torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1)
            return [own.flatten(1), products.index_select(1, self.pairs)]
        flat = vectors.flatten(1)
        crossed = flat
        for layer in range(self.cross_layers):
            narrow = F.linear(crossed, self.cross_down[layer])
            crossed = (
                flat * (F.linear(narrow, self.cross_up[layer]) + self.cross_bias[layer]) + crossed
            )
        return [crossed]
