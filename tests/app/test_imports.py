"""Published weights as runs: the images are those of the authors' code, and the commands for pictures take them."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jgen
from experiments import ddpm, inversion, stylegan, stylegan2, stylegan3, stylegan_xl
from jgen import convert
from jgen.app.imports import import_weights
from jgen.config import DataConfig
from jgen.errors import UserError
from jgen.recipes.gan.published import Published
from tests.convert.test_stylegan2_pytorch import GENERATORS, published_generator
from tests.oracle import Oracle, files
from tests.pickles import nvidia_file, torch_file

NOT_OF_A_NETWORK = (
    "num_ws", "truncation_psi", "truncation_cutoff", "ws_psi_cutoff", "style_mixing_cutoff", "intermediates_first_n_samples",
)  # fmt: skip
"""What an oracle's config holds beside the arguments of a constructor."""


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def command(module, *words):
    auto = getattr(module, "auto", None)
    published = getattr(module, "published", None)
    jgen.main(module.Config, module.build, module.PRESETS, list(map(str, words)), auto, published)


def arguments(o):
    return {name: value for name, value in o.config.items() if name not in NOT_OF_A_NETWORK}


def shown(run, o, ws):
    """Images of ws by the run's space; the network is as large as its images, so that nothing is cropped."""
    return jax.jit(run.stage.space.synthesize)(run.params, run.extra, jnp.asarray(o[ws]))


def refused(capsys, module, *words):
    with pytest.raises(SystemExit) as stopped:
        command(module, *words)
    assert stopped.value.code == 2
    return capsys.readouterr().err.strip()


def imported(capsys, module, file):
    """The run of a file; None where its network is refused, and then by an argument that the experiment has no setting for."""
    name = module.__name__.split(".")[-1]
    try:
        command(module, "import", "--file", file, "--name", "x")
    except SystemExit:
        assert re.match(r"error: \w+=.*: a run has ", capsys.readouterr().err)
        assert not Path(f"runs/{name}/x").exists()
        return None
    assert f"runs/{name}/x: " in capsys.readouterr().out
    return jgen.load(f"runs/{name}/x")


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("path", files("stylegan2", "generator"))
def test_a_pickle_of_stylegan2_is_a_run(path, tmp_path, capsys):
    o = Oracle(path)
    nvidia_file(tmp_path / "x.pkl", {"G": ({}, {"x": np.ones(1)}), "G_ema": (arguments(o), o.weights())})
    run = imported(capsys, stylegan2, "x.pkl")
    if run is not None:
        o.check("out/img_none", np.moveaxis(np.asarray(shown(run, o, "out/ws")), -1, 1))
        np.testing.assert_array_equal(run.extra["w_avg"], o["w/mapping.w_avg"])
        assert np.isfinite(run.sample(2)).all()
        said = refused(capsys, stylegan2, "import", "--file", "x.pkl")
        assert said.startswith("error: name=x: runs/stylegan2/x holds a run")


