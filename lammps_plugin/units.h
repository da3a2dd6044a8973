// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: what the unit styles of LAMMPS are in angstrom, eV, fs and GPa.

#ifndef PETDOS_UNITS_H
#define PETDOS_UNITS_H

#include <string>

namespace petdos {

struct Units {
  double length_A, energy_eV, time_fs, pressure_GPa;
};

// CODATA 2018. False for lj, which has no energy scale, and for styles that are not known.
inline bool find_units(const std::string &style, Units &units)
{
  constexpr double EV = 1.602176634e-19;              // joule
  constexpr double KCAL_PER_MOL = 4184.0 / 6.02214076e23;
  if (style == "metal")
    units = {1.0, 1.0, 1e3, 1e-4};
  else if (style == "real")
    units = {1.0, KCAL_PER_MOL / EV, 1.0, 101325e-9};
  else if (style == "si")
    units = {1e10, 1.0 / EV, 1e15, 1e-9};
  else if (style == "cgs")
    units = {1e8, 1e-7 / EV, 1e15, 1e-10};
  else if (style == "electron")
    units = {0.529177210903, 27.211386245988, 1.0, 1e-9};
  else if (style == "micro")
    units = {1e4, 1e-15 / EV, 1e9, 1e-6};
  else if (style == "nano")
    units = {10.0, 1e-21 / EV, 1e6, 1e-3};
  else
    return false;
  return true;
}

}    // namespace petdos

#endif
