"""Files as the engines themselves write them; the oracle is what the engine holds in memory, or another reader."""

from __future__ import annotations

import lzma
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from helpers.lammps_tools import instance, run_lmp

from petdos_md.base.errors import PetdosError
from petdos_md.cli.main import main
from petdos_md.engines.structures.binary import is_whole
from petdos_md.engines.structures.files import read_frames, read_structure
from petdos_md.engines.structures.interpretation import Interpretation
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace

DATA = Path(__file__).parents[1] / "data"
DECK = """
units metal
lattice fcc 4.05
region box prism 0 2 0 2 0 2 0.5 0.2 0.3
create_box 2 box
create_atoms 1 box
set group all type/fraction 2 0.3 12393
mass 1 26.982
mass 2 24.305
pair_style lj/cut 6
pair_coeff * * 0.02 2.6
velocity all create 900 4928
fix 1 all nve
change_box all x delta -1.5 2.5 remap
{dumps}
run 10
"""
DUMPS = {
    "custom.lammpstrj": ("custom", "id type x y z vx vy vz", ""),
    "shuffled.lammpstrj": ("custom", "type zu yu xu id", "sort -3"),
    "elements.lammpstrj": ("custom", "id element xu yu zu", "element Al Mg units yes time yes"),
    "atom.lammpstrj": ("atom", "", ""),
    "images.lammpstrj": ("atom", "", "image yes scale no"),
    "scaled.lammpstrj.gz": ("custom", "id type xs ys zs ix iy iz", "format float %.15g"),
    "unwrapped.lammpstrj": ("custom", "id type xsu ysu zsu", "format float %.15g"),
    "types.xyz": ("xyz", "", "sort id"),
    "elements.xyz": ("xyz", "", "element Al Mg sort id"),
    "a.extxyz": ("extxyz", "", "element Al Mg sort id"),
    "*.cfg": ("cfg", "mass type xs ys zs id", "element Al Mg sort id"),
    "a.xtc": ("xtc", "", "sfactor 0.1 tfactor 1.0"),
    "a.dcd": ("dcd", "", ""),
}


@pytest.fixture(scope="module")
def lammps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Atoms]:
    """A folder with dumps of all kinds, and the last frame as LAMMPS itself holds it, atoms by their ids."""
    folder = tmp_path_factory.mktemp("dumps")
    lines = []
    for i, (name, (style, columns, modify)) in enumerate(DUMPS.items()):
        lines.append(f"dump d{i} all {style} 5 {folder / name} {columns}")
        if modify:
            lines.append(f"dump_modify d{i} {modify}")
    data = f"write_data {folder / 'data.lmp'}"
    done = run_lmp(DECK.format(dumps="\n".join(lines)) + data, folder, 1)  # whose files are complete when it has ended
    assert done.returncode == 0, done.stdout
    with instance(DECK.format(dumps="")) as lmp:
        (low, high, xy, yz, xz, _, _) = lmp.extract_box()
        n = lmp.get_natoms()
        positions = np.array(lmp.gather_atoms("x", 1, 3)).reshape(n, 3)
        velocities = np.array(lmp.gather_atoms("v", 1, 3)).reshape(n, 3)
        types = np.array(lmp.gather_atoms("type", 0, 1))
    size = np.subtract(high, low)
    cell = [[size[0], 0, 0], [xy, size[1], 0], [xz, yz, size[2]]]
    atoms = Atoms(np.where(types == 1, "Al", "Mg"), positions, cell=cell, pbc=True)
    atoms.set_velocities(velocities * units.Angstrom / (1000 * units.fs))
    atoms.info["origin"] = np.array(low)
    return folder, atoms


def same_crystal(read: Atoms, expected: Atoms, atol: float) -> None:
    """The same atoms but for images and the origin."""
    assert read.get_chemical_symbols() == expected.get_chemical_symbols() and read.pbc.all()
    np.testing.assert_allclose(read.cell.array, expected.cell.array, atol=atol)
    shift = (read.positions - expected.positions) @ np.linalg.inv(expected.cell.array)
    shift -= shift[0]
    np.testing.assert_allclose(shift, np.round(shift), atol=atol)


