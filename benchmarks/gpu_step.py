"""A whole training step on the GPU, from the data set's pixels to the new weights, of minires and of PyTorch.

Both take their batches from minires's loader, whose augmentation is one kernel on the device. Loss and gradients of
one batch are held against float64 first; then steps are timed in turns, and what bounds them is looked for.
"""

from __future__ import annotations

import functools
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks import gpu_cases, gpu_peers
from benchmarks.gpu_run import Run, described, to_gpu
from benchmarks.harness import Contender
from benchmarks.report import Row
from benchmarks.steps import SGD
from minires import Tensor, data, kernels, models, optim, training
from minires.kernels.cuda import blas
from minires.nn import functional as F
from minires.nn.module import OIHW_FROM_HWIO

STRICT, BASELINE = "PyTorch strict", "PyTorch TF32"
WARMUP = 3  # steps that fill both libraries' pools of memory
CHECKED = 128  # images whose gradients are compared with those that the CPU makes in float64, at most
AHEAD = 0.2  # seconds of work that a step is queued behind, to see whether it waits

# How far off float64 the loss may be, relatively, and all gradients by their L2 norm. A ReLU input near 0 that rounds
# to the other side moves gradients by some 4e-3 in all, in PyTorch as here: strict ones may be 1e-3 off, or twice as
# far as PyTorch's.
LOSS = {"strict": 1e-5, "TF32": 1e-2, "bf16": 5e-2}
GRADIENTS = {"strict": 2e-2, "TF32": 0.3, "bf16": 0.5}
LEAST = 1e-3


class Trainer:
    """minires's training step at one precision."""

    def __init__(self, model: models.ResNet, precision: str) -> None:
        self.model, self.precision = model.to("cuda"), precision
        self.optimizer = optim.SGD(self.model.parameters(), **SGD)

    def backward(self, images: Any, labels: Any) -> Tensor:
        """The loss, with gradients made anew."""
        with kernels.precision(self.precision):
            self.model.train()
            loss = F.cross_entropy(self.model(Tensor(images)), Tensor(labels))
            self.optimizer.zero_grad()
            loss.backward()
        return loss

    def step(self, images: Any, labels: Any) -> Tensor:
        """One step; the loss before it, which nobody waits for."""
        loss = self.backward(images, labels)
        self.optimizer.step()
        return loss

    def gradients(self) -> dict[str, np.ndarray]:
        """What `backward` left, on the CPU and in PyTorch's layout."""
        return _gradients(self.model)

    def accuracy(self, batches: Any) -> float:
        """The share of right answers in percent."""
        with kernels.precision(self.precision):
            return training.evaluate(self.model, batches, "cuda")[1]


def _gradients(model: models.ResNet) -> dict[str, np.ndarray]:
    found = {name: p.grad.to("cpu").numpy().astype(np.float64) for name, p in model.named_parameters()}
    return {name: g.transpose(OIHW_FROM_HWIO) if g.ndim == 4 else g for name, g in found.items()}


def contenders(run: Run, with_compiler: bool) -> dict[str, tuple[str, Callable[[], Any]]]:
    """Name -> kind of precision, and what makes the contender. PyTorch's strict one comes first."""
    torch, reason = gpu_peers.find()
    made: dict[str, tuple[str, Callable[[], Any]]] = {}
    if torch is None:
        run.note(f"{reason}: minires is timed alone")
    else:
        last = "channels_last"
        made[STRICT] = "strict", functools.partial(theirs, run)
        made[BASELINE] = "TF32", functools.partial(theirs, run, tf32=True, layout=last)
        made["PyTorch bf16"] = "bf16", functools.partial(theirs, run, tf32=True, layout=last, bf16=True)
        if with_compiler:
            made["torch.compile TF32"] = "TF32", functools.partial(theirs, run, tf32=True, layout=last, compiled=True)
    for name, kind, precision in (("minires strict", "strict", "exact"), ("minires TF32", "TF32", "tf32")):
        made[name] = kind, functools.partial(ours, run, precision)
    return made


