"""Weight files: read without running code from them, refused with a name."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.convert import adm, load_weights
from jgen.errors import UserError
from jgen.models.unet import UNet
from tests.pickles import Call, Storage, fake_torch_file, rebuild

WEIGHTS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1.5, 2.5], np.float32)}


def same(found):
    assert set(found) == set(WEIGHTS)
    for name in WEIGHTS:
        np.testing.assert_array_equal(found[name], WEIGHTS[name])


def test_npz_and_safetensors(tmp_path):
    from safetensors.numpy import save_file

    np.savez(tmp_path / "x.npz", **WEIGHTS)
    same(load_weights(tmp_path / "x.npz"))
    np.savez(tmp_path / "y.npz", other=np.zeros(1), **{f"w/{k}": v for k, v in WEIGHTS.items()})
    same(load_weights(tmp_path / "y.npz"))
    save_file(WEIGHTS, tmp_path / "x.safetensors")
    same(load_weights(tmp_path / "x.safetensors"))


def test_names_of_a_network_on_several_cards_lose_what_torch_put_before_them(tmp_path):
    np.savez(tmp_path / "x.npz", **{f"module.{name}": array for name, array in WEIGHTS.items()})
    same(load_weights(tmp_path / "x.npz"))
    np.savez(tmp_path / "y.npz", **{"module.a": np.zeros(1), "b": np.zeros(1)})
    assert set(load_weights(tmp_path / "y.npz")) == {"module.a", "b"}


def tensors():
    a = Call(rebuild, Storage("0", 6), 0, (2, 3), (3, 1), False, {})
    b = Call(rebuild, Storage("1", 4), 1, (2,), (2,), False, {})  # offset 1, stride 2
    stored = {"0": WEIGHTS["a.weight"], "1": np.array([0, 1.5, 0, 2.5], np.float32)}
    return {"a.weight": a, "b": b}, stored


def test_torch_files(tmp_path):
    content, stored = tensors()
    fake_torch_file(tmp_path / "x.pt", content, stored)
    same(load_weights(tmp_path / "x.pt"))
    fake_torch_file(tmp_path / "y.pth", {"state_dict": content, "epoch": 3, "args": argparse.Namespace(seed=1)}, stored)
    same(load_weights(tmp_path / "y.pth"))


def test_real_torch_files(tmp_path):
    torch = pytest.importorskip("torch", reason="needs the extra 'oracle'")
    state = {k: torch.tensor(v) for k, v in WEIGHTS.items()}
    state["b"] = torch.tensor([[1.5, 9.0], [2.5, 9.0]])[:, 0]
    torch.save(state, tmp_path / "x.pt")
    same(load_weights(tmp_path / "x.pt"))
    torch.save({"h": torch.ones(3, dtype=torch.bfloat16), "l": torch.arange(3)}, tmp_path / "y.pt")
    found = load_weights(tmp_path / "y.pt")
    assert found["h"].astype(np.float32).tolist() == [1, 1, 1]
    assert found["l"].tolist() == [0, 1, 2]


def test_a_file_that_would_run_code_is_refused_by_name(tmp_path):
    import os

    witness = tmp_path / "ran"
    fake_torch_file(tmp_path / "evil.pt", {"a": Call(os.system, f"touch {witness}")}, {})
    with pytest.raises(ValueError, match=r"refused, the file asks to load (posix|os|nt).system"):
        load_weights(tmp_path / "evil.pt")
    assert not witness.exists()
    np.savez(tmp_path / "evil.npz", a=np.array([Call(os.system, f"touch {witness}")], dtype=object))
    with pytest.raises(ValueError, match="a holds object, which are no plain numbers"):
        load_weights(tmp_path / "evil.npz")
    assert not witness.exists()


def test_a_tensor_that_reaches_outside_its_storage_is_refused(tmp_path):
    content = {"a": Call(rebuild, Storage("0", 6), 4, (2, 3), (3, 1), False, {})}
    fake_torch_file(tmp_path / "x.pt", content, {"0": WEIGHTS["a.weight"]})
    with pytest.raises(ValueError, match="outside of its storage"):
        load_weights(tmp_path / "x.pt")


def test_missing_damaged_and_foreign_files(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        load_weights(tmp_path / "none.npz")
    for name in ("x.npz", "x.safetensors", "x.pt"):
        (tmp_path / name).write_bytes(b"not at all")
        with pytest.raises(ValueError, match="x"):
            load_weights(tmp_path / name)
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(ValueError, match="weights must be one of .npz"):
        load_weights(tmp_path / "x.txt")


def test_arguments_of_published_configs():
    """Those that change no number here are taken, fractions of the width too (ADM at 512x512), and others refused."""
    config = dict(in_channels=3, model_channels=64, out_channels=3, num_res_blocks=1, attention_resolutions=())
    fields = adm._fields(**config, channel_mult=(0.5, 1), use_checkpoint=True, use_fp16=True, dims=2)
    net = UNet(**fields)
    params = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)), jnp.zeros(1))["params"]
    assert params["input_blocks_0_0"]["kernel"].shape[-1] == 32
    assert params["middle_block_0"]["in_layers_2"]["kernel"].shape[-1] == 64
    with pytest.raises(UserError, match="dims=3: must be 2 here"):
        adm._fields(**config, dims=3)
    with pytest.raises(UserError, match="use_chekpoint: no argument"):
        adm._fields(**config, use_chekpoint=True)
