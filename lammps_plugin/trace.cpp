// SPDX-License-Identifier: GPL-2.0-only

#include "trace.h"

#include "files.h"
#include "trace_store.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iterator>
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

TraceWriter::TraceWriter(const std::string &path, const ModelInfo &model, const Description &description, bool append)
    : path_(path), store_(std::make_unique<TraceStore>(path, model))
{
  std::error_code none;
  const bool there = fs::exists(path, none) && !(fs::is_directory(path, none) && fs::is_empty(path, none));
  if (there && !append)
    throw std::runtime_error(path + ": exists; give `append yes` to go on with this trace, or another path");
  if (!there) store_->create(description);
  warning_ = store_->open(description);
  read_keys();
  describe(description);
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

int64_t TraceWriter::last_step(int32_t replica) const
{
  const auto next = keys_.upper_bound({replica, INT64_MAX});
  if (next == keys_.begin() || std::prev(next)->first != replica) return -1;
  return std::prev(next)->second;
}

void TraceWriter::describe(const Description &description)
{
  check_simulation(path_, store_->attributes, description);
  if (!keys_.empty()) check_electrons(path_, store_->attributes, description);
  const auto first = keys_.lower_bound({description.replica, INT64_MIN});
  complete(store_->attributes, description, first == keys_.end() || first->first != description.replica);
}

size_t TraceWriter::drop_after(int32_t replica, int64_t step)
{
  flush();
  const auto steps = store_->steps();
  const auto replicas = store_->replicas();
  size_t start = steps.size(), count = 0;
  for (size_t i = steps.size(); i-- > 0;) {
    if (replicas[i] != replica || steps[i] <= step) continue;
    start = i;
    ++count;
  }
  if (count == 0) return 0;
  const std::string where = " of replica " + std::to_string(replica) + " after step " + std::to_string(step);
  if (count != steps.size() - start)
    throw std::runtime_error(path_ + ": " + std::to_string(count) + " samples" + where +
                             " are to be taken again, but samples that stay lie between them; run `petdos truncate " + path_ +
                             " --step " + std::to_string(step) + " --replica " + std::to_string(replica) + "` once");
  try {
    store_->shrink(start);
  } catch (const std::system_error &error) {
    throw std::runtime_error(path_ + ": cannot drop the samples" + where + ": " + error.code().message() + "; " +
                             fix_for(error.code()));
  }
  read_keys();
  return count;
}

bool TraceWriter::last_sample(int32_t replica, int64_t &step, double &time_fs) const
{
  const auto steps = store_->steps();
  const auto replicas = store_->replicas();
  const auto times = store_->times_fs();
  bool found = false;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (replicas[i] != replica || (found && steps[i] < step)) continue;
    found = true;
    step = steps[i];
    time_fs = times[i];
  }
  return found;
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
    reported_ = false;
  } catch (const std::system_error &error) {
    reported_ = true;
    throw std::runtime_error(path_ + ": cannot write: " + error.code().message() + "; " + fix_for(error.code()) + "; " +
                             std::to_string(rows_.size()) +
                             " samples are kept in memory for the next flush, and taken again on resuming");
  }
}

// Where an error can only be printed, and only if it has not been reported already.
void TraceWriter::flush_quietly()
{
  const bool reported = reported_;
  try {
    flush();
  } catch (const std::exception &error) {
    if (!reported) std::fprintf(stderr, "%s\n", error.what());
  }
}

void TraceWriter::read_keys()
{
  const auto steps = store_->steps();
  const auto replicas = store_->replicas();
  keys_.clear();
  for (size_t i = 0; i < steps.size(); ++i) keys_.insert({replicas[i], steps[i]});
}

}    // namespace petdos
