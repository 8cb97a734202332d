"""Checkpoints with raw and averaged weights, in the forms that authors save them."""

from pathlib import Path

import numpy as np
import pytest

from jgen.convert import load_weights
from jgen.convert.weight_sets import choose, weight_sets
from jgen.errors import UserError
from tests.convert.test_hostile import items, number, tensor, torch_file

PATH = Path("x.pt")
RAW = {"module.sigmas": np.ones(5), "module.conv.weight": np.zeros((2, 3)), "module.conv.bias": np.zeros(2)}
AVERAGE = {"conv.weight": np.ones((2, 3)), "conv.bias": np.ones(2)}


def test_the_only_set_needs_no_choice():
    for content in (RAW, {"state_dict": RAW, "epoch": 3}, {"model": RAW, "optimizer": {"state": {}, "param_groups": []}}):
        assert choose(weight_sets(content), "", PATH) == RAW


def test_several_sets_are_an_error_that_lists_them():
    sets = weight_sets({"model": RAW, "ema": AVERAGE, "step": 3})
    with pytest.raises(UserError, match=r"holds several sets of weights \(model, ema\); choose one, such as weights='ema'"):
        choose(sets, "", PATH)
    assert choose(sets, "ema", PATH) == AVERAGE
    with pytest.raises(UserError, match="weights=emma: x.pt has none of this name .did you mean ema"):
        choose(sets, "emma", PATH)


def test_tensors_beside_a_state_dict_belong_to_it():
    """As pSp's latent_avg and rosinality's StyleGAN2's; a counter does not."""
    average = np.arange(4.0)
    assert choose(weight_sets({"state_dict": RAW, "latent_avg": average, "opts": {"a": 1}}), "", PATH) == RAW | {
        "latent_avg": average
    }
    sets = weight_sets({"g": RAW, "g_ema": AVERAGE, "latent_avg": average, "step": np.array(3)})
    assert {name: set(part) for name, part in sets.items()} == {
        "g": {*RAW, "latent_avg"}, "g_ema": {*AVERAGE, "latent_avg"},
    }  # fmt: skip
    with pytest.raises(UserError, match="module.sigmas: beside state_dict and in it"):
        weight_sets({"state_dict": RAW, "module.sigmas": np.ones(5)})


def test_lists_of_ncsn():
    """[weights, optimizer, epoch, step], and in version 2 the average."""
    optimizer = {"state": {0: {"exp_avg": np.ones(2)}}, "param_groups": []}
    assert set(weight_sets([RAW, optimizer, 3, 1000])) == {"model"}
    assert choose(weight_sets([RAW, optimizer, 3, 1000, AVERAGE]), "ema", PATH) == AVERAGE


def test_shadow_params_of_score_sde_take_the_names_of_the_weights():
    shadow = [np.full((2, 3), 7.0), np.full(2, 8.0)]
    content = {"model": RAW, "ema": {"decay": 0.999, "num_updates": 3, "shadow_params": shadow}, "step": 3}
    found = choose(weight_sets(content), "ema", PATH)
    np.testing.assert_array_equal(found["module.conv.weight"], shadow[0])
    np.testing.assert_array_equal(found["module.conv.bias"], shadow[1])
    np.testing.assert_array_equal(found["module.sigmas"], RAW["module.sigmas"])  # a buffer, which has no average
    with pytest.raises(UserError, match="an average of 1 tensors does not fit"):
        weight_sets({"model": RAW, "ema": {"shadow_params": [np.ones(9)]}})


def test_the_average_that_latent_diffusion_keeps_among_its_weights():
    weights = {
        "model.diffusion_model.out.0.weight": np.zeros(3),
        "first_stage_model.x": np.ones(1),
        "model_ema.decay": np.ones(()),
        "model_ema.diffusion_modelout0weight": np.full(3, 2.0),
    }
    sets = weight_sets({"state_dict": weights, "global_step": 1})
    assert set(sets) == {"model", "ema"}
    assert set(sets["model"]) == set(sets["ema"]) == {"model.diffusion_model.out.0.weight", "first_stage_model.x"}
    np.testing.assert_array_equal(sets["ema"]["model.diffusion_model.out.0.weight"], 2.0)


def test_a_file_with_both(tmp_path):
    body = items(("model", items(("w", tensor()))), ("ema", items(("w", tensor(offset=0, size=(3, 2), stride=(2, 1))))))
    path = torch_file(tmp_path / "x.pt", body)
    with pytest.raises(UserError, match="holds several sets of weights"):
        load_weights(path)
    assert load_weights(path, weights="ema")["w"].shape == (3, 2)
    as_list = b"](" + items(("w", tensor())) + b"}" + number(3) + number(7) + items(("w", tensor())) + b"e"
    assert set(load_weights(torch_file(tmp_path / "y.pth", as_list), weights="model")) == {"w"}
