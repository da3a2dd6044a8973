// SPDX-License-Identifier: GPL-2.0-only
// Where several levels hold the electrons, because a predicted DOS dips below zero, the one is taken that charge relaxation reaches
// from the middle between the lowest and the highest; src/petdos_md/physics/occupation.py explains it, and the tests compare with it.

#include "occupation.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace petdos {
namespace {

constexpr double NEUTRAL = 1e-10;     // relative error of the electron number that counts as rounding in a gap
constexpr double OVERFULL = 1e-3;     // relative excess of electrons at which the search for further roots ends
constexpr double EQUAL_EV = 1e-10;    // free energies that differ by less are those of one gap

class Occupation {
 public:
  Occupation(const std::vector<double> &energies, const std::vector<double> &dos, double n_electrons)
      : e_(energies), g_(dos), n_electrons_(n_electrons), n_(energies.size()), excess_(n_), neutral_(n_)
  {
    count();
  }

  double fermi_level()
  {
    const std::vector<size_t> segments = rising_within_limit();
    if (segments.empty()) return std::numeric_limits<double>::quiet_NaN();
    const double lowest = root(segments.front());
    if (segments.size() == 1) return lowest;
    return relaxed((lowest + root(segments.back())) / 2, segments);
  }

  double variational_level()
  {
    double level = fermi_level();
    if (std::isnan(level)) return level;
    const double reference = surplus(level);
    double best = reference + EQUAL_EV;
    for (size_t i : rising_within_limit()) {
      const double value = surplus(root(i));
      if (value > best) {
        best = value;
        level = root(i);
      }
    }
    return level;
  }

 private:
  std::vector<size_t> rising_within_limit() const
  {
    std::vector<bool> rising = rising_segments();
    size_t limit = n_ - 2;
    for (size_t i = 0; i + 1 < n_; ++i) {
      if (excess_[i + 1] > OVERFULL * n_electrons_) {
        limit = i;
        break;
      }
    }
    std::vector<size_t> segments;
    for (size_t i = 0; i <= limit; ++i)
      if (rising[i]) segments.push_back(i);
    return segments;
  }

  // Omega(mu) + mu N at T = 0 from the first energy on.
  double surplus(double mu) const
  {
    double sum = 0.0;
    for (size_t i = 0; i + 1 < n_ && e_[i] < mu; ++i) {
      const double t = std::min(step(i), mu - e_[i]);
      sum -= t * (excess_[i] + t * (g_[i] / 2 + t * slope(i) / 6));
    }
    return sum;
  }

  double step(size_t i) const { return e_[i + 1] - e_[i]; }
  double slope(size_t i) const { return (g_[i + 1] - g_[i]) / step(i); }
  double increment(size_t i) const { return 0.5 * step(i) * (g_[i + 1] + g_[i]); }
  bool is_neutral(double excess) const { return std::abs(excess) <= NEUTRAL * n_electrons_; }

  // States below each grid point minus electrons. In a neutral gap the count starts there and goes outwards.
  void count()
  {
    double sum = 0.0;
    for (size_t i = 0; i < n_; ++i) {
      excess_[i] = sum - n_electrons_;
      if (i + 1 < n_) sum += increment(i);
    }
    std::vector<bool> in_gap(n_, false);
    bool any = false;
    for (size_t i = 0; i + 1 < n_; ++i) {
      if (is_neutral(excess_[i]) && is_neutral(excess_[i + 1])) {
        in_gap[i] = any = true;
      }
    }
    if (any) {
      size_t last = 0;
      for (size_t i = 0; i < n_; ++i)
        if (in_gap[i]) last = i;
      in_gap[last + 1] = true;
      size_t zero = n_;
      for (size_t i = 0; i < n_; ++i)
        if (in_gap[i] && (zero == n_ || std::abs(g_[i]) < std::abs(g_[zero]))) zero = i;
      excess_[zero] = 0.0;
      sum = 0.0;
      for (size_t i = zero; i + 1 < n_; ++i) excess_[i + 1] = sum += increment(i);
      sum = 0.0;
      for (size_t i = zero; i > 0; --i) excess_[i - 1] = -(sum += increment(i - 1));
    }
    for (size_t i = 0; i < n_; ++i) neutral_[i] = is_neutral(excess_[i]);
  }

