// SPDX-License-Identifier: GPL-2.0-only

#include "passes.h"

#include <map>

namespace petdos {

using metatensor_torch::Labels;
using metatensor_torch::LabelsHolder;
using metatensor_torch::TensorMap;
using metatensor_torch::TensorMapHolder;
using metatomic_torch::ModelOutput;
using metatomic_torch::ModelOutputHolder;
using metatomic_torch::System;

namespace {

torch::Tensor table(const torch::IValue &map)
{
  const auto tensor = TensorMapHolder::block_by_id(map.toCustomClass<TensorMapHolder>(), 0)->values();
  return tensor.reshape({tensor.size(0), -1});
}

// Rows in the order of atoms.
torch::Tensor by_atom(const TensorMap &map)
{
  const auto block = TensorMapHolder::block_by_id(map, 0);
  const auto values = block->values();
  const auto numbers = block->samples()->column("atom").to(torch::kLong);
  const auto rows = values.reshape({values.size(0), -1});
  if (numbers.size(0) == 0 || torch::equal(numbers, torch::arange(numbers.size(0), numbers.options()))) return rows;
  return rows.index_select(0, torch::argsort(numbers));
}

class AutogradPass : public Pass {
 public:
  Leaves leaves;
  torch::Tensor energy, features;

  Derivatives derive(double energy_weight, const torch::Tensor &cotangent, bool again) override
  {
    std::vector<torch::Tensor> outputs, seeds;
    const auto add = [&](const torch::Tensor &output, const torch::Tensor &seed) {
      if (!output.defined() || !output.requires_grad()) return;    // an atom without neighbors, for example
      outputs.push_back(output);
      seeds.push_back(seed.to(output.options()).expand_as(output));
    };
    if (energy.defined() && energy_weight != 0.0) add(energy, torch::full({}, energy_weight));
    if (features.defined() && cotangent.defined()) add(features, cotangent.reshape({1, -1}));
    Derivatives found{torch::zeros_like(leaves.positions), torch::zeros_like(leaves.strain)};
    if (outputs.empty()) return found;
    const auto gradients = torch::autograd::grad(outputs, {leaves.positions, leaves.strain}, seeds, again, false, true);
    if (gradients[0].defined()) found.by_positions = gradients[0];
    if (gradients[1].defined()) found.by_strain = gradients[1];
    return found;
  }
};

class SlicedPass : public Pass {
 public:
  torch::jit::Module network;
  torch::IValue graph, slices, states;
  c10::Dict<std::string, torch::Tensor> of_energy;    // derivatives of the energy by its features
  std::string head;                                   // of the features

