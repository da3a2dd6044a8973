// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: fix ID all petdos N COMPUTE FILE ... ; see docs/lammps.md.

#ifndef PETDOS_FIX_H
#define PETDOS_FIX_H

#include "compute_petdos.h"
#include "target_temperature.h"
#include "trace.h"

#include "fix.h"

#include <functional>
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
  void restart(char *) override;
  double compute_scalar() override;

 private:
  void read_keywords(int, char **);
  void warn_of_box();
  petdos::Description description();
  void open_trace();
  void describe_run();
  void go_on();
  bool is_recorded();
  void warn_if_repeated();
  void warn_if_far();
  void record();
  void expect_sample();
  double lammps_time_fs() const;
  double time_fs() const { return lammps_time_fs() + time_offset_fs_; }
  double energy();
  double kinetic_temperature();
  void store(petdos::Row &, bool);
  void flush();
  void sum_up();
  [[noreturn]] void fail(const std::string &);
  void on_first_rank(const std::function<void()> &);
  void everywhere(const std::function<void()> &);

  int every_;
  int replica_;
  bool append_ = false, warned_of_repeat_ = false, warned_of_box_ = false, warned_of_extrapolation_ = false;
  std::string compute_id_, file_;
  ComputePetdos *compute_ = nullptr;
  TargetTemperature temperature_;
  std::unique_ptr<petdos::TraceWriter> trace_;    // of rank 0
  bool is_open_ = false;
  bigint seen_step_ = -1;                         // of the last frame that was looked at
  bigint taken_ = 0, skipped_ = 0;                // frames of this run

  // LAMMPS forgets its time in the first run after read_restart (22 July 2025): it is taken note of before, and from the trace.
  bigint defined_step_;
  double defined_time_fs_, time_offset_fs_ = 0.0;
};

}    // namespace LAMMPS_NS

#endif
