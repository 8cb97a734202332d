"""Flows: Glow and TarFlow."""
