// SPDX-License-Identifier: GPL-2.0-only

#include "fix_petdos.h"

#include "comm.h"
#include "domain.h"
#include "error.h"
#include "input.h"
#include "modify.h"
#include "universe.h"
#include "update.h"
#include "utils.h"
#include "variable.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>

using namespace LAMMPS_NS;

namespace {

constexpr double NOT_KNOWN = std::numeric_limits<double>::quiet_NaN();

}    // namespace

FixPetdos::FixPetdos(LAMMPS *lmp, int narg, char **arg) : Fix(lmp, narg, arg), every_(0), replica_(universe->iworld)
{
  if (igroup != 0)
    fail(std::string("got group ") + arg[1] + "; the DOS belongs to the whole system, use group all");
  if (narg < 6) fail("expected: fix ID all petdos N COMPUTE FILE [temp T] [append yes]");
  every_ = utils::inumeric(FLERR, arg[3], false, lmp);
  if (every_ < 1) fail(std::string("got N = ") + arg[3] + ", expected to take a sample every N >= 1 steps");
  compute_id_ = std::strncmp(arg[4], "c_", 2) == 0 ? arg[4] + 2 : arg[4];
  file_ = arg[5];
  read_keywords(narg, arg);

  compute_ = dynamic_cast<ComputePetdos *>(modify->get_compute_by_id(compute_id_));
  if (!compute_) fail("got compute " + compute_id_ + ", expected the ID of a compute petdos that is defined before");
  if (!compute_->recorder.empty() && compute_->recorder != id && modify->get_fix_by_id(compute_->recorder))
    fail("compute " + compute_id_ + " is recorded by fix " + compute_->recorder +
         " already; define another compute petdos for another trace");
  compute_->recorder = id;

  nevery = thermostat_.empty() && (temperature_ > 0 || !variable_.empty()) ? every_ : 1;
  global_freq = 1;
  scalar_flag = 1;
  extscalar = 0;
  time_depend = 1;     // reset_timestep would give new frames the numbers of old ones
  restart_global = 1;    // to flush the trace before a restart file is whole
}

FixPetdos::~FixPetdos()
{
  auto *still = dynamic_cast<ComputePetdos *>(modify->get_compute_by_id(compute_id_));
  if (still && still->recorder == id) still->recorder.clear();
}

int FixPetdos::setmask()
{
  return FixConst::END_OF_STEP | FixConst::POST_RUN;
}

void FixPetdos::init()
{
  compute_ = dynamic_cast<ComputePetdos *>(modify->get_compute_by_id(compute_id_));
  if (!compute_) fail("compute " + compute_id_ + " was deleted; define it again");
  if (temperature_ == 0.0 && variable_.empty()) find_thermostat();
  if (!variable_.empty()) {
    const int which = input->variable->find(variable_.c_str());
    if (which < 0 || !input->variable->equalstyle(which))
      fail("got temp v_" + variable_ + ", expected an equal-style variable of that name");
  }
  open_trace();
}

void FixPetdos::setup(int)
{
  changes_ = 0;
  if (target_) last_target_ = *target_;
  if (update->ntimestep % every_ == 0) record();
  expect_energy();
}

void FixPetdos::end_of_step()
{
  if (target_) check_ramp();
  if (update->ntimestep % every_) return;
  record();
  expect_energy();
}

void FixPetdos::post_run()
{
  flush(true);
}

// Samples up to this step are on disk before the restart file is whole, whenever the run is killed: who goes on from the file
// takes later ones only. LAMMPS wants a number of bytes, and the bytes.
void FixPetdos::write_restart(FILE *file)
{
  flush(true);
  if (comm->me != 0) return;
  const int format = 1, size = sizeof(format);
  std::fwrite(&size, sizeof(size), 1, file);
  std::fwrite(&format, sizeof(format), 1, file);
}

