// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: one model in one LAMMPS. Styles that name the same model share it, and its evaluations.

#ifndef PETDOS_EVALUATION_H
#define PETDOS_EVALUATION_H

#include "bridge.h"
#include "frame.h"

#include "pointers.h"

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace LAMMPS_NS {

// Who asks, and what for: atomic numbers of types, from 1 on, 0 for those that are left out.
struct Inquiry {
  std::string style;    // for errors
  std::vector<int> numbers;
  int max_atoms = 0;          // at once, and the memory for that: 0 for what is free
  double max_memory_GB = 0.0;
};

// Of the atoms of this rank, in the order of Frame::local(); eV and angstrom.
struct LocalForces {
  double energy = 0.0;
  std::vector<double> energies, uncertainties;    // (count); empty if the model has none
  std::vector<double> forces;                     // (count, 3)
  double virial[6] = {};                          // the part of this rank: xx, yy, zz, xy, xz, yz
};

class Evaluation : protected Pointers {
 public:
  using Functional = std::function<std::vector<double>(const std::vector<double> &features)>;

  // The one of a network in this LAMMPS.
  static std::shared_ptr<Evaluation> of(LAMMPS *lmp, const std::shared_ptr<petdos::Network> &network);

  Evaluation(LAMMPS *lmp, const std::shared_ptr<petdos::Network> &network) : Pointers(lmp), network_(network) {}

  petdos::Network &network() { return *network_; }

  // Those below are collective, end with an error on all ranks if one fails, and compute nothing twice for one configuration.

  // Sums over all atoms.
  const std::vector<double> &features(const Inquiry &inquiry);
  // With features along if somebody is to need them in this step.
  const LocalForces &forces(const Inquiry &inquiry, const petdos::Potential &potential);
  // Minus the derivatives of a function of the features of all atoms (eV); it returns its gradient by them.
  LocalForces forces_of(const Inquiry &inquiry, const Functional &functional);

  // Number of atoms, of all ranks, of the last evaluation.
  int64_t n_atoms() const { return frame_ ? frame_->structure().size() : 0; }
  const std::vector<int> &local() const { return frame_->local(); }
  double memory_usage() const;

  // Registers somebody who needs features in steps in which `is_due` returns true; to be withdrawn before it is destroyed.
  void expect(const void *who, std::function<bool()> is_due) { expected_[who] = std::move(is_due); }
  void withdraw(const void *who) { expected_.erase(who); }

 private:
  void refresh(const Inquiry &inquiry);
  petdos::Results evaluate(const Inquiry &inquiry, const petdos::Wanted &wanted);
  void add_features(const petdos::Results &results);
  LocalForces to_owners(const petdos::Gradient &gradient) const;

  std::shared_ptr<petdos::Network> network_;
  std::shared_ptr<Frame> frame_;
  int64_t stamp_ = 0;    // of the configuration that the following are of
  bool has_features_ = false, has_forces_ = false;
  petdos::Potential potential_;
  std::vector<double> features_;
  LocalForces forces_;
  std::map<const void *, std::function<bool()>> expected_;
};

}    // namespace LAMMPS_NS

#endif
