"""Copies and pickles of atoms with the calculator of the DOS: they compute what the original computes."""

from __future__ import annotations

import copy
import pickle
import shutil
from pathlib import Path

import ase.build
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from petdos_md.ase import DOSCalculator
from petdos_md.base.errors import ModelError
from petdos_md.engines.calculator import DOS_PROPERTIES
from petdos_md.models.files import readout_path
from petdos_md.models.model import DOSModel


@pytest.fixture(params=["before", "after"])
def atoms(request, metal: DOSModel) -> Atoms:
    """With the calculator, before and after it has computed something."""
    atoms = ase.build.bulk("Al", cubic=True)
    atoms.calc = DOSCalculator(metal, temperature_K=300)
    if request.param == "after":
        atoms.get_forces()
        atoms.calc.get_property("fermi_level", atoms)
    return atoms


def everything(atoms: Atoms) -> list[np.ndarray]:
    return [np.asarray(atoms.calc.get_property(name, atoms)) for name in ("energy", "forces", *DOS_PROPERTIES)]


@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_compute_the_same(how, atoms: Atoms, metal: DOSModel) -> None:
    twin = how(atoms)
    assert (twin.calc.model is metal) == (how is copy.deepcopy)
    assert twin.calc.results.copy().keys() == atoms.calc.results.copy().keys()
    for mine, other in zip(everything(twin), everything(atoms), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-12)
    # They are independent.
    twin.rattle(0.1, seed=1)
    assert abs(twin.get_potential_energy() - atoms.get_potential_energy()) > 1e-3
    np.testing.assert_array_equal(atoms.calc.results["forces"], everything(atoms)[1])


def test_models(metal: DOSModel) -> None:
    """By themselves, without a calculator."""
    again = pickle.loads(pickle.dumps(metal))
    assert copy.deepcopy(metal) is metal and again.info == metal.info
    atoms = ase.build.bulk("Al", cubic=True)
    np.testing.assert_allclose(again.dos(atoms), metal.dos(atoms), rtol=1e-6, atol=1e-9)


def test_results_are_plain(atoms: Atoms, metal: DOSModel) -> None:
    atoms.get_potential_energy(), atoms.get_forces()
    dos = atoms.calc.results["dos"]
    np.testing.assert_allclose(dos, metal.dos(atoms), rtol=1e-6, atol=1e-9)
    for plain in (
        copy.deepcopy(atoms.calc.results),
        pickle.loads(pickle.dumps(atoms.calc.results)),
        atoms.calc.results.copy(),
    ):
        assert type(plain) is dict
        np.testing.assert_array_equal(plain["dos"], dos)
        np.testing.assert_array_equal(plain["forces"], atoms.calc.results["forces"])
    frozen = atoms.copy()
    frozen.calc = SinglePointCalculator(frozen, **atoms.calc.results)
    assert frozen.get_potential_energy() == atoms.get_potential_energy()
    assert "dos" in atoms.calc.results and atoms.calc.results.get("nothing", 3) == 3
    assert atoms.calc.export_properties()["energy"] == atoms.get_potential_energy()
    with pytest.raises(KeyError):
        atoms.calc.results["nothing"]


def test_a_pickle_needs_its_model(metal_path: Path, model_path: Path, tmp_path: Path) -> None:
    place = tmp_path / "m.pt"
    for source, target in ((metal_path, place), (readout_path(metal_path), readout_path(place))):
        shutil.copy(source, target)
    pickled = pickle.dumps(DOSCalculator(place, potential=EMT()))
    assert len(pickled) < 20_000  # not the network
    for source, target in ((model_path, place), (readout_path(model_path), readout_path(place))):
        shutil.copy(source, target)
    with pytest.raises(ModelError, match="another model than the pickled one"):
        pickle.loads(pickled)
    place.unlink()
    with pytest.raises(ModelError, match=r"m\.pt"):
        pickle.loads(pickled)


def test_evaluate_takes_what_can_be_iterated(metal: DOSModel, aluminium: Atoms) -> None:
    samples = metal.evaluate(atoms for atoms in (aluminium, aluminium))
    assert len(samples) == 2
    np.testing.assert_array_equal(samples[0].features, metal.evaluate([aluminium, aluminium])[0].features)
