/* Inside of a plan (its face is net.h). Built in steps, each a file:
 *
 *   plan_infer.c    shapes and constants of every value at the given input shapes
 *   plan_choose.c   which kernels can run a node, in which layouts, and the default among them
 *   plan_search.c   the choice for all nodes at once, where their times are known
 *   plan_time.c     those times: what they depend on, and measuring them
 *   plan_build.c    nodes → steps, kernels prepared
 *   plan_forms.c    forms of values, conversions between layouts where neighbours disagree
 *   plan_memory.c   buffers live from their first to their last step; offsets in one arena
 *   plan.c          run, count, free
 *
 * A graph value may exist in several *forms* (layouts); a form lies in a *buffer*; views share the buffer of
 * what they view, and a kernel that works in place shares its input's. */
#ifndef ENGINE_PLAN_H
#define ENGINE_PLAN_H

#include "engine/kernel/kernel.h"
#include "engine/net.h"
#include "engine/pack.h"
#include "engine/tune.h"

enum buffer_kind {
    BUFFER_ARENA, /* at `offset` in the arena of the run */
    BUFFER_CONST, /* at `data` */
    BUFFER_INPUT, /* the caller's input `index`; copied to `offset` when it is not aligned */
};

struct buffer {
    enum buffer_kind kind;
    size_t size, offset;
    int first, last; /* steps between which it is alive, both included; -1: before the first */
    const void *data;
    size_t index;
    int shared; /* the buffer it was merged into, -1 */
};

struct form {
    int value; /* of the execution graph */
    struct vtype type;
    struct shape shape;
    int buffer;
    int next; /* another form of the same value, -1 */
};

struct step {
    const struct kernel *kernel;
    const struct node *node; /* NULL: conversion */
    int n_in, n_out, n_post;
    int *in, *out;               /* forms; -1: left out or a constant the kernel packed */
    int post_in[NODE_MAX_POSTS]; /* forms, -1 */
    int in_place_post;
    int scratch; /* buffer, -1 */
    struct kernel_state *state;
    int64_t macs;
    size_t weight_bytes;
};

/* What shape inference says of a value. `data` is set when it is constant; `logical` is the type operators
 * see (F32 for a quantised value), `tensor.dtype` the stored one. */
struct plan_value {
    struct tensor tensor;
    enum dtype logical;
    int count; /* >= 0: `tensor.shape` is the most there may be, the shape of a run stands at this place in
                  its table of shapes; -1: it is always so */
    int late_node; /* >= 0: constant, computed by this node when first asked for (plan_materialise) */
    bool is_needed;
};

/* A kernel for a node, and the layouts of what it reads and writes. */
struct plan_choice {
    const struct kernel *kernel; /* NULL: none yet, or a view */
    enum layout in, out;
    bool is_fixed; /* stays when the steps are laid out again */
};

/* What a kernel would not have after all, in prepare(). */
struct plan_refusal {
    const struct node *node;
    struct plan_choice choice;
};

struct plan {
    struct net *net;         /* not counted: see plan_ref */
    struct net_packs *packs; /* counted: what its steps point into */
    struct graph *graph;     /* execution graph its steps point into; NULL: the net's own */
    unsigned refs;           /* protected by the net's mutex, as is `is_cached` */
    bool is_cached;
    unsigned long used; /* for eviction */

    unsigned n_threads;
    size_t n_inputs, n_outputs;
    struct shape *inputs;
    struct tensor *outputs;
    int *output_forms;

    struct plan_value *values;   /* n_values of the graph */
    int *first_form;             /* of each value, -1 */
    struct plan_choice *choices; /* n_nodes of the graph */
    struct plan_refusal *refused;
    size_t n_refused, refused_cap;
    void **owned; /* memory of constants computed here */
    size_t n_owned, owned_cap, owned_bytes;

    size_t n_forms, forms_cap, n_buffers, buffers_cap, n_steps, steps_cap;
    struct form *forms;
    struct buffer *buffers;
    struct step *steps;
    size_t n_counted;              /* values whose shape is known at run time only */
    size_t table_size, arena_size; /* the arena begins with the table of buffer addresses, behind it the
                                      shapes of counted values */
};

/* What building needs of a net. */
struct plan_env {
    const struct graph *graph; /* execution graph */
    const struct net_options *options;
    struct pack_cache *packs;
    struct onednn *onednn;
    const struct plan_choice *choices; /* what another plan of this net and image size runs; NULL */
    struct tuner *tuner;               /* times of kernels; NULL: the default table */
    size_t max_arena;                  /* a plan that needs more is refused */
};

int plan_build(const struct plan_env *env, const struct shape *inputs, unsigned threads, struct plan **ret,
    struct error *err);
/* Shapes, and steps of the default table, nothing prepared: for measuring and searching. It cannot run. */
int plan_sketch(const struct plan_env *env, const struct shape *inputs, unsigned threads, struct plan **ret,
    struct error *err);
struct plan *plan_free(struct plan *p);
DEFINE_CLEANUP(struct plan *, plan_free)
size_t plan_count_bytes(const struct plan *p);

