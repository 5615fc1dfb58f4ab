/* engine/: loads ONNX, plans it for input shapes, runs it. Uses base/ and oneDNN; knows nothing of HTTP or
 * jobs.
 *
 *   tensor.h graph.h onnx.h     what a file says
 *   ops.h ops/                  operators: meaning, shapes, cost
 *   pass.h                      graph rewrites
 *   weight.h                    forms of compressed weights
 *   kernel/kernel.h             fast ways to run a node
 *   plan.h net.c                kernels chosen, memory laid out, run
 *
 * Start here: net_open_fd → net_plan → plan_run.
 *
 * A net is immutable and counted. Plans are made on demand, one per set of input shapes, cached in the net
 * (at most 16, least recently used out) and counted too. Any number of threads may run one plan at once, each
 * with its own arena. */
#ifndef ENGINE_NET_H
#define ENGINE_NET_H

#include <stdatomic.h>

#include "engine/cpu.h"
#include "engine/graph.h"
#include "engine/tune.h"

struct net;
struct plan;

enum net_policy { NET_SPEED, NET_MEMORY };

struct net_options {
    struct cpu cpu;
    enum net_policy policy;
    bool reference;      /* only reference kernels, no passes but pass_widen: the oracle of the tests */
    bool float_io;       /* inputs and outputs of halves are floats when it runs */
    struct tuner *tuner; /* times of kernels, shared by all nets, lives longer than they; NULL: the default
                            table alone decides */
    struct pack_store *store; /* packed weights, each once for all nets with this store (pack_store.h), which
                                 hold it; NULL: the net's own */
    const char *kernels;      /* "conv_f32_onednn,-conv_s8_onednn": forced or (-) forbidden names; NULL: the
                                 default table */

    /* How many threads may prepare a plan just now, the caller among them; NULL: none but the caller */
    unsigned (*spare_threads)(void *ctx);
    void *spare_ctx;
};

int net_open_fd(int fd, const struct net_options *o, struct net **ret, struct error *err);

/* Takes the graph, also on failure. */
int net_new(struct graph *g, const struct net_options *o, struct net **ret, struct error *err);
struct net *net_ref(struct net *n);
struct net *net_unref(struct net *n);

/* From now on a plan whose arena takes more than what `max` says at that time is refused (memory_budget),
 * before anything is allocated for it. Call it before the net is shared; `max` lives longer than the net. */
void net_limit_arena(struct net *n, const atomic_size_t *max);

/* The graph as loaded (before any pass). */
const struct graph *net_graph(const struct net *n);

/* Plan for the graph's inputs, in their order. `threads` is how many pool threads one run may use. The plan
 * is counted: plan_unref when done. Errors: shape_mismatch naming the input or node. */
int net_plan(
    struct net *n, const struct shape *inputs, unsigned threads, struct plan **ret, struct error *err);

/* Measures the kernels of an image size that was planned and not tuned yet; where others are surely faster,
 * later plans run those: the ones in the cache are dropped and the new one takes their place in one moment,
 * while those in use run to their end. Plans may be made and run on other threads meanwhile. The choice is
 * for all batches and threads: answers do not depend on them. 0: nothing is left to tune; 1: there is,
 * because the limits ended it or for another image size. *ret_changed may be NULL. */
int net_tune(struct net *n, const struct tune_limits *limits, bool *ret_changed, struct error *err);

struct plan *plan_ref(struct plan *p);
struct plan *plan_unref(struct plan *p);

/* Memory of one run, on huge pages where big. Kept by a slot and grown to the largest plan it meets. */
struct arena {
    void *data;
    size_t size;
};
int arena_reserve(struct arena *a, size_t size, struct error *err);
void arena_done(struct arena *a);

size_t plan_arena_size(const struct plan *p);
size_t plan_n_outputs(const struct plan *p);
/* Type and shape of output i, LAYOUT_PLAIN. Where its size depends on data (NonMaxSuppression, NonZero, …):
 * the largest it can get. */
const struct tensor *plan_output(const struct plan *p, size_t i);

struct pool;

/* in[i].data: LAYOUT_PLAIN, of the input's dtype (float_io: float instead of a half), any alignment;
 * out[i].data: memory of the output's size, given by the caller. out[i].shape is
 * filled; its rank is -1 where shapes that only this run knew did not fit together: then there is no answer
 * (plan_check_outputs). `layer_us` may be NULL, else plan_n_steps()
 * entries are filled. `pool` NULL: the calling thread only. */
void plan_run(const struct plan *p, struct arena *a, const struct tensor *in, struct tensor *out,
    struct pool *pool, float *layer_us);

/* After plan_run. Error: shape_mismatch naming the output. */
int plan_check_outputs(const struct plan *p, const struct tensor *out, struct error *err);

struct plan_step {
    const char *id; /* layer id, or "convert" */
    const char *op;
    const char *form; /* weight form, "" */
    const char *kernel;
    bool is_decoded; /* the kernel cannot take the form: its weights are in memory as floats, all of them */
    int64_t macs;
    size_t weight_bytes; /* packed */
};
size_t plan_n_steps(const struct plan *p);
void plan_get_step(const struct plan *p, size_t i, struct plan_step *ret);

struct net_bytes {
    size_t packed;    /* packed weights of all plans, each once, that no other net has */
    size_t shared;    /* those that other nets have as well */
    size_t plans;     /* primitives, tables, graph */
    size_t mapped;    /* bytes of the file still needed (unpacked weights) */
    size_t arena_max; /* the largest arena a slot needs for the plans at hand */
};
void net_count_bytes(const struct net *n, struct net_bytes *ret);

/* Packed weights of several nets of one store together: of each net those that none before it had in this
 * tally (pack_store_new_tally). */
size_t net_tally_packed(const struct net *n, uint64_t tally);

#endif
