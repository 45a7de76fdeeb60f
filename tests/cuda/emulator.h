// CUDA on a CPU: one fiber for each thread of a block, blocks one after another. A kernel's source is included as it is.
//
// What it finds: results that depend on the order in which threads run (a missing barrier), reads of shared memory that
// nobody wrote (it begins as NaN), barriers that some threads do not reach, vectors at addresses that are none. With the
// address sanitizer: accesses outside of an array. What it does not know: timing, caches, memory order within a warp,
// banks.
#pragma once
#include <setjmp.h>
#include <stdint.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace emulator {

enum State { RUNNING, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };
enum Schedule { FORWARD, BACKWARD, RANDOM, GREEDY, GREEDY_BACKWARD }; // greedy: one warp as far as it can, then the next

const size_t STACK = 128 * 1024;

struct Fiber {
    ucontext_t context;
    jmp_buf point;
    bool started = false;
    State state = DONE;
    unsigned x = 0;
    std::vector<char> stack;
    alignas(16) unsigned char exchanged[2][64];
    int turn = 0;
};

inline std::vector<Fiber*> fibers; // kept from launch to launch
inline ucontext_t scheduler;
inline jmp_buf scheduler_point;
inline Fiber* current;
inline dim3 grid, block, block_index;
inline void (*body)(const void*); // runs a kernel with the arguments that it is given
inline const void* arguments;
inline const char* error;
inline std::vector<void*> shared; // the shared variables that this block has come by

// Switching by setjmp and longjmp makes no system call, as swapcontext does; the sanitizer knows only the latter.
__attribute__((noinline)) inline void to_scheduler() {
#ifdef __SANITIZE_ADDRESS__
    swapcontext(&current->context, &scheduler);
#else
    if (!_setjmp(current->point)) _longjmp(scheduler_point, 1);
#endif
}

inline void wait(State state) {
    current->state = state;
    to_scheduler();
}

inline void enter() {
    for (;;) { // a fiber lives on, and runs a thread of the next block
        body(arguments);
        current->state = DONE;
        to_scheduler();
    }
}

__attribute__((noinline)) inline void resume(Fiber* f) {
    current = f;
#ifdef __SANITIZE_ADDRESS__
    swapcontext(&scheduler, &f->context);
#else
    if (_setjmp(scheduler_point)) return;
    if (f->started) _longjmp(f->point, 1);
    f->started = true;
    setcontext(&f->context);
#endif
}

inline void make_fibers(size_t count) {
    while (fibers.size() < count) {
        Fiber* f = new Fiber;
        f->stack.resize(STACK);
        f->x = fibers.size();
        getcontext(&f->context);
        f->context.uc_stack.ss_sp = f->stack.data();
        f->context.uc_stack.ss_size = STACK;
        f->context.uc_link = nullptr;
        makecontext(&f->context, enter, 0);
        fibers.push_back(f);
    }
}

// A warp goes on when all of its threads wait for each other.
inline bool release_warp(int first, int count) {
    int last = std::min(first + 32, count);
    for (int i = first; i < last; i++)
        if (fibers[i]->state != AT_WARP_BARRIER) return false;
    for (int i = first; i < last; i++) fibers[i]->state = RUNNING;
    return true;
}

// Not <random>, and no std::function: they are half of the time that a build takes.
struct Random {
    unsigned state;
    template <class T> void shuffle(std::vector<T>& order) {
        for (size_t i = order.size(); i > 1; i--) {
            state = state * 1664525u + 1013904223u;
            std::swap(order[i - 1], order[(uint64_t)state * i >> 32]);
        }
    }
};

