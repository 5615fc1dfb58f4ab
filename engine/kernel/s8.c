#include "engine/kernel/s8.h"

#include <float.h>
#include <math.h>

#include "engine/pool.h"

bool s8_is_codes(const struct vtype *t) {
    return t->dtype == DT_U8 && t->quant.scale > 0;
}

/* What its operator makes of the two ends of the line. */
bool s8_clamp_bounds(const struct post *p, float *low, float *high) {
    _Alignas(64) float ends[2] = {-FLT_MAX, FLT_MAX}, bound[2];
    struct tensor x = {.dtype = DT_F32, .shape = {.rank = 1, .dim = {2}}, .data = ends};
    struct tensor y = {.dtype = DT_F32, .shape = {.rank = 1, .dim = {2}}, .data = bound};
    struct node n = {.op = p->op, .op_type = p->op->name, .param = p->param, .n_in = 1, .n_out = 1};
    const struct tensor *in[3] = {&x, p->arg[0], p->arg[1]};

    if (!p->op->is_clamp || p->other >= 0)
        return false;
    if (p->arg[0] || p->arg[1])
        n.n_in = 3;
    p->op->forward(&n, in, &y, NULL);
    *low = bound[0];
    *high = bound[1];
    return true;
}

bool s8_output_init(const struct layer *l, struct s8_output *ret) {
    const struct vtype *t = &l->out_type[0];
    struct s8_output o = {.is_float = t->dtype == DT_F32, .low = -FLT_MAX, .high = FLT_MAX};
    float scale = t->quant.scale;

    if (!o.is_float && !s8_is_codes(t))
        return false;
    if (!o.is_float) {
        o.zero = t->quant.zero;
        o.low = (float)(0 - o.zero);
        o.high = (float)(255 - o.zero);
    }
    for (int i = 0; i < l->node->n_post; i++) {
        float low, high;

        if (!s8_clamp_bounds(&l->node->post[i], &low, &high))
            return false;
        low = o.is_float ? low : rintf(low / scale);
        high = o.is_float ? high : rintf(high / scale);
        /* min(max(x, low), high), within the bounds so far */
        o.high = fmaxf(o.low, fminf(o.high, high));
        o.low = fminf(o.high, fmaxf(o.low, low));
    }
    if (!o.is_float) {
        o.low_code = (uint8_t)(int)(o.low + (float)o.zero);
        o.high_code = (uint8_t)(int)(o.high + (float)o.zero);
    }
    *ret = o;
    return true;
}

void s8_run_ranges(const struct kernel_state *s, const struct run_io *io, range_fn *fn, int64_t n,
    int64_t step, int64_t bytes) {
    int64_t parts = io->pool ? pool_size(io->pool) : 1, steps = (n + step - 1) / step;

    parts = parts < bytes / S8_PART + 1 ? parts : bytes / S8_PART + 1;
    parts = parts < steps ? parts : steps;
    ranges_run(s, io, fn, n, step, parts > 1 ? (unsigned)parts : 1);
}
