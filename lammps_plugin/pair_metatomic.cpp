// SPDX-License-Identifier: GPL-2.0-only

#include "pair_metatomic.h"

#include "collective.h"
#include "elements.h"
#include "machine.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "universe.h"
#include "update.h"
#include "utils.h"

#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>

using namespace LAMMPS_NS;

namespace {

constexpr double DEFAULT_THRESHOLD_EV = 0.1;    // per atom, as in metatomic's other engines
constexpr const char *KEYWORDS =
    "device, extensions, check_consistency, non_conservative, scale, uncertainty_threshold, variant, variant/energy, "
    "variant/energy_uncertainty, variant/non_conservative_forces, variant/non_conservative_stress, threads, chunk or memory";

}    // namespace

PairMetatomic::PairMetatomic(LAMMPS *lmp) : Pair(lmp)
{
  inquiry_.style = "pair_style metatomic";
  single_enable = 0;
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  no_virial_fdotr_compute = 1;    // ghost atoms are not used
  centroidstressflag = CENTROID_NOTAVAIL;
}

PairMetatomic::~PairMetatomic()
{
  if (!allocated) return;
  memory->destroy(setflag);
  memory->destroy(cutsq);
}

void PairMetatomic::settings(int narg, char **arg)
{
  if (narg < 1) fail("expected: pair_style metatomic MODEL keyword value ...");
  if (!petdos::find_units(update->unit_style, units_))
    fail(std::string("got units ") + update->unit_style +
         ", which have no length and energy; use metal, real, si, cgs, electron, micro or nano");
  if (domain->dimension != 3) fail("needs a three-dimensional system; use dimension 3");
  options_ = petdos::OpenOptions();
  options_.threads = 0;
  request_ = petdos::PotentialRequest();
  request_.energy.clear();
  file_ = petdos::ModelFile();
  file_.shown = arg[0];
  scale_ = 1.0;
  threshold_ = 0.0;
  asks_for_uncertainty_ = false;
  warned_ = -1;
  pause_ = 1;
  std::string variant;
  for (int next = 1; next < narg; next += 2) {
    if (next + 1 == narg) fail(std::string("keyword ") + arg[next] + " has no value; known keywords are " + KEYWORDS);
    if (std::strcmp(arg[next], "variant") == 0)
      variant = arg[next + 1];
    else
      read_keyword(arg[next], arg[next + 1]);
  }
  if (request_.energy.empty()) request_.energy = variant.empty() ? "off" : variant;
  open();
}

void PairMetatomic::read_keyword(const std::string &keyword, const std::string &value)
{
  const auto is_on = [&] {
    if (value != "on" && value != "off" && value != "yes" && value != "no")
      fail("got " + keyword + " " + value + ", expected on or off");
    return value == "on" || value == "yes";
  };
  const auto whole = [&] {
    const int number = utils::inumeric(FLERR, value, false, lmp);
    if (number < 1) fail("got " + keyword + " " + value + ", expected a number >= 1");
    return number;
  };
  if (keyword == "device") {
    if (value != "cpu" && value != "cuda") fail("got device " + value + ", expected cpu or cuda");
    options_.device = value;
  } else if (keyword == "extensions") {
    options_.extensions = value;
  } else if (keyword == "check_consistency") {
    request_.check_consistency = is_on();
  } else if (keyword == "non_conservative") {
    request_.conservative = !is_on();
  } else if (keyword == "scale") {
    scale_ = utils::numeric(FLERR, value, false, lmp);
  } else if (keyword == "uncertainty_threshold") {
    request_.with_uncertainty = value != "off";
    asks_for_uncertainty_ = request_.with_uncertainty;
    threshold_ = asks_for_uncertainty_ ? utils::numeric(FLERR, value, false, lmp) : 0.0;
    if (asks_for_uncertainty_ && !(threshold_ > 0))
      fail("got uncertainty_threshold " + value + ", expected an energy per atom > 0, or off");
  } else if (keyword == "variant/energy") {
    request_.energy = value;
  } else if (keyword == "variant/energy_uncertainty") {
    request_.uncertainty = value;
  } else if (keyword == "variant/non_conservative_forces" || keyword == "variant/non_conservative_force") {
    request_.force = value;
  } else if (keyword == "variant/non_conservative_stress") {
    request_.stress = value;
  } else if (keyword == "threads") {
    options_.threads = whole();
  } else if (keyword == "chunk") {
    inquiry_.max_atoms = whole();
  } else if (keyword == "memory") {
    inquiry_.max_memory_GB = utils::numeric(FLERR, value, false, lmp);
    if (!(inquiry_.max_memory_GB > 0)) fail("got memory " + value + ", expected a number of GB > 0");
  } else {
    fail("unknown keyword " + keyword + ", expected " + KEYWORDS);
  }
}

