// SPDX-License-Identifier: GPL-2.0-only

#include "model_file.h"

#include "elements.h"
#include "files.h"
#include "readout.h"

#include <dirent.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <cstring>

namespace petdos {
namespace {

struct Open {
  std::string file, extensions;
  std::weak_ptr<Network> network;
};

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

std::string real_path(const std::string &path)
{
  char full[PATH_MAX];
  return realpath(path.c_str(), full) ? full : path;
}

void find(const std::string &name, ModelFile &found)
{
  found.path = expand_user(name);
  if (is_file(found.path)) {
    found.shown = real_path(found.path);
    return;
  }
  found.path = models_folder() + "/" + name + ".pt";
  found.shown = name;
  if (name.find('/') == std::string::npos && is_file(found.path)) return;
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

}    // namespace

// Devices are compared as they were chosen: "" means the preferred one.
ModelFile open_model(const std::string &name, const OpenOptions &options)
{
  static std::vector<Open> opened;
  ModelFile found;
  find(name, found);
  const std::string file = real_path(found.path);
  opened.erase(std::remove_if(opened.begin(), opened.end(), [](const Open &one) { return one.network.expired(); }), opened.end());
  for (const Open &one : opened) {
    found.network = one.network.lock();
    const Capabilities &offered = found.network->capabilities();
    const bool there = options.device.empty() ? offered.is_preferred : offered.device == options.device;
    if (one.file == file && there && (options.extensions.empty() || options.extensions == one.extensions)) return found;
  }
  check_archive(found.path);
  try {
    found.network = open_network(found.path, options);
  } catch (const NoModel &error) {
    throw std::runtime_error(found.path + ": not a metatomic model (" + error.what() +
                             "); write it with `petdos export` or `mtt export`");
  }
  opened.push_back({file, options.extensions, found.network});
  return found;
}

bool knows(const Network &network, int number)
{
  const auto &numbers = network.capabilities().numbers;
  return std::binary_search(numbers.begin(), numbers.end(), number);
}

std::string symbols_of(const Network &network)
{
  std::string text;
  for (int number : network.capabilities().numbers)
    text += (text.empty() ? "" : " ") + std::string(chemical_symbol(number));
  return text;
}

std::string unknown_element(const Network &network, const std::string &name, const std::vector<int> &numbers)
{
  for (int number : numbers)
    if (number != 0 && !knows(network, number))
      return std::string("element ") + chemical_symbol(number) + " is unknown to " + name + ", which knows " +
          symbols_of(network) + "; give a model that was trained on it";
  return "";
}

std::string listed(const std::vector<std::string> &words)
{
  std::string text;
  for (const auto &word : words) text += (text.empty() ? "" : ", ") + word;
  return text.empty() ? "none" : text;
}

}    // namespace petdos
