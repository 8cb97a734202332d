"""The options of every sampler, a class each, and the table of them: name -> function, options, coordinates.

A sampler is one function in `jgen.samplers` and one class here, which names it. The function is called as

    discrete:    function(predict, schedule, x, keys, timesteps=steps, **arguments)
    continuous:  function(denoise, x, sigmas, keys, **arguments)

Samplers of other coordinates belong to the models that have those: an SDE's (`jgen.recipes.score.sde`) or Langevin dynamics
over levels (`jgen.recipes.score.ncsn`).
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from jgen.config.ranges import Count, NonNegative, Positive, Range, Share
from jgen.errors import check_choice

Coordinates = Literal["discrete", "continuous", "sde", "levels"]
Grid = Literal["auto", "time", "log_snr", "karras", "uniform", "quadratic"]
VarianceName = Literal["auto", "small", "large", "learned_range"]
Order = Annotated[int, Range(1, 3)]


@dataclass(frozen=True)
class Solver:
    """A sampler and its options."""

    sampler: ClassVar[str] = ""
    """Its name."""
    function: ClassVar[str] = ""
    """MODULE.FUNCTION in jgen.samplers."""
    coordinates: ClassVar[Coordinates] = "continuous"
    adaptive: ClassVar[bool] = False
    """Whether every image has steps of its own, as short as a tolerance asks for."""
    placed: ClassVar[frozenset[str]] = frozenset({"steps", "grid", "sigma_min", "resamplings"})
    """Options that are no arguments of the function: they choose the levels it runs on, or how it is used."""

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the function."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in self.placed}


@dataclass(frozen=True)
class Stepped(Solver):
    """A sampler with a number of steps."""

    steps: Count = 18
    """Steps from noise to image."""
    grid: Grid = "auto"
    """Spacing of the noise levels. time: even in the model's own times; log_snr: even in the logarithm of the level; karras: by
    the power 7 (EDM); uniform and quadratic: by 1 and 2. auto: time for ddim and ddpm on a chain, else what suits the model."""
    sigma_min: NonNegative = 0.0
    """Least noise level, from which a last step leads to the clean image; 0 for the model's own. A higher one, such as 0.1,
    leaves out what a model adds to its images at low levels."""


@dataclass(frozen=True)
class DDIM(Stepped):
    """DDIM (Song et al. 2021, arXiv:2010.02502): one network call a step."""

    sampler: ClassVar[str] = "ddim"
    function: ClassVar[str] = "ddim.ddim"
    coordinates: ClassVar[Coordinates] = "discrete"
    steps: Count = 50
    eta: Share = 0.0
    """Noise: 0 none, 1 as much as ancestral sampling."""


@dataclass(frozen=True)
class DDPM(Stepped):
    """Ancestral sampling (Ho et al. 2020, arXiv:2006.11239): one network call a step."""

    sampler: ClassVar[str] = "ddpm"
    function: ClassVar[str] = "ancestral.ancestral"
    coordinates: ClassVar[Coordinates] = "discrete"
    steps: Annotated[int, Range(2)] = 50
    variance: VarianceName = "auto"
    """Variance of each step: the posterior's, beta, or the network's. auto: the network's where it learned one."""
    resamplings: Count = 1
    """How often each stretch of steps is repeated for --picture inpainted (RePaint); 1 only puts known pixels in."""


class Churn(NamedTuple):
    """EDM's stochasticity (algorithm 2): at levels between s_min and s_max noise is added before a step."""

    amount: float
    """S_churn: over the whole of the sampling; a step adds at most (sqrt(2) - 1) of its level."""
    s_min: float = 0.0
    s_max: float = float("inf")
    s_noise: float = 1.0


@dataclass(frozen=True)
class Churned(Stepped):
    """A sampler of EDM's family, which can add noise on the way."""

    placed: ClassVar[frozenset[str]] = Solver.placed | {"churn", "churn_from", "churn_to", "churn_noise"}
    churn: NonNegative = 0.0
    """Noise added on the way (EDM's S_churn)."""
    churn_from: NonNegative = 0.0
    """Noise is added at levels above this one (S_min)."""
    churn_to: Positive = 1e9
    """Noise is added at levels below this one (S_max)."""
    churn_noise: NonNegative = 1.0
    """Deviation of the noise that is added (S_noise)."""

    def arguments(self) -> dict[str, Any]:
        """The churn as one value, or none."""
        churn = Churn(self.churn, self.churn_from, self.churn_to, self.churn_noise)
        return {**super().arguments(), "churn": churn if self.churn else None}


@dataclass(frozen=True)
class Heun(Churned):
    """Heun's method (Karras et al. 2022, arXiv:2206.00364, algorithms 1 and 2): two calls a step, one in the last."""

    sampler: ClassVar[str] = "heun"
    function: ClassVar[str] = "euler_heun.heun"


