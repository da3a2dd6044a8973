// SPDX-License-Identifier: GPL-2.0-only

#include "truncate.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>

namespace petdos {
namespace {

constexpr uint32_t END_OF_DIRECTORY = 0x06054b50, DIRECTORY_ENTRY = 0x02014b50, LOCAL_HEADER = 0x04034b50;
constexpr size_t END_SIZE = 22, ENTRY_SIZE = 46, LOCAL_SIZE = 30;

[[noreturn]] void wrong(const std::string &what)
{
  throw std::runtime_error(what);
}

uint32_t crc32(const char *data, size_t size)
{
  static const auto table = [] {
    std::array<uint32_t, 256> t{};
    for (uint32_t i = 0; i < 256; ++i) {
      t[i] = i;
      for (int bit = 0; bit < 8; ++bit) t[i] = (t[i] >> 1) ^ (t[i] & 1 ? 0xedb88320u : 0u);
    }
    return t;
  }();
  uint32_t crc = 0xffffffffu;
  for (size_t i = 0; i < size; ++i) crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(data[i])) & 0xff];
  return ~crc;
}

// A file in memory that is not read beyond its end. Little endian, as the machines that the wheels are made for.
class Bytes {
 public:
  explicit Bytes(std::string text) : text_(std::move(text)) {}

  size_t size() const { return text_.size(); }
  template <typename Number> Number number(size_t at) const
  {
    Number value;
    std::memcpy(&value, part(at, sizeof(Number)), sizeof(Number));
    return value;
  }
  const char *part(size_t at, size_t size) const
  {
    if (at > text_.size() || size > text_.size() - at) wrong("it is cut off");
    return text_.data() + at;
  }

 private:
  std::string text_;
};

// The files of an archive without compression, which is what numpy.savez writes.
std::map<std::string, Bytes> unzip(const Bytes &archive)
{
  if (archive.size() < END_SIZE) wrong("it is cut off");
  size_t end = archive.size() - END_SIZE;
  while (archive.number<uint32_t>(end) != END_OF_DIRECTORY)
    if (end-- == 0) wrong("it is no archive");
  size_t entry = archive.number<uint32_t>(end + 16);
  std::map<std::string, Bytes> files;
  for (int left = archive.number<uint16_t>(end + 10); left > 0; --left) {
    if (archive.number<uint32_t>(entry) != DIRECTORY_ENTRY) wrong("it is no archive");
    const size_t size = archive.number<uint32_t>(entry + 24), name_size = archive.number<uint16_t>(entry + 28);
    const size_t local = archive.number<uint32_t>(entry + 42);
    const std::string name(archive.part(entry + ENTRY_SIZE, name_size), name_size);
    if (archive.number<uint16_t>(entry + 10) != 0 || size == UINT32_MAX || local == UINT32_MAX)
      wrong(name + " is compressed or larger than 4 GB");
    if (archive.number<uint32_t>(local) != LOCAL_HEADER) wrong("it is no archive");
    const size_t begin = local + LOCAL_SIZE + archive.number<uint16_t>(local + 26) + archive.number<uint16_t>(local + 28);
    const char *data = archive.part(begin, size);
    if (crc32(data, size) != archive.number<uint32_t>(entry + 16)) wrong(name + " has a wrong checksum");
    files.emplace(name, Bytes(std::string(data, size)));
    entry += ENTRY_SIZE + name_size + archive.number<uint16_t>(entry + 30) + archive.number<uint16_t>(entry + 32);
  }
  return files;
}

// The numbers of a NumPy array of this type and shape, (rows), (rows, width) or (); rows are counted if it has some.
std::string numbers(const Bytes &file, const RewindArray &array, bool scalar, size_t &rows)
{
  if (std::memcmp(file.part(0, 6), "\x93NUMPY", 6) != 0) wrong(array.name + " is no NumPy array");
  const bool first_version = *file.part(6, 1) == 1;
  const size_t header_size = first_version ? file.number<uint16_t>(8) : file.number<uint32_t>(8);
  const size_t begin = (first_version ? 10 : 12) + header_size;
  const std::string header(file.part(begin - header_size, header_size), header_size);
  const size_t item = array.dtype.back() == '4' ? 8 : 4, bytes = file.size() - begin;
  rows = scalar ? 1 : bytes / (item * array.width);
  std::string shape = scalar ? "()" : "(" + std::to_string(rows) + ",";
  if (!scalar) shape += array.flat ? ")" : " " + std::to_string(array.width) + ")";
  const std::string type = "'<" + std::string(1, array.dtype.front()) + std::to_string(item) + "'";
  for (const std::string &expected : {"'descr': " + type, std::string("'fortran_order': False"), "'shape': " + shape})
    if (header.find(expected) == std::string::npos) wrong(array.name + " is not of type " + type + " and shape " + shape);
  if (bytes != rows * item * array.width) wrong(array.name + " is cut off");
  return std::string(file.part(begin, bytes), bytes);
}

}    // namespace

Rewind read_rewind(const std::filesystem::path &path, const std::vector<RewindArray> &arrays)
{
  std::ifstream stream(path, std::ios::binary);
  const Bytes archive(std::string(std::istreambuf_iterator<char>(stream), {}));
  if (!stream) wrong("it cannot be read");
  const auto files = unzip(archive);
  const auto read = [&files](const RewindArray &array, bool scalar, size_t &rows) {
    const auto file = files.find(array.name + ".npy");
    if (file == files.end()) wrong(array.name + " is missing");
    return numbers(file->second, array, scalar, rows);
  };
  Rewind found;
  const std::string start = read({"start", "int64", 1, true}, true, found.rows);
  int64_t first;
  std::memcpy(&first, start.data(), sizeof(first));
  if (first < 0) wrong("start is negative");
  found.start = static_cast<size_t>(first);
  for (const RewindArray &array : arrays) {
    size_t rows = 0;
    found.data.push_back(read(array, false, rows));
    if (found.data.size() > 1 && rows != found.rows) wrong("its arrays have different lengths");
    found.rows = rows;
  }
  return found;
}

}    // namespace petdos
