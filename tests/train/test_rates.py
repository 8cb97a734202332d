"""Learning rates over a run, in closed form."""

import math

import pytest

from jgen.config import OptimizerConfig
from jgen.errors import UserError
from jgen.recipes.common import adam_rate


@pytest.mark.parametrize("decay", ["cosine", "linear", "exponential"])
def test_every_decay_warms_up_and_comes_to_its_end(decay):
    rate = adam_rate(OptimizerConfig(0.4, warmup=10, final_learning_rate=0.01, decay=decay), 110)
    assert float(rate(0)) == 0
    assert float(rate(5)) == pytest.approx(0.2)
    assert float(rate(10)) == pytest.approx(0.4)
    middle = {"cosine": 0.4 * 0.505, "linear": 0.4 * 0.505, "exponential": 0.4 * math.sqrt(0.01)}[decay]
    assert float(rate(60)) == pytest.approx(middle, rel=1e-5)
    assert float(rate(110)) == pytest.approx(0.004, rel=1e-5)


def test_an_exponential_decay_is_a_factor_a_step():
    rate = adam_rate(OptimizerConfig(1e-3, warmup=0, final_learning_rate=0.0024788, decay="exponential"), 1_200_000)
    assert float(rate(300_000)) == pytest.approx(1e-3 * 0.999995**300_000, rel=1e-4)
    with pytest.raises(UserError, match="final_learning_rate=0: an exponential decay never comes to 0"):
        adam_rate(OptimizerConfig(final_learning_rate=0.0, decay="exponential"), 10)
