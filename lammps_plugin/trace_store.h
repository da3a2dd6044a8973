// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: the directory of a trace: its lock, arrays and attributes (docs/trace-format.md).

#ifndef PETDOS_TRACE_STORE_H
#define PETDOS_TRACE_STORE_H

#include "model.h"
#include "truncate.h"
#include "trace.h"

#include "json.h"

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace petdos {

// Functions throw std::runtime_error with one line for the user; append() and save_attributes() throw std::system_error, may be
// called again then, and write the same to the same places.
class TraceStore {
 public:
  TraceStore(const std::string &path, const ModelInfo &model);
  ~TraceStore();
  TraceStore(const TraceStore &) = delete;
  TraceStore &operator=(const TraceStore &) = delete;

  // An empty trace, in one rename.
  void create(double timestep_fs, const std::string &versions) const;
  // Takes the place of the writer,
  void lock();
  // reads what is on disk then, and takes back what a killed writer left.
  void load(double timestep_fs);

  size_t length() const;
  std::vector<int64_t> read_steps() const;
  std::vector<int32_t> read_replicas() const;
  void append(const std::vector<Row> &rows);
  void save_attributes();

  LAMMPS_NS::json attributes;    // as they shall be

 private:
  struct Array {
    std::filesystem::path folder;
    LAMMPS_NS::json metadata;
    size_t item = 8;      // bytes of a number
    size_t width = 1;     // numbers in a row
    size_t chunk_rows = 1;

    size_t n() const { return metadata.at("shape").at(0).get<size_t>(); }
    size_t row_bytes() const { return item * width; }
    std::filesystem::path chunk(size_t index) const;
  };

  [[noreturn]] void damaged(const std::string &what) const;
  LAMMPS_NS::json read_json(const std::filesystem::path &file) const;
  Array read_array(const std::string &array, const std::string &dtype) const;
  std::optional<Rewind> begun_rewind() const;
  void finish_rewind(const Rewind &truncate);
  void check_model(double timestep_fs) const;
  template <typename Number> std::vector<Number> read_column(size_t which) const;
  void write(const Array &array, size_t start, size_t count, const std::string &data) const;
  void commit(size_t n);

  std::filesystem::path path_;
  ModelInfo model_;
  std::vector<Array> arrays_;    // the columns, then features
  LAMMPS_NS::json saved_;        // attributes as they are on disk
  int lock_fd_ = -1;
};

}    // namespace petdos

#endif