// Samples in the trace.
double FixPetdos::compute_scalar()
{
  double size = trace_ ? static_cast<double>(trace_->size()) : 0.0;
  MPI_Bcast(&size, 1, MPI_DOUBLE, 0, world);
  return size;
}

void FixPetdos::read_keywords(int narg, char **arg)
{
  for (int next = 6; next < narg; next += 2) {
    const std::string keyword = arg[next];
    if (next + 1 >= narg || (keyword != "temp" && keyword != "append" && keyword != "replica" && keyword != "ramp"))
      fail("unknown or incomplete keyword " + keyword + ", expected temp, append, replica or ramp");
    const std::string value = arg[next + 1];
    if (keyword == "temp") {
      if (value.compare(0, 2, "v_") == 0) {
        variable_ = value.substr(2);
      } else if (value.compare(0, 2, "f_") == 0) {
        thermostat_ = value.substr(2);
      } else {
        temperature_ = utils::numeric(FLERR, arg[next + 1], false, lmp);
        if (!(temperature_ > 0)) fail("got temp " + value + ", expected the temperature of the ensemble in K, positive");
      }
    } else if (keyword == "replica") {
      replica_ = utils::inumeric(FLERR, arg[next + 1], false, lmp);
      if (replica_ < 0) fail("got replica " + value + ", expected a number >= 0");
    } else {
      const bool yes = utils::logical(FLERR, arg[next + 1], false, lmp) != 0;
      (keyword == "append" ? append_ : ramp_) = yes;
    }
  }
}

// The fix whose target is the temperature of the ensemble.
void FixPetdos::find_thermostat()
{
  target_ = nullptr;
  std::string found;
  int dim = 0;
  for (Fix *fix : modify->get_fix_list()) {
    if (!thermostat_.empty() && thermostat_ != fix->id) continue;
    auto *target = static_cast<double *>(fix->extract("t_target", dim));
    if (!target || dim != 0) continue;
    if (target_) fail("fixes " + found + " and " + fix->id + " both have a target temperature; give temp f_" + found +
                      " or another temp");
    target_ = target;
    found = fix->id;
  }
  if (!target_ && !thermostat_.empty())
    fail("got temp f_" + thermostat_ + ", expected the ID of a fix with a target temperature, such as nvt or langevin");
  if (!target_) fail("the temperature of the ensemble is not known (no thermostat fix); give temp T or temp v_name");
  auto *start = static_cast<double *>(modify->get_fix_by_id(found)->extract("t_start", dim));
  auto *stop = static_cast<double *>(modify->get_fix_by_id(found)->extract("t_stop", dim));
  if (!ramp_ && start && stop && *start != *stop)
    fail("the target temperature of fix " + found +
         " is a ramp, each sample would have a temperature of its own; give ramp yes if that is meant");
}

// Not every thermostat tells that it ramps. The target of temper changes now and then, that of a ramp at every step.
void FixPetdos::check_ramp()
{
  changes_ = *target_ == last_target_ ? 0 : changes_ + 1;
  last_target_ = *target_;
  if (changes_ >= 3 && !ramp_)
    fail("the target temperature changes at every step, each sample would have a temperature of its own; give ramp yes if "
         "that is meant");
}

void FixPetdos::open_trace()
{
  std::string problem;
  if (comm->me == 0 && !trace_) {
    try {
      trace_ = std::make_unique<petdos::TraceWriter>(file_, compute_->model().info(), timestep_fs(), petdos::versions_json(),
                                                     append_);
    } catch (const std::exception &error) {
      problem = error.what();
    }
  }
  problem = shared(problem);
  if (!problem.empty()) fail(problem);
}

// To 12 digits: the same in all units, and from Python.
double FixPetdos::timestep_fs() const
{
  char text[32];
  std::snprintf(text, sizeof(text), "%.12g", update->dt * compute_->units().time_fs);
  return std::strtod(text, nullptr);
}

