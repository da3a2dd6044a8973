// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: a structure in parts with their halos. Of the bridge.

#include "torch_network.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

namespace petdos {

// Positions in the precision of the model, so that the neighbor list is that of what the model sees.
Structure TorchNetwork::rounded(const Structure &structure) const
{
  Structure result = structure;
  if (dtype_ == torch::kFloat32)
    for (double &x : result.positions) x = static_cast<float>(x);
  return result;
}

std::vector<Part> TorchNetwork::parts(const Structure &structure, const Wanted &wanted) const
{
  const bool in_single = dtype_ == torch::kFloat32;
  Graphs graphs;
  for (const auto &list : lists_)
    graphs.push_back(shared_neighbors(structure, list->engine_cutoff("angstrom"), list->full_list(), in_single));

  std::vector<Chunk> chunks;
  std::vector<int> own(wanted.count);
  std::iota(own.begin(), own.end(), wanted.first);
  if (wanted.count == structure.size() && wanted.count <= wanted.max_atoms) {
    Part whole{structure, graphs, own, wanted.count, true};
    return {whole};
  }
  if (capabilities_.hops < 0) {
    if (structure.size() > wanted.max_atoms)
      throw std::runtime_error("the range of the model is infinite: it cannot be evaluated in chunks of " +
                               std::to_string(wanted.max_atoms) + " atoms; allow larger chunks");
    std::vector<int> all(structure.size());
    std::iota(all.begin(), all.end(), 0);
    std::rotate(all.begin(), all.begin() + wanted.first, all.begin() + wanted.first + wanted.count);
    chunks.push_back({own, all});
  } else if (lists_.empty()) {
    chunks.push_back({own, own});
  } else {
    const auto graph = shared_neighbors(structure, capabilities_.cutoff, true, in_single);
    chunks = plan_chunks(structure, *graph, own, capabilities_.hops, wanted.max_atoms);
  }
  std::vector<Part> parts;
  for (const Chunk &chunk : chunks) parts.push_back(cut(structure, graphs, chunk));
  return parts;
}

// A part of the structure in the same periodic cell, with the pairs whose two atoms are in it.
Part TorchNetwork::cut(const Structure &structure, const Graphs &graphs, const Chunk &chunk)
{
  Part part;
  part.atoms = chunk.atoms;
  part.own = static_cast<int>(chunk.own.size());
  std::copy(&structure.cell[0][0], &structure.cell[0][0] + 9, &part.structure.cell[0][0]);
  std::copy(structure.periodic, structure.periodic + 3, part.structure.periodic);
  std::vector<int32_t> place(structure.size(), -1);
  for (int i : chunk.atoms) {
    place[i] = part.structure.size();
    part.structure.numbers.push_back(structure.numbers[i]);
    part.structure.positions.insert(part.structure.positions.end(), &structure.positions[3 * i],
                                    &structure.positions[3 * i] + 3);
  }
  for (const auto &graph : graphs) {
    auto inside = std::make_shared<NeighborGraph>();
    for (int i : chunk.atoms) {
      for (size_t p = graph->first[i]; p < graph->first[i + 1]; ++p) {
        if (place[graph->neighbor[p]] < 0) continue;
        inside->center.push_back(place[i]);
        inside->neighbor.push_back(place[graph->neighbor[p]]);
        inside->shift.push_back(graph->shift[p]);
        inside->vector.push_back(graph->vector[p]);
      }
    }
    part.graphs.push_back(inside);
  }
  return part;
}

}    // namespace petdos
