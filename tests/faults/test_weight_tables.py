"""Random tables of weights, however they are written down, are read as the numbers that they were made of; damaged ones are refused.

The oracle is a dictionary, and a loop over frames.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from helpers.synthetic import readout, samples, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petdos_md.analysis.analyze import analyze
from petdos_md.analysis.weights import FrameWeights
from petdos_md.base.errors import SettingError

HERE = settings(
    max_examples=150,
    deadline=None,
    derandomize="PETDOS_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
STEPS = st.integers(-(10**9), 10**12)
WEIGHTS = st.floats(0, 1e12, allow_nan=False)
KEYS = st.lists(st.tuples(st.integers(0, 40), STEPS), min_size=1, max_size=12, unique=True)


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, dict[tuple[int, int], float], bool]:
    """Text, what it says, and whether that are logarithms."""
    logarithms = draw(st.booleans())
    keys = draw(KEYS)
    replicas = draw(st.booleans())
    if not replicas:
        keys = list({step: (0, step) for _, step in keys}.values())
    values = st.floats(-700, 700) if logarithms else WEIGHTS
    said = {key: draw(values) for key in keys}
    columns = ["step", "log_weight" if logarithms else "weight", *(["replica"] if replicas else [])]
    columns = draw(st.permutations([*columns, *draw(st.sampled_from([[], ["bias"], ["time", "energy"]]))]))
    separator = draw(st.sampled_from([" ", "\t", "   ", ",", ", "]))
    plumed = "," not in separator and draw(st.booleans())
    head = draw(st.sampled_from(["#! FIELDS ", "#!  FIELDS "])) if plumed else draw(st.sampled_from(["", "# ", "#"]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    lines = [head + separator.join(draw(st.sampled_from([columns, [c.upper() for c in columns]])))]
    for (replica, step), value in said.items():
        lines += draw(st.sampled_from([[], [""], ["# a remark"], [lines[0]] if plumed else []]))
        whole = draw(st.sampled_from(["{}", "{}.0", "{}.", "{}e0"]))
        cells = {"step": whole.format(step), "replica": whole.format(replica)}
        cells |= {"weight": repr(value), "log_weight": repr(value)}
        lines.append(separator.join(cells.get(name, "7.25") for name in columns))
    text = end.join(lines) + draw(st.sampled_from(["", end, end + end]))
    return draw(st.sampled_from(["", "\ufeff"])) + text, said, logarithms


@HERE
@given(table=tables())
def test_what_a_table_says(table: tuple[str, dict, bool], tmp_path: Path) -> None:
    text, said, logarithms = table
    (tmp_path / "w").write_text(text, encoding="utf-8", newline="")
    weights = FrameWeights.read(tmp_path / "w")
    assert weights.are_logarithms == logarithms
    replica, step = np.array(list(said)).T
    assert weights.weights_of(replica, step).tolist() == list(said.values())
    missing = max(step) + 1
    with pytest.raises(SettingError, match=f"no weight for step {missing} "):
        weights.weights_of(np.array([0]), np.array([missing]))


@HERE
@given(
    table=tables(),
    where=st.floats(0, 1),
    what=st.sampled_from(["word", "nan", "part", "drop", "add", "twice", "minus"]),
)
def test_damaged_tables(table: tuple[str, dict, bool], where: float, what: str, tmp_path: Path) -> None:
    """A row that is wrong is refused in one line that says where; never read as another number."""
    text, _, logarithms = table
    lines = text.removeprefix("\ufeff").split("\n")
    rows = [i for i, line in enumerate(lines) if line.strip() and not line.startswith("#") and i]
    at = rows[min(int(where * len(rows)), len(rows) - 1)]
    comma = "," in lines[0]
    names = [name.strip().lower() for name in lines[0].lstrip("#! ").removeprefix("FIELDS ").replace(",", " ").split()]
    cells = [cell.strip() for cell in (lines[at].split(",") if comma else lines[at].split())]
    step, weight = names.index("step"), names.index("log_weight" if logarithms else "weight")
    if what == "twice":
        lines.insert(at, lines[at].rstrip("\r"))
    elif what == "drop":
        del cells[0]
    elif what == "add":
        cells.append("1")
    elif what == "part":
        cells[step] = "0.5"
    else:
        wrong = {"word": "none", "nan": "nan", "minus": "inf" if logarithms else "-1e-9"}
        cells[weight] = wrong[what]
    if what != "twice":
        lines[at] = (", " if comma else " ").join(cells)
    (tmp_path / "w").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(SettingError) as caught:
        FrameWeights.read(tmp_path / "w")
    assert "\n" not in str(caught.value) and str(tmp_path / "w") in str(caught.value)


@HERE
@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_content(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(content)
    try:
        FrameWeights.read(tmp_path / "w")
    except SettingError as error:
        assert "\n" not in str(error)


@settings(HERE, max_examples=15)
@given(
    seed=st.integers(0, 10**6),
    zero=st.floats(0, 0.8),
    scale=st.floats(1e-30, 1e30),
    offsets=st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
)
def test_averages_are_those_of_a_loop(
    seed: int, zero: float, scale: float, offsets: tuple[float, float], tmp_path: Path
) -> None:
    """Of two traces at two temperatures each: any scale of weights, any zero of logarithms at each temperature, any zeros among them."""
    rng = np.random.default_rng(seed)
    frames = [
        samples(12, seed=k, temperature_K=t, replica=r)
        for k, (t, r) in enumerate(((300.0, 0), (600.0, 1), (300.0, 0), (600.0, 1)))
    ]
    paths = []
    for name, parts in (("a", frames[:2]), ("b", frames[2:])):
        path = tmp_path / f"{name}.zarr"
        paths.append(path if path.exists() else write(path, [s for part in parts for s in part]).path)
    weights = [rng.uniform(0.01, 1, 12) * (rng.random(12) >= zero) for _ in frames]
    for w in weights:
        w[rng.integers(12)] = 0.5
    for kind in ("weight", "log_weight"):
        tables = []
        for name, mine in (("a", (0, 1)), ("b", (2, 3))):
            lines = [f"replica,step,{kind}"]
            for k in mine:
                with np.errstate(divide="ignore"):
                    shown = weights[k] * scale if kind == "weight" else np.log(weights[k]) + offsets[k % 2]
                lines += [f"{s.replica},{s.step},{float(x)!r}" for s, x in zip(frames[k], shown, strict=True)]
            (tmp_path / f"{name}.csv").write_text("\n".join(lines))
            tables.append(tmp_path / f"{name}.csv")
        found = analyze(paths, readout(0), weights=tables, temperatures_K=[300.0, 600.0], reference="raw")
        for i in range(2):
            total = sum(
                w * readout(0).dos(s.features) for k in (i, i + 2) for w, s in zip(weights[k], frames[k], strict=True)
            )
            expected = total / (weights[i].sum() + weights[i + 2].sum())
            np.testing.assert_allclose(found["dos"][i], expected, rtol=1e-9, atol=1e-11)
