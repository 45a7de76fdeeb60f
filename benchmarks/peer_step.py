"""ResNet-18's training step in Chainer or DeZero, run by an interpreter that has them: see bench_peers.py.

    python peer_step.py chainer|dezero weights.npz

Reads lines from standard input and answers each with the loss of one training step. The archive holds minires's first
weights under torchvision's names (OIHW), images (N, C, H, W) and labels. Imports nothing of minires.
"""

import sys

import numpy as np

LR, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4


class Chainer:
    """What the net is made of, in Chainer's words."""

    def __init__(self):
        import chainer
        from chainer import functions, links

        self.model, self.F, self.L = chainer.Chain(), functions, links
        self.optimizer = chainer.optimizers.MomentumSGD(LR, MOMENTUM)
        self.decay = chainer.optimizer_hooks.WeightDecay(WEIGHT_DECAY)
        self.pool = functions.average_pooling_2d

    def add(self, name, layer):
        with self.model.init_scope():
            setattr(self.model, name.replace(".", "_"), layer)
        return layer

    def conv(self, name, w, stride):
        o, i, k, _ = w.shape
        return self.add(name, self.L.Convolution2D(i, o, k, stride, k // 2, nobias=True, initialW=w))

    def norm(self, name, channels):
        return self.add(name, self.L.BatchNormalization(channels, eps=1e-5))

    def linear(self, name, w, b):
        return self.add(name, self.L.Linear(*w.shape[::-1], initialW=w, initial_bias=b))

    def loss(self, logits, labels):
        return self.F.softmax_cross_entropy(logits, labels)

    def clear(self):
        self.model.cleargrads()


class DeZero(Chainer):
    """The same in DeZero's."""

    def __init__(self):
        import dezero
        from dezero import functions, layers, optimizers

        self.model, self.F, self.L = dezero.Model(), functions, layers
        self.optimizer = optimizers.MomentumSGD(LR, MOMENTUM)
        self.decay = optimizers.WeightDecay(WEIGHT_DECAY)
        self.pool = functions.average_pooling

    def add(self, name, layer):
        setattr(self.model, name.replace(".", "_"), layer)
        return layer

    def conv(self, name, w, stride):
        o, i, k, _ = w.shape
        layer = self.L.Conv2d(o, k, stride, k // 2, nobias=True, in_channels=i)
        layer.W.data = w
        return self.add(name, layer)

    def norm(self, name, channels):
        return self.add(name, self.L.BatchNorm())

    def linear(self, name, w, b):
        layer = self.L.Linear(w.shape[0], in_size=w.shape[1])
        layer.W.data, layer.b.data = w.T.copy(), b
        return self.add(name, layer)


def build(library, weights):
    """The net as a function from images to logits."""

    def conv_norm(conv, norm, stride):
        w = weights[f"{conv}.weight"]
        convolve, normalise = library.conv(conv, w, stride), library.norm(norm, len(w))
        return lambda x: normalise(convolve(x))

    relu = library.F.relu
    stem = conv_norm("conv1", "bn1", 1)
    blocks = []
    for stage in range(1, 5):
        for block in range(2):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            first = conv_norm(f"{name}.conv1", f"{name}.bn1", stride)
            second = conv_norm(f"{name}.conv2", f"{name}.bn2", 1)
            down = f"{name}.downsample"
            short = conv_norm(f"{down}.0", f"{down}.1", stride) if f"{down}.0.weight" in weights else None
            blocks.append((first, second, short))
    classify = library.linear("fc", weights["fc.weight"], weights["fc.bias"])

    def net(x):
        y = relu(stem(x))
        for first, second, short in blocks:
            y = relu(second(relu(first(y))) + (y if short is None else short(y)))
        y = library.pool(y, y.shape[2])
        return classify(library.F.reshape(y, y.shape[:2]))

    return net


def main():
    library = {"chainer": Chainer, "dezero": DeZero}[sys.argv[1]]()
    given = dict(np.load(sys.argv[2]))
    images, labels = given["images"], given["labels"]
    net = build(library, given)
    library.optimizer.setup(library.model)
    library.optimizer.add_hook(library.decay)
    for _ in sys.stdin:
        loss = library.loss(net(images), labels)
        library.clear()
        loss.backward()
        library.optimizer.update()
        print(float(loss.data), flush=True)


if __name__ == "__main__":
    main()
