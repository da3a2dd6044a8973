// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: paths, and files that are written in place or replaced so that every reader finds the old or the new
// content.

#ifndef PETDOS_FILES_H
#define PETDOS_FILES_H

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

// A leading ~ or ~user as in Python's os.path.expanduser; throws std::runtime_error if there is no such home.
std::string expand_user(const std::string &path);

// Of the folder that LAMMPS is in now: `shell cd` must not change what a path means.
std::string absolute_path(const std::string &path);

// What a user can do about an error of the system, in the words of petdos_md.base.fixes.
std::string fix_for(const std::error_code &error);

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

  void write(const char *data, size_t size, off_t offset) const;
  void sync() const;

 private:
  int fd_;
};

void sync_folder(const std::filesystem::path &folder);

// Every reader finds the old or the new content.
void replace_file(const std::filesystem::path &path, const std::string &content);

}    // namespace petdos

#endif
