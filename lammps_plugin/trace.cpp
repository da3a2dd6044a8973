// SPDX-License-Identifier: GPL-2.0-only

#include "trace.h"

#include "trace_files.h"
#include "trace_store.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <system_error>

namespace fs = std::filesystem;
using LAMMPS_NS::json;

namespace petdos {
namespace {

constexpr size_t FLUSH_EVERY = 64;
constexpr double FLUSH_INTERVAL_S = 10.0;

double now_s()
{
  using namespace std::chrono;
  return duration<double>(steady_clock::now().time_since_epoch()).count();
}

// Traces that are open in this process: an error elsewhere in LAMMPS ends it without destroying fixes.
std::vector<TraceWriter *> &open_writers()
{
  static std::vector<TraceWriter *> writers;
  return writers;
}

void flush_at_exit()
{
  for (TraceWriter *writer : open_writers()) writer->flush_quietly();
}

}    // namespace

TraceWriter::TraceWriter(const std::string &path, const ModelInfo &model, double timestep_fs, const std::string &versions,
                         bool append)
    : path_(path), store_(std::make_unique<TraceStore>(path, model))
{
  std::error_code none;
  const bool there = fs::exists(path, none) && !(fs::is_directory(path, none) && fs::is_empty(path, none));
  if (there && !append)
    throw std::runtime_error(path + ": exists; give `append yes` to go on with this trace, or another path");
  if (!there) store_->create(timestep_fs, versions);
  store_->lock();
  store_->load(timestep_fs);
  const auto steps = store_->read_steps();
  const auto replicas = store_->read_replicas();
  for (size_t i = 0; i < steps.size(); ++i) keys_.insert({replicas[i], steps[i]});
  flushed_s_ = now_s();
  open_writers().push_back(this);    // the list must be older than the function that needs it at exit
  static const bool registered = std::atexit(flush_at_exit) == 0;
  (void) registered;
}

TraceWriter::~TraceWriter()
{
  auto &writers = open_writers();
  writers.erase(std::remove(writers.begin(), writers.end(), this), writers.end());
  flush_quietly();
}

size_t TraceWriter::size() const
{
  return store_->length() + rows_.size();
}

void TraceWriter::append(Row row)
{
  keys_.insert({row.replica, row.step});
  rows_.push_back(std::move(row));
  if (rows_.size() % FLUSH_EVERY == 0 || now_s() - flushed_s_ >= FLUSH_INTERVAL_S) flush();
}

void TraceWriter::skip(const std::string &reason, int64_t step, int32_t replica)
{
  json &last = store_->attributes["skipped_last_step"];
  const std::string key = std::to_string(replica);
  if (last.contains(key) && last.at(key).get<int64_t>() >= step) return;
  last[key] = step;
  json &skipped = store_->attributes["skipped"];
  skipped[reason] = skipped.value(reason, 0) + 1;
  store_->attributes["n_skipped"] = store_->attributes.value("n_skipped", 0) + 1;
}

void TraceWriter::flush()
{
  flushed_s_ = now_s();
  try {
    if (!rows_.empty()) {
      store_->append(rows_);
      rows_.clear();
    }
    store_->save_attributes();
    told_ = false;
  } catch (const std::system_error &error) {
    told_ = true;
    throw std::runtime_error(path_ + ": cannot write: " + error.code().message() + "; " + fix_for(error.code()) + "; " +
                             std::to_string(rows_.size()) +
                             " samples are kept in memory for the next flush, and taken again on resuming");
  }
}

// Where nobody can be told but by a line; one that was told already is not repeated.
void TraceWriter::flush_quietly()
{
  const bool told = told_;
  try {
    flush();
  } catch (const std::exception &error) {
    if (!told) std::fprintf(stderr, "%s\n", error.what());
  }
}

}    // namespace petdos
