"""The layers of PET slice by slice: messages between atoms are the only thing that is kept of all atoms at once.

>>> backbone = Backbone(pet.backend)                                                           # doctest: +SKIP
>>> state = backbone.embed(graph)                                                              # doctest: +SKIP
>>> for k in range(backbone.n_stages):                                                         # doctest: +SKIP
...     state = backbone.layer(k, graph, slices, state, [], features)

A *stage* is a GNN layer; with the feed-forward featurizer, which mixes the two directions of an edge after its last layer, there is one
stage more. What stages hand on is a dictionary: ``messages`` (rows, d), and for the feed-forward featurizer also what entered the layer,
``inputs`` (rows, d), and features of atoms, ``atoms`` (atoms, d_node). A stage reads the messages of other atoms in rows
``graph["reverse"]``: a domain decomposition appends rows that it received from its neighbors and lets ``reverse`` point there.

:meth:`Backbone.pull_back` goes through the stages in reverse order and computes each slice again with gradients, so that the derivative
of any function of the features takes the memory of messages too. Parameters bear metatrain's names.
"""

from __future__ import annotations

from typing import Any

import torch

from .network_graph import SPARE_ROWS
from .network_layers import IMAGES, MessageLayer, in_images, n_atoms, n_rows, sum_over_neighbors
from .pointwise import replace_linear_layers


