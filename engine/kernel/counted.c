/* Nodes whose shapes depend on data: behind NonMaxSuppression, NonZero and the like. The plan keeps room for
 * the largest there may be; each run has a table of the shapes as they are. Here the operator's own shape()
 * and forward() run with those. What does not fit together then (two counts that differ, an index beyond the
 * end) gives a shape of rank -1, and so do all that depend on it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/kernel/rows.h"

struct kernel_state {
    struct node node;             /* a copy; its op and param belong to the graph */
    struct tensor *in, *out;      /* as planned: the most */
    const struct tensor **in_ptr; /* NULL: left out */
    int *in_count, *out_count;
    size_t scratch;
};

static struct kernel_state *counted_done(struct kernel_state *s) {
    if (!s)
        return NULL;
    free(s->in);
    free(s->in_ptr);
    free(s->in_count);
    free(s);
    return NULL;
}
DEFINE_CLEANUP(struct kernel_state *, counted_done)

/* Numbers as the operator sees them, in its own layout. */
static bool counted_fits(const struct cpu *cpu, const struct layer *l) {
    bool ok = !l->node->weight || weight_is_plain(l->node->weight);

    (void)cpu;
    for (int i = 0; i < l->n_in; i++)
        ok = ok && (!l->in[i] || l->in_type[i].quant.scale <= 0 || l->node->op->sees_codes);
    for (int i = 0; i < l->n_out; i++)
        ok = ok && (l->out_type[i].quant.scale <= 0 || l->node->op->sees_codes);
    return ok;
}

static int counted_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    _cleanup_(counted_donep) struct kernel_state *s = calloc(1, sizeof(*s));
    size_t n = (size_t)(l->n_in + l->n_out) + 1;

    (void)packs;
    if (!s)
        return error_oom(err);
    s->in = calloc(n, sizeof(*s->in));
    s->in_ptr = calloc(n, sizeof(*s->in_ptr));
    s->in_count = calloc(n, sizeof(*s->in_count));
    if (!s->in || !s->in_ptr || !s->in_count)
        return error_oom(err);
    s->node = *l->node;
    s->out = s->in + l->n_in;
    s->out_count = s->in_count + l->n_in;
    for (int i = 0; i < l->n_in; i++) {
        s->in_count[i] = l->in_count[i];
        if (!l->in[i])
            continue;
        s->in[i] = *l->in[i];
        s->in_ptr[i] = &s->in[i];
    }
    for (int i = 0; i < l->n_out; i++) {
        s->out[i] = l->out[i];
        s->out_count[i] = l->out_count[i];
    }
    if (l->node->op->scratch)
        s->scratch = l->node->op->scratch(l->node, s->in_ptr, s->out);
    *ret_scratch = s->scratch;
    *ret = TAKE(s);
    return 0;
}

/* Do the outputs fit into the room kept for them? */
static bool has_room(const struct kernel_state *s, const struct tensor *const *in, const struct tensor *out) {
    for (int i = 0; i < s->node.n_out; i++) {
        size_t need, have;

        if (s->node.out[i] < 0)
            continue;
        if (out[i].dtype != s->out[i].dtype || !shape_bytes(&out[i].shape, out[i].dtype, &need) ||
            !shape_bytes(&s->out[i].shape, s->out[i].dtype, &have) || need > have)
            return false;
    }
    return !s->node.op->scratch || s->node.op->scratch(&s->node, in, out) <= s->scratch;
}

static bool compute(const struct kernel_state *s, const struct run_io *io, struct tensor *out) {
    struct tensor in[LAYER_MAX_IO];
    const struct tensor *in_ptr[LAYER_MAX_IO];
    struct error ignored = {0};

    for (int i = 0; i < s->node.n_in; i++) {
        in_ptr[i] = s->in_ptr[i] ? &in[i] : NULL;
        in[i] = s->in[i];
        in[i].data = (void *)(uintptr_t)io->in[i];
        if (s->in_count[i] >= 0)
            in[i].shape = io->shapes[s->in_count[i]];
        if (in_ptr[i] && in[i].shape.rank < 0)
            return false;
    }
    if (s->node.op->shape(&s->node, in_ptr, out, &ignored) < 0 || !has_room(s, in_ptr, out))
        return false;
    for (int i = 0; i < s->node.n_out; i++)
        out[i].data = io->out[i];
    s->node.op->forward(&s->node, in_ptr, out, io->scratch);
    return true;
}

static void counted_run(const struct kernel_state *s, const struct run_io *io) {
    struct tensor out[LAYER_MAX_IO] = {0};
    bool ok = compute(s, io, out);

    for (int i = 0; i < s->node.n_out; i++)
        if (s->out_count[i] >= 0)
            io->shapes[s->out_count[i]] = ok ? out[i].shape : (struct shape){.rank = -1};
}

const struct kernel kernel_counted = {
    .name = "counted",
    .fits = counted_fits,
    .layouts = {.in = 1u << LAYOUT_PLAIN, .out = 1u << LAYOUT_PLAIN},
    .reads_constants = true,
    .takes_counts = true,
    .prepare = counted_prepare,
    .run = counted_run,
    .done = counted_done,
    .is_reference = true,
};
