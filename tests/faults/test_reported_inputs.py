"""Kinds of files that users of other programs reported: each gives the structure that was meant, or one line that says why not.

Each is named after the report that it comes from (repository and number on GitHub), which describes the file; it is written anew here with two
atoms. What is read goes through a rerun, whose samples must be those of the structure that stands beside the file, made by hand.
"""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from petdos_md.base.errors import PetdosError
from petdos_md.engines.rerun import rerun_trajectory
from petdos_md.engines.structures.files import read_frames
from petdos_md.engines.structures.interpretation import Interpretation
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace

CELL = np.diag([4.05, 4.05, 4.05])
FRACTIONS = np.array([[0.0, 0.1, 0.2], [0.5, 0.6, 0.7]])
POSITIONS = np.array([[0.0, 0.5, 1.0], [2.0, 2.5, 0.1]])
LATTICE = 'Lattice="4.05 0 0 0 4.05 0 0 0 4.05"'
COLUMNS = "Properties=species:S:1:pos:R:3"
ROWS = "Al 0.0 0.5 1.0\nMg 2.0 2.5 0.1\n"


def almg(cell: np.ndarray = CELL, positions: np.ndarray = POSITIONS, pbc: object = True) -> Atoms:
    return Atoms("AlMg", positions, cell=cell, pbc=pbc)


def crystal(cell: np.ndarray = CELL, fractions: np.ndarray = FRACTIONS) -> Atoms:
    return almg(cell, fractions @ cell)


def xyz(comment: str, rows: str = ROWS) -> str:
    return f"2\n{comment}\n{rows}"


def dump(
    columns: str, rows: str, box: str = "BOX BOUNDS pp pp pp\n0 4.05\n0 4.05\n0 4.05", n: int = 2, step: int = 5
) -> str:
    return f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{n}\nITEM: {box}\nITEM: ATOMS {columns}\n{rows}"


def xdatcar(*frames: str, names: str = "Al Mg", scale: str = "1.0") -> str:
    return f"title\n {scale}\n 4.05 0 0\n 0 4.05 0\n 0 0 4.05\n {names}\n 1 1\n" + "".join(frames)


def direct(step: object, rows: str = " 0.0 0.1 0.2\n 0.5 0.6 0.7\n") -> str:
    return f"Direct configuration={step:>6}\n{rows}"


def data(atoms: str, masses: str = "1 26.982\n2 24.305", tilt: str = "", indent: str = "") -> str:
    box = "".join(f"0 4.05 {x}lo {x}hi\n" for x in "xyz")
    text = f"title\n\n2 atoms\n2 atom types\n\n{box}{tilt}\nMasses\n\n{masses}\n\n{atoms}\n"
    return "\n".join(indent + line for line in text.split("\n"))


def pdb(name: str, x: float, element: str = "  ") -> str:
    return f"ATOM      1 {name:4s} MOL     1    {x:8.3f}{0.5:8.3f}{1.0:8.3f}  1.00  0.00          {element:>2s}\n"


CRYST1 = "CRYST1    4.050    4.050    4.050  90.00  90.00  90.00 P 1           1\n"
TILTED = np.array([[4.05, 0, 0], [1.0, 4.05, 0], [0, 0.5, 4.05]])
ROW_COLUMNS = "id element x y z"
ROWS_OF_DUMP = "1 Al 0 .5 1\n2 Mg 2 2.5 .1\n"

