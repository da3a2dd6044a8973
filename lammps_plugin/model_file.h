// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: metatomic models by name or path. Those in use are open once.

#ifndef PETDOS_MODEL_FILE_H
#define PETDOS_MODEL_FILE_H

#include "bridge.h"

#include <memory>
#include <stdexcept>
#include <string>

namespace petdos {

struct ModelFile {
  std::string path;     // of the .pt
  std::string shown;    // how a trace calls it: the name of a shipped model, or an absolute path
  std::shared_ptr<Network> network;
};

// `name` is a shipped model or a path. Throws std::runtime_error with one line.
ModelFile open_model(const std::string &name, const OpenOptions &options);

bool knows(const Network &network, int number);
std::string symbols_of(const Network &network);    // of the elements that it knows

// Complains about the first number that the network does not know; empty if there is none.
std::string unknown_element(const Network &network, const std::string &name, const std::vector<int> &numbers);

std::string listed(const std::vector<std::string> &words);

// The file is no metatomic model; every other failure is of the plugin, the device or an extension.
class NoModel : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Opens a network through the bridge library beside this one, if it was built for what is installed; throws std::runtime_error.
std::unique_ptr<Network> open_network(const std::string &path, const OpenOptions &options);
// The folder of the shipped models, and versions of packages as JSON; throws std::runtime_error.
std::string models_folder();
std::string versions_json();

}    // namespace petdos

#endif
