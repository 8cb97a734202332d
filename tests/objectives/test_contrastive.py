"""The losses of pairs and the measure of retrieval, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.objectives.contrastive import info_nce, ranking, recall, similarities, unit


def pairs(count=5, dims=3):
    random = np.random.default_rng(0)
    return (jnp.asarray(random.normal(size=(count, dims)), jnp.float32) for _ in range(2))


def test_orthogonal_pairs_have_the_loss_of_their_scale_alone():
    """Right pairs with cosine 1, wrong ones with 0: log(1 + (B - 1) exp(-scale))."""
    eye = jnp.eye(4) * jnp.array([1.0, 2.0, 3.0, 4.0])[:, None]  # lengths do not count
    for scale in (0.0, 1.0, 5.0):
        np.testing.assert_allclose(info_nce(eye, 3 * eye, scale), np.log(1 + 3 * np.exp(-scale)), rtol=1e-5)
    np.testing.assert_allclose(ranking(eye, eye, 0.2), 0.0)
    np.testing.assert_allclose(ranking(eye, eye, 1.5), 2 * 0.5, rtol=1e-6)  # each of the two hinges is margin - 1 + 0


def test_both_losses_are_those_of_loops():
    images, texts = pairs()
    s = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in np.asarray(texts)] for a in np.asarray(images)])
    np.testing.assert_allclose(similarities(images, texts), s, rtol=1e-5)
    soft = lambda row, i: np.log(np.exp(7 * row).sum()) - 7 * row[i]  # noqa: E731
    both = [soft(s[i], i) for i in range(5)] + [soft(s[:, i], i) for i in range(5)]
    np.testing.assert_allclose(info_nce(images, texts, 7.0), np.mean(both), rtol=1e-5)
    hinges = [max(0, 0.3 - s[i, i] + s[i, j]) + max(0, 0.3 - s[i, i] + s[j, i]) for i in range(5) for j in range(5) if i != j]
    np.testing.assert_allclose(ranking(images, texts, 0.3), np.mean(hinges), rtol=1e-5)
    swapped = ranking(texts, images, 0.3), info_nce(texts, images, 7.0)
    np.testing.assert_allclose(swapped, [ranking(images, texts, 0.3), info_nce(images, texts, 7.0)], rtol=1e-5)


def test_a_row_of_zeros_has_no_length_and_no_gradient():
    np.testing.assert_array_equal(unit(jnp.zeros((1, 3))), np.zeros((1, 3)))
    assert np.isfinite(jax.grad(lambda x: info_nce(x, jnp.eye(3), 10.0))(jnp.zeros((3, 3)))).all()
    assert ranking(jnp.ones((1, 3)), jnp.ones((1, 3)), 0.2) == 0


@pytest.mark.parametrize("k", [1, 2])
def test_recall_counts_those_among_the_first_and_ties_half(k):
    table = jnp.array([[3.0, 1.0, 0.0], [2.0, 1.0, 0.0], [2.0, 3.0, 1.0]])
    np.testing.assert_allclose(recall(table, k), {1: 1 / 3, 2: 2 / 3}[k])
    assert recall(jnp.ones((8, 8)), k) == 0  # embeddings that are all alike find nothing
    assert recall(jnp.ones((2, 2)), k) == 1  # two captions that are the same are both right
