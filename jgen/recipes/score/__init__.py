"""Score models: of many noise levels (NCSN), and along an SDE."""
