// Convolution's gathers; the matrix products are cuBLAS's. Indices within a chunk fit 32 bits: conv.py sees to it.
#include "common.cuh"

// cols (N*OH*OW, KH*KW*C) from x (N, H, W, C). A thread copies V channels of one place in one window.
extern "C" __global__ void __launch_bounds__(THREADS) im2col(const float* x, float* cols, unsigned total, Window g) {
    unsigned i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= total) return;
    unsigned groups = g.C / V, channel = i % groups * V, place = i / groups % (g.KH * g.KW);
    unsigned row = i / groups / (g.KH * g.KW), ow = row % g.OW, line = row / g.OW; // of all images' lines
    int h = (int)(line % g.OH) * g.sh - g.top + (int)(place / g.KW) * g.dh;
    int w = (int)ow * g.sw - g.left + (int)(place % g.KW) * g.dw;
    Floats value = {};
    if (h >= 0 && h < g.H && w >= 0 && w < g.W)
        value = load(x + ((line / g.OH * g.H + h) * g.W + w) * g.C + channel);
    store(cols + i * V, value);
}

// The adjoint: each pixel of x (N, H, W, C) gathers what came from it, window place by window place, so that nothing is
// written twice and sums have one order.
extern "C" __global__ void __launch_bounds__(THREADS) col2im(const float* cols, float* x, unsigned total, Window g) {
    unsigned i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= total) return;
    unsigned groups = g.C / V, channel = i % groups * V, width = g.KH * g.KW * g.C; // of a row of cols
    unsigned line = i / groups / g.W, w = i / groups % g.W, h = line % g.H;
    Floats sum = {};
    for (int r = 0; r < g.KH; r++) {
        int down = (int)h + g.top - r * g.dh, oh = down / g.sh;
        if (down < 0 || down % g.sh || oh >= g.OH) continue;
        for (int s = 0; s < g.KW; s++) {
            int across = (int)w + g.left - s * g.dw, ow = across / g.sw;
            if (across < 0 || across % g.sw || ow >= g.OW) continue;
            unsigned row = (line / g.H * g.OH + oh) * g.OW + ow;
            Floats value = load(cols + row * width + (r * g.KW + s) * g.C + channel);
            for (int v = 0; v < V; v++) sum.at[v] += value.at[v];
        }
    }
    store(x + i * V, sum);
}

// y (M, C), in place: + bias (C,), + add (M, C), where these are not null, then ReLU.
extern "C" __global__ void __launch_bounds__(THREADS) conv_epilogue(
    float* y, const float* bias, const float* add, long long M, int C, int groups, long long rows, int with_relu
) {
    Tile t(M, C, groups, rows);
    if (!t.inside) return;
    Floats b = {};
    if (bias) b = load(bias + t.channel);
    for (long long r = t.first; r < t.last; r += t.lanes) {
        long long at = r * C + t.channel;
        Floats here = load(y + at), z = {};
        if (add) z = load(add + at);
        for (int v = 0; v < V; v++) {
            float value = here.at[v] + b.at[v] + z.at[v];
            here.at[v] = with_relu ? relu(value) : value;
        }
        store(y + at, here);
    }
}
