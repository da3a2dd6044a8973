// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: what the plugin asks of the library that holds torch.
//
// LAMMPS exports a BLAS of its own, to which torch would bind. The two are therefore kept apart: the plugin knows no torch, and
// the bridge (bridge.cpp) is opened with RTLD_DEEPBIND and talked to through this interface alone.

#ifndef PETDOS_BRIDGE_H
#define PETDOS_BRIDGE_H

#include <string>
#include <vector>

namespace petdos {

// Lengths in angstrom. Cell vectors along directions that are not periodic are zero.
struct Structure {
  std::vector<double> positions;    // (n, 3)
  std::vector<int> numbers;         // (n), atomic numbers
  double cell[3][3] = {};
  bool periodic[3] = {false, false, false};

  int size() const { return static_cast<int>(numbers.size()); }
};

struct Capabilities {
  std::string record;                   // what `petdos export` wrote into the metadata; empty for other models
  std::string dtype;                    // float32 or float64
  std::string device;                   // that was chosen
  std::vector<std::string> outputs;     // names
  std::vector<int> numbers;             // atomic numbers that the model knows
  double cutoff = 0.0;                  // of the longest neighbor list
  int hops = 0;                         // neighbors of neighbors that an atom's features depend on
};

// Functions that can fail return an empty string or one line for the user.
class Network {
 public:
  virtual ~Network() = default;

  virtual const Capabilities &capabilities() const = 0;

  // Widths of the outputs that are summed: their concatenation is what evaluate() returns.
  virtual std::string set_outputs(const std::vector<std::string> &names, std::vector<int> &widths) = 0;

  // Sum of the outputs over the atoms first ... first + count - 1, evaluated in chunks of at most max_atoms atoms with halo.
  virtual std::string evaluate(const Structure &structure, int first, int count, int max_atoms, std::vector<double> &sum) = 0;
};

struct OpenFailure {
  std::string reason;
  bool is_of_file = true;    // else of the device
};

// Device "" is the first that the model prefers and the machine has; `index` tells ranks on one machine apart.
using OpenNetwork = Network *(*) (const char *path, const char *device, int index, int threads, OpenFailure &failure);
constexpr const char *OPEN_NETWORK = "petdos_open_network";

}    // namespace petdos

#endif
