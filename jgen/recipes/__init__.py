"""Recipes: what the experiments of a family share: networks, objectives and samplers put together as stages of training.

A recipe takes small config groups and plain values, never an experiment's whole Config.
"""