@dataclass(frozen=True)
class Euler(Churned):
    """Euler's method: one call a step."""

    sampler: ClassVar[str] = "euler"
    function: ClassVar[str] = "euler_heun.euler"


@dataclass(frozen=True)
class DPM2(Churned):
    """The midpoint method in the logarithm of the level (k-diffusion's dpm_2): two calls a step, one in the last."""

    sampler: ClassVar[str] = "dpm_2"
    function: ClassVar[str] = "euler_heun.dpm_2"


@dataclass(frozen=True)
class FreshNoise(Solver):
    """The two options of k-diffusion's samplers that add fresh noise after each step."""

    placed: ClassVar[frozenset[str]] = Solver.placed | {"noise_eta"}
    noise_eta: Share = 1.0
    """Share of fresh noise (k-diffusion's eta): 0 follows the ODE."""
    s_noise: NonNegative = 1.0
    """Factor of the fresh noise (k-diffusion's s_noise)."""

    def arguments(self) -> dict[str, Any]:
        """The share under the function's own name."""
        return {**super().arguments(), "eta": self.noise_eta}


@dataclass(frozen=True)
class Noisy(FreshNoise, Stepped):
    """A sampler of k-diffusion's that adds fresh noise after each step."""


@dataclass(frozen=True)
class EulerAncestral(Noisy):
    """Ancestral Euler steps (k-diffusion): one call a step."""

    sampler: ClassVar[str] = "euler_ancestral"
    function: ClassVar[str] = "euler_heun.euler_ancestral"


@dataclass(frozen=True)
class DPM2Ancestral(Noisy):
    """Ancestral midpoint steps (k-diffusion): two calls a step, one in the last."""

    sampler: ClassVar[str] = "dpm_2_ancestral"
    function: ClassVar[str] = "euler_heun.dpm_2_ancestral"


@dataclass(frozen=True)
class DPMpp2SAncestral(Noisy):
    """Ancestral singlestep DPM-Solver++ of order 2 (k-diffusion): two calls a step, one in the last."""

    sampler: ClassVar[str] = "dpmpp_2s_ancestral"
    function: ClassVar[str] = "dpm.dpmpp_2s_ancestral"


@dataclass(frozen=True)
class DPMppSDE(Noisy):
    """DPM-Solver++ of the reverse SDE, singlestep (k-diffusion): two calls a step, one in the last."""

    sampler: ClassVar[str] = "dpmpp_sde"
    function: ClassVar[str] = "dpm.dpmpp_sde"


@dataclass(frozen=True)
class DPMSolver(Stepped):
    """Multistep DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095), or DPM-Solver: one call a step."""

    sampler: ClassVar[str] = "dpm"
    function: ClassVar[str] = "dpm.dpm_multistep"
    order: Order = 2
    parameterization: Literal["data", "noise"] = "data"
    """The quantity that is interpolated: data (the clean image) is DPM-Solver++, noise is DPM-Solver."""


@dataclass(frozen=True)
class DPMSolverSinglestep(DPMSolver):
    """Singlestep DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095), or DPM-Solver: as many calls as steps."""

    sampler: ClassVar[str] = "dpm_singlestep"
    function: ClassVar[str] = "dpm.dpm_singlestep"


@dataclass(frozen=True)
class DPMSolverSDE(Noisy):
    """Multistep DPM-Solver++ of the reverse SDE (Lu et al. 2022): one call a step, with noise."""

    sampler: ClassVar[str] = "dpm_sde"
    function: ClassVar[str] = "dpm.dpmpp_multistep_sde"
    order: Order = 2


@dataclass(frozen=True)
class UniPC(Stepped):
    """UniPC (Zhao et al. 2023, arXiv:2302.04867): one call a step."""

    sampler: ClassVar[str] = "unipc"
    function: ClassVar[str] = "unipc.unipc"
    order: Order = 2


@dataclass(frozen=True)
class LMS(Stepped):
    """The linear multistep method (k-diffusion): one call a step."""

    sampler: ClassVar[str] = "lms"
    function: ClassVar[str] = "euler_heun.lms"
    order: Count = 2


@dataclass(frozen=True)
class PLMS(Stepped):
    """Pseudo linear multistep (Liu et al. 2022, arXiv:2202.09778): one call a step, two in the first."""

    sampler: ClassVar[str] = "plms"
    function: ClassVar[str] = "to_zero.plms"


@dataclass(frozen=True)
class Adaptive(Solver):
    """A sampler that chooses its steps by a tolerance, image by image."""

    adaptive: ClassVar[bool] = True
    tolerance: Positive = 0.01
    """Error of a step, absolute and relative."""
    sigma_min: NonNegative = 0.0
    """Least noise level, from which a last step leads to the clean image; 0 for the model's own."""


