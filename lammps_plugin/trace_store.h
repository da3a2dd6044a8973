// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: the directory of a trace: its lock, arrays and attributes (docs/trace-format.md).

#ifndef PETDOS_TRACE_STORE_H
#define PETDOS_TRACE_STORE_H

#include "model.h"
#include "trace_array.h"
#include "trace_metadata.h"

#include "json.h"

#include <filesystem>
#include <string>
#include <vector>

namespace petdos {

// Functions throw std::runtime_error with one line for the user; append(), shrink() and save_attributes() throw std::system_error,
// may be called again then, and write the same to the same places.
class TraceStore {
 public:
  TraceStore(const std::string &path, const ModelInfo &model);
  ~TraceStore();
  TraceStore(const TraceStore &) = delete;
  TraceStore &operator=(const TraceStore &) = delete;

  // An empty trace, in one rename.
  void create(const Description &description) const;
  // Takes the place of the writer and reads what is on disk then. Returns a warning where the file system has no locks, else nothing.
  std::string open(const Description &description);

  size_t length() const;
  std::vector<int64_t> steps() const;
  std::vector<int32_t> replicas() const;
  std::vector<double> times_fs() const;
  void append(const std::vector<Row> &rows);
  void shrink(size_t n);
  void save_attributes();

  LAMMPS_NS::json attributes;    // as they shall be

 private:
  const TraceArray &array(const std::string &name) const;
  std::string lock();
  void load(const Description &description);
  void commit(size_t n);
  void add(const ArrayKind &kind);

  std::filesystem::path path_;
  ModelInfo model_;
  std::vector<ArrayKind> kinds_;
  std::vector<TraceArray> arrays_;    // the columns that are there, then features
  LAMMPS_NS::json saved_;             // attributes as they are on disk
  int lock_fd_ = -1;
};

}    // namespace petdos

#endif
