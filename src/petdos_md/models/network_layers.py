"""Layers of PET on rows of atoms of various numbers of neighbors: the parameters of metatrain's, no padding.

>>> layer = MessageLayer(pet.backend.gnn_layers[0], first=True)                                # doctest: +SKIP
>>> atoms, tokens = layer(layer.tables(embeddings), piece, rows, atoms, messages)              # doctest: +SKIP

What is computed is PET (Pozdnyakov and Ceriotti, NeurIPS 2023, arXiv 2305.19302, and Bigi et al., arXiv 2602.15758). Rows and slices are
those of :mod:`petdos_md.models.network_graph`. The first layer of what compresses a token is linear in its three parts: that of the
elements is a table, that of the geometry has four columns, and the messages alone are left to be multiplied for each edge.
"""

from __future__ import annotations

from typing import Any

import torch

from ..base.errors import ModelError
from .pointwise import PointwiseLinear

IMAGES = 16
"""Parts into which rows are split, so that oneDNN multiplies them; see :mod:`petdos_md.models.pointwise`."""
MIN_PRODUCTS = 10_000_000
"""As in :mod:`petdos_md.models.pointwise`."""
EPSILON = 1e-15
"""Least weight of a neighbor in attention, as in metatrain: that of rows that belong to no edge."""


def n_rows(piece: list[int]) -> int:
    """Rows of a slice."""
    total = 0
    for i in range(3, len(piece), 2):
        total += piece[i] * piece[i + 1]
    return total


def n_atoms(piece: list[int]) -> int:
    """Atoms of a slice."""
    total = 0
    for i in range(3, len(piece), 2):
        total += piece[i]
    return total


