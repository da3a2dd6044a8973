// SPDX-License-Identifier: GPL-2.0-only

#include "trace_store.h"

#include "files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <iterator>
#include <system_error>

namespace fs = std::filesystem;
using LAMMPS_NS::json;

namespace petdos {
namespace {

// Not at the top of the group, where zarr would warn of an unknown object.
constexpr const char *LOCK = "features/writer.lock", *JOURNAL = "features/truncate.npz";

json group_metadata(const json &attributes)
{
  return {{"zarr_format", 3}, {"node_type", "group"}, {"attributes", attributes}};
}

json read_attributes(const fs::path &path)
{
  const json group = read_json(path, "zarr.json");
  const auto found = group.find("attributes");
  return found != group.end() && found->is_object() ? *found : json::object();
}

std::string holder_of(int lock_fd)
{
  char text[200] = {};
  if (pread(lock_fd, text, sizeof(text) - 1, 0) <= 0) return "another process";
  std::string holder = text;
  holder.erase(holder.find_last_not_of(" \n") + 1);
  return holder;
}

// For people only.
void write_holder(int lock_fd)
{
  char host[128] = {};
  gethostname(host, sizeof(host) - 1);
  const std::string text = "process " + std::to_string(getpid()) + " on " + host + "\n";
  if (ftruncate(lock_fd, 0) == 0 && pwrite(lock_fd, text.data(), text.size(), 0) < 0) errno = 0;
}

}    // namespace

TraceStore::TraceStore(const std::string &path, const ModelInfo &model)
    : path_(path), model_(model), kinds_(array_kinds(static_cast<size_t>(model.n_features), model.dtype))
{
}

TraceStore::~TraceStore()
{
  if (lock_fd_ >= 0) {
    flock(lock_fd_, LOCK_UN);
    close(lock_fd_);
  }
}

void TraceStore::create(const Description &description) const
{
  const fs::path parent = path_.parent_path();
  const fs::path draft = parent / ("." + path_.filename().string() + "." + std::to_string(getpid()) + ".partial");
  std::error_code ignored;
  try {
    fs::create_directories(parent);
    fs::remove_all(draft);
    fs::create_directory(draft);
    for (const ArrayKind &kind : kinds_)
      if (!kind.is_optional()) TraceArray::create(draft, kind);
    if (!File(draft / LOCK, O_WRONLY | O_CREAT).good()) fail_errno();
    replace_file(draft / "zarr.json", group_metadata(new_attributes(model_, description)).dump());
    if (rename(draft.c_str(), path_.c_str()) != 0) fail_errno();
    sync_folder(parent);
  } catch (const std::system_error &error) {
    fs::remove_all(draft, ignored);
    fail(path_.string() + ": cannot make the trace: " + error.code().message() + "; " + fix_for(error.code()));
  }
}

std::string TraceStore::open(const Description &description)
{
  check_format(path_.string(), read_attributes(path_));
  const std::string warning = lock();
  load(description);
  return warning;
}

std::string TraceStore::lock()
{
  lock_fd_ = ::open((path_ / LOCK).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_fd_ < 0) {
    const std::error_code reason(errno, std::generic_category());
    fail(path_.string() + ": cannot be written: " + reason.message() + "; " + fix_for(reason));
  }
  std::string warning;
  if (flock(lock_fd_, LOCK_EX | LOCK_NB) != 0) {
    const std::error_code reason(errno, std::generic_category());
    if (reason.value() == EWOULDBLOCK || reason.value() == EACCES)
      fail(path_.string() + ": being written by " + holder_of(lock_fd_) +
           "; close that writer, or write to another path and merge");
    if (reason.value() != ENOSYS && reason.value() != ENOLCK && reason.value() != EOPNOTSUPP)
      fail(path_.string() + ": cannot be locked: " + reason.message() + "; " + fix_for(reason));
    warning = path_.string() + ": no file locks here; take care that one process writes";
  }
  write_holder(lock_fd_);
  return warning;
}

void TraceStore::load(const Description &description)
{
  saved_ = read_attributes(path_);
  check_format(path_.string(), saved_);
  check_model(path_.string(), saved_, model_);
  check_simulation(path_.string(), saved_, description);
  if (fs::exists(path_ / JOURNAL))
    fail(path_.string() + ": being truncated when its writer was killed; run `petdos truncate " + path_.string() +
         "` once, which finishes it");
  arrays_.clear();
  for (const ArrayKind &kind : kinds_)
    if (!kind.is_optional() || fs::exists(path_ / kind.name)) arrays_.emplace_back(path_, kind);
  const size_t n = length();
  for (const TraceArray &array : arrays_) array.check_chunks(n);
  try {
    commit(n);    // which a killed writer may have done for some arrays only
  } catch (const std::system_error &error) {
    fail(path_.string() + ": cannot be written: " + error.code().message() + "; " + fix_for(error.code()));
  }
  attributes = saved_;
}

size_t TraceStore::length() const
{
  size_t n = arrays_.front().n();
  for (const TraceArray &array : arrays_) n = std::min(n, array.n());
  return n;
}

std::vector<int64_t> TraceStore::steps() const
{
  return array("step").read<int64_t>(length());
}

std::vector<int32_t> TraceStore::replicas() const
{
  return array("replica").read<int32_t>(length());
}

std::vector<double> TraceStore::times_fs() const
{
  return array("time_fs").read<double>(length());
}

const TraceArray &TraceStore::array(const std::string &name) const
{
  size_t i = 0;
  while (arrays_[i].name() != name) ++i;
  return arrays_[i];
}

void TraceStore::append(const std::vector<Row> &rows)
{
  const auto is_hot = [](const Row &row) { return !std::isnan(row.electronic_temperature_K); };
  for (const ArrayKind &kind : kinds_)
    if (kind.is_optional() && arrays_.size() < kinds_.size() && std::any_of(rows.begin(), rows.end(), is_hot)) add(kind);
  const size_t start = length();
  for (const TraceArray &array : arrays_) array.write(start, rows);
  commit(start + rows.size());
}

// The optional column, with the rows that there are, in one rename.
void TraceStore::add(const ArrayKind &kind)
{
  ArrayKind draft = kind;
  draft.name = "." + kind.name + ".partial";
  std::error_code ignored;
  fs::remove_all(path_ / draft.name, ignored);
  TraceArray::create(path_, draft);
  TraceArray array(path_, draft);
  Row row;
  const json number = saved_.value("metadata", json::object()).value(kind.name, json());
  if (number.is_number()) row.electronic_temperature_K = number.get<double>();
  const size_t n = length(), block = 1024;
  for (size_t start = 0; start < n; start += block) array.write(start, std::vector<Row>(std::min(block, n - start), row));
  array.set_length(n);
  if (rename((path_ / draft.name).c_str(), (path_ / kind.name).c_str()) != 0) fail_errno();
  sync_folder(path_);
  arrays_.insert(std::prev(arrays_.end()), TraceArray(path_, kind));
}

void TraceStore::shrink(size_t n)
{
  commit(n);
}

// The array of features is the shortest at every moment: it is committed last when growing and first when shrinking.
void TraceStore::commit(size_t n)
{
  if (n > arrays_.back().n())
    for (auto array = arrays_.begin(); array != arrays_.end(); ++array) array->set_length(n);
  else
    for (auto array = arrays_.rbegin(); array != arrays_.rend(); ++array) array->set_length(n);
}

void TraceStore::save_attributes()
{
  if (attributes == saved_) return;
  replace_file(path_ / "zarr.json", group_metadata(attributes).dump());
  saved_ = attributes;
}

}    // namespace petdos