@pytest.mark.parametrize("name", [name for name in DUMPS if not name.endswith((".cfg", ".xtc", ".dcd"))])
def test_dumps_of_lammps(name: str, lammps: tuple[Path, Atoms]) -> None:
    folder, expected = lammps
    told = DUMPS[name][1].find("element") >= 0 or DUMPS[name][2].find("element") >= 0
    how = Interpretation(
        species=None if told else "Al,Mg",
        units="metal" if name == "custom.lammpstrj" else None,
        cell=expected.cell.array.ravel() if name.endswith("s.xyz") else None,
    )
    frames = [atoms for _, atoms in read_frames(folder / name, how=how)]
    assert [int(atoms.info["step"]) for atoms in frames] == [0, 5, 10]
    same_crystal(
        frames[-1], expected, 1e-5 if DUMPS[name][0] in ("xyz", "extxyz") or "float" not in DUMPS[name][2] else 1e-10
    )
    if name == "custom.lammpstrj":
        np.testing.assert_allclose(frames[-1].get_velocities(), expected.get_velocities(), atol=1e-5)
    if name == "elements.lammpstrj":
        assert [atoms.info["time_fs"] for atoms in frames] == pytest.approx([0, 5, 10])
    if not told:
        with pytest.raises(PetdosError, match=r"frame 0.*has type [12] in place of an element; give --species"):
            list(read_frames(folder / name))


def test_other_files_of_lammps(lammps: tuple[Path, Atoms]) -> None:
    folder, expected = lammps
    cfg = read_structure(str(folder / "10.cfg"))
    same_crystal(cfg, expected, 1e-5)
    same_crystal(read_structure(str(folder / "data.lmp")), expected, 1e-5)
    same_crystal(read_structure(str(folder / "data.lmp"), Interpretation(species="Al,Mg")), expected, 1e-5)
    strange = (folder / "data.lmp").read_text().replace("1 26.982", "1 100")
    (folder / "strange.lmp").write_text(strange)
    with pytest.raises(PetdosError, match="an atom of mass 100, which name no elements; give --species"):
        read_structure(str(folder / "strange.lmp"))


@pytest.mark.parametrize("name", ["a.xtc", "a.dcd"])
def test_binary_trajectories_are_seen_to_be_cut(name: str, lammps: tuple[Path, Atoms], tmp_path: Path) -> None:
    path, kind = lammps[0] / name, name[2:].upper()
    assert is_whole(path, kind)
    content = path.read_bytes()
    for missing in (1, 4, 50, 200):
        (tmp_path / name).write_bytes(content[:-missing])
        assert not is_whole(tmp_path / name, kind)


@pytest.mark.parametrize("name", ["a.xtc", "a.dcd"])
def test_binary_trajectories(name: str, lammps: tuple[Path, Atoms]) -> None:
    folder, expected = lammps
    try:
        import MDAnalysis  # noqa: F401
    except ImportError:
        with pytest.raises(
            PetdosError, match="is read by MDAnalysis, which is not installed; `pip install MDAnalysis`"
        ):
            list(read_frames(folder / name))
        return
    with pytest.raises(PetdosError, match="has no elements; give --topology"):
        list(read_frames(folder / name))
    frames = [atoms for _, atoms in read_frames(folder / name, how=Interpretation(topology=folder / "data.lmp"))]
    assert len(frames) == 3
    distances = [np.sort(atoms.get_all_distances(mic=True).ravel()) for atoms in (frames[-1], expected)]
    np.testing.assert_allclose(*distances, atol=0.03 if name == "a.xtc" else 1e-3)  # XTC keeps 0.01 angstrom
    if name == "a.xtc":
        assert [atoms.info["step"] for atoms in frames] == [0, 5, 10]


@pytest.mark.parametrize("unit", ["angstrom", "atomic_unit", "nanometer"])
def test_positions_of_ipi(unit: str, tmp_path: Path) -> None:
    """Written by i-PI's own printer."""
    from ipi.engine.atoms import Atoms as IPIAtoms
    from ipi.engine.cell import Cell
    from ipi.utils.io import print_file

    atoms = ase.build.bulk("Al", cubic=True) * (2, 1, 1)
    atoms.rattle(0.1, seed=1)
    atoms.set_cell([[8, 0, 0], [1, 5, 0], [0.5, 0.7, 6]])
    there, cell = IPIAtoms(len(atoms)), Cell(atoms.cell.array.T / units.Bohr)
    there.q[:] = atoms.positions.ravel() / units.Bohr
    there.names[:] = atoms.get_chemical_symbols()
    path = tmp_path / "simulation.pos_0.xyz"
    with open(path, "w") as file:
        for step in (0, 20):
            title = f" Step: {step:10d}  Bead: {0:5d} "
            print_file("xyz", there, cell, filedesc=file, title=title, key="positions", units=unit, cell_units=unit)
    frames = [frame for _, frame in read_frames(path)]
    assert [int(frame.info["step"]) for frame in frames] == [0, 20]
    np.testing.assert_allclose(frames[0].positions, atoms.positions, atol=1e-4)
    np.testing.assert_allclose(frames[0].cell.array, atoms.cell.array, atol=1e-3)
    assert frames[0].pbc.all()


