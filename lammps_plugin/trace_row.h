// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: one sample, and the columns of a trace that its numbers go to (docs/trace-format.md).

#ifndef PETDOS_TRACE_ROW_H
#define PETDOS_TRACE_ROW_H

#include <cstdint>
#include <limits>
#include <variant>
#include <vector>

namespace petdos {

struct Row {
  std::vector<double> features;
  int64_t step = 0;
  int32_t replica = 0;
  double time_fs, temperature_K, kinetic_temperature_K, potential_energy_eV, volume_A3;
  int64_t n_atoms = 0;
  double n_electrons, weight = 1.0;
  double electronic_temperature_K = std::numeric_limits<double>::quiet_NaN();
};

struct Column {
  const char *name, *dtype, *units, *description;
  std::variant<int64_t Row::*, int32_t Row::*, double Row::*> value;
};

// In the order in which they are committed: features, whose length is that of the trace, come after them.
constexpr Column COLUMNS[] = {
    {"step", "int64", "", "molecular dynamics step; (replica, step) is unique", &Row::step},
    {"replica", "int32", "", "ensemble slot or simulation that the frame was taken from", &Row::replica},
    {"time_fs", "float64", "fs", "simulated time", &Row::time_fs},
    {"temperature_K", "float64", "K", "temperature of the ensemble", &Row::temperature_K},
    {"kinetic_temperature_K", "float64", "K", "temperature from the velocities", &Row::kinetic_temperature_K},
    {"potential_energy_eV", "float64", "eV", "potential energy of the interatomic potential", &Row::potential_energy_eV},
    {"volume_A3", "float64", "angstrom^3", "cell volume, NaN unless periodic in three directions", &Row::volume_A3},
    {"n_atoms", "int64", "", "number of atoms", &Row::n_atoms},
    {"n_electrons", "float64", "", "number of valence electrons", &Row::n_electrons},
    {"weight", "float64", "", "statistical weight of the frame", &Row::weight},
    {"electronic_temperature_K", "float64", "K", "temperature of hot electrons, NaN for cold ones", &Row::electronic_temperature_K},
};

// The column that a trace has from the first sample on that has a number there; without it, that of the metadata of the same name holds.
constexpr const char *OPTIONAL_COLUMN = "electronic_temperature_K";

}    // namespace petdos

#endif
