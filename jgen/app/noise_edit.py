"""The commands invert, edit and mix of diffusion and score models: pictures of yours, by way of noise."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen.app.load import Run, load
from jgen.app.photos import check_sheet, fitted, fitted_all, say_quality, write, write_array
from jgen.config import MeshConfig
from jgen.config.inversion import NoiseEdit, NoiseInversion, NoiseMix
from jgen.edit.latents import slerp
from jgen.edit.space import NoiseSpace
from jgen.edit.timing import timed
from jgen.errors import UserError
from jgen.sharding import make_mesh
from jgen.types import Array, Extra, Params


def opened(
    folder: Path, given: NoiseInversion, options: Any, out: str, mesh: MeshConfig, array: bool = False
) -> tuple[Run, Extra, np.ndarray]:
    """The run under these options of sampling, what its functions read, and the pictures [B, H, W, C] in [-1, 1].

    Raises UserError for no picture, for one that can't be read, and for a sheet that is not to be a .png.
    """
    check_sheet(out, given.image, array)
    run = load(folder, make_mesh(mesh), options)
    images = fitted_all(given.image, run.stage.data)
    return run, run.stage.extra_for(run.extra, options, run.mesh), images


def space_of(run: Run, what: str) -> NoiseSpace:
    """The run's way to noise and back. Raises UserError for a run of several stages of noise."""
    if run.stage.noise is None:
        raise UserError(
            f"{what}: {run.stage.name} has no noise of whole images, as a cascade has none; its edit takes --method sdedit or "
            "inpaint, and the other diffusion and score models invert and mix"
        )
    return run.stage.noise


def noise_of(run: Run, extra: Extra, images: np.ndarray, given: NoiseInversion, what: str) -> tuple[NoiseSpace, Array, Array]:
    """(the space, the pictures' noise, what it draws); prints how near that is to the pictures, and how long it took."""
    space, label, steps = space_of(run, what), given.from_label, given.inversion_steps

    def there_and_back(params: Params, extra: Extra, images: Array) -> tuple[Array, Array]:
        noise = space.invert(params, extra, images, label, steps)
        return noise, space.draw(params, extra, noise, label, steps)

    (noise, made), seconds = timed(there_and_back, run.params, extra, jnp.asarray(images))
    say_quality(given.image, made, images, seconds / len(images))
    return space, noise, made


def invert(folder: Path, given: NoiseInversion, options: Any, out: str, mesh: MeshConfig) -> None:
    """Source and inversion of every picture; the noise beside them as .npy."""
    run, extra, images = opened(folder, given, options, out, mesh, array=True)
    _, noise, made = noise_of(run, extra, images, given, "invert")
    write_array(noise, write([images, made], out, run.folder, "inverted"), "noise")


def edit(folder: Path, given: NoiseInversion, how: NoiseEdit, options: Any, out: str, mesh: MeshConfig) -> None:
    """A row for every picture: source, what the model is given of it, and six results; of ddim source, inversion and edit."""
    check_sheet(out, (how.mask_image,))
    run, extra, images = opened(folder, given, options, out, mesh)
    if how.method == "ddim":
        space, noise, made = noise_of(run, extra, images, given, "method=ddim")

        @jax.jit
        def guided(params: Params, extra: Extra, noise: Array) -> Array:
            return space.guided(params, extra, noise, options, given.inversion_steps)

        write([images, made, guided(run.params, extra, noise)], out, run.folder, "edited")
        return
    drawn = fitted(Path(how.mask_image), run.stage.data, "mask_image").mean(-1) > 0 if how.mask_image else None
    fixed: dict[str, Any] = {} if drawn is None else {"mask": checked_mask(drawn, how.mask_image)}
    picture = run.stage.on_request.get("inpainted" if how.method == "inpaint" else "edited")
    if picture is None:
        raise UserError(f"run={folder}: {run.stage.name} makes no images of its own yet; go on with its training")

    @jax.jit
    def row(params: Params, extra: Extra, number: Array, image: Array) -> Array:
        key = jax.random.fold_in(jax.random.key(how.seed), number)
        return picture(params, extra, key, {"image": image[None], **fixed})

    rows = [np.asarray(row(run.params, extra, jnp.asarray(i), jnp.asarray(image))) for i, image in enumerate(images)]
    write(list(np.stack(rows, 1)), out, run.folder, "edited")


def checked_mask(drawn: np.ndarray, name: str) -> np.ndarray:
    """bool [1, H, W, 1] of a mask [H, W]. Raises UserError for one that removes nothing, or everything."""
    if drawn.all() or not drawn.any():
        much = "everything" if drawn.all() else "nothing"
        raise UserError(f"mask_image={name}: removes {much}; must be white where pixels are made again")
    return drawn[None, :, :, None]


def mix(folder: Path, given: NoiseInversion, how: NoiseMix, options: Any, out: str, mesh: MeshConfig) -> None:
    """Both pictures with their inversions, and each on its way to the other, along the arc between their noise."""
    if len(given.image) != 2:
        raise UserError(f"image: {len(given.image)} given; must be two, --image A.png --image B.png")
    run, extra, images = opened(folder, given, options, out, mesh)
    space, noise, made = noise_of(run, extra, images, given, "mix")

    @jax.jit
    def draw(params: Params, extra: Extra, noise: Array) -> Array:
        return space.draw(params, extra, noise, given.from_label, given.inversion_steps)

    ends, shares = noise.reshape(2, -1), jnp.asarray(how.by)
    ways = [slerp(a, b, shares).reshape(-1, *noise.shape[1:]) for a, b in (ends, ends[::-1])]
    mixed = draw(run.params, extra, jnp.concatenate(ways)).reshape(2, len(how.by), *images.shape[1:])
    write([images, made, *jnp.moveaxis(mixed, 1, 0)], out, run.folder, "mixed")
