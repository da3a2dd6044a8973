// SPDX-License-Identifier: GPL-2.0-only

#include "compute_petdos.h"

#include "collective.h"
#include "elements.h"
#include "machine.h"
#include "occupation.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "error.h"
#include "memory.h"
#include "universe.h"
#include "update.h"
#include "utils.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

using namespace LAMMPS_NS;

namespace {

const char *const KEYWORDS[] = {"output", "device", "threads", "window", "chunk", "memory", "electrons"};

bool is_keyword(const char *word)
{
  return std::any_of(std::begin(KEYWORDS), std::end(KEYWORDS),
                     [&](const char *keyword) { return std::strcmp(word, keyword) == 0; });
}

}    // namespace

ComputePetdos::ComputePetdos(LAMMPS *lmp, int narg, char **arg)
    : Compute(lmp, narg, arg)
{
  inquiry_.style = "compute petdos";
  if (igroup != 0)
    fail(std::string("got group ") + arg[1] + "; the DOS belongs to the whole system, use group all");
  if (narg < 5)
    fail("expected: compute ID all petdos MODEL element-of-type-1 element-of-type-2 ...");
  if (!petdos::find_units(update->unit_style, units_))
    fail(std::string("got units ") + update->unit_style +
         ", which have no length and energy; use metal, real, si, cgs, electron, micro or nano");
  if (domain->dimension != 3) fail("needs a three-dimensional system; use dimension 3");
  int next = 4;
  read_elements(narg, arg, next);
  read_keywords(narg, arg, next);
  load_model(arg[3]);
  choose_window();

  scalar_flag = vector_flag = 1;
  timeflag = 1;    // so that LAMMPS says for which steps it is wanted
  extscalar = 0;
  extvector = 1;
  size_vector = output_features_ ? model_->info().n_features : size_vector;
  memory->create(vector, size_vector, "petdos:vector");
  if (output_features_) return;
  array_flag = 1;
  extarray = 0;    // of two columns, of which only the second is extensive
  size_array_rows = size_vector;
  size_array_cols = 2;
  memory->create(array, size_array_rows, size_array_cols, "petdos:array");
}

ComputePetdos::~ComputePetdos()
{
  if (evaluation_) evaluation_->withdraw(this);
  memory->destroy(vector);
  memory->destroy(array);
}

void ComputePetdos::init()
{
  if (!petdos::find_units(update->unit_style, units_)) fail("the units changed; define it after the units command");
}

double ComputePetdos::compute_scalar()
{
  invoked_scalar = update->ntimestep;
  need_finite();
  need_electrons();
  scalar = petdos::fermi_level(model_->energies(), dos(), n_electrons_);
  if (std::isnan(scalar))
    fail("the energies of the model cannot hold the electrons; check the elements and `electrons`");
  return scalar;
}

void ComputePetdos::compute_vector()
{
  invoked_vector = update->ntimestep;
  need_finite();
  const double *values = output_features_ ? features_.data() : dos().data() + first_;
  std::copy(values, values + size_vector, vector);
}

// Energies and DOS, as `fix ave/time ... mode vector` writes them.
void ComputePetdos::compute_array()
{
  invoked_array = update->ntimestep;
  need_finite();
  const double *values = dos().data() + first_;
  for (int i = 0; i < size_array_rows; ++i) {
    array[i][0] = model_->energies()[first_ + i];
    array[i][1] = values[i];
  }
}

double ComputePetdos::memory_usage()
{
  const double numbers = static_cast<double>(features_.size() + dos_.size() + size_vector) + 2.0 * size_array_rows;
  return sizeof(double) * numbers + evaluation_->memory_usage();
}

// Collective.
bool ComputePetdos::evaluate()
{
  const std::vector<double> &sums = evaluation_->features(inquiry_);
  if (evaluation_->n_atoms() == 0) fail("there are no atoms, expected at least one");
  if (n_atoms_ != evaluation_->n_atoms() || sums != sums_) take(sums);
  return finite_;
}

