// Batch norm over the rows of (M, C). A mean is hi + lo: see kernels/portable/norm.py.
#include "common.cuh"

// Sums of d and d*d in double, d = x - x[0]. A row of the data is within sqrt(M) deviations of their mean, so that
// taking the mean of d from the squares costs no more than log10(M) of a double's 16 digits, wherever the mean is.
extern "C" __global__ void __launch_bounds__(THREADS) batch_norm_sums(
    const float* x, double* part, long long M, int C, int groups, long long rows
) {
    Tile t(M, C, groups, rows);
    double sum[V] = {}, squares[V] = {};
    if (t.inside) {
        Floats shift = load(x + t.channel);
        for (long long r = t.first; r < t.last; r += t.lanes) {
            Floats here = load(x + r * C + t.channel);
            for (int v = 0; v < V; v++) {
                double d = (double)here.at[v] - (double)shift.at[v];
                sum[v] += d;
                squares[v] += d * d;
            }
        }
    }
    double* mine = part + (long long)blockIdx.x * 2 * C;
    t.sum_lanes(sum, mine);
    t.sum_lanes(squares, mine + C);
}

// A block finishes 32 channels.
extern "C" __global__ void __launch_bounds__(THREADS) batch_norm_finish(
    const double* part, const float* x, float* hi, float* lo, float* variance, float* invstd, int parts, long long M,
    int C, double eps
) {
    int c = blockIdx.x * 32 + threadIdx.x % 32;
    bool inside = c < C;
    double sum = sum_parts(part + c, parts, 2LL * C, inside);
    double squares = sum_parts(part + C + c, parts, 2LL * C, inside);
    if (threadIdx.x >= 32 || !inside) return;
    double d = sum / M, mean = x[c] + d;
    double biased = squares / M - d * d;
    biased = biased < 0 ? 0 : biased; // NaN stays NaN
    hi[c] = (float)mean;
    lo[c] = (float)(mean - hi[c]);
    variance[c] = (float)biased;
    invstd[c] = (float)(1 / sqrt(biased + eps));
}

// running = keep * running + share * batch, each product and sum rounded by itself.
extern "C" __global__ void __launch_bounds__(THREADS) running_average(
    float* running, const float* batch, float keep, float share, int C
) {
    int c = blockIdx.x * THREADS + threadIdx.x;
    if (c < C) running[c] = __fadd_rn(__fmul_rn(running[c], keep), __fmul_rn(share, batch[c]));
}

// y = (x - hi) * a + (beta - lo * a), a = invstd * gamma; then + add, where that is not null, and ReLU.
extern "C" __global__ void __launch_bounds__(THREADS) batch_norm_apply(
    const float* x, const float* hi, const float* lo, const float* invstd, const float* gamma, const float* beta,
    const float* add, float* y, long long M, int C, int groups, long long rows, int with_relu
) {
    Tile t(M, C, groups, rows);
    if (!t.inside) return;
    Floats mean = load(hi + t.channel), a, b;
    for (int v = 0; v < V; v++) {
        int c = t.channel + v;
        a.at[v] = invstd[c] * gamma[c];
        b.at[v] = beta[c] - lo[c] * a.at[v];
    }
    for (long long r = t.first; r < t.last; r += t.lanes) {
        long long at = r * C + t.channel;
        Floats here = load(x + at), z;
        if (add) z = load(add + at);
        for (int v = 0; v < V; v++) {
            float value = (here.at[v] - mean.at[v]) * a.at[v] + b.at[v];
            if (add) value += z.at[v];
            here.at[v] = with_relu ? relu(value) : value;
        }
        store(y + at, here);
    }
}

// Sums of g and g * (x - hi) in double, where g is gy or, with y, what a ReLU that gave y let through of it.
extern "C" __global__ void __launch_bounds__(THREADS) batch_norm_grad_sums(
    const float* gy, const float* y, const float* x, const float* hi, double* part, long long M, int C, int groups,
    long long rows
) {
    Tile t(M, C, groups, rows);
    double sum[V] = {}, products[V] = {};
    if (t.inside) {
        Floats mean = load(hi + t.channel);
        for (long long r = t.first; r < t.last; r += t.lanes) {
            long long at = r * C + t.channel;
            Floats g = load(gy + at), here = load(x + at), result;
            if (y) result = load(y + at);
            for (int v = 0; v < V; v++) {
                double let_through = y ? relu_grad(g.at[v], result.at[v]) : g.at[v];
                sum[v] += let_through;
                products[v] += let_through * (double)(here.at[v] - mean.at[v]);
            }
        }
    }
    double* mine = part + (long long)blockIdx.x * 2 * C;
    t.sum_lanes(sum, mine);
    t.sum_lanes(products, mine + C);
}

// ggamma, gbeta, and b, c with gx = gamma * invstd * g + b * (x - hi) + c. A block finishes 32 channels.
extern "C" __global__ void __launch_bounds__(THREADS) batch_norm_grad_finish(
    const double* part, const float* lo, const float* invstd, const float* gamma, float* ggamma, float* gbeta, float* b,
    float* c, int parts, long long M, int C
) {
    int i = blockIdx.x * 32 + threadIdx.x % 32;
    bool inside = i < C;
    double sum = sum_parts(part + i, parts, 2LL * C, inside);
    double products = sum_parts(part + C + i, parts, 2LL * C, inside);
    if (threadIdx.x >= 32 || !inside) return;
    double s = invstd[i], weight = (products - lo[i] * sum) * s;
    double slope = -gamma[i] * s * s * weight / M;
    ggamma[i] = (float)weight;
    gbeta[i] = (float)sum;
    b[i] = (float)slope;
    c[i] = (float)(-gamma[i] * s * sum / M - slope * lo[i]);
}

// gx from the sums; and g, where `kept` is not null: the gradient of what was added before the ReLU.
extern "C" __global__ void __launch_bounds__(THREADS) batch_norm_grad(
    const float* gy, const float* y, const float* x, const float* hi, const float* invstd, const float* gamma,
    const float* b, const float* c, float* gx, float* kept, long long M, int C, int groups, long long rows
) {
    Tile t(M, C, groups, rows);
    if (!t.inside) return;
    Floats mean = load(hi + t.channel), slope = load(b + t.channel), rest = load(c + t.channel), a;
    for (int v = 0; v < V; v++) a.at[v] = gamma[t.channel + v] * invstd[t.channel + v];
    for (long long r = t.first; r < t.last; r += t.lanes) {
        long long at = r * C + t.channel;
        Floats g = load(gy + at), here = load(x + at), result;
        if (y) result = load(y + at);
        for (int v = 0; v < V; v++) {
            if (y) g.at[v] = relu_grad(g.at[v], result.at[v]);
            here.at[v] = g.at[v] * a.at[v] + (here.at[v] - mean.at[v]) * slope.at[v] + rest.at[v];
        }
        store(gx + at, here);
        if (kept) store(kept + at, g);
    }
}
