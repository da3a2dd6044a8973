"""A paragraph for the methods section of a paper, with the numbers of a result filled in.

>>> in_words([300.0]), in_words([300.0, 600.0, 900.0])
('300 K', '300, 600 and 900 K')
>>> in_words([100.0 * k for k in range(1, 21)])
'20 temperatures from 100 to 2000 K'
>>> methods_paragraph(result, record)                                        # doctest: +SKIP

Keys of references stand in brackets, ``[@ase]``: they are those of the BibTeX entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .tables import electrons_apart

_ENGINES = {"ase": "ASE [@ase]", "rerun": "ASE [@ase]", "lammps": "LAMMPS [@lammps]", "i-pi": "i-PI [@ipi]"}
_ENSEMBLES = {
    "nve": "the microcanonical ensemble",
    "nvt": "the NVT ensemble",
    "npt": "the NPT ensemble",
    "nph": "the NPH ensemble",
}


def methods_paragraph(result: xr.Dataset, record: dict[str, Any]) -> str:
    """How the result was made, in sentences.

    :param result: of :func:`petdos_md.analyze`
    :param record: its provenance, of :func:`petdos_md.results.provenance.provenance`
    """
    return " ".join([*_simulation(result, record), *_model(result, record), *_averages(result), *_errors(result)])


def in_words(temperatures_K: Sequence[float] | np.ndarray) -> str:
    """Temperatures in a sentence."""
    values = [f"{t:g}" for t in temperatures_K]
    if len(values) > 6:
        return f"{len(values)} temperatures from {values[0]} to {values[-1]} K"
    return (", ".join(values[:-1]) + " and " if len(values) > 1 else "") + values[-1] + " K"


def _simulation(result: xr.Dataset, record: dict[str, Any]) -> list[str]:
    traces = [trace for trace in record["traces"] if trace["sha256"]]
    known = [trace["metadata"] for trace in traces]
    formula = _common(known, "formula") or "the system"
    engines = dict.fromkeys(name for trace in traces for name in str(trace["engine"]).split(", ") if name)
    with_what = " and ".join(_ENGINES.get(name, name) for name in engines)
    timestep = {trace["timestep_fs"] for trace in traces}
    step = f" with a time step of {timestep.pop():g} fs" if len(timestep) == 1 and None not in timestep else ""
    ensemble = _common(known, "ensemble")
    where = f" in {_ENSEMBLES.get(ensemble, f'the ensemble {ensemble}')}" if ensemble else ""
    potential = _common(known, "potential")
    by = f", with forces of the potential `{potential}`" if potential else ""
    temperatures = np.unique(result["ensemble_temperature"].values)
    frames, spacing = result["n_samples"].values, result["autocorrelation_time_fs"] / result["autocorrelation_time"]
    apart = np.unique(np.round(spacing.values[np.isfinite(spacing.values)], 3))
    every = f", {apart[0]:g} fs apart" if len(apart) == 1 else ""
    count = f"{frames.min()}" if frames.min() == frames.max() else f"{frames.min()} to {frames.max()}"
    burn_in = result.attrs.get("burn_in", 0)
    cut = {"auto": " The beginnings that drift were left out.", 0: ""}.get(
        burn_in, f" The first {burn_in} steps were left out."
    )
    ran = f"run with {with_what}" if with_what else "run"
    return [
        f"Molecular dynamics of {formula} was {ran}{where} at {in_words(temperatures)}{step}{by}.",
        f"The electronic structure was sampled in {count} frames per temperature{every}.{cut}",
    ]


def _model(result: xr.Dataset, record: dict[str, Any]) -> list[str]:
    members = result.sizes.get("member", 0)
    ensemble = f" and its ensemble of {members} members [@llpr]" if members else ""
    return [
        f"The electronic density of states (DOS) of each frame was predicted by the model `{record['model']['name']}` [@petmaddos, @pet]"
        f"{ensemble}{_other_readout(record)}, with petdos-md {record['creator']['version']} [@petdosmd]."
    ]


def _other_readout(record: dict[str, Any]) -> str:
    readout = record["model"].get("readout")
    if readout is None:
        return ""
    return f" with the readout of `{Path(readout['path']).name.removesuffix('.readout.safetensors') or 'another model'}` in place of its own"


def _averages(result: xr.Dataset) -> list[str]:
    denoised = str(result.attrs.get("denoise", "no"))
    how = "averaged over frames"
    if denoised != "no":
        how = f"denoised frame by frame ({denoised}) and averaged"
    sentences = [
        f"DOS were {how}; chemical potential, entropy and heat capacity follow from the average DOS in the rigid-band approximation, at a "
        "constant number of electrons, with integrals that are exact for a DOS that is linear between grid points."
    ]
    if electrons_apart(result):
        sentences.append(f"The electrons were taken at {in_words(result['temperature'].values)}.")
    return sentences


def _errors(result: xr.Dataset) -> list[str]:
    sentences = []
    if "member" in result.sizes:
        sentences.append(
            "Model errors are standard deviations over the members, each of which is averaged and evaluated as a whole."
        )
    method = str(result.attrs.get("error_method", "autocorrelation"))
    by = {"autocorrelation": "from its integrated autocorrelation time", "blocking": "from block averages"}[method]
    effective = result["n_effective"].values
    effective = effective[np.isfinite(effective)]
    if len(effective):
        ends = (
            f"{effective.min():.0f}"
            if f"{effective.min():.0f}" == f"{effective.max():.0f}"
            else f"{effective.min():.0f} to {effective.max():.0f}"
        )
        sentences.append(
            f"Sampling errors are standard errors of the correlated series of frames, {by} [@{method}]; there are {ends} independent frames per "
            "temperature."
        )
    return sentences


def _common(known: list[dict[str, Any]], key: str) -> str:
    values = {str(metadata.get(key)) for metadata in known}
    value = values.pop() if len(values) == 1 else "None"
    return "" if value == "None" else value
