"""HSNN by itself, as it is exported: its networks with the tree of the items inside.

Written for TorchScript, with embedding tables as plain weights: who loads it needs torch alone.
Legend: B requests, T recent events, n items, nodes or pairs, S items of the tree, C candidates, F
features, E width of a feature's vector, W width of an item embedding, L levels of nodes, K tasks.
"""

# no `from __future__ import annotations`: TorchScript reads the types of buffers from the class

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.index.hierarchy.scoring import PAIRS_AT_A_TIME, ItemTree
from recsys.systems.hsnn.module import Hsnn
from recsys.systems.ranker.tower import PlainTables, tables_of


class TreeLevel(nn.Module):
    """The nodes of a level, and what says where an item belongs.

    Args:
        codes: [K_l, W] of the level.
        centres: [n_l, W] embeddings of the nodes.
        offsets: [n_l + 1], see ``Tree``.
        nodes: [S] the node of each item.
    """

    codes: Tensor
    centres: Tensor
    offsets: Tensor
    nodes: Tensor

    def __init__(self, codes: Tensor, centres: Tensor, offsets: Tensor, nodes: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes.detach().clone())
        self.register_buffer("centres", centres.clone())
        self.register_buffer("offsets", offsets)
        self.register_buffer("nodes", nodes)

    def nearest(self, residual: Tensor) -> Tensor:
        """[n, W] → [n] int64, as ``nearest_codes`` has it."""
        squared = residual.square().sum(dim=1, keepdim=True) + self.codes.square().sum(dim=1)
        return (squared - 2 * torch.matmul(residual, self.codes.t())).argmin(dim=1)


