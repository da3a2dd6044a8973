// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: a metatomic model as bridge.h has it: parts, sums over them, derivatives. Of the bridge.

#ifndef PETDOS_TORCH_NETWORK_H
#define PETDOS_TORCH_NETWORK_H

#include "bridge.h"
#include "passes.h"

#include <memory>

namespace petdos {

class TorchNetwork : public Network {
 public:
  // Throws std::exception; NotHere for a device or an extension that is missing.
  TorchNetwork(const std::string &path, const OpenOptions &options);

  const Capabilities &capabilities() const override { return capabilities_; }
  void set_threads(int threads) override { threads_ = threads; }
  std::string set_outputs(const std::vector<std::string> &names, std::vector<int> &widths) override;
  std::string find_potential(const PotentialRequest &request, Potential &potential) const override;
  std::string evaluate(const Structure &structure, const Wanted &wanted, Results &results) override;
  std::string derive(double energy_weight, const std::vector<double> &cotangent, Gradient &gradient) override;
  void forget() override { kept_.clear(); }

 private:
  Capabilities capabilities_;    // before the model, whose loading may add warnings

  void read_capabilities();
  void choose_device(const std::string &wanted, int index, const std::vector<std::string> &supported);
  std::string output_of(const std::string &base, const std::string &variant) const;

  Structure rounded(const Structure &structure) const;
  Graphs neighbors(const Structure &structure) const;
  std::vector<Chunk> chunks(const Structure &structure, const Graphs &graphs, const Wanted &wanted) const;
  int atoms_that_fit(const Structure &structure, const Graphs &graphs, const Wanted &wanted) const;
  static Part cut(const Structure &structure, const Graphs &graphs, const Chunk &chunk);

  Outputs outputs(const Wanted &wanted, bool with_gradients) const;
  void evaluate_part(const Part &part, const Wanted &wanted, Results &results);
  std::unique_ptr<Pass> differentiable(const Part &part, const Wanted &wanted);
  void collect(const Part &part, const Tables &tables, const Wanted &wanted, Results &results) const;
  void collect_forces(const Part &part, const Tables &tables, const Potential &potential, Results &results) const;

  TorchModel model_;
  torch::Device device_ = torch::kCPU;
  torch::Dtype dtype_ = torch::kFloat32;
  int threads_, sharing_;
  bool is_sliced_ = false;
  metatomic_torch::ModelCapabilities known_;
  std::vector<metatomic_torch::NeighborListOptions> lists_;
  std::unique_ptr<SystemMaker> maker_;
  std::vector<std::string> names_;    // of outputs that are features
  std::vector<int> widths_;
  std::vector<std::unique_ptr<Pass>> kept_;
  int kept_atoms_ = 0;                // of the whole structure
};

}    // namespace petdos

#endif
