/* The operator's own forward, whatever the operator: the last row of the table and the oracle of the others.
 * Quantised values are decoded to float before and encoded after; posts are applied one after the other to
 * the float result, which lies in scratch when the output is quantised, else in the output itself.
 *
 * scratch: [decoded inputs][decoded residuals][float results][operator's own] */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/kernel/quant.h"
#include "engine/kernel/rows.h"
#include "engine/kernel/weights.h"
#include "engine/pack.h"

struct kernel_state {
    struct node node; /* a copy; its op and param belong to the graph */
    int n_in, n_out;
    bool sees_codes;
    struct tensor *in, *out;      /* as the operator sees them */
    const struct tensor **in_ptr; /* into `in`, NULL: left out */
    struct vtype *in_type, *out_type;
    struct tensor post[NODE_MAX_POSTS];
    struct vtype post_type[NODE_MAX_POSTS];
    const struct pack *weight;                               /* coded weights, decoded: in[1] */
    size_t *in_at, *out_at, post_at[NODE_MAX_POSTS], own_at; /* in scratch; SIZE_MAX: none */
};

#define NOWHERE SIZE_MAX

static struct kernel_state *reference_done(struct kernel_state *s) {
    if (!s)
        return NULL;
    free(s->in);
    free(s->in_ptr);
    free(s->in_type);
    free(s->in_at);
    free(s);
    return NULL;
}
DEFINE_CLEANUP(struct kernel_state *, reference_done)

/* Elementwise operators run in any layout when all tensors are of one shape (constants: one element). */
static bool is_elementwise(const struct layer *l) {
    if (l->node->op->layouts != OP_LAYOUT_ANY)
        return false;
    for (int i = 0; i < l->n_in; i++) {
        int64_t n;

        if (!l->in[i] || (l->in[i]->data && shape_count(&l->in[i]->shape, &n) && n == 1))
            continue;
        if (l->in[i]->data || !shape_equal(&l->in[i]->shape, &l->out[0].shape))
            return false;
    }
    for (int i = 0; i < l->n_out; i++) {
        if (!shape_equal(&l->out[i].shape, &l->out[0].shape))
            return false;
    }
    return true;
}

static bool reference_fits(const struct cpu *cpu, const struct layer *l) {
    enum layout layout = LAYOUT_PLAIN;

    (void)cpu;
    for (int i = 0; i < l->n_in; i++) {
        if (l->in[i] && l->in_type[i].layout != LAYOUT_PLAIN)
            layout = l->in_type[i].layout;
    }
    return layout == LAYOUT_PLAIN || is_elementwise(l);
}

static size_t reserve(size_t *used, const struct tensor *t) {
    size_t at = *used, bytes = 0;

    (void)shape_bytes(&t->shape, DT_F32, &bytes);
    *used += (bytes + 63) / 64 * 64;
    return at;
}

static bool is_coded(const struct kernel_state *s, const struct vtype *t) {
    return t->quant.scale > 0 && !s->sees_codes;
}

static int reference_allocate(struct kernel_state *s, const struct layer *l) {
    size_t n = (size_t)(l->n_in + l->n_out) + 1;

    s->in = calloc(n, sizeof(*s->in));
    s->in_ptr = calloc(n, sizeof(*s->in_ptr));
    s->in_type = calloc(n, sizeof(*s->in_type));
    s->in_at = calloc(n, sizeof(*s->in_at));
    if (!s->in || !s->in_ptr || !s->in_type || !s->in_at)
        return -ENOMEM;
    s->out = s->in + l->n_in;
    s->out_type = s->in_type + l->n_in;
    s->out_at = s->in_at + l->n_in;
    return 0;
}

static void place_inputs(struct kernel_state *s, const struct layer *l, size_t *used) {
    for (int i = 0; i < l->n_in; i++) {
        s->in_at[i] = NOWHERE;
        if (!l->in[i])
            continue;
        s->in[i] = *l->in[i];
        s->in_type[i] = l->in_type[i];
        s->in_ptr[i] = &s->in[i];
        if (is_coded(s, &s->in_type[i])) {
            s->in[i].dtype = DT_F32;
            s->in_at[i] = reserve(used, l->in[i]);
        }
    }
}

static void place_posts(struct kernel_state *s, const struct layer *l, size_t *used) {
    for (int i = 0; i < l->node->n_post; i++) {
        s->post[i] = l->post_in[i];
        s->post_type[i] = l->post_type[i];
        s->post_at[i] = NOWHERE;
        if (l->post_type[i].quant.scale > 0) {
            s->post[i].dtype = DT_F32;
            s->post_at[i] = reserve(used, &l->post_in[i]);
        }
    }
}

