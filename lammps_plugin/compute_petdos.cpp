// SPDX-License-Identifier: GPL-2.0-only

#include "compute_petdos.h"

#include "elements.h"
#include "occupation.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "error.h"
#include "memory.h"
#include "update.h"
#include "utils.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

using namespace LAMMPS_NS;

namespace {

constexpr int DEFAULT_MAX_ATOMS = 16000;
const char *const KEYWORDS[] = {"output", "device", "threads", "window", "chunk", "electrons"};

bool is_keyword(const char *word)
{
  return std::any_of(std::begin(KEYWORDS), std::end(KEYWORDS),
                     [&](const char *keyword) { return std::strcmp(word, keyword) == 0; });
}

}    // namespace

ComputePetdos::ComputePetdos(LAMMPS *lmp, int narg, char **arg)
    : Compute(lmp, narg, arg), threads_(comm->nthreads), max_atoms_(DEFAULT_MAX_ATOMS)
{
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
  extscalar = 0;
  extvector = 1;
  size_vector = output_features_ ? model_->info().n_features : size_vector;
  memory->create(vector, size_vector, "petdos:vector");
}

ComputePetdos::~ComputePetdos()
{
  memory->destroy(vector);
}

void ComputePetdos::init()
{
  if (!petdos::find_units(update->unit_style, units_)) fail("the units changed; define it after the units command");
}

