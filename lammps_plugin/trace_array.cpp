// SPDX-License-Identifier: GPL-2.0-only

#include "trace_array.h"

#include "files.h"

#include <sys/stat.h>

#include <algorithm>
#include <fstream>

namespace fs = std::filesystem;
using LAMMPS_NS::json;

namespace petdos {
namespace {

constexpr int COLUMN_CHUNK_ROWS = 1024;
constexpr int FEATURES_CHUNK_ROWS = 64, LEAST_FEATURES_CHUNK_ROWS = 8;
constexpr size_t FEATURES_CHUNK_BYTES = 1 << 19;

const json CODECS = json::array({{{"name", "bytes"}, {"configuration", {{"endian", "little"}}}}});
const json KEYS = {{"name", "default"}, {"configuration", {{"separator", "/"}}}};

int new_chunk_rows(const ArrayKind &kind)
{
  if (kind.column) return COLUMN_CHUNK_ROWS;
  int rows = FEATURES_CHUNK_ROWS;
  while (rows > LEAST_FEATURES_CHUNK_ROWS && rows * kind.row_bytes() > FEATURES_CHUNK_BYTES) rows /= 2;
  return rows;
}

json new_metadata(const ArrayKind &kind)
{
  json shape = json::array({0}), chunk = json::array({new_chunk_rows(kind)}), names = json::array({"sample"});
  json attributes = {{"description", kind.description}};
  if (kind.width) {
    shape.push_back(kind.width);
    chunk.push_back(kind.width);
    names.push_back("feature");
  }
  if (!kind.units.empty()) attributes["units"] = kind.units;
  return {{"zarr_format", 3},
          {"node_type", "array"},
          {"shape", shape},
          {"data_type", kind.dtype},
          {"chunk_grid", {{"name", "regular"}, {"configuration", {{"chunk_shape", chunk}}}}},
          {"chunk_key_encoding", KEYS},
          {"fill_value", kind.dtype[0] == 'i' ? json(0) : json("NaN")},
          {"codecs", CODECS},
          {"dimension_names", names},
          {"attributes", attributes}};
}

bool is_valid(const json &m, const ArrayKind &kind)
{
  try {
    const json &shape = m.at("shape"), &chunk = m.at("chunk_grid").at("configuration").at("chunk_shape");
    const size_t axes = kind.width ? 2 : 1;
    return m.at("zarr_format") == 3 && m.at("node_type") == "array" && m.at("data_type") == kind.dtype &&
        m.at("chunk_grid").at("name") == "regular" && m.at("chunk_key_encoding") == KEYS && m.at("codecs") == CODECS &&
        shape.size() == axes && chunk.size() == axes && chunk.at(0).get<int64_t>() > 0 && shape.at(0).get<int64_t>() >= 0 &&
        (!kind.width || (shape.at(1) == kind.width && chunk.at(1) == kind.width));
  } catch (const json::exception &) {
    return false;
  }
}

template <typename Number> void put(std::string &to, Number number)
{
  to.append(reinterpret_cast<const char *>(&number), sizeof(number));
}

}    // namespace

std::vector<ArrayKind> array_kinds(size_t n_features, const std::string &features_dtype)
{
  std::vector<ArrayKind> kinds;
  for (const Column &column : COLUMNS)
    kinds.push_back({column.name, column.dtype, column.units, column.description, 0, &column});
  kinds.push_back({"features", features_dtype, "", "features that the DOS is linear in", n_features, nullptr});
  return kinds;
}

void fail_damaged(const fs::path &trace, const std::string &what)
{
  fail(trace.string() + ": damaged or foreign trace: " + what + "; restore it from a copy or write to another path");
}

json read_json(const fs::path &trace, const fs::path &file)
{
  std::ifstream stream(trace / file);
  if (!stream)
    fail(trace.string() + ": not a trace (" + file.string() + " is missing); give another path or the path of a trace");
  json data = json::parse(stream, nullptr, false);
  if (!data.is_object()) fail_damaged(trace, file.string() + " is not valid JSON");
  return data;
}

void TraceArray::create(const fs::path &trace, const ArrayKind &kind)
{
  fs::create_directories(trace / kind.name);
  replace_file(trace / kind.name / "zarr.json", new_metadata(kind).dump());
}

TraceArray::TraceArray(const fs::path &trace, const ArrayKind &kind)
    : trace_(trace), folder_(trace / kind.name), kind_(kind), metadata_(read_json(trace, fs::path(kind.name) / "zarr.json"))
{
  if (!is_valid(metadata_, kind))
    fail_damaged(trace, kind.name + "/zarr.json is not that of an uncompressed " + kind.dtype + " array of the trace format");
  chunk_rows_ = metadata_.at("chunk_grid").at("configuration").at("chunk_shape").at(0).get<size_t>();
}

void TraceArray::set_length(size_t n)
{
  if (this->n() == n) return;
  json metadata = metadata_;
  metadata["shape"][0] = n;
  replace_file(folder_ / "zarr.json", metadata.dump());
  metadata_ = std::move(metadata);
}

void TraceArray::check_chunks(size_t n) const
{
  for (size_t index = 0; index * chunk_rows_ < n; ++index) {
    std::error_code none;
    const auto size = fs::file_size(chunk(index), none);
    if (none || size != chunk_rows_ * kind_.row_bytes()) fail_damaged(trace_, shown(index) + " is missing or has a wrong size");
  }
}

void TraceArray::write(size_t start, const std::vector<Row> &rows) const
{
  const std::string data = bytes_of(rows);
  const size_t stop = start + rows.size(), row_bytes = kind_.row_bytes();
  for (size_t index = start / chunk_rows_; index * chunk_rows_ < stop; ++index) {
    const size_t base = index * chunk_rows_;
    const size_t first = std::max(start, base), last = std::min(stop, base + chunk_rows_);
    write_chunk(index, first - base, data.data() + (first - start) * row_bytes, (last - first) * row_bytes);
  }
}

template <typename Number> std::vector<Number> TraceArray::read(size_t n) const
{
  std::vector<Number> values(n);
  for (size_t start = 0; start < n; start += chunk_rows_) {
    const size_t count = std::min(chunk_rows_, n - start);
    std::ifstream stream(chunk(start / chunk_rows_), std::ios::binary);
    if (!stream.read(reinterpret_cast<char *>(&values[start]), static_cast<std::streamsize>(count * sizeof(Number))))
      fail_damaged(trace_, shown(start / chunk_rows_) + " cannot be read");
  }
  return values;
}

template std::vector<int64_t> TraceArray::read(size_t) const;
template std::vector<int32_t> TraceArray::read(size_t) const;
template std::vector<double> TraceArray::read(size_t) const;

fs::path TraceArray::chunk(size_t index) const
{
  const fs::path path = folder_ / "c" / std::to_string(index);
  return kind_.width ? path / "0" : path;
}

std::string TraceArray::shown(size_t index) const
{
  return chunk(index).lexically_relative(trace_).string();
}

std::string TraceArray::bytes_of(const std::vector<Row> &rows) const
{
  std::string data;
  for (const Row &row : rows) {
    if (kind_.column) {
      std::visit([&](auto member) { put(data, row.*member); }, kind_.column->value);
      continue;
    }
    for (double x : row.features) kind_.item_bytes() == 4 ? put(data, static_cast<float>(x)) : put(data, x);
  }
  return data;
}

void TraceArray::write_chunk(size_t index, size_t first_row, const char *data, size_t size) const
{
  const fs::path path = chunk(index);
  const bool is_new = !fs::exists(path);
  if (is_new) {
    for (const fs::path &folder : {folder_ / "c", path.parent_path()})
      if (mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST) fail_errno();
  }
  const File file(path, O_RDWR | O_CREAT);
  if (!file.good()) fail_errno();
  const auto full_size = static_cast<off_t>(chunk_rows_ * kind_.row_bytes());
  struct stat found;
  if (fstat(file.get(), &found) != 0) fail_errno();
  if (found.st_size != full_size && ftruncate(file.get(), full_size) != 0) fail_errno();
  file.write(data, size, static_cast<off_t>(first_row * kind_.row_bytes()));
  file.sync();
  if (is_new)
    for (const fs::path &folder : {folder_, folder_ / "c", path.parent_path()}) sync_folder(folder);
}

}    // namespace petdos