void PairMetatomic::open()
{
  const std::string name = file_.shown;
  const int threads = options_.threads;
  options_.index = petdos::rank_on_machine(universe->me);
  options_.sharing = petdos::ranks_on_machine(universe->nprocs);
  if (!threads) options_.threads = comm->nthreads;
  std::string problem;
  try {
    file_ = petdos::open_model(name, options_);
    problem = file_.network->find_potential(request_, potential_);
    if (!problem.empty()) problem = name + ": " + problem + "; give a model that predicts energies";
    if (problem.empty() && asks_for_uncertainty_ && potential_.uncertainty.empty())
      problem = name + ": has no energy_uncertainty for single atoms; leave out uncertainty_threshold, or give a model with one";
  } catch (const std::exception &error) {
    problem = error.what();
  }
  fail_if_any(lmp, inquiry_.style, problem);
  if (threads) file_.network->set_threads(threads);
  evaluation_ = Evaluation::of(lmp, file_.network);
  const auto &offered = file_.network->capabilities();
  if (comm->me != 0) return;
  for (const auto &warning : offered.warnings) error->warning(FLERR, "{}: {}", inquiry_.style, warning);
  utils::logmesg(lmp, "{}: {} ({}) on {}{}\n", inquiry_.style, offered.name.empty() ? name : offered.name, offered.dtype,
                 offered.device, potential_.uncertainty.empty() ? "" : ", warns of uncertain energies");
}

// Elements of atom types: chemical symbols or atomic numbers, NULL for types that belong to other pair styles.
void PairMetatomic::coeff(int narg, char **arg)
{
  if (!allocated) allocate();
  if (narg < 3 || std::strcmp(arg[0], "*") != 0 || std::strcmp(arg[1], "*") != 0)
    fail("expected: pair_coeff * * element-of-type-1 element-of-type-2 ...");
  if (narg - 2 != atom->ntypes)
    fail("pair_coeff has " + std::to_string(narg - 2) + " elements, expected one for each of the " +
         std::to_string(atom->ntypes) + " atom types");
  inquiry_.numbers.assign(1, 0);
  for (int k = 2; k < narg; ++k) {
    const std::string word = arg[k];
    const int number = utils::is_integer(word) ? std::atoi(arg[k]) : petdos::atomic_number(word);
    if (word != "NULL" && (number < 1 || std::string(petdos::chemical_symbol(number)) == "X"))
      fail("unknown element " + word + " in pair_coeff, expected chemical symbols or atomic numbers such as Al or 13");
    inquiry_.numbers.push_back(word == "NULL" ? 0 : number);
  }
  const std::string name = file_.network->capabilities().name.empty() ? file_.shown : file_.network->capabilities().name;
  fail_if_any(lmp, inquiry_.style, petdos::unknown_element(*file_.network, name, inquiry_.numbers));
  for (int i = 1; i <= atom->ntypes; ++i)
    for (int j = i; j <= atom->ntypes; ++j) setflag[i][j] = inquiry_.numbers[i] && inquiry_.numbers[j] ? 1 : 0;
}