def ours(run: Run, precision: str) -> Trainer:
    """minires's, from the first weights."""
    return Trainer(gpu_cases.network(run.sizes), precision)


def theirs(run: Run, **settings: Any) -> gpu_peers.Trainer:
    """PyTorch's, from the same."""
    torch, sizes = gpu_peers.find()[0], run.sizes
    state = {name: t.numpy() for name, t in gpu_cases.network(sizes).state_dict("OIHW").items()}
    return gpu_peers.Trainer(torch, gpu_peers.network(torch, sizes.layers, sizes.widths), state, **settings)


def dataset(run: Run) -> data.ImageDataset:
    """Random images on the device, augmented as CIFAR-10's are."""
    rng, side, count = np.random.default_rng(0), run.sizes.image, run.sizes.images
    pixels = rng.integers(0, 256, (count, side, side, 3), np.uint8)
    transform = data.Compose(gpu_cases.steps(run.sizes))
    classes = [str(i) for i in range(10)]
    return data.ImageDataset(pixels, rng.integers(0, 10, count), classes, transform, name="random images").to("cuda")


def endless(images: data.ImageDataset, batch: int) -> Iterator[tuple[Any, Any]]:
    """Whole batches, epoch after epoch, as arrays on the device."""
    loader = data.DataLoader(images, batch, shuffle=True, drop_last=True)
    while True:
        for x, y in loader:
            yield x.data, y.data