def sum_over_neighbors(piece: list[int], weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Weighted sums of rows, ``(n_atoms, width)``.

    :param weights: ``(rows,)``, zero in rows of atoms
    :param values: ``(rows, width)``
    """
    parts: list[torch.Tensor] = []
    sizes = rectangle_rows(piece, weights.shape[0])
    of_weights, of_values = weights.split_with_sizes(sizes), values.split_with_sizes(sizes)
    for i in range((len(piece) - 3) // 2):
        n, width = piece[2 * i + 3], piece[2 * i + 4]
        part = torch.bmm(of_weights[i].view(n, 1, width), of_values[i].view(n, width, -1))
        parts.append(part.squeeze(1))
    return torch.cat(parts)


def rectangle_rows(piece: list[int], total: int) -> list[int]:
    """Rows of each rectangle of a slice, and spare ones at the end.

    Arrays are split once: the gradient of a part that is cut out by itself is an array of the size of the whole.

    :param total: rows of the slice with spare ones
    """
    sizes: list[int] = []
    for i in range(3, len(piece), 2):
        sizes.append(piece[i] * piece[i + 1])
        total -= sizes[-1]
    sizes.append(total)
    return sizes


class Attention(torch.nn.Module):
    """Attention among the rows of each atom.

    :param stock: metatrain's ``AttentionBlock``
    """

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.input_linear, self.output_linear = stock.input_linear, stock.output_linear
        self.num_heads, self.head_dim = int(stock.num_heads), int(stock.head_dim)
        self.scale = 1.0 / (self.head_dim**0.5 * float(stock.temperature))

    def forward(self, piece: list[int], x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """``(images, rows, d)`` to the same shape.

        :param bias: logarithm of the weights of rows, ``(images * rows,)``
        """
        both = self.input_linear(x).view(-1, 3 * self.num_heads * self.head_dim)
        sizes = rectangle_rows(piece, both.shape[0])
        inputs, biases = both.split_with_sizes(sizes), bias.split_with_sizes(sizes)
        parts: list[torch.Tensor] = []
        for i in range((len(piece) - 3) // 2):
            n, width = piece[2 * i + 3], piece[2 * i + 4]
            y = inputs[i].view(n, width, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
            mask = biases[i].view(n, 1, 1, width).expand(n, 1, width, width)
            z = torch.nn.functional.scaled_dot_product_attention(y[0], y[1], y[2], attn_mask=mask, scale=self.scale)
            parts.append(z.transpose(1, 2).reshape(n * width, -1))
        if sizes[-1] > 0:
            parts.append(torch.zeros((sizes[-1], parts[0].shape[1]), dtype=x.dtype, device=x.device))
        return self.output_linear(torch.cat(parts).view(x.shape))


class FeedForward(torch.nn.Module):
    """Two linear layers with SiLU or a gate between them.

    :param stock: metatrain's ``FeedForward``
    """

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.w_in, self.w_out, self.gated = stock.w_in, stock.w_out, bool(stock.is_swiglu)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., d)`` to the same shape."""
        x = self.w_in(x)
        if self.gated:
            value, gate = x.chunk(2, dim=-1)
            return self.w_out(value * torch.sigmoid(gate))
        return self.w_out(torch.nn.functional.silu(x, inplace=not x.requires_grad))


class TransformerLayer(torch.nn.Module):
    """Attention and a feed-forward network, for rows of atoms and of edges.

    :param stock: metatrain's ``TransformerLayer``
    """

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(stock.attention), FeedForward(stock.mlp)
        self.norm_attention, self.norm_mlp = stock.norm_attention, stock.norm_mlp
        self.expanded, self.post = bool(stock.expanded_node_features), stock.transformer_type == "PostLN"
        self.center_contraction, self.center_expansion = stock.center_contraction, stock.center_expansion
        self.norm_center_features = stock.norm_center_features
        self.center_mlp = FeedForward(stock.center_mlp) if self.expanded else stock.center_mlp

    def forward(
        self, piece: list[int], atom_rows: torch.Tensor, atoms: torch.Tensor, tokens: torch.Tensor, bias: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """New features of atoms ``(n_atoms, d_node)`` and tokens ``(images, rows, d)``; arguments of the same shapes.

        :param atom_rows: rows of the atoms, ``(n_atoms,)``; what tokens say there does not matter
        :param bias: logarithm of the weights of rows, ``(images * rows,)``
        """
        of_atoms = self.center_contraction(atoms)
        flat = tokens.view(-1, tokens.shape[-1])
        if tokens.requires_grad or of_atoms.requires_grad:
            tokens = flat.index_copy(0, atom_rows, of_atoms).view(tokens.shape)
        else:
            flat.index_copy_(0, atom_rows, of_atoms)
        if self.post:
            x = self.attention(piece, tokens, bias)
            tokens = self.norm_attention(x.add_(tokens))
            x = self.mlp(tokens)
            tokens = self.norm_mlp(x.add_(tokens))
            out = tokens.view(-1, tokens.shape[-1]).index_select(0, atom_rows)
        else:
            x = self.attention(piece, self.norm_attention(tokens), bias)
            out = x.view(-1, tokens.shape[-1]).index_select(0, atom_rows)
            tokens = x.add_(tokens)
            x = self.mlp(self.norm_mlp(tokens))
            tokens = x.add_(tokens)
        if self.expanded:
            out = atoms + self.center_expansion(out)
            out = out + self.center_mlp(self.norm_center_features(out))
        return out, tokens


class Transformer(torch.nn.Module):
    """Layers in a row, under the names of metatrain's."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([TransformerLayer(layer) for layer in stock.layers])

    def forward(
        self, piece: list[int], atom_rows: torch.Tensor, atoms: torch.Tensor, tokens: torch.Tensor, bias: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`TransformerLayer.forward`."""
        for layer in self.layers:
            atoms, tokens = layer(piece, atom_rows, atoms, tokens, bias)
        return atoms, tokens


class MessageLayer(torch.nn.Module):
    """One GNN layer: tokens made of geometry, elements and messages, and a transformer.

    :param stock: metatrain's ``CartesianTransformer``
    :raises ModelError: if its parts are not those of metatrain 2026.4
    """

    __constants__ = ("first",)

    def __init__(self, stock: Any) -> None:
        super().__init__()
        if any(
            type(layer) not in (torch.nn.Linear, PointwiseLinear) for layer in (stock.edge_embedder, stock.compress[0])
        ):
            raise ModelError(
                "this checkpoint has adapters in layers other than those of attention; merge them before export"
            )
        self.trans = Transformer(stock.trans)
        self.edge_embedder, self.compress = stock.edge_embedder, stock.compress
        self.neighbor_embedder, self.first = stock.neighbor_embedder, bool(stock.is_first)
        self.epsilon = EPSILON

    def tables(
        self, embeddings: torch.Tensor, share: float, factor: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The first linear layer in parts: ``(n_species, d)`` of elements, ``(4, d)`` of geometry, ``(d, d)`` of messages.

        :param embeddings: of the elements of neighbors, as they are in messages, ``(n_species, d)``
        :param share: of these embeddings in messages
        :param factor: by which messages are multiplied
        """
        weight = self.compress[0].weight
        d = weight.shape[0]
        elements = torch.addmm(self.compress[0].bias, self.edge_embedder.bias.unsqueeze(0), weight[:, :d].T)
        elements = elements + share * (embeddings @ weight[:, -d:].T)
        if not self.first:
            elements = elements + self.neighbor_embedder.weight @ weight[:, d : 2 * d].T
        return elements, (weight[:, :d] @ self.edge_embedder.weight).T.contiguous(), factor * weight[:, -d:]

    def forward(
        self,
        tables: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        piece: list[int],
        rows: list[torch.Tensor],
        atoms: torch.Tensor,
        messages: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """New features of atoms ``(n_atoms, d_node)`` and tokens ``(rows, d)``.

        :param tables: of :meth:`tables`
        :param rows: vectors ``(rows, 3)``, weights ``(rows,)``, species ``(rows,)`` and rows of the atoms ``(n_atoms,)``
        :param atoms: features of atoms, ``(n_atoms, d_node)``
        :param messages: ``(rows, d)``, or nothing if there are none but the embedded elements
        """
        vectors, weights, species, atom_rows = rows[0], rows[1], rows[2], rows[3]
        distances = torch.sqrt((vectors * vectors).sum(dim=1, keepdim=True) + 1e-15)
        geometry = torch.cat([vectors, distances], dim=1)
        x = tables[0].index_select(0, species)
        if messages.numel() > 0:
            x = x.add_(pointwise_linear(in_images(messages), tables[2]).view(x.shape))
        x = in_images(torch.addmm(x, geometry, tables[1]))
        tokens = self.compress[2](torch.nn.functional.silu(x, inplace=not x.requires_grad))
        bias = torch.log(torch.clamp(weights, self.epsilon)).index_fill(0, atom_rows, 0.0)
        atoms, tokens = self.trans(piece, atom_rows, atoms, tokens, bias)
        return atoms, tokens.view(-1, tokens.shape[-1])


def pointwise_linear(
    x: torch.Tensor, weight: torch.Tensor, min_images: int = IMAGES, min_products: int = MIN_PRODUCTS
) -> torch.Tensor:
    """``(images, rows, n_in)`` times ``(n_out, n_in)``, by oneDNN where :mod:`petdos_md.models.pointwise` does so."""
    products = x.numel() * weight.shape[0]
    if x.dtype != torch.float32 or x.device.type != "cpu" or x.shape[0] < min_images or products < min_products:
        return torch.nn.functional.linear(x, weight)
    image = x.unsqueeze(2).permute(0, 3, 1, 2)
    return torch.nn.functional.conv2d(image, weight[:, :, None, None]).permute(0, 2, 3, 1).squeeze(2)


def in_images(rows: torch.Tensor, images: int = IMAGES) -> torch.Tensor:
    """``(rows, d)`` as ``(images, rows / images, d)``."""
    return rows.view(images if rows.shape[0] % images == 0 else 1, -1, rows.shape[1])
