"""The bad inputs themselves; what they name is made by ``inputs.make_files``."""

from runs import ALLOY

_MD = "--dos almgsi-lda --steps 4 --every 2 -o new.zarr"

COMMANDS = (
    f"md none.xyz --potential emt --temperature 300 {_MD}",
    f"md bad.xyz --potential emt --temperature 300 {_MD}",
    f"md Cu.xyz --potential emt --temperature 300 {_MD}",
    f"md nan.traj --potential emt --temperature 300 {_MD}",
    f"md empty.traj --potential emt --temperature 300 {_MD}",
    f"md Al.xyz --potential nothing --temperature 300 {_MD}",
    f"md Al.xyz --potential text.pt --temperature 300 {_MD}",
    f"md Al.xyz --potential emt --temperature 0 {_MD}",
    f"md Al.xyz --potential emt --temperature=-300 {_MD}",
    f"md Al.xyz --potential emt --temperature nan {_MD}",
    f"md Al.xyz --potential emt --temperature 300 300 {_MD}",
    f"md Al.xyz --potential emt --temperature warm {_MD}",
    f"md Al.xyz --potential emt --temperature 300 {_MD} --steps 0",
    f"md Al.xyz --potential emt --temperature 300 {_MD} --every 0",
    f"md Al.xyz --potential emt --temperature 300 {_MD} --timestep=-1",
    f"md Al.xyz --potential emt --temperature 300 {_MD} --seed=-1",
    f"md Al.xyz --potential emt --temperature 300 {_MD} --supercell 0 1 1",
    f"md Al.xyz --potential emt --temperature 300 {_MD} --target-error 0",
    f"md Al.xyz --potential emt --temperature 300 {_MD} --electrons Al=x",
    f"md Al.xyz --potential emt --temperature 300 {_MD} --electrons Xx=3",
    f"md Al.xyz --potential emt --temperature 300 {_MD} --device gpu",
    f"md cluster.xyz --potential emt --temperature 300 {_MD} --ensemble npt",
    "md Al.xyz --potential emt --temperature 300 --dos almgsi-lda --steps 4 -o run.zarr",
    "md Al.xyz --potential emt --temperature 300 --dos almgsi-lda --steps 4 -o /proc/no/where.zarr",
    "md Al.xyz --potential emt --temperature 300 --dos none.pt --steps 4 -o new.zarr",
    "md Al.xyz --potential emt --temperature 300 --dos cut.pt --steps 4 -o new.zarr",
    "md Al.xyz --potential emt --temperature 300 --dos alone.pt --steps 4 -o new.zarr",
    "rerun Al.xyz --dos none.pt --temperature 300 -o new.zarr",
    "rerun Al.xyz --dos text.pt --temperature 300 -o new.zarr",
    "rerun none.xyz --dos almgsi-lda --temperature 300 -o new.zarr",
    "rerun bad.xyz --dos almgsi-lda --temperature 300 -o new.zarr",
    "rerun Cu.xyz --dos almgsi-lda --temperature 300 -o new.zarr",
    "rerun Al.xyz --dos almgsi-lda -o new.zarr",
    "rerun Al.xyz --dos almgsi-lda --temperature 300 --index x -o new.zarr",
    "rerun Al.xyz --dos almgsi-lda --temperature 300 --batch 0 -o new.zarr",
    "rerun Al.xyz --dos almgsi-lda --temperature 300 --format nothing -o new.zarr",
    "rerun Al.xyz --dos almgsi-lda --temperature 300 -o run.zarr",
    "rerun Al.xyz --dos almgsi-lda --temperature 300 -o mine --resume",
    "analyze none.zarr -o out",
    "analyze mine -o out",
    "analyze cut.zarr -o out",
    "analyze future.zarr -o out",
    "analyze run.zarr -o out --temperature 900",
    "analyze run.zarr -o out --burn-in 1000",
    "analyze run.zarr -o out --weights none.txt",
    "analyze run.zarr -o out --weights weights.txt",
    "analyze run.zarr -o out --electronic-temperature hot",
    "analyze run.zarr -o out --denoise=none.pt",
    "analyze run.zarr -o out --reweight --carriers",
    "analyze run.zarr -o Al.xyz/out",
    "levels none.zarr -o out",
    "levels bare.zarr -o out --method network",
    "levels run.zarr -o out --threshold=-1",
    "info none",
    "info mine",
    "info text.pt",
    "export none.ckpt --grid-start -13 -o m.pt",
    "export text.ckpt --grid-start -13 -o m.pt",
    "export text.ckpt",
    "export text.ckpt --electrons Al --grid-start -13 -o m.pt",
    "validate almgsi-lda none.xyz -o out",
    "validate almgsi-lda reference.xyz -o out",
    "validate almgsi-lda reference.xyz --where index -o out",
    "calibrate almgsi-lda none.xyz -o m.pt",
    "calibrate almgsi-lda reference.xyz -o m.pt",
    "refine almgsi-lda --data none.xyz -o m.pt",
    "refine almgsi-lda --data reference.xyz -o m.pt",
    "lammps make",
    "doctor now",
    "demo --output Al.xyz",
    "ipi input.xml --every 4 -o new.zarr",
    "ipi none.xml --dos almgsi-lda --every 4 -o new.zarr",
    "ipi broken.xml --dos almgsi-lda --every 4 -o new.zarr",
    "ipi input.xml --dos almgsi-lda --every 0 -o new.zarr",
    "ipi input.xml --dos almgsi-lda --every 4 -o run.zarr",
    "ipi --dos almgsi-lda --every 4 -o new.zarr",
    "nothing",
)
"""Arguments of ``petdos``."""

