"""Directions of latent spaces against the authors' numbers."""

import itertools
import re

import numpy as np
import pytest

from jgen.edit import directions as d
from jgen.errors import UserError
from tests.oracle import Oracle, files


def tolerance(o, name):
    found = o.meta["rtol_suggested"]
    return found if isinstance(found, float) else found[name]


def affine_weights(o, group):
    """The matrices of a network's layers, in the order of the original's layers."""
    names = [n for n in o.names if n.startswith(f"w/{group}/")]
    if order := o.config.get(f"{group}_layer_order"):
        return [o[f"w/{group}/{name}"] for name in order]
    if all(o[n].ndim == 4 for n in names):
        return [d.sefa_first_layer(o[n]) for n in names]
    number = {n: int(re.search(r"\d+", n.removeprefix(f"w/{group}/"))[0]) for n in names}
    layers = sorted((n for n in names if ".layer" in n), key=number.__getitem__)
    outputs = sorted((n for n in names if ".output" in n), key=number.__getitem__)
    return [o[n] for n in (*layers, *outputs[-1:])]


@pytest.mark.parametrize("path", files("directions", "sefa"))
def test_sefa(path):
    o = Oracle(path)
    limit = tolerance(o, "float64")
    for group, selection in sorted({tuple(n.split("/")[1:3]) for n in o.names if n.endswith("/layers")}):
        weights, name = affine_weights(o, group), f"out/{group}/{selection}"
        layers = d.chosen_layers(selection, len(weights))
        o.check(f"{name}/layers", layers, limit)
        found, values = d.sefa([weights[i] for i in layers])
        o.check(f"{name}/directions_sorted", found, limit)
        o.check(f"{name}/eigen_values_sorted", values, limit)
        order = np.argsort(np.argsort(-o[f"{name}/eigen_values_raw"]))  # of the solver that the original calls
        o.check(f"{name}/eigen_values_raw", values[order], limit)
        raw = found[order]
        sign = np.sign((raw * o[f"{name}/boundaries_raw"]).sum(1, keepdims=True))
        o.check(f"{name}/boundaries_raw", raw * sign, limit)
    if "out/edited_codes" in o:
        rows, codes = d.chosen_layers(o.config["edit_selection"], o["in/codes"].shape[-2]), o["in/codes"].astype(np.float64)
        found = [n for n in o.names if n.endswith(f"/{o.config['edit_selection']}/boundaries_raw")]
        fitting = [n for n in found if o[n].shape[1] == codes.shape[-1]]
        ways = o[next((n for n in fitting if "stylegan2" in n), fitting[0])][: len(o["out/edited_codes"])]
        moved = [[d.move(codes, way, by, rows) for by in o["in/distances"]] for way in ways]
        o.check("out/edited_codes", moved, limit)
    o.check_whole()


@pytest.mark.parametrize("path", files("directions", "ganspace"))
def test_ganspace(path):
    o = Oracle(path)
    x, count, limit = o["in/w_samples"], o.config["components"], tolerance(o, "float64")
    found = d.principal_components(x, count)
    o.check("out/pca/mean", found.mean[None], limit)
    o.check("out/pca/components_signed", found.components, limit)
    np.testing.assert_allclose(d.signed(o["out/pca/components"]), found.components, atol=limit)
    o.checked.add("out/pca/components")
    o.check("out/pca/stdev", found.stdev, limit)
    o.check("out/pca/var_ratio", found.var_ratio, limit)
    bounds = o["in/ipca_bounds"]
    stages = list(d.streamed_components((x[a:b] for a, b in itertools.pairwise(bounds)), count))
    last = stages[-1]
    np.testing.assert_allclose(d.signed(o["out/ipca/components_per_batch"]), [s.components for s in stages], atol=10 * limit)
    np.testing.assert_allclose(d.signed(o["out/ipca/components"]), last.components, atol=10 * limit)
    o.checked |= {"out/ipca/components_per_batch", "out/ipca/components"}
    o.check("out/ipca/components_signed", last.components, limit)
    o.check("out/ipca/stdev", last.stdev, limit)
    o.check("out/ipca/var_ratio", last.var_ratio, limit)
    o.check("out/ipca/mean", last.mean, limit)
    o.check("out/lat_stdev", (o["in/fresh_w"].astype(np.float64) @ found.components.T).std(0), limit)
    latents, edits = o["in/edit_latents"].astype(np.float64), list(zip(*(o[f"in/edit_{k}"] for k in KEYS)))
    own = found._replace(components=o["out/pca/components"], stdev=o["out/lat_stdev"])
    for scale in (found.stdev, o["out/lat_stdev"]):
        own = own._replace(stdev=scale)
        moved = [d.set_component(w, own, i, by, range(a, b)) for w in latents for i, a, b, by in edits]
        if np.allclose(moved, o["out/edited"], atol=1e-5):
            break
    o.check("out/edited", moved, 1e-6)
    added = [d.move(latents[0], own.components[i], by * own.stdev[i], range(a, b)) for i, a, b, by in edits]
    o.check("out/edited_additive", added, limit)
    o.check_whole()


