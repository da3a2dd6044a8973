// SPDX-License-Identifier: GPL-2.0-only

#include "collective.h"

#include "comm.h"
#include "error.h"

#include <cstring>

using namespace LAMMPS_NS;

void LAMMPS_NS::fail_if_any(LAMMPS *lmp, const std::string &style, const std::string &message)
{
  Comm *comm = lmp->comm;
  int mine = message.empty() ? comm->nprocs : comm->me, who = 0;
  MPI_Allreduce(&mine, &who, 1, MPI_INT, MPI_MIN, lmp->world);
  if (who == comm->nprocs) return;
  char text[1024] = {};
  if (who == comm->me) std::strncpy(text, message.c_str(), sizeof(text) - 1);
  MPI_Bcast(text, sizeof(text), MPI_CHAR, who, lmp->world);
  fail_everywhere(lmp, style, text);
}

void LAMMPS_NS::fail_everywhere(LAMMPS *lmp, const std::string &style, const std::string &message)
{
  lmp->error->all(FLERR, style + ": " + message);
}