_OBSERVER = """
import ase.build, petdos_md as pm
from petdos_md.ase import DOSObserver
atoms = ase.build.bulk('Al', cubic=True)
model = pm.DOSModel.load('almgsi-lda')
"""
PYTHON = {
    "DOSModel.load('none.pt')": "import petdos_md as pm; pm.DOSModel.load('none.pt')",
    "model.evaluate(copper)": _OBSERVER + "model.evaluate(ase.build.bulk('Cu'))",
    "DOSObserver(..., temperature_K=0)": _OBSERVER + "DOSObserver(atoms, model, 'new.zarr', temperature_K=0)()",
    "analyze('none.zarr')": "import petdos_md as pm; pm.analyze('none.zarr')",
}
"""Calls from Python, by what is shown of them."""

HOOKS = (
    "dos: none.pt, every: 4, output: new.zarr",
    "dos: almgsi-lda, every: 0, output: new.zarr",
    "dos: almgsi-lda, every: 4",
    "dos: almgsi-lda, evry: 4, every: 4, output: new.zarr",
    "dos: almgsi-lda, every: 4, output: run.zarr",
)
"""Parameters of the observer in an input of stock i-PI."""

DECK = f"""{ALLOY}pair_style zero 5.0
pair_coeff * *
group some id 1 2
fix md all nvt temp 600 600 0.1
"""
_DOS = "compute dos all petdos almgsi-lda Al Mg\n"
DECKS = (
    "compute dos all petdos almgsi-lda Al",
    "compute dos all petdos almgsi-lda Al Cu",
    "compute dos all petdos almgsi-lda Al Xx",
    "compute dos all petdos none.pt Al Mg",
    "compute dos all petdos cut.pt Al Mg",
    "compute dos all petdos alone.pt Al Mg",
    "compute dos some petdos almgsi-lda Al Mg",
    "compute dos all petdos almgsi-lda Al Mg window 3 -3",
    "compute dos all petdos almgsi-lda Al Mg threads 0",
    _DOS + "fix obs all petdos 0 dos new.zarr",
    _DOS + "fix obs all petdos 2 none new.zarr",
    _DOS + "fix obs all petdos 2 dos new.zarr temp 0",
    _DOS + "fix obs all petdos 2 dos /proc/no/where.zarr",
    _DOS + "fix obs all petdos 2 dos run.zarr",
    _DOS + "fix obs all petdos 2 dos mine append yes",
    _DOS + "fix obs all petdos 2 dos cut.zarr append yes",
    _DOS + "fix obs all petdos 2 dos new.zarr what 3",
)
"""Lines of LAMMPS; the last one is the wrong one."""
