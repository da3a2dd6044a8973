// SPDX-License-Identifier: GPL-2.0-only

#include "simulation.h"

#include "elements.h"

#include "fix.h"
#include "force.h"
#include "input.h"
#include "modify.h"
#include "pair.h"
#include "update.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <set>

using namespace LAMMPS_NS;

namespace {

using Names = std::set<std::string>;

constexpr double NOT_KNOWN = std::numeric_limits<double>::quiet_NaN();

const Names INTEGRATORS = {"nve",         "nvt",       "npt",           "nph",           "nve/sphere",    "nvt/sphere",
                           "npt/sphere",  "nph/sphere", "nve/asphere",  "nvt/asphere",   "npt/asphere",   "nph/asphere",
                           "nve/body",    "nvt/body",  "npt/body",      "nph/body",      "nve/eff",       "nvt/eff",
                           "npt/eff",     "nph/eff",   "npt/cauchy",    "rigid",         "rigid/nve",     "rigid/nvt",
                           "rigid/npt",   "rigid/nph", "rigid/small",   "rigid/nve/small", "rigid/nvt/small",
                           "rigid/npt/small", "rigid/nph/small"};
const Names BAROSTATS = {"press/berendsen", "press/langevin"};
// With these the number of atoms or their types may change.
const Names EXCHANGES = {"gcmc", "deposit", "pour", "evaporate", "atom/swap", "sgcmc", "charge/regulation", "bond/react"};
const Names DRIVES = {"deform", "deform/pressure", "move"};
const Names CHANGE_BOX_AT_END = {"deform", "deform/pressure", "press/berendsen"};
const Names BIASES = {"colvars", "plumed"};
const Names RERUN_KEYWORDS = {"first", "last", "every", "skip", "start", "stop", "post", "dump"};

// The same style whether it is accelerated or not.
std::string base_style(std::string style)
{
  for (const std::string suffix : {"/kk/host", "/kk/device", "/kk", "/omp", "/opt", "/intel", "/gpu"}) {
    if (style.size() <= suffix.size() || style.compare(style.size() - suffix.size(), suffix.size(), suffix) != 0) continue;
    style.erase(style.size() - suffix.size());
    break;
  }
  return style;
}

bool has_fix(LAMMPS *lmp, const Names &styles)
{
  for (const Fix *fix : lmp->modify->get_fix_list())
    if (styles.count(base_style(fix->style))) return true;
  return false;
}

// ID of a fix of these styles that is defined after another one; empty if there is none.
std::string later_fix(LAMMPS *lmp, const char *fix_id, const Names &styles)
{
  bool later = false;
  for (const Fix *fix : lmp->modify->get_fix_list()) {
    if (later && styles.count(base_style(fix->style))) return fix->id;
    later = later || std::string(fix->id) == fix_id;
  }
  return "";
}

template <typename Number> const Number *extracted(Fix *fix, const char *name, int expected_dim)
{
  int dim = -1;
  auto *found = static_cast<Number *>(fix->extract(name, dim));
  return dim == expected_dim ? found : nullptr;
}

// To 12 digits: the same in all units, and from Python.
double rounded(double value)
{
  char text[32];
  std::snprintf(text, sizeof(text), "%.12g", value);
  return std::strtod(text, nullptr);
}

// "nve", "nvt", "npt" or "nph"; null where the fixes that integrate are others, or something else drives the system.
json ensemble(LAMMPS *lmp)
{
  bool integrates = false, thermostat = false, barostat = false;
  for (Fix *fix : lmp->modify->get_fix_list()) {
    const std::string style = base_style(fix->style);
    if (fix->time_integrate && !INTEGRATORS.count(style)) return nullptr;
    integrates = integrates || fix->time_integrate;
    thermostat = thermostat || extracted<double>(fix, "t_target", 0);
    barostat = barostat || extracted<int>(fix, "p_flag", 1) || BAROSTATS.count(style);
  }
  if (!integrates || has_fix(lmp, EXCHANGES) || has_fix(lmp, DRIVES)) return nullptr;
  if (barostat) return thermostat ? "npt" : "nph";
  return thermostat ? "nvt" : "nve";
}

// The one target pressure in units of LAMMPS, NaN if there is none or more than one.
double pressure(LAMMPS *lmp)
{
  double found = NOT_KNOWN;
  for (Fix *fix : lmp->modify->get_fix_list()) {
    const int *flags = extracted<int>(fix, "p_flag", 1);
    const double *start = extracted<double>(fix, "p_start", 1), *stop = extracted<double>(fix, "p_stop", 1);
    if (!flags || !start || !stop) continue;
    for (int k = 0; k < 3; ++k) {
      if (!flags[k]) continue;
      if (start[k] != stop[k] || (!std::isnan(found) && found != start[k])) return NOT_KNOWN;
      found = start[k];
    }
  }
  return found;
}

// The pair style; of a hybrid one with its sub-styles in the order of the alphabet.
json potential(LAMMPS *lmp)
{
  Force *force = lmp->force;
  if (!force->pair || !force->pair_style) return nullptr;
  std::string name = base_style(force->pair_style);
  if (name.compare(0, 6, "hybrid") != 0) return name;
  std::multiset<std::string> parts;
  for (const auto &known : *force->pair_map) {
    // The one sub-style of a name is found without a number, several of them are counted from 1.
    if (force->pair_match(known.first, 1)) {
      parts.insert(base_style(known.first));
      continue;
    }
    for (int n = 1; force->pair_match(known.first, 1, n); ++n) parts.insert(base_style(known.first));
  }
  for (const std::string &part : parts)
    if (part != name) name += " " + part;
  return name;
}

json bias(LAMMPS *lmp)
{
  std::string names;
  for (const Fix *fix : lmp->modify->get_fix_list()) {
    const std::string style = base_style(fix->style);
    if (BIASES.count(style)) names += (names.empty() ? "" : " ") + style;
  }
  return names.empty() ? json(nullptr) : json(names);
}

// Of hot electrons, if their forces are added; as engines write it in Python.
json electronic_temperature(LAMMPS *lmp)
{
  for (Fix *fix : lmp->modify->get_fix_list()) {
    if (base_style(fix->style) != "petdos/electrons") continue;
    const auto *number = extracted<double>(fix, "electronic_temperature_K", 0);
    return number ? json(*number) : json("variable");
  }
  return nullptr;
}

// Of `rerun FILE ... first N ... dump ...`.
json rerun_source(const Input *input)
{
  std::string names;
  for (int i = 0; i < input->narg && !RERUN_KEYWORDS.count(input->arg[i]); ++i)
    names += (names.empty() ? "" : " ") + std::string(input->arg[i]);
  return names.empty() ? json(nullptr) : json(names);
}

// A list by replica of which one entry is known; null if that is not either.
json entry(int replica, double value)
{
  if (!std::isfinite(value)) return nullptr;
  json list(static_cast<size_t>(replica), nullptr);
  list.push_back(rounded(value));
  return list;
}

}    // namespace

