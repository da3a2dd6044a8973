// SPDX-License-Identifier: GPL-2.0-only

#include "torch_network.h"

#include "settings.h"

#include <torch/cuda.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace petdos {
namespace {


// Of a part whose forces come from the whole network at once, as in petdos_md.models.evaluator: faster by a third.
constexpr int MAX_ATOMS_AT_ONCE = 1000;

// Adds minus derivatives to those of the whole structure.
void subtract(const Derivatives &found, const std::vector<int> &atoms, Gradient &gradient)
{
  const auto positions = found.by_positions.to(torch::kCPU, torch::kFloat64).contiguous();
  const auto strain = found.by_strain.to(torch::kCPU, torch::kFloat64).contiguous();
  const double *by_position = positions.data_ptr<double>(), *by_strain = strain.data_ptr<double>();
  for (size_t k = 0; k < atoms.size(); ++k)
    for (int c = 0; c < 3; ++c) gradient.forces[3 * static_cast<size_t>(atoms[k]) + c] -= by_position[3 * k + c];
  for (int k = 0; k < 9; ++k) gradient.virial[k] -= by_strain[k];
}

void clear(Gradient &gradient, int n_atoms)
{
  gradient.forces.assign(3 * static_cast<size_t>(n_atoms), 0.0);
  gradient.virial.fill(0.0);
}

// Copies a column for the atoms of a part to where they are among all that are wanted.
void place(const torch::Tensor &table, const Part &part, int first, std::vector<double> &into)
{
  const auto values = table.to(torch::kCPU, torch::kFloat64).contiguous();
  if (values.numel() != part.own)
    throw std::runtime_error("the model returned " + std::to_string(values.numel()) + " numbers for " +
                             std::to_string(part.own) + " atoms");
  for (int k = 0; k < part.own; ++k) into[part.atoms[k] - first] = values.data_ptr<double>()[k];
}

double volume(const Structure &structure)
{
  const auto &a = structure.cell;
  return std::abs(a[0][0] * (a[1][1] * a[2][2] - a[1][2] * a[2][1]) - a[0][1] * (a[1][0] * a[2][2] - a[1][2] * a[2][0]) +
                  a[0][2] * (a[1][0] * a[2][1] - a[1][1] * a[2][0]));
}

}    // namespace

std::string TorchNetwork::set_outputs(const std::vector<std::string> &names, std::vector<int> &widths)
{
  if (names == names_) {
    widths = widths_;
    return "";
  }
  names_ = names;
  Part one;
  one.structure.positions = {0.0, 0.0, 0.0};
  one.structure.numbers = {capabilities_.numbers.front()};
  one.atoms = {0};
  one.own = 1;
  one.is_whole = true;
  Wanted wanted;
  wanted.features = true;
  try {
    const Settings settings(threads_);
    widths_.clear();
    const Tables tables = forward(model_, one, outputs(wanted, false), nullptr);
    for (const auto &name : names_) widths_.push_back(static_cast<int>(tables.at(name).size(1)));
  } catch (const std::exception &error) {
    names_.clear();
    return "the model cannot be evaluated: " + reason_of(error);
  }
  widths = widths_;
  return "";
}

std::string TorchNetwork::evaluate(const Structure &structure, const Wanted &wanted, Results &results)
{
  const Potential *potential = wanted.potential;
  results.features.assign(wanted.features ? std::accumulate(widths_.begin(), widths_.end(), 0) : 0, 0.0);
  results.energies.assign(potential ? (potential->has_atoms ? wanted.count : 1) : 0, 0.0);
  results.uncertainties.assign(wanted.uncertainty ? wanted.count : 0, 0.0);
  clear(results.gradient, wanted.forces ? structure.size() : 0);
  kept_.clear();
  kept_atoms_ = structure.size();
  if (wanted.count == 0) return "";
  try {
    const Settings settings(threads_);
    model_.check_consistency = potential && potential->check_consistency;
    const Structure seen = rounded(structure);
    const Graphs graphs = neighbors(seen);
    for (const Chunk &chunk : chunks(seen, graphs, wanted)) evaluate_part(cut(seen, graphs, chunk), wanted, results);
  } catch (const std::exception &error) {
    kept_.clear();
    return reason_of(error);
  }
  return "";
}

std::string TorchNetwork::derive(double energy_weight, const std::vector<double> &cotangent, Gradient &gradient)
{
  clear(gradient, kept_atoms_);
  try {
    const Settings settings(threads_);
    torch::Tensor row;
    if (!cotangent.empty()) row = torch::tensor(cotangent, torch::kFloat64).to(device_);
    for (const auto &pass : kept_) subtract(pass->derive(energy_weight, row, true), pass->atoms, gradient);
  } catch (const std::exception &error) {
    return reason_of(error);
  }
  return "";
}

