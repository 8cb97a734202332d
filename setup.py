"""Packaging of jgen: metadata and tool settings are in pyproject.toml, what it needs is in requirements.txt."""

from setuptools import setup

setup()
