// SPDX-License-Identifier: GPL-2.0-only

#include "files.h"

#include <pwd.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

namespace fs = std::filesystem;

namespace petdos {
namespace {

std::string home_of(const std::string &user)
{
  const char *home = user.empty() ? std::getenv("HOME") : nullptr;
  if (home && home[0]) return home;
  const passwd *entry = user.empty() ? getpwuid(getuid()) : getpwnam(user.c_str());
  return entry && entry->pw_dir ? entry->pw_dir : "";
}

}    // namespace

std::string expand_user(const std::string &path)
{
  if (path.empty() || path[0] != '~') return path;
  const size_t end = std::min(path.find('/'), path.size());
  const std::string home = home_of(path.substr(1, end - 1));
  if (home.empty()) fail(path + ": there is no home folder " + path.substr(0, end) + "; give the path in full");
  return home + path.substr(end);
}

std::string absolute_path(const std::string &path)
{
  fs::path full;
  // As pathlib.Path.absolute: `..` stays, since it may follow a symbolic link.
  for (const fs::path &part : fs::absolute(expand_user(path)))
    if (!part.empty() && part != ".") full /= part;
  return full.string();
}

std::string fix_for(const std::error_code &error)
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

void File::write(const char *data, size_t size, off_t offset) const
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

void File::sync() const
{
  if (fdatasync(fd_) != 0 && errno != EINVAL) fail_errno();
}

void sync_folder(const fs::path &folder)
{
  const File file(folder, O_RDONLY | O_DIRECTORY);
  if (file.good()) fsync(file.get());    // some network file systems have none for directories
}

void replace_file(const fs::path &path, const std::string &content)
{
  const fs::path draft = path.parent_path() / ("." + path.filename().string() + ".partial");
  {
    const File file(draft, O_WRONLY | O_CREAT | O_TRUNC);
    if (!file.good()) fail_errno();
    file.write(content.data(), content.size(), 0);
    file.sync();
  }
  if (rename(draft.c_str(), path.c_str()) != 0) fail_errno();
}

}    // namespace petdos
