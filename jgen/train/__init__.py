"""Training: phases -> one compiled step, sharding, checkpoints, the loop, and what it shows."""

from jgen.train.step import Phase, TrainState, init_state, make_step, scan_steps

__all__ = ["Phase", "TrainState", "init_state", "make_step", "scan_steps"]