def test_the_same_features_of_all_dialects(metal: DOSModel, tmp_path: Path) -> None:
    """One crystal in four files gives one sample, through the command."""
    atoms = ase.build.bulk("Al", cubic=True) * (2, 1, 1)
    atoms.rattle(0.05, seed=1)
    a, b, c = atoms.cell.lengths()
    rows = [f"Al {x:.8f} {y:.8f} {z:.8f}" for x, y, z in atoms.positions]
    bohr = [f"Al {x:.8f} {y:.8f} {z:.8f}" for x, y, z in atoms.positions / units.Bohr]
    box = " ".join(f"{x / units.Bohr:.8f}" for x in (a, b, c))
    files = {
        "ipi.xyz": (
            f"# CELL(abcABC): {box} 90 90 90 Step: 7 Bead: 0 positions{{atomic_unit}} cell{{atomic_unit}}",
            bohr,
            [],
        ),
        "cp2k.xyz": (" i =        7, time =        3.500, E =       -17.1", rows, ["--cell", a, b, c]),
        "plain.xyz": ("", rows, ["--cell", tmp_path / "right.extxyz"]),
    }
    atoms.info["step"] = 7
    ase.io.write(tmp_path / "right.extxyz", atoms)
    expected = metal.evaluate(atoms).features
    for name, (comment, lines, more) in files.items():
        (tmp_path / name).write_text("\n".join([str(len(atoms)), comment, *lines, ""]))
        command = [
            "rerun",
            "--dos",
            metal.path,
            tmp_path / name,
            "--temperature",
            600,
            "-o",
            tmp_path / f"{name}.zarr",
            *more,
        ]
        assert main([str(word) for word in command]) == 0
        (sample,) = Trace.open(tmp_path / f"{name}.zarr", "r")
        np.testing.assert_allclose(sample.features, expected, rtol=1e-4, atol=1e-4)
        assert sample.step == (0 if name == "plain.xyz" else 7)
        if name == "cp2k.xyz":
            assert (sample.time_fs, sample.potential_energy_eV) == (3.5, pytest.approx(-17.1 * units.Hartree))


def vasprun(steps: int) -> str:
    """What VASP writes of a run of one atom, as far as structures go."""
    atom = '<atominfo><array name="atoms"><set><rc><c>Al</c><c>1</c></rc></set></array></atominfo>'
    basis = '<crystal><varray name="basis"><v>4 0 0</v><v>0 4 0</v><v>0 0 {c}</v></varray></crystal>'
    place = '<varray name="positions"><v>0.5 0 {z}</v></varray>'
    energy = '<energy><i name="e_fr_energy">-3.5</i><i name="e_0_energy">-3.5</i></energy>'
    points = (
        '<kpoints><varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1</v></varray></kpoints>'
    )
    text = f'<?xml version="1.0"?>\n<modeling>{points}<parameters></parameters>{atom}<structure name="initialpos">'
    text += basis.format(c=4) + place.format(z=0) + "</structure>\n"
    for k in range(steps):
        structure = f"<structure>{basis.format(c=4 + k)}{place.format(z=0.1 * k)}</structure>"
        text += f"<calculation><scstep>{energy}</scstep>{structure}{energy}</calculation>\n"
    return text + "</modeling>\n"


def test_vasprun(tmp_path: Path) -> None:
    path = tmp_path / "vasprun.xml"
    path.write_text(vasprun(3))
    frames = [atoms for _, atoms in read_frames(path)]
    np.testing.assert_allclose([atoms.positions[0] for atoms in frames], [[2, 0, 0], [2, 0, 0.5], [2, 0, 1.2]])
    seen = []
    for missing, whole in ((20, 3), (200, 2)):  # within the end of the last step, within its structure
        path.write_text(vasprun(3)[:-missing])
        seen.clear()
        with pytest.raises(PetdosError, match=rf"is cut after frame {whole - 1}: it does not end with </modeling>"):
            seen.extend(number for number, _ in read_frames(path))


def test_quantum_espresso(tmp_path: Path, caplog) -> None:
    """An output that ends early is said to; 7.52 bohr is the lattice parameter that it prints."""
    text = lzma.decompress((DATA / "al.pwo.xz").read_bytes()).decode()
    ((_, atoms),) = read_frames(DATA / "al.pwo.xz")
    assert atoms.get_chemical_symbols() == ["Al"] and atoms.get_volume() == pytest.approx(
        (7.52 * units.Bohr) ** 3 / 4, rel=1e-5
    )
    (tmp_path / "early.pwo").write_text(text.replace("JOB DONE", ""))
    with caplog.at_level("WARNING", logger="petdos_md"):
        assert len(list(read_frames(tmp_path / "early.pwo"))) == 1
    assert "the run did not end by itself (no JOB DONE); its 1 whole frames are taken" in caplog.text
