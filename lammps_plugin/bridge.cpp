// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: evaluates a metatomic model. Holds torch, metatensor, metatomic and vesin; see bridge.h.

#include "bridge.h"
#include "halo.h"

#include <ATen/Parallel.h>
#include <metatensor/torch.hpp>
#include <metatomic/torch.hpp>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>
#include <torch/cuda.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <stdexcept>

namespace petdos {
namespace {

using metatensor_torch::Labels;
using metatensor_torch::LabelsHolder;
using metatensor_torch::TensorBlockHolder;
using metatensor_torch::TensorMapHolder;
using metatomic_torch::ModelOutput;
using metatomic_torch::ModelOutputHolder;
using metatomic_torch::System;
using metatomic_torch::SystemHolder;

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

// The line of a torch error that says what happened: backtraces and "The following operation failed ..." are left out.
std::string reason_of(const std::exception &error)
{
  const auto *own = dynamic_cast<const c10::Error *>(&error);
  std::string text = own ? own->what_without_backtrace() : error.what();
  std::vector<std::string> lines;
  size_t begin = 0;
  while (begin < text.size()) {
    size_t end = text.find('\n', begin);
    if (end == std::string::npos) end = text.size();
    std::string line = text.substr(begin, end - begin);
    line.erase(0, line.find_first_not_of(" \t"));
    if (!line.empty()) lines.push_back(line);
    begin = end + 1;
  }
  if (lines.empty()) return "unknown error";
  for (auto line = lines.rbegin(); line != lines.rend(); ++line)
    if (line->find("Error: ") != std::string::npos) return *line;
  return lines.front();
}

class NoDevice : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class TorchNetwork : public Network {
 public:
  TorchNetwork(const std::string &path, const std::string &device, int index, int threads)
      : module_(load(path)), device_(c10::kCPU), threads_(threads)
  {
    const Settings settings(threads_);
    const auto known = module_.run_method("capabilities").toCustomClass<metatomic_torch::ModelCapabilitiesHolder>();
    const auto metadata = module_.run_method("metadata").toCustomClass<metatomic_torch::ModelMetadataHolder>();
    capabilities_.dtype = known->dtype();
    dtype_ = known->dtype() == "float64" ? torch::kFloat64 : torch::kFloat32;
    for (const auto &entry : known->outputs()) capabilities_.outputs.push_back(entry.key());
    for (int64_t number : known->atomic_types) capabilities_.numbers.push_back(static_cast<int>(number));
    std::sort(capabilities_.numbers.begin(), capabilities_.numbers.end());
    if (metadata->extra.contains("petdos")) capabilities_.record = metadata->extra.at("petdos");

    const auto lists = module_.run_method("requested_neighbor_lists").toList();
    for (size_t i = 0; i < lists.size(); ++i) {
      lists_.push_back(lists.get(i).toCustomClass<metatomic_torch::NeighborListOptionsHolder>());
      capabilities_.cutoff = std::max(capabilities_.cutoff, lists_.back()->engine_cutoff("angstrom"));
    }
    // The declared range counts messages alone. The weight of an edge depends on the environments of both its atoms (adaptive
    // cutoffs), and so do the features of the last layer, which are averaged over both directions: two hops more.
    const double range = known->engine_interaction_range("angstrom");
    if (capabilities_.cutoff > 0 && std::isfinite(range))
      capabilities_.hops = static_cast<int>(std::ceil(range / capabilities_.cutoff - 1e-9)) + 2;
    else if (!std::isfinite(range))
      capabilities_.hops = -1;

    choose_device(device, index, known->supported_devices);
    if (!device_.is_cpu()) module_.to(device_);
    components_ = LabelsHolder::create({"xyz"}, {{0}, {1}, {2}})->to(device_);
    properties_ = LabelsHolder::create({"distance"}, {{0}})->to(device_);
  }

  const Capabilities &capabilities() const override { return capabilities_; }

  std::string set_outputs(const std::vector<std::string> &names, std::vector<int> &widths) override
  {
    names_ = names;
    Structure one;
    one.positions = {0.0, 0.0, 0.0};
    one.numbers = {capabilities_.numbers.front()};
    try {
      const Settings settings(threads_);
      widths.clear();
      for (const auto &values : run(one, {})) widths.push_back(static_cast<int>(values.size(1)));
      width_ = std::accumulate(widths.begin(), widths.end(), 0);
    } catch (const std::exception &error) {
      return "the model cannot be evaluated: " + reason_of(error);
    }
    return "";
  }

