// SPDX-License-Identifier: GPL-2.0-only

#include "fix_petdos.h"

#include "files.h"
#include "simulation.h"

#include "comm.h"
#include "domain.h"
#include "error.h"
#include "modify.h"
#include "universe.h"
#include "update.h"
#include "utils.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <stdexcept>

using namespace LAMMPS_NS;

namespace {

constexpr double NOT_KNOWN = std::numeric_limits<double>::quiet_NaN();
constexpr int RESTART_FORMAT = 2;
constexpr int RUN = 1;                 // of Update::whichflag, 2 being a minimization
constexpr double FAR_OUTSIDE = 2.0;    // as in petdos_md.models.rigidity

}    // namespace

FixPetdos::FixPetdos(LAMMPS *lmp, int narg, char **arg)
    : Fix(lmp, narg, arg), every_(0), replica_(universe->iworld), temperature_(lmp), defined_step_(update->ntimestep)
{
  if (igroup != 0)
    fail(std::string("got group ") + arg[1] + "; the DOS belongs to the whole system, use group all");
  if (narg < 6) fail("expected: fix ID all petdos N COMPUTE FILE [temp T] [append yes]");
  every_ = utils::inumeric(FLERR, arg[3], false, lmp);
  if (every_ < 1) fail(std::string("got N = ") + arg[3] + ", expected to take a sample every N >= 1 steps");
  compute_id_ = std::strncmp(arg[4], "c_", 2) == 0 ? arg[4] + 2 : arg[4];
  everywhere([&] { file_ = petdos::absolute_path(arg[5]); });
  read_keywords(narg, arg);

  compute_ = dynamic_cast<ComputePetdos *>(modify->get_compute_by_id(compute_id_));
  if (!compute_) fail("got compute " + compute_id_ + ", expected the ID of a compute petdos that is defined before");
  if (!compute_->recorder.empty() && compute_->recorder != id && modify->get_fix_by_id(compute_->recorder))
    fail("compute " + compute_id_ + " is recorded by fix " + compute_->recorder +
         " already; define another compute petdos for another trace");
  compute_->recorder = id;

  defined_time_fs_ = lammps_time_fs();
  nevery = temperature_.is_number() ? every_ : 1;    // else each step is looked at for a ramp
  global_freq = 1;
  scalar_flag = 1;
  extscalar = 0;
  time_depend = 1;       // reset_timestep would give new frames the numbers of old ones
  restart_global = 1;    // to flush the trace before a restart file is whole, and for the time
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
  everywhere([&] { temperature_.init(); });
  const std::string electrons = later_electrons(lmp, id);
  if (!electrons.empty())
    fail("fix " + electrons + " (petdos/electrons) is defined after fix " + id +
         ", whose first sample would have the energy without it; define it before");
  warn_of_box();
}

// Only here all that may fail before the first step has not failed, and atoms, box and step are those of the first frame.
void FixPetdos::setup(int)
{
  everywhere([&] { temperature_.begin_run(); });
  if (!is_open_)
    open_trace();
  else if (!is_rerun(lmp))    // which sets up every frame as a run of its own
    describe_run();
  if (update->ntimestep % every_ == 0) record();
  expect_sample();
}

void FixPetdos::end_of_step()
{
  everywhere([&] { temperature_.check_ramp(); });
  if (update->ntimestep % every_) return;
  record();
  expect_sample();
}

void FixPetdos::post_run()
{
  flush();
  if (trace_ && update->whichflag == RUN) sum_up();
}

// Samples up to this step are on disk before the restart file is whole, whenever the run is killed: who goes on from the file
// drops no more than is taken again. LAMMPS wants a number of bytes, and the bytes.
void FixPetdos::write_restart(FILE *file)
{
  flush();
  if (comm->me != 0) return;
  const double time = time_fs();
  const int size = sizeof(RESTART_FORMAT) + sizeof(time);
  std::fwrite(&size, sizeof(size), 1, file);
  std::fwrite(&RESTART_FORMAT, sizeof(RESTART_FORMAT), 1, file);
  std::fwrite(&time, sizeof(time), 1, file);
}

