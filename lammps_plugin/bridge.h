// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: what the plugin asks of the library that holds torch.
//
// LAMMPS exports a BLAS of its own, to which torch would bind. The two are therefore kept apart: the plugin knows no torch, and
// the bridge (bridge.cpp) is opened with RTLD_DEEPBIND and talked to through this interface alone.

#ifndef PETDOS_BRIDGE_H
#define PETDOS_BRIDGE_H

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace petdos {

// Outputs of networks that `petdos export` wrote, as in petdos_md.models.output_names: last-layer features and the sum of the cutoff
// function, and derivatives of the energy.
constexpr const char *FEATURES_OUTPUT = "petdos::features";
constexpr const char *POSITION_GRADIENT = "petdos::energy_position_gradient";
constexpr const char *STRAIN_GRADIENT = "petdos::energy_strain_gradient";

// Lengths in angstrom. Cell vectors along directions that are not periodic are zero.
struct Structure {
  std::vector<double> positions;    // (n, 3)
  std::vector<int> numbers;         // (n), atomic numbers
  double cell[3][3] = {};
  bool periodic[3] = {false, false, false};
  int64_t stamp = 0;                // if not zero: the same for structures with the same positions and cell, and for no others

  int size() const { return static_cast<int>(numbers.size()); }
};

struct Capabilities {
  std::string record;                   // what `petdos export` wrote into the metadata; empty for other models
  std::string name;                     // that its authors gave it
  std::string dtype;                    // float32 or float64
  std::string device;                   // that was chosen
  std::vector<std::string> warnings;    // of metatomic about the file
  bool is_preferred = false;            // whether that is the device of choice
  std::vector<std::string> outputs;     // names
  std::vector<int> numbers;             // atomic numbers that the model knows
  double cutoff = 0.0;                  // of the longest neighbor list
  int hops = 0;                         // neighbors of neighbors that an atom's features depend on, -1 for all atoms
};

// How a model is a potential: names of its outputs, empty for none.
struct Potential {
  std::string energy, uncertainty, force, stress;
  bool has_atoms = false;             // whether there are energies of atoms
  bool check_consistency = false;     // metatomic's own checks

  bool is_conservative() const { return force.empty(); }
  bool operator==(const Potential &other) const
  {
    return energy == other.energy && uncertainty == other.uncertainty && force == other.force && stress == other.stress &&
        check_consistency == other.check_consistency;
  }
};

// Variants of outputs as metatomic has them (`energy/NAME`): "off" for the one without a name, "" for that of the energy.
struct PotentialRequest {
  std::string energy = "off", uncertainty, force, stress;
  bool conservative = true, with_uncertainty = true, check_consistency = false;
};

// What an evaluation is to return, of the atoms first ... first + count - 1 of a structure.
struct Wanted {
  int first = 0, count = 0;
  int max_atoms = 0;                       // that are evaluated at once, halo included; 0 for what fits into the memory
  double max_bytes = 0.0;                  // memory for that; 0 for what is free
  bool features = false;                   // the outputs of set_outputs()
  const Potential *potential = nullptr;    // energies
  bool forces = false;                     // derivatives of these energies
  bool uncertainty = false;                // of these energies
  bool keep = false;                       // derive() follows, in place of `forces`
};

struct Gradient {
  std::vector<double> forces;          // (n, 3) of all atoms of the structure: minus derivatives by positions, 1/angstrom
  std::array<double, 9> virial{};      // minus derivatives by strain
};

// Energies in eV.
struct Results {
  std::vector<double> features;
  std::vector<double> energies;         // (count), or one number for all of these atoms if the model has no energies of atoms
  std::vector<double> uncertainties;    // (count)
  Gradient gradient;
};

// Functions that can fail return an empty string or one line for the user.
class Network {
 public:
  virtual ~Network() = default;

  virtual const Capabilities &capabilities() const = 0;
  virtual void set_threads(int threads) = 0;

  // Features: outputs that are summed over atoms, in this order. Their widths are found by an evaluation.
  virtual std::string set_outputs(const std::vector<std::string> &names, std::vector<int> &widths) = 0;

  // Names of outputs for these variants.
  virtual std::string find_potential(const PotentialRequest &request, Potential &potential) const = 0;

  virtual std::string evaluate(const Structure &structure, const Wanted &wanted, Results &results) = 0;

  // Minus derivatives of `energy_weight` times the energy, if there is one, plus the sum of features times `cotangent`, if that is
  // not empty. Of the last evaluation, which must have been kept; works once or often.
  virtual std::string derive(double energy_weight, const std::vector<double> &cotangent, Gradient &gradient) = 0;

  // Frees what was kept.
  virtual void forget() = 0;
};

struct OpenFailure {
  std::string reason;
  bool is_of_file = true;    // else of the device or of an extension
};

struct OpenOptions {
  std::string device;        // "" is the first that the model prefers and the machine has
  std::string extensions;    // folder of libraries that the model needs, "" for none
  int index = 0;             // of this rank among those of its machine
  int sharing = 1;           // how many these are
  int threads = 1;
};

using OpenNetwork = Network *(*) (const char *path, const OpenOptions &options, OpenFailure &failure);
constexpr const char *OPEN_NETWORK = "petdos_open_network";

}    // namespace petdos

#endif
