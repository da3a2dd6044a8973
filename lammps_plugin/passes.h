// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: one evaluation of a part of a structure, which can be differentiated. Of the bridge.

#ifndef PETDOS_PASSES_H
#define PETDOS_PASSES_H

#include "systems.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace petdos {

// Outputs by name; each is a table with one row for the system or for each atom.
using Outputs = torch::Dict<std::string, metatomic_torch::ModelOutput>;
using Tables = std::map<std::string, torch::Tensor>;

struct Derivatives {
  torch::Tensor by_positions, by_strain;    // (n_atoms, 3), (3, 3)
};

// What of a network the passes use.
struct TorchModel {
  metatensor_torch::Module module;
  const SystemMaker *maker;
  bool check_consistency;
};

class Pass {
 public:
  virtual ~Pass() = default;

  std::vector<int> atoms;    // which they are in the whole structure
  Tables tables;             // outputs; detached

  // Of the sum of `energy_weight` times energies and `cotangent` times features; an undefined cotangent is none.
  virtual Derivatives derive(double energy_weight, const torch::Tensor &cotangent, bool again) = 0;
};

// A forward call of a metatomic model; `leaves` as in SystemMaker::make.
Tables forward(TorchModel &model, const Part &part, const Outputs &outputs, Leaves *leaves);

// Automatic differentiation of the whole model: all that it computes stays in memory.
std::unique_ptr<Pass> autograd_pass(TorchModel &model, const Part &part, const Outputs &outputs, const std::string &energy,
                                    const std::vector<std::string> &features);

// petdos_md.models.network, which computes its slices again: the memory is that of the messages. `energy` may be empty.
std::unique_ptr<Pass> sliced_pass(TorchModel &model, const Part &part, const std::string &energy, bool with_features);

// Whether a model is such a network, in units of eV and angstrom.
bool is_sliced(const torch::jit::Module &module);

}    // namespace petdos

#endif