LocalForces ComputePetdos::forces_of(const DOSFunction &function, const void *who)
{
  return evaluation_->forces_of(inquiry_, functional(function), who);
}

Evaluation::Companion ComputePetdos::companion(const DOSFunction &function, std::function<bool()> is_early)
{
  return {inquiry_.numbers, functional(function), std::move(is_early)};
}

Evaluation::Functional ComputePetdos::functional(const DOSFunction &function)
{
  return [this, function](const std::vector<double> &sums) {
    take(sums);
    need_finite();
    need_electrons();
    return model_->project(function(dos(), n_electrons_));
  };
}

void ComputePetdos::take(const std::vector<double> &sums)
{
  sums_ = sums;
  n_atoms_ = evaluation_->n_atoms();
  has_dos_ = false;
  features_ = model_->features(sums_, n_atoms_);
  finite_ = std::all_of(features_.begin(), features_.end(), [](double x) { return std::isfinite(x); });
  double local = 0.0;
  for (int i = 0; i < atom->nlocal; ++i) local += electrons_[atom->type[i]];
  MPI_Allreduce(&local, &n_electrons_, 1, MPI_DOUBLE, MPI_SUM, world);
}

void ComputePetdos::read_elements(int narg, char **arg, int &next)
{
  std::string given;
  inquiry_.numbers.assign(1, 0);
  for (; next < narg && !is_keyword(arg[next]); ++next) {
    const int number = petdos::atomic_number(arg[next]);
    if (!number) fail(std::string("unknown element ") + arg[next] + ", expected chemical symbols such as Al Mg Si");
    inquiry_.numbers.push_back(number);
    given += (given.empty() ? "" : " ") + std::string(arg[next]);
  }
  const int n = static_cast<int>(inquiry_.numbers.size()) - 1;
  if (n != atom->ntypes)
    fail("got " + std::to_string(n) + " elements (" + given + "), expected one for each of the " +
         std::to_string(atom->ntypes) + " atom types");
}

void ComputePetdos::read_keywords(int narg, char **arg, int next)
{
  while (next < narg) {
    const std::string keyword = arg[next];
    const int values = keyword == "window" ? 2 : 1;
    if (!is_keyword(arg[next]) || next + values >= narg)
      fail("unknown or incomplete keyword " + keyword + ", expected output, device, threads, window, chunk, memory or electrons");
    const std::string value = arg[next + 1];
    if (keyword == "output") {
      if (value != "dos" && value != "features") fail("got output " + value + ", expected dos or features");
      output_features_ = value == "features";
    } else if (keyword == "device") {
      if (value != "cpu" && value != "cuda") fail("got device " + value + ", expected cpu or cuda");
      device_ = value;
    } else if (keyword == "threads") {
      threads_ = utils::inumeric(FLERR, arg[next + 1], false, lmp);
      if (threads_ < 1) fail("got threads " + value + ", expected a number >= 1");
    } else if (keyword == "chunk") {
      inquiry_.max_atoms = utils::inumeric(FLERR, arg[next + 1], false, lmp);
      if (inquiry_.max_atoms < 1) fail("got chunk " + value + ", expected a number of atoms >= 1");
    } else if (keyword == "memory") {
      inquiry_.max_memory_GB = utils::numeric(FLERR, arg[next + 1], false, lmp);
      if (!(inquiry_.max_memory_GB > 0)) fail("got memory " + value + ", expected a number of GB > 0");
    } else if (keyword == "electrons") {
      electrons_text_ = value;
    } else {
      windowed_ = true;
      for (int k = 0; k < 2; ++k) window_[k] = utils::numeric(FLERR, arg[next + 1 + k], false, lmp);
    }
    next += 1 + values;
  }
}