READ: dict[str, tuple[str, str | bytes, list[Atoms]]] = {
    # Extended xyz
    "chemfiles 495, lattice without columns": ("a.xyz", xyz(f'{LATTICE} pbc="T T T"'), [almg()]),
    "matterviz 387, some directions": ("a.xyz", xyz(f'{LATTICE} {COLUMNS} pbc="T F T"'), [almg(pbc=[True, False, True])]),
    "matterviz 387, no direction": ("a.xyz", xyz(f'{LATTICE} {COLUMNS} pbc="F F F"'), [almg(pbc=False)]),
    "matterviz 387, words": ("a.xyz", xyz(f'{LATTICE} {COLUMNS} pbc="true true false"'), [almg(pbc=[True, True, False])]),
    "QUIP 263, zero vectors": ("a.xyz", xyz(f'Lattice="0 0 0 0 0 0 0 0 0" {COLUMNS} pbc="F F F"'), [almg(np.zeros((3, 3)), pbc=False)]),
    "rmsd 48, bare words with digits": ("a.xyz", xyz(f'{LATTICE} {COLUMNS} 2S-2-Amino=T acid=T energy=-1.5 pbc="T T T"'), [almg()]),
    "dpdata 983, columns of others": (
        "a.xyz",
        xyz(f"{LATTICE} {COLUMNS}:force:R:3:tags:I:1:move_mask:L:3 REF_energy=-3", "Al 0 .5 1 0 0 0 1 T T F\nMg 2 2.5 .1 0 0 0 1 F F F\n"),
        [almg()],
    ),
    "cp2k 5401, lower case": ("a.xyz", xyz(f"{LATTICE.lower()} {COLUMNS.replace('P', 'p', 1)}"), [almg()]),
    "cp2k 5401, upper case": ("a.xyz", xyz(LATTICE.replace("Lattice", "LATTICE") + ' PBC="T T T"'), [almg()]),
    "cp2k 4962, names of columns": ("a.xyz", xyz(f"{LATTICE} Properties=Species:S:1:Pos:R:3:Energy:R:1", "Al 0 .5 1 7\nMg 2 2.5 .1 7\n"), [almg()]),
    "single quotes": ("a.xyz", xyz(f"{LATTICE} {COLUMNS}".replace('"', "'")), [almg()]),
    "braces": ("a.xyz", xyz("Lattice={4.05 0 0 0 4.05 0 0 0 4.05} " + COLUMNS), [almg()]),
    "pymatgen 120, exponents": ("a.xyz", xyz(f"{LATTICE} {COLUMNS}", "Al 0.00e+00 5e-1 1\nMg 2.0E0 2.5 1.0e-01\n"), [almg()]),
    "gzip members one after the other": (
        "a.xyz.gz",
        b"".join(gzip.compress(xyz(f"{LATTICE} {COLUMNS} step={i}").encode()) for i in range(2)),
        [almg(), almg()],
    ),
    # CP2K, i-PI
    "cp2k 2170, cell of dumpdcd": (
        "a.xyz",
        xyz(" i =        5, time =        2.500, E =       -17.1, a =  4.05, b = 4.05, c = 4.05, alpha = 90.0, beta  = 90.0, gamma = 90.0"),
        [almg()],
    ),
    "cp2k 4601, extended": ("a-pos-1.xyz", xyz(f"{LATTICE} {COLUMNS} Step=5 Time=2.5 Energy=-17.1"), [almg()]),
    "i-pi 162, two units": (
        "a.pos_0.xyz",
        xyz("# CELL(abcABC): 7.653391 7.653391 7.653391 90.0 90.0 90.0 Step: 5 Bead: 0 positions{angstrom} cell{atomic_unit}"),
        [almg()],
    ),
    # Dumps and data files of LAMMPS
    "mdanalysis 3383, bounds of a tilted box": (
        "a.lammpstrj",
        dump(ROW_COLUMNS, ROWS_OF_DUMP, "BOX BOUNDS xy xz yz pp pp pp\n0.0 5.05 1.0\n0.0 4.55 0.0\n0.0 4.05 0.5"),
        [almg(TILTED)],
    ),
    "mdanalysis 4788, fractions and an origin": (
        "a.lammpstrj",
        dump("id element xs ys zs", "1 Al 0 .5 1\n2 Mg .5 .25 .1\n", "BOX BOUNDS pp pp pp\n1 5\n-2 2\n-15 40"),
        [almg(np.diag([4.0, 4, 55]), np.array([[1, 0, 40], [3, -1, -9.5]]))],
    ),
    "mdanalysis 3358, unwrapped": ("a.lammpstrj", dump("id element xu yu zu", "1 Al 4.05 .5 1\n2 Mg 2 -1.55 .1\n"), [almg()]),
    "dpdata 179, unwrapped fractions": (
        "a.lammpstrj",
        dump("id element xsu ysu zsu", "1 Al 0 1.5 1\n2 Mg -.5 .25 .1\n", "BOX BOUNDS pp pp pp\n1 5\n-2 2\n0 4"),
        [almg(np.diag([4.0, 4, 4]), np.array([[1, 0, 0], [3, -1, 0.4]]))],
    ),
    "molstar 1873, another order in each frame": (
        "a.lammpstrj",
        dump(ROW_COLUMNS, ROWS_OF_DUMP) + dump(ROW_COLUMNS, "2 Mg 2 2.5 .1\n1 Al 0 .5 1\n", step=6),
        [almg(), almg()],
    ),
    "chemfiles 371, numbers of atoms change": (
        "a.lammpstrj",
        dump(ROW_COLUMNS, "1 Al 0 .5 1\n", n=1) + dump(ROW_COLUMNS, ROWS_OF_DUMP, step=6),
        [almg()[:1], almg()],
    ),
    "atomman 5, gaps between ids": ("a.lammpstrj", dump(ROW_COLUMNS, "3 Al 0 .5 1\n7 Mg 2 2.5 .1\n"), [almg()]),
    "both kinds of columns": ("a.lammpstrj", dump("id element xs ys zs x y z", "1 Al 9 9 9 0 .5 1\n2 Mg 9 9 9 2 2.5 .1\n"), [almg()]),
    "directions that are not periodic": ("a.lammpstrj", dump(ROW_COLUMNS, ROWS_OF_DUMP, "BOX BOUNDS ff mm fs\n0 4.05\n0 4.05\n0 4.05"), [almg(pbc=False)]),
    "MDANSE 1065, masses out of order": ("a.lmp", data("Atoms # atomic\n\n1 1 0 .5 1\n2 2 2 2.5 .1", "2 24.305\n1 26.982"), [almg()]),
    "Z1plus 1, blanks before the lines": ("a.lmp", data("Atoms # full\n\n1 1 1 0. 0 .5 1 0 0 0\n2 1 2 0. 2 2.5 .1 0 0 0", indent=" "), [almg()]),
    "data file with tilt": ("a.lmp", data("Atoms # atomic\n\n1 1 0 .5 1\n2 2 2 2.5 .1", tilt="1 0 0.5 xy xz yz\n"), [almg(TILTED)]),
    # VASP
    "pymatgen 4323, fused numbers": (
        "XDATCAR",
        xdatcar(direct(2, "-0.63265286-0.11227753 -0.15402785\n-0.12414874 -0.01213420-10.28106824\n")),
        [crystal(fractions=np.array([[-0.63265286, -0.11227753, -0.15402785], [-0.12414874, -0.0121342, -10.28106824]]))],
    ),
    "VASP_XDATCAR 2, a cell in each frame": (
        "XDATCAR",
        xdatcar(direct(1)) + xdatcar(direct(2)).replace("4.05", "4.10"),
        [crystal(), crystal(CELL * 4.1 / 4.05)],
    ),
    "pymatgen 256, headers that come again": ("XDATCAR", xdatcar(direct(1), direct(2)) + xdatcar(direct(3)), [crystal()] * 3),
    "three scale factors": ("XDATCAR", xdatcar(direct(1), scale="1.0 2.0 1.0"), [crystal(np.diag([4.05, 8.1, 4.05]))]),
    "volume as scale factor": ("XDATCAR", xdatcar(direct(1), scale="-64.0"), [crystal(np.diag([4.0] * 3))]),
    "names of potentials": ("XDATCAR", xdatcar(direct(1), names="Al_GW Mg_pv"), [crystal()]),
    "mctc-lib 60, names with hashes": ("XDATCAR", xdatcar(direct(1), names="Al/0a1b2c3 Mg_pv/9f8e"), [crystal()]),
    "steps beyond six digits": ("XDATCAR", xdatcar(direct(999989), direct(999999), direct("******"), direct("******")), [crystal()] * 4),
    "pymatgen 3539, selective dynamics and velocities": (
        "CONTCAR",
        xdatcar("Selective dynamics\nDirect\n 0 .1 .2 T T F\n .5 .6 .7 F F F\n\n 1e-3 0 0\n 0 0 0\n"),
        [crystal()],
    ),
    "cartesian POSCAR with a scale": ("POSCAR", xdatcar("Cartesian\n 0 .25 .5\n 1 1.25 .05\n", scale="2.0"), [almg(2 * CELL)]),
    # Others
    "MDANSE 543, one CRYST1 for all models": (
        "a.pdb",
        CRYST1 + "".join(f"MODEL {i}\n{pdb('AL', 0.1 * i, 'AL')}ENDMDL\n" for i in (1, 2)) + "END\n",
        [Atoms("Al", [[0.1 * i, 0.5, 1.0]], cell=CELL, pbc=True) for i in (1, 2)],
    ),
    "mdtraj 1493, elements with charges": ("a.pdb", CRYST1 + pdb("POT", 0.0, "AL").rstrip() + "3+\nEND\n", [Atoms("Al", [[0, 0.5, 1.0]], cell=CELL, pbc=True)]),
}  # fmt: skip
STEPS = {
    "cp2k 2170, cell of dumpdcd": [5],
    "cp2k 4601, extended": [5],
    "i-pi 162, two units": [5],
    "molstar 1873, another order in each frame": [5, 6],
    "pymatgen 4323, fused numbers": [2],
    "steps beyond six digits": [999989, 999999, 1000009, 1000019],
}

