"""Small i-PI simulations of aluminium, and what i-PI itself wrote about them: the truth that traces are held against."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ase.build
import ase.io
import numpy as np
from ase import Atoms
from ipi.engine.simulation import Simulation
from ipi.utils.softexit import softexit

EMT = Path(__file__).parent / "ipi_emt.py"
OUT_EVERY = 2

XML = """<simulation verbosity='low' threading='{threading}' safe_stride='{safe_stride}'>
<output prefix='run'>
 <properties stride='{out}' filename='out'> [step, ensemble_temperature{{kelvin}}, potential{{electronvolt}}, volume{{angstrom3}}] </properties>
 <trajectory stride='{out}' filename='pos' format='ase'> positions </trajectory>
 {more_output}
 <checkpoint filename='chk' stride='{checkpoint}' overwrite='False'/>
</output>
<total_steps> {steps} </total_steps> {total_time}
<prng><seed> 5 </seed></prng>
{forcefields}
<smotion mode='remd'><remd><stride> {exchange} </stride></remd></smotion>
<system_template>
 <labels> [INDEX, TEMP] </labels>
 {instances}
 <template><system prefix='INDEX'>
  <initialize nbeads='{beads}'>
   <file mode='ase'> init.xyz </file> <velocities mode='thermal' units='kelvin'> TEMP </velocities>
  </initialize>
  <forces> {forces} </forces>
  <ensemble> <temperature units='kelvin'> TEMP </temperature> <pressure units='gigapascal'> {pressure} </pressure> {bias} </ensemble>
  <motion mode='multi'>
   {motion}
   <motion mode='dynamics'><dynamics mode='{ensemble}'>
    <timestep units='femtosecond'> 2 </timestep>
    <thermostat mode='{thermostat}'><tau units='femtosecond'> 50 </tau></thermostat>
    {barostat}
   </dynamics></motion>
  </motion>
 </system></template>
