// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: the place of this process among those of its machine, as the launcher of MPI tells.
//
// Partitions have communicators of their own, in which each has a rank 0: only the launcher knows of all.

#ifndef PETDOS_MACHINE_H
#define PETDOS_MACHINE_H

#include <cstdlib>
#include <initializer_list>

namespace petdos {

// The first of these variables that holds a number, else `otherwise`.
inline int first_number(std::initializer_list<const char *> names, int otherwise)
{
  for (const char *name : names) {
    const char *text = std::getenv(name);
    if (!text || !*text) continue;
    char *end = nullptr;
    const long value = std::strtol(text, &end, 10);
    if (*end == '\0' && value >= 0 && value < 1000000) return static_cast<int>(value);
  }
  return otherwise;
}

// MPICH and Intel MPI, Open MPI, MVAPICH, Slurm.
inline int rank_on_machine(int otherwise)
{
  return first_number({"MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"}, otherwise);
}

inline int ranks_on_machine(int otherwise)
{
  const int found = first_number({"MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE"}, otherwise);
  return found < 1 ? 1 : found;
}

}    // namespace petdos

#endif