  std::vector<bool> rising_segments() const
  {
    std::vector<bool> rising(n_ - 1);
    for (size_t i = 0; i + 1 < n_; ++i) {
      const double left = excess_[i], right = excess_[i + 1];
      rising[i] = (left < 0 && right >= 0) || (left <= 0 && right > 0);
      // Segments that the excess enters and leaves on one side, but crosses zero twice in between.
      if ((g_[i] < 0) != (g_[i + 1] < 0)) {
        const double turn = left - g_[i] * g_[i] / (2 * slope(i));
        if (g_[i] < 0 ? (left > 0 && right > 0 && turn < 0) : (left < 0 && right < 0 && turn > 0)) rising[i] = true;
      }
    }
    return rising;
  }

  // The one root of the parabolic excess in a segment at which it rises.
  double root(size_t i) const
  {
    const double h = step(i), a = -excess_[i], b = h * g_[i], c = h * h * slope(i) / 2;
    const double r = std::sqrt(std::max(b * b + 4 * c * a, 0.0));
    double t = b >= 0 ? 2 * a / (b + r) : (r - b) / (2 * c);
    if (std::isnan(t)) t = a > 0 ? 1.0 : 0.0;
    return e_[i] + std::min(std::max(t, 0.0), 1.0) * h;
  }

  long segment_of(double mu) const
  {
    return static_cast<long>(std::lower_bound(e_.begin(), e_.end(), mu) - e_.begin()) - 1;
  }

  double excess_at(double mu) const
  {
    const long segment = segment_of(mu);
    const auto i = static_cast<size_t>(std::max(segment, 0L));
    if (segment < 0 || segment >= static_cast<long>(n_) - 1) return excess_[std::min(i, n_ - 1)];
    const double value = g_[i] + slope(i) * (mu - e_[i]);
    return excess_[i] + (mu - e_[i]) * (value + g_[i]) / 2;
  }

  // The middle of the neutral gap that holds `start`; NaN if it is in none.
  double neutral_middle(double start) const
  {
    const long segment = std::min(std::max(segment_of(start), 0L), static_cast<long>(n_) - 2);
    auto first = static_cast<size_t>(segment), last = first;
    if (!(neutral_[first] && neutral_[first + 1])) return std::numeric_limits<double>::quiet_NaN();
    while (first > 0 && neutral_[first - 1]) --first;
    while (last + 1 < n_ && neutral_[last + 1]) ++last;
    return (e_[first] + e_[last]) / 2;
  }

  double relaxed(double start, const std::vector<size_t> &segments) const
  {
    const double middle = neutral_middle(start);
    if (!std::isnan(middle)) return middle;
    const double excess = excess_at(start);
    if (excess == 0) return start;
    const double nothing = std::numeric_limits<double>::quiet_NaN();
    double above = nothing, below = nothing, nearest = nothing;
    for (size_t i : segments) {
      const double level = root(i);
      if (level >= start && !(level >= above)) above = level;
      if (level <= start && !(level <= below)) below = level;
      if (!(std::abs(level - start) >= std::abs(nearest - start))) nearest = level;
    }
    const double reached = excess < 0 ? above : below;
    return std::isnan(reached) ? nearest : reached;
  }

  const std::vector<double> &e_, &g_;
  double n_electrons_;
  size_t n_;
  std::vector<double> excess_;
  std::vector<bool> neutral_;
};

}    // namespace

double fermi_level(const std::vector<double> &energies, const std::vector<double> &dos, double n_electrons)
{
  return Occupation(energies, dos, n_electrons).fermi_level();
}

double ground_state_level(const std::vector<double> &energies, const std::vector<double> &dos, double n_electrons)
{
  return Occupation(energies, dos, n_electrons).variational_level();
}

}    // namespace petdos
