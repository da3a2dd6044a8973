// SPDX-License-Identifier: GPL-2.0-only
// Integrals of a piecewise linear density of states with Fermi-Dirac functions as sums over its nodal values: each function of
// x = (E - mu) / kT that decays away from mu is integrated by parts twice. src/petdos_md/physics/fermi_integrals.py explains it, and the
// tests compare with it.

#include "hot_electrons.h"

#include "occupation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <stdexcept>
#include <string>

namespace petdos {
namespace {

constexpr double MAX_OCCUPATION = 2e-3;    // of the highest states
constexpr double LEAST_DENSITY = 0.02;     // states/eV/electron below which nothing is known of states
constexpr double HOTTEST_K = 1e6;
constexpr double EMPTY = 2.5e-3;    // states/eV/electron: far below it, the smearing did not change the ground state
constexpr double DELTA = 1e-3;      // relative step of T in numerical derivatives
constexpr double PI2 = 9.869604401089358;

// Functions of x >= 0 with u = exp(-x): f, log(1 + u), -Li2(-u), -Li3(-u), the last two as series in log(1 + u) with Bernoulli numbers.
struct NodeFunctions {
  double x, f, log1, li2, li3;

  explicit NodeFunctions(double distance) : x(distance)
  {
    const double u = std::exp(-x);
    f = u / (1 + u);
    log1 = std::log1p(u);
    static const Series series;
    double two = 0.0, three = 0.0;
    for (int k = N - 1; k >= 0; --k) {
      two = two * log1 + series.two[k];
      three = three * log1 + series.three[k];
    }
    li2 = two * log1;
    li3 = three * log1;
  }

 private:
  static constexpr int N = 17;

  struct Series {
    std::array<double, N> two{}, three{};

    Series()
    {
      constexpr double BERNOULLI[N] = {1.0, -0.5, 1.0 / 6, 0, -1.0 / 30, 0, 1.0 / 42, 0, -1.0 / 30, 0, 5.0 / 66, 0, -691.0 / 2730, 0,
                                       7.0 / 6, 0, -3617.0 / 510};
      double factorial = 1.0;
      std::array<double, N> inverse{};
      for (int k = 0; k < N; ++k) {
        const double b = (k % 2 ? -1 : 1) * BERNOULLI[k];
        inverse[k] = b / factorial;
        factorial *= k + 1;
        two[k] = b / factorial;
      }
      for (int k = 0; k < N; ++k) {
        for (int j = 0; j <= k; ++j) three[k] += two[j] * inverse[k - j];
        three[k] /= k + 1;
      }
    }
  };
};

// As in petdos_md.physics.fermi_integrals: odd or even about mu, the power of kT, the weight of the contact term, and the first and
// second antiderivative from x to infinity.
struct Functional {
  bool odd;
  int power;
  double contact;
  double (*once)(const NodeFunctions &);
  double (*twice)(const NodeFunctions &);
};

const Functional NUMBER{true, 1, PI2 / 6, [](const NodeFunctions &a) { return a.log1; }, [](const NodeFunctions &a) { return a.li2; }};
const Functional ENERGY{false, 2, PI2 / 6, [](const NodeFunctions &a) { return a.x * a.log1 + a.li2; },
                        [](const NodeFunctions &a) { return a.x * a.li2 + 2 * a.li3; }};
const Functional ENTROPY{false, 1, PI2 / 3, [](const NodeFunctions &a) { return a.x * a.log1 + 2 * a.li2; },
                         [](const NodeFunctions &a) { return a.x * a.li2 + 3 * a.li3; }};
const Functional K0{false, 0, 1.0, [](const NodeFunctions &a) { return a.f; }, [](const NodeFunctions &a) { return a.log1; }};
const Functional K1{true, 1, PI2 / 3, [](const NodeFunctions &a) { return a.x * a.f + a.log1; },
                    [](const NodeFunctions &a) { return a.x * a.log1 + 2 * a.li2; }};
const Functional K2{false, 2, PI2 / 3, [](const NodeFunctions &a) { return a.x * (a.x * a.f + 2 * a.log1) + 2 * a.li2; },
                    [](const NodeFunctions &a) { return a.x * (a.x * a.log1 + 4 * a.li2) + 6 * a.li3; }};

const Functional DK0{true, -1, 1.0, [](const NodeFunctions &a) { return a.f * (1 - a.f); }, [](const NodeFunctions &a) { return a.f; }};
const Functional DK1{false, 0, 0.0, [](const NodeFunctions &a) { return a.x * a.f * (1 - a.f); },
                     [](const NodeFunctions &a) { return a.x * a.f + a.log1; }};

class Electrons {
 public:
  Electrons(const std::vector<double> &energies, const std::vector<double> &dos) : e_(energies), g_(dos), n_(energies.size()) {}