REFUSED: dict[str, tuple[str, str | bytes, str]] = {
    "mctc-lib 3, numbers in place of symbols": ("a.xyz", xyz("", "13 0 .5 1\n12 2 2.5 .1\n"), "has type 13 in place of an element; give --species"),
    "lattice of three numbers": ("a.xyz", xyz(f'Lattice="4.05 4.05 4.05" {COLUMNS}'), "frame 0 is no frame of an xyz file"),
    "another key for the cell": ("a.xyz", xyz(f'cell="4.05 0 0 0 4.05 0 0 0 4.05" {COLUMNS}'), "has cell= in place of Lattice="),
    "fractions": ("a.xyz", xyz(f"{LATTICE} {COLUMNS} fractional=T"), "says that its positions are fractions of the cell"),
    "two columns that disagree": ("a.xyz", xyz(f"{LATTICE} {COLUMNS}:Z:I:1", "Al 0 .5 1 14\nMg 2 2.5 .1 12\n"), "atom 1 is Al by its species and 14 by its Z"),
    "decimal commas": ("a.xyz", xyz(f"{LATTICE} {COLUMNS}", "Al 0,0 0,5 1,0\nMg 2 2.5 .1\n"), "could not convert string to float: '0,0'"),
    "stars for numbers": ("a.xyz", xyz(f"{LATTICE} {COLUMNS}", "Al ******** .5 1\nMg 2 2.5 .1\n"), "could not convert string to float"),
    "fused numbers": ("a.xyz", xyz(f"{LATTICE} {COLUMNS}", "Al 0.000000-10.500000 1\nMg 2 2.5 .1\n"), "atom 1: got 3 columns, expected 4"),
    "xyz of Tinker": ("a.xyz", "2 water\n1 Al 0.0 0.5 1.0 1 2\n2 Mg 2.0 2.5 0.1 2 1\n", "does not begin with its number of atoms"),
    "cp2k 721, stars for the step": ("a-pos-1.xyz", xyz(" i = ********, time =        2.500, E =       -17.1"), "step = ********, expected an integer"),
    "velocities of CP2K": ("a-vel-1.xyz", xyz(" i =        5, time =        2.500, E =       -17.1"), "holds velocities of CP2K by its name"),
    "forces of CP2K": ("a-frc-1.xyz", xyz(" i =        5, time =        2.500, E =       -17.1"), "holds forces of CP2K by its name"),
    "i-pi 443, no units": ("a.xyz", xyz("# CELL(abcABC): 4 4 4 90 90 90 Step: 5 Bead: 0"), "does not give its units"),
    "i-pi 230, stars for the cell": ("a.xyz", xyz("# CELL(abcABC): ********** 4 4 90 90 90 Step: 5 positions{angstrom} cell{angstrom}"), "has a cell that is no numbers"),
    "two coordinates": ("a.lammpstrj", dump("id element x y", "1 Al 0 .5\n2 Mg 2 2.5\n"), "a.lammpstrj: frame 0 has the columns id element x y, expected positions"),
    "elements that are not set": ("a.lammpstrj", dump(ROW_COLUMNS, "1 NULL 0 .5 1\n2 Mg 2 2.5 .1\n"), "has 'NULL' in place of an element"),
    "masses without elements": ("a.lammpstrj", dump("id mass x y z", "1 26.98 0 .5 1\n2 24.3 2 2.5 .1\n"), "expected element or type"),
    "dump of bonds": ("a.lammpstrj", "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ENTRIES\n1\nITEM: ENTRIES c_1[1]\n2\n", "expected an ITEM of a dump of atoms"),
    "log lines between frames": ("a.lammpstrj", dump(ROW_COLUMNS, ROWS_OF_DUMP) + "WARNING: lost\n" + dump(ROW_COLUMNS, ROWS_OF_DUMP, step=6), "frame 1 is cut or no frame of a dump"),
    "appended to half a frame": ("a.lammpstrj", dump(ROW_COLUMNS, "1 Al 0 .5 1\n2 Mg 2 2") + dump(ROW_COLUMNS, ROWS_OF_DUMP, step=6), "frame 0 has text in place of a number"),
    "MDANSE 312, no elements": ("XDATCAR", xdatcar(direct(1)).replace(" Al Mg\n", ""), "XDATCAR: has type 1 in place of an element; give --species"),
    "scale factors of both signs": ("XDATCAR", xdatcar(direct(1), scale="1.0 -1.0 1.0"), "scale factors 1.0 -1.0 1.0, expected"),
    "stars for the first step": ("XDATCAR", xdatcar(direct("******")), "frame 0 has stars in place of its step"),
    "POSCAR of VASP 4": ("POSCAR", xdatcar("Direct\n 0 .1 .2\n .5 .6 .7\n").replace(" Al Mg\n", ""), "cannot read it"),
    "mdtraj 1094, names in place of elements": ("a.pdb", CRYST1 + pdb(" CA", 0.0) + pdb("HG1", 1.0), "atom 1 has no element (columns 77 and 78), only the name 'CA'"),
    "matcalc 166, a pickle": ("a.traj", pickle.dumps({"positions": 1}), "is cut or damaged"),
}  # fmt: skip


