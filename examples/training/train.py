"""From DFT data to the exported model: one network for energy, forces, stress and the DOS, with an ensemble of the DOS.

Everything lands in ``--output``; finished stages are skipped and an interrupted training goes on, so that the same command can
be given again at any time::

    python train.py                         # all stages, data set and options of the shipped model
    python train.py --quick                 # one epoch of each, a minute or two: does everything work here?
    python train.py --stage shift           # one stage
    python train.py --data MINE.xyz.xz --electrons Ga=3,As=5 --name mine
    python train.py --data MINE.xyz.xz --electrons Ga=3,As=5 --name mine --options options-dos # a model of the DOS alone
    python train.py --tags dia-Si liq-Si --name silicon --output outputs/silicon               # a bespoke model
    python train.py --tags dia-Si liq-Si --name silicon-lora --output outputs/silicon-lora \\
        --adapt lora --start checkpoints/almgsi-lda.ckpt                                        # the general one, adapted

Stages: ``prepare`` (targets and split), ``start`` (forces above all), ``mse`` (DOS on the absolute axis, energies), ``shift``
(shift-agnostic loss of the article), ``smooth`` (noise of the last layer), ``llpr`` (ensemble), ``export`` (backbone and readout),
``validate`` (table, figures). Networks are trained by `mtt train` with the option files in ``options/``; its progress is shown and
kept in ``STAGE/train.out``.

``--adapt lora`` leaves the weights of ``--start`` as they are and trains matrices of low rank beside them (section 4.7 of the
article: rank 8, factor 0.5), with the options of ``shift`` and a learning rate of 1e-3; ``start``, ``mse`` and ``smooth`` drop out.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":  # Ctrl-C while modules are imported ends without a traceback; see script.run
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import ase.io
from scipy.ndimage import gaussian_filter1d
from tqdm import tqdm

from petdos_md.base.electrons import parse_electrons
from petdos_md.base.errors import PetdosError, SettingError
from petdos_md.base.grid import EnergyGrid
from petdos_md.physics.dft import SMEARING_EV

if importlib.util.find_spec("metatrain") is None:
    sys.exit("metatrain, which trains the networks, is not installed here; pip install 'petdos-md[train]'")
import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from prepare import check_choice, has_energy, prepare  # noqa: E402
from script import Parser, run, whole  # noqa: E402

GRID = EnergyGrid(start=-13.0, step=0.05, n=751)
"""The grid of the predictions, to 24.5 eV. The lowest eigenvalue of the data is -6.3 eV and no target is defined above 19.4 eV:
the window of the targets can move by chi = 200 steps (100 each way), as in the article. Below the bands the target is zero."""

LORA = {"rank": 8, "alpha": 0.5}
"""Rank and factor of the adapters, as in the article."""

LORA_LEARNING_RATE = 1e-3

SHOWN = ("Epoch", "learning rate", "training loss", "validation loss", "validation mtt::dos RMSE")
"""What is shown of the line that metatrain prints for an epoch."""

STAGES = ("prepare", "start", "mse", "shift", "smooth", "llpr", "export", "validate")


DATA_FILES = ("train.xyz", "validation.xyz", "test.xyz")

NEEDED = {
    **dict.fromkeys(("start", "mse", "shift"), DATA_FILES),
    "smooth": ("shift/model.ckpt",),
    "llpr": (*DATA_FILES, "model.ckpt"),
    "export": (*DATA_FILES, "model.ckpt", "llpr.ckpt"),
    "validate": DATA_FILES,
}
"""Files of earlier stages."""


def train(args: argparse.Namespace, stage: str, start: Path | None) -> None:
    """One run of `mtt train` in a folder of its own; goes on from its newest whole checkpoint if there is one."""
    folder = args.output / stage
    folder.mkdir(exist_ok=True)
    options = training_options(args, stage, start)
    (folder / "options.yaml").write_text(yaml.safe_dump(options, sort_keys=False))
    command = [str(Path(sys.executable).parent / "mtt"), "train", "options.yaml", "-o", "part-model.pt"]
    checkpoint = newest_checkpoint(folder)
    if checkpoint is not None:
        command += ["--restart", str(checkpoint)]
        print(f"{stage}: going on from {checkpoint}")
    # glibc gives large arrays back to the system at once; to keep them saves a fifth of the time.
    keep = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34)}
    # metatrain uses a function that omegaconf has renamed.
    renamed = "ignore:register_new_resolver:UserWarning"
    environment = {**os.environ, **keep, "OMP_NUM_THREADS": str(args.threads), "PYTHONWARNINGS": renamed}
    with (
        open(folder / "train.out", "a") as log,
        tqdm(total=options["architecture"]["training"]["num_epochs"], desc=stage, unit="epoch", disable=None) as bar,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        assert process.stdout is not None
        reason, ended = "it says nothing", threading.Event()
        threading.Thread(target=tick, args=(bar, ended), daemon=True).start()
        try:
            for line in process.stdout:
                log.write(line)
                if "Error: " in line or "Exception: " in line:
                    reason = line.strip()
                show(line, stage, bar)
        except BaseException:
            process.terminate()
            raise
        finally:
            ended.set()
    if process.returncode != 0:
        sys.exit(f"{stage}: mtt train failed: {reason} (all that it said: {folder / 'train.out'})")
    (folder / "part-model.pt").unlink(missing_ok=True)
    (folder / "part-model.ckpt").replace(folder / "model.ckpt")


def training_options(args: argparse.Namespace, stage: str, start: Path | None) -> dict[str, Any]:
    """What `mtt train` reads: the option file of the stage, with what the arguments say."""
    options: dict[str, Any] = yaml.safe_load((args.options / f"{stage}.yaml").read_text())
    for part in ("training_set", "validation_set"):
        name = {"training_set": "train", "validation_set": "validation"}[part]
        options[part]["systems"]["read_from"] = str(args.output / f"{name}.xyz")
        options[part]["targets"]["mtt::dos"]["num_subtargets"] = args.grid.n
    options["device"] = args.device
    # metatrain refuses batches larger than the training set.
    training = options["architecture"]["training"]
    training["batch_size"] = min(training["batch_size"], count(args.output / "train.xyz"))
    if args.epochs is not None:
        training["num_epochs"] = args.epochs
    if start is not None:
        finetune = {"method": args.adapt, "read_from": str(start)}
        if args.adapt == "lora":
            finetune["config"] = LORA
            training["learning_rate"] = LORA_LEARNING_RATE
        training["finetune"] = finetune
    return options


def newest_checkpoint(folder: Path) -> Path | None:
    """Of the checkpoints that `mtt train` left, the newest that is whole: one that was being written when it was stopped is cut."""
    checkpoints = sorted(folder.glob("outputs/*/*/model_*.ckpt"), key=lambda p: p.stat().st_mtime)
    return next((path for path in reversed(checkpoints) if zipfile.is_zipfile(path)), None)


def tick(bar: tqdm[NoReturn], ended: threading.Event) -> None:
    """The clock of a bar goes on within an epoch."""
    while not ended.wait(1.0):
        bar.refresh()


def show(line: str, stage: str, bar: tqdm[NoReturn]) -> None:
    """Of what `mtt train` says: a line for each epoch, and beside the bar what it does before the first."""
    text = line.split("INFO] - ")[-1].strip()
    epoch = re.match(r"Epoch:\s+(\d+)", text)
    if epoch:
        bar.set_postfix_str("", refresh=False)
        bar.update(int(epoch[1]) + 1 - bar.n)
        bar.write(f"{stage}: {' | '.join(part for part in text.split(' | ') if part.startswith(SHOWN))}")
        sys.stdout.flush()
    elif text.startswith(("Setting up", "Calculating", "Starting")):
        bar.set_postfix_str(text[:60])


def count(path: Path) -> int:
    """Structures of an extended XYZ file."""
    return len(ase.io.read(path, ":"))


def smooth(args: argparse.Namespace) -> None:
    """Remove what the last layer has learned on a scale finer than any target: noise from channel to channel.

    Weights of the DOS head are filtered along energy. The kernel 2 G - G * G, with G a Gaussian of a third of the smearing, lowers a
    Gaussian of the targets' own width by 0.7 % and changes all that is broader much less.
    """
    import torch
    from metatrain.utils.io import load_model

    model = load_model(args.output / "shift" / "model.ckpt")
    if args.adapt == "lora":  # the last layer is that of --start, smooth already
        merge_adapters(model)
        save(model, args.output / "model.ckpt")
        return
    width = SMEARING_EV / 3 / args.grid.step
    names = list(model.last_layer_parameter_names["mtt::dos"])
    names += [name.removesuffix("weight") + "bias" for name in names]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in names:
                once = gaussian_filter1d(parameter.double().numpy(), width, axis=0, mode="nearest")
                twice = gaussian_filter1d(once, width, axis=0, mode="nearest")
                parameter.copy_(torch.tensor(2 * once - twice))
                names.remove(name)
    if names:
        sys.exit(f"smooth: the network has no parameters {', '.join(names)}; metatrain 2026.4 names them otherwise")
    save(model, args.output / "model.ckpt")


def save(model: Any, path: Path) -> None:
    """The checkpoint of a network."""
    import torch

    with whole(path) as partial:
        torch.save(model.get_checkpoint(), partial)


def merge_adapters(model: Any) -> None:
    """Add low-rank adapters to the weights that they stand beside, ``W + scaling B A``: the same function, at the cost of the old network.

    (A checkpoint with adapters cannot be wrapped in an ensemble by metatrain 2026.4: its copy forgets that there are adapters.)
    """
    import torch

    merged = 0
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if all(hasattr(layer, part) for part in ("linear", "lora_A", "lora_B", "scaling")):
                with torch.no_grad():
                    layer.linear.weight += layer.scaling * layer.lora_B.weight @ layer.lora_A.weight
                setattr(parent, name, layer.linear)
                merged += 1
    if merged == 0:
        sys.exit(
            "smooth: the network has no adapters; metatrain 2026.4 builds them as linear, lora_A, lora_B and scaling"
        )
    model.finetune_config = {}


def export(args: argparse.Namespace) -> None:
    from petdos_md.models.export import export_model

    # With its training set, the model says when it extrapolates; with energies of others, how uncertain its energies are.
    training, validation = (ase.io.read(args.output / f"{part}.xyz", ":") for part in ("train", "validation"))
    for path in args.seen:
        training += ase.io.read(path, ":")
    report = export_model(
        args.output / "model.ckpt",
        args.output / f"{args.name}.pt",
        llpr=args.output / "llpr.ckpt",
        grid_start=args.grid.start,
        grid_step=args.grid.step,
        electrons=args.electrons,
        description=args.description,
        training=training,
        validation=validation,
    )
    size = sum(p.stat().st_size for p in (report.backbone, report.readout)) / 1e6
    print(f"{report.backbone} and {report.readout.name}: {size:.1f} MB, {report.n_members} members")


def electron_table(text: str) -> dict[str, float]:
    """``Al=3,Mg=2`` as a dictionary."""
    try:
        return parse_electrons(text) or {}
    except SettingError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main() -> None:
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--stage", choices=("all", *STAGES), default="all")
    parser.add_argument("--data", type=Path, nargs="+", default=[HERE / "data" / "almgsi-lda.xyz.xz"],
                        help="data sets of dft/compute.py, or folders of single structures")  # fmt: skip
    parser.add_argument("--output", type=Path, default=HERE / "outputs" / "almgsi-lda",
                        help="folder of all results (default: outputs/almgsi-lda)")  # fmt: skip
    parser.add_argument(
        "--options",
        type=Path,
        default=HERE / "options",
        help="folder of STAGE.yaml, options or options-dos (default: options)",
    )
    parser.add_argument("--name", default="almgsi-lda", help="of the exported model")
    parser.add_argument("--description", help="in a few words, for `petdos info` (default: the elements)")
    parser.add_argument("--electrons", type=electron_table, default="Al=3,Mg=2,Si=4",
                        help="valence electrons (default: %(default)s)")  # fmt: skip
    parser.add_argument("--grid", type=float, nargs=2, metavar=("START", "STOP"),
                        help=f"of the predictions, eV (default: {GRID.start:g} {GRID.stop:g}, for almgsi-lda)")  # fmt: skip
    parser.add_argument(
        "--start", type=Path, help="checkpoint to begin the (first) stage from, e.g. of an earlier data set"
    )
    parser.add_argument("--adapt", choices=("full", "lora"), default="full",
                        help="how weights of --start are trained on: all of them, or low-rank adapters beside them")  # fmt: skip
    parser.add_argument(
        "--seen", type=Path, nargs="+", default=[], help="train.xyz of --start: the exported model knows it, too"
    )
    parser.add_argument("--tags", nargs="+", help="only structures whose tag begins with one of these")
    parser.add_argument("--without-tags", nargs="+", help="no structures whose tag begins with one of these")
    parser.add_argument("--fraction", type=float, help="of the training structures, from 0 to 1 (default: all)")
    parser.add_argument("--epochs", type=int, help="instead of the number in the option file")
    parser.add_argument("--quick", action="store_true",
                        help="one epoch with a tenth of the structures in outputs/quick, to see that all stages work")  # fmt: skip
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="of the training, as cuda (default: %(default)s)")
    args = parser.parse_args()
    if args.fraction is None:
        args.fraction = 0.1 if args.quick else 1.0
    if args.quick:
        args.epochs = args.epochs or 1
        if args.output == parser.get_default("output"):  # where a real training would find its stages done
            args.output = HERE / "outputs" / "quick"
    if args.grid is None:
        args.grid = GRID
    elif not args.grid[0] < args.grid[1]:
        parser.error(f"got --grid {args.grid[0]:g} {args.grid[1]:g}, expected START below STOP, in eV")
    else:
        args.grid = EnergyGrid(args.grid[0], GRID.step, round((args.grid[1] - args.grid[0]) / GRID.step) + 1)
    if args.adapt == "lora" and args.start is None:
        parser.error("--adapt lora needs the checkpoint to adapt: --start CKPT")
    if args.adapt == "lora" and not args.seen:
        print("note: without --seen (train.xyz of --start), what only the general model has seen counts as far outside")
    if args.description is None:
        shipped = args.data == parser.get_default("data")
        what = "LDA energies and electronic DOS" if shipped else "electronic DOS"
        args.description = f"{what} of {', '.join(args.electrons)}"
    check(parser, args)
    args.start = args.start.resolve() if args.start else None
    args.output = args.output.resolve()
    args.output.mkdir(parents=True, exist_ok=True)

    out = args.output
    if (out / "train.xyz").exists():
        check_choice(args)

    def begin(stage: str, before: str) -> Path | None:
        direct = args.stage == stage or args.adapt == "lora" or before not in steps
        if args.start and direct:
            return args.start
        return out / before / "model.ckpt" if before in steps else None

    steps = {
        "prepare": (out / "train.xyz", lambda: prepare(args)),
        "start": (out / "start" / "model.ckpt", lambda: train(args, "start", args.start)),
        "mse": (out / "mse" / "model.ckpt", lambda: train(args, "mse", begin("mse", "start"))),
        "shift": (out / "shift" / "model.ckpt", lambda: train(args, "shift", begin("shift", "mse"))),
        "smooth": (out / "model.ckpt", lambda: smooth(args)),
        "llpr": (out / "llpr.ckpt", lambda: llpr(args)),
        "export": (out / f"{args.name}.pt", lambda: export(args)),
        "validate": (out / "validation.json", lambda: validate(args)),
    }
    if args.adapt == "lora":
        del steps["start"], steps["mse"]
    elif not (args.options / "start.yaml").is_file():
        del steps["start"]
    for stage, (result, action) in steps.items():
        if args.stage not in ("all", stage):
            continue
        if result.exists() and args.stage == "all":
            print(f"{stage}: {result} is there, skipped")
            continue
        missing = [name for name in NEEDED.get(stage, ()) if not (out / name).exists()]
        if missing:
            sys.exit(f"{stage}: {out} has no {', '.join(missing)}; run the stages before it, or all without --stage")
        print(f"== {stage}", flush=True)
        action()
    if args.quick and args.stage == "all":
        print("all stages work here; next to nothing was learned, so the numbers of the table say nothing")


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Options that could not work, before minutes are spent on the data."""
    for path in (*args.data, args.options / "shift.yaml", *args.seen, *([args.start] if args.start else [])):
        if not path.exists():
            parser.error(f"{path}: no such file")
    for path in args.seen:
        try:
            next(ase.io.iread(path, format="extxyz"))
        except Exception:  # ASE raises many kinds
            parser.error(f"{path}: cannot be read as extended XYZ, expected the train.xyz of --start")
    if not 0 < args.fraction <= 1:
        parser.error(
            f"got --fraction {args.fraction:g}, expected a part of the training structures: above 0, at most 1"
        )
    if args.epochs is not None and args.epochs < 1:
        parser.error(f"got --epochs {args.epochs}, expected 1 or more")
    if args.device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            parser.error(f"got --device {args.device}, but torch finds no such device here; leave it out")