inline bool run_block(int count, Schedule schedule, Random& random) {
    for (int i = 0; i < count; i++) fibers[i]->state = RUNNING;
    std::vector<int> order(count);
    for (int i = 0; i < count; i++) order[i] = schedule == BACKWARD || schedule == GREEDY_BACKWARD ? count - 1 - i : i;
    while (!error) {
        bool any = false;
        if (schedule >= GREEDY) {
            int warps = (count + 31) / 32;
            for (int k = 0; k < warps; k++) {
                int first = 32 * (schedule == GREEDY ? k : warps - 1 - k);
                do {
                    for (int i : order)
                        if (i / 32 == first / 32 && fibers[i]->state == RUNNING) resume(fibers[i]), any = true;
                } while (release_warp(first, count));
            }
        } else {
            if (schedule == RANDOM) random.shuffle(order);
            for (int i : order)
                if (fibers[i]->state == RUNNING) resume(fibers[i]), any = true;
            for (int first = 0; first < count; first += 32)
                if (release_warp(first, count)) any = true;
        }
        int done = 0, waiting = 0;
        for (int i = 0; i < count; i++) {
            done += fibers[i]->state == DONE;
            waiting += fibers[i]->state == AT_BLOCK_BARRIER;
        }
        if (done == count && !error) return true;
        if (waiting + done == count && waiting > 0) {
            // As on a GPU, threads that have returned no longer count. Those that wait go on together.
            for (int i = 0; i < count; i++)
                if (fibers[i]->state == AT_BLOCK_BARRIER) fibers[i]->state = RUNNING;
            any = true;
        }
        if (!any) error = "deadlock: some threads wait where others never come";
    }
    return false;
}

inline int run(dim3 g, dim3 b, void (*f)(const void*), const void* values, int schedule, unsigned seed) {
    grid = g, block = b, body = f, arguments = values, error = nullptr;
    int count = b.x;
    make_fibers(count);
    Random random{seed};
    long long blocks = (long long)g.x * g.y * g.z;
    std::vector<long long> order(blocks);
    for (long long i = 0; i < blocks; i++) order[i] = i;
    if (schedule == BACKWARD || schedule == GREEDY_BACKWARD) std::reverse(order.begin(), order.end());
    if (schedule == RANDOM) random.shuffle(order);
    for (long long i : order) {
        block_index.x = i % g.x, block_index.y = i / g.x % g.y, block_index.z = i / g.x / g.y;
        shared.clear();
        if (!run_block(count, (Schedule)schedule, random)) {
            for (Fiber* f : fibers) delete f; // their threads stand in the middle of a kernel
            fibers.clear();
            return 1;
        }
    }
    return 0;
}

// The first thread of a block that comes by a shared variable fills it with NaN. emulator.py puts the call behind each.
inline void declare_shared(void* variable, size_t size) {
    if (std::find(shared.begin(), shared.end(), variable) != shared.end()) return;
    shared.push_back(variable);
    memset(variable, 0xff, size);
}

template <class T> T exchange(T value, int lane) {
    Fiber* me = current;
    int turn = me->turn, first = me->x & ~31;
    me->turn ^= 1;
    memcpy(me->exchanged[turn], &value, sizeof value);
    wait(AT_WARP_BARRIER);
    T other;
    memcpy(&other, fibers[first + lane]->exchanged[turn], sizeof other);
    return other;
}

} // namespace emulator

// Called before an access that is not aligned, by what -fsanitize=alignment puts there: on a GPU it ends the program.
extern "C" __attribute__((visibility("hidden"))) void __ubsan_handle_type_mismatch_v1(void*, void*) {
    emulator::error = "misaligned: a vector's address must be a multiple of its size";
    emulator::wait(emulator::DONE);
}

#define threadIdx (dim3{emulator::current->x, 0, 0})
#define blockIdx emulator::block_index
#define blockDim emulator::block
#define gridDim emulator::grid

inline void __syncthreads() { emulator::wait(emulator::AT_BLOCK_BARRIER); }
inline void __syncwarp(unsigned = ~0u) { emulator::wait(emulator::AT_WARP_BARRIER); }
template <class T> T __shfl_xor_sync(unsigned, T value, int mask) {
    return emulator::exchange(value, (emulator::current->x & 31) ^ mask);
}
template <class T> T __shfl_sync(unsigned, T value, int lane) { return emulator::exchange(value, lane & 31); }

// The compiler for the CPU is told not to contract a * b + c, so that these are what plain operators are.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __int_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }
