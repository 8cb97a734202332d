"""Networks only, a paper a file: no loss, no sampler."""
