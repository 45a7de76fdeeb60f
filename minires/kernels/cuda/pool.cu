// Pooling of images (N, H, W, C). A thread makes V channels of one pixel of the result: nothing is written twice, and
// terms are added in the order in which the portable kernels add them. Sizes are such that 32 bits count a result's
// elements, and that products of two images' sides fit in them: pool.py sees to it.
#include "common.cuh"

struct alignas(V) Bytes {
    unsigned char at[V];
};

// A thread's place in a result of `total` groups of V channels, whose images are H x W x C.
struct Place {
    bool inside; // the last block may reach past the end
    long long image, own;
    int row, column, channel, C;

    __device__ Place(unsigned total, int H, int W, int C_) {
        unsigned i = blockIdx.x * THREADS + threadIdx.x, groups = C_ / V, pixel = i / groups;
        inside = i < total;
        own = (long long)i * V;
        C = C_;
        channel = i % groups * V;
        column = pixel % W;
        row = pixel / W % H;
        image = pixel / W / H;
    }

    // Where these channels of another pixel are, in an array of images H x W.
    __device__ long long at(int row_, int column_, int H, int W) const {
        return ((image * H + row_) * W + column_) * C + channel;
    }
};

// Calls f(tap, pixel) for the places of a window, row by row; the pixel is null on the padding.
template <class F> __device__ __forceinline__ void each_tap(const float* x, const Place& p, const Window& g, F f) {
    int top = p.row * g.sh - g.top, left = p.column * g.sw - g.left;
    for (int r = 0; r < g.KH; r++)
#pragma unroll 2 // unrolled further, it spills
        for (int s = 0; s < g.KW; s++) {
            int h = top + r * g.dh, w = left + s * g.dw;
            bool on_image = h >= 0 && h < g.H && w >= 0 && w < g.W;
            f(r * g.KW + s, on_image ? x + p.at(h, w, g.H, g.W) : nullptr);
        }
}

