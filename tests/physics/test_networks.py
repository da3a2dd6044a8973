"""Networks against upet's own module on the same weights; files good and bad."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.synthetic import FINGERPRINT, GRID, readout
from safetensors.torch import save_file
from upet.ase.dos._models import CNNModel

from petdos_md.analysis.inputs import check_network, find_networks
from petdos_md.base.errors import ModelError
from petdos_md.base.grid import EnergyGrid
from petdos_md.models.loading import PET_MAD_GRID
from petdos_md.models.readout import Readout
from petdos_md.physics.network_inference import Inference
from petdos_md.physics.networks import DOSNetwork, Network, flattened, network_path, networks_beside


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[CNNModel, Path]:
    """A state dict of the published shape with random weights, as upet would load it."""
    torch.manual_seed(1)
    module = CNNModel().eval()
    path = tmp_path_factory.mktemp("published") / "fermi-model.pt"
    torch.save(module.state_dict(), path)
    return module, path


def some_dos(m: int, n: int) -> np.ndarray:
    x = np.linspace(0, 30, n)
    rng = np.random.default_rng(2)
    return 8 * np.abs(np.sin(rng.uniform(0.5, 3, (m, 1)) * x) + rng.normal(size=(m, n)) * 0.1)


def test_equals_upet_on_published_shapes(published: tuple[CNNModel, Path]) -> None:
    module, path = published
    dos = some_dos(5, PET_MAD_GRID.n)
    with torch.inference_mode():
        theirs = module(torch.tensor(dos / 8, dtype=torch.float32)[:, None])[:, 0].double().numpy()
    for target, file in (("fermi_level", None), ("gap", "gap"), ("dos_at_fermi_level", "dos_at_fermi_level")):
        ours = Network.load(path, PET_MAD_GRID) if file is None else Network.load(path, PET_MAD_GRID, file)
        assert ours.target == target
        expected = {
            "fermi_level": theirs + PET_MAD_GRID.start,
            "gap": np.maximum(theirs, 0),
            "dos_at_fermi_level": 8 * np.maximum(theirs, 0),
        }[target]
        np.testing.assert_allclose(ours(dos, 8), expected, rtol=1e-5, atol=1e-5)
        # shapes and numbers of atoms broadcast
        np.testing.assert_allclose(ours(dos.reshape(5, 1, -1), np.full((5, 1), 8))[:, 0], ours(dos, 8), rtol=1e-12)
    assert np.ptp(theirs) > 1e-4  # the comparison is not one of constants


def test_upet_loads_what_we_train(tmp_path: Path) -> None:
    """Names and shapes are the published ones, both ways."""
    torch.manual_seed(3)
    module = DOSNetwork(4806)
    theirs = CNNModel()
    theirs.load_state_dict(module.state_dict())
    x = torch.rand(3, 4806)
    with torch.inference_mode():
        torch.testing.assert_close(theirs.eval()(x[:, None]), module.eval()(x), rtol=1e-5, atol=1e-6)
    assert flattened(4806) == 1024 == theirs.fc1.in_features


@pytest.mark.parametrize("n", [200, 738, 743, 751, 1201, 4806])
def test_other_grids_layer_by_layer(n: int) -> None:
    """The module, and what evaluates it, against plain layers in float64, without the shortcut in the pooling."""
    torch.manual_seed(n)
    module = DOSNetwork(n).double()
    x = torch.rand(4, n, dtype=torch.float64)
    y = torch.nn.functional.pad(x, (0, max(0, 737 - n)))[:, None]
    for conv in (module.conv1, module.conv2, module.conv3, module.conv4):
        y = torch.nn.functional.max_pool1d(torch.nn.functional.silu(conv(y)), 4)
    y = module.fc2(torch.nn.functional.silu(module.fc1(y.flatten(1))))
    torch.testing.assert_close(module(x), y, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(Inference(module)(x), y, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("m", [0, 1, 16, 17, 130])
def test_any_number_at_a_time(m: int) -> None:
    """Work arrays are used again: one by one, in full and in partial batches the answers are the same."""
    torch.manual_seed(m)
    module = DOSNetwork(751).double()
    x = torch.rand(m, 751, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(Inference(module)(x), module(x) if m else x[:, :1], rtol=1e-12, atol=1e-14)


def test_save_and_find_beside_a_model(tmp_path: Path) -> None:
    grid = EnergyGrid(-13.0, 0.05, 751)
    torch.manual_seed(4)
    network = Network(DOSNetwork(grid.n), grid, "gap", model=FINGERPRINT)
    model = tmp_path / "mine.pt"
    network.save(network_path(model, "gap"))
    found = networks_beside(model, grid)
    assert list(found) == ["gap"] and found["gap"].model == FINGERPRINT
    np.testing.assert_array_equal(found["gap"](some_dos(3, 751), 8), network(some_dos(3, 751), 8))
    with pytest.raises(ModelError, match=r"another energy grid: 751 energies from -13 eV"):
        networks_beside(model, EnergyGrid(-12.0, 0.05, 751))
    assert networks_beside(tmp_path / "other.pt", grid) == {}


def test_model_that_is_gone_has_no_networks_but_a_bad_network_is_an_error(tmp_path: Path) -> None:
    """Whatever the name of its folder."""
    torch.manual_seed(4)
    other = EnergyGrid(-12.0, 0.05, 751)
    model = tmp_path / "no such file" / "mine.pt"
    model.parent.mkdir()
    Network(DOSNetwork(other.n), other, "gap", model=FINGERPRINT).save(network_path(model, "gap"))
    assert find_networks(model, None, readout()) == {}  # type: ignore[arg-type]
    model.touch()
    with pytest.raises(ModelError, match="another energy grid"):
        find_networks(model, None, readout())  # type: ignore[arg-type]


def test_belongs_to_one_model(tmp_path: Path) -> None:
    torch.manual_seed(5)
    network = Network(DOSNetwork(GRID.n), GRID, "gap", "gap.pt", model="0" * 64)
    with pytest.raises(ModelError, match="trained on predictions of another model"):
        check_network(network, readout(), "gap")
    # A model that differs in its ensemble only has the same mean, which is what a network reads.
    heir = Readout.from_arrays(GRID, np.zeros((GRID.n, 5)), None, FINGERPRINT)
    heir.ancestors = ("0" * 64,)
    assert check_network(network, heir, "gap") is network
    assert find_networks(readout(), None, readout()) == {}  # type: ignore[arg-type]


class Harmful:
    def __reduce__(self):
        return print, ("code of a stranger ran",)


def test_bad_files(published: tuple[CNNModel, Path], tmp_path: Path, capsys) -> None:
    _, path = published
    with pytest.raises(ModelError, match="no such network"):
        Network.load(tmp_path / "none.pt", GRID)
    with pytest.raises(ModelError, match="another energy grid: its first dense layer has 1024 inputs, a grid of 751"):
        Network.load(path, EnergyGrid(0, 0.05, 751))
    with pytest.raises(ModelError, match="does not give its energies"):
        Network.load(path)
    with pytest.raises(ModelError, match="does not say what it predicts"):
        torch.save(torch.load(path, weights_only=True), tmp_path / "x.pt")
        Network.load(tmp_path / "x.pt", PET_MAD_GRID)
    (tmp_path / "fermi-harmful.pt").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ModelError, match=r"not a (plain state dict|readable network)"):
        Network.load(tmp_path / "fermi-harmful.pt", GRID)
    torch.save({"a": Harmful()}, tmp_path / "fermi-zip.pt")
    with pytest.raises(ModelError, match="only tensors are read"):
        Network.load(tmp_path / "fermi-zip.pt", GRID)
    assert "stranger" not in capsys.readouterr().out
    (tmp_path / "fermi-cut.pt").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="not a"):
        Network.load(tmp_path / "fermi-cut.pt", GRID)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "fermi-other.pt")
    with pytest.raises(ModelError, match="expected the parameters conv1"):
        Network.load(tmp_path / "fermi-other.pt", GRID)
    state = torch.load(path, weights_only=True)
    state["conv2.weight"] = torch.zeros(64, 64, 15)
    torch.save(state, tmp_path / "fermi-shape.pt")
    with pytest.raises(ModelError, match=r"conv2.weight has the shape \(64, 64, 15\), expected \(64, 64, 16\)"):
        Network.load(tmp_path / "fermi-shape.pt", PET_MAD_GRID)
    save_file({"a": torch.zeros(1)}, str(tmp_path / "a.safetensors"), metadata={"format": "else"})
    with pytest.raises(ModelError, match="format is 'else'"):
        Network.load(tmp_path / "a.safetensors", GRID)
    network = Network.load(path, PET_MAD_GRID)
    with pytest.raises(ModelError, match=r"is for a grid of 4806 energies, got a DOS of shape \(2, 481\)"):
        network(np.zeros((2, 481)), 8)