  // Weights of the nodal values.
  std::vector<double> weights(const Functional &h, double mu, double kT) const
  {
    std::vector<double> result(n_, 0.0), twice(n_);
    double first = 0.0, last = 0.0;
    for (size_t i = 0; i < n_; ++i) {
      const double x = (e_[i] - mu) / kT;
      const NodeFunctions node(std::abs(x));
      twice[i] = h.odd && x < 0 ? -h.twice(node) : h.twice(node);
      const double once = !h.odd && x < 0 ? -h.once(node) : h.once(node);
      if (i == 0) first = once;
      if (i + 1 == n_) last = once;
    }
    for (size_t i = 0; i + 1 < n_; ++i) {
      const double slope = kT * (twice[i + 1] - twice[i]) / (e_[i + 1] - e_[i]);
      result[i] += slope;
      result[i + 1] -= slope;
    }
    result[0] += first;
    result[n_ - 1] -= last;
    size_t i;
    double t, step;
    if (inside(mu, i, t, step)) {
      result[i] += h.odd ? -h.contact * kT / step : h.contact * (1 - t);
      result[i + 1] += h.odd ? h.contact * kT / step : h.contact * t;
    }
    const double scale = std::pow(kT, h.power);
    for (double &w : result) w *= scale;
    return result;
  }

  // Weights of the integrals of g and of g (E - mu) over all energies below mu.
  void step_weights(double mu, std::vector<double> &count, std::vector<double> &energy) const
  {
    count.assign(n_, 0.0);
    energy.assign(n_, 0.0);
    for (size_t i = 0; i + 1 < n_ && e_[i + 1] <= mu; ++i) {
      const double step = e_[i + 1] - e_[i], shift = e_[i] - mu;
      count[i] += step / 2;
      count[i + 1] += step / 2;
      energy[i] += step * (shift / 2 + step / 6);
      energy[i + 1] += step * (shift / 2 + step / 3);
    }
    size_t i;
    double t, step;
    if (!inside(mu, i, t, step) || t == 1.0) return;
    count[i] += step * t * (1 - t / 2);
    count[i + 1] += step * t * t / 2;
    energy[i] += step * step * t * t * (t / 6 - 0.5);
    energy[i + 1] -= step * step * t * t * t / 6;
  }

  double integral(const std::vector<double> &w) const
  {
    double sum = 0.0;
    for (size_t i = 0; i < n_; ++i) sum += w[i] * g_[i];
    return sum;
  }

  double integral(const Functional &h, double mu, double kT) const { return integral(weights(h, mu, kT)); }

  // g(E_F), gently cut off to zero in a gap, where E_F does not respond linearly; adds `factor` times its response to the DOS.
  double ground_density(double level, double n_electrons, double factor, std::vector<double> &kernel) const
  {
    size_t i;
    double t, step;
    if (!inside(level, i, t, step)) return 0.0;
    const double slope = (g_[i + 1] - g_[i]) / step, g = std::max(g_[i] + slope * t * step, 0.0), g0 = EMPTY * n_electrons;
    const double sum = g * g + g0 * g0, by_g_over_g = g * (g * g + 3 * g0 * g0) / (sum * sum);
    std::vector<double> count, energy;
    step_weights(level, count, energy);
    for (size_t j = 0; j < n_; ++j) kernel[j] -= factor * slope * by_g_over_g * count[j];
    kernel[i] += factor * by_g_over_g * g * (1 - t);
    kernel[i + 1] += factor * by_g_over_g * g * t;
    return g * g * g / sum;
  }

