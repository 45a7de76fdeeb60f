"""Backpropagation by hand, beside the engine's: a two-layer net, then a residual block with batch norm.

    python examples/backprop_by_hand.py

Read from top to bottom. Every gradient is derived in the comment above its line, from the chain rule alone, and
compared with what `backward()` leaves in `.grad`. The rule throughout: `gv` is the gradient of the loss L by v, and if
v goes into several places, their shares of gv add up.
"""

import numpy as np

from minires import Tensor
from minires.nn import functional as F

rng = np.random.default_rng(0)


def parameter(*shape: int) -> Tensor:
    """A float64 tensor that wants a gradient."""
    return Tensor(rng.standard_normal(shape) / np.sqrt(shape[0]), requires_grad=True)


def compare(name: str, by_hand: np.ndarray, tensor: Tensor) -> None:
    """Print how far the gradient by hand is from the engine's, and stop if it is further than rounding goes."""
    engine = tensor.grad.numpy()
    difference = np.abs(by_hand - engine).max()
    print(f"  g{name:<4} {by_hand.shape!s:<14} first entry {by_hand.flat[0]:+.6f}   difference {difference:.1e}")
    assert by_hand.shape == engine.shape
    assert difference < 1e-12 * max(1.0, np.abs(engine).max())


def two_layer_net() -> None:
    """L = cross_entropy(relu(x w1 + b1) w2 + b2, label), for 5 examples of 4 features in 3 classes."""
    x, label = rng.standard_normal((5, 4)), np.array([0, 2, 1, 1, 0])
    w1, b1, w2, b2 = parameter(4, 8), parameter(8), parameter(8, 3), parameter(3)

    # The engine: forward, and backward in one word.
    loss = F.cross_entropy((Tensor(x) @ w1 + b1).relu() @ w2 + b2, label)
    loss.backward()

    # Forward by hand, keeping what backward will need: a, h and the probabilities p.
    n = len(x)
    a = x @ w1.data + b1.data  # (5, 8)
    h = np.maximum(a, 0)
    z = h @ w2.data + b2.data  # (5, 3)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    by_hand = -np.log(p[np.arange(n), label]).mean()
    print(f"A two-layer net: loss {by_hand:.6f} by hand, {loss.item():.6f} by the engine")

    # L = mean over n of -log p[n, label], and log p[n, j] = z[n, j] - log(sum over k of exp z[n, k]).
    # dL/dz[n, j] = (p[n, j] - 1 if j is the label else p[n, j]) / N: probabilities minus one-hot labels.
    gz = p.copy()
    gz[np.arange(n), label] -= 1
    gz /= n
    # z = h w2 + b2, that is z[n, j] = sum over i of h[n, i] w2[i, j] + b2[j].
    # w2[i, j] meets h[n, i] in every example n: gw2[i, j] = sum over n of h[n, i] gz[n, j].
    gw2 = h.T @ gz
    # b2[j] is added in every example: gb2[j] = sum over n of gz[n, j].
    gb2 = gz.sum(axis=0)
    # h[n, i] reaches all outputs j: gh[n, i] = sum over j of gz[n, j] w2[i, j].
    gh = gz @ w2.data.T
    # h = max(a, 0): where a > 0 a change of a is a change of h, elsewhere nothing happens.
    ga = gh * (a > 0)
    # a = x w1 + b1: the same two sums once more.
    gw1, gb1 = x.T @ ga, ga.sum(axis=0)

    for name, by_hand, tensor in (("w2", gw2, w2), ("b2", gb2, b2), ("w1", gw1, w1), ("b1", gb1, b1)):
        compare(name, by_hand, tensor)


def residual_block() -> None:
    """y = relu(x + gamma * xhat + beta), xhat = (c - mean) / std, c = conv3x3(x), and L = sum(y * t) for a fixed t.

    Images x (2, 4, 5, 3), channels last. The block is one convolution deep; a second one would repeat the same steps.
    """
    n, height, width, channels = 2, 4, 5, 3
    x, w = parameter(n, height, width, channels), parameter(3, 3, channels, channels)
    gamma, beta = parameter(channels), parameter(channels)
    t, eps = rng.standard_normal(x.shape), 1e-5

    # The engine.
    c = F.conv2d(x, w, padding=1)
    normalised = F.batch_norm(c, None, None, gamma, beta, training=True, eps=eps)
    loss = ((x + normalised).relu() * t).sum()
    loss.backward()

    # Forward by hand. The convolution, with a border of zeros: c[., i, j] = sum over u and v of x[., i+u, j+v] w[u, v].
    padded = np.pad(x.data, ((0, 0), (1, 1), (1, 1), (0, 0)))
    c = np.zeros((n, height, width, channels))
    for u in range(3):
        for v in range(3):
            c += padded[:, u : u + height, v : v + width] @ w.data[u, v]
    m = n * height * width  # values in one channel
    mean = c.mean(axis=(0, 1, 2))
    invstd = 1 / np.sqrt(((c - mean) ** 2).mean(axis=(0, 1, 2)) + eps)
    xhat = (c - mean) * invstd
    s = x.data + gamma.data * xhat + beta.data
    y = np.maximum(s, 0)
    print(f"A residual block: loss {(y * t).sum():.6f} by hand, {loss.item():.6f} by the engine")

    # L = sum of y * t, so gy = t; the ReLU lets it through where s > 0.
    gs = t * (s > 0)
    # s = x + (gamma * xhat + beta). An addition hands its gradient to both sides unchanged. This is the residual idea:
    # whatever the layers do, x receives gs itself.
    gx = gs.copy()
    # gamma and beta act on every value of their channel.
    ggamma, gbeta = (gs * xhat).sum(axis=(0, 1, 2)), gs.sum(axis=(0, 1, 2))
    # c moves xhat in three ways: itself, by the mean, and by the variance. With gxhat = gamma * gs:
    #   itself      invstd * gxhat
    #   mean        every c moves the mean by 1/m, and the mean moves every xhat by -invstd: -invstd * mean(gxhat)
    #   variance    dvar/dc = 2 (c - mean) / m, dxhat/dvar = -xhat / (2 var'), var' = 1/invstd^2:
    #               together -invstd * xhat * mean(gxhat * xhat)
    gxhat = gamma.data * gs
    gc = invstd * (gxhat - gxhat.sum(axis=(0, 1, 2)) / m - xhat * (gxhat * xhat).sum(axis=(0, 1, 2)) / m)
    # w[u, v] maps input channels to output channels at one offset, for every pixel: a product summed over all pixels.
    # A pixel of x was seen by up to nine windows, and collects from each of them through the transposed weights.
    gw, gpadded = np.zeros(w.shape), np.zeros(padded.shape)
    flat = gc.reshape(-1, channels)
    for u in range(3):
        for v in range(3):
            gw[u, v] = padded[:, u : u + height, v : v + width].reshape(-1, channels).T @ flat
            gpadded[:, u : u + height, v : v + width] += gc @ w.data[u, v].T
    # The border is no input. x went into two places, the shortcut and the convolution: their shares add up.
    gx += gpadded[:, 1:-1, 1:-1]

    for name, by_hand, tensor in (("beta", gbeta, beta), ("gamma", ggamma, gamma), ("w", gw, w), ("x", gx, x)):
        compare(name, by_hand, tensor)


if __name__ == "__main__":
    two_layer_net()
    residual_block()
    print("Every gradient by hand is the engine's.")
