"""The convolutions of ResNet-18 on the GPU, strict and in TF32, beside those of PyTorch's cuDNN."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import numpy as np

from benchmarks import bench_conv, gpu_cases, gpu_peers
from benchmarks.checking import Error
from benchmarks.gpu_run import TF32, Run, described, product, to_gpu, to_host
from benchmarks.harness import Contender
from benchmarks.layers import Layer
from benchmarks.report import Row, Work
from minires.kernels import registry
from minires.kernels.cuda import blas

PEER = Error(1e-3, 1e-4)  # whatever algorithm cuDNN takes in strict float32; TF32 is off by 3e-4 (rms) or more


def part(run: Run) -> None:
    """Each distinct layer, forward and both gradients, and the product alone that im2col makes of it."""
    walked, totals = gpu_cases.layers(run.sizes), Counter[str]()
    for layer in walked:
        operands = (*bench_conv.draw(layer, run.sizes.batches[0], np.random.default_rng(0)), layer.geometry)
        for what in bench_conv.PASSES:
            if what != "gx" or layer is not walked[0]:  # nothing needs the gradient of the images
                try:
                    for row in convolution(run, layer, what, operands):
                        totals[row.contender] += len(layer.names) * row.median
                except Exception as error:  # the others go on
                    run.problem(f"{bench_conv.PASSES[what]} of {layer.label} was not measured: {described(error)}")
        multiply(run, layer)
    epilogue(run, walked[0])
    together = ", ".join(f"{who} {1e3 * seconds:.3g} ms" for who, seconds in totals.items())
    run.note(f"all convolutions of a training step at batch {run.sizes.batches[0]}: {together}")


def convolution(run: Run, layer: Layer, what: str, operands: Any) -> list[Row]:
    """One pass of a layer, strict and in TF32, beside cuDNN's: the rows."""
    name, batch = bench_conv.PASSES[what], run.sizes.batches[0]
    right = bench_conv.reference(what, *operands)
    kh, kw, c, o = layer.w_shape
    terms = {"fwd": kh * kw * c, "gx": kh * kw * o, "gw": batch * layer.output_size[0] * layer.output_size[1]}[what]
    bound = product(terms)
    contenders = on_device(name, bench_conv.kernel_arguments(what, *operands), bound)
    torch, reason = gpu_peers.find()
    if torch is None:
        run.note(f"{reason}: convolutions are timed alone")
    else:
        contenders["PyTorch strict"] = gpu_peers.contender(torch, what, operands, False, PEER)
        contenders["PyTorch TF32"] = gpu_peers.contender(torch, what, operands, True, TF32)
    before = len(run.report.rows)
    run.hold(name, run.measure(name, layer.describe(batch), contenders, layer.work(batch), right))
    rows = {row.contender: row for row in run.report.rows[before:]}
    for who, peer in (("cuda", "PyTorch strict"), ("tf32", "PyTorch TF32")):
        if who in rows and peer in rows:
            rows[who].extra["over PyTorch"] = rows[peer].median / rows[who].median
    return list(rows.values())


def on_device(name: str, args: Any, bound: Error) -> dict[str, Contender]:
    """The CUDA variants of a convolution with arguments on the device: cuda and tf32."""
    given = tuple(to_gpu(list(args)))
    return {
        v.name: Contender(functools.partial(v.function, *given), to_host, bound=TF32 if v.name == "tf32" else bound)
        for v in registry[name].variants
        if v.accepts is not None and v.accepts.device == "cuda"
    }


def multiply(run: Run, layer: Layer) -> None:
    """The matrix product of a layer's forward pass, without im2col."""
    import cupy

    kh, kw, c, o = layer.w_shape
    m = run.sizes.batches[0] * layer.output_size[0] * layer.output_size[1]
    cols, w = cupy.ones((m, kh * kw * c), np.float32), cupy.ones((kh * kw * c, o), np.float32)
    y = cupy.empty((m, o), np.float32)
    calls = {
        name: Contender(functools.partial(blas.gemm, cols, w, y, tf32=tf32))
        for name, tf32 in (("cuda", False), ("tf32", True))
    }
    run.measure("its product alone", f"{m} x {kh * kw * c} x {o}", calls, Work(2 * m * kh * kw * c * o))


def epilogue(run: Run, layer: Layer) -> None:
    """The first layer with bias, addition and ReLU."""
    rng, batch = np.random.default_rng(0), run.sizes.batches[0]
    x, w, add = bench_conv.draw(layer, batch, rng)
    args = x, w, layer.geometry, rng.standard_normal(w.shape[3], np.float32), add, True
    right = [registry["conv2d"].portable.function(*(a.astype(np.float64) if hasattr(a, "dtype") else a for a in args))]
    contenders = on_device("conv2d", args, product(27))
    shape = f"{layer.describe(batch)}, with bias, addition and ReLU"
    run.hold("conv2d", run.measure("conv2d", shape, contenders, layer.work(batch), right))
