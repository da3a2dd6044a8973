// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: a model and its readout, without torch: identity, energies, electrons, features -> DOS.

#ifndef PETDOS_MODEL_H
#define PETDOS_MODEL_H

#include "bridge.h"
#include "readout.h"

#include <map>
#include <memory>
#include <stdexcept>
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

// Where a model is evaluated.
struct Placement {
  std::string device;    // "" for the first that the model prefers and the machine has
  int index = 0;         // tells ranks on one machine apart
  int threads = 1;
};

// A model that `petdos export` wrote: backbone NAME.pt and readout NAME.readout.safetensors.
class Model {
 public:
  // `name` is a shipped model or a path; `electrons` complete or replace those of the model. Throws std::runtime_error with one line.
  static std::unique_ptr<Model> open(const std::string &name, const Placement &placement,
                                     const std::map<std::string, double> &electrons);

  const ModelInfo &info() const { return info_; }
  const std::vector<double> &energies() const { return energies_; }

  bool knows(int number) const;
  std::string symbols() const;    // of the elements that it knows

  // The part of features that the atoms first ... first + count - 1 contribute; their sum over ranks is for finish_features().
  // Returns an empty string or one line for the user.
  std::string partial_features(const Structure &structure, int first, int count, int max_atoms, std::vector<double> &features);
  // Rounds features to the precision of the model, in which they are kept.
  void finish_features(std::vector<double> &features) const;

  // Density of states (states/eV per structure, both spins) of complete features.
  void dos(const std::vector<double> &features, std::vector<double> &out) const { readout_->dos(features, out); }

 private:
  Model(std::unique_ptr<Network> network, std::unique_ptr<Readout> readout, ModelInfo info);

  std::unique_ptr<Network> network_;
  std::unique_ptr<Readout> readout_;
  ModelInfo info_;
  std::vector<double> energies_;
};

// The file is no metatomic model; every other failure is of the plugin or the device.
class NoModel : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Opens a network through the bridge library beside this one, if it was built for what is installed; throws std::runtime_error.
std::unique_ptr<Network> open_network(const std::string &path, const Placement &placement);
// The folder of the shipped models, and versions of packages as JSON; throws std::runtime_error.
std::string models_folder();
std::string versions_json();

}    // namespace petdos

#endif
