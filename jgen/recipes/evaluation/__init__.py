"""Evaluations by the classifiers that ship with jgen: modes, entanglement, agreement with a condition, guidance."""
