"""Weights of CLIP: of the authors (openai/CLIP) or of Hugging Face's CLIPModel -> `jgen.models.clip`.

The authors' own files (ViT-B-32.pt) are TorchScript programs: their weights are read, their code is not run. A state dict saved
as .pt or .safetensors and Hugging Face's files are read too. Sizes follow the weights.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen.convert.common import Path, fill, param_shapes, to_linen
from jgen.convert.options import ANY, check_options
from jgen.errors import UserError
from jgen.models.clip import CLIP, Activation, TextTransformer, VisionTransformer

Weights = Mapping[str, np.ndarray]
BLOCK = {
    "attn.in_proj_weight": ("attn_in", "weight"), "attn.in_proj_bias": ("attn_in", "bias"),
    "attn.out_proj.weight": ("attn_out", "weight"), "attn.out_proj.bias": ("attn_out", "bias"),
    "mlp.c_fc.weight": ("c_fc", "weight"), "mlp.c_fc.bias": ("c_fc", "bias"),
    "mlp.c_proj.weight": ("c_proj", "weight"), "mlp.c_proj.bias": ("c_proj", "bias"),
}  # fmt: skip
BUFFERS = ("input_resolution", "context_length", "vocab_size")
"""Sizes that the state dict of the authors' programs carries beside the weights."""