@dataclass(frozen=True)
class DPMAdaptive(FreshNoise, Adaptive):
    """DPM-Solver with steps of its own (Lu et al. 2022, arXiv:2206.00927)."""

    sampler: ClassVar[str] = "dpm_adaptive"
    function: ClassVar[str] = "to_zero.dpm_adaptive"
    noise_eta: Share = 0.0
    """Share of fresh noise (k-diffusion's eta): 0 follows the ODE."""
    order: Annotated[int, Range(2, 3)] = 2
    parameterization: Literal["data", "noise"] = "data"
    """The quantity that is interpolated: data (the clean image) is DPM-Solver++, noise is DPM-Solver."""


@dataclass(frozen=True)
class RK45(Adaptive):
    """Dormand and Prince's pair of orders 5 and 4, with steps of its own."""

    sampler: ClassVar[str] = "rk45"
    function: ClassVar[str] = "to_zero.rk45"


@dataclass(frozen=True)
class PredictorCorrector(Solver):
    """Predictor-corrector sampling of the reverse SDE (Song et al. 2021, arXiv:2011.13456, algorithm 1)."""

    sampler: ClassVar[str] = "pc"
    function: ClassVar[str] = "pc.predictor_corrector"
    coordinates: ClassVar[Coordinates] = "sde"
    steps: Count = 200
    """Steps of the predictor."""
    predictor: Literal["reverse_diffusion", "euler_maruyama", "ancestral", "none"] = "reverse_diffusion"
    corrector: Literal["langevin", "annealed", "none"] = "langevin"
    corrector_steps: Count = 1
    """Calls of the corrector before each of the predictor."""
    snr: Positive = 0.16
    """Signal-to-noise ratio of the corrector: how long its steps are."""


@dataclass(frozen=True)
class ProbabilityFlow(Solver):
    """The probability-flow ODE with adaptive steps (Song et al. 2021, arXiv:2011.13456, section 4.3)."""

    sampler: ClassVar[str] = "ode"
    function: ClassVar[str] = "probability_flow.flow"
    coordinates: ClassVar[Coordinates] = "sde"
    adaptive: ClassVar[bool] = True
    tolerance: Positive = 1e-4
    """Error of a step, absolute and relative."""


@dataclass(frozen=True)
class Langevin(Solver):
    """Langevin dynamics from level to level."""

    coordinates: ClassVar[Coordinates] = "levels"
    steps_each: Count = 30
    """Steps at each level."""
    denoise: bool = True
    """End with a step without noise."""


@dataclass(frozen=True)
class AnnealedLangevin(Langevin):
    """Annealed Langevin dynamics (Song & Ermon 2019, arXiv:1907.05600, algorithm 1)."""

    sampler: ClassVar[str] = "annealed"
    function: ClassVar[str] = "langevin.annealed_langevin"
    step_size: NonNegative = 0.0
    """epsilon; 0 takes the one at which the noise settles to each level in steps_each steps (NCSNv2, technique 4)."""


@dataclass(frozen=True)
class ConsistentLangevin(Langevin):
    """Consistent annealed sampling (Jolicoeur-Martineau et al. 2021, arXiv:2009.05475): steps_each levels for each trained one,
    a step at each, its noise chosen so that the next level is met."""

    sampler: ClassVar[str] = "consistent"
    function: ClassVar[str] = "langevin.consistent_langevin"


SAMPLERS: dict[str, type[Solver]] = {
    row.sampler: row
    for row in (
        DDIM, DDPM, Heun, Euler, EulerAncestral, DPM2, DPM2Ancestral, DPMSolver, DPMSolverSinglestep, DPMSolverSDE,
        DPMpp2SAncestral, DPMppSDE, UniPC, LMS, PLMS, DPMAdaptive, RK45, PredictorCorrector, ProbabilityFlow,
        AnnealedLangevin, ConsistentLangevin,
    )
}  # fmt: skip
"""The table: a sampler's name -> its options, which name its function and its coordinates."""


def named(name: str, coordinates: tuple[Coordinates, ...] = ("discrete", "continuous")) -> type[Solver]:
    """The options of a sampler by its name. Raises UserError for one that is not there, or of other coordinates."""
    known = [each for each, row in SAMPLERS.items() if row.coordinates in coordinates]
    check_choice(known, sampler=name)
    return SAMPLERS[name]


def switched(options: Solver, name: str, coordinates: tuple[Coordinates, ...] = ("discrete", "continuous")) -> Solver:
    """Another sampler, with those of the options that it has too: the steps stay as they are."""
    kind = named(name, coordinates)
    if kind is type(options):
        return options
    common = {f.name for f in dataclasses.fields(kind)} & {f.name for f in dataclasses.fields(options)}
    return kind(**{each: getattr(options, each) for each in common})
