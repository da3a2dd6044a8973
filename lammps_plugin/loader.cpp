// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: finds the bridge library and what `petdos lammps build` wrote about it (build.json).

#include "model_file.h"

#include "json.h"

#include <dlfcn.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <stdexcept>

using LAMMPS_NS::json;

namespace petdos {
namespace {

constexpr const char *HOW = "; run `petdos lammps build` in the environment of this LAMMPS";

std::string own_folder()
{
  Dl_info found;
  if (!dladdr(reinterpret_cast<const void *>(&own_folder), &found) || !found.dli_fname)
    throw std::runtime_error(std::string("the plugin does not find itself") + HOW);
  const std::string path = found.dli_fname;
  return path.substr(0, path.rfind('/') + 1);
}

const json &build()
{
  static const json described = [] {
    std::ifstream file(own_folder() + "build.json");
    json data = json::parse(file, nullptr, false);
    if (!data.is_object()) throw std::runtime_error(std::string("the plugin is incomplete (no build.json)") + HOW);
    return data;
  }();
  return described;
}

bool exists(const std::string &path)
{
  struct stat found;
  return stat(path.c_str(), &found) == 0;
}

// A package that was replaced since has another folder of metadata: its libraries would be used with foreign headers.
void check_versions()
{
  for (const auto &entry : build().at("packages").items())
    if (!exists(entry.value().at("metadata").get<std::string>()))
      throw std::runtime_error("the plugin was built for " + entry.key() + " " +
                               entry.value().at("version").get<std::string>() + ", which is no longer installed" + HOW);
  const std::string models = build().at("models").get<std::string>();
  if (!exists(models))
    throw std::runtime_error("the plugin was built with the models in " + models + ", which is no longer there" + HOW);
  const char *wanted = std::getenv("PETDOS_LAMMPS_KEY");
  if (wanted && build().at("key").get<std::string>() != wanted)
    throw std::runtime_error(std::string("the plugin was built for other versions or from other sources") + HOW);
}

}    // namespace

std::unique_ptr<Network> open_network(const std::string &path, const OpenOptions &options)
{
  static OpenNetwork open = nullptr;
  if (!open) {
    check_versions();
    const std::string library = own_folder() + "libpetdos_bridge.so";
    // Deep binding: torch must find its own BLAS before that of LAMMPS.
    void *handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    if (!handle) throw std::runtime_error(std::string("the plugin cannot be loaded (") + dlerror() + ")" + HOW);
    open = reinterpret_cast<OpenNetwork>(dlsym(handle, OPEN_NETWORK));
    if (!open) throw std::runtime_error(std::string("the plugin is incomplete") + HOW);
  }
  OpenFailure failure;
  std::unique_ptr<Network> network(open(path.c_str(), options, failure));
  if (network) return network;
  if (failure.is_of_file) throw NoModel(failure.reason);
  throw std::runtime_error(path + ": " + failure.reason);
}

std::string models_folder()
{
  check_versions();
  return build().at("models").get<std::string>();
}

std::string versions_json()
{
  json versions = {{"petdos-md", build().at("petdos-md")}};
  for (const auto &entry : build().at("packages").items()) versions[entry.key()] = entry.value().at("version");
  return versions.dump();
}

}    // namespace petdos