// Calls f(tap, oh, ow) for the windows that hold a pixel, by which of its places does: as windows descend, taps ascend.
template <class F> __device__ __forceinline__ void each_window(const Place& p, const Window& g, F f) {
    int row = p.row + g.top, column = p.column + g.left; // counting padding
    for (int oh = min(row / g.sh, g.OH - 1); oh >= 0 && row - oh * g.sh <= (g.KH - 1) * g.dh; oh--) {
        int down = row - oh * g.sh;
        if (down % g.dh) continue;
        for (int ow = min(column / g.sw, g.OW - 1); ow >= 0 && column - ow * g.sw <= (g.KW - 1) * g.dw; ow--) {
            int along = column - ow * g.sw;
            if (along % g.dw == 0) f(down / g.dh * g.KW + along / g.dw, oh, ow);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) max_pool2d(
    const float* x, float* y, unsigned char* index, unsigned total, Window g
) {
    Place p(total, g.OH, g.OW, g.C);
    if (!p.inside) return;
    // the first place on the image wins where all are the lowest there is, as padding is
    int row = (max(g.top - p.row * g.sh, 0) + g.dh - 1) / g.dh;
    int column = (max(g.left - p.column * g.sw, 0) + g.dw - 1) / g.dw;
    Floats best;
    Bytes winner;
    for (int v = 0; v < V; v++) {
        best.at[v] = __int_as_float(0xff800000); // -inf
        winner.at[v] = row * g.KW + column;
    }
    each_tap(x, p, g, [&](int tap, const float* pixel) {
        if (!pixel) return;
        Floats here = load(pixel);
        for (int v = 0; v < V; v++)
            if (here.at[v] > best.at[v] || here.at[v] != here.at[v]) {
                best.at[v] = here.at[v];
                winner.at[v] = tap;
            }
    });
    store(y + p.own, best);
    *(Bytes*)(index + p.own) = winner;
}

extern "C" __global__ void __launch_bounds__(THREADS) max_pool2d_grad(
    const float* gy, const unsigned char* index, float* gx, unsigned total, Window g
) {
    Place p(total, g.H, g.W, g.C);
    if (!p.inside) return;
    Floats sum = {};
    each_window(p, g, [&](int tap, int oh, int ow) {
        long long at = p.at(oh, ow, g.OH, g.OW);
        Bytes winner = *(const Bytes*)(index + at);
        Floats here = load(gy + at);
        for (int v = 0; v < V; v++)
            if (winner.at[v] == tap) sum.at[v] += here.at[v];
    });
    store(gx + p.own, sum);
}

// Divides by `number`, or by count[0], or, where `each`, by the window's own of counts (OH, OW).
extern "C" __global__ void __launch_bounds__(THREADS) avg_pool2d(
    const float* x, const float* count, float number, int each, float* y, unsigned total, Window g
) {
    Place p(total, g.OH, g.OW, g.C);
    if (!p.inside) return;
    Floats sum;
    for (int v = 0; v < V; v++) sum.at[v] = -0.f; // which changes nothing that is added to it
    each_tap(x, p, g, [&](int tap, const float* pixel) {
        Floats here = {};
        if (pixel) here = load(pixel);
        for (int v = 0; v < V; v++) sum.at[v] += here.at[v];
    });
    float places = count ? count[each * (p.row * g.OW + p.column)] : number;
    for (int v = 0; v < V; v++) sum.at[v] /= places;
    store(y + p.own, sum);
}

extern "C" __global__ void __launch_bounds__(THREADS) avg_pool2d_grad(
    const float* gy, const float* count, float number, int each, float* gx, unsigned total, Window g
) {
    Place p(total, g.H, g.W, g.C);
    if (!p.inside) return;
    Floats sum = {};
    each_window(p, g, [&](int tap, int oh, int ow) {
        Floats here = load(gy + p.at(oh, ow, g.OH, g.OW));
        float places = count ? count[each * (oh * g.OW + ow)] : number;
        for (int v = 0; v < V; v++) sum.at[v] += here.at[v] / places;
    });
    store(gx + p.own, sum);
}

// Window i of `count` windows over `size` places: see kernels/portable/pool.py.
struct Span {
    int first, end;

    __device__ Span(unsigned i, unsigned size, unsigned count) {
        first = i * size / count;
        end = ((i + 1) * size + count - 1) / count;
    }

    __device__ int places() const { return end - first; }
};

// The sum of f(row, column) over a window: down its rows, AT_ONCE of them in flight, then along them.
template <int AT_ONCE, class F> __device__ __forceinline__ Floats window_sum(Span rows, Span columns, F f) {
    Floats total = {};
#pragma unroll 1
    for (int w = columns.first; w < columns.end; w++) {
        Floats sum = {};
#pragma unroll AT_ONCE
        for (int h = rows.first; h < rows.end; h++) {
            Floats here = f(h, w);
            for (int v = 0; v < V; v++) sum.at[v] += here.at[v];
        }
        for (int v = 0; v < V; v++) total.at[v] += sum.at[v];
    }
    return total;
}

extern "C" __global__ void __launch_bounds__(THREADS) adaptive_avg_pool2d(
    const float* x, float* y, unsigned total, int H, int W, int C, int OH, int OW
) {
    Place p(total, OH, OW, C);
    if (!p.inside) return;
    Span rows(p.row, H, OH), columns(p.column, W, OW);
    Floats sum = window_sum<4>(rows, columns, [&](int h, int w) { return load(x + p.at(h, w, H, W)); });
    float places = (float)rows.places() * columns.places();
    for (int v = 0; v < V; v++) sum.at[v] /= places;
    store(y + p.own, sum);
}

// The windows that hold a pixel are a window over gy: the same rule with the sizes exchanged.
extern "C" __global__ void __launch_bounds__(THREADS) adaptive_avg_pool2d_grad(
    const float* gy, float* gx, unsigned total, int H, int W, int C, int OH, int OW
) {
    Place p(total, H, W, C);
    if (!p.inside) return;
    Span rows(p.row, OH, H), columns(p.column, OW, W);
    Floats sum = window_sum<1>(rows, columns, [&](int oh, int ow) {
        Floats share = load(gy + p.at(oh, ow, OH, OW));
        float places = (float)Span(oh, H, OH).places() * Span(ow, W, OW).places();
        for (int v = 0; v < V; v++) share.at[v] /= places;
        return share;
    });
    store(gx + p.own, sum);
}
