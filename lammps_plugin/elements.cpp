// SPDX-License-Identifier: GPL-2.0-only

#include "elements.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

namespace petdos {
namespace {

const char *const SYMBOLS[] = {
    "X",  "H",  "He", "Li", "Be", "B",  "C",  "N",  "O",  "F",  "Ne", "Na", "Mg", "Al", "Si", "P",  "S",  "Cl", "Ar", "K",
    "Ca", "Sc", "Ti", "V",  "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y",
    "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I",  "Xe", "Cs", "Ba", "La", "Ce", "Pr",
    "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W",  "Re", "Os", "Ir", "Pt", "Au",
    "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U",  "Np", "Pu", "Am", "Cm", "Bk", "Cf", "Es",
    "Fm", "Md", "No", "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl", "Mc", "Lv", "Ts", "Og"};
constexpr int N_SYMBOLS = sizeof(SYMBOLS) / sizeof(SYMBOLS[0]);

}    // namespace

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

std::string hill_formula(const std::map<std::string, int64_t> &counts)
{
  std::string formula;
  const auto add = [&](const std::string &symbol, int64_t count) {
    if (count > 0) formula += symbol + (count > 1 ? std::to_string(count) : "");
  };
  const std::string first[] = {"C", "H"};
  for (const std::string &symbol : first)
    if (counts.count(symbol)) add(symbol, counts.at(symbol));
  for (const auto &[symbol, count] : counts)
    if (symbol != first[0] && symbol != first[1]) add(symbol, count);
  return formula;
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

}    // namespace petdos
