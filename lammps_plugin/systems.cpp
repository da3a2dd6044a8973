// SPDX-License-Identifier: GPL-2.0-only

#include "systems.h"

namespace petdos {

using metatensor_torch::Labels;
using metatensor_torch::LabelsHolder;
using metatensor_torch::TensorBlock;
using metatensor_torch::TensorBlockHolder;
using metatomic_torch::System;
using metatomic_torch::SystemHolder;

SystemMaker::SystemMaker(torch::Device device, torch::Dtype dtype, std::vector<metatomic_torch::NeighborListOptions> lists)
    : device_(device), dtype_(dtype), lists_(std::move(lists))
{
  components_ = LabelsHolder::create({"xyz"}, {{0}, {1}, {2}})->to(device_);
  properties_ = LabelsHolder::create({"distance"}, {{0}})->to(device_);
}

System SystemMaker::make(const Part &part, Leaves *leaves, bool check_consistency) const
{
  const Structure &structure = part.structure;
  const auto real = torch::TensorOptions().dtype(dtype_).device(device_);
  const int n = structure.size();
  auto positions = torch::tensor(structure.positions, torch::kFloat64).reshape({n, 3}).to(real);
  const auto types = torch::tensor(structure.numbers, torch::kInt32).to(device_);
  auto rows = torch::zeros({3, 3}, torch::kFloat64);
  auto pbc = torch::zeros({3}, torch::kBool);
  for (int a = 0; a < 3; ++a) {
    pbc[a] = structure.periodic[a];
    for (int b = 0; b < 3; ++b) rows[a][b] = structure.cell[a][b];
  }
  auto cell = rows.to(real);
  if (leaves) {
    leaves->positions = positions.requires_grad_(true);
    leaves->strain = torch::eye(3, real).requires_grad_(true);
    positions = positions.matmul(leaves->strain);
    cell = cell.matmul(leaves->strain);
  }
  auto system = torch::make_intrusive<SystemHolder>(types, positions, cell, pbc.to(device_));
  for (size_t i = 0; i < lists_.size(); ++i) {
    const TensorBlock neighbors = block(part.graphs.empty() ? nullptr : part.graphs[i].get());
    if (leaves) metatomic_torch::register_autograd_neighbors(system, neighbors, check_consistency);
    system->add_neighbor_list(lists_[i], neighbors);
  }
  return system;
}

torch::optional<Labels> SystemMaker::selected(const Part &part) const
{
  if (part.is_whole) return torch::nullopt;
  auto values = torch::zeros({part.own, 2}, torch::kInt32);
  values.select(1, 1).copy_(torch::arange(part.own, torch::kInt32));
  return torch::make_intrusive<LabelsHolder>(std::vector<std::string>{"system", "atom"}, values.to(device_),
                                             metatensor::assume_unique{});
}

TensorBlock SystemMaker::block(const NeighborGraph *graph) const
{
  const auto n = graph ? static_cast<int64_t>(graph->center.size()) : 0;
  auto samples = torch::empty({n, 5}, torch::kInt32);
  auto vectors = torch::empty({n, 3, 1}, torch::kFloat64);
  auto *sample = samples.data_ptr<int32_t>();
  auto *vector = vectors.data_ptr<double>();
  for (int64_t p = 0; p < n; ++p) {
    sample[5 * p] = graph->center[p];
    sample[5 * p + 1] = graph->neighbor[p];
    for (int k = 0; k < 3; ++k) {
      sample[5 * p + 2 + k] = graph->shift[p][k];
      vector[3 * p + k] = graph->vector[p][k];
    }
  }
  const std::vector<std::string> names{"first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"};
  auto labels = torch::make_intrusive<LabelsHolder>(names, samples.to(device_), metatensor::assume_unique{});
  return torch::make_intrusive<TensorBlockHolder>(vectors.to(device_, dtype_), labels, std::vector<Labels>{components_},
                                                  properties_);
}

}    // namespace petdos
