// SPDX-License-Identifier: GPL-2.0-only

#include "halo.h"

#include <vesin.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>

namespace petdos {

NeighborGraph find_neighbors(const Structure &structure, double cutoff, bool full)
{
  VesinOptions options{};
  options.cutoff = cutoff;
  options.full = full;
  options.sorted = true;
  options.algorithm = VesinAutoAlgorithm;
  options.skin = 0.0;
  options.n_threads = 1;
  options.return_shifts = true;
  options.return_distances = false;
  options.return_vectors = true;

  VesinNeighborList list;
  const char *message = nullptr;
  const int status =
      vesin_neighbors(reinterpret_cast<const double(*)[3]>(structure.positions.data()), structure.size(), structure.cell,
                      structure.periodic, VesinDevice{VesinCPU, 0}, options, &list, &message);
  if (status != 0) {
    const std::string reason = message ? message : "unknown error";
    vesin_free(&list);
    throw std::runtime_error("the neighbor list failed (" + reason + "); look at the box and the positions");
  }
  NeighborGraph graph;
  graph.center.resize(list.length);
  graph.neighbor.resize(list.length);
  graph.shift.resize(list.length);
  graph.vector.resize(list.length);
  graph.first.assign(structure.size() + 1, 0);
  for (size_t p = 0; p < list.length; ++p) {
    graph.center[p] = static_cast<int32_t>(list.pairs[p][0]);
    graph.neighbor[p] = static_cast<int32_t>(list.pairs[p][1]);
    for (int k = 0; k < 3; ++k) {
      graph.shift[p][k] = list.shifts[p][k];
      graph.vector[p][k] = list.vectors[p][k];
    }
    ++graph.first[list.pairs[p][0] + 1];
  }
  vesin_free(&list);
  std::partial_sum(graph.first.begin(), graph.first.end(), graph.first.begin());
  return graph;
}

namespace {

struct KnownList {
  double cutoff;
  bool full, in_single;
  std::shared_ptr<const NeighborGraph> graph;
};

std::shared_ptr<const NeighborGraph> within(const NeighborGraph &wider, double cutoff)
{
  auto graph = std::make_shared<NeighborGraph>();
  graph->first.assign(wider.first.size(), 0);
  for (size_t p = 0; p < wider.center.size(); ++p) {
    const auto &v = wider.vector[p];
    if (v[0] * v[0] + v[1] * v[1] + v[2] * v[2] >= cutoff * cutoff) continue;
    graph->center.push_back(wider.center[p]);
    graph->neighbor.push_back(wider.neighbor[p]);
    graph->shift.push_back(wider.shift[p]);
    graph->vector.push_back(v);
    ++graph->first[wider.center[p] + 1];
  }
  std::partial_sum(graph->first.begin(), graph->first.end(), graph->first.begin());
  return graph;
}

}    // namespace

std::shared_ptr<const NeighborGraph> shared_neighbors(const Structure &structure, double cutoff, bool full, bool in_single)
{
  thread_local int64_t stamp = 0;
  thread_local std::vector<KnownList> known;
  if (structure.stamp == 0 || structure.stamp != stamp) known.clear();
  stamp = structure.stamp;
  std::shared_ptr<const NeighborGraph> graph;
  for (const KnownList &list : known) {
    if (list.full != full || list.in_single != in_single || list.cutoff < cutoff) continue;
    if (list.cutoff == cutoff) return list.graph;
    graph = within(*list.graph, cutoff);
  }
  if (!graph) graph = std::make_shared<NeighborGraph>(find_neighbors(structure, cutoff, full));
  known.push_back({cutoff, full, in_single, graph});
  return graph;
}

namespace {

// The atoms within so many hops of `own`, which come first.
std::vector<int> with_halo(const NeighborGraph &graph, const std::vector<int> &own, int hops, std::vector<int> &mark,
                           int label)
{
  std::vector<int> atoms(own);
  for (int i : atoms) mark[i] = label;
  size_t begin = 0;
  for (int hop = 0; hop < hops; ++hop) {
    const size_t end = atoms.size();
    for (size_t k = begin; k < end; ++k) {
      for (size_t p = graph.first[atoms[k]]; p < graph.first[atoms[k] + 1]; ++p) {
        const int j = graph.neighbor[p];
        if (mark[j] != label) {
          mark[j] = label;
          atoms.push_back(j);
        }
      }
    }
    begin = end;
  }
  return atoms;
}

int longest_extension(const Structure &structure, const std::vector<int> &own)
{
  int longest = 0;
  double length = -1.0;
  for (int axis = 0; axis < 3; ++axis) {
    double low = structure.positions[3 * own[0] + axis], high = low;
    for (int i : own) {
      low = std::min(low, structure.positions[3 * i + axis]);
      high = std::max(high, structure.positions[3 * i + axis]);
    }
    if (high - low > length) {
      length = high - low;
      longest = axis;
    }
  }
  return longest;
}

}    // namespace

std::vector<Chunk> plan_chunks(const Structure &structure, const NeighborGraph &graph, std::vector<int> own, int hops,
                               int max_atoms)
{
  std::vector<Chunk> done;
  std::vector<std::vector<int>> waiting;
  if (!own.empty()) waiting.push_back(std::move(own));
  std::vector<int> mark(structure.size(), 0);
  int label = 0;
  while (!waiting.empty()) {
    std::vector<int> part = std::move(waiting.back());
    waiting.pop_back();
    Chunk chunk;
    chunk.atoms = with_halo(graph, part, hops, mark, ++label);
    if (static_cast<int>(chunk.atoms.size()) <= max_atoms) {
      chunk.own = std::move(part);
      done.push_back(std::move(chunk));
      continue;
    }
    if (part.size() == 1)
      throw std::runtime_error("one atom with its halo has " + std::to_string(chunk.atoms.size()) +
                               " atoms, more than a chunk may have (" + std::to_string(max_atoms) +
                               "); allow larger chunks");
    const int axis = longest_extension(structure, part);
    const auto middle = part.begin() + part.size() / 2;
    std::nth_element(part.begin(), middle, part.end(), [&](int a, int b) {
      return structure.positions[3 * a + axis] < structure.positions[3 * b + axis];
    });
    waiting.emplace_back(part.begin(), middle);
    waiting.emplace_back(middle, part.end());
  }
  return done;
}

}    // namespace petdos
