// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: rows that a killed writer had set aside while it dropped samples (docs/trace-format.md).

#ifndef PETDOS_REWIND_H
#define PETDOS_REWIND_H

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

namespace petdos {

// An array of the trace, as the file must hold it.
struct RewindArray {
  std::string name;
  std::string dtype;    // int64, int32, float64 or float32
  size_t width;         // numbers in a row; a column if `flat`
  bool flat;
};

struct Rewind {
  size_t start = 0, rows = 0;
  std::vector<std::string> data;    // of each array, rows one after the other
};

// Reads features/truncate.npz; throws std::runtime_error with what is wrong with it.
Rewind read_rewind(const std::filesystem::path &file, const std::vector<RewindArray> &arrays);

}    // namespace petdos

#endif
