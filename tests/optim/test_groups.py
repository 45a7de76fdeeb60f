"""Groups with and without weight decay."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from minires import Tensor, models, nn, optim


def test_norms_and_biases_of_resnet18_do_not_decay() -> None:
    model = models.resnet18(10, generator=np.random.default_rng(0))
    decayed, others = optim.decay_groups(model, 5e-4)
    names = {id(p): name for name, p in model.named_parameters()}
    free = {names[id(p)] for p in others["params"]}
    assert free == {n for n in names.values() if n.endswith("bias") or "bn" in n or "downsample.1" in n}
    assert {names[id(p)] for p in decayed["params"]} == set(names.values()) - free
    assert (len(decayed["params"]), len(others["params"])) == (21, 41)
    assert (decayed["weight_decay"], others["weight_decay"]) == (5e-4, 0.0)


def test_a_step_pulls_only_weights() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm2d(2))
    for make in (optim.SGD, optim.AdamW):
        for p in model.parameters():
            p.data[...] = 1
            p.grad = Tensor(np.zeros(p.shape, np.float32))
        make(optim.decay_groups(model, 0.5), lr=0.1, weight_decay=99.0).step()
        left = [set(p.data.ravel().tolist()) for p in model.parameters()]
        assert left == [{float(np.float32(0.95))}, {1.0}, {1.0}, {1.0}]


def test_anything_with_named_parameters_will_do() -> None:
    params = {"w": nn.Parameter(np.ones((2, 2))), "scale": nn.Parameter(np.ones(()))}
    decayed, others = optim.decay_groups(SimpleNamespace(named_parameters=params.items), 0.1)
    assert decayed["params"] == [params["w"]]
    assert others["params"][0] is params["scale"]
