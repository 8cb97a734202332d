"""How long a run trains, on which devices, what it writes; and what an evaluation measures."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jgen.config.ranges import Count, Natural, NonNegative, Positive, Range, Seed, Share, ShareBelowOne


@dataclass(frozen=True)
class TrainConfig:
    """The training loop: its length, precision, and what it writes."""

    steps: Count = 1000
    """Updates in all."""
    seed: Seed = 0
    """Initial weights, the order of the data, and all noise depend on this alone."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type that the network computes in; the parameters stay float32."""
    accumulate: Count = 1
    """Split each batch into so many parts and average their gradients: less memory."""
    matmul_precision: Literal["default", "tensorfloat32", "float32"] = "default"
    """Precision of products of float32 in the training step; default is the device's: TF32 on new GPUs, bfloat16 on TPUs,
    float32 on CPUs."""
    remat: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    scan: Count = 1
    """Steps in one dispatch (a lax.scan): less overhead for small networks."""
    log_every: Count = 1
    """Steps between records in metrics.jsonl and TensorBoard."""
    save_every: Count = 500
    """Steps between checkpoints; the last step is always saved."""
    sample_every: Natural = 500
    """Steps between sample grids; 0 for the last one only."""
    keep_last: Count = 2
    """Newest checkpoints to keep."""
    keep_best: Natural = 1
    """Best checkpoints to keep besides, by the held-out loss."""
    wandb: str = ""
    """Also record the run in this project of Weights & Biases, where its package is installed and logged in."""
    max_bad_steps: Count = 10
    """Stop after so many steps in a row with a loss or gradient that is not finite."""
    begin_from: str = ""
    """A run folder whose result this run begins from: later stages go on from its last one, a single stage is tuned. Or the
    folder of one of its stages, to go on from there."""


Accelerator = Literal["v100", "a100", "h100", "h200", "tpu_v4", "tpu_v5e", "tpu_v5p"]


def paper_steps(steps: int) -> TrainConfig:
    """Training as long as a paper's, with a record every hundred steps."""
    return TrainConfig(steps=steps, log_every=100, save_every=10_000, sample_every=10_000)


@dataclass(frozen=True)
class MeshConfig:
    """The devices and processes of a run."""

    devices: Natural = 0
    """Devices to use; 0 for all (on a CPU: one a core)."""
    fsdp: Count = 1
    """Shard parameters and optimizer state over groups of so many devices; 1 is plain data parallel."""
    distributed: bool = False
    """Several processes, found from the cluster's environment (Slurm, Open MPI, TPU pods, Kubernetes)."""
    coordinator: str = ""
    """Several processes by hand: HOST:PORT of process 0, the same on all."""
    num_processes: Natural = 0
    """How many processes there are; goes with --mesh.coordinator."""
    process_id: Annotated[int, Range(-1)] = -1
    """Which of them this one is, from 0."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, its learning rate, and the moving average of the weights."""

    learning_rate: Positive = 2e-3
    """Learning rate of Adam, reached by a linear warm-up."""
    warmup: Natural = 100
    """Steps of the warm-up."""
    final_learning_rate: Share = 0.05
    """Share of the learning rate that it falls to by the last step; 1 keeps it constant, as most papers do."""
    decay: Literal["cosine", "linear", "exponential"] = "cosine"
    """How the learning rate falls."""
    beta_1: ShareBelowOne = 0.9
    """Decay of Adam's first moment."""
    beta_2: ShareBelowOne = 0.999
    """Decay of Adam's second moment."""
    clip: NonNegative = 1.0
    """Greatest norm of the gradient of all weights, scaled down where above; 0 leaves it as it is."""
    ema: ShareBelowOne = 0.995
    """Decay of the weights' moving average, reached as (1 + step) / (10 + step) grows."""


@dataclass(frozen=True)
class AdamWConfig(OptimizerConfig):
    """AdamW, its learning rate, and the moving average of the weights."""

    weight_decay: NonNegative = 0.0
    """Decay of the weights, a share of the learning rate; 0 is Adam."""


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a run, and the samples they need."""

    run: str = ""
    """Folder of the run; the newest where none is given."""
    protocol: Literal["", "paper"] = ""
    """paper: the number of samples, features, resizing and reference that the target of the run's preset was measured with."""
    metrics: str = ""
    """Any of fd,kid,is,modes,pr,dc,auth: samples against a reference set; and of eqt,eqt_frac,eqr, in dB: how a style-based
    generator's images follow shifts and turns of its input. Without it, the experiment's own evaluation."""
    num: Natural = 0
    """Samples; or held-out images, without metrics. 0: 1,000, or all of --against; without metrics 256."""
    seed: Seed = 0
    """Seed of all noise."""
    split: str = ""
    """Split of the run's set: train is the reference of metrics, test is held out, unless given."""
    reference_num: Natural = 0
    """Images of the reference; 0 for all (10,000 of an endless set)."""
    extractor: str = ""
    """Feature network: the one jgen ships for the run's set unless given, or inception:FILE, inception_tf:FILE (resized as
    TensorFlow did), vgg16:FILE, cnn:FILE, ..."""
    against: str = ""
    """Score this folder of images, or .npz of uint8 images, in place of the run's samples."""
    batch: Count = 64
    """Images at a time."""
    out: str = ""
    """The JSON to write; in the run's folder where none is given."""
