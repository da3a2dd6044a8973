// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: pair_style metatomic MODEL ... ; see docs/lammps.md.

#ifndef PETDOS_PAIR_METATOMIC_H
#define PETDOS_PAIR_METATOMIC_H

#include "evaluation.h"
#include "model_file.h"
#include "units.h"

#include "pair.h"

#include <memory>
#include <string>

namespace LAMMPS_NS {

class PairMetatomic : public Pair {
 public:
  PairMetatomic(class LAMMPS *);
  ~PairMetatomic() override;
  void compute(int, int) override;
  void settings(int, char **) override;
  void coeff(int, char **) override;
  void init_style() override;
  double init_one(int, int) override;
  double memory_usage() override;

 private:
  void read_keyword(const std::string &keyword, const std::string &value);
  void open();
  void allocate();
  void tally(const LocalForces &);
  void check_uncertainty(const LocalForces &);
  [[noreturn]] void fail(const std::string &);

  petdos::ModelFile file_;
  petdos::OpenOptions options_;
  petdos::PotentialRequest request_;
  petdos::Potential potential_;
  petdos::Units units_;
  std::shared_ptr<Evaluation> evaluation_;
  Inquiry inquiry_;
  double scale_ = 1.0;
  bool asks_for_uncertainty_ = false;
  double threshold_ = 0.0;         // in units of LAMMPS, 0 for the default
  bigint warned_ = -1, pause_ = 1;    // step of the last warning, and how long none follows
};

}    // namespace LAMMPS_NS

#endif
