// SPDX-License-Identifier: GPL-2.0-only

#include "trace_metadata.h"

#include "files.h"

#include <algorithm>
#include <cmath>
#include <ctime>

using LAMMPS_NS::json;

namespace petdos {
namespace {

constexpr const char *SCHEMA = "petdos-trace";
constexpr int SCHEMA_VERSION = 2;
constexpr double RELATIVE_TOLERANCE = 1e-6, ABSOLUTE_TOLERANCE = 1e-9;
constexpr const char *NOT_COMPARED[] = {"seed", "source"};
// Each sample has its own temperature: going on at another one is a schedule, not another simulation.
constexpr const char *MAY_CHANGE = "temperatures_K";

std::string created_now()
{
  const std::time_t now = std::time(nullptr);
  char text[40];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S+00:00", std::gmtime(&now));
  return text;
}

json number_or_null(double value)
{
  return std::isfinite(value) ? json(value) : json(nullptr);
}

// Null agrees with everything, a list with one that goes on.
bool agree(const json &a, const json &b)
{
  if (a.is_null() || b.is_null()) return true;
  if (a.is_array() && b.is_array()) {
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
      if (!agree(a[i], b[i])) return false;
    return true;
  }
  if (!a.is_number() || !b.is_number() || (a.is_number_integer() && b.is_number_integer())) return a == b;
  const double x = a.get<double>(), y = b.get<double>();
  return std::abs(x - y) <= std::max(ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE * std::max(std::abs(x), std::abs(y)));
}

void check_value(const std::string &path, const std::string &key, const json &there, const json &here)
{
  if (!agree(there, here))
    fail(path + ": trace of another simulation: it has " + key + " = " + there.dump() + ", got " + here.dump() +
         "; write to another path");
}

// Two lists by replica that agree, but for the entry of `replica`.
json joined(const json &there, const json &here, size_t replica, bool is_new)
{
  json list = there;
  for (size_t i = there.size(); i < here.size(); ++i) list.push_back(here[i]);
  if (replica >= there.size() || replica >= here.size()) return list;
  if (there[replica].is_null() && is_new) list[replica] = here[replica];
  if (!agree(there[replica], here[replica]) || (here[replica].is_null() && !is_new)) list[replica] = nullptr;
  return list;
}

}    // namespace

json new_attributes(const ModelInfo &model, const Description &description)
{
  return {{"schema", SCHEMA},
          {"schema_version", SCHEMA_VERSION},
          {"created", created_now()},
          {"model", json::parse(model.to_json())},
          {"versions", description.versions},
          {"engine", "lammps"},
          {"timestep_fs", number_or_null(description.timestep_fs)},
          {"metadata", description.metadata},
          {"skipped", json::object()},
          {"skipped_last_step", json::object()},
          {"n_skipped", 0}};
}

void check_format(const std::string &path, const json &attributes)
{
  if (attributes.value("schema", json()) != SCHEMA) fail(path + ": not a trace; give another path or the path of a trace");
  const json version = attributes.value("schema_version", json());
  if (version == 1)
    fail(path + ": a trace of format 1, which can be read but not written; copy it into a new one with `petdos merge NEW.zarr " +
         path + "` and go on with that");
  if (version != SCHEMA_VERSION)
    fail(path + ": trace format version " + version.dump() + ", this petdos-md reads up to " + std::to_string(SCHEMA_VERSION) +
         "; upgrade petdos-md");
  const json kinds = {{"model", json::object()},   {"versions", json::object()},          {"engine", ""},
                      {"metadata", json::object()}, {"skipped", json::object()}};
  for (const auto &kind : kinds.items())
    if (attributes.value(kind.key(), json()).type() != kind.value().type())
      fail(path + ": damaged or foreign trace: attributes are incomplete (" + kind.key() + "); restore it from a copy");
}

void check_model(const std::string &path, const json &attributes, const ModelInfo &model)
{
  const json ours = json::parse(model.to_json()), theirs = attributes.value("model", json::object());
  const auto other = [&](const char *key) { return theirs.value(key, json()) != ours.at(key); };
  const auto shown = [&](const char *key) {
    const json value = theirs.value(key, json());
    return value.is_string() ? value.get<std::string>() : std::string("?");
  };
  if (other("fingerprint"))
    fail(path + ": trace of another model: it holds samples of '" + shown("name") + "' (" +
         shown("fingerprint").substr(0, 12) + "), got '" + model.name + "' (" + model.fingerprint.substr(0, 12) +
         "); use that model or write to another path");
  if (other("grid") || other("kind") || other("n_features") || other("dtype"))
    fail(path + ": trace of another energy grid or precision than that of '" + model.name + "'; write to another path");
}

void check_simulation(const std::string &path, const json &attributes, const Description &description)
{
  check_value(path, "timestep_fs", attributes.value("timestep_fs", json()), number_or_null(description.timestep_fs));
  const json known = attributes.value("metadata", json::object());
  for (const auto &entry : description.metadata.items()) {
    if (entry.key() == MAY_CHANGE ||
        std::find(std::begin(NOT_COMPARED), std::end(NOT_COMPARED), entry.key()) != std::end(NOT_COMPARED))
      continue;
    check_value(path, entry.key(), known.value(entry.key(), json()), entry.value());
  }
}

void check_electrons(const std::string &path, const json &attributes, const Description &description)
{
  const char *key = "electronic_temperature_K";
  const auto is_hot = [&](const json &metadata) { return metadata.is_object() && !metadata.value(key, json()).is_null(); };
  const bool there = is_hot(attributes.value("metadata", json::object())), here = is_hot(description.metadata);
  const auto word = [](bool hot) { return std::string(hot ? "hot" : "cold"); };
  if (there != here && description.metadata.value("source", json()).is_null())
    fail(path + ": trace of another simulation: it has " + word(there) + " electrons, got " + word(here) +
         " ones; write to another path");
}

void complete(json &attributes, const Description &description, bool is_new)
{
  const std::string engines = attributes.value("engine", "");
  if ((", " + engines + ",").find(" lammps,") == std::string::npos)
    attributes["engine"] = engines.empty() ? "lammps" : engines + ", lammps";
  if (attributes.value("timestep_fs", json()).is_null()) attributes["timestep_fs"] = number_or_null(description.timestep_fs);
  for (const auto &entry : description.versions.items())
    if (!attributes["versions"].contains(entry.key())) attributes["versions"][entry.key()] = entry.value();
  json &known = attributes["metadata"];
  for (const auto &entry : description.metadata.items()) {
    json &value = known[entry.key()];
    if (value.is_array() && entry.value().is_array())
      value = joined(value, entry.value(), static_cast<size_t>(description.replica), is_new);
    else if (value.is_null())
      value = entry.value();
  }
}

}    // namespace petdos
