// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: free energy of hot electrons of a piecewise linear density of states, by the formulas of
// petdos_md.physics.hot_electrons.

#ifndef PETDOS_HOT_ELECTRONS_H
#define PETDOS_HOT_ELECTRONS_H

#include <vector>

namespace petdos {

constexpr double BOLTZMANN_EV = 8.617333262145e-5;    // eV/K, CODATA 2018
constexpr double SMEARING_EV = 0.3;                   // of the targets of the densities of states

// Relative to the ground state, at a constant number of electrons; eV, K.
struct HotElectrons {
  double free_energy = 0.0, thermal_energy = 0.0, entropy = 0.0, chemical_potential = 0.0, heat_capacity = 0.0;
  std::vector<double> kernel;    // response of the free energy to the density of states
  double smearing_share = 0.0;   // what the smearing adds to the free energy, where kT is below it
};

// `smearing_eV`: width of a Gaussian in the DOS to undo, 0 for none. Throws std::runtime_error with one line if the states end too low for
// this temperature, with the highest that they allow, or if kT is below the smearing.
HotElectrons hot_electrons(const std::vector<double> &energies, const std::vector<double> &dos, double n_electrons,
                           double temperature_K, double smearing_eV);

}    // namespace petdos

#endif
