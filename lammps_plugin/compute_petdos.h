// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: compute ID all petdos MODEL El1 El2 ... ; see docs/lammps.md.

#ifndef PETDOS_COMPUTE_H
#define PETDOS_COMPUTE_H

#include "evaluation.h"
#include "model.h"
#include "units.h"

#include "compute.h"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace LAMMPS_NS {

class ComputePetdos : public Compute {
 public:
  ComputePetdos(class LAMMPS *, int, char **);
  ~ComputePetdos() override;
  void init() override;
  double compute_scalar() override;
  void compute_vector() override;
  void compute_array() override;
  double memory_usage() override;

  // For fix petdos; collective.

  const petdos::Model &model() const { return *model_; }
  const petdos::Units &units() const { return units_; }
  bool evaluate();    // false if the prediction is not finite
  const std::vector<double> &features() const { return features_; }
  double n_electrons() const { return n_electrons_; }    // NaN if not known
  bigint n_atoms() const { return n_atoms_; }
  std::map<std::string, int64_t> composition() const;    // atoms by chemical symbol

  // For fix petdos/electrons; collective. Minus the derivatives of a function of the DOS (eV), which returns its response to it.
  using DOSFunction = std::function<std::vector<double>(const std::vector<double> &dos, double n_electrons)>;
  LocalForces forces_of(const DOSFunction &function, const void *who);
  // So that these forces come with those of a pair style of the same model, see Evaluation::Companion.
  Evaluation::Companion companion(const DOSFunction &function, std::function<bool()> is_early);
  const std::shared_ptr<Evaluation> &evaluation() const { return evaluation_; }
  const std::vector<int> &local() const { return evaluation_->local(); }

  std::string recorder;    // ID of the fix that records this compute

 private:
  void read_elements(int, char **, int &);
  void read_keywords(int, char **, int);
  void load_model(const char *);
  void choose_window();
  Evaluation::Functional functional(const DOSFunction &function);
  void take(const std::vector<double> &sums);
  void need_electrons();
  void need_finite();
  const std::vector<double> &dos();
  [[noreturn]] void fail(const std::string &);

  std::unique_ptr<petdos::Model> model_;
  std::shared_ptr<Evaluation> evaluation_;    // shared with the pair style of the same model
  Inquiry inquiry_;
  petdos::Units units_;
  std::vector<double> electrons_;     // per atom of a type, NaN if not known
  std::string device_, electrons_text_;
  bool output_features_ = false, windowed_ = false;
  double window_[2];
  int threads_ = 0, first_ = 0;    // first_: grid point at which the window begins

  // The last evaluation.
  std::vector<double> sums_, features_, dos_;
  bigint n_atoms_ = 0;
  bool finite_ = true, has_dos_ = false;
  double n_electrons_ = 0.0;
};

}    // namespace LAMMPS_NS

#endif
