// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: which atoms must be evaluated together so that the features of some of them are exact.

#ifndef PETDOS_HALO_H
#define PETDOS_HALO_H

#include "bridge.h"

#include <array>
#include <cstdint>
#include <memory>

namespace petdos {

// Pairs i -> j with the periodic shift of j, sorted by i; `first[i]` is where those of i begin.
struct NeighborGraph {
  std::vector<int32_t> center, neighbor;
  std::vector<std::array<int32_t, 3>> shift;
  std::vector<std::array<double, 3>> vector;
  std::vector<size_t> first;
};

// All pairs of the structure within the cutoff; throws std::runtime_error.
NeighborGraph find_neighbors(const Structure &structure, double cutoff, bool full);

// The same. Models that are evaluated for a structure with one stamp share what can be shared: a list of a longer cutoff holds the pairs
// of a shorter one. `in_single`: whether positions are rounded to single precision.
std::shared_ptr<const NeighborGraph> shared_neighbors(const Structure &structure, double cutoff, bool full, bool in_single);

struct Chunk {
  std::vector<int> own;     // atoms whose features are wanted
  std::vector<int> atoms;   // those, followed by their halo
};

// Splits `own` in halves along its longest extension until each part with its halo has at most max_atoms atoms; throws
// std::runtime_error if one atom with its halo has more.
std::vector<Chunk> plan_chunks(const Structure &structure, const NeighborGraph &graph, std::vector<int> own, int hops,
                               int max_atoms);

}    // namespace petdos

#endif
