"""Electronic heat capacity of aluminium and Al-Mg against DFT of the very same frames; Sommerfeld coefficient of aluminium.

python examples/07_heat_capacity_vs_dft.py          # a minute; writes outputs/07/
python examples/07_heat_capacity_vs_dft.py --quick  # fewer temperatures and frames

Frames are those of the data set's test split (never trained on). DFT: C_el(T) from the eigenvalues of each frame, smeared as the targets
are. Model: C_el(T) of every member, averaged over frames first. Model error: spread of the members; sampling error: standard error over frames, which are
independent of each other.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import petdos_md as pm
from petdos_md.physics.curves import sommerfeld_gamma
from petdos_md.results.normalization import convert
from petdos_md.validation.metrics import align
from petdos_md.validation.references import read_references

FREE_ELECTRONS = 0.912  # mJ/mol/K^2
# Measured 1.35, which the electron-phonon coupling 0.44 (Savrasov and Savrasov, Phys. Rev. B 54, 16487) makes larger than that of bands.
BAND_THEORY = 1.35 / 1.44
SYSTEMS = {"Al": ("fcc-Al", "liq-Al", "fcc-Al4"), "Al-Mg": ("AlMg",)}

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--quick", action="store_true")
args = parser.parse_args()
out = Path("outputs/07-quick" if args.quick else "outputs/07")
out.mkdir(parents=True, exist_ok=True)
model = pm.DOSModel.load("almgsi-lda")
data = Path(__file__).parent / "training" / "data" / "almgsi-lda.xyz.xz"
# Few frames of pure aluminium are in the test split: those of the validation split, which only stopped the training, join them.
references = read_references(data, model, where="index%10=3,7", index=":98" if args.quick else ":")
temperatures = np.linspace(200, 4000, 5 if args.quick else 20)
energies = model.grid.energies

figure = Figure(figsize=(9.0, 3.9), layout="constrained")
for axes, (system, subsets) in zip(figure.subplots(1, 2), SYSTEMS.items(), strict=True):
    chosen = [r for r in references if r.subset in subsets][: 2 if args.quick else None]
    dft, predicted, gammas = [], [], {"DFT": [], "model": []}
    for reference in chosen:
        size, n = len(reference.atoms), reference.n_electrons
        members = model.dos_members(reference.atoms)
        # Both end where the fewest bands of DFT end, moved onto the axis of the model.
        shift = align(reference.target, members.mean(axis=0), model.grid.step).refined * model.grid.step
        known = np.isfinite(reference.target)
        below = energies < energies[known][-1] + shift
        cp = pm.thermo.heat_capacity(energies[known], reference.target[known], n, temperatures)
        dft.append(convert(cp, "eV/K", "kB", size))
        cp = pm.thermo.heat_capacity(energies[below], members[:, None, below], n, temperatures)
        predicted.append(convert(cp, "eV/K", "kB", size))
        if len(set(reference.atoms.numbers)) == 1:
            args_of = {"DFT": (energies[known], reference.target[known]), "model": (energies[below], members[:, below])}
            for name, (e, g) in args_of.items():
                gammas[name].append(convert(sommerfeld_gamma(e, g, n), "eV/K^2", "mol", size))
    dft, predicted = np.array(dft), np.array(predicted)  # (frames, T) and (frames, members, T)
    mean_dft, of_members = dft.mean(axis=0), predicted.mean(axis=0)
    mean, model_std = of_members.mean(axis=0), of_members.std(axis=0, ddof=1)
    sampling = predicted.mean(axis=1).std(axis=0, ddof=1) / np.sqrt(len(chosen))
    axes.fill_between(
        temperatures, mean - model_std, mean + model_std, color="#c1440e", alpha=0.2, linewidth=0, label="model error"
    )
    axes.errorbar(
        temperatures, mean, sampling, color="#c1440e", linestyle="--", marker="o", markersize=3.5, capsize=2.5,
        label="model (caps: sampling error)",
    )  # fmt: skip
    axes.plot(temperatures, mean_dft, color="#0b5394", label="DFT of the same frames")
    axes.set_title(f"{system}, {len(chosen)} frames", loc="left")
    axes.set(xlabel="$T$ (K)", ylabel=r"$C_\mathrm{el}$ ($k_\mathrm{B}$ / atom)", xlim=(0, 4100))
    axes.set_ylim(bottom=0)
    worst = np.abs(mean / mean_dft - 1).max()
    z = np.abs(mean - mean_dft) / model_std
    print(
        f"{system}: {len(chosen)} frames, largest deviation of the mean C_el(T) {100 * worst:.1f} %, {z.max():.1f} model errors"
    )
    if gammas["DFT"]:
        of_dft, of_model = np.mean(gammas["DFT"]), np.mean(gammas["model"], axis=0)
        print(
            f"  gamma (mJ/mol/K^2): model {of_model.mean():.3f} ± {of_model.std(ddof=1):.3f}, DFT of the same frames {of_dft:.3f}, "
            f"band theory of the crystal {BAND_THEORY:.2f}, free electrons {FREE_ELECTRONS}"
        )
        slope = convert(np.pi**2 / 3 * 8.617333262e-5**2, "eV/K^2", "mol", 1)  # of 1 state/eV/atom
        kB = BAND_THEORY / slope * np.pi**2 / 3 * 8.617333262e-5 * temperatures
        axes.plot(temperatures, kB, color="0.4", linewidth=0.9, linestyle=":", label=r"$\gamma T$, band theory")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
figure.savefig(out / "heat-capacity-dft.png", dpi=160)
print(f"figure: {out / 'heat-capacity-dft.png'}")
