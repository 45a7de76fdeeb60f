"""The emulator finds what it says it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cuda import emulator
from tests.cuda.fake_cupy import ndarray

pytestmark = pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))

KERNEL = 'extern "C" __global__ void __launch_bounds__(64) kernel'


def run(folder: Path, text: str, grid: tuple[int, ...], threads: int, *arguments: Any) -> None:
    """Build a source and run its kernel once."""
    path = folder / f"{len(list(folder.iterdir()))}.so"  # what was loaded by a name stays loaded
    path.write_bytes(emulator.build(text, {}))
    emulator.Module(str(path)).get_function("kernel")(grid, (threads,), arguments)


def under(schedule: str, folder: Path, text: str, grid: tuple[int, ...], threads: int, size: int) -> np.ndarray:
    """What the kernel writes into an array of int under a schedule."""
    written = np.full(size, -1, np.int32)
    with emulator.scheduled(schedule, 1):
        run(folder, text, grid, threads, ndarray(written))
    return written


schedules = pytest.mark.parametrize("schedule", emulator.SCHEDULES)


@schedules
def test_indices(schedule: str, tmp_path: Path) -> None:
    """Each thread of each block runs once and knows its place, in all three dimensions of the grid."""
    text = (
        KERNEL
        + """(int* out) {
        int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
        int at = block * blockDim.x + threadIdx.x;
        out[at] += 1 + (blockIdx.x < 5 && blockIdx.y < 3 && blockIdx.z < 2 ? at : 1000000);
    }"""
    )
    written = under(schedule, tmp_path, text, (5, 3, 2), 64, 5 * 3 * 2 * 64)
    np.testing.assert_array_equal(written, np.arange(written.size))


# Each thread reads what one of the next warp, or of its own, has written before a barrier that may not be there.
EXCHANGE = (
    KERNEL
    + """(int* out) {
    __shared__ int values[64];
    values[threadIdx.x] = threadIdx.x;
    BARRIER
    out[threadIdx.x] = values[(threadIdx.x + DISTANCE) % 64];
}"""
)


def exchanged(schedule: str, folder: Path, barrier: str, distance: int) -> bool:
    """Whether each thread reads what it should, under a schedule."""
    text = EXCHANGE.replace("BARRIER", barrier).replace("DISTANCE", str(distance))
    return bool((under(schedule, folder, text, (1,), 64, 64) == (np.arange(64) + distance) % 64).all())


@schedules
@pytest.mark.parametrize("distance", [-1, 33])
def test_a_barrier_orders_threads(schedule: str, distance: int, tmp_path: Path) -> None:
    assert exchanged(schedule, tmp_path, "__syncthreads();", distance)


@pytest.mark.parametrize("distance", [1, 63])
def test_a_missing_barrier_is_found(distance: int, tmp_path: Path) -> None:
    assert not all(exchanged(schedule, tmp_path, "", distance) for schedule in emulator.SCHEDULES)


@pytest.mark.parametrize("schedule", ["greedy", "greedy backward"])
def test_a_barrier_of_a_warp_is_none_of_the_block(schedule: str, tmp_path: Path) -> None:
    assert not exchanged(schedule, tmp_path, "__syncwarp();", 32)


def test_a_barrier_that_some_never_reach(tmp_path: Path) -> None:
    """The block's others wait, and the launch after it runs as if nothing had been."""
    text = """(int* out, int lanes) {
        if (threadIdx.x % 32 < lanes) __syncthreads();
        out[threadIdx.x] = 1;
        __syncwarp();
    }"""
    (tmp_path / "kernel.so").write_bytes(emulator.build(KERNEL + text, {}))
    kernel, out = emulator.Module(str(tmp_path / "kernel.so")).get_function("kernel"), np.zeros(64, np.int32)
    with pytest.raises(RuntimeError, match="kernel: deadlock"):
        kernel((1,), (64,), (ndarray(out), np.int32(8)))
    assert not out[:8].any()
    kernel((1,), (64,), (ndarray(out), np.int32(32)))
    assert out.all()


@schedules
def test_shared_memory_begins_as_nan(schedule: str, tmp_path: Path) -> None:
    """In each block, whatever the block before it left there."""
    text = (
        KERNEL
        + """(int* out) {
        __shared__ float values[64];
        out[blockIdx.x * 64 + threadIdx.x] = values[threadIdx.x] != values[threadIdx.x];
        values[threadIdx.x] = 1;
    }"""
    )
    assert (under(schedule, tmp_path, text, (3,), 64, 192) == 1).all()


@schedules
def test_shuffles(schedule: str, tmp_path: Path) -> None:
    """A thread gets another's value, of its own warp, at each of several in a row."""
    text = (
        KERNEL
        + """(int* out) {
        int value = threadIdx.x;
        for (int mask = 16; mask > 0; mask /= 2) value += __shfl_xor_sync(~0u, value, mask);
        out[threadIdx.x] = value + 10000 * __shfl_sync(~0u, (int)threadIdx.x, 3);
    }"""
    )
    threads = np.arange(64)
    want = np.where(threads < 32, sum(range(32)), sum(range(32, 64))) + 10000 * (threads // 32 * 32 + 3)
    np.testing.assert_array_equal(under(schedule, tmp_path, text, (1,), 64, 64), want)


def test_schedules_are_orders(tmp_path: Path) -> None:
    """Of the threads, and of the blocks: in what order each comes by."""
    text = KERNEL + "(int* out) { int turn = ++out[128]; out[blockIdx.x * 64 + threadIdx.x] = turn; }"
    found = {schedule: under(schedule, tmp_path, text, (2,), 64, 129)[:128] for schedule in emulator.SCHEDULES}
    np.testing.assert_array_equal(found["forward"], np.arange(128))
    np.testing.assert_array_equal(found["backward"], np.arange(128)[::-1])
    assert sorted(found["random"]) == list(range(128))
    assert len(set(np.sign(np.diff(found["random"][:64])))) == 2
    assert len({order.tobytes() for order in found.values()}) == 3  # without a barrier the greedy ones add none


@pytest.mark.parametrize("offset", [0, 1])
def test_a_vector_at_an_address_that_is_none(offset: int, tmp_path: Path) -> None:
    text = (
        "struct alignas(16) Four { float at[4]; };\n"
        + KERNEL
        + "(float* out) { *(Four*)(out + 4 * threadIdx.x) = Four{}; }"
    )
    array = ndarray(np.ones(4 * 64 + 1, np.float32)[offset : 4 * 64 + offset])
    if offset:
        with pytest.raises(RuntimeError, match="kernel: misaligned"):
            run(tmp_path, text, (1,), 64, array)
    else:
        run(tmp_path, text, (1,), 64, array)
        assert not array._array.any()


def test_libraries_share_nothing(tmp_path: Path) -> None:
    """Two builds of one header, which differ in the size of what it shares, in one process."""
    text = """inline __device__ int total(int n) {
        __shared__ int values[SIZE];
        values[threadIdx.x] = 1;
        __syncthreads();
        int sum = 0;
        for (int i = 0; i < n; i++) sum += values[i];
        return sum;
    }
    """ + KERNEL + "(int* out) { out[threadIdx.x] = total(blockDim.x); }"  # fmt: skip
    for threads in (32, 1024):
        sized = text.replace("SIZE", str(threads)).replace("(64)", "(1024)")
        assert (under("forward", tmp_path, sized, (1,), threads, threads) == threads).all()


def test_what_the_compiler_says(tmp_path: Path) -> None:
    with pytest.raises(emulator.BuildError, match="nonsense"):
        run(tmp_path, KERNEL + "(int* out) { nonsense(); }", (1,), 32)
