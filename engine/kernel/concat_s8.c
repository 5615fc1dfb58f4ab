/* Concat of quantised values with different scales, channels last: each input's runs of channels go through a
 * table to the output's scale. (One scale for all is concat_copy.) */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernel/quant.h"
#include "engine/kernel/rows.h"
#include "engine/kernel/s8.h"

struct kernel_state {
    int n_in;
    int64_t outer, total;
    int64_t run[LAYER_MAX_IO];
    uint8_t table[LAYER_MAX_IO][256];
};

static bool is_channel_axis(const struct layer *l) {
    int64_t axis = node_attr_int(l->node, "axis", 1);
    int rank = l->out[0].shape.rank;

    return rank >= 2 && (axis == 1 || axis == 1 - rank) &&
           (rank == 2 || l->out_type[0].layout == LAYOUT_NHWC);
}

static bool concat_fits(const struct cpu *cpu, const struct layer *l) {
    (void)cpu;
    if (!is_channel_axis(l) || !s8_is_codes(&l->out_type[0]) || l->node->n_post)
        return false;
    for (int i = 0; i < l->n_in; i++)
        if (!l->in[i] || l->in[i]->data || !s8_is_codes(&l->in_type[i]))
            return false;
    return true;
}

static int concat_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    struct kernel_state *s = calloc(1, sizeof(*s));
    const struct shape *y = &l->out[0].shape;
    uint8_t all[256];

    (void)packs;
    (void)ret_scratch;
    if (!s)
        return error_oom(err);
    for (int i = 0; i < 256; i++)
        all[i] = (uint8_t)i;
    s->n_in = l->n_in;
    s->total = y->dim[1];
    s->outer = y->dim[0];
    for (int i = 2; i < y->rank; i++)
        s->outer *= y->dim[i];
    for (int i = 0; i < l->n_in; i++) {
        float real[256];

        s->run[i] = l->in[i]->shape.dim[1];
        quant_decode(all, DT_U8, l->in_type[i].quant, 256, real);
        quant_encode(real, 256, l->out_type[0].quant, DT_U8, s->table[i]);
    }
    *ret = s;
    return 0;
}

static void concat_run(const struct kernel_state *s, const struct run_io *io) {
    uint8_t *y = io->out[0];

    for (int i = 0; i < s->n_in; i++) {
        const uint8_t *x = io->in[i], *table = s->table[i];

        for (int64_t p = 0; p < s->outer; p++)
            for (int64_t c = 0; c < s->run[i]; c++)
                y[p * s->total + c] = table[*x++];
        y += s->run[i];
    }
}

static struct kernel_state *concat_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

static const char *const concat_ops[] = {"Concat", NULL};

const struct kernel kernel_concat_s8 = {
    .name = "concat_s8",
    .op_types = concat_ops,
    .fits = concat_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC | 1u << LAYOUT_PLAIN, .out = 1u << LAYOUT_NHWC | 1u << LAYOUT_PLAIN},
    .prepare = concat_prepare,
    .run = concat_run,
    .done = concat_done,
};
