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

  // A function of the features (eV) whose forces are added to those of a potential of the same network in every step.
  struct Companion {
    std::vector<int> numbers;         // of an Inquiry
    Functional functional;            // returns its gradient by the features
    std::function<bool()> is_early;   // whether it can be called before there are forces
  };

  // The one of a network in this LAMMPS.
  static std::shared_ptr<Evaluation> of(LAMMPS *lmp, const std::shared_ptr<petdos::Network> &network);

  Evaluation(LAMMPS *lmp, const std::shared_ptr<petdos::Network> &network) : Pointers(lmp), network_(network) {}

  petdos::Network &network() { return *network_; }

  // Those below are collective, end with an error on all ranks if one fails, and compute nothing twice for one configuration.

  // Sums over all atoms.
  const std::vector<double> &features(const Inquiry &inquiry);
  // With features along if somebody is to need them in this step. Those of a companion are among them, from the same backward pass,
  // if it is early and they are added as they are; its own are zero then. Else its forces come from the same forward pass.
  const LocalForces &forces(const Inquiry &inquiry, const petdos::Potential &potential, bool as_they_are);
  // Minus the derivatives of a function of the features of all atoms (eV), which returns its gradient by them; of `who`.
  LocalForces forces_of(const Inquiry &inquiry, const Functional &functional, const void *who);

  // Number of atoms, of all ranks, of the last evaluation.
  int64_t n_atoms() const { return frame_ ? frame_->structure().size() : 0; }
  const std::vector<int> &local() const { return frame_->local(); }
  double memory_usage() const;

  // Registers somebody who needs features in steps in which `is_due` returns true; to be withdrawn before it is destroyed.
  void expect(const void *who, std::function<bool()> is_due) { expected_[who] = std::move(is_due); }
  void withdraw(const void *who) { expected_.erase(who); }
  // Registers a companion; to be parted before it is destroyed.
  void join(const void *who, Companion companion);
  void part(const void *who);

 private:
  void refresh(const Inquiry &inquiry);
  petdos::Results evaluate(const Inquiry &inquiry, const petdos::Wanted &wanted);
  const Companion *companion_of(const Inquiry &inquiry, const petdos::Potential &potential) const;
  void derive(const Inquiry &inquiry, double energy_weight, const std::vector<double> &cotangent, petdos::Gradient &gradient);
  void drop_pass();
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
  std::map<const void *, Companion> companions_;
  const void *among_ = nullptr;    // whose forces are among the present ones
  bool kept_ = false;              // whether the network has a pass of this configuration that can be derived
};

}    // namespace LAMMPS_NS

#endif
