"""Potentials by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ase.build
import numpy as np
import pytest
from ase.calculators.emt import EMT
from metatomic.torch import load_atomistic_model

from petdos_md.ase import DOSCalculator
from petdos_md.base.errors import ModelError, SettingError
from petdos_md.engines.potentials import Potential, metatomic_calculator
from petdos_md.models.model import DOSModel

MetatomicCalculator = metatomic_calculator()


def test_one_network_for_both(metal: DOSModel, metal_path: Path, model_path: Path) -> None:
    """The file of the DOS model itself, by any path to it, is evaluated once; another file by a calculator of its own."""
    here = metal_path.parent / "." / metal_path.name
    assert isinstance(Potential.find(str(here), metal).calculator(), DOSCalculator)
    assert isinstance(Potential.find(str(model_path), metal).calculator(), MetatomicCalculator)


def test_model_in_memory(checkpoints: tuple[Path, Path], metal: DOSModel, metal_path: Path) -> None:
    """A DOS model with an energy head that has no file: the potential is that of the name."""
    from metatrain.utils.io import load_model

    in_memory = DOSModel.from_atomistic(load_model(checkpoints[0]).export(), metal.grid)
    assert in_memory.has_energy and in_memory.path == ""
    atoms = ase.build.bulk("Al", cubic=True)
    atoms.rattle(0.05, seed=1)
    calculator = Potential.find(str(metal_path), in_memory).calculator()
    expected = MetatomicCalculator(load_atomistic_model(metal_path)).get_potential_energy(atoms)
    assert calculator.get_potential_energy(atoms) == pytest.approx(expected, rel=1e-6)


def test_no_banner(metal_path: Path) -> None:
    """Of a library that is imported for the calculator; errors are still told, with what was printed before them."""
    code = "import sys, torch; from petdos_md.engines.potentials import Potential; Potential.find(sys.argv[1])\n"
    code += (
        "assert torch.cuda.is_available() or 'warp' not in sys.modules  # which takes seconds, and works on GPUs alone"
    )
    done = subprocess.run([sys.executable, "-c", code, str(metal_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    code = "import os\nfrom petdos_md.base.quiet import quiet\nwith quiet():\n    os.write(1, b'native'); print('one'); 1 / 0"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "" and done.stderr.splitlines()[0] == "nativeone" and "ZeroDivisionError" in done.stderr


def test_reset_at_every_call() -> None:
    atoms = ase.build.bulk("Cu", cubic=True)
    calculator = EMT()
    potential = Potential.wrap(calculator)
    energy = calculator.get_potential_energy(atoms)
    assert potential.name == "EMT" and potential.calculator() is calculator and not calculator.results
    assert np.isclose(calculator.get_potential_energy(atoms), energy)


def test_what_is_no_potential(metal_path: Path, tmp_path: Path, lammps_model_path: Path) -> None:
    with pytest.raises(
        SettingError, match=r"morse: no such potential; expected emt, a shipped model \(almgsi-lda, trio-pbesol\)"
    ):
        Potential.find("morse")
    with pytest.raises(ModelError, match="has no energy output"):
        Potential.find(str(lammps_model_path))