class HsnnTower(nn.Module):
    """``encode_user`` once per request, ``descend`` for its candidates, ``score`` for these.

    Args:
        model: trained.
        items: in their nodes.
        task: position of the task by which nodes are ranked.
    """

    entity_columns: Tensor
    other_columns: Tensor
    counted_mean: Tensor
    counted_scale: Tensor
    offset: Tensor
    scale: Tensor
    is_binary: Tensor
    embeddings: Tensor
    order: Tensor

    def __init__(self, model: Hsnn, items: ItemTree, task: int) -> None:
        super().__init__()
        net = model.net
        width = net.config.dimension
        self.width = width
        self.task = task
        self.pairs_at_a_time = PAIRS_AT_A_TIME
        self.max_length = net.max_length
        self.num_others = net.num_others
        self.num_item_categorical = net.num_item_categorical
        self.num_context = net.num_columns - net.num_item_categorical
        self.entities = PlainTables(tables_of(net.entities.names, net.entities.tables), width)
        users, others = net.user_features, net.item_features
        self.user_tables = PlainTables(tables_of(users.names, users.tables), width)
        self.other_tables = PlainTables(tables_of(others.names, others.tables), width)
        self.user_numbers = users.dense
        self.item_dense, self.context_dense = net.item_dense, net.context_dense
        self.actions, self.dwell, self.recent = net.actions, net.dwell, net.recent
        self.counted = net.counted
        self.items, self.ensemble = net.items, net.ensemble
        self.levels: Any = net.levels
        tree = items.tree
        self.tree: Any = nn.ModuleList(
            TreeLevel(code, centres, torch.from_numpy(offsets), torch.from_numpy(nodes))
            for code, centres, offsets, nodes in zip(
                net.nodes.codes, items.centres, tree.offsets, tree.nodes, strict=True
            )
        )
        is_binary = torch.zeros(len(net.offset), dtype=torch.bool)
        is_binary[model.binary] = True
        buffers = {
            "entity_columns": net.entity_columns,
            "other_columns": net.other_columns,
            "counted_mean": net.counted_mean,
            "counted_scale": net.counted_scale,
            "offset": net.offset,
            "scale": net.scale,
            "is_binary": is_binary,
            "embeddings": items.embeddings,
            "order": torch.from_numpy(tree.items),
        }
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor.clone())

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
    ) -> list[Tensor]:
        """All that levels need of a request's user: of each, the items' last, [1, n_u, D].

        Args:
            request_time: [] int64, ms.
            user_categorical: [F_u] int64.
            user_dense: [D_u] float32.
            recent_ids: [E, 3] int64: item, author and topic of recent events, oldest first; of more
                than T the newest count.
            recent_action: [E] int64: 1 + the position among the log's action names.
            recent_time: [E] int64, ms.
            recent_dwell: [E] float32: log(1 + seconds), 0 where not known.
        """
        kept = min(self.max_length, recent_ids.shape[0])
        blank, first = self.max_length - kept, recent_ids.shape[0] - kept
        return self.encode_users(
            request_time.reshape(1),
            user_categorical.unsqueeze(0),
            user_dense.unsqueeze(0),
            F.pad(recent_ids[first:], [0, 0, blank, 0]).unsqueeze(0),
            F.pad(recent_action[first:], [blank, 0]).unsqueeze(0),
            F.pad(recent_time[first:], [blank, 0]).unsqueeze(0),
            F.pad(recent_dwell[first:], [blank, 0]).unsqueeze(0),
        )

    @torch.jit.export
    def encode_users(
        self,
        request_time: Tensor,
        user_categorical: Tensor,
        user_dense: Tensor,
        recent_ids: Tensor,
        recent_action: Tensor,
        recent_time: Tensor,
        recent_dwell: Tensor,
    ) -> list[Tensor]:
        """Of every level, the items' last, [B, n_u, D] of some requests: as ``encode_user`` takes
        them, [B, …], with T events of each, zeros in front of fewer.
        """
        requests, steps = recent_time.shape[0], recent_time.shape[1]
        events = self.entities(recent_ids.flatten(0, 1)).sum(dim=1)
        events = events.unflatten(0, [requests, steps])
        events = events + self.actions(recent_action) + self.dwell(recent_dwell.unsqueeze(2))
        hours = (request_time.unsqueeze(1) - recent_time).float() / 3600000
        vectors = self.user_tables(user_categorical)
        numbers = self.user_numbers
        if numbers is not None:
            vectors = torch.cat([vectors, numbers(user_dense).unsqueeze(1)], dim=1)
        recent = self.recent(events, recent_action, hours.clamp(min=0).log1p())
        user = torch.cat([vectors, recent], dim=1)
        found: list[Tensor] = []
        for level in self.levels:
            found.append(level.users(user))
        found.append(self.items.users(user))
        return found

    @torch.jit.export
    def embed(self, categorical: Tensor, dense: Tensor) -> Tensor:
        """[n, W] embeddings of items by their features, [n, F_i] int64 and [n, D_i] float32."""
        of_ids = self.entities(categorical.index_select(1, self.entity_columns))
        others = self._others(F.pad(categorical, [0, self.num_context]))
        vectors = [of_ids, others[:, : self.num_others]]
        numbers = self.item_dense
        if numbers is not None:
            vectors.append(numbers(dense).unsqueeze(1))
        return self.items.embed(torch.cat(vectors, dim=1))

    @torch.jit.export
    def codes(self, embedding: Tensor) -> Tensor:
        """[n, L] int64 the codes of the nodes of items [n, W]: a new item's, too."""
        found: list[Tensor] = []
        residual = embedding
        for level in self.tree:
            nearest = level.nearest(residual)
            found.append(nearest)
            residual = residual - level.codes.index_select(0, nearest)
        if len(found) == 0:
            return torch.zeros([embedding.shape[0], 0], dtype=torch.int64)
        return torch.stack(found, dim=1)

    @torch.jit.export
    def centres(self, codes: Tensor) -> Tensor:
        """[n, l] int64 codes of nodes of a level → their embeddings [n, W]: the codes' sums."""
        found = torch.zeros([0])
        for number, level in enumerate(self.tree):
            if number < codes.shape[1]:
                code = level.codes.index_select(0, codes[:, number])
                found = code if number == 0 else found + code
        return found

    @torch.jit.export
    def of_nodes(self, level: int, user: Tensor, node: Tensor) -> Tensor:
        """[n, K] of a level for users [n, n_u, D] and embeddings [n, W] of nodes."""
        found = torch.zeros([0])
        for number, network in enumerate(self.levels):
            if number == level:
                found = network(user, node)[0]
        return found

    @torch.jit.export
    def of_items(
        self, user: Tensor, item: Tensor, counted: Tensor, categorical: Tensor, dense: Tensor
    ) -> Tensor:
        """[n, K] of the items' network for users [n, n_u, D] and embeddings [n, W] of items, what
        is counted of the pairs [n, N] and their context [n, F_c] and [n, D_c].
        """
        others = self._others(F.pad(categorical, [self.num_item_categorical, 0]))
        standard = (counted - self.counted_mean) * self.counted_scale
        pair = [
            self.counted(standard).unflatten(1, [-1, self.width]),
            others[:, self.num_others :],
        ]
        numbers = self.context_dense
        if numbers is not None:
            pair.append(numbers(dense).unsqueeze(1))
        found: Tensor = self.items(user, item, torch.cat(pair, dim=1))[0]
        return found

    @torch.jit.export
    def descend(
        self, user: list[Tensor], beam: int, k: int, eligible: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The items below a user's best nodes.

        Args:
            user: of ``encode_user``.
            beam: nodes of each level that are kept, and more until they hold ``k`` items.
            k: items that are to be found.
            eligible: [S] bool, which items the user may get.

        Returns:
            [C] positions of items, and [C, L, K] what the levels say of their nodes.
        """
        above = torch.zeros([0, 0, self.offset.shape[0]])
        node = torch.zeros([0], dtype=torch.int64)
        number = 0
        for tree, network in zip(self.tree, self.levels):  # noqa: B905  (not in TorchScript)
            if number == 0:
                node = torch.arange(tree.centres.shape[0])
                above = torch.zeros([tree.centres.shape[0], 0, self.offset.shape[0]])
            counts = torch.zeros([tree.centres.shape[0]], dtype=torch.int64)
            counts = counts.index_add(0, tree.nodes, eligible.long()).index_select(0, node)
            there = torch.nonzero(counts > 0).squeeze(1)
            node, counts = node.index_select(0, there), counts.index_select(0, there)
            parts = [torch.zeros([0, self.offset.shape[0]])]
            for first in range(0, node.shape[0], self.pairs_at_a_time):
                some = tree.centres.index_select(0, node[first : first + self.pairs_at_a_time])
                rows = some.shape[0]
                some = F.pad(some, [0, 0, 0, self.pairs_at_a_time - rows])
                of_user = user[number].expand(self.pairs_at_a_time, -1, -1)
                parts.append(network(of_user, some)[0][:rows])
            above = torch.cat([above.index_select(0, there), torch.cat(parts).unsqueeze(1)], dim=1)
            order = self.combined(above)[:, self.task].argsort(descending=True, stable=True)
            ordered = counts.index_select(0, order)
            before = ordered.cumsum(0) - ordered
            kept = (torch.arange(order.shape[0]) < beam) | (before < k)
            best = order.index_select(0, torch.nonzero(kept).squeeze(1)).sort()[0]
            node, above = node.index_select(0, best), above.index_select(0, best)
            begin = tree.offsets.index_select(0, node)
            lengths = tree.offsets.index_select(0, node + 1) - begin
            owner = torch.repeat_interleave(torch.arange(node.shape[0]), lengths)
            shift = (begin - (lengths.cumsum(0) - lengths)).index_select(0, owner)
            node, above = torch.arange(owner.shape[0]) + shift, above.index_select(0, owner)
            number += 1
        if number == 0:
            node = torch.arange(self.order.shape[0])
            above = torch.zeros([node.shape[0], 0, self.offset.shape[0]])
        item = self.order.index_select(0, node)
        may = torch.nonzero(eligible.index_select(0, item)).squeeze(1)
        return item.index_select(0, may), above.index_select(0, may)

    @torch.jit.export
    def score(
        self,
        user: list[Tensor],
        item: Tensor,
        above: Tensor,
        counted: Tensor,
        context_categorical: Tensor,
        context_dense: Tensor,
    ) -> Tensor:
        """Predictions of candidates, which do not see each other.

        Args:
            user: of ``encode_user``.
            item: [C] of ``descend``.
            above: [C, L, K] of ``descend``.
            counted: [C, N] float32, numbers of the candidates.
            context_categorical: [C, F_c] int64; zeros where nothing is known.
            context_dense: [C, D_c] float32.

        Returns:
            [C, K] float64: probabilities of binary tasks, numbers of regression tasks.
        """
        parts = [torch.zeros([0, self.offset.shape[0]])]
        for first in range(0, item.shape[0], self.pairs_at_a_time):
            last = min(first + self.pairs_at_a_time, item.shape[0])
            fill = [0, 0, 0, self.pairs_at_a_time - (last - first)]
            of_item = F.pad(self.embeddings.index_select(0, item[first:last]), fill)
            scored = self.of_items(
                user[-1].expand(self.pairs_at_a_time, -1, -1),
                of_item,
                F.pad(counted[first:last], fill),
                F.pad(context_categorical[first:last], fill),
                F.pad(context_dense[first:last], fill),
            )
            parts.append(scored[: last - first])
        own = torch.cat(parts).unsqueeze(1)
        predicted = self.combined(torch.cat([above, own], dim=1))
        return torch.where(self.is_binary, predicted.sigmoid(), predicted)

    @torch.jit.export
    def combined(self, scores: Tensor) -> Tensor:
        """[n, l, K] of some levels → [n, K] float64 what the last says with those above it."""
        return (self.offset + self.scale * self.ensemble(scores.unbind(1))).double()

    def _others(self, categorical: Tensor) -> Tensor:
        return self.other_tables(categorical.index_select(1, self.other_columns))
