// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: files that are written in place, or replaced so that every reader finds the old or the new content.

#ifndef PETDOS_TRACE_FILES_H
#define PETDOS_TRACE_FILES_H

#include "json.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <system_error>

namespace petdos {

[[noreturn]] inline void fail(const std::string &message)
{
  throw std::runtime_error(message);
}

// Errors of the system: their text becomes part of the message of whoever tried.
[[noreturn]] inline void fail_errno()
{
  throw std::system_error(errno, std::generic_category(), std::strerror(errno));
}

// What a user can do about an error of the system, in the words of petdos_md.base.fixes.
inline std::string fix_for(const std::error_code &error)
{
  switch (error.value()) {
    case ENOSPC:
    case EDQUOT: return "free space on that disk";
    case ENOENT:
    case ENOTDIR:
    case EACCES:
    case EPERM:
    case EROFS: return "check that path and its rights";
    case EEXIST:
    case EISDIR:
    case ENOTEMPTY: return "give another path";
    default: return "check that path, its rights and its disk";
  }
}

class File {
 public:
  File(const std::filesystem::path &path, int flags) : fd_(open(path.c_str(), flags | O_CLOEXEC, 0644)) {}
  ~File()
  {
    if (fd_ >= 0) close(fd_);
  }
  File(const File &) = delete;
  File &operator=(const File &) = delete;

  int get() const { return fd_; }
  bool good() const { return fd_ >= 0; }

  void write(const char *data, size_t size, off_t offset) const
  {
    while (size > 0) {
      const ssize_t written = pwrite(fd_, data, size, offset);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail_errno();
      data += written;
      size -= static_cast<size_t>(written);
      offset += written;
    }
  }
  void sync() const
  {
    if (fdatasync(fd_) != 0 && errno != EINVAL) fail_errno();
  }

 private:
  int fd_;
};

inline void sync_folder(const std::filesystem::path &folder)
{
  const File file(folder, O_RDONLY | O_DIRECTORY);
  if (file.good()) fsync(file.get());    // some network file systems have none for directories
}

// Every reader finds the old or the new content.
inline void replace_json(const std::filesystem::path &path, const LAMMPS_NS::json &data)
{
  const std::filesystem::path draft = path.parent_path() / ("." + path.filename().string() + ".partial");
  {
    const File file(draft, O_WRONLY | O_CREAT | O_TRUNC);
    if (!file.good()) fail_errno();
    const std::string text = data.dump();
    file.write(text.data(), text.size(), 0);
    file.sync();
  }
  if (rename(draft.c_str(), path.c_str()) != 0) fail_errno();
}

}    // namespace petdos

#endif
