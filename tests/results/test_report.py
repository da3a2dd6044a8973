"""The page and what goes with it: numbers of the result, nothing fetched, hashes, references that exist."""

from __future__ import annotations

import hashlib
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from helpers.synthetic import readout, samples, write

from petdos_md.analysis.analyze import analyze
from petdos_md.base.errors import SettingError
from petdos_md.results.plot import plot_dos
from petdos_md.results.provenance import describe_trace, trace_hash
from petdos_md.results.report import format_table, write_report
from petdos_md.traces.schema import COLUMNS, OPTIONAL
from petdos_md.traces.trace import Trace


class Page(html.parser.HTMLParser):
    """What is in a page: text, tags that were opened, and those that were never closed."""

    VOID = ("meta", "br", "path", "use", "link", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.open, self.attributes = "", [], []  # type: ignore[var-annotated]
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    frames = [s for t, k in ((300.0, 0), (900.0, 1)) for s in samples(60, seed=int(t), temperature_K=t, replica=k)]
    path = tmp_path_factory.mktemp("report") / "run <1>.zarr"  # a name that a page must not take for a tag
    with Trace.open(path, model=frames[0].model, engine="lammps", timestep_fs=2.0, metadata={"formula": "Al8"}) as made:
        for sample in frames:
            made.append(sample)
    return Trace.open(path, "r")


@pytest.fixture(scope="module")
def folder(trace: Trace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    write_report(analyze(trace, readout(), reference="fermi"), out, formats=("png", "svg"))
    return out


def test_page_holds_the_result_and_needs_nothing_else(folder: Path, trace: Trace) -> None:
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    result = analyze(trace, readout(), reference="fermi")
    for cell in format_table(result, "kB").splitlines()[3].split("  ")[-1:]:
        assert cell.strip() in page.text
    assert "run <1>.zarr" in page.text
    for note in result.attrs["notes"]:
        assert re.sub(r"\b([CEkT])_(el|F|B|e)\b", r"\1\2", note) in page.text
    fetched = [
        value for name, value in page.attributes if name in ("src", "data", "xlink:href", "href", "poster") and value
    ]
    assert (
        all(value.startswith(("#", "https://doi.org/")) for value in fetched)
        and "url(http" not in text
        and "@import" not in text
    )
    assert len(re.findall(r"<svg ", text)) == 2


def test_references_are_those_of_the_run(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    keys = re.findall(r"^@\w+\{(\w+),$", text, re.M)
    assert keys == ["petdosmd", "petmaddos", "pet", "llpr", "lammps", "autocorrelation"]
    methods = text.split("## Methods")[1].split("##")[0]
    cited = {int(n) for group in re.findall(r"\[([\d, ]+)\]", methods) for n in group.split(",")}
    assert cited == set(range(1, len(keys) + 1))
    assert (
        "300 and 900 K" in methods
        and "a time step of 2 fs" in methods
        and "in 60 frames per temperature, 20 fs apart" in methods
    )
    for figure in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (folder / figure).is_file()


def test_hash_is_that_of_the_samples_wherever_they_lie(folder: Path, trace: Trace, tmp_path: Path) -> None:
    record = json.loads((folder / "provenance.json").read_text())
    (entry,) = record["traces"]
    digest = hashlib.sha256()
    for name in (name for name in COLUMNS if name not in OPTIONAL):  # there were no hot electrons
        digest.update(name.encode() + getattr(trace, name).tobytes())
    digest.update(np.asarray(trace.features).tobytes())
    assert entry["sha256"] == digest.hexdigest() and entry["n_samples"] == 120
    merged = Trace.merge(tmp_path / "copy.zarr", [trace.path])
    assert trace_hash(merged) == entry["sha256"]
    changed = Trace.merge(tmp_path / "less.zarr", [trace.path])
    with Trace.open(changed.path, "a") as shorter:
        shorter.truncate(500)
    assert trace_hash(Trace.open(changed.path, "r")) != entry["sha256"]


def test_hash_of_a_long_trace_reads_its_ends(trace: Trace, tmp_path: Path) -> None:
    frames = samples(9000, seed=1, temperature_K=300.0)
    long = write(tmp_path / "long.zarr", frames)
    features = np.stack([s.features for s in frames])
    digests = [hashlib.sha256(), hashlib.sha256()]
    for name in (name for name in COLUMNS if name not in OPTIONAL):
        for digest in digests:
            digest.update(name.encode() + getattr(long, name).tobytes())
    digests[0].update(features.tobytes())
    digests[1].update(features[:4096].tobytes() + features[-4096:].tobytes())
    assert trace_hash(long) == trace_hash(long, features.nbytes) == digests[0].hexdigest()
    assert trace_hash(long, features.nbytes - 1) == digests[1].hexdigest()
    assert trace_hash(trace, 1) == trace_hash(trace)  # short ones are hashed whole
    assert describe_trace(long.path)["sha256_of"] == "columns and features"


def test_page_of_many_traces(tmp_path: Path) -> None:
    """It describes the first of them; all are in provenance.json."""
    paths = [tmp_path / f"T{i:02d}.zarr" for i in range(25)]
    for i, path in enumerate(paths):
        write(path, samples(4, seed=i, temperature_K=300.0))
    write_report(analyze(paths, readout()), tmp_path / "out", command=["petdos", *["x" * 50] * 30, "-o", "the end"])
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert page.open == [] and "T18.zarr" in page.text and "T19.zarr" not in page.text and "6 more traces" in page.text
    assert "the end" in page.text and page.text.count("x" * 50) < 20
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert [entry["path"] for entry in record["traces"]] == [str(path) for path in paths]
    assert record["command"][-1] == "the end" and len(record["command"]) == 33


def test_netcdf_obeys_the_conventions(folder: Path) -> None:
    with xr.open_dataset(folder / "dos.nc") as data:
        assert data.attrs["Conventions"].startswith("CF-1.") and data.attrs["references"].startswith("doi:")
        for name, variable in data.data_vars.items():
            assert variable.attrs["long_name"] and variable.attrs["units"], name
            for other in str(variable.attrs.get("ancillary_variables", "")).split():
                assert other in data
        assert (
            data["heat_capacity"].attrs["ancillary_variables"] == "heat_capacity_model_std heat_capacity_sampling_err"
        )
        assert data["dos"].attrs["units"] == "eV-1"


def test_temperatures_of_the_electrons_share_one_curve(trace: Trace) -> None:
    hot = analyze(
        trace, readout(), temperatures_K=[300], electronic_temperatures_K=[1000, 2000, 3000], reference="fermi"
    )
    cold = analyze(trace, readout(), reference="fermi")
    assert len(plot_dos(hot).axes[0].get_legend().get_texts()) == 1
    assert [t.get_text() for t in plot_dos(cold).axes[0].get_legend().get_texts()] == ["300 K", "900 K"]


def test_unknown_formats_are_refused(trace: Trace, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="got the format 'jpg' of figures, expected some of png, pdf, svg"):
        write_report(analyze(trace, readout()), tmp_path / "out", formats=("png", "jpg"))
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
@pytest.mark.slow
def test_a_browser_prints_it(folder: Path, tmp_path: Path) -> None:
    command = [
        "chromium",
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        f"--print-to-pdf={tmp_path}/p.pdf",
    ]
    subprocess.run([*command, (folder / "report.html").as_uri()], check=True, capture_output=True, timeout=120)
    assert (tmp_path / "p.pdf").read_bytes()[:4] == b"%PDF"