def discriminator_weights(side, width, seed=0):
    """StyleGAN2's residual discriminator of colour images in the authors' names."""
    rng = np.random.default_rng(seed)
    shapes = {f"b{side}.fromrgb.weight": (width, 3, 1, 1), f"b{side}.fromrgb.bias": (width,)}
    for level in range(3, side.bit_length()):
        block = f"b{1 << level}"
        shapes |= {f"{block}.{conv}.weight": (width, width, 3, 3) for conv in ("conv0", "conv1")}
        shapes |= {f"{block}.{conv}.bias": (width,) for conv in ("conv0", "conv1")}
        shapes[f"{block}.skip.weight"] = (width, width, 1, 1)
    shapes |= {"b4.conv.weight": (width, width + 1, 3, 3), "b4.conv.bias": (width,), "b4.fc.weight": (width, 16 * width)}
    shapes |= {"b4.fc.bias": (width,), "b4.out.weight": (1, width), "b4.out.bias": (1,)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


@pytest.mark.slow
@pytest.mark.parametrize("clamp, comes", [(None, True), (256, False)])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_discriminator_comes_with_its_generator_or_is_left_out_by_name(clamp, comes, legacy, tmp_path, capsys):
    """legacy: with the arguments that NVIDIA's conversions of TensorFlow's networks name though they change nothing."""
    sizes = {"img_resolution": 8, "img_channels": 3}
    own = {"channel_base": 32, "channel_max": 4}
    g = {**sizes, "z_dim": 8, "w_dim": 8, "mapping_kwargs": {"num_layers": 2}, "synthesis_kwargs": own}
    weights = discriminator_weights(8, 4)
    d = {**sizes, **own, "conv_clamp": clamp, "epilogue_kwargs": {"mbstd_group_size": 2}}
    if legacy:
        same = {"activation": "lrelu", "resample_filter": [1, 3, 3, 1]}
        g["mapping_kwargs"] |= {"embed_features": 16, "layer_features": 8, "activation": "lrelu", "w_avg_beta": 0.995}
        g["synthesis_kwargs"] |= {"num_fp16_res": 0, "conv_clamp": None, "architecture": "skip", "use_noise": True, **same}
        d |= {"c_dim": 0, "cmap_dim": 8, "mapping_kwargs": {"num_layers": 0, "embed_features": 8, "lr_multiplier": 0.1}}
        d |= {"block_kwargs": {**same, "freeze_layers": 0}, "architecture": "resnet", "num_fp16_res": 0}
    nvidia_file(tmp_path / "x.pkl", {"G_ema": (g, random_weights(8, 4, 8)), "D": (d, weights)})
    command(stylegan2, "import", "--file", "x.pkl")
    said, run = capsys.readouterr().out, jgen.load("runs/stylegan2/x")
    assert ("its discriminator is left out, and a run's is fresh (conv_clamp=256" in said) != comes
    kernel = np.asarray(run.params["d"]["b8"]["conv0"]["kernel"])
    assert np.array_equal(kernel, weights["b8.conv0.weight"].transpose(2, 3, 1, 0).astype(np.float32)) == comes
    assert (run.config.architecture.group == 2) == comes


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("path", files("stylegan3", "generator"))
def test_a_pickle_of_stylegan3_is_a_run(path, tmp_path, capsys):
    o = Oracle(path)
    nvidia_file(tmp_path / "x.pkl", {"G_ema": (arguments(o), o.weights())})
    run = imported(capsys, stylegan3, "x.pkl")
    if run is not None:
        o.check("out/img", np.moveaxis(np.asarray(shown(run, o, "out/ws")), -1, 1))
    assert refused(capsys, stylegan2, "import", "--file", "x.pkl").endswith("import it by experiments.stylegan3")


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("path", files("styleganxl", "generator"))
def test_a_pickle_of_stylegan_xl_is_a_run_of_its_stages(path, tmp_path, capsys):
    """With embeddings of 320 columns, as published ones have: the file's, the others of no weight."""
    o = Oracle(path)
    own = o.config.get("stem", arguments(o))
    weights, width = o.weights(), o["w/mapping.embed.weight"].shape[1]
    padded = ((0, 0), (0, 320 - width))
    weights["mapping.embed.weight"] = np.pad(weights["mapping.embed.weight"], padded)
    weights["mapping.embed_proj.weight"] = np.pad(weights["mapping.embed_proj.weight"], padded) * (320 / width) ** 0.5
    mapping = {name: own[name] for name in ("z_dim", "c_dim", "w_dim")} | {"num_ws": 9} | own["mapping_kwargs"]
    synthesis = {k: v for k, v in own.items() if k not in ("z_dim", "c_dim", "mapping_kwargs", "embedding_dim")}
    steps = o.config.get("growth", [o.config["superres"]] if "superres" in o.config else [])
    options = {**steps[-1], "path_stem": "stem.pkl"} if steps else {"img_resolution": own["img_resolution"]}
    nvidia_file(tmp_path / "x.pkl", {"G_ema": (options, weights, {"mapping": mapping, "synthesis": synthesis})})
    run = imported(capsys, stylegan_xl, "x.pkl")
    if run is None:
        return
    o.check("out/img", np.moveaxis(np.asarray(shown(run, o, "out/ws")), -1, 1))
    space, labels = run.stage.space, o["in/c"].argmax(1) if "in/c" in o else [-1] * len(o["in/z"])
    keys = jax.random.split(jax.random.key(0), 1)
    styles = jax.jit(lambda z, label: space.styles(run.params, run.extra, keys, label, z), static_argnums=1)
    ws = [styles(jnp.asarray(z)[None], int(label))[0] for z, label in zip(o["in/z"], labels)]
    o.check("out/ws", np.stack(ws))
    assert np.isfinite(run.sample(2)).all()


def stylegan_weights(side, width, w_dim, classes, seed=0):
    """StyleGAN's generator in genforce's names."""
    rng, shapes = np.random.default_rng(seed), {"truncation.w_avg": (w_dim,)}
    shapes |= {"mapping.label_weight": (classes, w_dim)} if classes else {}
    for i in range(2):
        inputs = w_dim * (2 if classes and not i else 1)
        shapes |= {f"mapping.dense{i}.weight": (w_dim, inputs), f"mapping.dense{i}.bias": (w_dim,)}
    for i in range(2 * (side.bit_length() - 2)):
        layer = f"synthesis.layer{i}"
        shapes[f"{layer}.weight" if i else f"{layer}.const"] = (width, width, 3, 3) if i else (1, width, 4, 4)
        shapes |= {f"{layer}.bias": (width,), f"{layer}.apply_noise.weight": (width,)}
        shapes |= {f"{layer}.style.weight": (2 * width, w_dim), f"{layer}.style.bias": (2 * width,)}
        if i % 2:
            shapes |= {f"synthesis.output{i // 2}.weight": (3, width, 1, 1), f"synthesis.output{i // 2}.bias": (3,)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


@pytest.mark.slow
@pytest.mark.parametrize("classes", [0, 3])
def test_a_file_of_stylegan_is_a_run_of_the_weights_sizes(classes, tmp_path, capsys):
    weights = stylegan_weights(16, 6, 8, classes)
    torch_file(tmp_path / "x.pth", {"generator": weights, "generator_smooth": weights, "discriminator": {"a": np.ones(1)}})
    run = imported(capsys, stylegan, "x.pth")
    assert run.stage.data.shape == (16, 16, 3)
    assert run.stage.data.num_classes == classes
    images = run.sample(2)
    net, found = convert.stylegan1.generator(
        weights, resolution=16, z_space_dim=8, w_space_dim=8, label_size=classes, mapping_layers=2, mapping_fmaps=8,
        fmaps_base=96, fmaps_max=6,
    )  # fmt: skip
    ws = jax.random.normal(jax.random.key(0), (2, net.num_ws, 8))
    want = net.apply({"params": found["params"]}, ws, method="synthesize")
    np.testing.assert_allclose(jax.jit(run.stage.space.synthesize)(run.params, run.extra, ws), want, 1e-4, 1e-5)
    assert images.shape == (2, 16, 16, 3)


@pytest.mark.oracle
@pytest.mark.parametrize("path", files("stylegan1", "generator"))
def test_a_file_of_stylegan_whose_mapping_has_other_widths_is_refused(path, tmp_path, capsys):
    o = Oracle(path)
    torch_file(tmp_path / "x.pth", {"generator_smooth": o.weights()})
    run = imported(capsys, stylegan, "x.pth")
    assert (run is None) == (o.config["mapping_fmaps"] != o.config["w_space_dim"])


def random_weights(side, width, w_dim, seed=0):
    """A generator of StyleGAN2 in the authors' names."""
    rng, found = np.random.default_rng(seed), {"mapping.w_avg": np.zeros(w_dim)}

    def add(**shapes):
        found.update({name.replace("__", "."): rng.normal(0, 0.3, shape) for name, shape in shapes.items()})

    for i in range(2):
        add(**{f"mapping.fc{i}.weight": (w_dim, w_dim), f"mapping.fc{i}.bias": (w_dim,)})
    add(**{"synthesis.b4.const": (width, 4, 4)})
    for level in range(2, side.bit_length()):
        block = f"synthesis.b{1 << level}"
        for layer in ("conv0", "conv1", "torgb") if level > 2 else ("conv1", "torgb"):
            kernel = (3, width, 1, 1) if layer == "torgb" else (width, width, 3, 3)
            add(**{f"{block}.{layer}.weight": kernel, f"{block}.{layer}.bias": kernel[:1]})
            add(**{f"{block}.{layer}.affine.weight": (width, w_dim), f"{block}.{layer}.affine.bias": (width,)})
            if layer != "torgb":
                add(**{f"{block}.{layer}.noise_strength": (), f"{block}.{layer}.noise_const": (1 << level, 1 << level)})
    return found


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("path", files("inversion", "psp_encoder_irse"))
def test_a_file_of_an_encoder_is_a_run_whose_commands_edit_pictures(path, tmp_path, capsys):
    o = Oracle(path)
    w_dim, side = o["out/eval/latents"].shape[-1], 2 ** (o.config["n_styles"] // 2 + 1)
    generator = published_generator(random_weights(side, 16, w_dim))
    mean = np.linspace(-1, 1, w_dim)
    state = {f"encoder.{k}": v for k, v in o.weights().items()} | {f"decoder.{k}": v for k, v in generator.items()}
    for encoder in ("GradualStyleEncoder", "Encoder4Editing", "Other"):
        content = {
            "state_dict": state,
            "latent_avg": np.tile(mean, (o.config["n_styles"], 1)),
            "opts": {"encoder_type": encoder},
        }
        torch_file(tmp_path / f"{encoder}.pt", content)
    command(inversion, "import", "--file", "GradualStyleEncoder.pt", "--name", "psp")
    command(inversion, "import", "--file", "Encoder4Editing.pt", "--name", "e4e")
    images = np.moveaxis(o["in/x_u8"], 1, -1) / 127.5 - 1
    runs = [jgen.load(f"runs/inversion/{name}") for name in ("psp", "e4e")]
    rows, codes = (jax.jit(run.stage.space.encode)(run.params, run.extra, images) - mean[None, None] for run in runs)
    o.check("out/eval/latents", rows)
    np.testing.assert_allclose(codes, rows[:, :1] + rows.at[:, 0].set(0), 1e-4, 1e-5)  # e4e's are deltas
    Image.fromarray(o["in/x_u8"][0].transpose(1, 2, 0)).save(tmp_path / "a.png")
    command(inversion, "invert", "--run", "runs/inversion/psp", "--image", tmp_path / "a.png", "--out", tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width >= 2 * side
    assert "must be GradualStyleEncoder or Encoder4Editing" in refused(capsys, inversion, "import", "--file", "Other.pt")


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("path", GENERATORS)
def test_rosinalitys_file_is_a_run(path, tmp_path, capsys):
    o = Oracle(path)
    content = {"g_ema": published_generator(o.weights()), "latent_avg": o["w/mapping.w_avg"]}
    torch_file(tmp_path / "x.pt", {**content, "g": content["g_ema"]})
    command(stylegan2, "import", "--file", "x.pt")
    o.check("out/img_none", np.moveaxis(np.asarray(shown(jgen.load("runs/stylegan2/x"), o, "out/ws")), -1, 1))
    torch_file(tmp_path / "y.pt", {"g_ema": content["g_ema"]})
    assert "has no latent_avg" in refused(capsys, stylegan2, "import", "--file", "y.pt")


@pytest.mark.parametrize(
    "module, words, message",
    [
        (
            ddpm,
            [],
            "import: experiments.ddpm has no such command; stylegan, stylegan2, stylegan3, stylegan_xl and",
        ),
        (stylegan2, [], "file: is needed"),
        (stylegan2, ["--file", "none.pkl"], "file=none.pkl: no such file"),
        (stylegan2, ["--file", "bad.pkl"], "bad.pkl: "),
        (stylegan3, ["--file", "empty.pkl"], "empty.pkl: "),
        (inversion, ["--file", "bad.pkl"], "bad.pkl: "),
        (stylegan, ["--file", "bad.pkl"], "bad.pkl: "),
    ],
)
def test_what_is_no_such_file_is_refused_in_one_line_and_leaves_no_run(module, words, message, tmp_path, capsys):
    (tmp_path / "bad.pkl").write_bytes(b"\x80\x04nonsense")
    nvidia_file(tmp_path / "empty.pkl", {})
    said = refused(capsys, module, "import", *words)
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 0
    assert not (tmp_path / "runs").exists()


def test_a_network_that_no_settings_lead_to_is_refused_by_its_argument(tmp_path, capsys):
    options = {"z_dim": 8, "w_dim": 8, "img_resolution": 8, "mapping_kwargs": {"num_layers": 2, "activation": "relu"}}
    options["synthesis_kwargs"] = {"channel_base": 32, "channel_max": 4}
    nvidia_file(tmp_path / "x.pkl", {"G_ema": (options, random_weights(8, 4, 8))})
    assert "mapping_activation=relu: a run has lrelu" in refused(capsys, stylegan2, "import", "--file", "x.pkl")


def test_what_does_not_fit_leaves_nothing_of_a_run(tmp_path):
    data = DataConfig("folder:x", 4, 8, shape=(8, 8, 3))
    unlike = Published("experiments.stylegan2", {"data": data}, {"g": {"mapping": jnp.zeros(3)}}, {})
    with pytest.raises(UserError, match="weights/g/mapping: of another shape than by these settings"):
        import_weights(unlike, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "photo.png").write_bytes(b"")
    with pytest.raises(UserError, match="held: holds files; choose another name"):
        import_weights(unlike, tmp_path / "held")
    assert (tmp_path / "held" / "photo.png").exists()