def clip(weights: Weights, *, transformer_heads: int = 0, **sizes: Any) -> tuple[CLIP, dict[str, Any]]:
    """The network and its {"params": ...} from the authors' names and the arguments of their CLIP.

    Heads are one for each 64 of a width unless transformer_heads says otherwise. The other arguments are sizes, and must be
    those of the weights. Raises UserError for an argument of another network, and for weights that do not fit.
    """
    if "visual.proj" not in weights:
        raise UserError("vision_layers: these weights have no visual.proj; CLIP's ResNets are not built, its ViTs are")
    found = _sizes(weights)
    check_options(sizes, (), {name: (value,) for name, value in found.items()}, "CLIP")
    heads = transformer_heads or max(found["transformer_width"] // 64, 1)
    return _filled(weights, found, max(found["vision_width"] // 64, 1), heads, ("quick_gelu", "quick_gelu"))


TOWER = {"layer_norm_eps": (1e-5,), "attention_dropout": ANY, "dropout": ANY, "initializer_factor": ANY,
         "initializer_range": ANY, "dtype": ANY, "torch_dtype": ANY, "model_type": ANY, "transformers_version": ANY,
         "_name_or_path": ANY, "architectures": ANY, "projection_dim": ANY, "use_cache": ANY, "pad_token_id": ANY,
         "bos_token_id": ANY, "eos_token_id": ANY}  # fmt: skip
"""Options of text_config and vision_config besides sizes: the one value that the network has, or ANY where it changes nothing.
The last token is the one with the highest number, whichever eos_token_id says."""
MODEL = dict.fromkeys(
    ("_name_or_path", "architectures", "initializer_factor", "logit_scale_init_value", "torch_dtype", "dtype",
     "transformers_version", "text_config_dict", "vision_config_dict"), ANY,
) | {"model_type": ("clip",)}  # fmt: skip


def clip_hugging_face(
    weights: Weights, *, text_config: Mapping[str, Any] | None = None, vision_config: Mapping[str, Any] | None = None,
    projection_dim: int = 0, **other: Any,
) -> tuple[CLIP, dict[str, Any]]:  # fmt: skip
    """The network and its {"params": ...} from the names and the config.json of Hugging Face's CLIPModel.

    Raises UserError for an option of another network, by name, and for weights that do not fit.
    """
    renamed = _of_hugging_face(weights)
    found = _sizes(renamed)
    check_options(other, (), MODEL, "CLIPModel")
    if projection_dim not in (0, found["embed_dim"]):
        raise UserError(f"projection_dim={projection_dim}: must be {found['embed_dim']} here")
    heads, activations = [], []
    for name, given, width in (
        ("vision_config", vision_config or {}, found["vision_width"]),
        ("text_config", text_config or {}, found["transformer_width"]),
    ):
        part = "vision" if name == "vision_config" else "transformer"
        sizes = {"hidden_size": (width,), "num_hidden_layers": (found[f"{part}_layers"],), "intermediate_size": (4 * width,)}
        more = {"image_size": (found["image_resolution"],), "patch_size": (found["vision_patch_size"],), "num_channels": (3,)}
        text = {"vocab_size": (found["vocab_size"],), "max_position_embeddings": (found["context_length"],)}
        allowed = {**TOWER, **sizes, **(more if part == "vision" else text), "hidden_act": ("quick_gelu", "gelu")}
        check_options(given, ("num_attention_heads",), allowed, name)
        heads.append(given.get("num_attention_heads") or max(width // 64, 1))
        activations.append(given.get("hidden_act", "quick_gelu"))
    return _filled(renamed, found, heads[0], heads[1], (activations[0], activations[1]))


def _sizes(weights: Weights) -> dict[str, Any]:
    """The arguments of the authors' CLIP, but for heads, as the weights tell them. Raises UserError where one is not there."""
    needed = ("visual.conv1.weight", "visual.positional_embedding", "visual.proj", "positional_embedding",
              "token_embedding.weight")  # fmt: skip
    if missing := [name for name in needed if name not in weights]:
        raise UserError(f"weights have no {missing[0]}: not those of CLIP with a vision transformer")

    def layers(prefix: str) -> int:
        return len({name.split(".resblocks.")[1].split(".")[0] for name in weights if name.startswith(f"{prefix}.resblocks.")})

    conv, places = weights["visual.conv1.weight"].shape, weights["visual.positional_embedding"].shape[0]
    return {
        "embed_dim": weights["visual.proj"].shape[1],
        "image_resolution": conv[-1] * round((places - 1) ** 0.5),
        "vision_layers": layers("visual.transformer"),
        "vision_width": conv[0],
        "vision_patch_size": conv[-1],
        "context_length": weights["positional_embedding"].shape[0],
        "vocab_size": weights["token_embedding.weight"].shape[0],
        "transformer_width": weights["token_embedding.weight"].shape[1],
        "transformer_layers": layers("transformer"),
    }


def _filled(
    weights: Weights, s: Mapping[str, Any], vision_heads: int, text_heads: int, activations: tuple[Activation, Activation]
) -> tuple[CLIP, dict[str, Any]]:
    for name, width, heads in (
        ("vision", s["vision_width"], vision_heads),
        ("transformer", s["transformer_width"], text_heads),
    ):
        if width % heads:
            raise UserError(f"{name}_heads={heads}: must divide its width, {width}")
    visual = VisionTransformer(
        s["embed_dim"], s["image_resolution"], s["vision_patch_size"], s["vision_width"], s["vision_layers"], vision_heads,
        activations[0],
    )  # fmt: skip
    text = TextTransformer(
        s["embed_dim"], s["context_length"], s["vocab_size"], s["transformer_width"], s["transformer_layers"], text_heads,
        activations[1],
    )  # fmt: skip
    net, side = CLIP(visual, text), s["image_resolution"]

    def path(name: str) -> Path:
        tower = "visual" if name.startswith("visual.") else "transformer"
        rest = name.removeprefix("visual.").removeprefix("transformer.")
        if found := re.fullmatch(r"resblocks\.(\d+)\.(.+)", rest):
            number, inner = found.groups()
            return (tower, f"resblocks_{number}", *BLOCK.get(inner, tuple(inner.split("."))))
        return (rest,) if name == "logit_scale" else (tower, *rest.split("."))

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        kept = name.endswith(("embedding", "proj", "text_projection", "embedding.weight"))
        return array if kept else to_linen(array, shape)

    used = {name: array for name, array in weights.items() if name not in BUFFERS}
    shapes = param_shapes(net.init, jnp.zeros((1, side, side, 3)), jnp.zeros((1, 2), jnp.int32))
    return net, {"params": fill(shapes, used, path, layout)}


OUTER = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "logit_scale": "logit_scale",
}
"""Hugging Face's names -> the authors'. "pre_layrnorm" below is spelled so there."""
NORMS = {
    "text_model.final_layer_norm": "ln_final", "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
}  # fmt: skip
INNER = {"self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc",
         "mlp.fc2": "mlp.c_proj"}  # fmt: skip


def _of_hugging_face(weights: Weights) -> dict[str, np.ndarray]:
    """Hugging Face's weights under the authors' names; names that it does not know stay, and so are left over later."""
    found = {}
    for name, array in weights.items():
        stem, _, kind = name.rpartition(".")
        if name in ("visual_projection.weight", "text_projection.weight"):
            found["visual.proj" if name.startswith("visual") else "text_projection"] = array.T
        elif name.endswith("position_ids"):
            continue
        elif layer := re.fullmatch(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)", stem):
            tower, number, inner = layer.groups()
            head = f"{'visual.' if tower == 'vision' else ''}transformer.resblocks.{number}"
            if inner == "self_attn.q_proj":
                names = [name.replace("q_proj", part) for part in ("q_proj", "k_proj", "v_proj")]
                if missing := [each for each in names if each not in weights]:
                    raise UserError(f"weights have no {missing[0]}")
                found[f"{head}.attn.in_proj_{kind}"] = np.concatenate([weights[each] for each in names])
            elif inner not in ("self_attn.k_proj", "self_attn.v_proj"):
                found[f"{head}.{INNER.get(inner, inner)}.{kind}"] = array
        else:
            found[OUTER.get(name, f"{NORMS[stem]}.{kind}" if stem in NORMS else name)] = array
    return found
