"""One short module a result: a Config and a build(config). Run one as `python -m experiments.NAME`."""