</system_template>
</simulation>
"""
BAROSTAT = """<barostat mode='isotropic'><tau units='femtosecond'> 300 </tau>
 <thermostat mode='langevin'><tau units='femtosecond'> 300 </tau></thermostat></barostat>"""


def aluminium(seed: int = 1) -> Atoms:
    atoms = ase.build.bulk("Al", cubic=True) * (2, 1, 1)
    atoms.rattle(0.05, seed=seed)
    return atoms


def write_input(
    folder: Path,
    *,
    temperatures: tuple[float, ...] = (400.0, 520.0, 676.0),
    steps: int = 40,
    hook: str = "",
    atoms: Atoms | None = None,
    ensemble: str = "nvt",
    beads: int = 1,
    safe_stride: int = 1,
    checkpoint: int = 1000,
    total_time: float | None = None,
    threading: bool = False,
    exchange: float = 2,
    pressure: float = 0.1,
    motion: str = "",
    forces: str = "<force forcefield='emt'/>",
    forcefields: str = "",
    more_output: str = "",
    bias: str = "",
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    ase.io.write(folder / "init.xyz", aluminium() if atoms is None else atoms, format="extxyz")
    emt = f"<ffdirect name='emt'><pes> custom </pes><pes_path> {EMT} </pes_path><parameters> {{template: init.xyz}} </parameters></ffdirect>"
    xml = XML.format(
        threading=threading,
        safe_stride=safe_stride,
        out=OUT_EVERY,
        checkpoint=checkpoint,
        steps=steps,
        total_time="" if total_time is None else f"<total_time> {total_time} </total_time>",
        forcefields=emt + hook + forcefields,
        exchange=exchange,
        instances="".join(f"<instance> [{i}, {t}] </instance>" for i, t in enumerate(temperatures)),
        beads=beads,
        pressure=pressure,
        motion=motion,
        ensemble=ensemble,
        thermostat="pile_l" if beads > 1 else "svr",
        barostat=BAROSTAT if ensemble == "npt" else "",
        forces=forces,
        more_output=more_output,
        bias=bias,
    )
    (folder / "input.xml").write_text(xml)
    return folder / "input.xml"


@contextmanager
def loaded(path: Path) -> Iterator[Simulation]:
    """A simulation in this process; the working directory must be its folder."""
    softexit.reset()
    try:
        with open(path) as file:
            yield Simulation.load_from_xml(file)
    finally:
        softexit.cleanup(status="success", message="end of test")
        softexit.reset()


class At:
    """An output that calls something at one step, after all others."""

    def __init__(self, simulation: Simulation, step: int, call: Callable[[], None]) -> None:
        self.simulation, self.step, self.call = simulation, step, call
        simulation.outputs.append(self)

    def active(self) -> bool:
        return self.simulation.step + 1 == self.step

    def write(self) -> None:
        if self.active():
            self.call()


COLUMNS = ("step", "ensemble_temperature", "potential", "volume")


def truth(
    folder: Path, n_systems: int = 3, beads: int = 1, name: str = "{}_", columns: tuple[str, ...] = COLUMNS
) -> dict[tuple[int, float], dict]:
    """What i-PI wrote of every step and temperature: energy, volume, structures of the beads. After restarts the last one holds."""
    found: dict[tuple[int, float], dict] = {}
    for index in range(n_systems):
        lead = name.format(index)
        rows = read_rows(folder / f"{lead}run.out", columns)
        # A kill may come between the two; what it cut short was done again.
        frames = [dict(read_steps(folder / f"{lead}run.pos_{bead}.extxyz")) for bead in range(beads)]
        for step, k in {int(step): k for k, step in enumerate(rows["step"])}.items():
            found[step, round(float(rows["ensemble_temperature"][k]), 4)] = {
                "energy": float(rows["potential"][k]),
                "volume": float(rows["volume"][k]),
                "beads": [f[step] for f in frames],
                "system": index,
            }
    return found


def read_rows(path: Path, columns: tuple[str, ...] = COLUMNS) -> dict[str, np.ndarray]:
    """Columns of an output of properties; one that was begun by a restart has no header."""
    return dict(zip(columns, np.loadtxt(path, ndmin=2).T, strict=True))


def read_steps(path: Path) -> Iterator[tuple[int, Atoms]]:
    steps = re.findall(r"ipi_comment=\"[^\"]*Step: +(\d+)", path.read_text())
    frames = ase.io.read(path, ":", format="extxyz")
    assert len(steps) == len(frames)
    return zip(map(int, steps), frames, strict=True)


def assert_complete(trace, temperatures: tuple[float, ...], every: int, last: int, first: int | None = None) -> None:
    """Every due step of every replica once, with its label."""
    steps = np.arange(first or every, last + 1, every)
    assert len(trace) == len(steps) * len(temperatures)
    for slot, temperature in enumerate(temperatures):
        mine = trace.replica == slot
        np.testing.assert_array_equal(np.sort(trace.step[mine]), steps)
        assert (trace.temperature_K[mine] == temperature).all()


def assert_true(trace, model, found: dict[tuple[int, float], dict]) -> None:
    """Energies, volumes and features are those of the structures that i-PI had at that temperature and step."""
    samples = list(trace)
    truths = [found[sample.step, round(sample.temperature_K, 4)] for sample in samples]
    evaluated = iter(model.evaluate([atoms for there in truths for atoms in there["beads"]]))
    for sample, there in zip(samples, truths, strict=True):
        assert abs(sample.potential_energy_eV - there["energy"]) < 2e-6 * max(1, abs(there["energy"]))
        assert abs(sample.volume_A3 - there["volume"]) < 1e-5 * there["volume"]
        features = np.mean([next(evaluated).features for _ in there["beads"]], axis=0)
        np.testing.assert_allclose(sample.features, features, rtol=0, atol=2e-5 * np.abs(features).max())