// What is asked for of metatomic, in its words.
Outputs TorchNetwork::outputs(const Wanted &wanted, bool with_gradients) const
{
  Outputs outputs;
  const auto add = [&](const std::string &name, const char *kind, const char *unit) {
    if (name.empty()) return;
    auto output = torch::make_intrusive<metatomic_torch::ModelOutputHolder>();
    output->set_sample_kind(kind);
    output->set_unit(unit);
    outputs.insert(name, output);
  };
  if (wanted.features)
    for (const auto &name : names_) add(name, "system", "");
  const Potential *potential = wanted.potential;
  if (!potential) return outputs;
  add(potential->energy, potential->has_atoms ? "atom" : "system", "eV");
  if (wanted.uncertainty) add(potential->uncertainty, "atom", "eV");
  if (with_gradients) {
    add(POSITION_GRADIENT, "atom", "eV/Angstrom");
    add(STRAIN_GRADIENT, "system", "eV");
  }
  if (wanted.forces && !potential->is_conservative()) {
    add(potential->force, "atom", "eV/Angstrom");
    add(potential->stress, "system", "eV/Angstrom^3");
  }
  return outputs;
}

void TorchNetwork::evaluate_part(const Part &part, const Wanted &wanted, Results &results)
{
  const Potential *potential = wanted.potential;
  const bool derivatives = wanted.forces && potential && potential->is_conservative();
  const bool in_slices = derivatives && is_sliced_ && potential->energy == "energy" && part.structure.size() > MAX_ATOMS_AT_ONCE;
  if (wanted.keep || (derivatives && !in_slices)) {
    // A pass that goes slice by slice has no energies of single atoms: how uncertain these are takes another one.
    Wanted asked = wanted;
    asked.uncertainty = wanted.uncertainty && !(wanted.keep && is_sliced_ && part.structure.size() > MAX_ATOMS_AT_ONCE);
    auto pass = differentiable(part, asked);
    collect(part, pass->tables, asked, results);
    if (wanted.uncertainty && !asked.uncertainty) {
      Outputs rest;
      rest.insert(potential->uncertainty, outputs(wanted, false).at(potential->uncertainty));
      place(forward(model_, part, rest, nullptr).at(potential->uncertainty), part, wanted.first, results.uncertainties);
    }
    if (!wanted.keep)
      subtract(pass->derive(1.0, torch::Tensor(), false), part.atoms, results.gradient);
    else
      kept_.push_back(std::move(pass));
    return;
  }
  const Tables tables = forward(model_, part, outputs(wanted, in_slices), nullptr);
  collect(part, tables, wanted, results);
  if (in_slices)
    subtract({tables.at(POSITION_GRADIENT).reshape({-1, 3}), tables.at(STRAIN_GRADIENT).reshape({3, 3})}, part.atoms,
             results.gradient);
  else if (wanted.forces)
    collect_forces(part, tables, *potential, results);
}

std::unique_ptr<Pass> TorchNetwork::differentiable(const Part &part, const Wanted &wanted)
{
  const std::string energy = wanted.potential ? wanted.potential->energy : "";
  const bool own_features = !wanted.features || (names_.size() == 1 && names_[0] == FEATURES_OUTPUT);
  if (wanted.keep && is_sliced_ && own_features && !wanted.uncertainty && (energy.empty() || energy == "energy") &&
      part.structure.size() > MAX_ATOMS_AT_ONCE)
    return sliced_pass(model_, part, energy, wanted.features);
  return autograd_pass(model_, part, outputs(wanted, false), energy,
                       wanted.features ? names_ : std::vector<std::string>());
}

// Features are summed, energies put in their place.
void TorchNetwork::collect(const Part &part, const Tables &tables, const Wanted &wanted, Results &results) const
{
  if (wanted.features) {
    size_t begin = 0;
    for (const auto &name : names_) {
      const auto total = tables.at(name).to(torch::kFloat64).sum(0).to(torch::kCPU).contiguous();
      for (int64_t k = 0; k < total.size(0); ++k) results.features[begin + k] += total.data_ptr<double>()[k];
      begin += total.size(0);
    }
  }
  if (!wanted.potential) return;
  const auto &energies = tables.at(wanted.potential->energy);
  if (wanted.potential->has_atoms)
    place(energies, part, wanted.first, results.energies);
  else
    results.energies[0] += energies.to(torch::kFloat64).sum().item<double>();
  if (wanted.uncertainty) place(tables.at(wanted.potential->uncertainty), part, wanted.first, results.uncertainties);
}

// Forces that the model predicts themselves.
void TorchNetwork::collect_forces(const Part &part, const Tables &tables, const Potential &potential, Results &results) const
{
  const auto forces = tables.at(potential.force).to(torch::kFloat64);
  const std::vector<int> own(part.atoms.begin(), part.atoms.begin() + part.own);
  auto strain = torch::zeros({3, 3}, torch::kFloat64);
  const Structure &structure = part.structure;
  if (!potential.stress.empty() && structure.periodic[0] && structure.periodic[1] && structure.periodic[2])
    strain = tables.at(potential.stress).to(torch::kCPU, torch::kFloat64).reshape({3, 3}) * volume(structure);
  subtract({-forces.reshape({-1, 3}), strain}, own, results.gradient);
}

}    // namespace petdos