void ComputePetdos::load_model(const char *name)
{
  std::string problem;
  try {
    petdos::OpenOptions options;
    options.device = device_;
    options.index = petdos::rank_on_machine(universe->me);
    options.sharing = petdos::ranks_on_machine(universe->nprocs);
    options.threads = threads_ ? threads_ : comm->nthreads;
    model_ = petdos::Model::open(name, options, petdos::parse_electrons(electrons_text_));
    problem = petdos::unknown_element(*model_->network(), model_->info().name, inquiry_.numbers);
  } catch (const std::exception &error) {
    problem = error.what();
  }
  fail_if_any(lmp, inquiry_.style, problem);
  if (threads_) model_->network()->set_threads(threads_);
  evaluation_ = Evaluation::of(lmp, model_->network());
  evaluation_->expect(this, [this] { return matchstep(update->ntimestep) != 0; });
  electrons_.assign(inquiry_.numbers.size(), std::numeric_limits<double>::quiet_NaN());
  for (size_t type = 1; type < inquiry_.numbers.size(); ++type) {
    const auto found = model_->info().electrons.find(petdos::chemical_symbol(inquiry_.numbers[type]));
    if (found != model_->info().electrons.end()) electrons_[type] = found->second;
  }
}

void ComputePetdos::choose_window()
{
  const auto &energies = model_->energies();
  size_vector = static_cast<int>(energies.size());
  if (!windowed_) return;
  const double slack = 1e-6 * model_->info().step;
  const auto text = [](double x) {
    char buffer[32];
    std::snprintf(buffer, sizeof(buffer), "%g", x);
    return std::string(buffer);
  };
  const std::string said = "window " + text(window_[0]) + " " + text(window_[1]);
  if (output_features_) fail(said + " is of the DOS; leave it out with output features");
  if (!(window_[0] < window_[1])) fail("got " + said + ", expected the lower energy first");
  if (window_[0] < energies.front() - slack || window_[1] > energies.back() + slack)
    fail("got " + said + ", the energies of " + model_->info().name + " go from " + text(energies.front()) + " to " +
         text(energies.back()) + " eV; give a window within them");
  first_ = static_cast<int>(std::lower_bound(energies.begin(), energies.end(), window_[0] - slack) - energies.begin());
  const auto last = std::upper_bound(energies.begin(), energies.end(), window_[1] + slack) - energies.begin();
  size_vector = static_cast<int>(last) - first_;
  if (size_vector < 1) fail("got " + said + ", in which the model has no energy; it has one every " +
                            text(model_->info().step) + " eV");
}

std::map<std::string, int64_t> ComputePetdos::composition() const
{
  std::vector<bigint> own(inquiry_.numbers.size(), 0), all(inquiry_.numbers.size());
  for (int i = 0; i < atom->nlocal; ++i) ++own[atom->type[i]];
  MPI_Allreduce(own.data(), all.data(), static_cast<int>(own.size()), MPI_LMP_BIGINT, MPI_SUM, world);
  std::map<std::string, int64_t> counts;
  for (size_t type = 1; type < inquiry_.numbers.size(); ++type) counts[petdos::chemical_symbol(inquiry_.numbers[type])] += all[type];
  return counts;
}

void ComputePetdos::need_electrons()
{
  if (!std::isnan(n_electrons_)) return;
  std::string missing;
  for (size_t type = 1; type < inquiry_.numbers.size(); ++type)
    if (std::isnan(electrons_[type])) missing = petdos::chemical_symbol(inquiry_.numbers[type]);
  fail("no number of valence electrons is known for " + missing + ", so there is no Fermi level; give electrons " + missing +
       "=...");
}

void ComputePetdos::need_finite()
{
  if (!evaluate())
    fail("the DOS model returned NaN or infinity: the structure is far from the training data; look at its distances");
}

const std::vector<double> &ComputePetdos::dos()
{
  if (!has_dos_) model_->dos(features_, dos_);
  has_dos_ = true;
  return dos_;
}

void ComputePetdos::fail(const std::string &message)
{
  fail_everywhere(lmp, inquiry_.style, message);
}
