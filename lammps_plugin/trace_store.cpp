// SPDX-License-Identifier: GPL-2.0-only

#include "trace_store.h"

#include "truncate.h"
#include "trace_files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <system_error>

namespace fs = std::filesystem;
using LAMMPS_NS::json;

namespace petdos {
namespace {

constexpr int COLUMN_CHUNK_ROWS = 1024;
constexpr int FEATURES_CHUNK_ROWS = 64, LEAST_FEATURES_CHUNK_ROWS = 8;
constexpr size_t FEATURES_CHUNK_BYTES = 1 << 19;

struct Column {
  const char *name, *dtype, *units, *description;
};

// In the order of commits: features, which tells the length, comes after them.
constexpr Column COLUMNS[] = {
    {"step", "int64", "", "molecular dynamics step; (replica, step) is unique"},
    {"replica", "int32", "", "ensemble slot or simulation that the frame was taken from"},
    {"time_fs", "float64", "fs", "simulated time"},
    {"temperature_K", "float64", "K", "temperature of the ensemble"},
    {"kinetic_temperature_K", "float64", "K", "temperature from the velocities"},
    {"potential_energy_eV", "float64", "eV", "potential energy of the interatomic potential"},
    {"volume_A3", "float64", "angstrom^3", "cell volume, NaN unless periodic in three directions"},
    {"n_atoms", "int64", "", "number of atoms"},
    {"n_electrons", "float64", "", "number of valence electrons"},
    {"weight", "float64", "", "statistical weight of the frame"},
};

const json CODECS = json::array({{{"name", "bytes"}, {"configuration", {{"endian", "little"}}}}});
const json KEYS = {{"name", "default"}, {"configuration", {{"separator", "/"}}}};

json array_metadata(const Column *column, const ModelInfo &model)
{
  const size_t item = model.dtype == "float32" ? 4 : 8;
  int rows = COLUMN_CHUNK_ROWS;
  if (!column) {
    rows = FEATURES_CHUNK_ROWS;
    while (rows > LEAST_FEATURES_CHUNK_ROWS && rows * item * model.n_features > FEATURES_CHUNK_BYTES) rows /= 2;
  }
  json shape = json::array({0}), chunk = json::array({rows}), names = json::array({"sample"});
  json attributes = {{"description", column ? column->description : "features that the DOS is linear in"}};
  if (!column) {
    shape.push_back(model.n_features);
    chunk.push_back(model.n_features);
    names.push_back("feature");
  } else if (column->units[0]) {
    attributes["units"] = column->units;
  }
  const std::string dtype = column ? column->dtype : model.dtype;
  return {{"zarr_format", 3},
          {"node_type", "array"},
          {"shape", shape},
          {"data_type", dtype},
          {"chunk_grid", {{"name", "regular"}, {"configuration", {{"chunk_shape", chunk}}}}},
          {"chunk_key_encoding", KEYS},
          {"fill_value", dtype[0] == 'i' ? json(0) : json("NaN")},
          {"codecs", CODECS},
          {"dimension_names", names},
          {"attributes", attributes}};
}

std::string created_now()
{
  const std::time_t now = std::time(nullptr);
  char text[40];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S+00:00", std::gmtime(&now));
  return text;
}

void put(std::string &to, const void *data, size_t size)
{
  to.append(static_cast<const char *>(data), size);
}

}    // namespace

TraceStore::TraceStore(const std::string &path, const ModelInfo &model) : path_(path), model_(model) {}

TraceStore::~TraceStore()
{
  if (lock_fd_ >= 0) {
    flock(lock_fd_, LOCK_UN);
    close(lock_fd_);
  }
}

fs::path TraceStore::Array::chunk(size_t index) const
{
  const fs::path path = folder / "c" / std::to_string(index);
  return metadata.at("shape").size() == 2 ? path / "0" : path;
}

void TraceStore::create(double timestep_fs, const std::string &versions) const
{
  const json group = {
      {"schema", "petdos-trace"},
      {"schema_version", 1},
      {"created", created_now()},
      {"model", json::parse(model_.to_json())},
      {"versions", json::parse(versions)},
      {"engine", "lammps"},
      {"timestep_fs", std::isfinite(timestep_fs) ? json(timestep_fs) : json(nullptr)},
      {"metadata", json::object()},
      {"skipped", json::object()},
      {"skipped_last_step", json::object()},
      {"n_skipped", 0},
  };
  const fs::path parent = fs::absolute(path_).parent_path();
  const fs::path draft = parent / ("." + path_.filename().string() + "." + std::to_string(getpid()) + ".partial");
  std::error_code ignored;
  try {
    fs::create_directories(parent);
    fs::remove_all(draft);
    fs::create_directory(draft);
    for (const Column &column : COLUMNS) {
      fs::create_directory(draft / column.name);
      replace_json(draft / column.name / "zarr.json", array_metadata(&column, model_));
    }
    fs::create_directory(draft / "features");
    replace_json(draft / "features" / "zarr.json", array_metadata(nullptr, model_));
    if (!File(draft / "features" / "writer.lock", O_WRONLY | O_CREAT).good()) fail_errno();
    replace_json(draft / "zarr.json", {{"zarr_format", 3}, {"node_type", "group"}, {"attributes", group}});
    if (rename(draft.c_str(), path_.c_str()) != 0) fail_errno();
    sync_folder(parent);
  } catch (const std::system_error &error) {
    fs::remove_all(draft, ignored);
    fail(path_.string() + ": cannot make the trace: " + error.code().message() + "; " + fix_for(error.code()));
  }
}

void TraceStore::lock()
{
  lock_fd_ = open((path_ / "features" / "writer.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_fd_ < 0) {
    const std::error_code reason(errno, std::generic_category());
    if (!fs::exists(path_ / "zarr.json")) fail(path_.string() + ": not a trace; give another path or the path of a trace");
    fail(path_.string() + ": cannot be written: " + reason.message() + "; " + fix_for(reason));
  }
  if (flock(lock_fd_, LOCK_EX | LOCK_NB) != 0 && (errno == EWOULDBLOCK || errno == EACCES)) {
    char holder[200] = {};
    if (pread(lock_fd_, holder, sizeof(holder) - 1, 0) <= 0) std::strcpy(holder, "another process");
    std::string text = holder;
    text.erase(text.find_last_not_of(" \n") + 1);
    fail(path_.string() + ": being written by " + text + "; close that writer, or write to another path and merge");
  }
  char host[128] = {};
  gethostname(host, sizeof(host) - 1);
  const std::string text = "process " + std::to_string(getpid()) + " on " + host + "\n";
  if (ftruncate(lock_fd_, 0) == 0 && pwrite(lock_fd_, text.data(), text.size(), 0) < 0) errno = 0;    // for people only
}

json TraceStore::read_json(const fs::path &file) const
{
  std::ifstream stream(path_ / file);
  if (!stream) fail(path_.string() + ": not a trace (" + file.string() + " is missing); give another path or the path of a trace");
  json data = json::parse(stream, nullptr, false);
  if (!data.is_object()) damaged(file.string() + " is not valid JSON");
  return data;
}

void TraceStore::damaged(const std::string &what) const
{
  fail(path_.string() + ": damaged or foreign trace: " + what + "; restore it from a copy or write to another path");
}

TraceStore::Array TraceStore::read_array(const std::string &array, const std::string &dtype) const
{
  Array found;
  found.folder = path_ / array;
  found.metadata = read_json(fs::path(array) / "zarr.json");
  found.item = dtype.back() == '4' ? 8 : 4;
  found.width = array == "features" ? static_cast<size_t>(model_.n_features) : 1;
  bool valid = false;
  try {
    const json &m = found.metadata;
    const json &shape = m.at("shape"), &chunk = m.at("chunk_grid").at("configuration").at("chunk_shape");
    valid = m.at("zarr_format") == 3 && m.at("node_type") == "array" && m.at("data_type") == dtype &&
        m.at("chunk_grid").at("name") == "regular" && m.at("chunk_key_encoding") == KEYS && m.at("codecs") == CODECS &&
        shape.size() == (array == "features" ? 2 : 1) && chunk.size() == shape.size() && chunk.at(0).get<int64_t>() > 0 &&
        shape.at(0).get<int64_t>() >= 0 && (array != "features" || (shape.at(1) == model_.n_features && chunk.at(1) == model_.n_features));
    if (valid) found.chunk_rows = chunk.at(0).get<size_t>();
  } catch (const json::exception &) {
    valid = false;
  }
  if (!valid) damaged(array + "/zarr.json is not that of an uncompressed " + dtype + " array of the trace format");
  return found;
}

// What is on disk, after taking the place of the writer; what a killed writer left is taken back.
void TraceStore::load(double timestep_fs)
{
  saved_ = read_json("zarr.json").value("attributes", json::object());
  if (saved_.value("schema", "") != "petdos-trace")
    fail(path_.string() + ": not a trace; give another path or the path of a trace");
  if (saved_.value("schema_version", 0) != 1)
    fail(path_.string() + ": trace format version " + saved_.value("schema_version", json()).dump() +
         ", this petdos-md writes version 1; use the petdos-md that made it");
  check_model(timestep_fs);
  arrays_.clear();
  for (const Column &column : COLUMNS) arrays_.push_back(read_array(column.name, column.dtype));
  arrays_.push_back(read_array("features", model_.dtype));
  const auto truncate = begun_rewind();
  const size_t n = truncate ? std::min(length(), truncate->start) : length();
  for (const Array &array : arrays_) {
    for (size_t index = 0; index * array.chunk_rows < n; ++index) {
      std::error_code none;
      const auto size = fs::file_size(array.chunk(index), none);
      if (none || size != array.chunk_rows * array.row_bytes())
        damaged(array.chunk(index).lexically_relative(path_).string() + " is missing or has a wrong size");
    }
  }
  try {
    commit(n);
    if (truncate) finish_rewind(*truncate);
  } catch (const std::system_error &error) {
    fail(path_.string() + ": cannot be written: " + error.code().message() + "; " + fix_for(error.code()));
  }
  attributes = saved_;
  const std::string engines = ", " + attributes.value("engine", "") + ",";
  if (engines.find(" lammps,") == std::string::npos)
    attributes["engine"] = attributes.value("engine", "").empty() ? "lammps" : attributes.value("engine", "") + ", lammps";
  if (attributes.value("timestep_fs", json()).is_null() && std::isfinite(timestep_fs))
    attributes["timestep_fs"] = timestep_fs;
}

std::optional<Rewind> TraceStore::begun_rewind() const
{
  const fs::path file = fs::path("features") / "truncate.npz";
  if (!fs::exists(path_ / file)) return std::nullopt;
  std::vector<RewindArray> expected;
  for (const Array &array : arrays_) {
    const bool flat = array.metadata.at("shape").size() == 1;
    expected.push_back({array.folder.filename().string(), array.metadata.at("data_type"), array.width, flat});
  }
  try {
    return read_rewind(path_ / file, expected);
  } catch (const std::runtime_error &error) {
    damaged(file.string() + ": " + error.what());
  }
}

// Rows that were set aside come back behind those that are there; only then the file goes.
void TraceStore::finish_rewind(const Rewind &truncate)
{
  const size_t n = length();
  for (size_t i = 0; i < arrays_.size(); ++i) write(arrays_[i], n, truncate.rows, truncate.data[i]);
  commit(n + truncate.rows);
  fs::remove(path_ / "features" / "truncate.npz");
  sync_folder(path_ / "features");    // it must not come back after a power cut, on top of newer rows
}

void TraceStore::check_model(double timestep_fs) const
{
  const json ours = json::parse(model_.to_json()), theirs = saved_.value("model", json::object());
  const auto other = [&](const char *key) { return theirs.value(key, json()) != ours.at(key); };
  if (other("fingerprint"))
    fail(path_.string() + ": trace of another model: it holds samples of '" + theirs.value("name", "?") + "' (" +
         theirs.value("fingerprint", "?").substr(0, 12) + "), got '" + model_.name + "' (" +
         model_.fingerprint.substr(0, 12) + "); use that model or write to another path");
  if (other("grid") || other("kind") || other("n_features") || other("dtype"))
    fail(path_.string() + ": trace of another energy grid or precision than that of '" + model_.name +
         "'; write to another path");
  const json timestep = saved_.value("timestep_fs", json());
  if (timestep.is_number() && std::isfinite(timestep_fs) &&
      std::abs(timestep.get<double>() - timestep_fs) > 1e-9 * timestep_fs)
    fail(path_.string() + ": trace of another simulation: it has timestep_fs = " + timestep.dump() + ", got " +
         json(timestep_fs).dump() + "; write to another path");
}

size_t TraceStore::length() const
{
  size_t n = arrays_.front().n();
  for (const Array &array : arrays_) n = std::min(n, array.n());
  return n;
}

template <typename Number> std::vector<Number> TraceStore::read_column(size_t which) const
{
  const Array &array = arrays_[which];
  std::vector<Number> values(length());
  for (size_t start = 0; start < values.size(); start += array.chunk_rows) {
    const size_t count = std::min(array.chunk_rows, values.size() - start);
    std::ifstream chunk(array.chunk(start / array.chunk_rows), std::ios::binary);
    if (!chunk.read(reinterpret_cast<char *>(&values[start]), static_cast<std::streamsize>(count * sizeof(Number))))
      damaged(array.chunk(start / array.chunk_rows).lexically_relative(path_).string() + " cannot be read");
  }
  return values;
}

std::vector<int64_t> TraceStore::read_steps() const
{
  return read_column<int64_t>(0);
}

std::vector<int32_t> TraceStore::read_replicas() const
{
  return read_column<int32_t>(1);
}

void TraceStore::append(const std::vector<Row> &rows)
{
  const size_t start = length();
  std::vector<std::string> data(arrays_.size());
  for (const Row &row : rows) {
    put(data[0], &row.step, 8);
    put(data[1], &row.replica, 4);
    put(data[2], &row.time_fs, 8);
    put(data[3], &row.temperature_K, 8);
    put(data[4], &row.kinetic_temperature_K, 8);
    put(data[5], &row.potential_energy_eV, 8);
    put(data[6], &row.volume_A3, 8);
    put(data[7], &row.n_atoms, 8);
    put(data[8], &row.n_electrons, 8);
    put(data[9], &row.weight, 8);
    for (double x : row.features) {
      const auto single = static_cast<float>(x);
      arrays_.back().item == 4 ? put(data.back(), &single, 4) : put(data.back(), &x, 8);
    }
  }
  for (size_t i = 0; i < arrays_.size(); ++i) write(arrays_[i], start, rows.size(), data[i]);
  commit(start + rows.size());
}

void TraceStore::write(const Array &array, size_t start, size_t count, const std::string &data) const
{
  const size_t stop = start + count;
  for (size_t index = start / array.chunk_rows; index * array.chunk_rows < stop; ++index) {
    const size_t base = index * array.chunk_rows;
    const size_t first = std::max(start, base), last = std::min(stop, base + array.chunk_rows);
    const fs::path chunk = array.chunk(index);
    const bool is_new = !fs::exists(chunk);
    if (is_new) {
      for (const fs::path &folder : {array.folder / "c", chunk.parent_path()})
        if (mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST) fail_errno();
    }
    const File file(chunk, O_RDWR | O_CREAT);
    if (!file.good()) fail_errno();
    const auto size = static_cast<off_t>(array.chunk_rows * array.row_bytes());
    struct stat found;
    if (fstat(file.get(), &found) != 0) fail_errno();
    if (found.st_size != size && ftruncate(file.get(), size) != 0) fail_errno();
    file.write(data.data() + (first - start) * array.row_bytes(), (last - first) * array.row_bytes(),
               static_cast<off_t>((first - base) * array.row_bytes()));
    file.sync();
    if (is_new)
      for (const fs::path &folder : {array.folder, array.folder / "c", chunk.parent_path()}) sync_folder(folder);
  }
}

// features are the shortest array at every moment: it is committed last when growing and first when shrinking.
void TraceStore::commit(size_t n)
{
  const auto commit_one = [&](Array &array) {
    if (array.n() == n) return;
    json metadata = array.metadata;
    metadata["shape"][0] = n;
    replace_json(array.folder / "zarr.json", metadata);
    array.metadata = std::move(metadata);
  };
  if (n > arrays_.back().n())
    for (auto array = arrays_.begin(); array != arrays_.end(); ++array) commit_one(*array);
  else
    for (auto array = arrays_.rbegin(); array != arrays_.rend(); ++array) commit_one(*array);
}

void TraceStore::save_attributes()
{
  if (attributes == saved_) return;
  replace_json(path_ / "zarr.json", {{"zarr_format", 3}, {"node_type", "group"}, {"attributes", attributes}});
  saved_ = attributes;
}

}    // namespace petdos