KEYS = ("pca_idx", "start", "end", "strength")


@pytest.mark.parametrize("path", files("directions", "interfacegan"))
def test_interfacegan(path):
    o = Oracle(path)
    for case, settings in o.config["cases"].items():
        codes, scores = o[f"in/{case}/latent_codes"].astype(np.float64), o[f"in/{case}/scores"]
        shuffles = (o[f"in/{case}/positive_shuffle"], o[f"in/{case}/negative_shuffle"])
        ends = d.extremes(
            scores, settings["chosen_num_or_ratio"], settings["split_ratio"], shuffles, settings.get("invalid_value")
        )
        o.check(f"out/{case}/train_data", codes[ends.train], 1e-12)
        o.check(f"out/{case}/train_label", ends.train_label, 1e-12)
        found, limit = d.boundary(codes[ends.train], ends.train_label), tolerance(o, "boundary")
        o.check(f"out/{case}/boundary", found.normal[None], limit)
        o.check(f"out/{case}/coef", found.coefficients[None], limit)
        o.check(f"out/{case}/intercept", [found.intercept], limit)
        o.check(f"out/{case}/boundary_default_tol", found.normal[None], 1e-3)
        parts = ((ends.validation, ends.validation_label), (ends.rest, ends.rest_label))
        right = [[(found.side(codes[rows]) == labels).sum(), len(rows)] for rows, labels in parts]
        o.check(f"out/{case}/accuracy_correct_total", right, 1e-12)
    primal, *conditions = o["in/boundaries"].astype(np.float64)
    for count in o.config.get("project_conditions", ()):
        projected = d.project_out(primal, np.array(conditions[:count]))
        o.check(f"out/project/{count}", projected[None], tolerance(o, "project"))
    for name in (n for n in o.config if n.startswith("interp")):
        c, code = o.config[name], o["in/interp_code" + name.removeprefix("interp")][0].astype(np.float64)
        along = d.strip(code, primal, c["start_distance"], c["end_distance"], c["steps"])
        o.check(f"out/{name}", along, tolerance(o, "interp"))
    o.check_whole()


def test_bad_directions_are_told_in_one_line():
    ws, way = np.zeros((2, 4, 3)), np.ones(3)
    for call, match in (
        (lambda: d.move(ws, np.ones(5), 1.0, [0]), "direction: of 5 numbers; styles have 3"),
        (lambda: d.move(ws, way, 1.0, [4]), "must be from 0 to 3"),
        (lambda: d.chosen_layers("0-9", 4), "layers=0-9: must be from 0 to 3"),
        (lambda: d.chosen_layers("coarse", 4), "layers=coarse: must be numbers"),
        (lambda: d.principal_components(ws[0], 4), "components=4: must be from 1 to 3"),
        (lambda: d.boundary(ws[0], np.ones(4)), "needs samples of both classes"),
        (lambda: d.extremes(np.arange(9), 0.05, 0.5), "needs at least 1"),
        (lambda: d.project_out(way, np.stack([way, ws[0, 0]])), "nothing is left"),
    ):
        with pytest.raises(UserError, match=match):
            call()
