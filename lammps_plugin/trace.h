// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: writes a trace as docs/trace-format.md describes it, safe against a kill at any moment.

#ifndef PETDOS_TRACE_H
#define PETDOS_TRACE_H

#include "model.h"

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace petdos {

// One sample; see the table of columns in docs/trace-format.md.
struct Row {
  std::vector<double> features;
  int64_t step = 0;
  int32_t replica = 0;
  double time_fs, temperature_K, kinetic_temperature_K, potential_energy_eV, volume_A3;
  int64_t n_atoms = 0;
  double n_electrons, weight = 1.0;
};

class TraceStore;

// The only writer of one trace, until it is destroyed. What fails throws std::runtime_error with one line for the user; rows
// that could not be written stay in memory and are written by the next flush that can.
class TraceWriter {
 public:
  // Makes the trace, or with `append` goes on with the one that is there.
  TraceWriter(const std::string &path, const ModelInfo &model, double timestep_fs, const std::string &versions, bool append);
  ~TraceWriter();
  TraceWriter(const TraceWriter &) = delete;
  TraceWriter &operator=(const TraceWriter &) = delete;

  bool has(int32_t replica, int64_t step) const { return keys_.count({replica, step}) > 0; }
  size_t size() const;
  size_t unwritten() const { return rows_.size(); }

  void append(Row row);
  // Counts a frame that gave no sample.
  void skip(const std::string &reason, int64_t step, int32_t replica);
  void flush();
  void flush_quietly();

 private:
  std::string path_;
  std::unique_ptr<TraceStore> store_;
  std::set<std::pair<int32_t, int64_t>> keys_;
  std::vector<Row> rows_;
  double flushed_s_ = 0.0;
  bool told_ = false;
};

}    // namespace petdos

#endif
