// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: the readout of a model, NAME.readout.safetensors: energies, and the weights of features -> DOS.

#ifndef PETDOS_READOUT_H
#define PETDOS_READOUT_H

#include <cstddef>
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

// Energies in eV, DOS in states/eV per structure, both spins.
class Readout {
 public:
  // Throws std::runtime_error with one line if it is missing or something else.
  explicit Readout(const std::string &path);

  // Density of states of complete features.
  void dos(const std::vector<double> &features, std::vector<double> &out) const;

  // How far complete features are from the training set, as petdos_md.models.rigidity; NaN if the file does not say.
  double extrapolation_grade(const std::vector<double> &features) const;

  // A functional of the DOS as one of the features: kernel (n_channels) to (n_features).
  std::vector<double> project(const std::vector<double> &kernel) const;

  std::string fingerprint, reference;    // of the model; zero of the energies
  double start = 0.0, step = 0.0;
  int n_channels = 0, n_features = 0, n_members = 0;

 private:
  void find_weights(size_t header_size, const std::string &header_text);
  void find_rigidity(size_t header_size, const std::string &header_text);

  std::string path_;
  MappedFile file_;
  const char *weights_ = nullptr;    // (n_channels, n_features)
  bool weights_double_ = false;
  std::vector<double> cholesky_;     // of the covariance of the features of the training set, lower, (n_last_layer_, n_last_layer_)
  size_t n_last_layer_ = 0;
  double reference_ = 0.0;           // variance with the grade one
};

// Beside the model at this path.
std::string readout_path(const std::string &path);

bool is_file(const std::string &path);

}    // namespace petdos

#endif