static void place_outputs(struct kernel_state *s, const struct layer *l, size_t *used) {
    for (int i = 0; i < l->n_out; i++) {
        s->out[i] = l->out[i];
        s->out_type[i] = l->out_type[i];
        s->out_at[i] = NOWHERE;
        if (is_coded(s, &s->out_type[i])) {
            s->out[i].dtype = DT_F32;
            s->out_at[i] = reserve(used, &l->out[i]);
        }
    }
}

static int reference_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    _cleanup_(reference_donep) struct kernel_state *s = calloc(1, sizeof(*s));
    size_t used = 0;
    int r;

    if (!s)
        return error_oom(err);
    s->node = *l->node;
    s->n_in = l->n_in;
    s->n_out = l->n_out;
    s->sees_codes = l->node->op->sees_codes;
    if (reference_allocate(s, l) < 0)
        return error_oom(err);
    place_inputs(s, l, &used);
    place_posts(s, l, &used);
    place_outputs(s, l, &used);
    if (l->node->weight && !weight_is_plain(l->node->weight)) {
        r = kernel_decoded_weights(l, packs, &s->weight, err);
        if (r < 0)
            return r;
        s->in[1].dtype = DT_F32;
        s->in[1].shape = l->node->weight->shape;
        s->in[1].layout = LAYOUT_PLAIN;
    }
    s->own_at = used;
    if (l->node->op->scratch)
        used += l->node->op->scratch(l->node, s->in_ptr, s->out);
    *ret_scratch = used;
    *ret = TAKE(s);
    return 0;
}

static int64_t n_elements(const struct tensor *t) {
    int64_t n = 0;

    (void)shape_count(&t->shape, &n);
    return n;
}

static void apply_post(const struct post *post, const struct tensor *other, struct tensor *y) {
    struct node node = {
        .op = post->op, .op_type = post->op->name, .param = post->param, .n_in = 1, .n_out = 1};
    const struct tensor *in[3] = {y, post->arg[0], post->arg[1]};

    if (post->other >= 0) {
        in[1] = other;
        node.n_in = 2;
    } else if (post->arg[0] || post->arg[1]) {
        node.n_in = 3;
    }
    post->op->forward(&node, in, y, NULL);
}

static void reference_run(const struct kernel_state *s, const struct run_io *io) {
    char *scratch = io->scratch;
    struct tensor in[LAYER_MAX_IO], out[LAYER_MAX_IO], post;
    const struct tensor *in_ptr[LAYER_MAX_IO];

    for (int i = 0; i < s->n_in; i++) {
        in_ptr[i] = s->in_ptr[i] ? &in[i] : NULL;
        in[i] = s->in[i];
        in[i].data = i == 1 && s->weight ? s->weight->data : (void *)(uintptr_t)io->in[i];
        if (s->in_at[i] != NOWHERE) {
            in[i].data = scratch + s->in_at[i];
            quant_decode(io->in[i], s->in_type[i].dtype, s->in_type[i].quant, n_elements(&in[i]), in[i].data);
        }
    }
    for (int i = 0; i < s->n_out; i++) {
        out[i] = s->out[i];
        out[i].data = s->out_at[i] == NOWHERE ? io->out[i] : scratch + s->out_at[i];
    }
    s->node.op->forward(&s->node, in_ptr, out, scratch ? scratch + s->own_at : NULL);
    for (int i = 0; i < s->node.n_post; i++) {
        post = s->post[i];
        post.data = (void *)(uintptr_t)io->post_in[i];
        if (s->post_at[i] != NOWHERE) {
            post.data = scratch + s->post_at[i];
            quant_decode(
                io->post_in[i], s->post_type[i].dtype, s->post_type[i].quant, n_elements(&post), post.data);
        }
        apply_post(&s->node.post[i], &post, &out[0]);
    }
    for (int i = 0; i < s->n_out; i++) {
        if (s->out_at[i] != NOWHERE)
            quant_encode(
                out[i].data, n_elements(&out[i]), s->out_type[i].quant, s->out_type[i].dtype, io->out[i]);
    }
}

const struct kernel kernel_reference = {
    .name = "reference",
    .fits = reference_fits,
    .layouts = {.in = 1u << LAYOUT_PLAIN | 1u << LAYOUT_NHWC, .out = 1u << LAYOUT_PLAIN | 1u << LAYOUT_NHWC},
    .max_posts = NODE_MAX_POSTS,
    .reads_constants = true,
    .prepare = reference_prepare,
    .run = reference_run,
    .done = reference_done,
    .is_reference = true,
};
