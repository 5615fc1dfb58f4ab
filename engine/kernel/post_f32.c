#include "engine/kernel/post_f32.h"

#include <math.h>
#include <string.h>

static bool read_post(const struct post *p, enum post_f32_kind *kind, float *a, float *b) {
    const char *op = p->op->name;

    *a = p->alpha;
    *b = p->beta;
    if (strcmp(op, "Relu") == 0) {
        *kind = POST_F32_CLAMP;
        *a = 0;
        *b = INFINITY;
    } else if (strcmp(op, "Clip") == 0) {
        *kind = POST_F32_CLAMP;
    } else if (strcmp(op, "LeakyRelu") == 0) {
        *kind = POST_F32_LEAKY;
    } else if (strcmp(op, "HardSigmoid") == 0) {
        *kind = POST_F32_HARD_SIGMOID;
    } else if (strcmp(op, "HardSwish") == 0) {
        *kind = POST_F32_HARD_SWISH;
    } else {
        return false;
    }
    return true;
}

bool post_f32_init(const struct layer *l, struct post_f32 *ret) {
    *ret = (struct post_f32){.low = -INFINITY, .high = INFINITY, .n = l->node->n_post};
    for (int i = 0; i < ret->n; i++) {
        const struct post *p = &l->node->post[i];

        if (p->other < 0) {
            if (!read_post(p, &ret->step[i].kind, &ret->step[i].a, &ret->step[i].b))
                return false;
            continue;
        }
        if (strcmp(p->op->name, "Add") != 0 || l->post_in[i].dtype != DT_F32 ||
            !shape_equal(&l->post_in[i].shape, &l->out[0].shape))
            return false;
        ret->step[i].kind = POST_F32_ADD;
    }
    ret->is_clamp = ret->n == 0 || (ret->n == 1 && ret->step[0].kind == POST_F32_CLAMP);
    if (ret->n && ret->is_clamp) {
        ret->low = ret->step[0].a;
        ret->high = ret->step[0].b;
    }
    return true;
}