  // Entropy (eV/K) without a smearing: -dF/dT at a constant number of electrons.
  double entropy(double mu, double kT, double half_square) const
  {
    const double smeared = BOLTZMANN_EV * integral(ENTROPY, mu, kT);
    if (half_square == 0) return smeared;
    const double k0 = integral(K0, mu, kT), k1 = integral(K1, mu, kT);
    return smeared - half_square * (integral(DK1, mu, kT) - integral(DK0, mu, kT) * k1 / k0) * BOLTZMANN_EV / kT;
  }

  double number(double mu, double kT) const
  {
    std::vector<double> count, energy;
    step_weights(mu, count, energy);
    return integral(count) + integral(weights(NUMBER, mu, kT));
  }

  // NaN if there is none within the energies. N(mu) rises where kT is far above the ripples of a prediction.
  double chemical_potential(double level, double n_electrons, double kT) const
  {
    double low = level, high = level, below = number(level, kT) - n_electrons, above = below;
    double reach = std::max(kT, e_[1] - e_[0]);
    for (; below > 0; reach *= 2) {
      if (low == e_.front()) return std::numeric_limits<double>::quiet_NaN();
      below = number(low = std::max(e_.front(), low - reach), kT) - n_electrons;
    }
    for (reach = std::max(kT, e_[1] - e_[0]); above < 0; reach *= 2) {
      if (high == e_.back()) return std::numeric_limits<double>::quiet_NaN();
      above = number(high = std::min(e_.back(), high + reach), kT) - n_electrons;
    }
    // Regula falsi that halves the weight of an end that stays (Illinois), and bisects where that is slow.
    int side = 0;
    for (int iteration = 0; iteration < 200 && high - low > 1e-13 * std::max(1.0, std::abs(low)); ++iteration) {
      double mu = (below == above || iteration % 4 == 3) ? (low + high) / 2 : (low * above - high * below) / (above - below);
      if (!(mu > low && mu < high)) mu = (low + high) / 2;
      const double excess = number(mu, kT) - n_electrons;
      if (excess == 0) return mu;
      if (excess < 0) {
        low = mu;
        below = excess;
        if (side == -1) above /= 2;
        side = -1;
      } else {
        high = mu;
        above = excess;
        if (side == 1) below /= 2;
        side = 1;
      }
    }
    return (low + high) / 2;
  }

  double highest_state(double n_electrons) const
  {
    for (size_t i = n_; i > 0; --i)
      if (g_[i - 1] > LEAST_DENSITY * n_electrons) return e_[i - 1];
    return e_.front();
  }

 private:
  // Segment and fraction of a mu within the energies.
  bool inside(double mu, size_t &i, double &t, double &step) const
  {
    if (!(mu > e_.front() && mu <= e_.back())) return false;
    i = static_cast<size_t>(std::lower_bound(e_.begin(), e_.end(), mu) - e_.begin()) - 1;
    step = e_[i + 1] - e_[i];
    t = (mu - e_[i]) / step;
    return true;
  }