bool FixPetdos::is_recorded()
{
  int known = trace_ && trace_->has(replica_, update->ntimestep);
  MPI_Bcast(&known, 1, MPI_INT, 0, world);
  return known != 0;
}

void FixPetdos::record()
{
  if (is_recorded()) {
    // The first frame of a run is the last one of the run before; more than that is said.
    if (update->ntimestep != update->firststep && !told_ && comm->me == 0)
      error->warning(FLERR, "fix petdos: " + file_ + " holds step " + std::to_string(update->ntimestep) + " of replica " +
                                std::to_string(replica_) +
                                " and later ones already, they are not sampled again; give another replica or another file if "
                                "this is another simulation");
    told_ = told_ || update->ntimestep != update->firststep;
    return;
  }
  modify->clearstep_compute();
  const bool finite = compute_->evaluate();
  const petdos::Units &units = compute_->units();
  petdos::Row row;
  row.features = compute_->features();
  row.step = update->ntimestep;
  row.replica = replica_;
  row.time_fs = (update->atime + static_cast<double>(update->ntimestep - update->atimestep) * update->dt) * units.time_fs;
  row.temperature_K = temperature();
  row.kinetic_temperature_K = kinetic_temperature();
  row.potential_energy_eV = energy() * units.energy_eV;
  row.volume_A3 = domain->xperiodic && domain->yperiodic && domain->zperiodic
      ? domain->xprd * domain->yprd * domain->zprd * std::pow(units.length_A, 3)
      : NOT_KNOWN;
  row.n_atoms = compute_->n_atoms();
  row.n_electrons = compute_->n_electrons();
  modify->addstep_compute((update->ntimestep / every_ + 1) * every_);
  store(row, finite);
}

// The potential energy is tallied only in steps that somebody asks for it.
void FixPetdos::expect_energy()
{
  if (Compute *pe = modify->get_compute_by_id("thermo_pe")) pe->addstep((update->ntimestep / every_ + 1) * every_);
}

double FixPetdos::temperature()
{
  double value = temperature_;
  if (!variable_.empty())
    value = input->variable->compute_equal(input->variable->find(variable_.c_str()));
  else if (target_)
    value = *target_;
  if (!(value > 0) || !std::isfinite(value))
    fail("the temperature of the ensemble is " + std::to_string(value) + " K, expected a positive one; check temp");
  return value;
}

double FixPetdos::energy()
{
  Compute *pe = modify->get_compute_by_id("thermo_pe");
  if (!pe || update->eflag_global != update->ntimestep) return NOT_KNOWN;
  return pe->compute_scalar();
}

double FixPetdos::kinetic_temperature()
{
  Compute *temperature = modify->get_compute_by_id("thermo_temp");
  return temperature ? temperature->compute_scalar() : NOT_KNOWN;
}

void FixPetdos::store(petdos::Row &row, bool finite)
{
  std::string problem;
  if (trace_) {
    try {
      if (finite)
        trace_->append(std::move(row));
      else
        trace_->skip("prediction is not finite", update->ntimestep, replica_);
    } catch (const std::exception &error) {
      problem = error.what();
    }
  }
  // Rows that could not be written are kept; they must not end the simulation.
  if (!problem.empty()) error->warning(FLERR, std::string("fix petdos: ") + problem);
}

void FixPetdos::flush(bool must)
{
  std::string problem;
  if (trace_) {
    try {
      trace_->flush();
    } catch (const std::exception &error) {
      problem = error.what();
    }
  }
  problem = shared(problem);
  if (must && !problem.empty()) fail(problem);
}

void FixPetdos::fail(const std::string &message)
{
  error->all(FLERR, std::string("fix petdos: ") + message);
}

// What rank 0 has to say, on all ranks.
std::string FixPetdos::shared(const std::string &message)
{
  char text[1024] = {};
  if (comm->me == 0) std::strncpy(text, message.c_str(), sizeof(text) - 1);
  MPI_Bcast(text, sizeof(text), MPI_CHAR, 0, world);
  return text;
}