  std::string evaluate(const Structure &structure, int first, int count, int max_atoms, std::vector<double> &sum) override
  {
    sum.assign(width_, 0.0);
    if (count == 0) return "";
    try {
      const Settings settings(threads_);
      evaluate_atoms(rounded(structure), first, count, max_atoms, sum);
    } catch (const std::exception &error) {
      return reason_of(error);
    }
    return "";
  }

 private:
  static metatensor_torch::Module load(const std::string &path)
  {
    return metatensor_torch::Module(metatomic_torch::load_atomistic_model(path));
  }

  void choose_device(const std::string &wanted, int index, const std::vector<std::string> &supported)
  {
    std::string usable;
    for (const auto &name : supported) {
      if (name != "cpu" && !(name == "cuda" && torch::cuda::is_available())) continue;
      usable += (usable.empty() ? "" : ", ") + name;
      if (capabilities_.device.empty() && (wanted.empty() || wanted == name)) capabilities_.device = name;
    }
    if (capabilities_.device.empty())
      throw NoDevice("device " + (wanted.empty() ? std::string("of the model") : wanted) +
                               " is not usable here with this model, expected one of: " + usable);
    if (capabilities_.device == "cuda")
      device_ = torch::Device(torch::kCUDA, static_cast<c10::DeviceIndex>(index % torch::cuda::device_count()));
  }

  // Positions in the precision of the model, so that the neighbor list is that of what the model sees.
  Structure rounded(Structure structure) const
  {
    if (dtype_ == torch::kFloat32)
      for (double &x : structure.positions) x = static_cast<float>(x);
    return structure;
  }

  void evaluate_atoms(const Structure &structure, int first, int count, int max_atoms, std::vector<double> &sum)
  {
    std::vector<NeighborGraph> graphs;
    for (const auto &list : lists_)
      graphs.push_back(find_neighbors(structure, list->engine_cutoff("angstrom"), list->full_list()));

    if (count == structure.size() && count <= max_atoms) {
      add(run(structure, graphs), sum);
      return;
    }
    std::vector<int> own(count);
    std::iota(own.begin(), own.end(), first);
    std::vector<Chunk> chunks;
    if (capabilities_.hops < 0) {
      if (structure.size() > max_atoms)
        throw std::runtime_error("the range of the model is infinite: it cannot be evaluated in chunks");
      std::vector<int> all(structure.size());
      std::iota(all.begin(), all.end(), 0);
      std::rotate(all.begin(), all.begin() + first, all.begin() + first + count);
      chunks.push_back({own, all});
    } else {
      chunks = plan_chunks(structure, widest(graphs), own, capabilities_.hops, max_atoms);
    }
    for (const Chunk &chunk : chunks) {
      std::vector<NeighborGraph> parts;
      Structure part;
      cut(structure, graphs, chunk.atoms, part, parts);
      add(run(part, parts, static_cast<int64_t>(chunk.own.size())), sum);
    }
  }

  const NeighborGraph &widest(const std::vector<NeighborGraph> &graphs) const
  {
    for (size_t i = 0; i < lists_.size(); ++i)
      if (lists_[i]->full_list() && lists_[i]->engine_cutoff("angstrom") >= capabilities_.cutoff) return graphs[i];
    throw std::runtime_error("the model asks for half neighbor lists: it cannot be evaluated in chunks");
  }

  // A part of the structure in the same periodic cell, with the pairs whose two atoms are in it.
  static void cut(const Structure &structure, const std::vector<NeighborGraph> &graphs, const std::vector<int> &atoms,
                  Structure &part, std::vector<NeighborGraph> &parts)
  {
    part = Structure();
    std::copy(&structure.cell[0][0], &structure.cell[0][0] + 9, &part.cell[0][0]);
    std::copy(structure.periodic, structure.periodic + 3, part.periodic);
    std::vector<int32_t> place(structure.size(), -1);
    for (int i : atoms) {
      place[i] = part.size();
      part.numbers.push_back(structure.numbers[i]);
      part.positions.insert(part.positions.end(), &structure.positions[3 * i], &structure.positions[3 * i] + 3);
    }
    for (const NeighborGraph &graph : graphs) {
      NeighborGraph inside;
      for (int i : atoms) {
        for (size_t p = graph.first[i]; p < graph.first[i + 1]; ++p) {
          if (place[graph.neighbor[p]] < 0) continue;
          inside.center.push_back(place[i]);
          inside.neighbor.push_back(place[graph.neighbor[p]]);
          inside.shift.push_back(graph.shift[p]);
          inside.vector.push_back(graph.vector[p]);
        }
      }
      parts.push_back(std::move(inside));
    }
  }

