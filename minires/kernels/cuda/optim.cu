// The step of SGD over many parameters in one launch: see kernels/portable/optim.py for the rule.
#define THREADS 256
#define MOST 96   // parameters in a launch: their table fits the 4 KB that a kernel's arguments may have
#define EACH 4096 // elements of a block

struct Table {
    float* w[MOST];
    const float* g[MOST];
    float* velocity[MOST];
    long long size[MOST];
    int last[MOST]; // block of each parameter, plus 1
};

struct Settings {
    float lr, momentum, undamped, weight_decay;
    int nesterov, maximize, count, unused;
};

// Each product and sum is rounded by itself, as the portable kernel's are.
extern "C" __global__ void __launch_bounds__(THREADS) sgd_foreach(Table table, Settings s) {
    int p = 0, block = blockIdx.x;
    while (p < s.count - 1 && block >= table.last[p]) p++;
    long long first = (long long)(block - (p ? table.last[p - 1] : 0)) * EACH;
    long long end = first + EACH < table.size[p] ? first + EACH : table.size[p];
    float* w = table.w[p];
    float* velocity = table.velocity[p];
    for (long long i = first + threadIdx.x; i < end; i += THREADS) {
        float g = table.g[p][i];
        if (s.maximize) g = -g;
        if (s.weight_decay != 0.f) g = __fadd_rn(g, __fmul_rn(s.weight_decay, w[i]));
        float step = g;
        if (velocity) {
            float v = __fadd_rn(__fmul_rn(velocity[i], s.momentum), __fmul_rn(s.undamped, g));
            velocity[i] = v;
            step = s.nesterov ? __fadd_rn(g, __fmul_rn(s.momentum, v)) : v;
        }
        w[i] = __fsub_rn(w[i], __fmul_rn(s.lr, step));
    }
}
