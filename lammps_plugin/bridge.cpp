// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: opens metatomic models. The library of this file holds torch, metatensor, metatomic and vesin; see
// bridge.h.

#include "settings.h"
#include "torch_network.h"

extern "C" __attribute__((visibility("default"))) petdos::Network *
petdos_open_network(const char *path, const petdos::OpenOptions &options, petdos::OpenFailure &failure)
{
  try {
    return new petdos::TorchNetwork(path, options);
  } catch (const petdos::NotHere &caught) {
    failure = {caught.what(), false};
  } catch (const std::exception &caught) {
    failure = {petdos::reason_of(caught), true};
  }
  return nullptr;
}
