#include "daemon/uuid.h"

#include <openssl/rand.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

void uuid_v7(char ret[static UUID_MAX]) {
    uint8_t b[16];
    struct timespec t;
    uint64_t ms;
    int at = 0;

    clock_gettime(CLOCK_REALTIME, &t);
    ms = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
    if (RAND_bytes(b, sizeof(b)) != 1)
        for (int i = 0; i < 16; i++) /* no randomness: the clock's low bits are still unlikely to repeat */
            b[i] = (uint8_t)(t.tv_nsec >> i);
    for (int i = 0; i < 6; i++)
        b[i] = (uint8_t)(ms >> (40 - 8 * i));
    /* within one millisecond: twelve bits of the next finer clock, so that ids made in a row sort */
    b[6] = (uint8_t)(0x70 | ((t.tv_nsec % 1000000) >> 16 & 0x0f));
    b[7] = (uint8_t)((t.tv_nsec % 1000000) >> 8);
    b[8] = (uint8_t)(0x80 | (b[8] & 0x3f));
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            ret[at++] = '-';
        at += snprintf(ret + at, 3, "%02x", b[i]);
    }
}
