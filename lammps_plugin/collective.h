// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: errors that all ranks hear of.

#ifndef PETDOS_COLLECTIVE_H
#define PETDOS_COLLECTIVE_H

#include "lammps.h"

#include <string>

namespace LAMMPS_NS {

// Ends with an error of LAMMPS, "STYLE: MESSAGE", on all ranks if one of them has a message: one may fail alone (out of memory, a file
// that only it cannot read).
void fail_if_any(LAMMPS *lmp, const std::string &style, const std::string &message);

// The same where all ranks have the same message.
[[noreturn]] void fail_everywhere(LAMMPS *lmp, const std::string &style, const std::string &message);

}    // namespace LAMMPS_NS

#endif
