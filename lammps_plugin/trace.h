// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: writes a trace as docs/trace-format.md describes it, safe against a kill at any moment.

#ifndef PETDOS_TRACE_H
#define PETDOS_TRACE_H

#include "model.h"
#include "trace_metadata.h"
#include "trace_row.h"

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace petdos {

class TraceStore;

// The only writer of one trace, until it is destroyed. What fails throws std::runtime_error with one line for the user; rows
// that could not be written stay in memory and are written by the next flush that can.
class TraceWriter {
 public:
  // Makes the trace, or with `append` goes on with the one that is there. `path` is absolute.
  TraceWriter(const std::string &path, const ModelInfo &model, const Description &description, bool append);
  ~TraceWriter();
  TraceWriter(const TraceWriter &) = delete;
  TraceWriter &operator=(const TraceWriter &) = delete;

  const std::string &warning() const { return warning_; }    // for the user, may be empty
  bool has(int32_t replica, int64_t step) const { return keys_.count({replica, step}) > 0; }
  size_t size() const;
  int64_t last_step(int32_t replica) const;    // the largest; -1 if there is none

  // The next run: throws if it is of another simulation.
  void describe(const Description &description);
  // Drops the samples of a replica after a step, which is where the simulation goes on; returns how many. They must be the last ones.
  size_t drop_after(int32_t replica, int64_t step);
  // Step and time of the last sample of a replica on disk; false if it has none.
  bool last_sample(int32_t replica, int64_t &step, double &time_fs) const;

  void append(Row row);
  // Counts a frame that gave no sample.
  void skip(const std::string &reason, int64_t step, int32_t replica);
  void flush();
  void flush_quietly();

 private:
  void read_keys();

  std::string path_, warning_;
  std::unique_ptr<TraceStore> store_;
  std::set<std::pair<int32_t, int64_t>> keys_;
  std::vector<Row> rows_;
  double flushed_s_ = 0.0;
  bool reported_ = false;
};

}    // namespace petdos

#endif
