"""The page of `jgen serve`: a tab a run, its controls, and the picture of them. `jgen.app.play` makes all that it shows."""

import functools
import hashlib
import importlib
import os
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jgen import pictures
from jgen.animation import save_animation
from jgen.app import play
from jgen.app.load import Run, load
from jgen.data.images import scaled
from jgen.errors import UserError

gr: Any = importlib.import_module("gradio") if find_spec("gradio") else None  # the extra "serve"
Request: Any = gr.Request if gr else Any

# Keeps the controls' values in the address, so that it can be sent to somebody.
ADDRESS = """(...values) => {{
  const names = {names};
  const query = new URLSearchParams();
  query.set("run", "{tab}");
  names.forEach((name, i) => query.set(name, values[i]));
  history.replaceState(null, "", "?" + query.toString());
  return values;
}}"""


def serve(folders: Sequence[str], host: str = "127.0.0.1", port: int = 7860, block: bool = True) -> Any:
    """Opens the page of runs, and returns gradio's page. block: until it is closed."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    runs = [load(folder) for folder in folders]
    page = page_of(runs)
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    try:
        page.launch(
            server_name=host, server_port=port or None, share=False, prevent_thread_lock=True, quiet=True, theme=theme, css=CSS,
            footer_links=[],
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"host={host}, port={port}: can't be listened at; --port 0 takes a free one ({error})") from error
    print(f"open {page.local_url} in a browser; Ctrl-C ends it", flush=True)
    if block:
        page.block_thread()
    return page


CSS = ".picture img{image-rendering:pixelated}"


def page_of(runs: Sequence[Run]) -> Any:
    """The page, not yet open."""
    with gr.Blocks(title="jgen", analytics_enabled=False) as page, gr.Tabs() as tabs:
        opened = []
        for i, run in enumerate(runs):
            with gr.Tab(f"{run.folder.name}: {run.stage.name}", id=i):
                opened.append(_tab(run, i))
        page.load(_chosen_tab(len(runs)), None, tabs)
        for i, (run, boxes, update, outputs, extra) in enumerate(opened):
            begin = page.load(_beginning(run, i), None, boxes)
            begin.then(update, [*boxes, *extra], outputs)
    page.queue(default_concurrency_limit=1)
    return page


def _chosen_tab(count: int) -> Any:
    """(request) -> the tab that the address names."""

    def chosen(request: Request) -> Any:  # pyright: ignore[reportInvalidTypeForm]
        named = request.query_params.get("run", "0")
        return gr.Tabs(selected=int(named) if named.isdecimal() and int(named) < count else 0)

    return chosen


def _beginning(run: Run, tab: int) -> Any:
    """(request) -> the values of a tab's controls: those of the address where it is of this tab, else the defaults."""

    def values(request: Request) -> Any:  # pyright: ignore[reportInvalidTypeForm]
        query = dict(request.query_params)
        given = query if query.get("run", "0") == str(tab) else {}
        try:
            found = play.checked(run, given)
        except UserError as error:
            gr.Warning(str(error))
            found = play.checked(run, {})
        listed = list(found.values())
        return listed if len(listed) > 1 else listed[0]

    return values


def _tab(run: Run, tab: int) -> tuple[Run, list[Any], Any, list[Any], list[Any]]:
    """A run's controls and picture."""
    controls = play.controls(run)
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            boxes = [_box(control, tab) for control in controls]
            needs = any(mode in play.OF_IMAGES for mode in controls[0].choices)
            size = run.stage.data.shape
            file = gr.File(label="An image of yours: PNG, JPEG or WebP", elem_id=f"file-{tab}", visible=needs)
            sketch = gr.Sketchpad(
                label="Or draw one",
                type="pil",
                canvas_size=(256, 256 * size[0] // size[1]),
                elem_id=f"sketch-{tab}",
                visible=needs,
            )
        with gr.Column(scale=2, min_width=320):
            picture = gr.Image(
                label=str(run.folder), type="filepath", interactive=False, elem_id=f"picture-{tab}", elem_classes="picture"
            )
            message = gr.Markdown(elem_id=f"message-{tab}")
            download = gr.DownloadButton("Download what is shown", elem_id=f"download-{tab}")

    def update(*values: Any) -> tuple[Any, str, Any]:
        *numbers, upload, drawing = values
        return _update(run, dict(zip([each.name for each in controls], numbers)), upload, drawing)

    outputs, extra = [picture, message, download], [file, sketch]
    names = [each.name for each in controls]
    gr.on(
        [*(box.change for box in boxes), file.change, sketch.change], update, [*boxes, *extra], outputs,
        trigger_mode="always_last", show_progress="minimal",
    )  # fmt: skip
    gr.on([box.change for box in boxes], None, boxes, None, js=ADDRESS.format(names=names, tab=tab))
    return run, boxes, update, outputs, extra


def _box(control: play.Control, tab: int) -> Any:
    name = f"{control.name}-{tab}"
    if control.name == "show":
        return gr.Radio(list(control.choices), value=control.value, label=control.label, elem_id=name)
    if control.choices:
        return gr.Dropdown(list(control.choices), value=control.value, label=control.label, elem_id=name)
    return gr.Slider(control.low, control.high, value=control.value, step=control.step, label=control.label, elem_id=name)


def _update(run: Run, values: dict[str, Any], upload: str | None, drawing: Any) -> tuple[Any, str, Any]:
    """(picture, message, file to download); a fault is the message, and the picture stays as it is."""
    try:
        image = None
        if values["show"] in play.OF_IMAGES:
            image = _drawn(run, drawing) if upload is None else play.image_of(run, upload)
        path = written(play.show(run, values, image))
    except UserError as error:
        return gr.skip(), f"**{error}**", gr.skip()
    return str(path[0]), path[1], str(path[0])


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where pictures lie until the page is closed."""
    return tempfile.TemporaryDirectory(prefix="jgen-serve-")


def written(shown: play.Shown) -> tuple[Path, str]:
    """(file, caption) of a picture: a PNG, or a GIF of a moving one; its name says what it shows."""
    tag = hashlib.sha256(shown.caption.encode()).hexdigest()[:12]
    moving = len(shown.frames) > 1
    path = Path(_folder().name) / f"{shown.caption.split(',')[0]}-{tag}{'.gif' if moving else '.png'}"
    if moving:
        save_animation(path, shown.frames)
    else:
        pictures.save(Image.fromarray(shown.frames[0]), path, shown.caption)
    return path, shown.caption


def _drawn(run: Run, drawing: Any) -> np.ndarray | None:
    """The drawing [H, W, C] in [-1, 1]: white ink on black where the set is grey, else as it was drawn on white."""
    composite = drawing.get("composite") if isinstance(drawing, dict) else None
    if composite is None or not np.asarray(composite.convert("RGBA"))[..., 3].any():
        return None
    height, width, channels = run.stage.data.shape
    ink = composite.convert("RGBA").resize((width, height), Image.Resampling.BOX)
    if channels == 1:
        levels = np.asarray(ink)[..., 3:]
    else:
        levels = np.asarray(Image.alpha_composite(Image.new("RGBA", ink.size, "white"), ink).convert("RGB"))
    return scaled(levels)
