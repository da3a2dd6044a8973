// SPDX-License-Identifier: GPL-2.0-only
// petdos-md, plugin for LAMMPS: chemical symbols and formulas.

#ifndef PETDOS_ELEMENTS_H
#define PETDOS_ELEMENTS_H

#include <cstdint>
#include <map>
#include <string>

namespace petdos {

// Atomic number of a chemical symbol, 0 if there is none; and back.
int atomic_number(const std::string &symbol);
const char *chemical_symbol(int number);

// From counts by symbol, in the order of Hill (https://doi.org/10.1021/ja02046a005) as ASE has it: C, H, then the alphabet.
std::string hill_formula(const std::map<std::string, int64_t> &counts);

// "Al=3,Mg=2": valence electrons by symbol; throws std::runtime_error.
std::map<std::string, double> parse_electrons(const std::string &text);

}    // namespace petdos

#endif
