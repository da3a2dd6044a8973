// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: a model and its readout, without torch: identity, energies, electrons, features -> DOS.

#ifndef PETDOS_MODEL_H
#define PETDOS_MODEL_H

#include "model_file.h"
#include "readout.h"

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace petdos {

// What must agree for two records to be comparable, as petdos_md.base.sample.ModelInfo.
struct ModelInfo {
  std::string name, fingerprint, kind, path, dtype;
  double start = 0.0, step = 0.0;
  int n_channels = 0, n_features = 0, n_members = 0;
  std::string reference = "raw";
  std::map<std::string, double> electrons;

  std::string to_json() const;
};

// A model that `petdos export` wrote: backbone NAME.pt and readout NAME.readout.safetensors.
class Model {
 public:
  // `name` is a shipped model or a path; `electrons` complete or replace those of the model. Throws std::runtime_error with one line.
  static std::unique_ptr<Model> open(const std::string &name, const OpenOptions &options,
                                     const std::map<std::string, double> &electrons);

  const ModelInfo &info() const { return info_; }
  const std::vector<double> &energies() const { return energies_; }

  const std::shared_ptr<Network> &network() const { return network_; }

  // Of sums of the network's outputs over all atoms: features in the precision of the model, in which they are kept.
  std::vector<double> features(const std::vector<double> &sums, int64_t n_atoms) const;

  // Density of states (states/eV per structure, both spins) of complete features.
  void dos(const std::vector<double> &features, std::vector<double> &out) const { readout_->dos(features, out); }

  double extrapolation_grade(const std::vector<double> &features) const { return readout_->extrapolation_grade(features); }

  // A functional of the DOS as one of the network's sums.
  std::vector<double> project(const std::vector<double> &kernel) const;

 private:
  Model(std::shared_ptr<Network> network, std::unique_ptr<Readout> readout, ModelInfo info);

  std::shared_ptr<Network> network_;
  std::unique_ptr<Readout> readout_;
  ModelInfo info_;
  std::vector<double> energies_;
};

}    // namespace petdos

#endif
