// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: a model file and its readout, without torch: identity, energies, electrons, features -> DOS.

#ifndef PETDOS_MODEL_H
#define PETDOS_MODEL_H

#include "bridge.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace petdos {

// A file that is mapped into memory; throws std::runtime_error.
class MappedFile {
 public:
  explicit MappedFile(const std::string &path);
  ~MappedFile();
  MappedFile(const MappedFile &) = delete;
  MappedFile &operator=(const MappedFile &) = delete;

  const char *data() const { return data_; }
  size_t size() const { return size_; }

 private:
  char *data_ = nullptr;
  size_t size_ = 0;
};

// What must agree for two records to be comparable, as petdos_md.base.sample.ModelInfo.
struct ModelInfo {
  std::string name, fingerprint, kind, path, dtype;
  double start = 0.0, step = 0.0;
  int n_channels = 0, n_features = 0, n_members = 0;
  std::string reference = "raw";
  std::map<std::string, double> electrons;

  std::string to_json() const;
};

// A model that `petdos export` wrote: backbone NAME.pt and readout NAME.readout.safetensors. Everything that fails throws
// std::runtime_error with one line for the user.
class Model {
 public:
  // `name` is a shipped model or a path; `electrons` is "Al=3,Mg=2" or empty.
  Model(const std::string &name, const std::string &device, int index, int threads, const std::string &electrons);

  const ModelInfo &info() const { return info_; }
  const std::vector<double> &energies() const { return energies_; }
  const Capabilities &capabilities() const { return network_->capabilities(); }

  bool knows(int number) const;
  std::string symbols() const;    // of the elements that it knows

  // The part of features that the atoms first ... first + count - 1 contribute; their sum over ranks is for finish_features().
  std::string partial_features(const Structure &structure, int first, int count, int max_atoms, std::vector<double> &features,
                          Work &work);
  // features in the precision of the model, in which it is kept.
  void finish_features(std::vector<double> &features) const;

  // Density of states (states/eV per structure, both spins) of a complete features.
  void dos(const std::vector<double> &features, std::vector<double> &out) const;

 private:
  void read_readout(const std::string &path);

  ModelInfo info_;
  std::unique_ptr<Network> network_;
  std::unique_ptr<MappedFile> readout_;
  const char *weights_ = nullptr;    // (n_channels, n_features)
  bool weights_double_ = false;
  std::vector<double> energies_;
};

// Atomic number of a chemical symbol, 0 if there is none; and back.
int atomic_number(const std::string &symbol);
const char *chemical_symbol(int number);

// Opens a network through the bridge library beside this one, if it was built for what is installed; throws std::runtime_error.
std::unique_ptr<Network> open_network(const std::string &path, const std::string &device, int index, int threads);
// The folder of the shipped models, and versions of packages as JSON; throws std::runtime_error.
std::string models_folder();
std::string versions_json();

}    // namespace petdos

#endif
