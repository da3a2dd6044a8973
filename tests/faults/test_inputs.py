"""Odd inputs that people bring, each a kind: read to the positions that were written by hand, or refused in one line.

The oracle is the file itself: it is written here, number by number, and what it must give stands beside it.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import threading
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from petdos_md.base.errors import PetdosError
from petdos_md.engines.structures.files import read_frames, read_structure
from petdos_md.engines.structures.interpretation import Interpretation

LATTICE = 'Lattice="4.05 0 0 0 4.05 0 0 0 4.05"'
COMMENT = f'{LATTICE} Properties=species:S:1:pos:R:3 pbc="T T T"'
ROWS = ("Al 0.0 0.5 1.0", "Mg 2.0 2.5 0.1")
CELL = np.diag([4.05] * 3)
POSITIONS = np.array([[0.0, 0.5, 1.0], [2.0, 2.5, 0.1]])


def xyz(comment: str = COMMENT, rows: tuple[str, ...] = ROWS, n: int | None = None) -> str:
    return "\n".join([str(len(rows) if n is None else n), comment, *rows, ""])


def dump(
    columns: str, *rows: str, box: str = "pp pp pp\n0 4.05\n0 4.05\n0 4.05", n: int | None = None, step: int = 5
) -> str:
    head = f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{len(rows) if n is None else n}\nITEM: BOX BOUNDS {box}\n"
    return head + f"ITEM: ATOMS {columns}\n" + "".join(f"{row}\n" for row in rows)


XDATCAR = (
    "title\n 1.0\n 4.05 0 0\n 0 4.05 0\n 0 0 4.05\n Al Mg\n 1 1\nDirect configuration=     7\n 0 0 0.5\n 0.5 0.5 0.25\n"
)
SAME = {
    "plain": xyz(),
    "windows line ends": xyz().replace("\n", "\r\n"),
    "byte order mark": "\ufeff" + xyz(),
    "tabs": xyz(rows=("Al\t0.0\t0.5\t1.0", "Mg\t2.0\t2.5\t0.1")),
    "D exponents": xyz(rows=("Al 0.0D0 5.0D-01 0.1d+1", "Mg 2.0D+00 2.5 0.1")),
    "D exponents in the cell": xyz(COMMENT.replace("4.05", "0.405D+01")),
    "blank lines at the end": xyz() + "\n\n  \n",
    "blank lines before": "\n\n" + xyz(),
    "lower case": xyz(rows=("al 0.0 0.5 1.0", "mg 2.0 2.5 0.1")),
    "upper case": xyz(rows=("AL 0.0 0.5 1.0", "MG 2.0 2.5 0.1")),
    "charges": xyz(rows=("Al3+ 0.0 0.5 1.0", "Mg+2 2.0 2.5 0.1")),
    "kinds": xyz(rows=("Al1 0.0 0.5 1.0", "Mg_up 2.0 2.5 0.1")),
    "atomic numbers named so": xyz(COMMENT.replace("species:S", "Z:I"), ("13 0.0 0.5 1.0", "12 2.0 2.5 0.1")),
    "columns in another order": xyz(
        COMMENT.replace("species:S:1:pos:R:3", "pos:R:3:species:S:1"), ("0 .5 1 Al", "2 2.5 .1 Mg")
    ),
    "more columns": xyz(rows=tuple(f"{row} 9 9 9" for row in ROWS)),
    "no line end at the end": xyz().rstrip("\n"),
    "words in the comment": xyz(COMMENT + " step of a run 'in words'"),
    "dump": dump("id element x y z", "1 Al 0 0.5 1", "2 Mg 2 2.5 0.1"),
    "dump out of order": dump("id element x y z", "7 Mg 2 2.5 0.1", "3 Al 0 0.5 1"),
    "dump without ids": dump("element x y z", "Al 0 0.5 1", "Mg 2 2.5 0.1"),
    "dump unwrapped": dump("id element xu yu zu ix", "1 Al 0 0.5 1 0", "2 Mg 2 2.5 0.1 1"),
    "dump scaled": dump(
        "id element xs ys zs", f"1 Al 0 {0.5 / 4.05} {1 / 4.05}", f"2 Mg {2 / 4.05} {2.5 / 4.05} {0.1 / 4.05}"
    ),
    "dump of types": dump("id type x y z", "1 2 0 0.5 1", "2 1 2 2.5 0.1"),
    "dump of labels": dump("id typelabel x y z", "1 Al 0 0.5 1", "2 Mg 2 2.5 0.1"),
    "dump in tabs, windows": dump("id element x y z", "1\tAl\t0\t0.5\t1", "2\tMg\t2\t2.5\t0.1").replace("\n", "\r\n"),
    "dump of vectors": dump(
        "id element x y z",
        "1 Al 0 0.5 1",
        "2 Mg 2 2.5 0.1",
        box="abc origin pp pp pp\n4.05 0 0 0\n0 4.05 0 0\n0 0 4.05 0",
    ),
    "xyz of types": xyz(rows=("2 0.0 0.5 1.0", "1 2.0 2.5 0.1")),
    "i-PI, bohr": xyz(
        "# CELL(abcABC): 7.65339 7.65339 7.65339 90 90 90 Step: 5 Bead: 0 positions{atomic_unit} cell{atomic_unit}",
        ("Al 0 0.944863 1.889726", "Mg 3.779452 4.724315 0.1889726"),
    ),
    "i-PI, vectors": xyz("# CELL(H): 4.05 0 0 0 4.05 0 0 0 4.05 Step: 5 positions{angstrom} cell{angstrom}"),
    "CP2K": xyz(" i =        5, time =        2.500, E =       -17.1"),
    "dump xyz": xyz(" Atoms. Timestep: 5"),
}


@pytest.fixture
def bring(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """Write a file of no name that tells its format."""

    def write(content: str | bytes, name: str = "input.xyz") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def only(path: Path | str, **how: object) -> Atoms:
    ((_, atoms),) = read_frames(path, how=Interpretation(**how))
    return atoms


@pytest.mark.parametrize("kind", SAME)
def test_the_same_structure(kind: str, bring) -> None:
    how: dict[str, object] = {}
    if "of types" in kind:
        how["species"] = "Mg,Al"
    if kind in ("CP2K", "dump xyz"):
        how["cell"] = (4.05, 4.05, 4.05)
    atoms = only(bring(SAME[kind]), **how)
    assert atoms.get_chemical_symbols() == ["Al", "Mg"] and atoms.pbc.all()
    np.testing.assert_allclose(atoms.positions, POSITIONS, atol=2e-6)
    np.testing.assert_allclose(atoms.cell.array, CELL, atol=2e-6)
    if "step" in atoms.info:
        assert int(atoms.info["step"]) == 5


REFUSED = {
    "types": (xyz(rows=("1 0 0 0", "2 2 2 0.1")), "frame 0, atom 1: has type 1 in place of an element; give --species"),
    "dump of types": (
        dump("id type x y z", "1 1 0 0 0"),
        "frame 0, atom 1: has type 1 in place of an element; give --species",
    ),
    "ghost": (xyz(rows=("X 0 0 0",)), "atom 1: has 'X' in place of an element"),
    "word": (xyz(rows=("HOH 0 0 0",)), "has 'HOH' in place of an element"),
    "ghost by number": (xyz(COMMENT.replace("species:S", "Z:I"), ("0 0 0 0",)), "has a ghost atom"),
    "no element": (xyz(COMMENT.replace("species:S", "Z:I"), ("500 0 0 0",)), "an atom of atomic number 500"),
    "text for a number": (xyz("", ("Al 0 zero 0",)), "text|no numbers|no frame|could not convert"),
    "too few columns": (xyz("", ("Al 0 0",)), "got 3 columns|got 2 columns|expected 4"),
    "no positions": (xyz("Properties=species:S:1", ("Al",)), "expected species (or Z) and pos among them"),
    "cell of eight numbers": (xyz('Lattice="4 0 0 0 4 0 0 0"'), "is no frame of an xyz file"),
    "too many rows": (xyz(n=1), "frame 1 does not begin with its number of atoms: line 4 is 'Mg 2.0 2.5 0.1'"),
    "too few rows": (xyz(n=3), "frame 0 is cut: 2 of its 3 atoms are there"),
    "huge number of atoms": (xyz(n=10**15), "frame 0 is cut: 2 of its 1000000000000000 atoms"),
    "negative number of atoms": (xyz(n=-2), "does not begin with its number of atoms"),
    "empty": ("", "the file is empty"),
    "blanks": (" \n\n", "the file is empty"),
    "utf-16": (xyz().encode("utf-16"), "text in UTF-16; convert it to UTF-8"),
    "units of i-PI": (xyz("# CELL(abcABC): 4 4 4 90 90 90 Step: 5"), "does not give its units; give --units"),
    "velocities of i-PI": (
        xyz("# CELL(abcABC): 4 4 4 90 90 90 velocities{atomic_unit} cell{angstrom}"),
        "holds velocities",
    ),
    "atom twice": (dump("id element x y z", "1 Al 0 0 0", "1 Al 2 2 0"), "holds an atom twice"),
    "dump without columns": (dump("", ""), "does not name its columns"),
    "dump without positions": (dump("id element vx", "1 Al 0"), "expected positions: x y z"),
    "dump in lj": ("ITEM: UNITS\nlj\n" + dump("id element x y z", "1 Al 0 0 0"), "is in units of lj"),
    "dump within a dump": (
        dump("id element x y z", "1 Al 0 0 0", n=3) + dump("id element x y z", "1 Al 0 0 0"),
        "is cut: the next frame begins among its atoms",
    ),
    "dump with text": (dump("id element x y z", "1 Al 0 zero 0"), "has text in place of a number"),
    "dump with a short row": (dump("id element x y z", "1 Al 0 0"), "has a row that is not of 5 columns"),
    "dump of bonds": (
        dump("id element x y z", "1 Al 0 0 0").replace("NUMBER OF ATOMS", "NUMBER OF ENTRIES"),
        "expected an ITEM",
    ),
    "dump cut": (dump("id element x y z", "1 Al 0 0 0").rstrip("\n"), "is cut: its last line has no end"),
    "no format": ("hello\nworld\n", "frame 0 does not begin with its number of atoms"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind: str, bring) -> None:
    content, message = REFUSED[kind]
    with pytest.raises(PetdosError) as caught:
        list(read_frames(bring(content)))
    text = str(caught.value)
    assert "\n" not in text and any(part in text for part in message.split("|")), text


def test_no_atoms_is_a_frame(bring) -> None:
    """It has a number, so that those after it keep theirs; nothing evaluates it."""
    frames = list(read_frames(bring("0\n\n" + xyz())))
    assert [(number, len(atoms)) for number, atoms in frames] == [(0, 0), (1, 2)]
    with pytest.raises(PetdosError, match="no atoms"):
        read_structure(str(bring("0\n\n")))


def test_isotopes(bring) -> None:
    atoms = only(bring(xyz(rows=("D 0 0 0", "T 2 2 0", "18O 1 1 1", "O18 3 3 3"))))
    assert atoms.get_chemical_symbols() == ["H", "H", "O", "O"]
    np.testing.assert_allclose(atoms.get_masses()[:2], [2.014, 3.016])


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
def test_compressed(compress, bring) -> None:
    """By their first bytes, whatever the name; what is left of a cut file is told after its whole frames."""
    content = compress((xyz() * 50).encode())
    assert len(list(read_frames(bring(content, "run.extxyz")))) == 50
    assert len(list(read_frames(bring(content, "run.extxyz.z")))) == 50
    seen = 0
    with pytest.raises(PetdosError, match=r"damaged|cut") as caught:
        for number, atoms in read_frames(bring(content[:-12], "cut.xyz.gz")):
            assert number == seen and np.allclose(atoms.positions, POSITIONS)
            seen += 1
    assert "\n" not in str(caught.value)


def test_numbers_of_atoms_change(bring) -> None:
    frames = [atoms for _, atoms in read_frames(bring(xyz() + xyz(rows=ROWS[:1]) + xyz()))]
    assert [len(atoms) for atoms in frames] == [2, 1, 2]
    text = dump("id element x y z", "1 Al 0 0 0") + dump("element id x y z", "Mg 4 2 2 0", "Al 1 0 0 0")
    frames = [atoms for _, atoms in read_frames(bring(text, "a.lammpstrj"))]
    assert [atoms.get_chemical_symbols() for atoms in frames] == [["Al"], ["Al", "Mg"]]


def test_cells(bring) -> None:
    """Left-handed and negative cells are cells; the volume is what counts."""
    left = only(bring(xyz('Lattice="0 4 0 4 0 0 0 0 4"')))
    assert np.linalg.det(left.cell.array) < 0 and left.get_volume() == pytest.approx(64)
    assert only(bring(xyz('Lattice="-4 0 0 0 4 0 0 0 4"'))).get_volume() == pytest.approx(64)
    shifted = dump("id element x y z", "1 Al 1 1 1", box="pp ff pp\n-2 2\n0 4\n0 4")
    atoms = only(bring(shifted))
    assert atoms.pbc.tolist() == [True, False, True] and atoms.cell.lengths().tolist() == [4, 4, 4]
    scaled = only(bring(dump("id element xs ys zs", "1 Al 0.25 0 0", box="xy xz yz pp pp pp\n-2 3 1\n0 4 0\n0 4 0")))
    np.testing.assert_allclose(scaled.cell.array, [[4, 0, 0], [1, 4, 0], [0, 0, 4]])  # bounds hold the tilt
    np.testing.assert_allclose(scaled.positions, [[-1, 0, 0]])


def test_xdatcar(bring) -> None:
    second = XDATCAR.replace("4.05", "8.10").replace("=     7", "=     8")
    frames = [atoms for _, atoms in read_frames(bring(XDATCAR + second, "XDATCAR"))]
    assert [atoms.info["step"] for atoms in frames] == ["7", "8"]
    np.testing.assert_allclose(frames[0].positions, [[0, 0, 2.025], [2.025, 2.025, 1.0125]])
    np.testing.assert_allclose(frames[1].cell.lengths(), [8.1] * 3)
    volume = XDATCAR.replace(" 1.0\n", " -8.0\n")
    assert only(bring(volume, "XDATCAR")).get_volume() == pytest.approx(8.0)
    with pytest.raises(PetdosError, match="frame 1 is cut or no frame of an XDATCAR: the file ends in line 19"):
        list(read_frames(bring(XDATCAR + second[:-14], "XDATCAR")))


@pytest.mark.parametrize(
    "name", ["a b.xyz", "Löwe.xyz", "me@lab/Al@300K.xyz", "a'b.xyz", "50%.xyz", "-x.xyz", "a:b.xyz", "[1].xyz"]
)
def test_names(name: str, bring, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bring(xyz(), name)
    assert len(only(path)) == 2 and len(read_structure(str(path))) == 2
    monkeypatch.chdir(path.parent)
    assert len(read_structure(path.name)) == 2


def test_at_sign(bring) -> None:
    """A number after @ where no file has that very name."""
    path = bring(xyz() + xyz(rows=ROWS[:1]))
    assert len(read_structure(f"{path}@0")) == 2 and len(read_structure(f"{path}@-1")) == 1
    (path.parent / f"{path.name}@0").write_text(xyz(rows=ROWS[1:]))
    assert read_structure(f"{path}@0").get_chemical_symbols() == ["Mg"]


def test_places(bring, tmp_path: Path) -> None:
    path = bring(xyz())
    (tmp_path / "link.xyz").symlink_to(path)
    assert len(only(tmp_path / "link.xyz")) == 2
    (tmp_path / "nowhere.xyz").symlink_to(tmp_path / "none")
    (tmp_path / "folder.xyz").mkdir()
    for name, message in (("nowhere.xyz", "no such file"), ("none.xyz", "no such file"), ("folder.xyz", "is a folder")):
        with pytest.raises(PetdosError, match=message):
            list(read_frames(tmp_path / name))
    if os.geteuid():  # root reads everything
        path.chmod(0)
        with pytest.raises(PetdosError, match="cannot be read: Permission denied"):
            list(read_frames(path))


@pytest.mark.parametrize("text", [xyz() * 3, dump("id element x y z", "1 Al 0 0 0") * 3], ids=["xyz", "dump"])
def test_pipes(text: str, tmp_path: Path) -> None:
    """Frames come while the pipe is being filled."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(text))
    writer.start()
    assert [number for number, _ in read_frames(pipe)] == [0, 1, 2]
    writer.join()