void FixPetdos::restart(char *buffer)
{
  int format;
  std::memcpy(&format, buffer, sizeof(format));
  if (format == RESTART_FORMAT) std::memcpy(&defined_time_fs_, buffer + sizeof(format), sizeof(defined_time_fs_));
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
      everywhere([&] { temperature_.read(value); });
    } else if (keyword == "replica") {
      replica_ = utils::inumeric(FLERR, arg[next + 1], false, lmp);
      if (replica_ < 0) fail("got replica " + value + ", expected a number >= 0");
    } else {
      const bool yes = utils::logical(FLERR, arg[next + 1], false, lmp) != 0;
      if (keyword == "append") append_ = yes;
      if (keyword == "ramp" && yes) temperature_.accept_ramps();
    }
  }
}

void FixPetdos::warn_of_box()
{
  const std::string other = later_change_of_box(lmp, id);
  if (other.empty() || warned_of_box_) return;
  warned_of_box_ = true;
  if (comm->me == 0)
    error->warning(FLERR, "fix petdos: fix " + other + " changes the box after a sample is taken, which has the box and the positions "
                          "of before, unlike a dump of that step; define fix " + id + " after fix " + other + " to have those of after");
}

petdos::Description FixPetdos::description()
{
  double temperature = NOT_KNOWN;
  everywhere([&] { temperature = temperature_.known_K(); });
  return describe(lmp, *compute_, replica_, temperature);
}

void FixPetdos::open_trace()
{
  const petdos::Description found = description();
  on_first_rank([&] {
    trace_ = std::make_unique<petdos::TraceWriter>(file_, compute_->model().info(), found, append_);
    if (!trace_->warning().empty()) error->warning(FLERR, "fix petdos: " + trace_->warning());
  });
  is_open_ = true;
  // A stored trajectory goes on from nowhere: what is there stays, and is not taken twice.
  if (!is_rerun(lmp)) go_on();
}

// The simulation must be the one of the trace in every run.
void FixPetdos::describe_run()
{
  const petdos::Description found = description();
  on_first_rank([&] { trace_->describe(found); });
}

// Samples after the present step are of a run that was killed or given up; the time is that of the last one before.
void FixPetdos::go_on()
{
  on_first_rank([&] {
    const int64_t last = trace_->last_step(replica_);
    if (update->ntimestep == 0 && last > 0)
      petdos::fail(file_ + ": holds samples of replica " + std::to_string(replica_) + " up to step " + std::to_string(last) +
                   ", but the simulation starts at step 0; go on from a restart file, or write to another path");
    const size_t dropped = trace_->drop_after(replica_, update->ntimestep);
    if (dropped > 0)
      utils::logmesg(lmp,
                     "fix petdos: {}: the simulation goes on from step {}; {} samples of replica {} after it are dropped, to be taken "
                     "again\n",
                     file_, update->ntimestep, dropped, replica_);
    double time = update->ntimestep == defined_step_ ? defined_time_fs_ : lammps_time_fs();
    int64_t step = 0;
    double last_time = 0.0;
    if (trace_->last_sample(replica_, step, last_time)) {
      const double due = last_time + static_cast<double>(update->ntimestep - step) * update->dt * compute_->units().time_fs;
      if (step < update->ntimestep ? time <= last_time : time < last_time * (1 - 1e-9)) time = due;
    }
    time_offset_fs_ = time - lammps_time_fs();
  });
  MPI_Bcast(&time_offset_fs_, 1, MPI_DOUBLE, 0, world);
}

bool FixPetdos::is_recorded()
{
  int known = trace_ && trace_->has(replica_, update->ntimestep);
  MPI_Bcast(&known, 1, MPI_INT, 0, world);
  return known != 0;
}

// The first frame of a run is the last one of the run before, and a rerun visits each frame twice; anything more gets a warning.
void FixPetdos::warn_if_repeated()
{
  if (update->ntimestep == update->firststep || warned_of_repeat_) return;
  warned_of_repeat_ = true;
  if (comm->me == 0)
    error->warning(FLERR, "fix petdos: " + file_ + " holds step " + std::to_string(update->ntimestep) + " of replica " +
                              std::to_string(replica_) +
                              " already, steps that are there are not sampled again; give another replica or another file if "
                              "this is another simulation");
}

