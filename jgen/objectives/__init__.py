"""Losses: pure functions (params, extra, key, batch) -> (loss, (extra, metrics))."""
