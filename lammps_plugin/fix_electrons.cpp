// SPDX-License-Identifier: GPL-2.0-only

#include "fix_electrons.h"

#include "collective.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "input.h"
#include "modify.h"
#include "update.h"
#include "utils.h"
#include "variable.h"

#include <cmath>
#include <cstring>
#include <stdexcept>

using namespace LAMMPS_NS;

// Share of the smearing in the free energy, at kT below the smearing, from which on a warning is given.
static constexpr double WARN_SHARE = 0.1;

FixElectrons::FixElectrons(LAMMPS *lmp, int narg, char **arg) : Fix(lmp, narg, arg)
{
  if (igroup != 0) fail(std::string("got group ") + arg[1] + "; the electrons belong to the whole system, use group all");
  const bool undoes = narg == 8 && std::strcmp(arg[6], "undo_smearing") == 0;
  if ((narg != 6 && !undoes) || std::strcmp(arg[4], "temp") != 0)
    fail("expected: fix ID all petdos/electrons COMPUTE temp T [undo_smearing EV], with the temperature of the electrons in K or v_NAME");
  if (undoes) smearing_eV_ = utils::numeric(FLERR, arg[7], false, lmp);
  if (!(smearing_eV_ >= 0) || !std::isfinite(smearing_eV_))
    fail(std::string("got undo_smearing ") + arg[7] + ", expected the width in eV of the Gaussian in the DOS to undo, 0 or more");
  compute_id_ = std::strncmp(arg[3], "c_", 2) == 0 ? arg[3] + 2 : arg[3];
  if (!dynamic_cast<ComputePetdos *>(modify->get_compute_by_id(compute_id_)))
    fail("got compute " + compute_id_ + ", expected the ID of a compute petdos that is defined before");
  if (std::strncmp(arg[5], "v_", 2) == 0) {
    variable_ = arg[5] + 2;
  } else {
    number_K_ = utils::numeric(FLERR, arg[5], false, lmp);
    if (!(number_K_ > 0) || !std::isfinite(number_K_))
      fail(std::string("got temp ") + arg[5] + ", expected the temperature of the electrons, positive, in K");
  }
  scalar_flag = vector_flag = 1;
  size_vector = 6;
  extscalar = 1;
  extvector = -1;
  extlist = new int[size_vector]{1, 1, 1, 0, 1, 0};
  global_freq = 1;
  energy_global_flag = virial_global_flag = 1;
  // The forces are there in any case: energy and virial belong to them, unless fix_modify says otherwise.
  thermo_energy = thermo_virial = 1;
}

FixElectrons::~FixElectrons()
{
  if (evaluation_) evaluation_->part(this);
}

int FixElectrons::setmask()
{
  return FixConst::POST_FORCE | FixConst::MIN_POST_FORCE;
}

void FixElectrons::init()
{
  if (utils::strmatch(update->integrate_style, "^respa"))
    fail("does not work with run_style respa: its energy has no parts of different speeds; use run_style verlet");
  for (const auto *other : modify->get_fix_by_style("^petdos/electrons$"))
    if (other != this) fail(std::string("fix ") + other->id + " is one already, and their energies would add up; unfix one of them");
  compute_ = dynamic_cast<ComputePetdos *>(modify->get_compute_by_id(compute_id_));
  if (!compute_) fail("compute " + compute_id_ + " was deleted; define it again");
  if (evaluation_) evaluation_->part(this);
  evaluation_ = compute_->evaluation();
  // A variable may be of what is not known before there are forces, and a virial that is not wanted cannot be told apart.
  evaluation_->join(this, compute_->companion([this](const auto &dos, double n_electrons) { return response(dos, n_electrons); },
                                              [this] { return variable_.empty() && thermo_virial; }));
  if (variable_.empty()) return;
  const int which = input->variable->find(variable_.c_str());
  if (which < 0 || !input->variable->equalstyle(which))
    fail("got temp v_" + variable_ + ", expected an equal-style variable of that name");
}

void FixElectrons::setup(int vflag)
{
  post_force(vflag);
}

void FixElectrons::min_setup(int vflag)
{
  post_force(vflag);
}

void FixElectrons::min_post_force(int vflag)
{
  post_force(vflag);
}

void FixElectrons::post_force(int vflag)
{
  v_init(vflag);
  used_K_ = temperature_K();
  const LocalForces forces =
      compute_->forces_of([this](const auto &dos, double n_electrons) { return response(dos, n_electrons); }, this);
  const double energy = 1 / compute_->units().energy_eV, force = energy * compute_->units().length_A;
  const auto &local = compute_->local();
  for (size_t k = 0; k < local.size(); ++k)
    for (int c = 0; c < 3; ++c) atom->f[local[k]][c] += force * forces.forces[3 * k + c];
  if (vflag_global)
    for (int k = 0; k < 6; ++k) virial[k] += energy * forces.virial[k];
}

std::vector<double> FixElectrons::response(const std::vector<double> &dos, double n_electrons)
{
  if (variable_.empty()) used_K_ = number_K_;
  // Fails on all ranks or on none: all have the same features.
  std::string problem;
  try {
    found_ = petdos::hot_electrons(compute_->model().energies(), dos, n_electrons, used_K_, smearing_eV_);
  } catch (const std::runtime_error &error) {
    problem = error.what();
  }
  if (!problem.empty()) fail(problem);
  warn_of_smearing();
  return found_.kernel;
}

void FixElectrons::warn_of_smearing()
{
  if (warned_ || !(std::abs(found_.smearing_share) > WARN_SHARE * std::abs(found_.free_energy))) return;
  warned_ = true;
  if (comm->me == 0)
    error->warning(FLERR, "fix petdos/electrons: at {:g} K, kT = {:.2f} eV is below the smearing of {:g} eV of the DOS, which makes up "
                          "about {:.2g} of the {:.2g} eV that the free energy of the electrons changes by",
                   used_K_, petdos::BOLTZMANN_EV * used_K_, petdos::SMEARING_EV, found_.smearing_share, found_.free_energy);
}

double FixElectrons::compute_scalar()
{
  return found_.free_energy / compute_->units().energy_eV;
}

// Free energy, thermal energy, entropy, chemical potential, heat capacity, temperature.
double FixElectrons::compute_vector(int i)
{
  const double values[] = {found_.free_energy, found_.thermal_energy, found_.entropy, found_.chemical_potential, found_.heat_capacity};
  return i == 5 ? used_K_ : values[i] / compute_->units().energy_eV;
}

void *FixElectrons::extract(const char *name, int &dim)
{
  dim = 0;
  if (std::strcmp(name, "used_electronic_temperature_K") == 0) return &used_K_;
  return variable_.empty() && std::strcmp(name, "electronic_temperature_K") == 0 ? &number_K_ : nullptr;
}

double FixElectrons::temperature_K()
{
  if (variable_.empty()) return number_K_;
  modify->clearstep_compute();
  const double value = input->variable->compute_equal(input->variable->find(variable_.c_str()));
  modify->addstep_compute(update->ntimestep + 1);
  if (!(value > 0) || !std::isfinite(value))
    fail("variable " + variable_ + " is " + std::to_string(value) + ", expected the temperature of the electrons, positive, in K");
  return value;
}

void FixElectrons::fail(const std::string &message)
{
  fail_everywhere(lmp, "fix petdos/electrons", message);
}