  const std::vector<double> &e_, &g_;
  size_t n_;
};

bool fits(double top, double mu, double kT)
{
  return top - mu >= kT * std::log(1 / MAX_OCCUPATION - 1);
}

[[noreturn]] void fail_too_hot(const Electrons &electrons, double level, double n_electrons, double temperature_K)
{
  const double top = electrons.highest_state(n_electrons);
  double low = 10.0, high = HOTTEST_K;
  while (high / low > 1.001) {
    const double middle = std::sqrt(low * high), kT = BOLTZMANN_EV * middle;
    (fits(top, electrons.chemical_potential(level, n_electrons, kT), kT) ? low : high) = middle;
  }
  char text[256];
  std::snprintf(text, sizeof(text),
                "electrons at %g K fill more than %g of the states at %.4g eV, where those that the model knows end; expected at most "
                "%.3g K for this structure, or a model of states further up",
                temperature_K, MAX_OCCUPATION, top, low);
  throw std::runtime_error(text);
}

[[noreturn]] void fail_too_cold(double temperature_K, double smearing_eV)
{
  char text[256];
  std::snprintf(text, sizeof(text),
                "a smearing of %g eV cannot be undone at %g K, where kT is %.3g eV; expected %.0f K or more, or no undo_smearing",
                smearing_eV, temperature_K, BOLTZMANN_EV * temperature_K, std::ceil(smearing_eV / BOLTZMANN_EV));
  throw std::runtime_error(text);
}

// Undoes a Gaussian to second order: an integral of g with h becomes that with h - s^2 / 2 h''.
void undo_smearing(const Electrons &electrons, double level, double n_electrons, double kT, double half_square, HotElectrons &found)
{
  const double mu = found.chemical_potential;
  const auto k0 = electrons.weights(K0, mu, kT), below = electrons.weights(NUMBER, mu, kT);
  std::vector<double> count, energy;
  electrons.step_weights(mu, count, energy);
  const double of_k0 = electrons.integral(k0), ratio = electrons.integral(DK0, mu, kT) / of_k0;
  for (size_t i = 0; i < k0.size(); ++i) found.kernel[i] += half_square * (k0[i] - ratio * (count[i] + below[i]));
  const double ground = electrons.ground_density(level, n_electrons, -half_square, found.kernel);
  found.free_energy += half_square * (of_k0 - ground);
  found.entropy = electrons.entropy(mu, kT, half_square);
  double entropies[2];
  for (int k = 0; k < 2; ++k) {
    const double other = kT * (k ? 1 - DELTA : 1 + DELTA);
    entropies[k] = electrons.entropy(electrons.chemical_potential(level, n_electrons, other), other, half_square);
  }
  found.heat_capacity = (entropies[0] - entropies[1]) / (2 * DELTA);
}

}    // namespace

HotElectrons hot_electrons(const std::vector<double> &energies, const std::vector<double> &dos, double n_electrons,
                           double temperature_K, double smearing_eV)
{
  if (smearing_eV > BOLTZMANN_EV * temperature_K * (1 + 1e-9)) fail_too_cold(temperature_K, smearing_eV);
  const Electrons electrons(energies, dos);
  const double level = ground_state_level(energies, dos, n_electrons), kT = BOLTZMANN_EV * temperature_K;
  if (std::isnan(level))
    throw std::runtime_error("the energies of the model cannot hold the electrons; check the elements and `electrons`");
  const double mu = electrons.chemical_potential(level, n_electrons, kT);
  if (!fits(electrons.highest_state(n_electrons), mu, kT)) fail_too_hot(electrons, level, n_electrons, temperature_K);

  HotElectrons found;
  std::vector<double> count, energy, cold;
  electrons.step_weights(level, count, cold);
  electrons.step_weights(mu, count, energy);
  const auto u = electrons.weights(ENERGY, mu, kT), s = electrons.weights(ENTROPY, mu, kT);
  found.kernel.resize(energies.size());
  for (size_t i = 0; i < energies.size(); ++i) found.kernel[i] = energy[i] + u[i] - kT * s[i] - cold[i];
  found.chemical_potential = mu;
  found.free_energy = electrons.integral(found.kernel) + (mu - level) * n_electrons;
  found.entropy = BOLTZMANN_EV * electrons.integral(s);
  const double k0 = electrons.integral(K0, mu, kT), k1 = electrons.integral(K1, mu, kT);
  const double k2 = electrons.integral(K2, mu, kT);
  found.heat_capacity = k0 > 0 ? std::max(k2 - k1 * k1 / k0, 0.0) / temperature_K : 0.0;
  if (kT < SMEARING_EV) {
    std::vector<double> unused(energies.size(), 0.0);
    const double ground = electrons.ground_density(level, n_electrons, 0.0, unused);
    found.smearing_share = SMEARING_EV * SMEARING_EV / 2 * (ground - k0);
  }
  if (smearing_eV > 0) undo_smearing(electrons, level, n_electrons, kT, smearing_eV * smearing_eV / 2, found);
  found.thermal_energy = found.free_energy + temperature_K * found.entropy;
  return found;
}

}    // namespace petdos