/* plan_infer.c */
int plan_infer(struct plan *p, const struct plan_env *env, struct error *err);
bool plan_is_constant(const struct plan *p, int value);
bool plan_is_counted(
    const struct plan *p, const struct node *n); /* shapes that only a run knows go in or out */
int plan_materialise(struct plan *p, const struct graph *g, int value, struct error *err);
void *plan_own(struct plan *p, size_t size); /* zeroed, aligned, freed with the plan; NULL */

/* plan_choose.c. The default: the first kernel of the table that fits, in the layout at hand if it takes it.
 */
int plan_choose(const struct plan *p, const struct plan_env *env, const struct node *n,
    struct plan_choice *ret, struct error *err);
/* All that can run the node, best guess first; the reference only when there is nothing else. */
#define PLAN_MAX_CANDIDATES 64
size_t plan_candidates(const struct plan *p, const struct plan_env *env, const struct node *n,
    struct plan_choice ret[static PLAN_MAX_CANDIDATES]);
bool plan_can_run(
    const struct plan *p, const struct plan_env *env, const struct node *n, const struct plan_choice *c);
/* 0 or -ENOMEM */
int plan_refuse(struct plan *p, const struct node *n, const struct plan_choice *c);

/* Is the node a view, which needs no kernel? `ret_keeps`: of one shape, in any layout; else in PLAIN. */
bool plan_is_view(const struct plan *p, const struct graph *g, const struct node *n, bool *ret_keeps);
bool plan_is_node_needed(const struct plan *p, const struct node *n);

/* plan_time.c. What the time of running the node so depends on, as a key of the tuner; false: too long to be
 * one.
 */
bool plan_time_key(const struct plan *p, const struct plan_env *env, const struct node *n,
    const struct plan_choice *c, char ret[static TUNE_KEY_MAX]);
bool plan_conversion_key(const struct plan *p, const struct plan_env *env, int value, enum layout from,
    enum layout to, char ret[static TUNE_KEY_MAX]);
/* Measures what the search would like to know and does not. 0, 1: it was asked to stop, or -ENOMEM. When the
 * seconds are over that is the end too: what is not known then leaves the default where it is. */
int plan_measure(struct plan *p, const struct plan_env *env, const struct tune_limits *limits,
    struct pool *pool, struct error *err);

/* plan_search.c: replaces the choices, which are the default's, where others are surely faster.
 * `ret_is_complete`: all times were known. 0 or -ENOMEM. */
int plan_search(struct plan *p, const struct plan_env *env, bool *ret_is_complete);
/* Names the whole of the choices, for what is known of all together. */
void plan_choices_key(const struct plan *p, const struct plan_env *env, char ret[static TUNE_KEY_MAX]);

/* A layer with the memory behind its pointers, filled for a node with all tensors in given layouts. */
struct layer_box {
    struct layer l;
    struct tensor in[LAYER_MAX_IO], out[LAYER_MAX_IO], post[NODE_MAX_POSTS];
    const struct tensor *in_ptr[LAYER_MAX_IO];
    int in_count[LAYER_MAX_IO], out_count[LAYER_MAX_IO];
    struct vtype in_type[LAYER_MAX_IO], out_type[LAYER_MAX_IO], post_type[NODE_MAX_POSTS];
};
void plan_fill_layer(const struct plan *p, const struct plan_env *env, const struct node *n, enum layout in,
    enum layout out, struct layer_box *ret);

/* The layout as it really is: shapes of rank below 3 and such with one channel or one pixel lie the same way
 * in PLAIN and NHWC, and are called PLAIN. */
enum layout layout_normal(const struct shape *s, enum layout l);
size_t plan_form_bytes(const struct form *f); /* as stored, padding of blocks included */

/* plan_prepare.c. -EOPNOTSUPP with *ret_node set: the kernel chosen for that node will not have it after all.
 */
int plan_prepare(struct plan *p, const struct plan_env *env, const struct node **ret_node, struct error *err);

/* plan_forms.c: indices, or a negative errno. */
int plan_add_buffer(struct plan *p, enum buffer_kind kind, size_t size);
/* A new form of `value`; buffer -1: a new one in the arena. */
int plan_add_form(struct plan *p, int value, const struct vtype *type, int buffer);
/* NULL: out of memory. */
struct step *plan_add_step(struct plan *p, const struct kernel *k, const struct node *n, int n_in, int n_out);
int plan_constant_form(struct plan *p, const struct plan_env *env, int value, struct error *err);
/* The form of the value in `layout`: the one there is, the same memory under another name, or a conversion.
 */
int plan_want_form(
    struct plan *p, const struct plan_env *env, int value, enum layout layout, struct error *err);
void plan_fill_conversion(const struct plan *p, const struct plan_env *env, const struct shape *s,
    const struct vtype *from, const struct vtype *to, struct layer_box *ret);
/* NULL: there is none. */
const struct kernel *plan_find_conversion(const struct plan_env *env, const struct layer *l);
struct vtype plan_type_of(const struct plan *p, const struct graph *g, int value, enum layout l);

/* plan_memory.c */
int plan_share_buffers(struct plan *p); /* before prepare: in-place decisions; fills first and last */
int plan_place_buffers(struct plan *p, struct error *err);

#endif
