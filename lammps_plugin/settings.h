// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: how torch is set while it works for us, and what its errors say. Of the bridge.

#ifndef PETDOS_SETTINGS_H
#define PETDOS_SETTINGS_H

#include <ATen/Parallel.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>

#include <stdexcept>
#include <string>

namespace petdos {

// Settings of torch while it works for us, and those of before: it may be the torch of the user's Python.
class Settings {
 public:
  explicit Settings(int threads) : before_(at::get_num_threads()), as_written_(false)
  {
    if (threads != before_) at::set_num_threads(threads);
  }
  ~Settings()
  {
    if (at::get_num_threads() != before_) at::set_num_threads(before_);
  }

 private:
  int before_;
  torch::NoGradGuard no_grad_;
  // Programs are executed as they are written, as in petdos_md.models.files.as_written: a recompilation whenever the number of
  // neighbors changes costs more than it gains.
  torch::jit::GraphOptimizerEnabledGuard as_written_;
};

// The device, or an extension, is not there: nothing is wrong with the file.
class NotHere : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The line of a torch error that says what happened: backtraces and "The following operation failed ..." are left out.
inline std::string reason_of(const std::exception &error)
{
  const auto *own = dynamic_cast<const c10::Error *>(&error);
  const std::string text = own ? own->what_without_backtrace() : error.what();
  std::string first, last;
  size_t begin = 0;
  while (begin < text.size()) {
    size_t end = text.find('\n', begin);
    if (end == std::string::npos) end = text.size();
    std::string line = text.substr(begin, end - begin);
    line.erase(0, line.find_first_not_of(" \t"));
    if (first.empty()) first = line;
    if (line.find("Error: ") != std::string::npos) last = line;
    begin = end + 1;
  }
  if (first.empty()) return "unknown error";
  return last.empty() ? first : last;
}

}    // namespace petdos

#endif
