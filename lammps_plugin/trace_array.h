// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: one array of a trace on disk, a zarr v3 array of uncompressed chunks (docs/trace-format.md).

#ifndef PETDOS_TRACE_ARRAY_H
#define PETDOS_TRACE_ARRAY_H

#include "trace_row.h"

#include "json.h"

#include <filesystem>
#include <string>
#include <vector>

namespace petdos {

// What an array is to be; `width` is 0 for a column, else the numbers in a row.
struct ArrayKind {
  std::string name, dtype, units, description;
  size_t width = 0;
  const Column *column = nullptr;    // that its numbers come from; none for features

  bool is_optional() const { return name == OPTIONAL_COLUMN; }
  size_t item_bytes() const { return dtype.back() == '4' ? 8 : 4; }
  size_t row_bytes() const { return item_bytes() * (width ? width : 1); }
};

// All arrays of a trace in the order of commits, features last.
std::vector<ArrayKind> array_kinds(size_t n_features, const std::string &features_dtype);

[[noreturn]] void fail_damaged(const std::filesystem::path &trace, const std::string &what);
// A JSON object of the trace.
LAMMPS_NS::json read_json(const std::filesystem::path &trace, const std::filesystem::path &file);

class TraceArray {
 public:
  // The folder of an empty one.
  static void create(const std::filesystem::path &trace, const ArrayKind &kind);
  // One that is there; throws std::runtime_error if it is not of this kind.
  TraceArray(const std::filesystem::path &trace, const ArrayKind &kind);

  const std::string &name() const { return kind_.name; }
  size_t n() const { return metadata_.at("shape").at(0).get<size_t>(); }
  // In one rename; throws std::system_error.
  void set_length(size_t n);

  // Throws std::runtime_error if a chunk of the first n rows is missing or has a wrong size.
  void check_chunks(size_t n) const;
  // Puts rows in place from row `start` on, where no reader looks yet; throws std::system_error.
  void write(size_t start, const std::vector<Row> &rows) const;
  // The first n numbers of a column; Number is what the trace holds.
  template <typename Number> std::vector<Number> read(size_t n) const;

 private:
  std::filesystem::path chunk(size_t index) const;
  std::string shown(size_t index) const;
  std::string bytes_of(const std::vector<Row> &rows) const;
  void write_chunk(size_t index, size_t first_row, const char *data, size_t size) const;

  std::filesystem::path trace_, folder_;
  ArrayKind kind_;
  LAMMPS_NS::json metadata_;
  size_t chunk_rows_ = 1;
};

}    // namespace petdos

#endif