def bring(folder: Path, name: str, content: str | bytes) -> Path:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / name


@pytest.mark.parametrize("kind", READ)
def test_read(kind: str, metal: DOSModel, tmp_path: Path) -> None:
    name, content, expected = READ[kind]
    path = bring(tmp_path, name, content)
    read = [atoms for _, atoms in read_frames(path)]
    assert len(read) == len(expected)
    for atoms, right in zip(read, expected, strict=True):
        assert atoms.get_chemical_symbols() == right.get_chemical_symbols()
        np.testing.assert_allclose(atoms.cell.array, right.cell.array, atol=1e-5)
        assert atoms.pbc.tolist() == right.pbc.tolist()
        shift = atoms.positions - right.positions  # whole vectors of the cell are none
        if right.pbc.all():
            shift = np.linalg.solve(right.cell.array.T, shift.T).T
            shift -= np.round(shift)
        np.testing.assert_allclose(shift, 0, atol=1e-5)
    rerun_trajectory(metal, path, tmp_path / "o.zarr", temperature_K=300)
    trace = Trace.open(tmp_path / "o.zarr", "r")
    found = list(zip(trace.replica.tolist(), trace.step.tolist(), strict=True))
    assert found == [(0, step) for step in STEPS.get(kind, trace.step.tolist())]
    right_one = np.array([metal.evaluate(atoms).features for atoms in expected])
    np.testing.assert_allclose(trace.features[:], right_one, rtol=1e-3, atol=1e-3 * np.abs(right_one).max())


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind: str, metal: DOSModel, tmp_path: Path) -> None:
    name, content, message = REFUSED[kind]
    path, output = bring(tmp_path, name, content), tmp_path / "new" / "o.zarr"
    with pytest.raises(PetdosError) as caught:
        rerun_trajectory(metal, path, output, temperature_K=300)
    assert message in str(caught.value) and "\n" not in str(caught.value) and str(path) in str(caught.value)
    # Either whole frames came before, or nothing is left.
    assert output.exists() == ("frame 1" in message) == output.parent.exists()


def test_stars_need_two_frames_before_them(tmp_path: Path) -> None:
    path = bring(tmp_path, "XDATCAR", xdatcar(direct(999999), direct("******")))
    with pytest.raises(
        PetdosError, match="frame 1 has stars in place of its step, and no two frames before it give it"
    ):
        list(read_frames(path))


def test_species_of_unnamed_types(tmp_path: Path) -> None:
    """What the refusals ask for helps."""
    for name, content in (
        ("XDATCAR", xdatcar(direct(1)).replace(" Al Mg\n", "")),
        ("a.xyz", xyz("", "1 0 .5 1\n2 2 2.5 .1\n")),
    ):
        ((_, atoms),) = read_frames(bring(tmp_path, name, content), how=Interpretation(species="Al,Mg"))
        assert atoms.get_chemical_symbols() == ["Al", "Mg"]
