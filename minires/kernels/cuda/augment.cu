// A batch of a data set that lies on the GPU, picked, cropped, mirrored and normalised: kernels/portable/augment.py.
#include "philox.cuh"

#define THREADS 256
#define CHANNELS 4

struct Plan {
    int H, W, C, h, w, padding, crop, flip; // image and window; whether to crop and to mirror
    long long images;                       // in all: an image beyond them is NaN
    unsigned crop_key[2], flip_key[2];
    unsigned epoch, crop_use, flip_use, unused;
    double mirrored; // words below this
    float factor[CHANNELS], shift[CHANNELS];
};

__device__ inline unsigned below(unsigned word, int n) { return (unsigned)((unsigned long long)word * n >> 32); }

// Blocks (image, part of its pixels): one thread draws for all, each thread makes one pixel.
template <class T>
__device__ void augment(const T* images, const long long* rows, const long long* index, float* y, const Plan& p) {
    __shared__ int drawn[3];
    long long image = blockIdx.x;
    if (threadIdx.x == 0) {
        unsigned low = (unsigned)index[image], high = (unsigned)(index[image] >> 32);
        Words crop = philox({low, high, p.epoch, p.crop_use}, p.crop_key[0], p.crop_key[1], 10);
        Words flip = philox({low, high, p.epoch, p.flip_use}, p.flip_key[0], p.flip_key[1], 10);
        drawn[0] = p.crop ? below(crop.at[0], p.H + 2 * p.padding - p.h + 1) - p.padding : 0;
        drawn[1] = p.crop ? below(crop.at[1], p.W + 2 * p.padding - p.w + 1) - p.padding : 0;
        drawn[2] = p.flip && flip.at[0] < p.mirrored;
    }
    __syncthreads();
    int pixel = blockIdx.y * THREADS + threadIdx.x;
    if (pixel >= p.h * p.w) return;
    int across = pixel % p.w, row = drawn[0] + pixel / p.w, column = drawn[1] + (drawn[2] ? p.w - 1 - across : across);
    bool inside = row >= 0 && row < p.H && column >= 0 && column < p.W;
    long long source = rows ? rows[image] : image;
    if (source < 0) source += p.images; // as NumPy counts
    bool known = source >= 0 && source < p.images;
    const T* from = images + ((source * p.H + row) * p.W + column) * p.C;
    float* to = y + (image * p.h * p.w + pixel) * p.C;
#pragma unroll
    for (int c = 0; c < CHANNELS; c++)
        if (c < p.C) {
            float value = !known ? nanf("") : inside ? (float)from[c] : 0.f;
            to[c] = __fsub_rn(__fmul_rn(value, p.factor[c]), p.shift[c]);
        }
}

extern "C" __global__ void __launch_bounds__(THREADS) augment_uint8(
    const unsigned char* images, const long long* rows, const long long* index, float* y, Plan p
) {
    augment(images, rows, index, y, p);
}

extern "C" __global__ void __launch_bounds__(THREADS) augment_float32(
    const float* images, const long long* rows, const long long* index, float* y, Plan p
) {
    augment(images, rows, index, y, p);
}
