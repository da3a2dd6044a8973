// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: the temperature of the ensemble: a number, a variable, or the target of a thermostat fix.

#ifndef PETDOS_TARGET_TEMPERATURE_H
#define PETDOS_TARGET_TEMPERATURE_H

#include "pointers.h"

#include <string>

namespace LAMMPS_NS {

// What is wrong throws std::runtime_error with one line, on all ranks.
class TargetTemperature : protected Pointers {
 public:
  explicit TargetTemperature(LAMMPS *lmp) : Pointers(lmp) {}

  // "600", "v_name" or "f_ID"; without it, the target of the only thermostat there is.
  void read(const std::string &text);
  void accept_ramps() { ramp_ = true; }

  bool is_number() const { return number_K_ > 0; }

  void init();         // before each run: looks for the variable or the fix
  void begin_run();
  void check_ramp();   // after each step
  double value_K();
  // What it is for the whole simulation as far as can be known, else NaN.
  double known_K();

 private:
  void find_thermostat();
  double evaluate();

  double number_K_ = 0.0;
  std::string variable_, thermostat_;    // names; empty if not given
  const double *target_ = nullptr;       // of the thermostat
  bool ramp_ = false;
  double last_ = 0.0;
  int changes_ = 0;
};

}    // namespace LAMMPS_NS

#endif
