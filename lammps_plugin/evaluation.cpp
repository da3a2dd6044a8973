// SPDX-License-Identifier: GPL-2.0-only

#include "evaluation.h"

#include "collective.h"

#include <algorithm>
#include <cmath>
#include <numeric>

using namespace LAMMPS_NS;

namespace {

bool all_finite(const std::vector<double> &values)
{
  return std::all_of(values.begin(), values.end(), [](double x) { return std::isfinite(x); });
}

}    // namespace

std::shared_ptr<Evaluation> Evaluation::of(LAMMPS *lmp, const std::shared_ptr<petdos::Network> &network)
{
  static std::map<std::pair<LAMMPS *, petdos::Network *>, std::weak_ptr<Evaluation>> known;
  auto &entry = known[{lmp, network.get()}];
  auto found = entry.lock();
  if (!found) entry = found = std::make_shared<Evaluation>(lmp, network);
  return found;
}

const std::vector<double> &Evaluation::features(const Inquiry &inquiry)
{
  refresh(inquiry);
  if (has_features_) return features_;
  petdos::Wanted wanted;
  wanted.features = true;
  add_features(evaluate(inquiry, wanted));
  return features_;
}

const LocalForces &Evaluation::forces(const Inquiry &inquiry, const petdos::Potential &potential, bool as_they_are)
{
  refresh(inquiry);
  const Companion *companion = companion_of(inquiry, potential);
  const void *among = companion && as_they_are && companion->is_early() ? companions_.begin()->first : nullptr;
  if (has_forces_ && potential_ == potential && among_ == among) return forces_;
  has_forces_ = false;
  petdos::Wanted wanted;
  wanted.potential = &potential;
  wanted.forces = !companion;
  wanted.keep = companion;
  wanted.uncertainty = !potential.uncertainty.empty();
  wanted.features = companion ||
      (!has_features_ && std::any_of(expected_.begin(), expected_.end(), [](const auto &entry) { return entry.second(); }));
  petdos::Results results = evaluate(inquiry, wanted);
  if (wanted.features) add_features(results);
  if (companion) {
    derive(inquiry, 1.0, among ? companion->functional(features_) : std::vector<double>(), results.gradient);
    if (among) drop_pass();
  }
  const bool finite = all_finite(results.energies) && all_finite(results.gradient.forces);
  fail_if_any(lmp, inquiry.style,
              finite ? "" : "the model returned energies or forces that are NaN or infinite: the structure is far from the training "
                            "data; look at its distances, or use a shorter timestep");
  forces_ = to_owners(results.gradient);
  forces_.energy = std::accumulate(results.energies.begin(), results.energies.end(), 0.0);
  if (potential.has_atoms) forces_.energies = std::move(results.energies);
  forces_.uncertainties = std::move(results.uncertainties);
  potential_ = potential;
  has_forces_ = true;
  among_ = among;
  return forces_;
}

LocalForces Evaluation::forces_of(const Inquiry &inquiry, const Functional &functional, const void *who)
{
  refresh(inquiry);
  if (has_forces_ && among_ == who) {
    LocalForces none;
    none.forces.assign(3 * local().size(), 0.0);
    return none;
  }
  if (!kept_) {
    petdos::Wanted wanted;
    wanted.features = wanted.keep = true;
    add_features(evaluate(inquiry, wanted));
  }
  petdos::Gradient gradient;
  derive(inquiry, 0.0, functional(features_), gradient);
  drop_pass();
  return to_owners(gradient);
}

void Evaluation::join(const void *who, Companion companion)
{
  companions_[who] = std::move(companion);
  has_forces_ = false;
}

void Evaluation::part(const void *who)
{
  companions_.erase(who);
  has_forces_ = false;
}

// The only one, if it shares the atoms and the network can derive it together with the energy.
const Evaluation::Companion *Evaluation::companion_of(const Inquiry &inquiry, const petdos::Potential &potential) const
{
  if (companions_.size() != 1 || !potential.is_conservative()) return nullptr;
  const Companion &only = companions_.begin()->second;
  return only.numbers == inquiry.numbers ? &only : nullptr;
}

void Evaluation::derive(const Inquiry &inquiry, double energy_weight, const std::vector<double> &cotangent,
                        petdos::Gradient &gradient)
{
  const std::string problem = network_->derive(energy_weight, cotangent, gradient);
  fail_if_any(lmp, inquiry.style, problem);
}

void Evaluation::drop_pass()
{
  network_->forget();
  kept_ = false;
}

double Evaluation::memory_usage() const
{
  const double numbers = static_cast<double>(features_.size() + forces_.forces.size() + forces_.energies.size());
  return sizeof(double) * numbers + (frame_ ? frame_->memory_usage() : 0.0);
}

void Evaluation::refresh(const Inquiry &inquiry)
{
  frame_ = Frame::of(lmp, inquiry.numbers);
  frame_->refresh(inquiry.style);
  if (frame_->structure().stamp == stamp_) return;
  stamp_ = frame_->structure().stamp;
  has_features_ = has_forces_ = false;
  if (kept_) drop_pass();
}

petdos::Results Evaluation::evaluate(const Inquiry &inquiry, const petdos::Wanted &wanted)
{
  petdos::Wanted own = wanted;
  own.first = frame_->first();
  own.count = frame_->count();
  own.max_atoms = inquiry.max_atoms;
  own.max_bytes = 1e9 * inquiry.max_memory_GB;
  petdos::Results results;
  kept_ = own.keep;
  fail_if_any(lmp, inquiry.style, network_->evaluate(frame_->structure(), own, results));
  return results;
}

void Evaluation::add_features(const petdos::Results &results)
{
  features_.resize(results.features.size());
  MPI_Allreduce(results.features.data(), features_.data(), static_cast<int>(features_.size()), MPI_DOUBLE, MPI_SUM, world);
  has_features_ = true;
}

LocalForces Evaluation::to_owners(const petdos::Gradient &gradient) const
{
  LocalForces found;
  found.forces = frame_->sum_to_owners(gradient.forces);
  // Networks are not exactly invariant under rotations: the antisymmetric part is noise.
  constexpr int ROW[] = {0, 1, 2, 0, 0, 1}, COLUMN[] = {0, 1, 2, 1, 2, 2};
  for (int k = 0; k < 6; ++k)
    found.virial[k] = 0.5 * (gradient.virial[3 * ROW[k] + COLUMN[k]] + gradient.virial[3 * COLUMN[k] + ROW[k]]);
  return found;
}
