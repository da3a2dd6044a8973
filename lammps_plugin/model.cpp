// SPDX-License-Identifier: GPL-2.0-only

#include "model.h"

#include "files.h"

#include "json.h"

#include <algorithm>
#include <numeric>

using LAMMPS_NS::json;

namespace petdos {
namespace {

// The features in two outputs, as older exports have them.
constexpr const char *LAST_LAYER_OUTPUT = "mtt::aux::petdos_last_layer_features";
constexpr const char *CUTOFF_SUM_OUTPUT = "mtt::petdos";

// What `petdos export` has written into the model.
void read_record(const std::string &path, const Capabilities &found, ModelInfo &info)
{
  if (found.record.empty()) {
    const bool has_dos = std::any_of(found.outputs.begin(), found.outputs.end(), [](const std::string &output) {
      return output == "mtt::dos" || output == "dos" || output.find("mtt::dos/") == 0;
    });
    if (!has_dos)
      throw std::runtime_error(path + ": expected a model with a DOS, its outputs are: " + listed(found.outputs) +
                               "; give a model written by `petdos export`");
    throw std::runtime_error(path + ": has no separate readout; run `petdos export` of its checkpoint and give the result");
  }
  const json record = json::parse(found.record, nullptr, false);
  try {
    info.name = record.at("name");
    info.fingerprint = record.at("fingerprint");
    info.electrons = record.at("electrons").get<std::map<std::string, double>>();
  } catch (const json::exception &error) {
    throw std::runtime_error(path + ": its metadata are not those of `petdos export`; export the model again");
  }
  info.kind = "separated";
  info.dtype = found.dtype;
}

std::unique_ptr<Readout> open_readout(const std::string &path, ModelInfo &info)
{
  auto readout = std::make_unique<Readout>(readout_path(path));
  if (readout->fingerprint != info.fingerprint)
    throw std::runtime_error(readout_path(path) + ": belongs to another model than " + path +
                             "; keep the two files of one `petdos export` together");
  info.start = readout->start;
  info.step = readout->step;
  info.reference = readout->reference;
  info.n_channels = readout->n_channels;
  info.n_features = readout->n_features;
  info.n_members = readout->n_members;
  return readout;
}

// What the network returns for an atom or a structure must be all features but the number of atoms.
void choose_outputs(const std::string &path, Network &network, const ModelInfo &info)
{
  const auto &offered = network.capabilities().outputs;
  const bool in_one = std::find(offered.begin(), offered.end(), FEATURES_OUTPUT) != offered.end();
  std::vector<std::string> names{LAST_LAYER_OUTPUT, CUTOFF_SUM_OUTPUT};
  if (in_one) names = {FEATURES_OUTPUT};
  std::vector<int> widths;
  const std::string error = network.set_outputs(names, widths);
  if (!error.empty()) throw std::runtime_error(path + ": " + error);
  const int width = std::accumulate(widths.begin(), widths.end(), 0);
  if (width + 1 != info.n_features || (!in_one && widths.back() != 1))
    throw std::runtime_error(path + ": has " + std::to_string(width - 1) + " features, its readout expects " +
                             std::to_string(info.n_features - 2) + "; export the model again");
}

}    // namespace

std::string ModelInfo::to_json() const
{
  return json{{"name", name},
              {"fingerprint", fingerprint},
              {"grid", {{"start", start}, {"step", step}, {"n", n_channels}, {"reference", reference}}},
              {"kind", kind},
              {"n_features", n_features},
              {"n_members", n_members},
              {"electrons", electrons},
              {"path", path},
              {"dtype", dtype}}
      .dump();
}

std::unique_ptr<Model> Model::open(const std::string &name, const OpenOptions &options,
                                   const std::map<std::string, double> &electrons)
{
  ModelInfo info;
  ModelFile file = open_model(name, options);
  info.path = file.shown;
  read_record(file.path, file.network->capabilities(), info);
  for (const auto &[symbol, number] : electrons) info.electrons[symbol] = number;
  auto readout = open_readout(file.path, info);
  choose_outputs(file.path, *file.network, info);
  return std::unique_ptr<Model>(new Model(std::move(file.network), std::move(readout), std::move(info)));
}

Model::Model(std::shared_ptr<Network> network, std::unique_ptr<Readout> readout, ModelInfo info)
    : network_(std::move(network)), readout_(std::move(readout)), info_(std::move(info)), energies_(info_.n_channels)
{
  for (int i = 0; i < info_.n_channels; ++i) energies_[i] = info_.start + info_.step * i;
}

std::vector<double> Model::features(const std::vector<double> &sums, int64_t n_atoms) const
{
  std::vector<double> features(sums);
  features.insert(features.end() - 1, static_cast<double>(n_atoms));
  if (info_.dtype == "float32")
    for (double &x : features) x = static_cast<float>(x);
  return features;
}

// The number of atoms, the last but one of the features, does not come from the network.
std::vector<double> Model::project(const std::vector<double> &kernel) const
{
  std::vector<double> gradient = readout_->project(kernel);
  gradient.erase(gradient.end() - 2);
  return gradient;
}

}    // namespace petdos
