// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: the present configuration as a model sees it: the atoms of all ranks, on every rank.

#ifndef PETDOS_FRAME_H
#define PETDOS_FRAME_H

#include "bridge.h"
#include "units.h"

#include "pointers.h"

#include <memory>
#include <string>
#include <vector>

namespace LAMMPS_NS {

class Frame : protected Pointers {
 public:
  // The one of this LAMMPS for atomic numbers of types, from 1 on. Atoms of a type with number 0 are left out, and so are those that
  // interact with nothing (neigh_modify exclude group G all), as fix gcmc has them while it tries to delete them.
  static std::shared_ptr<Frame> of(LAMMPS *lmp, const std::vector<int> &numbers);

  Frame(LAMMPS *lmp, const std::vector<int> &numbers) : Pointers(lmp), numbers_(numbers) {}

  // Collective. Gathers atoms unless they are where they were; `style` is who complains if they are not finite.
  void refresh(const std::string &style);

  // All atoms, in the order of ranks; own ones are `count` from `first` on, and `local` are their indices here.
  const petdos::Structure &structure() const { return structure_; }
  int first() const { return first_; }
  int count() const { return static_cast<int>(local_.size()); }
  const std::vector<int> &local() const { return local_; }

  // Collective. Sum over ranks of what each has for all atoms, (n, 3): returns the rows of the own ones, (count, 3).
  std::vector<double> sum_to_owners(const std::vector<double> &of_all) const;

  double memory_usage() const;

 private:
  bool is_unchanged();
  std::vector<int> left_out() const;
  void gather(const std::string &style);
  void set_cell();

  std::vector<int> numbers_;
  petdos::Units units_;
  petdos::Structure structure_;
  int first_ = 0;
  std::vector<int> local_, counts_;    // counts_: of ranks, times three

  // What it was gathered for.
  std::vector<double> positions_;
  std::vector<int> types_, left_out_;
  double box_[9];
  int periodic_[3];
  bigint step_ = -1;
};

}    // namespace LAMMPS_NS

#endif
