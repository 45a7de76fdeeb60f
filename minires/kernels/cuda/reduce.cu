// Sums down the rows of (M, C), in double.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) column_sums(
    const float* x, double* part, long long M, int C, int groups, long long rows
) {
    Tile t(M, C, groups, rows);
    double sum[V] = {};
    if (t.inside)
        for (long long r = t.first; r < t.last; r += t.lanes) {
            Floats here = load(x + r * C + t.channel);
            for (int v = 0; v < V; v++) sum[v] += here.at[v];
        }
    t.sum_lanes(sum, part + (long long)blockIdx.x * C);
}

// A block finishes 32 columns.
extern "C" __global__ void __launch_bounds__(THREADS) column_sums_finish(
    const double* part, float* sum, int parts, int C
) {
    int c = blockIdx.x * 32 + threadIdx.x % 32;
    double total = sum_parts(part + c, parts, C, c < C);
    if (threadIdx.x < 32 && c < C) sum[c] = (float)total;
}
