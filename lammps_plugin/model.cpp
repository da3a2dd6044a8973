// SPDX-License-Identifier: GPL-2.0-only

#include "model.h"

#include "elements.h"
#include "files.h"

#include "json.h"

#include <dirent.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <numeric>

using LAMMPS_NS::json;

namespace petdos {
namespace {

// One output [last-layer features, sum of the cutoff function], or the same in two, as older exports have it.
constexpr const char *FEATURES_OUTPUT = "petdos::features";
constexpr const char *LAST_LAYER_OUTPUT = "mtt::aux::petdos_last_layer_features";
constexpr const char *CUTOFF_SUM_OUTPUT = "mtt::petdos";

std::string listed(const std::vector<std::string> &words)
{
  std::string text;
  for (const auto &word : words) text += (text.empty() ? "" : ", ") + word;
  return text.empty() ? "none" : text;
}

std::string shipped_models()
{
  std::vector<std::string> names;
  if (DIR *folder = opendir(models_folder().c_str())) {
    while (const dirent *entry = readdir(folder)) {
      const std::string name = entry->d_name;
      if (name.size() > 3 && name.substr(name.size() - 3) == ".pt") names.push_back(name.substr(0, name.size() - 3));
    }
    closedir(folder);
  }
  std::sort(names.begin(), names.end());
  return listed(names);
}

// The file meant by a path or by the name of a shipped model; `shown` is how a trace calls it.
std::string find_model(const std::string &name, std::string &shown)
{
  const std::string path = expand_user(name);
  if (is_file(path)) {
    char full[PATH_MAX];
    shown = realpath(path.c_str(), full) ? full : path;
    return path;
  }
  const std::string shipped = models_folder() + "/" + name + ".pt";
  if (name.find('/') == std::string::npos && is_file(shipped)) {
    shown = name;
    return shipped;
  }
  throw std::runtime_error(name + ": no such file and no shipped model; give the path of a .pt, or one that is shipped: " +
                           shipped_models());
}

// A TorchScript file is a zip archive, whose directory is at its end.
void check_archive(const std::string &path)
{
  const MappedFile file(path);
  const size_t tail = std::min<size_t>(file.size(), 65557);
  const bool complete = file.size() >= 22 && std::memcmp(file.data(), "PK", 2) == 0 &&
      std::string(file.data() + file.size() - tail, tail).rfind("PK\5\6") != std::string::npos;
  if (!complete)
    throw std::runtime_error(path + ": truncated or not a model file; expected a .pt written by `petdos export`");
}

std::unique_ptr<Network> open_checked(const std::string &path, const Placement &placement)
{
  check_archive(path);
  try {
    return open_network(path, placement);
  } catch (const NoModel &error) {
    throw std::runtime_error(path + ": not a metatomic model (" + error.what() +
                             "); write it with `petdos export` or `mtt export`");
  }
}

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

std::unique_ptr<Model> Model::open(const std::string &name, const Placement &placement,
                                   const std::map<std::string, double> &electrons)
{
  ModelInfo info;
  const std::string path = find_model(name, info.path);
  auto network = open_checked(path, placement);
  read_record(path, network->capabilities(), info);
  for (const auto &[symbol, number] : electrons) info.electrons[symbol] = number;
  auto readout = open_readout(path, info);
  choose_outputs(path, *network, info);
  return std::unique_ptr<Model>(new Model(std::move(network), std::move(readout), std::move(info)));
}

Model::Model(std::unique_ptr<Network> network, std::unique_ptr<Readout> readout, ModelInfo info)
    : network_(std::move(network)), readout_(std::move(readout)), info_(std::move(info)), energies_(info_.n_channels)
{
  for (int i = 0; i < info_.n_channels; ++i) energies_[i] = info_.start + info_.step * i;
}

bool Model::knows(int number) const
{
  const auto &numbers = network_->capabilities().numbers;
  return std::binary_search(numbers.begin(), numbers.end(), number);
}

std::string Model::symbols() const
{
  std::string text;
  for (int number : network_->capabilities().numbers)
    text += (text.empty() ? "" : " ") + std::string(chemical_symbol(number));
  return text;
}

std::string Model::partial_features(const Structure &structure, int first, int count, int max_atoms,
                                    std::vector<double> &features)
{
  std::vector<double> sum;
  const std::string error = network_->evaluate(structure, first, count, max_atoms, sum);
  features.assign(info_.n_features, 0.0);
  if (!error.empty()) return error;
  std::copy(sum.begin(), sum.end() - 1, features.begin());
  features[info_.n_features - 2] = count;
  features[info_.n_features - 1] = sum.back();
  return "";
}

void Model::finish_features(std::vector<double> &features) const
{
  if (info_.dtype == "float32")
    for (double &x : features) x = static_cast<float>(x);
}

}    // namespace petdos
