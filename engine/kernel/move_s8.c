/* Operators that only move elements run on codes as they run on anything: their own forward, on bytes, when
 * input and output mean the same by them. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/kernel/rows.h"
#include "engine/kernel/s8.h"

struct kernel_state {
    struct node node; /* a copy; its op and param belong to the graph */
    struct tensor *in, *out;
    const struct tensor **in_ptr; /* NULL: left out */
};

/* The layer's tensors with codes as what they are, bytes. */
static struct tensor as_stored(const struct tensor *t) {
    struct tensor v = *t;

    v.layout = LAYOUT_PLAIN;
    return v;
}

/* The operator takes bytes and says the same shapes of them. */
static bool takes_bytes(const struct layer *l) {
    struct tensor in[LAYER_MAX_IO], out[LAYER_MAX_IO] = {0};
    const struct tensor *in_ptr[LAYER_MAX_IO];
    struct error ignored = {0};

    for (int i = 0; i < l->n_in; i++) {
        in_ptr[i] = l->in[i] ? &in[i] : NULL;
        if (l->in[i])
            in[i] = as_stored(l->in[i]);
    }
    if (l->node->op->shape(l->node, in_ptr, out, &ignored) < 0)
        return false;
    for (int i = 0; i < l->n_out; i++)
        if (l->node->out[i] >= 0 && (out[i].dtype != DT_U8 || !shape_equal(&out[i].shape, &l->out[i].shape)))
            return false;
    return true;
}

static bool same_codes(const struct vtype *a, const struct vtype *b) {
    return s8_is_codes(a) && s8_is_codes(b) && !(a->quant.scale < b->quant.scale) &&
           !(a->quant.scale > b->quant.scale) && a->quant.zero == b->quant.zero;
}

static bool move_fits(const struct cpu *cpu, const struct layer *l) {
    (void)cpu;
    if (!l->in[0] || l->in[0]->data || l->node->n_post)
        return false;
    for (int i = 0; i < l->n_out; i++)
        if (l->node->out[i] >= 0 && !same_codes(&l->in_type[0], &l->out_type[i]))
            return false;
    return takes_bytes(l);
}

static struct kernel_state *move_done(struct kernel_state *s) {
    if (!s)
        return NULL;
    free(s->in);
    free(s->in_ptr);
    free(s);
    return NULL;
}
DEFINE_CLEANUP(struct kernel_state *, move_done)

static int move_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    _cleanup_(move_donep) struct kernel_state *s = calloc(1, sizeof(*s));

    (void)packs;
    if (!s)
        return error_oom(err);
    s->node = *l->node;
    s->in = calloc((size_t)(l->n_in + l->n_out) + 1, sizeof(*s->in));
    s->in_ptr = calloc((size_t)l->n_in + 1, sizeof(*s->in_ptr));
    if (!s->in || !s->in_ptr)
        return error_oom(err);
    s->out = s->in + l->n_in;
    for (int i = 0; i < l->n_in; i++)
        if (l->in[i]) {
            s->in[i] = as_stored(l->in[i]);
            s->in_ptr[i] = &s->in[i];
        }
    for (int i = 0; i < l->n_out; i++)
        s->out[i] = as_stored(&l->out[i]);
    if (l->node->op->scratch)
        *ret_scratch = l->node->op->scratch(l->node, s->in_ptr, s->out);
    *ret = TAKE(s);
    return 0;
}

static void move_run(const struct kernel_state *s, const struct run_io *io) {
    struct tensor in[LAYER_MAX_IO], out[LAYER_MAX_IO];
    const struct tensor *in_ptr[LAYER_MAX_IO];

    for (int i = 0; i < s->node.n_in; i++) {
        in_ptr[i] = s->in_ptr[i] ? &in[i] : NULL;
        if (!in_ptr[i])
            continue;
        in[i] = s->in[i];
        in[i].data = (void *)(uintptr_t)io->in[i];
    }
    for (int i = 0; i < s->node.n_out; i++) {
        out[i] = s->out[i];
        out[i].data = io->out[i];
    }
    s->node.op->forward(&s->node, in_ptr, out, io->scratch);
}

static const char *const move_ops[] = {"DepthToSpace", "Expand", "Flatten", "Gather", "Reshape", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", NULL};

const struct kernel kernel_move_s8 = {
    .name = "move_s8",
    .op_types = move_ops,
    .fits = move_fits,
    .layouts = {.in = 1u << LAYOUT_PLAIN, .out = 1u << LAYOUT_PLAIN},
    .reads_constants = true,
    .prepare = move_prepare,
    .run = move_run,
    .done = move_done,
};
