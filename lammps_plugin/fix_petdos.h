// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: fix ID all petdos N COMPUTE FILE ... ; see docs/lammps.md.

#ifndef PETDOS_FIX_H
#define PETDOS_FIX_H

#include "compute_petdos.h"
#include "trace.h"

#include "fix.h"

#include <memory>
#include <string>

namespace LAMMPS_NS {

class FixPetdos : public Fix {
 public:
  FixPetdos(class LAMMPS *, int, char **);
  ~FixPetdos() override;
  int setmask() override;
  void init() override;
  void setup(int) override;
  void end_of_step() override;
  void post_run() override;
  void write_restart(FILE *) override;
  double compute_scalar() override;

 private:
  void read_keywords(int, char **);
  void find_thermostat();
  void check_ramp();
  void open_trace();
  bool is_recorded();
  void record();
  void expect_energy();
  double timestep_fs() const;
  double temperature();
  double energy();
  double kinetic_temperature();
  void store(petdos::Row &, bool);
  void flush(bool);
  [[noreturn]] void fail(const std::string &);
  std::string shared(const std::string &);

  int every_;
  int replica_;
  bool append_ = false, ramp_ = false, told_ = false;
  std::string compute_id_, file_, temp_text_;
  ComputePetdos *compute_ = nullptr;
  std::unique_ptr<petdos::TraceWriter> trace_;    // of rank 0

  double temperature_ = 0.0;         // if given as a number
  std::string variable_;             // else name of a variable,
  std::string thermostat_;           // or ID of a fix; if both are empty, the only thermostat there is
  const double *target_ = nullptr;
  double last_target_ = 0.0;
  int changes_ = 0;
};

}    // namespace LAMMPS_NS

#endif
