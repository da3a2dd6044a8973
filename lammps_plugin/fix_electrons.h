// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: fix ID all petdos/electrons COMPUTE temp T ; see docs/lammps.md.

#ifndef PETDOS_FIX_ELECTRONS_H
#define PETDOS_FIX_ELECTRONS_H

#include "compute_petdos.h"
#include "hot_electrons.h"

#include "fix.h"

#include <memory>
#include <string>
#include <vector>

namespace LAMMPS_NS {

// Forces, energy and virial of hot electrons relative to their ground state, added to those of any pair style.
class FixElectrons : public Fix {
 public:
  FixElectrons(class LAMMPS *, int, char **);
  ~FixElectrons() override;
  int setmask() override;
  void init() override;
  void setup(int) override;
  void min_setup(int) override;
  void post_force(int) override;
  void min_post_force(int) override;
  double compute_scalar() override;
  double compute_vector(int) override;
  void *extract(const char *, int &) override;    // used_electronic_temperature_K; electronic_temperature_K, if it is a number

 private:
  std::vector<double> response(const std::vector<double> &dos, double n_electrons);
  void warn_of_smearing();
  double temperature_K();
  [[noreturn]] void fail(const std::string &);

  std::string compute_id_, variable_;
  double number_K_ = 0.0, used_K_ = 0.0, smearing_eV_ = 0.0;
  bool warned_ = false;
  ComputePetdos *compute_ = nullptr;
  std::shared_ptr<Evaluation> evaluation_;    // that it has joined
  petdos::HotElectrons found_;
};

}    // namespace LAMMPS_NS

#endif
