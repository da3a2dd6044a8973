// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: a structure in parts with their halos. Of the bridge.

#include "torch_network.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <stdexcept>

namespace petdos {
namespace {

constexpr int DEFAULT_MAX_ATOMS = 16000;    // of models that do not say what memory they take

}    // namespace

// Positions in the precision of the model, so that the neighbor list is that of what the model sees.
Structure TorchNetwork::rounded(const Structure &structure) const
{
  Structure result = structure;
  if (dtype_ == torch::kFloat32)
    for (double &x : result.positions) x = static_cast<float>(x);
  return result;
}

Graphs TorchNetwork::neighbors(const Structure &structure) const
{
  Graphs graphs;
  for (const auto &list : lists_)
    graphs.push_back(shared_neighbors(structure, list->engine_cutoff("angstrom"), list->full_list(), dtype_ == torch::kFloat32));
  return graphs;
}

std::vector<Chunk> TorchNetwork::chunks(const Structure &structure, const Graphs &graphs, const Wanted &wanted) const
{
  const int max_atoms = atoms_that_fit(structure, graphs, wanted);
  std::vector<int> own(wanted.count);
  std::iota(own.begin(), own.end(), wanted.first);
  if (lists_.empty() || (wanted.count == structure.size() && wanted.count <= max_atoms)) return {{own, own}};
  if (capabilities_.hops >= 0) {
    const auto graph = shared_neighbors(structure, capabilities_.cutoff, true, dtype_ == torch::kFloat32);
    return plan_chunks(structure, *graph, own, capabilities_.hops, max_atoms);
  }
  if (structure.size() > max_atoms)
    throw std::runtime_error("the range of the model is infinite: it cannot be evaluated in chunks of " +
                             std::to_string(max_atoms) + " atoms; allow larger chunks");
  std::vector<int> all(structure.size());
  std::iota(all.begin(), all.end(), 0);
  std::rotate(all.begin(), all.begin() + wanted.first, all.begin() + wanted.first + wanted.count);
  return {{own, all}};
}

// How many atoms may be evaluated at once, at the density of this structure, as petdos_md.models.evaluator finds it.
int TorchNetwork::atoms_that_fit(const Structure &structure, const Graphs &graphs, const Wanted &wanted) const
{
  if (wanted.max_atoms > 0) return wanted.max_atoms;
  const auto module = model_.module.attr("module").toModule();
  const auto method = module.find_method("memory_needed");
  if (!method) {
    if (wanted.max_bytes > 0)
      throw std::runtime_error("this model does not say how much memory it takes; export it with `petdos export`, or give chunk in "
                               "place of memory");
    return DEFAULT_MAX_ATOMS;
  }
  const char *free = std::getenv("PETDOS_LAMMPS_FREE_BYTES");
  double allowed = wanted.max_bytes;
  if (allowed <= 0 && device_.is_cpu() && free) allowed = std::strtod(free, nullptr) / sharing_;
  if (allowed <= 0) return DEFAULT_MAX_ATOMS;

  int64_t pairs = 0;
  for (const auto &graph : graphs) pairs += static_cast<int64_t>(graph->center.size());
  const bool derivatives = wanted.forces || wanted.keep;
  const auto bytes = [&](int64_t n_atoms, int64_t n_pairs) {
    return (*method)({n_atoms, n_pairs, derivatives}).toDouble();
  };
  const double needed = bytes(structure.size(), pairs), fixed = bytes(0, 0);
  if (needed <= allowed) return structure.size();
  const double fits = structure.size() * (allowed - fixed) / (needed - fixed);
  if (fits < 1) {
    char text[160];
    std::snprintf(text, sizeof(text), "%d atoms take %.2g GB, %.2g GB are allowed, which do not suffice for one atom; allow more memory",
                  structure.size(), needed / 1e9, allowed / 1e9);
    throw std::runtime_error(text);
  }
  return static_cast<int>(fits);
}

// A part of the structure in the same periodic cell, with the pairs whose two atoms are in it.
Part TorchNetwork::cut(const Structure &structure, const Graphs &graphs, const Chunk &chunk)
{
  if (chunk.own.size() == structure.numbers.size()) return {structure, graphs, chunk.own, static_cast<int>(chunk.own.size()), true};
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