class Backbone(torch.nn.Module):
    """Embeddings, GNN layers and heads.

    :param stock: metatrain's ``PETBackend``
    :raises ModelError: if its parts are not those of metatrain 2026.4
    """

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.register_buffer("species_to_species_index", stock.species_to_species_index)
        self.gnn_layers: Any = torch.nn.ModuleList([MessageLayer(layer) for layer in stock.gnn_layers])
        self.combination_norms, self.combination_mlps = stock.combination_norms, stock.combination_mlps
        self.node_embedders, self.edge_embedder = stock.node_embedders, stock.edge_embedder
        self.node_heads, self.edge_heads = stock.node_heads, stock.edge_heads
        self.node_last_layers, self.edge_last_layers = stock.node_last_layers, stock.edge_last_layers
        self.feedforward = stock.featurizer_type == "feedforward"
        self.n_layers = len(stock.gnn_layers)
        self.n_stages = self.n_layers + (1 if self.feedforward else 0)
        self.n_readouts, self.d_head = int(stock.num_readout_layers), int(stock.d_head)
        self.n_features = 2 * self.n_readouts * self.d_head
        self.spare_rows, self.images = SPARE_ROWS, IMAGES
        for module in self.modules():
            if isinstance(module, torch.nn.SiLU):
                module.inplace = True
        replace_linear_layers(self)

    def numbers_per_row(self, kept: bool) -> int:
        """Of messages that are in memory at once; if what entered the stages is kept, with the derivatives of two of them."""
        arrays = 2 if self.feedforward else 1
        between = self.n_stages - 1
        return self.edge_embedder.weight.shape[1] * arrays * (between + min(2, between) if kept else min(2, between))

    def embed(self, graph: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What enters the first stage."""
        weights = graph["weights"]
        state = {"messages": torch.zeros((0, 0), dtype=weights.dtype, device=weights.device)}
        if self.feedforward:
            state["inputs"] = state["messages"]
            state["atoms"] = self.node_embedders[0](graph["atom_species"])
        return state

    def no_features(
        self, graph: dict[str, torch.Tensor], n_atoms: int, n_systems: int, heads: list[str], per_atom: list[str]
    ) -> dict[str, torch.Tensor]:
        """Zeros: ``(n_atoms, n_features)`` for heads that are wanted per atom, else ``(n_systems, n_features)`` in float64."""
        weights = graph["weights"]
        features: dict[str, torch.Tensor] = {}
        for name in heads:
            if name in per_atom:
                features[name] = torch.zeros((n_atoms, self.n_features), dtype=weights.dtype, device=weights.device)
            else:
                features[name] = torch.zeros((n_systems, self.n_features), dtype=torch.float64, device=weights.device)
        return features

    def layer(
        self,
        k: int,
        graph: dict[str, torch.Tensor],
        slices: list[list[int]],
        state: dict[str, torch.Tensor],
        per_atom: list[str],
        features: dict[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """Stage k: returns what enters the next one, and adds to the last-layer features of the wanted heads.

        :param per_atom: heads whose features are wanted for every atom
        :param features: of :meth:`no_features`, one entry for each wanted head
        """
        tables = self._tables(k)
        parts: dict[str, list[torch.Tensor]] = {}
        new: dict[str, torch.Tensor] = {}
        for piece in slices:
            if piece[0] > self.n_stages - 1 - k:
                break
            inputs = self._gather(k, graph, state, piece)
            atoms, tokens, sent = self._compute(k, tables, graph, piece, inputs)
            if piece[0] == 0:
                self._add_features(k, graph, piece, per_atom, features, [inputs[1], atoms, tokens])
            for name, value in sent.items():
                if value.requires_grad:
                    if name not in parts:
                        parts[name] = torch.jit.annotate(list[torch.Tensor], [])
                    parts[name].append(value)
                else:
                    self._store(name, value, graph, piece, new)
        for name in parts:
            spare = torch.zeros_like(parts[name][0][:1]).expand(self.spare_rows, -1)
            new[name] = torch.cat(parts[name] + [spare])
        return new

    def predict(
        self, name: str, features: torch.Tensor, n_atoms: torch.Tensor, weight_sums: torch.Tensor
    ) -> list[torch.Tensor]:
        """Last layers of a head: what it predicts, ``(n, width)`` for each of its blocks, in the precision of the features.

        :param features: ``(n, n_features)``, of atoms or summed over atoms
        :param n_atoms: over which they are summed, ``(n, 1)``
        :param weight_sums: sums of the cutoff function over edges, ``(n, 1)``
        """
        values: list[torch.Tensor] = []
        parts = features.split(self.d_head, dim=1)
        for target, layers in self.node_last_layers.items():
            if target == name:
                for i, by_block in enumerate(layers):
                    for layer in by_block.values():
                        values.append(self._linear(parts[2 * i], n_atoms, layer.weight, layer.bias))
        for target, layers in self.edge_last_layers.items():
            if target == name:
                for i, by_block in enumerate(layers):
                    for layer in by_block.values():
                        values.append(self._linear(parts[2 * i + 1], weight_sums, layer.weight, layer.bias))
        n_blocks = len(values) // (2 * self.n_readouts)
        blocks = values[:n_blocks]
        for i in range(n_blocks, len(values)):
            blocks[i % n_blocks] = blocks[i % n_blocks] + values[i]
        return blocks

    def pull_back(
        self,
        graph: dict[str, torch.Tensor],
        slices: list[list[int]],
        states: list[dict[str, torch.Tensor]],
        cotangents: dict[str, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Derivatives of the sum of features times cotangents, with respect to vectors ``(rows, 3)`` and weights ``(rows,)``.

        :param states: what entered each stage
        :param cotangents: for heads, ``(n_systems, n_features)``
        """
        received: dict[str, torch.Tensor] = {}
        d_vectors, d_weights = torch.zeros_like(graph["vectors"]), torch.zeros_like(graph["weights"])
        for back in range(self.n_stages):
            k = self.n_stages - 1 - back
            handed = {"vectors": d_vectors, "weights": d_weights}
            for name, value in states[k].items():
                handed[name] = torch.zeros_like(value)
            tables = self._tables(k)
            for piece in slices:
                if piece[0] > back:
                    break
                self._pull_back_slice(k, tables, graph, piece, states[k], cotangents, received, handed)
            handed.pop("vectors")
            handed.pop("weights")
            received = handed
        return d_vectors, d_weights

    def _linear(self, x: torch.Tensor, factor: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return x @ weight.to(x.dtype).T + factor * bias.to(x.dtype)

    def _tables(self, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        embeddings = self.edge_embedder.weight
        for i, layer in enumerate(self.gnn_layers):
            if i == k:
                if self.feedforward:
                    return layer.tables(embeddings, 1.0 if k == 0 else 0.0, 1.0)
                # Messages are averages of what came from the other atom and what went in before.
                return layer.tables(embeddings, 0.5**k, 0.5)
        return embeddings, embeddings, embeddings

    def _gather(
        self, k: int, graph: dict[str, torch.Tensor], state: dict[str, torch.Tensor], piece: list[int]
    ) -> list[torch.Tensor]:
        """Of a slice: vectors, weights, messages from the other atoms, own messages, inputs and features of atoms."""
        begin, used = piece[2], n_rows(piece)
        spare = (-used) % self.images
        end = begin + used + spare
        none = graph["weights"][:0]
        reverse, own, entered, atoms = none, none, none, none
        if k > 0:
            # What spare rows say does not matter, but they must not look for rows that were not computed.
            index = graph["reverse"][begin : begin + used]
            if spare > 0:
                index = torch.cat([index, index[:1].expand(spare)])
            reverse = state["messages"].index_select(0, index)
            if self.feedforward or k < self.n_stages - 1:
                own = state["messages"][begin:end]
        if self.feedforward:
            if k > 0:
                entered = state["inputs"][begin:end]
            atoms = state["atoms"][piece[1] : piece[1] + n_atoms(piece)]
        return [graph["vectors"][begin:end], graph["weights"][begin:end], reverse, own, entered, atoms]

    def _compute(
        self,
        k: int,
        tables: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        graph: dict[str, torch.Tensor],
        piece: list[int],
        inputs: list[torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Features of atoms ``(n_atoms, d_node)``, those of rows ``(rows, d)``, and what the next stage needs of them."""
        first, last = piece[1], piece[1] + n_atoms(piece)
        used, begin = n_rows(piece), piece[2]
        species = graph["species"][begin : begin + inputs[1].shape[0]]
        rows = [inputs[0], inputs[1], species, graph["atom_rows"][first:last] - begin]
        messages, atoms = inputs[2], inputs[5]
        if self.feedforward and k > 0:
            messages = self._combine(k - 1, inputs)
        tokens = messages
        for i, layer in enumerate(self.gnn_layers):
            if i == k:
                if not self.feedforward:
                    atoms = self._embed_atoms(k, graph["atom_species"][first:last])
                atoms, tokens = layer(tables, piece, rows, atoms, messages)
        sent: dict[str, torch.Tensor] = {}
        if k < self.n_stages - 1:
            sent["messages"] = tokens[:used]
            if self.feedforward:
                sent["inputs"] = messages[:used] if k > 0 else self.edge_embedder(species[:used])
                sent["atoms"] = atoms
            elif k > 0:
                sent["messages"] = tokens[:used] + 0.5 * inputs[3][:used]
        return atoms, tokens, sent

    def _combine(self, k: int, inputs: list[torch.Tensor]) -> torch.Tensor:
        """What enters a layer of the feed-forward featurizer, from what entered and left the one before."""
        both = in_images(torch.cat([inputs[3], inputs[2]], dim=1))
        for i, (norm, mlp) in enumerate(zip(self.combination_norms, self.combination_mlps)):  # noqa: B905 TorchScript
            if i == k:
                both = mlp(norm(both))
        return inputs[4] + inputs[3] + both.view(-1, both.shape[-1])

    def _embed_atoms(self, k: int, species: torch.Tensor) -> torch.Tensor:
        for i, embedder in enumerate(self.node_embedders):
            if i == k:
                return embedder(species)
        raise RuntimeError("no embedding of atoms for this layer")

    def _read(self, k: int, piece: list[int], name: str, values: list[torch.Tensor]) -> list[torch.Tensor]:
        """Last-layer features of atoms and of the edges summed around them, ``(n_atoms, d_head)``; none at most stages of the
        feed-forward featurizer.

        :param values: weights of rows, features of atoms and of rows
        """
        found: list[torch.Tensor] = []
        if self.feedforward and k < self.n_stages - 1:
            return found
        readout = 0 if self.feedforward else k
        for head, layers in self.node_heads.items():
            if head == name:
                for i, layer in enumerate(layers):
                    if i == readout:
                        found.append(layer(values[1]))
        for head, layers in self.edge_heads.items():
            if head == name:
                for i, layer in enumerate(layers):
                    if i == readout:
                        of_rows = layer(in_images(values[2])).view(-1, self.d_head)
                        found.append(sum_over_neighbors(piece, values[0], of_rows))
        return found

    def _add_features(
        self,
        k: int,
        graph: dict[str, torch.Tensor],
        piece: list[int],
        per_atom: list[str],
        features: dict[str, torch.Tensor],
        values: list[torch.Tensor],
    ) -> None:
        first, last = piece[1], piece[1] + n_atoms(piece)
        column = 0 if self.feedforward else 2 * k * self.d_head
        for name, into in features.items():
            for found in self._read(k, piece, name, values):
                columns = into[:, column : column + self.d_head]
                column += self.d_head
                if name in per_atom:
                    columns.index_copy_(0, graph["order"][first:last], found)
                elif into.shape[0] == 1:
                    columns += found.sum(dim=0, dtype=torch.float64)
                else:
                    columns.index_add_(0, graph["systems"][first:last], found.double())
            column = 0 if self.feedforward else 2 * k * self.d_head

    def _store(
        self,
        name: str,
        value: torch.Tensor,
        graph: dict[str, torch.Tensor],
        piece: list[int],
        new: dict[str, torch.Tensor],
    ) -> None:
        if name not in new:
            total = graph["order"].shape[0] if name == "atoms" else graph["weights"].shape[0]
            new[name] = torch.empty((total, value.shape[1]), dtype=value.dtype, device=value.device)
            new[name][-self.spare_rows :] = 0.0
        first = piece[1] if name == "atoms" else piece[2]
        new[name][first : first + value.shape[0]] = value

    def _pull_back_slice(
        self,
        k: int,
        tables: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        graph: dict[str, torch.Tensor],
        piece: list[int],
        state: dict[str, torch.Tensor],
        cotangents: dict[str, torch.Tensor],
        received: dict[str, torch.Tensor],
        handed: dict[str, torch.Tensor],
    ) -> None:
        """Adds the derivatives of a slice with respect to what it read."""
        inputs = [value.detach().requires_grad_(True) for value in self._gather(k, graph, state, piece)]
        atoms, tokens, sent = self._compute(k, tables, graph, piece, inputs)
        begin, end, first, last = piece[2], piece[2] + n_rows(piece), piece[1], piece[1] + n_atoms(piece)
        outputs: list[torch.Tensor] = []
        seeds: list[torch.Tensor | None] = []
        if piece[0] == 0:
            for name, cotangent in cotangents.items():
                of_atoms = cotangent.index_select(0, graph["systems"][first:last])
                column = 0 if self.feedforward else 2 * k * self.d_head
                for values in self._read(k, piece, name, [inputs[1], atoms, tokens]):
                    outputs.append(values)
                    seeds.append(of_atoms[:, column : column + self.d_head].to(values.dtype))
                    column += self.d_head
        for name, gradient in received.items():
            # Embeddings of elements, which the feed-forward featurizer sends on, depend on nothing.
            if sent[name].requires_grad:
                outputs.append(sent[name])
                seeds.append(gradient[first:last] if name == "atoms" else gradient[begin:end])
        found = torch.autograd.grad(outputs, inputs, seeds, allow_unused=True)
        targets = ["vectors", "weights", "reverse", "messages", "inputs", "atoms"]
        for name, gradient in zip(targets, found):  # noqa: B905 TorchScript
            if gradient is not None:
                self._hand_back(name, gradient, graph, piece, handed)

    def _hand_back(
        self,
        name: str,
        gradient: torch.Tensor,
        graph: dict[str, torch.Tensor],
        piece: list[int],
        handed: dict[str, torch.Tensor],
    ) -> None:
        """Adds a gradient of what :meth:`_gather` returned to that of what it read."""
        begin, end = piece[2], piece[2] + n_rows(piece)
        if gradient.numel() == 0:
            return
        if name == "reverse":
            handed["messages"].index_add_(0, graph["reverse"][begin:end], gradient[: end - begin])
        elif name == "atoms":
            handed[name][piece[1] : piece[1] + len(gradient)] += gradient
        else:
            handed[name][begin:end] += gradient[: end - begin]
