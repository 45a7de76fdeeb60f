// Cross-entropy of rows (N, C). A warp has a row, and adds it up in the same order at every launch.
#include "common.cuh"

#define WARP 0xffffffffu // all of its threads

__device__ __forceinline__ double warp_sum(double value) {
    for (int mask = 16; mask > 0; mask /= 2) value += __shfl_xor_sync(WARP, value, mask);
    return value;
}

// What softmax needs to know of a row: see kernels/portable/loss.py.
struct Row {
    float top;     // its maximum
    double others; // the sum of exp(z - top) over all but the first of the maxima; NaN if there is a NaN

    __device__ Row(const float* z, int C, int lane) {
        int place = 0;
        top = z[0];
        for (int c = lane; c < C; c += 32)
            if (z[c] > top) top = z[c], place = c;
        for (int mask = 16; mask > 0; mask /= 2) {
            float value = __shfl_xor_sync(WARP, top, mask);
            int where = __shfl_xor_sync(WARP, place, mask);
            if (value > top || (value == top && where < place)) top = value, place = where;
        }
        double sum = 0;
        for (int c = lane; c < C; c += 32) {
            float shifted = z[c] - top;
            sum += c == place ? shifted : expf(shifted); // 0, or NaN where the maximum is infinite: all of its row is
        }
        others = warp_sum(sum);
    }
};

// A target outside of [0, C) gives NaN, and nothing beyond the row is read. A scale of 0 gives 0; null is 1.
extern "C" __global__ void __launch_bounds__(THREADS) cross_entropy(
    const float* z, const long long* target, const float* scale, float* loss, long long N, int C
) {
    long long row = (long long)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (row >= N) return; // a whole warp
    z += row * C;
    Row r(z, C, lane);
    if (lane > 0) return;
    long long t = target[row];
    float times = scale ? scale[row] : 1.f;
    float value = t >= 0 && t < C ? log1pf((float)r.others) - (z[t] - r.top) : nanf("");
    loss[row] = times == 0.f ? 0.f : value * times;
}

// The target's entry is minus the sum of the others.
extern "C" __global__ void __launch_bounds__(THREADS) cross_entropy_grad(
    const float* gy, const float* z, const long long* target, const float* scale, float* gz, long long N, int C
) {
    long long row = (long long)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (row >= N) return; // a whole warp
    z += row * C;
    gz += row * C;
    Row r(z, C, lane);
    long long t = target[row];
    bool has_target = t >= 0 && t < C;
    float times = scale ? scale[row] : 1.f, factor = has_target ? gy[row] * times : nanf("");
    double sum = 0, share = 1 / (1 + r.others);
    for (int c = lane; c < C; c += 32) {
        if (c == t) continue;
        double p = expf(z[c] - r.top) * share;
        sum += p;
        gz[c] = times == 0.f ? 0.f : factor * (float)p;
    }
    sum = warp_sum(sum);
    if (lane == 0 && has_target) gz[t] = times == 0.f ? 0.f : factor * (float)-sum;
}
