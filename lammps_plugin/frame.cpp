// SPDX-License-Identifier: GPL-2.0-only

#include "frame.h"

#include "collective.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "neighbor.h"
#include "update.h"

#include <algorithm>
#include <cmath>
#include <map>

using namespace LAMMPS_NS;

namespace {

// Stamps are the same on all ranks and never used twice in a process.
int64_t new_stamp()
{
  static int64_t last = 0;
  return ++last;
}

}    // namespace

std::shared_ptr<Frame> Frame::of(LAMMPS *lmp, const std::vector<int> &numbers)
{
  static std::map<std::pair<LAMMPS *, std::vector<int>>, std::weak_ptr<Frame>> known;
  auto &entry = known[{lmp, numbers}];
  auto found = entry.lock();
  if (!found) entry = found = std::make_shared<Frame>(lmp, numbers);
  return found;
}

void Frame::refresh(const std::string &style)
{
  if (is_unchanged()) return;
  step_ = -1;
  structure_.stamp = 0;
  if (!petdos::find_units(update->unit_style, units_))
    fail_everywhere(lmp, style, std::string("got units ") + update->unit_style +
                                    ", which have no length and energy; use metal, real, si, cgs, electron, micro or nano");
  gather(style);
  set_cell();
  step_ = update->ntimestep;
  structure_.stamp = new_stamp();
}

std::vector<double> Frame::sum_to_owners(const std::vector<double> &of_all) const
{
  std::vector<double> own(3 * local_.size());
  MPI_Reduce_scatter(of_all.data(), own.data(), counts_.data(), MPI_DOUBLE, MPI_SUM, world);
  return own;
}

double Frame::memory_usage() const
{
  return static_cast<double>(sizeof(double) * (structure_.positions.size() + positions_.size()) +
                             sizeof(int) * (structure_.numbers.size() + types_.size() + local_.size()));
}

// Positions are compared, too: they change within a step under minimize, fix atom/swap, or run 0 after displace_atoms.
bool Frame::is_unchanged()
{
  const size_t n = atom->nlocal;
  const double *x = n ? atom->x[0] : nullptr;
  const double box[9] = {domain->boxlo[0], domain->boxlo[1], domain->boxlo[2], domain->boxhi[0], domain->boxhi[1],
                         domain->boxhi[2], domain->xy,       domain->xz,       domain->yz};
  int same = step_ == update->ntimestep && types_.size() == n && std::equal(box, box + 9, box_) &&
      std::equal(periodic_, periodic_ + 3, domain->periodicity) && std::equal(positions_.begin(), positions_.end(), x) &&
      std::equal(types_.begin(), types_.end(), atom->type) && left_out_ == left_out();
  int everywhere = 0;
  MPI_Allreduce(&same, &everywhere, 1, MPI_INT, MPI_MIN, world);
  if (everywhere) return true;
  std::copy(box, box + 9, box_);
  std::copy(domain->periodicity, domain->periodicity + 3, periodic_);
  positions_.assign(x, x + 3 * n);
  types_.assign(atom->type, atom->type + n);
  left_out_ = left_out();
  return false;
}

// Own atoms that interact with nothing.
std::vector<int> Frame::left_out() const
{
  int groups = 0;
  for (int m = 0; m < neighbor->nex_group; ++m) {
    if (neighbor->ex1_group[m] == 0) groups |= neighbor->ex2_bit[m];
    if (neighbor->ex2_group[m] == 0) groups |= neighbor->ex1_bit[m];
  }
  std::vector<int> found;
  for (int i = 0; groups && i < atom->nlocal; ++i)
    if (atom->mask[i] & groups) found.push_back(i);
  return found;
}

void Frame::gather(const std::string &style)
{
  local_.clear();
  std::vector<int> own_numbers;
  std::vector<double> own_positions;
  for (size_t i = 0; i < types_.size(); ++i) {
    const bool is_out = std::binary_search(left_out_.begin(), left_out_.end(), static_cast<int>(i));
    if (is_out || numbers_[types_[i]] == 0) continue;
    local_.push_back(static_cast<int>(i));
    own_numbers.push_back(numbers_[types_[i]]);
    // From the corner of the box: a model in single precision has no digits to waste on where the box is.
    for (int k = 0; k < 3; ++k) own_positions.push_back(units_.length_A * (positions_[3 * i + k] - domain->boxlo[k]));
  }
  const int count = static_cast<int>(local_.size());
  std::vector<int> counts(comm->nprocs), starts(comm->nprocs, 0);
  MPI_Allgather(&count, 1, MPI_INT, counts.data(), 1, MPI_INT, world);
  for (int rank = 1; rank < comm->nprocs; ++rank) starts[rank] = starts[rank - 1] + counts[rank - 1];
  first_ = starts[comm->me];
  const int n = starts.back() + counts.back();
  structure_.numbers.resize(n);
  MPI_Allgatherv(own_numbers.data(), count, MPI_INT, structure_.numbers.data(), counts.data(), starts.data(), MPI_INT, world);

  for (int rank = 0; rank < comm->nprocs; ++rank) {
    counts[rank] *= 3;
    starts[rank] *= 3;
  }
  counts_ = counts;
  structure_.positions.resize(3 * static_cast<size_t>(n));
  MPI_Allgatherv(own_positions.data(), 3 * count, MPI_DOUBLE, structure_.positions.data(), counts.data(), starts.data(),
                 MPI_DOUBLE, world);
  if (!std::all_of(structure_.positions.begin(), structure_.positions.end(), [](double x) { return std::isfinite(x); }))
    fail_everywhere(lmp, style, "positions are not finite (NaN or infinite); the simulation has probably exploded, use a shorter "
                                "timestep");
}

void Frame::set_cell()
{
  const double rows[3][3] = {{domain->xprd, 0.0, 0.0},
                             {domain->triclinic ? domain->xy : 0.0, domain->yprd, 0.0},
                             {domain->triclinic ? domain->xz : 0.0, domain->triclinic ? domain->yz : 0.0, domain->zprd}};
  for (int a = 0; a < 3; ++a) {
    structure_.periodic[a] = domain->periodicity[a] != 0;
    for (int b = 0; b < 3; ++b) structure_.cell[a][b] = structure_.periodic[a] ? units_.length_A * rows[a][b] : 0.0;
  }
}
