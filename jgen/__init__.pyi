"""The types of what `jgen` loads on first use."""

from jgen import (
    config as config,
    convert as convert,
    data as data,
    edit as edit,
    metrics as metrics,
    models as models,
    nn as nn,
    objectives as objectives,
    pictures as pictures,
    recipes as recipes,
    samplers as samplers,
    schedules as schedules,
    sde as sde,
    sigmas as sigmas,
    train as train,
    types as types,
)
from jgen.app.cli import main as main
from jgen.app.load import Run as Run
from jgen.app.load import load as load
from jgen.train.stage import Experiment as Experiment
from jgen.train.stage import Stage as Stage

__version__: str
