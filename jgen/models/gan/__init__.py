"""Generators and discriminators, a paper a file."""