  Derivatives derive(double energy_weight, const torch::Tensor &cotangent, bool) override
  {
    c10::Dict<std::string, torch::Tensor> cotangents;
    torch::Tensor weights;
    if (energy_weight != 0.0) {
      for (const auto &entry : of_energy) {
        const auto scaled = entry.value().to(torch::kFloat64) * energy_weight;
        if (entry.key() == "weights")
          weights = scaled;
        else
          cotangents.insert(entry.key(), scaled);
      }
    }
    if (cotangent.defined() && !head.empty()) {
      const auto row = cotangent.reshape({1, -1});
      const auto last = row.narrow(1, row.size(1) - 1, 1);
      cotangents.insert(head, row.narrow(1, 0, row.size(1) - 1).contiguous());
      weights = weights.defined() ? weights + last : last.contiguous();
    }
    if (weights.defined()) cotangents.insert("weights", weights);
    const auto found = network.run_method("pull_back", graph, slices, states, cotangents).toTuple()->elements();
    return {found[0].toTensor(), found[1].toTensor().reshape({3, 3})};
  }
};

// Energies of the wanted atoms, and their derivatives by the features, as SlicedPET.forward has them.
void add_energy(SlicedPass &pass, TorchModel &model, const Part &part, const std::vector<System> &systems, const torch::IValue &features)
{
  auto &network = pass.network;
  const auto device = systems.front()->positions().device();
  const auto numbers = torch::arange(part.own, torch::TensorOptions().dtype(torch::kLong).device(device));
  const auto labels = torch::stack({torch::zeros_like(numbers), numbers}, 1).to(torch::kInt32);
  const Labels atoms = torch::make_intrusive<LabelsHolder>(std::vector<std::string>{"system", "atom"}, labels,
                                                           metatensor::assume_unique{});
  const auto output = torch::make_intrusive<ModelOutputHolder>();
  output->set_sample_kind("atom");
  c10::Dict<std::string, ModelOutput> outputs;
  outputs.insert("energy", output);
  c10::Dict<std::string, TensorMap> raw;
  raw.insert("energy", network.run_method("predict", "energy", network.run_method("of_atoms", pass.graph, features, numbers),
                                          systems, atoms)
                           .toCustomClass<TensorMapHolder>());
  const auto scaled = network.run_method("scale", systems, outputs, raw, model.maker->selected(part)).toGenericDict();
  pass.tables["energy"] = by_atom(scaled.at("energy").toCustomClass<TensorMapHolder>()).detach();
  const auto sums = network.run_method("sums", pass.graph, pass.slices, features, 1, true);
  const auto system = LabelsHolder::create({"system"}, {{0}})->to(device);
  for (const auto &entry : network.run_method("energy_cotangents", sums, systems, system).toGenericDict())
    pass.of_energy.insert(entry.key().toStringRef(), entry.value().toTensor());
}

}    // namespace

Tables forward(TorchModel &model, const Part &part, const Outputs &outputs, Leaves *leaves)
{
  const std::vector<System> systems{model.maker->make(part, leaves, model.check_consistency)};
  const auto options = torch::make_intrusive<metatomic_torch::ModelEvaluationOptionsHolder>("angstrom", outputs,
                                                                                            model.maker->selected(part));
  const auto result = model.module.forward({systems, options, model.check_consistency}).toGenericDict();
  Tables tables;
  for (const auto &entry : outputs) {
    const auto map = result.at(entry.key());
    tables[entry.key()] =
        entry.value()->sample_kind() == "atom" ? by_atom(map.toCustomClass<TensorMapHolder>()) : table(map);
  }
  return tables;
}

std::unique_ptr<Pass> autograd_pass(TorchModel &model, const Part &part, const Outputs &outputs, const std::string &energy,
                                    const std::vector<std::string> &features)
{
  const torch::AutoGradMode with_gradients(true);
  auto pass = std::make_unique<AutogradPass>();
  pass->atoms = part.atoms;
  pass->tables = forward(model, part, outputs, &pass->leaves);
  if (!energy.empty()) pass->energy = pass->tables.at(energy).sum();
  std::vector<torch::Tensor> rows;
  for (const auto &name : features) rows.push_back(pass->tables.at(name).sum(0, true));
  if (!rows.empty()) pass->features = torch::cat(rows, 1);
  for (auto &entry : pass->tables) entry.second = entry.second.detach();
  return pass;
}

std::unique_ptr<Pass> sliced_pass(TorchModel &model, const Part &part, const std::string &energy, bool with_features)
{
  auto pass = std::make_unique<SlicedPass>();
  pass->atoms = part.atoms;
  pass->network = model.module.attr("module").toModule();
  const std::vector<System> systems{model.maker->make(part, nullptr, false)};
  c10::List<std::string> heads, per_atom;
  if (with_features) {
    const auto of = pass->network.attr("features_of").toGenericDict();
    pass->head = of.at(FEATURES_OUTPUT).toStringRef();
    heads.push_back(pass->head);
  }
  if (!energy.empty()) {
    heads.push_back(energy);
    per_atom.push_back(energy);
  }
  const auto prepared =
      pass->network.run_method("prepare", systems, model.maker->selected(part), true).toTuple()->elements();
  pass->graph = prepared[0];
  pass->slices = prepared[1];
  const auto found =
      pass->network.run_method("evaluate", pass->graph, pass->slices, 1, part.structure.size(), heads, per_atom, true)
          .toTuple()
          ->elements();
  pass->states = found[1];
  const auto features = found[0].toGenericDict();
  if (with_features) {
    const torch::IValue list = pass->network.run_method("sums", pass->graph, pass->slices, features.at(pass->head), 1, false);
    const auto sums = list.toListRef();    // which lives as long as the list
    pass->tables[FEATURES_OUTPUT] = torch::cat({sums[0].toTensor(), sums[2].toTensor()}, 1).detach();
  }
  if (!energy.empty()) add_energy(*pass, model, part, systems, features.at(energy));
  return pass;
}

bool is_sliced(const torch::jit::Module &module)
{
  if (!module.hasattr("module")) return false;
  const auto inner = module.attr("module").toModule();
  for (const char *method : {"prepare", "evaluate", "pull_back", "of_atoms", "predict", "scale", "sums", "energy_cotangents"})
    if (!inner.find_method(method)) return false;
  return inner.hasattr("features_of");
}

}    // namespace petdos