double ComputePetdos::compute_scalar()
{
  invoked_scalar = update->ntimestep;
  need_finite();
  if (std::isnan(n_electrons_)) {
    std::string missing;
    for (size_t type = 1; type < numbers_.size(); ++type)
      if (std::isnan(electrons_[type])) missing = petdos::chemical_symbol(numbers_[type]);
    fail("no number of valence electrons is known for " + missing + ", so there is no Fermi level; give electrons " +
         missing + "=...");
  }
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

double ComputePetdos::memory_usage()
{
  return static_cast<double>(sizeof(double) * (features_.size() + dos_.size() + positions_.size() + size_vector) +
                             sizeof(int) * types_.size());
}

// True if the last evaluation was or is of this very configuration. Collective.
bool ComputePetdos::evaluate()
{
  if (is_known()) return finite_;
  step_ = -1;
  has_dos_ = false;
  petdos::Structure structure;
  int first = 0, count = 0;
  gather(structure, first, count);
  if (structure.size() == 0) fail("there are no atoms, expected at least one");

  std::vector<double> part;
  fail_if_any(model_->partial_features(structure, first, count, max_atoms_, part));
  features_.resize(part.size());
  MPI_Allreduce(part.data(), features_.data(), static_cast<int>(part.size()), MPI_DOUBLE, MPI_SUM, world);
  model_->finish_features(features_);
  finite_ = std::all_of(features_.begin(), features_.end(), [](double x) { return std::isfinite(x); });
  n_atoms_ = structure.size();
  std::vector<double> local(1, 0.0);
  for (int i = 0; i < atom->nlocal; ++i) local[0] += electrons_[atom->type[i]];
  MPI_Allreduce(local.data(), &n_electrons_, 1, MPI_DOUBLE, MPI_SUM, world);
  step_ = update->ntimestep;
  return finite_;
}

void ComputePetdos::read_elements(int narg, char **arg, int &next)
{
  std::string given;
  numbers_.assign(1, 0);
  for (; next < narg && !is_keyword(arg[next]); ++next) {
    const int number = petdos::atomic_number(arg[next]);
    if (!number) fail(std::string("unknown element ") + arg[next] + ", expected chemical symbols such as Al Mg Si");
    numbers_.push_back(number);
    given += (given.empty() ? "" : " ") + std::string(arg[next]);
  }
  const int n = static_cast<int>(numbers_.size()) - 1;
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
      fail("unknown or incomplete keyword " + keyword + ", expected output, device, threads, window, chunk or electrons");
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
      max_atoms_ = utils::inumeric(FLERR, arg[next + 1], false, lmp);
      if (max_atoms_ < 1) fail("got chunk " + value + ", expected a number of atoms >= 1");
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
    model_ = petdos::Model::open(name, {device_, comm->me, threads_}, petdos::parse_electrons(electrons_text_));
    for (size_t type = 1; type < numbers_.size() && problem.empty(); ++type)
      if (!model_->knows(numbers_[type]))
        problem = std::string("element ") + petdos::chemical_symbol(numbers_[type]) + " is unknown to " +
            model_->info().name + ", which knows " + model_->symbols() + "; give a model that was trained on it";
  } catch (const std::exception &error) {
    problem = error.what();
  }
  fail_if_any(problem);
  electrons_.assign(numbers_.size(), std::numeric_limits<double>::quiet_NaN());
  for (size_t type = 1; type < numbers_.size(); ++type) {
    const auto found = model_->info().electrons.find(petdos::chemical_symbol(numbers_[type]));
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

// Positions are compared, too: they change within a step under minimize, fix atom/swap, or run 0 after displace_atoms.
bool ComputePetdos::is_known()
{
  const size_t n = atom->nlocal;
  const double *x = n ? atom->x[0] : nullptr;
  const double box[9] = {domain->boxlo[0], domain->boxlo[1], domain->boxlo[2], domain->boxhi[0], domain->boxhi[1],
                         domain->boxhi[2], domain->xy,       domain->xz,       domain->yz};
  int same = step_ == update->ntimestep && types_.size() == n && std::equal(box, box + 9, box_) &&
      std::equal(positions_.begin(), positions_.end(), x) && std::equal(types_.begin(), types_.end(), atom->type);
  int everywhere = 0;
  MPI_Allreduce(&same, &everywhere, 1, MPI_INT, MPI_MIN, world);
  if (!everywhere) {
    std::copy(box, box + 9, box_);
    positions_.assign(x, x + 3 * n);
    types_.assign(atom->type, atom->type + n);
  }
  return everywhere != 0;
}

std::map<std::string, int64_t> ComputePetdos::composition() const
{
  std::vector<bigint> own(numbers_.size(), 0), all(numbers_.size());
  for (int i = 0; i < atom->nlocal; ++i) ++own[atom->type[i]];
  MPI_Allreduce(own.data(), all.data(), static_cast<int>(own.size()), MPI_LMP_BIGINT, MPI_SUM, world);
  std::map<std::string, int64_t> counts;
  for (size_t type = 1; type < numbers_.size(); ++type) counts[petdos::chemical_symbol(numbers_[type])] += all[type];
  return counts;
}

// All atoms, in the order of ranks; the own ones are `count` from `first` on.
void ComputePetdos::gather(petdos::Structure &structure, int &first, int &count)
{
  count = atom->nlocal;
  std::vector<int> counts(comm->nprocs), starts(comm->nprocs, 0);
  MPI_Allgather(&count, 1, MPI_INT, counts.data(), 1, MPI_INT, world);
  for (int rank = 1; rank < comm->nprocs; ++rank) starts[rank] = starts[rank - 1] + counts[rank - 1];
  first = starts[comm->me];
  const int n = starts.back() + counts.back();

  std::vector<int> own(count);
  for (int i = 0; i < count; ++i) own[i] = numbers_[types_[i]];
  structure.numbers.resize(n);
  MPI_Allgatherv(own.data(), count, MPI_INT, structure.numbers.data(), counts.data(), starts.data(), MPI_INT, world);

  for (int rank = 0; rank < comm->nprocs; ++rank) {
    counts[rank] *= 3;
    starts[rank] *= 3;
  }
  structure.positions.resize(3 * static_cast<size_t>(n));
  MPI_Allgatherv(positions_.data(), 3 * count, MPI_DOUBLE, structure.positions.data(), counts.data(), starts.data(),
                 MPI_DOUBLE, world);
  for (double &x : structure.positions) {
    if (!std::isfinite(x))
      fail("positions are not finite (NaN or infinite); the simulation has probably exploded, use a shorter timestep");
    x *= units_.length_A;
  }

  const double rows[3][3] = {{domain->xprd, 0.0, 0.0},
                             {domain->triclinic ? domain->xy : 0.0, domain->yprd, 0.0},
                             {domain->triclinic ? domain->xz : 0.0, domain->triclinic ? domain->yz : 0.0, domain->zprd}};
  for (int a = 0; a < 3; ++a) {
    structure.periodic[a] = domain->periodicity[a] != 0;
    for (int b = 0; b < 3; ++b) structure.cell[a][b] = structure.periodic[a] ? units_.length_A * rows[a][b] : 0.0;
  }
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
  error->all(FLERR, std::string("compute petdos: ") + message);
}

// One rank may fail alone (out of memory, a file that only it cannot read): all of them must hear of it.
void ComputePetdos::fail_if_any(const std::string &message)
{
  int mine = message.empty() ? comm->nprocs : comm->me, who = 0;
  MPI_Allreduce(&mine, &who, 1, MPI_INT, MPI_MIN, world);
  if (who == comm->nprocs) return;
  char text[1024] = {};
  if (who == comm->me) std::strncpy(text, message.c_str(), sizeof(text) - 1);
  MPI_Bcast(text, sizeof(text), MPI_CHAR, who, world);
  fail(text);
}