def llpr(args: argparse.Namespace) -> None:
    from ensemble import make_ensemble

    options = yaml.safe_load((args.options / "llpr.yaml").read_text())
    with whole(args.output / "llpr.ckpt") as partial:
        make_ensemble(
            args.output / "model.ckpt",
            args.output / "train.xyz",
            args.output / "validation.xyz",
            partial,
            args.grid,
            options,
        )


def validate(args: argparse.Namespace) -> None:
    """Tables and figures of the test set; those of a network of the DOS alone are from `petdos validate`."""
    model = args.output / f"{args.name}.pt"
    if has_energy(args.options):
        from validate import validate_model

        try:
            validate_model(model, args.output, args.output)
        except PetdosError as error:
            said = f"validate: {error}; a model that was trained so briefly need not have a Fermi level"
            if not args.quick:
                sys.exit(said)
            print(f"{said}: left out")
        return
    petdos = str(Path(sys.executable).parent / "petdos")
    command = [petdos, "validate", str(model), str(args.output / "test.xyz"), "--no-symmetry", "-o", str(args.output)]
    if subprocess.run(command).returncode != 0:
        said = "validate: the model could not be validated, see above; one that was trained so briefly need not have a Fermi level"
        if not args.quick:
            sys.exit(said)
        print(f"{said}: left out")


if __name__ == "__main__":
    run(main)
