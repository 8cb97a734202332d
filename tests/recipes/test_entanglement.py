"""Logits of each class against the rest."""

import tracemalloc

import numpy as np

from jgen.recipes.evaluation.entanglement import against_the_rest


def test_each_class_is_held_against_the_sum_of_the_others():
    logits = np.random.default_rng(0).normal(size=(50, 7)) * 20
    others = [np.logaddexp.reduce(np.delete(logits, k, 1), 1) for k in range(7)]
    np.testing.assert_allclose(against_the_rest(logits), logits - np.stack(others, 1), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(against_the_rest(np.array([[900.0, 0.0]])), [[900.0, -900.0]])
    np.testing.assert_allclose(against_the_rest(np.zeros((1, 4))), -np.log(np.full((1, 4), 3.0)))


def test_a_thousand_classes_need_no_table_of_pairs():
    logits = np.random.default_rng(0).normal(size=(300, 1000))
    tracemalloc.start()
    against_the_rest(logits)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10 * logits.nbytes
