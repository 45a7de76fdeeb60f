// What kernels share: vectors of V floats (the compiler is given V, 4 or 1), and sums down the rows of (M, C) arrays.
#pragma once

#define THREADS 256

struct alignas(4 * V) Floats {
    float at[V];
};

__device__ __forceinline__ Floats load(const float* p) { return *(const Floats*)p; }
__device__ __forceinline__ void store(float* p, Floats v) { *(Floats*)p = v; }

// relu keeps NaN; its gradient at 0 is 0
__device__ __forceinline__ float relu(float x) { return x <= 0.f ? 0.f : x; }
__device__ __forceinline__ float relu_grad(float g, float y) { return y <= 0.f ? 0.f : g; }

// How a window moves: sizes of image, result and window, strides, pads at the top and left, dilations.
struct Window {
    int H, W, C, OH, OW, KH, KW, sh, sw, top, left, dh, dw, unused;
};

// A thread's place where a block of THREADS threads covers a tile of (M, C): `groups` groups of V channels side by side,
// a power of 2 of them, and as many rows at once as there are lanes. Grid: (parts of `rows` rows, tiles of channels).
struct Tile {
    int groups, lanes, group, lane, channel;
    bool inside; // the last tile may reach past C
    long long first, last;

    __device__ Tile(long long M, int C, int groups_, long long rows) {
        groups = groups_;
        lanes = THREADS / groups;
        group = threadIdx.x % groups;
        lane = threadIdx.x / groups;
        channel = (blockIdx.y * groups + group) * V;
        inside = channel < C;
        first = blockIdx.x * rows + lane;
        last = (blockIdx.x + 1) * rows;
        last = last < M ? last : M;
    }

    // Where a thread's sums are in shared memory. Of four channels the places are swapped, so that threads 4 groups
    // apart do not meet in one of its banks.
    __device__ int slot(int lane_, int v) const {
        int swapped = V == 4 ? v ^ ((group >> 2) & 3) : v;
        return (lane_ * groups + group) * V + swapped;
    }

    // Sums a quantity over the lanes, in the same order at every launch, into this part's row of (parts, C). A thread
    // ends with, and the next call begins with, places that are its own: no barrier is needed between calls.
    __device__ void sum_lanes(const double* value, double* part) const {
        __shared__ double sums[THREADS * V];
        for (int v = 0; v < V; v++) sums[slot(lane, v)] = value[v];
        __syncthreads();
        for (int half = lanes / 2; half > 0; half /= 2) {
            if (lane < half)
                for (int v = 0; v < V; v++) sums[slot(lane, v)] += sums[slot(lane + half, v)];
            __syncthreads();
        }
        if (lane == 0 && inside)
            for (int v = 0; v < V; v++) part[channel + v] = sums[slot(0, v)];
    }
};

// The sum of `parts` numbers, `row` apart, of each of 32 columns, by a block of THREADS threads, in a fixed order. The
// first 32 threads get it. As above, no barrier is needed between calls.
__device__ inline double sum_parts(const double* part, int parts, long long row, bool inside) {
    const int lanes = THREADS / 32;
    __shared__ double sums[THREADS];
    int lane = threadIdx.x / 32;
    double total = 0;
    if (inside)
        for (int p = lane; p < parts; p += lanes) total += part[p * row];
    sums[threadIdx.x] = total;
    __syncthreads();
    for (int half = lanes / 2; half > 0; half /= 2) {
        if (lane < half) sums[threadIdx.x] += sums[threadIdx.x + 32 * half];
        __syncthreads();
    }
    return sums[threadIdx.x];
}
