// SPDX-License-Identifier: GPL-2.0-only

#include "target_temperature.h"

#include "files.h"

#include "fix.h"
#include "input.h"
#include "modify.h"
#include "universe.h"
#include "update.h"
#include "utils.h"
#include "variable.h"

#include <cmath>
#include <limits>

using namespace LAMMPS_NS;
using petdos::fail;

namespace {

// The target of temper changes now and then, that of a ramp at every step.
constexpr int RAMP_STEPS = 3;
constexpr const char *EACH_ITS_OWN =
    ", each sample would have a temperature of its own; give ramp yes if that is meant";

}    // namespace

void TargetTemperature::read(const std::string &text)
{
  const std::string kind = text.substr(0, 2);
  if (kind == "v_") {
    variable_ = text.substr(2);
  } else if (kind == "f_") {
    thermostat_ = text.substr(2);
  } else {
    number_K_ = utils::numeric(FLERR, text, false, lmp);
    if (!(number_K_ > 0)) fail("got temp " + text + ", expected the temperature of the ensemble in K, positive");
  }
}

void TargetTemperature::init()
{
  if (is_number()) return;
  if (variable_.empty()) {
    find_thermostat();
    return;
  }
  const int which = input->variable->find(variable_.c_str());
  if (which < 0 || !input->variable->equalstyle(which))
    fail("got temp v_" + variable_ + ", expected an equal-style variable of that name");
}

void TargetTemperature::begin_run()
{
  changes_ = -1;    // there is nothing yet to compare with
}

// Not every thermostat shows that it ramps, and no variable does.
void TargetTemperature::check_ramp()
{
  if (is_number() || ramp_) return;
  if (!variable_.empty()) modify->clearstep_compute();
  const double now = evaluate();
  if (!variable_.empty()) modify->addstep_compute(update->ntimestep + 1);
  changes_ = changes_ < 0 || now == last_ ? 0 : changes_ + 1;
  last_ = now;
  if (changes_ < RAMP_STEPS) return;
  const std::string what = variable_.empty() ? "the target temperature" : "variable " + variable_;
  fail(what + " changes at every step" + EACH_ITS_OWN);
}

double TargetTemperature::value_K()
{
  const double value = evaluate();
  if (!(value > 0) || !std::isfinite(value))
    fail("the temperature of the ensemble is " + std::to_string(value) + " K, expected a positive one; check temp");
  return value;
}

double TargetTemperature::known_K()
{
  // Partitions may exchange their temperatures (temper), which no fix can know.
  const bool exchanged = target_ && universe->nworlds > 1;
  return ramp_ || exchanged ? std::numeric_limits<double>::quiet_NaN() : value_K();
}

void TargetTemperature::find_thermostat()
{
  target_ = nullptr;
  std::string found;
  int dim = 0;
  for (Fix *fix : modify->get_fix_list()) {
    if (!thermostat_.empty() && thermostat_ != fix->id) continue;
    auto *target = static_cast<double *>(fix->extract("t_target", dim));
    if (!target || dim != 0) continue;
    if (target_)
      fail("fixes " + found + " and " + fix->id + " both have a target temperature; give temp f_" + found +
           " or another temp");
    target_ = target;
    found = fix->id;
  }
  if (!target_ && !thermostat_.empty())
    fail("got temp f_" + thermostat_ + ", expected the ID of a fix with a target temperature, such as nvt or langevin");
  if (!target_) fail("the temperature of the ensemble is not known (no thermostat fix); give temp T or temp v_name");
  auto *start = static_cast<double *>(modify->get_fix_by_id(found)->extract("t_start", dim));
  auto *stop = static_cast<double *>(modify->get_fix_by_id(found)->extract("t_stop", dim));
  if (!ramp_ && start && stop && *start != *stop)
    fail("the target temperature of fix " + found + " is a ramp" + EACH_ITS_OWN);
}

double TargetTemperature::evaluate()
{
  if (is_number()) return number_K_;
  if (target_) return *target_;
  return input->variable->compute_equal(input->variable->find(variable_.c_str()));
}