// Neither the DOS nor the spread of its members means much far from all that the model was trained on.
void FixPetdos::warn_if_far()
{
  if (warned_of_extrapolation_) return;
  const double grade = compute_->model().extrapolation_grade(compute_->features());
  if (!(grade > FAR_OUTSIDE)) return;
  warned_of_extrapolation_ = true;
  if (comm->me == 0)
    error->warning(FLERR, "fix petdos: step {} of replica {} is far outside the training set of {} (extrapolation grade {:.1f}, "
                          "99 % of what it was trained on have less than 1): neither the DOS nor its model error is to be trusted; "
                          "`petdos analyze` counts such samples, this is said once",
                   update->ntimestep, replica_, compute_->model().info().name, grade);
}

void FixPetdos::record()
{
  if (seen_step_ == update->ntimestep) return;
  seen_step_ = update->ntimestep;
  if (is_recorded()) {
    warn_if_repeated();
    return;
  }
  modify->clearstep_compute();
  const bool finite = compute_->evaluate();
  if (finite) warn_if_far();
  const petdos::Units &units = compute_->units();
  petdos::Row row;
  row.features = compute_->features();
  row.step = update->ntimestep;
  row.replica = replica_;
  row.time_fs = time_fs();
  everywhere([&] { row.temperature_K = temperature_.value_K(); });
  row.kinetic_temperature_K = kinetic_temperature();
  row.potential_energy_eV = energy() * units.energy_eV;
  row.electronic_temperature_K = electronic_temperature_K(lmp);
  row.volume_A3 = domain->xperiodic && domain->yperiodic && domain->zperiodic
      ? domain->xprd * domain->yprd * domain->zprd * std::pow(units.length_A, 3)
      : NOT_KNOWN;
  row.n_atoms = compute_->n_atoms();
  row.n_electrons = compute_->n_electrons();
  modify->addstep_compute((update->ntimestep / every_ + 1) * every_);
  store(row, finite);
}

// The potential energy is tallied only in steps that somebody asks for it, and a pair style of the same model returns features only then.
void FixPetdos::expect_sample()
{
  compute_->addstep((update->ntimestep / every_ + 1) * every_);
  if (Compute *pe = modify->get_compute_by_id("thermo_pe")) pe->addstep((update->ntimestep / every_ + 1) * every_);
}

double FixPetdos::lammps_time_fs() const
{
  return (update->atime + static_cast<double>(update->ntimestep - update->atimestep) * update->dt) * compute_->units().time_fs;
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
      ++(finite ? taken_ : skipped_);
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

void FixPetdos::flush()
{
  on_first_rank([&] {
    if (trace_) trace_->flush();
  });
}

// What there is now, at the end of a run; of rank 0.
void FixPetdos::sum_up()
{
  const petdos::ModelInfo &model = compute_->model().info();
  utils::logmesg(lmp, "fix petdos: {} samples in {}, {} of this run{}; {} ({}) ran on {}{}\n", trace_->size(), file_, taken_,
                 skipped_ ? fmt::format(", {} frames skipped", skipped_) : "", model.name, model.dtype,
                 compute_->model().network()->capabilities().device,
                 comm->nprocs > 1 ? fmt::format(", {} ranks", comm->nprocs) : "");
  taken_ = skipped_ = 0;
}

void FixPetdos::fail(const std::string &message)
{
  error->all(FLERR, std::string("fix petdos: ") + message);
}

// What rank 0 alone does, and all ranks hear of if it fails.
void FixPetdos::on_first_rank(const std::function<void()> &work)
{
  char text[1024] = {};
  if (comm->me == 0) {
    try {
      work();
    } catch (const std::exception &error) {
      std::strncpy(text, error.what(), sizeof(text) - 1);
    }
  }
  MPI_Bcast(text, sizeof(text), MPI_CHAR, 0, world);
  if (text[0]) fail(text);
}

// What all ranks do in the same way, and fail in if one does.
void FixPetdos::everywhere(const std::function<void()> &work)
{
  std::string problem;
  try {
    work();
  } catch (const std::runtime_error &error) {
    problem = error.what();
  }
  if (!problem.empty()) fail(problem);
}