void PairMetatomic::init_style()
{
  if (utils::strmatch(update->integrate_style, "^respa"))
    fail("does not work with run_style respa: its energy has no parts of different speeds; use run_style verlet");
}

// The model finds neighbors by itself, so that ghost atoms farther away would be of no use.
double PairMetatomic::init_one(int, int)
{
  return file_.network->capabilities().cutoff / units_.length_A;
}

void PairMetatomic::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  if (vflag_atom || cvflag_atom)
    fail("there is no virial of single atoms; leave out compute stress/atom and the like, or let them use kinetic energies only");
  if (eflag_atom && !potential_.has_atoms)
    fail(file_.shown + " has no energies of single atoms; leave out compute pe/atom and the like");
  const bool as_they_are = scale_ == 1.0 && !utils::strmatch(force->pair_style, "scaled");
  const LocalForces &found = evaluation_->forces(inquiry_, potential_, as_they_are);
  tally(found);
  if (!potential_.uncertainty.empty()) check_uncertainty(found);
}

void PairMetatomic::tally(const LocalForces &found)
{
  const double energy = scale_ / units_.energy_eV, force = energy * units_.length_A;
  const auto &local = evaluation_->local();
  for (size_t k = 0; k < local.size(); ++k)
    for (int c = 0; c < 3; ++c) atom->f[local[k]][c] += force * found.forces[3 * k + c];
  if (eflag_global) eng_vdwl += energy * found.energy;
  if (eflag_atom)
    for (size_t k = 0; k < local.size(); ++k) eatom[local[k]] += energy * found.energies[k];
  // Forces that are no derivatives come with a stress of the model or with none.
  const bool periodic = domain->xperiodic && domain->yperiodic && domain->zperiodic;
  const bool has_virial = potential_.is_conservative() || (!potential_.stress.empty() && periodic);
  if (vflag_global)
    for (int k = 0; k < 6; ++k)
      virial[k] += has_virial ? energy * found.virial[k] : std::numeric_limits<double>::quiet_NaN();
}

// Warns of the least certain atom; then not again for twice as many steps each time.
void PairMetatomic::check_uncertainty(const LocalForces &found)
{
  const double threshold = threshold_ > 0 ? threshold_ : DEFAULT_THRESHOLD_EV / units_.energy_eV;
  const auto &local = evaluation_->local();
  struct {
    double value;
    int rank;
  } own{0.0, comm->me}, worst;
  tagint atom_id = 0;
  bigint above = 0, total = 0;
  for (size_t k = 0; k < local.size(); ++k) {
    const double value = found.uncertainties[k] / units_.energy_eV;
    if (!(value > threshold)) continue;
    ++above;
    if (value > own.value) {
      own.value = value;
      atom_id = atom->tag[local[k]];
    }
  }
  MPI_Allreduce(&above, &total, 1, MPI_LMP_BIGINT, MPI_SUM, world);
  if (total == 0 || (warned_ >= 0 && update->ntimestep < warned_ + pause_)) return;
  MPI_Allreduce(&own, &worst, 1, MPI_DOUBLE_INT, MPI_MAXLOC, world);
  MPI_Bcast(&atom_id, 1, MPI_LMP_TAGINT, worst.rank, world);
  warned_ = update->ntimestep;
  pause_ *= 2;
  if (comm->me == 0)
    error->warning(FLERR, "{}: the energies of {} atoms are uncertain by more than {:g}, that of atom {} by {:g} (step {}); the model was "
                          "probably not trained on such structures",
                   inquiry_.style, total, threshold, atom_id, worst.value, update->ntimestep);
}

double PairMetatomic::memory_usage()
{
  return Pair::memory_usage() + (evaluation_ ? evaluation_->memory_usage() : 0.0);
}

void PairMetatomic::allocate()
{
  allocated = 1;
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  for (int i = 1; i < n; ++i)
    for (int j = i; j < n; ++j) setflag[i][j] = 0;
}

void PairMetatomic::fail(const std::string &message)
{
  fail_everywhere(lmp, inquiry_.style, message);
}
