#include "engine/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/hugemem.h"
#include "engine/onednn.h"

#define ALIGN 64

struct plan *plan_free(struct plan *p) {
    if (!p)
        return NULL;
    for (size_t i = 0; i < p->n_steps; i++) {
        if (p->steps[i].state)
            p->steps[i].kernel->done(p->steps[i].state);
        free(p->steps[i].in);
    }
    for (size_t i = 0; i < p->n_owned; i++)
        hugemem_free(p->owned[i], *(size_t *)p->owned[i]);
    free(p->owned);
    free(p->steps);
    free(p->buffers);
    free(p->forms);
    free(p->first_form);
    free(p->choices);
    free(p->refused);
    free(p->values);
    free(p->output_forms);
    free(p->outputs);
    free(p->inputs);
    graph_free(p->graph);
    free(p);
    return NULL;
}

/* A kernel's state beside its weights and primitives, which net_count_bytes() adds; about as measured. */
#define STEP_BYTES ((size_t)3 << 10)

size_t plan_count_bytes(const struct plan *p) {
    return sizeof(*p) + p->owned_bytes + p->buffers_cap * sizeof(*p->buffers) +
           p->forms_cap * sizeof(*p->forms) + p->steps_cap * sizeof(*p->steps) + p->n_steps * STEP_BYTES +
           (p->graph ? graph_count_bytes(p->graph) : 0);
}

size_t plan_arena_size(const struct plan *p) {
    return p->arena_size;
}

size_t plan_n_outputs(const struct plan *p) {
    return p->n_outputs;
}

const struct tensor *plan_output(const struct plan *p, size_t i) {
    return &p->outputs[i];
}

size_t plan_n_steps(const struct plan *p) {
    return p->n_steps;
}

/* Kernels of integers take the codes, those that skip zeros what is stored, those of signs their bits. */
static bool is_decoded(const struct plan *p, const struct step *s) {
    const struct weight *w = s->node ? s->node->weight : NULL;
    const struct vtype *in;

    if (!w || !weight_is_encoded(w) || s->kernel->skips_zeros)
        return false;
    in = s->n_in > 0 && s->in[0] >= 0 ? &p->forms[s->in[0]].type : NULL;
    return s->kernel->is_reference || !in || (in->dtype == DT_F32 && in->layout != LAYOUT_BITS);
}

void plan_get_step(const struct plan *p, size_t i, struct plan_step *ret) {
    const struct step *s = &p->steps[i];
    const struct node *n = s->node;

    *ret = (struct plan_step){
        .id = n ? (n->id ? n->id : n->name) : "convert",
        .op = n ? n->op_type : "",
        .form = n && n->weight ? weight_form_name(n->weight) : "",
        .kernel = s->kernel->name,
        .is_decoded = is_decoded(p, s),
        .macs = s->macs,
        .weight_bytes = s->weight_bytes,
    };
}

int plan_check_outputs(const struct plan *p, const struct tensor *out, struct error *err) {
    for (size_t i = 0; i < p->n_outputs; i++)
        if (out[i].shape.rank < 0)
            return error_code(err, -EINVAL, "shape_mismatch",
                "output %zu: shapes that depend on the data of this request do not fit together", i);
    return 0;
}

static bool is_aligned(const void *p) {
    return (uintptr_t)p % ALIGN == 0;
}

/* Where every buffer of this run lies: in the arena, with the constants, or in the caller's memory. */
static void fill_table(
    const struct plan *p, void **table, char *base, const struct tensor *in, const struct tensor *out) {
    for (size_t i = 0; i < p->n_buffers; i++) {
        const struct buffer *b = &p->buffers[i];

        table[i] = base + b->offset;
        if (b->kind == BUFFER_CONST)
            memcpy(&table[i], &b->data, sizeof(void *)); /* only ever read through */
        if (b->kind != BUFFER_INPUT)
            continue;
        if (is_aligned(in[b->index].data))
            table[i] = in[b->index].data;
        else if (b->last >= 0)
            memcpy(table[i], in[b->index].data, b->size);
    }
    for (size_t i = 0; i < p->n_outputs; i++) {
        int b = p->forms[p->output_forms[i]].buffer;

        if (p->buffers[b].kind == BUFFER_ARENA && is_aligned(out[i].data))
            table[b] = out[i].data;
    }
}

/* Shapes of counted values, by their `count`. */
static struct shape *run_shapes(const struct plan *p, void **table) {
    return (struct shape *)(void *)(table + p->n_buffers);
}

static void run_step(const struct plan *p, const struct step *s, void **table, struct pool *pool) {
    const void *in[LAYER_MAX_IO], *post[NODE_MAX_POSTS];
    void *out[LAYER_MAX_IO];
    struct run_io io = {.in = in, .out = out, .post_in = post, .shapes = run_shapes(p, table), .pool = pool};

    for (int i = 0; i < s->n_in; i++)
        in[i] = s->in[i] < 0 ? NULL : table[p->forms[s->in[i]].buffer];
    for (int i = 0; i < s->n_out; i++)
        out[i] = s->out[i] < 0 ? NULL : table[p->forms[s->out[i]].buffer];
    for (int i = 0; i < s->n_post; i++)
        post[i] = s->post_in[i] < 0 ? NULL : table[p->forms[s->post_in[i]].buffer];
    if (s->scratch >= 0)
        io.scratch = table[s->scratch];
    s->kernel->run(s->state, &io);
}

static const struct shape *output_shape(const struct plan *p, size_t i, void **table) {
    int count = p->values[p->forms[p->output_forms[i]].value].count;

    return count < 0 ? &p->outputs[i].shape : &run_shapes(p, table)[count];
}

void plan_run(const struct plan *p, struct arena *a, const struct tensor *in, struct tensor *out,
    struct pool *pool, float *layer_us) {
    void **table = a->data;
    double before = layer_us ? clock_now_us() : 0;

    if (a->size < p->arena_size)
        abort(); /* the caller reserved less than plan_arena_size() */
    onednn_enter();
    fill_table(p, table, a->data, in, out);
    for (size_t i = 0; i < p->n_steps; i++) {
        run_step(p, &p->steps[i], table, p->n_threads > 1 ? pool : NULL);
        if (layer_us) {
            double after = clock_now_us();

            layer_us[i] = (float)(after - before);
            before = after;
        }
    }
    for (size_t i = 0; i < p->n_outputs; i++) {
        const struct buffer *b = &p->buffers[p->forms[p->output_forms[i]].buffer];
        const void *data = table[p->forms[p->output_forms[i]].buffer];

        if (data != out[i].data)
            memcpy(out[i].data, data, b->size);
        out[i].dtype = p->outputs[i].dtype;
        out[i].shape = *output_shape(p, i, table);
        out[i].layout = LAYOUT_PLAIN;
    }
}