petdos::Description LAMMPS_NS::describe(LAMMPS *lmp, const ComputePetdos &compute, int replica, double temperature_K)
{
  const petdos::Units &units = compute.units();
  const std::string formula = petdos::hill_formula(compute.composition());
  const bool stored = is_rerun(lmp);
  petdos::Description found;
  found.replica = replica;
  found.timestep_fs = has_fix(lmp, {"dt/reset"}) ? NOT_KNOWN : rounded(lmp->update->dt * units.time_fs);
  found.metadata = {
      {"formula", formula.empty() || has_fix(lmp, EXCHANGES) ? json(nullptr) : json(formula)},
      {"ensemble", stored ? json(nullptr) : ensemble(lmp)},
      {"temperatures_K", entry(replica, temperature_K)},
      {"pressures_GPa", stored ? json(nullptr) : entry(replica, pressure(lmp) * units.pressure_GPa)},
      {"potential", potential(lmp)},
      {"bias", bias(lmp)},
      {"electronic_temperature_K", stored ? json(nullptr) : electronic_temperature(lmp)},
      {"source", stored ? rerun_source(lmp->input) : json(nullptr)},
  };
  for (auto item = found.metadata.begin(); item != found.metadata.end();)
    item = item.value().is_null() ? found.metadata.erase(item) : std::next(item);
  found.versions = json::parse(petdos::versions_json());
  return found;
}

double LAMMPS_NS::electronic_temperature_K(LAMMPS *lmp)
{
  for (Fix *fix : lmp->modify->get_fix_list()) {
    if (base_style(fix->style) != "petdos/electrons") continue;
    const auto *number = extracted<double>(fix, "used_electronic_temperature_K", 0);
    return number ? *number : NOT_KNOWN;
  }
  return NOT_KNOWN;
}

std::string LAMMPS_NS::later_electrons(LAMMPS *lmp, const char *fix_id)
{
  return later_fix(lmp, fix_id, {"petdos/electrons"});
}

bool LAMMPS_NS::is_rerun(LAMMPS *lmp)
{
  return lmp->input->command && std::string(lmp->input->command) == "rerun";
}

std::string LAMMPS_NS::later_change_of_box(LAMMPS *lmp, const char *fix_id)
{
  return later_fix(lmp, fix_id, CHANGE_BOX_AT_END);
}
