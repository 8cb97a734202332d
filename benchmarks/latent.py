"""Autoregressive and latent-variable models against PyTorch: decoding, VAE steps, vector quantisation."""

import numpy as np

from benchmarks.timing import Row, alternate, details, missing, ratio

CHANNELS, LAYERS, HIDDEN = 32, 6, 64


def _gated_torch():
    """The gated PixelCNN of the benchmark in PyTorch: 256-way softmax of one channel."""
    import torch
    from torch import nn
    from torch.nn import functional as f

    def gate(x):
        a, b = x.chunk(2, 1)
        return torch.tanh(a) * torch.sigmoid(b)

    class Layer(nn.Module):
        def __init__(self, inputs, kernel, first):
            super().__init__()
            c, self.rows, self.first, self.reach = CHANNELS, kernel // 2 + 1, first, kernel // 2
            self.wide = nn.Conv2d(inputs, c, (1, kernel), padding=(0, kernel // 2))
            self.tall = nn.Conv2d(c, 2 * c, (self.rows, 1))
            self.shortcut, self.link = nn.Conv2d(inputs, 2 * c, 1), nn.Conv2d(2 * c, 2 * c, 1)
            self.left = nn.Conv2d(inputs, 2 * c, (1, self.rows))
            self.residual, self.skip = nn.Conv2d(c, c, 1), nn.Conv2d(c, c, 1)

        def forward(self, v, h):
            above = self.tall(f.pad(self.wide(v), (0, 0, self.rows, 0)))[:, :, : v.shape[2]]
            left = self.left(f.pad(h, (self.reach + self.first, 0)))[..., : h.shape[3]]
            out = gate(left + self.link(above))
            return gate(above + self.shortcut(v)), self.residual(out) + (0 if self.first else h), self.skip(out)

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([Layer(1, 7, True), *(Layer(CHANNELS, 3, False) for _ in range(LAYERS))])
            self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(CHANNELS, HIDDEN, 1), nn.ReLU(), nn.Conv2d(HIDDEN, 256, 1))

        def forward(self, x):
            v, h, total = x, x, 0
            for layer in self.layers:
                v, h, skip = layer(v, h)
                total = total + skip
            return self.head(total)

    return Gated().eval()


def _decode(size: int, batch: int):
    """(compiled cached decode of the benchmark's network, its weights)."""
    import jax
    import jax.numpy as jnp

    from jgen.models.pixelcnn import GatedPixelCNN
    from jgen.objectives.likelihood import categorical
    from jgen.samplers import autoregressive, decoder, image_keys
    from jgen.sharding import batch_sharding, jit_once, make_mesh

    net, law = GatedPixelCNN(256, CHANNELS, LAYERS, HIDDEN), categorical(256)
    variables = jit_once(net.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    keys = jax.device_put(image_keys(0, batch), batch_sharding(make_mesh()))

    @jax.jit
    def run(variables, keys):
        decode = decoder(net, variables, (batch, size, size, 1))
        return autoregressive(decode, law.draw, keys, shape=(size, size, 1))

    return lambda: jax.block_until_ready(run(variables, keys))


def decode() -> list[Row]:
    """Cached decode of 16 images of 28x28 against whole forwards in PyTorch; and time a pixel at 64x64 over 16x16."""
    rows, small, large = [], _decode(16, 16), _decode(64, 16)
    times = alternate({"16x16": small, "64x64": large}, 3)
    value = ratio(times, "64x64", "16x16") * 16**2 / 64**2
    rows.append(Row("decode/pixel_64_over_16", value, "x", "<= 1.3", value <= 1.3, details(times)))
    if why := missing("torch"):
        return [*rows, Row("decode/naive", float("nan"), "x", ">= 100", None, why)]
    import torch

    net, x = _gated_torch(), torch.zeros(16, 1, 28, 28)

    def pixels() -> None:
        """Eight of the 784 pixels: a forward each, and a draw."""
        with torch.no_grad():
            for i in range(8):
                p = torch.softmax(net(x)[:, :, i // 28, i % 28], 1)
                x[:, 0, i // 28, i % 28] = torch.multinomial(p, 1)[:, 0] / 127.5 - 1

    times = alternate({"jgen": _decode(28, 16), "torch": pixels}, 5)
    value = ratio(times, "torch", "jgen") * 784 / 8
    rows.append(Row("decode/naive", value, "x", ">= 100", value >= 100, details(times) + " (torch: 8 of 784 pixels)"))
    return rows


def _their_vae():
    """Twenty training steps of pythae's model, 784-500-500-40, with Adam."""
    import torch
    from pythae.models import VAE, VAEConfig  # pyright: ignore
    from pythae.models.base.base_utils import ModelOutput  # pyright: ignore
    from pythae.models.nn import BaseDecoder, BaseEncoder  # pyright: ignore
    from torch import nn

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(784, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU())
            self.mean, self.log_variance = nn.Linear(500, 40), nn.Linear(500, 40)

        def forward(self, x):
            h = self.body(x.reshape(len(x), -1))
            return ModelOutput(embedding=self.mean(h), log_covariance=self.log_variance(h))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            layers = (nn.Linear(40, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU(), nn.Linear(500, 784), nn.Sigmoid())
            self.body = nn.Sequential(*layers)

        def forward(self, z):
            return ModelOutput(reconstruction=self.body(z).reshape(-1, 1, 28, 28))

    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=40, reconstruction_loss="bce")
    peer, x = VAE(config, encoder=Encoder(), decoder=Decoder()).train(), torch.rand(128, 1, 28, 28)
    adam = torch.optim.Adam(peer.parameters(), 1e-3)

    def run() -> None:
        for _ in range(20):
            adam.zero_grad()
            peer({"data": x}).loss.backward()
            adam.step()

    return run


def _our_vae():
    """Twenty training steps of jgen's model of the same layers."""
    import jax
    import jax.numpy as jnp
    import optax

    from jgen.models.vae import VAE
    from jgen.objectives import likelihood
    from jgen.objectives.vae import vae
    from jgen.sharding import jit_step
    from jgen.train import Phase, init_state, make_step, scan_steps

    law, optimizers, device = likelihood.bernoulli(), {"net": optax.adam(1e-3)}, jax.devices()[0]
    net = VAE((28, 28, 1), law.outputs, 40, (500, 500))
    loss = vae(
        lambda p, x: net.apply({"params": p}, x, method="encode"),
        lambda p, z: net.apply({"params": p}, z, method="decode"),
        law,
    )
    step = jit_step(scan_steps(make_step([Phase("net", loss)], optimizers)))
    params, key = net.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"], jax.random.key(0)
    images = np.random.default_rng(0).uniform(-1, 1, (20, 128, 28, 28, 1)).astype(np.float32)
    # One device, which uses all cores: two would each update the whole of the weights, which is most of so small a step.
    states = [jax.device_put(init_state({"net": params}, {}, optimizers), device)]
    batches = {"image": jax.device_put(images, device)}

    def run() -> None:
        states[0], _ = step(states[0], key, batches)
        jax.block_until_ready(states[0])

    return run


def vae_step() -> list[Row]:
    """A training step of a 784-500-500-40 VAE, batch 128, against pythae's model of the same layers with Adam."""
    if why := missing("torch", "pythae.models"):
        return [Row("vae_step", float("nan"), "x", ">= 1.5", None, why)]
    times = alternate({"jgen": _our_vae(), "pythae": _their_vae()}, 7)
    value = ratio(times, "pythae", "jgen")
    return [Row("vae_step", value, "x", ">= 1.5", value >= 1.5, details(times) + " for 20 steps")]


def vector_quantize() -> list[Row]:
    """Quantising 32x32x32 vectors of 64 with 512 codes and the codebook's update, against vector-quantize-pytorch."""
    if why := missing("torch", "vector_quantize_pytorch"):
        return [Row("vector_quantize", float("nan"), "x", ">= 1.5", None, why)]
    import jax
    import torch
    from vector_quantize_pytorch import VectorQuantize  # pyright: ignore

    from jgen.models.vqvae import quantize, straight_through
    from jgen.objectives import vqvae
    from jgen.sharding import batch_sharding, make_mesh

    z = np.random.default_rng(0).normal(size=(32, 1024, 64)).astype(np.float32)
    peer, given = VectorQuantize(dim=64, codebook_size=512, decay=0.99).train(), torch.from_numpy(z)
    ours, book = jax.device_put(z, batch_sharding(make_mesh())), vqvae.new_codebook(jax.random.key(0), 512, 64)

    @jax.jit
    def step(book, z):
        q = quantize(z, book.vectors)
        return straight_through(q), vqvae.commitment(q), vqvae.update(book, q)

    def theirs() -> None:
        with torch.no_grad():
            peer(given)

    times = alternate({"jgen": lambda: jax.block_until_ready(step(book, ours)), "vector-quantize-pytorch": theirs}, 15)
    value = ratio(times, "vector-quantize-pytorch", "jgen")
    return [Row("vector_quantize", value, "x", ">= 1.5", value >= 1.5, details(times))]


BENCHMARKS = {"decode": decode, "vae_step": vae_step, "vector_quantize": vector_quantize}
