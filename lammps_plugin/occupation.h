// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: the Fermi level of a piecewise linear density of states, by the conventions of
// petdos_md.physics.occupation.

#ifndef PETDOS_OCCUPATION_H
#define PETDOS_OCCUPATION_H

#include <vector>

namespace petdos {

// Energies in eV, dos in states/eV. The Fermi level at zero temperature in eV, the middle of a gap; NaN if the energies cannot
// hold the electrons.
double fermi_level(const std::vector<double> &energies, const std::vector<double> &dos, double n_electrons);

// As the former, but of several levels that hold the electrons the one of largest free energy, as petdos_md.physics.variational has it.
double ground_state_level(const std::vector<double> &energies, const std::vector<double> &dos, double n_electrons);

}    // namespace petdos

#endif
