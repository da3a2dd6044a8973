"""What a result says of a gap: states in it are not real, and members that differ by too much are seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.synthetic import FINGERPRINT, GRID, N_ELECTRONS, write

from petdos_md.analysis.analyze import analyze
from petdos_md.base.constants import BOLTZMANN_EV
from petdos_md.base.errors import StructureError
from petdos_md.base.sample import ModelInfo, Sample
from petdos_md.models.readout import Readout
from petdos_md.results.plot import plot_heat_capacity
from petdos_md.traces.trace import Trace

E = GRID.energies


def step_dos(gap_eV: float, in_gap: float = 0.0, width_eV: float = 8.0) -> np.ndarray:
    """A flat band, a gap around 0 with some states/eV left in it, and a flat empty band; electrons fill it up to 0."""
    lower = (-gap_eV / 2 - width_eV < E) & (-gap_eV / 2 > E)
    dos = np.where(lower | (gap_eV / 2 < E), N_ELECTRONS / width_eV, np.where(np.abs(E) <= gap_eV / 2, in_gap, 0.0))
    below = E <= 1e-9
    dos[lower] *= N_ELECTRONS / np.trapezoid(dos[below], E[below])
    return dos


def trace_of(path: Path, dos: np.ndarray, members: np.ndarray | None = None) -> tuple[Trace, Readout]:
    deviations = None if members is None else members[:, :, None]
    model = Readout.from_arrays(GRID, np.stack([dos, 0 * E, 0 * E], axis=1), deviations, FINGERPRINT)
    info = ModelInfo("steps", FINGERPRINT, GRID, "separated", 3, model.n_members, {"Al": 3.0}, "")
    rng = np.random.default_rng(0)
    frames = [
        Sample(np.array([1 + 1e-3 * x, 8, 0], np.float32), info, 8, N_ELECTRONS, 100.0, step=i, temperature_K=300.0)
        for i, x in enumerate(rng.normal(size=60))
    ]
    return write(path, frames), model


@pytest.mark.parametrize(
    ("gap_eV", "in_gap", "expected"),
    [
        (1.0, 0.2, "300 K: a gap of 1."),  # 0.025 states/eV/atom in it
        (0.4, 0.81, "300 K: the DOS at the Fermi level is"),  # above the threshold, a third of what is around it
        (0.0, 3.0, None),
    ],
)
def test_states_in_a_gap_are_noted(tmp_path: Path, gap_eV: float, in_gap: float, expected: str | None) -> None:
    dos = step_dos(gap_eV, in_gap)
    for reference in ("raw", "fermi"):
        result = analyze(*trace_of(tmp_path / f"{reference}.zarr", dos), reference=reference)
        notes = [note for note in result.attrs["notes"] if "C_el is an upper bound" in note]
        assert [note.startswith(expected) for note in notes] == [True] if expected else not notes


def test_notes_do_not_depend_on_the_zero(tmp_path: Path) -> None:
    """Models whose Fermi levels are at 0 and -2 eV on their own axes: the same share of the DOS around it, on both axes."""
    found = []
    for shift in (0, 40):
        trace, model = trace_of(tmp_path / f"{shift}.zarr", np.roll(step_dos(0.4, 0.81), -shift))
        for reference in ("raw", "fermi"):
            notes = analyze(trace, model, reference=reference).attrs["notes"]
            found += [note for note in notes if note.startswith("300 K: the DOS at the Fermi level is")]
    assert len(found) == 4 and len(set(found)) == 1


def test_no_sommerfeld_line_in_a_gap(tmp_path: Path) -> None:
    for gap, lines in ((1.0, 0), (0.0, 1)):
        result = analyze(*trace_of(tmp_path / f"{gap}.zarr", step_dos(gap, 0.2 if gap else 3.0)))
        axes = plot_heat_capacity(result).axes[0]
        assert sum(str(line.get_label()).startswith("sommerfeld") for line in axes.get_lines()) == lines
        legend = axes.get_legend()
        assert legend is not None
        assert sum(text.get_text().startswith("Sommerfeld") for text in legend.get_texts()) == lines


def test_members_that_differ_by_too_much_are_noted(tmp_path: Path) -> None:
    """In a gap C_el is that of the few states in it: members that fill it more and less do not average to the model's value."""
    dos = step_dos(1.0, 0.05)
    bump = np.exp(-(E**2) / 0.02)
    for size, noted in ((0.02, False), (0.5, True)):
        members = np.concatenate([size * bump * sign * np.ones((4, 1)) for sign in (1, -1)])
        result = analyze(*trace_of(tmp_path / f"{size}.zarr", dos, members))
        value, mean = float(result["heat_capacity"][0]), float(result["heat_capacity_member_mean"][0])
        # Where a member has no states left, the formula of C_el is negative and C_el is held at zero.
        assert (abs(mean / value - 1) > 0.05) == noted
        assert any("the mean of C_el over members is" in note for note in result.attrs["notes"]) == noted
        # Less than its error, as the value is here: no percentage of it.
        shown = f"C_el over members is {mean / 8 / BOLTZMANN_EV:.2g} k_B per atom where that of the model itself is {value / 8 / BOLTZMANN_EV:.2g}:"
        assert any(shown in note for note in result.attrs["notes"]) == noted


def test_carriers_need_a_gap_of_every_member(tmp_path: Path) -> None:
    """One of four members fills it (deviations of members sum up to zero): no model error of the numbers of carriers."""
    dos, inside, below, deep = step_dos(1.0, 0.4), np.abs(E) < 0.45, E <= 1e-9, (E > -4) & (E < -3)
    shape = inside - deep * np.trapezoid(inside[below], E[below]) / np.trapezoid(1.0 * deep, E)  # keeps the Fermi level
    for size, name in ((0.1, "a"), (0.3, "b")):
        members = size * np.array([-1.0, -1.0, 3.0, -1.0])[:, None] * shape
        if name == "a":
            result = analyze(*trace_of(tmp_path / f"{name}.zarr", dos, members), carriers=True)
            assert result["holes"][0] > 0 and result["holes_model_std"][0] > 0
        else:
            with pytest.raises(StructureError, match=r"members of the ensemble have no gap at 300 K \(1 of 4\)"):
                analyze(*trace_of(tmp_path / f"{name}.zarr", dos, members), carriers=True)
