#include "engine/kernel/sparse_post.h"

#include <string.h>

static const struct {
    const char *op;
    enum sparse_post_kind kind;
} kinds[] = {
    {"Clip", SPARSE_POST_CLIP},
    {"HardSigmoid", SPARSE_POST_HARD_SIGMOID},
    {"HardSwish", SPARSE_POST_HARD_SWISH},
    {"LeakyRelu", SPARSE_POST_RELU},
    {"Relu", SPARSE_POST_RELU},
};

bool sparse_posts_fit(const struct layer *l) {
    for (int i = 0; i < l->node->n_post; i++) {
        const struct post *p = &l->node->post[i];

        if (p->other < 0) {
            if (!p->op->is_unary || !p->op->forward)
                return false;
        } else if (strcmp(p->op->name, "Add") != 0 || l->post_in[i].dtype != DT_F32 ||
                   !shape_equal(&l->post_in[i].shape, &l->out[0].shape)) {
            return false;
        }
    }
    return true;
}

int sparse_posts_init(const struct layer *l, struct sparse_post ret[NODE_MAX_POSTS]) {
    for (int i = 0; i < l->node->n_post; i++) {
        const struct post *p = &l->node->post[i];

        ret[i] =
            (struct sparse_post){.kind = SPARSE_POST_FORWARD, .alpha = p->alpha, .beta = p->beta, .post = p};
        if (p->other >= 0) {
            ret[i].kind = SPARSE_POST_ADD;
            ret[i].residual = l->in_place_post == i ? -1 : i;
            continue;
        }
        for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++)
            if (strcmp(kinds[k].op, p->op->name) == 0)
                ret[i].kind = kinds[k].kind;
    }
    return l->node->n_post;
}

void sparse_post_forward(const struct post *p, float *x, int n) {
    _Alignas(64) float from[SPARSE_SLICE * SPARSE_SLICE];
    struct tensor in = {.dtype = DT_F32, .shape = {.rank = 1, .dim = {n}}, .data = from};
    struct tensor out = {.dtype = DT_F32, .shape = {.rank = 1, .dim = {n}}, .data = x};
    struct node node = {.op = p->op, .op_type = p->op->name, .param = p->param, .n_in = 1, .n_out = 1};
    const struct tensor *const args[3] = {&in, p->arg[0], p->arg[1]};

    if (p->arg[0] || p->arg[1])
        node.n_in = 3;
    memcpy(from, x, (size_t)n * sizeof(float));
    p->op->forward(&node, args, &out, NULL);
}
