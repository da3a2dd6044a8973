// SPDX-License-Identifier: GPL-2.0-only

#include "model.h"

#include "json.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

using LAMMPS_NS::json;

namespace petdos {
namespace {

constexpr const char *LAST_LAYER_OUTPUT = "mtt::aux::petdos_last_layer_features";
constexpr const char *CUTOFF_SUM_OUTPUT = "mtt::petdos";
constexpr const char *READOUT_FORMAT = "petdos-readout-1";

const char *const SYMBOLS[] = {
    "X",  "H",  "He", "Li", "Be", "B",  "C",  "N",  "O",  "F",  "Ne", "Na", "Mg", "Al", "Si", "P",  "S",  "Cl", "Ar", "K",
    "Ca", "Sc", "Ti", "V",  "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y",
    "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I",  "Xe", "Cs", "Ba", "La", "Ce", "Pr",
    "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W",  "Re", "Os", "Ir", "Pt", "Au",
    "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U",  "Np", "Pu", "Am", "Cm", "Bk", "Cf", "Es",
    "Fm", "Md", "No", "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl", "Mc", "Lv", "Ts", "Og"};
constexpr int N_SYMBOLS = sizeof(SYMBOLS) / sizeof(SYMBOLS[0]);

bool is_file(const std::string &path)
{
  struct stat found;
  return stat(path.c_str(), &found) == 0 && S_ISREG(found.st_mode);
}

std::string shipped_models()
{
  std::vector<std::string> names;
  if (DIR *folder = opendir(models_folder().c_str())) {
    while (const dirent *entry = readdir(folder)) {
      const std::string name = entry->d_name;
      if (name.size() > 3 && name.substr(name.size() - 3) == ".pt") names.push_back(name.substr(0, name.size() - 3));
    }
    closedir(folder);
  }
  std::sort(names.begin(), names.end());
  std::string text;
  for (const auto &name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

// The file meant by a path or by the name of a shipped model; `shown` is how a trace calls it.
std::string find_model(const std::string &name, std::string &shown)
{
  if (is_file(name)) {
    char full[PATH_MAX];
    shown = realpath(name.c_str(), full) ? full : name;
    return name;
  }
  const std::string shipped = models_folder() + "/" + name + ".pt";
  if (name.find('/') == std::string::npos && is_file(shipped)) {
    shown = name;
    return shipped;
  }
  throw std::runtime_error(name + ": no such file and no shipped model; give the path of a .pt, or one that is shipped: " +
                           shipped_models());
}

// A TorchScript file is a zip archive, whose directory is at its end.
void check_archive(const std::string &path)
{
  const MappedFile file(path);
  const size_t tail = std::min<size_t>(file.size(), 65557);
  const bool complete = file.size() >= 22 && std::memcmp(file.data(), "PK", 2) == 0 &&
      std::string(file.data() + file.size() - tail, tail).rfind("PK\5\6") != std::string::npos;
  if (!complete)
    throw std::runtime_error(path + ": truncated or not a model file; expected a .pt written by `petdos export`");
}

std::string readout_path(const std::string &path)
{
  const size_t slash = path.rfind('/'), dot = path.rfind('.');
  const bool has_suffix = dot != std::string::npos && (slash == std::string::npos || dot > slash + 1);
  return (has_suffix ? path.substr(0, dot) : path) + ".readout.safetensors";
}

std::map<std::string, double> parse_electrons(const std::string &text)
{
  std::map<std::string, double> electrons;
  size_t begin = 0;
  while (begin < text.size()) {
    size_t end = std::min(text.find(',', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    const size_t equals = part.find('=');
    const std::string symbol = part.substr(0, equals);
    char *rest = nullptr;
    const double number = equals == std::string::npos ? -1.0 : std::strtod(part.c_str() + equals + 1, &rest);
    if (!atomic_number(symbol) || !(number > 0) || !rest || *rest)
      throw std::runtime_error("got electrons " + text +
                               ", expected element=number of valence electrons, as in Al=3,Mg=2");
    electrons[symbol] = number;
    begin = end + 1;
  }
  return electrons;
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
      close(fd);
      throw std::runtime_error(path + ": cannot be mapped into memory: " + std::strerror(errno) + "; free some memory");
    }
    data_ = static_cast<char *>(mapped);
  }
  close(fd);
}

MappedFile::~MappedFile()
{
  if (data_) munmap(data_, size_);
}

std::string ModelInfo::to_json() const
{
  return json{{"name", name},
              {"fingerprint", fingerprint},
              {"grid", {{"start", start}, {"step", step}, {"n", n_channels}, {"reference", reference}}},
              {"kind", kind},
              {"n_features", n_features},
              {"n_members", n_members},
              {"electrons", electrons},
              {"path", path},
              {"dtype", dtype}}
      .dump();
}

Model::Model(const std::string &name, const std::string &device, int index, int threads, const std::string &electrons)
{
  const auto more_electrons = parse_electrons(electrons);
  const std::string path = find_model(name, info_.path);
  check_archive(path);
  try {
    network_ = open_network(path, device, index, threads);
  } catch (const std::runtime_error &error) {
    const std::string reason = error.what();
    if (reason.find("device ") == 0 || reason.find("the plugin ") == 0) throw;
    throw std::runtime_error(path + ": not a metatomic model (" + reason +
                             "); write it with `petdos export` or `mtt export`");
  }
  const Capabilities &found = network_->capabilities();
  if (found.record.empty()) {
    bool has_dos = false;
    std::string outputs;
    for (const auto &output : found.outputs) {
      has_dos = has_dos || output == "mtt::dos" || output == "dos" || output.find("mtt::dos/") == 0;
      outputs += (outputs.empty() ? "" : ", ") + output;
    }
    if (!has_dos)
      throw std::runtime_error(path + ": expected a model with a DOS, its outputs are: " + outputs +
                               "; give a model written by `petdos export`");
    throw std::runtime_error(path + ": has no separate readout; run `petdos export` of its checkpoint and give the result");
  }
  json record = json::parse(found.record, nullptr, false);
  try {
    info_.name = record.at("name");
    info_.fingerprint = record.at("fingerprint");
    info_.electrons = record.at("electrons").get<std::map<std::string, double>>();
  } catch (const json::exception &error) {
    throw std::runtime_error(path + ": its metadata are not those of `petdos export`; export the model again");
  }
  for (const auto &entry : more_electrons) info_.electrons[entry.first] = entry.second;
  info_.kind = "separated";
  info_.dtype = found.dtype;
  const std::string fingerprint = info_.fingerprint;
  read_readout(readout_path(path));
  if (info_.fingerprint != fingerprint)
    throw std::runtime_error(readout_path(path) + ": belongs to another model than " + path +
                             "; keep the two files of one `petdos export` together");
  std::vector<int> widths;
  const std::string error = network_->set_outputs({LAST_LAYER_OUTPUT, CUTOFF_SUM_OUTPUT}, widths);
  if (!error.empty()) throw std::runtime_error(path + ": " + error);
  if (widths[0] + 2 != info_.n_features || widths[1] != 1)
    throw std::runtime_error(path + ": has " + std::to_string(widths[0]) + " features, its readout expects " +
                             std::to_string(info_.n_features - 2) + "; export the model again");
}

// Safetensors (https://huggingface.co/docs/safetensors): size of the header, JSON header, data.
void Model::read_readout(const std::string &path)
{
  if (!is_file(path))
    throw std::runtime_error(path +
                             ": no such readout; it is written beside the model by `petdos export`, keep both together");
  readout_ = std::make_unique<MappedFile>(path);
  const std::string again = "; export the model again with `petdos export`";
  const std::string damaged = path + ": not a readable readout (truncated or something else)" + again;
  uint64_t header_size = 0;
  if (readout_->size() < 8) throw std::runtime_error(damaged);
  std::memcpy(&header_size, readout_->data(), 8);
  if (header_size > readout_->size() - 8) throw std::runtime_error(damaged);
  const json header = json::parse(readout_->data() + 8, readout_->data() + 8 + header_size, nullptr, false);
  if (!header.is_object()) throw std::runtime_error(damaged);
  try {
    const json &metadata = header.at("__metadata__");
    const std::string format = metadata.at("format");
    if (format != READOUT_FORMAT)
      throw std::runtime_error(path + ": format is " + format + ", expected " + READOUT_FORMAT + again);
    const json grid = json::parse(metadata.at("grid").get<std::string>());
    info_.fingerprint = metadata.at("fingerprint");
    info_.start = grid.at("start");
    info_.step = grid.at("step");
    info_.n_channels = grid.at("n");
    info_.reference = grid.at("reference");
    for (const auto &entry : header.items()) {
      if (entry.key() == "__metadata__") continue;
      const auto end = entry.value().at("data_offsets").at(1).get<uint64_t>();
      if (end > readout_->size() - 8 - header_size) throw std::runtime_error(damaged);
    }
    const json &weights = header.at("weights");
    const std::string dtype = weights.at("dtype");
    weights_double_ = dtype == "F64";
    info_.n_features = weights.at("shape").at(1);
    const auto begin = weights.at("data_offsets").at(0).get<uint64_t>();
    const auto bytes = weights.at("data_offsets").at(1).get<uint64_t>() - begin;
    const uint64_t numbers = static_cast<uint64_t>(info_.n_channels) * info_.n_features;
    if ((dtype != "F64" && dtype != "F32") || weights.at("shape").at(0) != info_.n_channels ||
        bytes != numbers * (weights_double_ ? 8 : 4))
      throw std::runtime_error(path + ": its weights do not fit its energies" + again);
    weights_ = readout_->data() + 8 + header_size + begin;
    info_.n_members = header.contains("deviations") ? header.at("deviations").at("shape").at(0).get<int>() : 0;
  } catch (const json::exception &) {
    throw std::runtime_error(damaged);
  }
  energies_.resize(info_.n_channels);
  for (int i = 0; i < info_.n_channels; ++i) energies_[i] = info_.start + info_.step * i;
}

bool Model::knows(int number) const
{
  const auto &numbers = capabilities().numbers;
  return std::binary_search(numbers.begin(), numbers.end(), number);
}

std::string Model::symbols() const
{
  std::string text;
  for (int number : capabilities().numbers) text += (text.empty() ? "" : " ") + std::string(chemical_symbol(number));
  return text;
}

std::string Model::partial_features(const Structure &structure, int first, int count, int max_atoms, std::vector<double> &features,
                               Work &work)
{
  std::vector<double> sum;
  const std::string error = network_->evaluate(structure, first, count, max_atoms, sum, work);
  features.assign(info_.n_features, 0.0);
  if (!error.empty()) return error;
  std::copy(sum.begin(), sum.end() - 1, features.begin());
  features[info_.n_features - 2] = count;
  features[info_.n_features - 1] = sum.back();
  return "";
}

void Model::finish_features(std::vector<double> &features) const
{
  if (info_.dtype == "float32")
    for (double &x : features) x = static_cast<float>(x);
}

namespace {

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

}    // namespace

void Model::dos(const std::vector<double> &features, std::vector<double> &out) const
{
  out.resize(info_.n_channels);
  if (weights_double_)
    multiply<double>(weights_, features, out);
  else
    multiply<float>(weights_, features, out);
}

int atomic_number(const std::string &symbol)
{
  for (int number = 1; number < N_SYMBOLS; ++number)
    if (symbol == SYMBOLS[number]) return number;
  return 0;
}

const char *chemical_symbol(int number)
{
  return number > 0 && number < N_SYMBOLS ? SYMBOLS[number] : "X";
}

}    // namespace petdos