  // Outputs summed over the first `own` atoms, or all of them: the network does for the others only what these can feel.
  std::vector<torch::Tensor> run(const Structure &structure, const std::vector<NeighborGraph> &graphs, int64_t own = -1)
  {
    const auto real = torch::TensorOptions().dtype(dtype_).device(device_);
    const int n = structure.size();
    const auto positions = torch::tensor(structure.positions, torch::kFloat64).reshape({n, 3}).to(real);
    const auto types = torch::tensor(structure.numbers, torch::kInt32).to(device_);
    auto cell = torch::zeros({3, 3}, torch::kFloat64);
    auto pbc = torch::zeros({3}, torch::kBool);
    for (int a = 0; a < 3; ++a) {
      pbc[a] = structure.periodic[a];
      for (int b = 0; b < 3; ++b) cell[a][b] = structure.cell[a][b];
    }
    auto system = torch::make_intrusive<SystemHolder>(types, positions, cell.to(real), pbc.to(device_));
    for (size_t i = 0; i < lists_.size(); ++i)
      system->add_neighbor_list(lists_[i], graphs.empty() ? block({}) : block(graphs[i]));

    torch::Dict<std::string, ModelOutput> outputs;
    for (const auto &name : names_) {
      auto output = torch::make_intrusive<ModelOutputHolder>();
      output->set_sample_kind("system");
      outputs.insert(name, output);
    }
    auto options = torch::make_intrusive<metatomic_torch::ModelEvaluationOptionsHolder>(
        "angstrom", outputs, own < 0 ? torch::optional<Labels>(torch::nullopt) : first_atoms(own));
    const auto result = module_.forward({std::vector<System>{system}, options, false}).toGenericDict();
    std::vector<torch::Tensor> values;
    for (const auto &name : names_) {
      const auto map = result.at(name).toCustomClass<metatensor_torch::TensorMapHolder>();
      const auto tensor = TensorMapHolder::block_by_id(map, 0)->values();
      values.push_back(tensor.reshape({tensor.size(0), -1}));
    }
    return values;
  }

  torch::optional<Labels> first_atoms(int64_t count) const
  {
    auto values = torch::zeros({count, 2}, torch::kInt32);
    values.select(1, 1).copy_(torch::arange(count, torch::kInt32));
    return torch::make_intrusive<LabelsHolder>(std::vector<std::string>{"system", "atom"}, values.to(device_),
                                               metatensor::assume_unique{});
  }

  metatensor_torch::TensorBlock block(const NeighborGraph &graph) const
  {
    const auto n = static_cast<int64_t>(graph.center.size());
    auto samples = torch::empty({n, 5}, torch::kInt32);
    auto vectors = torch::empty({n, 3, 1}, torch::kFloat64);
    auto *sample = samples.data_ptr<int32_t>();
    auto *vector = vectors.data_ptr<double>();
    for (int64_t p = 0; p < n; ++p) {
      sample[5 * p] = graph.center[p];
      sample[5 * p + 1] = graph.neighbor[p];
      for (int k = 0; k < 3; ++k) {
        sample[5 * p + 2 + k] = graph.shift[p][k];
        vector[3 * p + k] = graph.vector[p][k];
      }
    }
    const std::vector<std::string> names{"first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"};
    auto labels = torch::make_intrusive<LabelsHolder>(names, samples.to(device_), metatensor::assume_unique{});
    return torch::make_intrusive<TensorBlockHolder>(vectors.to(device_, dtype_), labels, std::vector<Labels>{components_},
                                                    properties_);
  }

  // Adds each output to its part of the sum.
  static void add(const std::vector<torch::Tensor> &outputs, std::vector<double> &sum)
  {
    size_t begin = 0;
    for (const auto &values : outputs) {
      const auto total = values.to(torch::kFloat64).sum(0).to(torch::kCPU).contiguous();
      const auto *data = total.data_ptr<double>();
      for (int64_t k = 0; k < total.size(0); ++k) sum[begin + k] += data[k];
      begin += total.size(0);
    }
  }

  metatensor_torch::Module module_;
  torch::Device device_;
  torch::Dtype dtype_ = torch::kFloat32;
  int threads_;
  Capabilities capabilities_;
  std::vector<metatomic_torch::NeighborListOptions> lists_;
  std::vector<std::string> names_;
  int width_ = 0;
  Labels components_, properties_;
};

}    // namespace
}    // namespace petdos

extern "C" __attribute__((visibility("default"))) petdos::Network *
petdos_open_network(const char *path, const char *device, int index, int threads, petdos::OpenFailure &failure)
{
  try {
    return new petdos::TorchNetwork(path, device, index, threads);
  } catch (const petdos::NoDevice &caught) {
    failure = {caught.what(), false};
  } catch (const std::exception &caught) {
    failure = {petdos::reason_of(caught), true};
  }
  return nullptr;
}
