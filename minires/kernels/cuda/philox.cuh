// Philox-4x32-10: see kernels/portable/random.py.
#pragma once

struct Words {
    unsigned at[4];
};

__device__ inline Words philox(Words c, unsigned key0, unsigned key1, int rounds) {
    for (int round = 0; round < rounds; round++) {
        unsigned low0 = 0xD2511F53u * c.at[0], high0 = __umulhi(0xD2511F53u, c.at[0]);
        unsigned low2 = 0xCD9E8D57u * c.at[2], high2 = __umulhi(0xCD9E8D57u, c.at[2]);
        c = {high2 ^ c.at[1] ^ key0, low2, high0 ^ c.at[3] ^ key1, low0};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}