def test_pipe_of_a_format_that_is_read_twice(tmp_path: Path) -> None:
    pipe, content = tmp_path / "pipe.traj", tmp_path / "a.traj"
    ase.io.write(content, Atoms("Al"))
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(content.read_bytes()))
    writer.start()
    with pytest.raises(PetdosError, match="traj cannot be read from a pipe"):
        list(read_frames(pipe))
    writer.join()


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ("1", [1]),
        ("-1", [2]),
        ("::2", [0, 2]),
        ("-2:", [1, 2]),
        ("::-1", [2, 1, 0]),
        ("99", []),
        ("0:" + "9" * 30, [0, 1, 2]),
    ],
)
def test_index(index: str, expected: list[int], bring) -> None:
    assert [number for number, _ in read_frames(bring(xyz() * 3), index)] == expected


@pytest.mark.parametrize("index", ["", "a", "1:2:3:4", "::0", "1.5"])
def test_no_index(index: str, bring) -> None:
    with pytest.raises(PetdosError, match="expected a slice"):
        list(read_frames(bring(xyz()), index))


def test_what_the_user_adds(bring, tmp_path: Path, caplog) -> None:
    plain = xyz("", ROWS)
    with caplog.at_level("WARNING", logger="petdos_md"):
        assert not only(bring(plain)).pbc.any()
    assert "has no cell, so it is taken for a cluster in vacuum; give --cell" in caplog.text
    caplog.clear()
    (tmp_path / "cell.xyz").write_text(xyz())
    for how in ({"cell": (4.05, 4.05, 4.05)}, {"cell": CELL.ravel()}, {"cell": str(tmp_path / "cell.xyz")}):
        atoms = only(bring(plain), **how)
        np.testing.assert_allclose(atoms.cell.array, CELL, atol=1e-12)
        assert atoms.pbc.all()
    assert only(bring(plain), cell=(4, 4, 9), pbc="xy").pbc.tolist() == [True, True, False]
    assert not only(bring(plain), pbc="none").pbc.any() and not caplog.text
    np.testing.assert_allclose(
        only(bring(plain), units="bohr", pbc="none").positions, POSITIONS * 0.529177210903, rtol=1e-8
    )
    hexagonal = only(bring(plain), cell=(3, 3, 5, 90, 90, 120)).cell
    assert hexagonal.volume == pytest.approx(45 * np.sqrt(3) / 2)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"cell": (4, 4)}, "expected A B C in angstrom"),
        ({"cell": (4, 4, -4)}, "all positive"),
        ({"cell": (4, 4, 4, 10, 90, 170)}, "which no cell has"),
        ({"pbc": "xx"}, "expected periodic directions"),
        ({"pbc": "TTT"}, "expected periodic directions"),
        ({"units": "lj"}, "expected one of angstrom"),
        ({"species": "Al,Xx"}, "'Xx' is no element"),
        ({"species": ""}, "expected elements by type"),
        ({"species": "Al,Mg"}, r"has elements \(Al, Mg\), none of which --species names; leave it out"),
        ({"cell": (4, 4, 4)}, "has a cell of its own; leave --cell out"),
    ],
)
def test_what_the_user_may_not_add(how, message: str, bring) -> None:
    with pytest.raises(PetdosError, match=message):
        only(bring(xyz()), **how)


def test_units_of_the_file_win(bring) -> None:
    text = SAME["i-PI, bohr"]
    assert len(only(bring(text), units="bohr")) == 2
    with pytest.raises(PetdosError, match="says itself that its units are atomic_unit; leave --units angstrom out"):
        only(bring(text), units="angstrom")
    old = xyz("# bead: 0 CELL(abcABC): 4.05 4.05 4.05 90 90 90")
    np.testing.assert_allclose(only(bring(old), units="angstrom").positions, POSITIONS)


def test_carbon_by_default(bring, caplog) -> None:
    """LAMMPS writes C for every type if it was not told elements."""
    with caplog.at_level("WARNING", logger="petdos_md"):
        only(bring(dump("id type element x y z", "1 1 C 0 0 0", "2 2 C 2 2 2")))
    assert "all atoms are C" in caplog.text
    atoms = only(bring(dump("id type element x y z", "1 1 C 0 0 0", "2 2 C 2 2 2")), species="Al,Mg")
    assert atoms.get_chemical_symbols() == ["Al", "Mg"]


CIF = """data_x
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'P 1'
loop_
  _atom_site_label
  _atom_site_type_symbol
  _atom_site_fract_x
  _atom_site_fract_y
  _atom_site_fract_z
  _atom_site_occupancy
"""


def test_sites_that_elements_share(bring) -> None:
    assert only(bring(CIF + "  Al1 Al 0 0 0 1.0\n", "a.cif")).get_chemical_symbols() == ["Al"]
    with pytest.raises(PetdosError, match=r"has sites that are occupied in part \(Al 0\.75, Mg 0\.25\)"):
        only(bring(CIF + "  Al1 Al 0 0 0 0.75\n  Mg1 Mg 0 0 0 0.25\n", "a.cif"))
    with pytest.raises(PetdosError, match=r"occupied in part \(Al 0\.5\)"):
        only(bring(CIF + "  Al1 Al 0 0 0 0.5\n", "a.cif"))


def test_pdb_without_a_crystal(bring) -> None:
    atom = "ATOM      1 AL   MOL     1       0.000   0.000   1.000  1.00  0.00          AL\n"
    crystal = "CRYST1    {0:5.3f}    {0:5.3f}    {0:5.3f}  90.00  90.00  90.00 P 1\n"
    assert not only(bring(crystal.format(1.0) + atom, "a.pdb")).pbc.any()
    assert only(bring(crystal.format(4.0) + atom, "a.pdb")).get_volume() == pytest.approx(64)
