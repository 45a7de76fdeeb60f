// Random words, and dropout's masks.
#include "philox.cuh"

#define THREADS 256

extern "C" __global__ void __launch_bounds__(THREADS) philox4x32(
    const unsigned* counter, unsigned* words, long long rows, unsigned key0, unsigned key1, int rounds
) {
    long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
    if (i >= rows) return;
    Words c = {counter[4 * i], counter[4 * i + 1], counter[4 * i + 2], counter[4 * i + 3]};
    c = philox(c, key0, key1, rounds);
    for (int k = 0; k < 4; k++) words[4 * i + k] = c.at[k];
}

// Four elements a thread: those whose words the counter i gives.
extern "C" __global__ void __launch_bounds__(THREADS) dropout_mask(
    bool* mask, long long size, unsigned key0, unsigned key1, unsigned threshold
) {
    long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
    if (4 * i >= size) return;
    Words c = {(unsigned)i, (unsigned)(i >> 32), 0, 0};
    c = philox(c, key0, key1, 10);
    for (int k = 0; k < 4 && 4 * i + k < size; k++) mask[4 * i + k] = c.at[k] >= threshold;
}