def reference(run: Run, images: np.ndarray, labels: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradients in float64: PyTorch's on the GPU, or minires's on the CPU where there is none."""
    if gpu_peers.find()[0] is not None:
        right = theirs(run, dtype="float64")
        return right.backward(to_gpu(images), to_gpu(labels)).item(), right.gradients()
    model = gpu_cases.network(run.sizes).to("float64").train()
    loss = F.cross_entropy(model(Tensor(images.astype(np.float64))), Tensor(labels))
    loss.backward()
    return loss.item(), _gradients(model)


def distance(found: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]) -> float:
    """The L2 norm of all differences over that of what is right."""
    off = sum(float(np.sum((found[name] - right[name]) ** 2)) for name in right)
    return float(np.sqrt(off / sum(float(np.sum(g**2)) for g in right.values())))


def check(
    trainer: Any,
    kind: str,
    images: Any,
    labels: Any,
    right: tuple[float, dict[str, np.ndarray]],
    peer: float | None,
) -> tuple[dict[str, float], str]:
    """How far off loss and gradients are, and what is wrong with that; `peer` is how far PyTorch's strict ones are."""
    loss = trainer.backward(images, labels).item()
    off = {"loss off": abs(loss / right[0] - 1), "gradients off": distance(trainer.gradients(), right[1])}
    bounds = LOSS[kind], GRADIENTS[kind] if kind != "strict" or peer is None else max(LEAST, 2 * peer)
    wrong = [
        f"{what} by {value:.1e}, more than {bound:.1e}"
        for (what, value), bound in zip(off.items(), bounds, strict=True)
        if not value <= bound  # NaN is refused too
    ]
    return off, ", ".join(wrong)


def measure(
    run: Run, images: data.ImageDataset, batch: int, with_compiler: bool
) -> Iterator[tuple[Row, Callable[[], Any]]]:
    """Check, warm up and time all contenders at one batch size: their rows and steps."""
    x, y = next(endless(images, min(batch, CHECKED) if gpu_peers.find()[0] is None else batch))
    right = reference(run, *(a.get() for a in (x, y)))
    ready: dict[str, Callable[[], Any]] = {}
    extra: dict[str, dict[str, float]] = {}
    for name, (kind, make) in contenders(run, with_compiler).items():
        gc.collect()
        try:
            before, trainer = memory(), make()
            extra[name], wrong = check(trainer, kind, x, y, right, extra.get(STRICT, {}).get("gradients off"))
            if wrong:
                run.problem(f"training step of {name} at batch {batch} was not timed: it is off {wrong}")
                continue
            call = functools.partial(step, trainer, endless(images, batch))
            run.queue(call, WARMUP)
            memory()  # what cuDNN tried out, and what the check needed, is no part of a step
            run.queue(call, 1)
            extra[name]["peak MB"] = (memory(most=True) - before) / 1e6
        except Exception as error:  # whatever a library, a compiler or a device raises: the others go on
            told = f"training step of {name} at batch {batch} failed: {described(error)}"
            (run.note if "compile" in name else run.problem)(told)
            continue
        ready[name] = call
    shape = f"{run.sizes.image}x{run.sizes.image} images, batch {batch}"
    calls = {name: Contender(call) for name, call in ready.items()}
    before = len(run.report.rows)
    run.measure("training step", shape, calls, items=batch, extra=extra, turn=run.sizes.step_turn)
    rows = {row.contender: row for row in run.report.rows[before:]}
    for row in rows.values():
        if BASELINE in rows:
            row.extra["over PyTorch TF32"] = rows[BASELINE].median / row.median
        yield row, ready[row.contender]


def step(trainer: Any, batches: Iterator[tuple[Any, Any]]) -> Any:
    """A batch and a step with it."""
    return trainer.step(*next(batches))


def memory(most: bool = False) -> int:
    """Bytes that both libraries hold on the device; or the most since they were last asked for that."""
    import cupy

    torch, _ = gpu_peers.find()
    pool = cupy.get_default_memory_pool()  # it grows to the most
    if not most:
        pool.free_all_blocks()
    theirs = 0 if torch is None else gpu_peers.memory(torch, most)
    return pool.total_bytes() + theirs


def explain(run: Run, call: Callable[[], Any]) -> dict[str, float]:
    """What a step asks of the CPU and of the GPU."""
    queued = []
    for _ in range(run.rounds):
        run.wait()
        start = time.perf_counter()
        call()
        queued.append(time.perf_counter() - start)
    run.wait()
    seconds = statistics.median(queued)
    found = {"queue ms": 1e3 * seconds, "waits": float(all(waits(run, call) for _ in range(2)))}
    torch, _ = gpu_peers.find()
    if torch is not None:
        try:
            launches, busy = gpu_peers.profile(torch, call, run.wait)
        except Exception as error:
            run.note(f"PyTorch's profiler failed: {described(error)}")
            return found
        if launches:
            found |= {"launches": launches, "GPU ms": 1e3 * busy, "us/launch": 1e6 * seconds / launches}
    return found


def waits(run: Run, call: Callable[[], Any]) -> bool:
    """Whether a call returns only after work that was queued before it. An epoch's new order does: try twice."""
    import cupy

    a, b, out = (cupy.ones((run.sizes.gemm, run.sizes.gemm), np.float32) for _ in range(3))
    multiply = functools.partial(blas.gemm, a, b, out)
    run.queue(multiply, 1)
    times = run.count(multiply, AHEAD)
    start = time.perf_counter()
    for _ in range(times):
        multiply()
    before = time.perf_counter()
    call()
    returned = time.perf_counter()
    run.wait()
    return returned - before > (time.perf_counter() - start) / 2


def bound(run: Run, row: Row, who: str) -> None:
    """Say what a step's time is made of."""
    ms, queue, busy = 1e3 * row.median, row.extra["queue ms"], row.extra.get("GPU ms")
    side = "CPU" if queue > 0.9 * ms else "GPU"
    text = f"{who} is bound by the {side}: {ms:.2f} ms a step, of which the CPU needs {queue:.2f} ms to queue it"
    if busy is not None:
        text += f" ({row.extra['launches']:.0f} launches), and the GPU {busy:.2f} ms to run it"
    run.note(text + ("; it waits for the GPU" if row.extra["waits"] else ""))


def part(run: Run, with_compiler: bool) -> None:
    """At each batch size."""
    images = dataset(run)
    timed = [pair for batch in run.sizes.batches for pair in measure(run, images, batch, with_compiler)]
    for row, call in timed:  # last: a profiler may slow down what comes after it
        row.extra |= explain(run, call)
        bound(run, row, f"{row.contender} at batch {row.items}")
