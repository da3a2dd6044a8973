// SPDX-License-Identifier: GPL-2.0-only

#include "readout.h"

#include "json.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>

using LAMMPS_NS::json;

namespace petdos {
namespace {

constexpr const char *READOUT_FORMAT = "petdos-readout-1";
constexpr const char *RIGIDITY = "rigidity";    // of the features of the training set
constexpr const char *AGAIN = "; export the model again with `petdos export`";

[[noreturn]] void fail_damaged(const std::string &path)
{
  throw std::runtime_error(path + ": not a readable readout (truncated or something else)" + AGAIN);
}

std::string existing(const std::string &path)
{
  if (!is_file(path))
    throw std::runtime_error(path +
                             ": no such readout; it is written beside the model by `petdos export`, keep both together");
  return path;
}

template <typename Real>
void multiply(const char *weights, const std::vector<double> &features, std::vector<double> &out)
{
  const size_t n = features.size();
  for (size_t i = 0; i < out.size(); ++i) {
    double sum = 0.0;
    for (size_t k = 0; k < n; ++k) {
      Real weight;    // rows need not be aligned in the file
      std::memcpy(&weight, weights + (i * n + k) * sizeof(Real), sizeof(Real));
      sum += static_cast<double>(weight) * features[k];
    }
    out[i] = sum;
  }
}

template <typename Real>
void multiply_transposed(const char *weights, const std::vector<double> &kernel, std::vector<double> &out)
{
  const size_t n = out.size();
  for (size_t i = 0; i < kernel.size(); ++i)
    for (size_t k = 0; k < n; ++k) {
      Real weight;
      std::memcpy(&weight, weights + (i * n + k) * sizeof(Real), sizeof(Real));
      out[k] += kernel[i] * static_cast<double>(weight);
    }
}

}    // namespace

MappedFile::MappedFile(const std::string &path)
{
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat found;
  if (fd < 0 || fstat(fd, &found) != 0) {
    const std::string reason = std::strerror(errno);
    if (fd >= 0) close(fd);
    throw std::runtime_error(path + ": cannot be read: " + reason + "; check that path and its rights");
  }
  size_ = static_cast<size_t>(found.st_size);
  if (size_) {
    void *mapped = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    if (mapped == MAP_FAILED) {
      const std::string reason = std::strerror(errno);
      close(fd);
      throw std::runtime_error(path + ": cannot be mapped into memory: " + reason + "; free some memory");
    }
    data_ = static_cast<char *>(mapped);
  }
  close(fd);
}

MappedFile::~MappedFile()
{
  if (data_) munmap(data_, size_);
}

// Safetensors (https://huggingface.co/docs/safetensors): size of the header, JSON header, data.
Readout::Readout(const std::string &path) : path_(path), file_(existing(path))
{
  uint64_t header_size = 0;
  if (file_.size() < 8) fail_damaged(path);
  std::memcpy(&header_size, file_.data(), 8);
  if (header_size > file_.size() - 8) fail_damaged(path);
  try {
    const std::string header(file_.data() + 8, header_size);
    find_weights(header_size, header);
    find_rigidity(header_size, header);
  } catch (const json::exception &) {
    fail_damaged(path);
  }
}

void Readout::find_weights(size_t header_size, const std::string &header_text)
{
  const json header = json::parse(header_text);
  const json &metadata = header.at("__metadata__");
  const std::string format = metadata.at("format");
  if (format != READOUT_FORMAT)
    throw std::runtime_error(path_ + ": format is " + format + ", expected " + READOUT_FORMAT + AGAIN);
  const json grid = json::parse(metadata.at("grid").get<std::string>());
  fingerprint = metadata.at("fingerprint");
  start = grid.at("start");
  step = grid.at("step");
  n_channels = grid.at("n");
  reference = grid.at("reference");
  for (const auto &entry : header.items()) {
    if (entry.key() == "__metadata__") continue;
    const auto end = entry.value().at("data_offsets").at(1).get<uint64_t>();
    if (end > file_.size() - 8 - header_size) fail_damaged(path_);
  }
  const json &weights = header.at("weights");
  const std::string dtype = weights.at("dtype");
  weights_double_ = dtype == "F64";
  n_features = weights.at("shape").at(1);
  const auto begin = weights.at("data_offsets").at(0).get<uint64_t>();
  const auto bytes = weights.at("data_offsets").at(1).get<uint64_t>() - begin;
  const uint64_t numbers = static_cast<uint64_t>(n_channels) * static_cast<uint64_t>(n_features);
  if ((dtype != "F64" && dtype != "F32") || weights.at("shape").at(0) != n_channels ||
      bytes != numbers * (weights_double_ ? 8 : 4))
    throw std::runtime_error(path_ + ": its weights do not fit its energies" + AGAIN);
  weights_ = file_.data() + 8 + header_size + begin;
  n_members = header.contains("deviations") ? header.at("deviations").at("shape").at(0).get<int>() : 0;
}

void Readout::find_rigidity(size_t header_size, const std::string &header_text)
{
  const json header = json::parse(header_text);
  if (!header.contains(RIGIDITY)) return;
  const json about = json::parse(header.at("__metadata__").at(RIGIDITY).get<std::string>());
  if (about.at("n_structures") == 0) return;
  const json &entry = header.at(RIGIDITY);
  n_last_layer_ = entry.at("shape").at(0);
  const auto begin = entry.at("data_offsets").at(0).get<uint64_t>();
  const auto numbers = (entry.at("data_offsets").at(1).get<uint64_t>() - begin) / sizeof(float);
  if (entry.at("dtype") != "F32" || numbers != n_last_layer_ * n_last_layer_ || n_last_layer_ + 2 != static_cast<size_t>(n_features))
    throw std::runtime_error(path_ + ": what it says of the training set does not fit its features" + AGAIN);
  std::vector<float> values(numbers);
  std::memcpy(values.data(), file_.data() + 8 + header_size + begin, numbers * sizeof(float));
  cholesky_.assign(values.begin(), values.end());
  reference_ = about.at("reference");
}

// |L^-1 phi / N|^2 by forward substitution.
double Readout::extrapolation_grade(const std::vector<double> &features) const
{
  if (cholesky_.empty()) return std::numeric_limits<double>::quiet_NaN();
  const double n_atoms = features[features.size() - 2];
  std::vector<double> solved(n_last_layer_);
  double variance = 0.0;
  for (size_t i = 0; i < n_last_layer_; ++i) {
    double rest = features[i] / n_atoms;
    for (size_t k = 0; k < i; ++k) rest -= cholesky_[i * n_last_layer_ + k] * solved[k];
    solved[i] = rest / cholesky_[i * n_last_layer_ + i];
    variance += solved[i] * solved[i];
  }
  return variance / reference_;
}

void Readout::dos(const std::vector<double> &features, std::vector<double> &out) const
{
  out.resize(n_channels);
  if (weights_double_)
    multiply<double>(weights_, features, out);
  else
    multiply<float>(weights_, features, out);
}

std::vector<double> Readout::project(const std::vector<double> &kernel) const
{
  std::vector<double> out(n_features, 0.0);
  if (weights_double_)
    multiply_transposed<double>(weights_, kernel, out);
  else
    multiply_transposed<float>(weights_, kernel, out);
  return out;
}

std::string readout_path(const std::string &path)
{
  const size_t slash = path.rfind('/'), dot = path.rfind('.');
  const bool has_suffix = dot != std::string::npos && (slash == std::string::npos || dot > slash + 1);
  return (has_suffix ? path.substr(0, dot) : path) + ".readout.safetensors";
}

bool is_file(const std::string &path)
{
  struct stat found;
  return stat(path.c_str(), &found) == 0 && S_ISREG(found.st_mode);
}

}    // namespace petdos
