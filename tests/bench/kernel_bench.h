/* Kernels beside each other on one layer: what kernel_bench.c (the table of rows) and its parts share.
 *
 *   kernel_layer.c   a layer as a net of its own in memory, planned so that a certain kernel runs it
 *   kernel_peer.c    the same layer in oneDNN's int8, called directly
 *   kernel_peak.c    what the machine can do at most */
#ifndef TESTS_BENCH_KERNEL_BENCH_H
#define TESTS_BENCH_KERNEL_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/net.h"

/* A convolution of a square image; size 1 and kernel 0: fully connected. */
struct layer_shape {
    int64_t ic, oc, kernel, size, stride, groups; /* stride, groups 0: 1 */
    int64_t batch;                                /* 0: 1 */
};

enum weights {
    WEIGHTS_FLOAT,    /* float layer, float weights */
    WEIGHTS_INT8,     /* between QuantizeLinear and DequantizeLinear, a scale a channel */
    WEIGHTS_SIGN,     /* +-1 times a scale a channel, the input a sign too */
    WEIGHTS_LOW_RANK, /* two layers: kernel to `rank` channels, then 1x1 */
    WEIGHTS_PEER,     /* not ours: oneDNN's int8 */
};

/* One side of a comparison. */
struct contender {
    const char *label;
    enum weights weights;
    const char *kernel; /* part of the name of the kernel that must run the layer; NULL: the table's choice */
    double zeros;       /* share of the weights that are 0 */
    int64_t block;      /* zeros in blocks of so many neighbouring outputs; 0: anywhere */
    int levels;         /* distinct values; 0: any */
    int64_t rank;
    bool is_compact; /* policy memory */
};

/* Peaks of one core, measured: operations (2 a multiply-add) or bytes a microsecond. */
enum peak { PEAK_FMA, PEAK_VNNI, PEAK_POPCOUNT, PEAK_BANDWIDTH, N_PEAKS };
extern const char *const peak_names[N_PEAKS];
void peak_measure(const struct cpu *cpu, double ret[static N_PEAKS]);
/* Of reading so many bytes again and again: weights that fit in a cache come faster. */
double peak_bandwidth(size_t size);

/* A layer ready to run. */
struct entry {
    struct net *net;
    struct plan *plan;
    struct arena arena;
    struct tensor in, out;
    struct pool *pool;
    struct peer *peer; /* instead of all of the above */
    float *step_us;
    char kernel[96]; /* what runs it */
    double macs;     /* without those by 0 */
    size_t bytes;    /* packed weights */
};

/* 0; -ENOENT: no kernel of that name is there or takes the layer; other errors say why. */
int entry_open(struct entry *e, const struct layer_shape *s, const struct contender *c, unsigned threads,
    struct error *err);
void entry_close(struct entry *e);
/* Microseconds of one run of the layer itself: what converts at its borders is another step. */
double entry_run(struct entry *e);

int peer_new(const struct layer_shape *s, struct peer **ret, struct error *err);
struct peer *peer_free(struct peer *p);
void peer_run(struct peer *p);
const char *peer_name(const struct peer *p);
size_t peer_weight_bytes(const struct peer *p);

static inline int64_t or_one(int64_t v) {
    return v ? v : 1;
}

/* Side of the output image. */
static inline int64_t layer_out_size(const struct layer_shape *s) {
    return s->kernel ? (s->size - 1) / or_one(s->stride) + 1 : 1;
}

static inline double layer_macs(const struct layer_shape *s) {
    double taps = s->kernel ? (double)(s->kernel * s->kernel) : 1;
    double side = (double)layer_out_size(s);

    return (double)or_one(s->batch) * (double)s->oc * (double)(s->ic / or_one(s->groups)) * taps * side *
           side;
}

#endif
