// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: structures as metatomic has them. Of the bridge.

#ifndef PETDOS_SYSTEMS_H
#define PETDOS_SYSTEMS_H

#include "halo.h"

#include <metatensor/torch.hpp>
#include <metatomic/torch.hpp>
#include <torch/script.h>

#include <memory>
#include <vector>

namespace petdos {

using Graphs = std::vector<std::shared_ptr<const NeighborGraph>>;    // one for each list that a model asks for

// A structure, or the part of one that is evaluated at once: first the atoms whose energies or features are wanted.
struct Part {
  Structure structure;
  Graphs graphs;
  std::vector<int> atoms;    // which they are in the whole structure
  int own = 0;               // how many are wanted
  bool is_whole = false;     // whether there are no others in the structure
};

// What a prediction is differentiated by; undefined where nothing is.
struct Leaves {
  torch::Tensor positions, strain;
};

class SystemMaker {
 public:
  SystemMaker(torch::Device device, torch::Dtype dtype, std::vector<metatomic_torch::NeighborListOptions> lists);

  // With `leaves`, positions and cell depend on them, and neighbors on positions and cell.
  metatomic_torch::System make(const Part &part, Leaves *leaves, bool check_consistency) const;

  // Labels of the atoms whose energies or features are wanted, none for all.
  torch::optional<metatensor_torch::Labels> selected(const Part &part) const;

 private:
  metatensor_torch::TensorBlock block(const NeighborGraph *graph) const;

  torch::Device device_;
  torch::Dtype dtype_;
  std::vector<metatomic_torch::NeighborListOptions> lists_;
  metatensor_torch::Labels components_, properties_;
};

}    // namespace petdos

#endif
