// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: what a trace says about its simulation, and whether two descriptions are of the same one.

#ifndef PETDOS_TRACE_METADATA_H
#define PETDOS_TRACE_METADATA_H

#include "model.h"

#include "json.h"

#include <string>

namespace petdos {

// Values that are not known are null or absent.
struct Description {
  int replica = 0;                    // that is described
  double timestep_fs = 0.0;           // NaN if it changes during the run
  LAMMPS_NS::json metadata;           // "formula", "ensemble", ... as in docs/trace-format.md
  LAMMPS_NS::json versions;           // of packages
};

// All attributes of a trace that is made now.
LAMMPS_NS::json new_attributes(const ModelInfo &model, const Description &description);

// Throw std::runtime_error with one line if the attributes of the trace at `path` are of another format, model or simulation.
void check_format(const std::string &path, const LAMMPS_NS::json &attributes);
void check_model(const std::string &path, const LAMMPS_NS::json &attributes, const ModelInfo &model);
// Of a trace that holds samples: whether electrons are hot, or cold, in both.
void check_electrons(const std::string &path, const LAMMPS_NS::json &attributes, const Description &description);
void check_simulation(const std::string &path, const LAMMPS_NS::json &attributes, const Description &description);

// Adds what was not known. A temperature that has changed since is a schedule: null. `is_new`: the replica has no samples yet.
void complete(LAMMPS_NS::json &attributes, const Description &description, bool is_new);

}    // namespace petdos

#endif
