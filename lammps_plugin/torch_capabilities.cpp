// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: what a metatomic model offers, and where it can be evaluated. Of the bridge.

#include "settings.h"
#include "torch_network.h"

#include <c10/util/Exception.h>
#include <torch/cuda.h>

#include <algorithm>
#include <cmath>

namespace petdos {
namespace {

// Warnings of torch, which would be printed by each rank.
class Heard : public c10::WarningHandler {
 public:
  std::vector<std::string> messages;

  void process(const c10::Warning &warning) override { messages.push_back(warning.msg()); }
};

std::string quoted_after(const std::string &text, const std::string &word)
{
  const size_t at = text.find(word + " '");
  if (at == std::string::npos) return "";
  const size_t begin = at + word.size() + 2;
  return text.substr(begin, text.find('\'', begin) - begin);
}

metatensor_torch::Module load(const std::string &path, const std::string &extensions, std::vector<std::string> &warnings)
{
  Heard heard;
  const c10::WarningUtils::WarningHandlerGuard guard(&heard);
  torch::optional<std::string> folder;
  if (!extensions.empty()) folder = extensions;
  try {
    metatensor_torch::Module module(metatomic_torch::load_atomistic_model(path, folder));
    for (const auto &message : heard.messages)
      if (message.find("not compatible") != std::string::npos) warnings.push_back(message);
    return module;
  } catch (const std::exception &) {
    for (const auto &message : heard.messages) {
      const std::string name = quoted_after(message, "exported with extension");
      if (!name.empty())
        throw NotHere("needs the extension " + name + ", which is not found here; give the folder that holds it (extensions FOLDER), "
                      "or install its package");
    }
    throw;
  }
}

// Of NAME or NAME/variant.
bool offers(const std::vector<std::string> &outputs, const std::string &name)
{
  return std::any_of(outputs.begin(), outputs.end(), [&](const std::string &output) {
    return output == name || output.compare(0, name.size() + 1, name + "/") == 0;
  });
}

std::string listed(const std::vector<std::string> &words)
{
  std::string text;
  for (const auto &word : words) text += (text.empty() ? "" : ", ") + word;
  return text.empty() ? "none" : text;
}

}    // namespace

TorchNetwork::TorchNetwork(const std::string &path, const OpenOptions &options)
    : model_{load(path, options.extensions, capabilities_.warnings), nullptr, false}, threads_(options.threads),
      sharing_(options.sharing)
{
  const Settings settings(threads_);
  read_capabilities();
  choose_device(options.device, options.index, known_->supported_devices);
  if (!device_.is_cpu()) model_.module.to(device_);
  maker_ = std::make_unique<SystemMaker>(device_, dtype_, lists_);
  model_.maker = maker_.get();
}

void TorchNetwork::read_capabilities()
{
  auto &module = model_.module;
  known_ = module.run_method("capabilities").toCustomClass<metatomic_torch::ModelCapabilitiesHolder>();
  const auto metadata = module.run_method("metadata").toCustomClass<metatomic_torch::ModelMetadataHolder>();
  capabilities_.name = metadata->name;
  capabilities_.dtype = known_->dtype();
  dtype_ = known_->dtype() == "float64" ? torch::kFloat64 : torch::kFloat32;
  for (const auto &entry : known_->outputs()) capabilities_.outputs.push_back(entry.key());
  for (int64_t number : known_->atomic_types) capabilities_.numbers.push_back(static_cast<int>(number));
  std::sort(capabilities_.numbers.begin(), capabilities_.numbers.end());
  if (metadata->extra.contains("petdos")) capabilities_.record = metadata->extra.at("petdos");

  const auto lists = module.run_method("requested_neighbor_lists").toList();
  for (size_t i = 0; i < lists.size(); ++i) {
    lists_.push_back(lists.get(i).toCustomClass<metatomic_torch::NeighborListOptionsHolder>());
    capabilities_.cutoff = std::max(capabilities_.cutoff, lists_.back()->engine_cutoff("angstrom"));
  }
  // The declared range counts messages alone. The weight of an edge depends on the environments of both its atoms (adaptive
  // cutoffs), and so do the features of the last layer, which are averaged over both directions: two hops more.
  const double range = known_->engine_interaction_range("angstrom");
  if (!std::isfinite(range))
    capabilities_.hops = -1;
  else if (capabilities_.cutoff > 0)
    capabilities_.hops = static_cast<int>(std::ceil(range / capabilities_.cutoff - 1e-9)) + 2;
  if (module.find_method("requested_inputs")) {
    const auto inputs = module.run_method("requested_inputs", true).toGenericDict();
    if (!inputs.empty())
      throw NotHere("the model asks for " + inputs.begin()->key().toStringRef() +
                    " of the atoms, which the plugin does not give; use a model of positions and elements alone");
  }
  const auto outputs = known_->outputs();
  is_sliced_ = is_sliced(module) && outputs.contains(POSITION_GRADIENT) &&
      outputs.at("energy")->unit() == "eV" && known_->engine_interaction_range("angstrom") == known_->interaction_range;
}

void TorchNetwork::choose_device(const std::string &wanted, int index, const std::vector<std::string> &supported)
{
  std::vector<std::string> usable;
  for (const auto &name : supported)
    if (name == "cpu" || (name == "cuda" && torch::cuda::is_available())) usable.push_back(name);
  for (const auto &name : usable)
    if (capabilities_.device.empty() && (wanted.empty() || wanted == name)) capabilities_.device = name;
  if (capabilities_.device.empty())
    throw NotHere("device " + (wanted.empty() ? std::string("of the model") : wanted) +
                  " is not usable here with this model, expected one of: " + listed(usable));
  capabilities_.is_preferred = capabilities_.device == usable.front();
  if (capabilities_.device == "cuda")
    device_ = torch::Device(torch::kCUDA, static_cast<c10::DeviceIndex>(index % torch::cuda::device_count()));
}

// The name of an output for a variant; throws if there is none.
std::string TorchNetwork::output_of(const std::string &base, const std::string &variant) const
{
  torch::optional<std::string> wanted;
  if (variant != "off") wanted = variant;
  return metatomic_torch::pick_output(base, known_->outputs(), wanted);
}

std::string TorchNetwork::find_potential(const PotentialRequest &request, Potential &potential) const
{
  const auto &outputs = capabilities_.outputs;
  const auto variant = [&](const std::string &own) { return own.empty() ? request.energy : own; };
  potential = Potential();
  potential.check_consistency = request.check_consistency;
  if (!offers(outputs, "energy")) return "has no energy output, its outputs are: " + listed(outputs);
  try {
    potential.energy = output_of("energy", request.energy);
    potential.has_atoms = known_->outputs().at(potential.energy)->sample_kind() == "atom";
    if (request.with_uncertainty && offers(outputs, "energy_uncertainty")) {
      const std::string name = output_of("energy_uncertainty", variant(request.uncertainty));
      if (known_->outputs().at(name)->sample_kind() == "atom") potential.uncertainty = name;
    }
    if (request.conservative) return "";
    // metatomic named these in the plural before.
    const std::string force = offers(outputs, "non_conservative_force") ? "non_conservative_force" : "non_conservative_forces";
    if (!offers(outputs, force)) return "has no non_conservative_force output, its outputs are: " + listed(outputs);
    potential.force = output_of(force, variant(request.force));
    if (offers(outputs, "non_conservative_stress"))
      potential.stress = output_of("non_conservative_stress", variant(request.stress));
  } catch (const std::exception &error) {
    return reason_of(error);
  }
  return "";
}

}    // namespace petdos
