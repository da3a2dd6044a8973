// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: what a trace says about the simulation, as far as LAMMPS knows.

#ifndef PETDOS_SIMULATION_H
#define PETDOS_SIMULATION_H

#include "compute_petdos.h"
#include "trace_metadata.h"

namespace LAMMPS_NS {

// What is not known is left out: LAMMPS reveals neither seeds nor whether a fix is a bias. Collective.
petdos::Description describe(LAMMPS *lmp, const ComputePetdos &compute, int replica, double temperature_K);

// Of hot electrons, at the last forces; NaN if there are none.
double electronic_temperature_K(LAMMPS *lmp);

// Whether the present command is `rerun`, which has no dynamics of its own.
bool is_rerun(LAMMPS *lmp);

// ID of a fix petdos/electrons that is defined after the fix of this ID; empty if there is none.
std::string later_electrons(LAMMPS *lmp, const char *fix_id);

// ID of a fix that changes the box at the end of a step after the fix of this ID has been called; empty if there is none.
std::string later_change_of_box(LAMMPS *lmp, const char *fix_id);

}    // namespace LAMMPS_NS

#endif
