"""Images in: sources, and the pipeline that makes batch = f(seed, step) of them.

`open_source(DataConfig(...))` gives a source, `Pipeline(source, config, seed, mesh)` its batches on the devices.
The shell has `python -m jgen.data list | show NAME | prepare NAME`.
"""

from jgen.data.pipeline import Pipeline
from jgen.data.sources import ArraySource, Source, census, classes_of, index_order, open_source, resolve

__all__ = ["ArraySource", "Pipeline", "Source", "census", "classes_of", "index_order", "open_source", "resolve"]
