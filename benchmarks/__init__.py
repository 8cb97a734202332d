"""Speed beside peers, as ratios measured in one run: `python -m benchmarks [NAME ...] [--json FILE]`."""

from jgen import memory

memory.keep()  # as the command line of an experiment does, before numpy and JAX start threads
