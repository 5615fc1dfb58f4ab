/* Image sizes of a net: which kernels run each, whatever the batch. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/net_priv.h"

void net_image_done(struct net_image *i) {
    free(i->inputs);
    free(i->choices);
    *i = (struct net_image){0};
}

/* One image of each input whose first dimension is free. */
static struct shape one_image(const struct net *n, size_t input, const struct shape *s) {
    const struct shape *declared = &n->loaded->values[n->loaded->inputs[input]].shape;
    struct shape one = *s;

    if (one.rank > 0 && (declared->rank < 1 || declared->dim[0] < 0) && one.dim[0] > 0)
        one.dim[0] = 1;
    return one;
}

struct net_image *net_find_image(struct net *n, const struct shape *inputs) {
    for (size_t k = 0; k < n->n_images; k++) {
        bool same = true;

        for (size_t i = 0; same && i < n->loaded->n_inputs; i++) {
            struct shape one = one_image(n, i, &inputs[i]);

            same = shape_equal(&one, &n->image[k].inputs[i]);
        }
        if (same)
            return &n->image[k];
    }
    return NULL;
}

int net_copy_choices(size_t n, const struct plan_choice *from, struct plan_choice **ret) {
    *ret = calloc(n + 1, sizeof(**ret));
    if (!*ret)
        return -ENOMEM;
    memcpy(*ret, from, n * sizeof(**ret));
    return 0;
}

/* What the times at hand say, asked at one image; without them there are no choices yet. */
static int choose_by_times(const struct net_build *b, struct net_image *i, struct error *err) {
    _cleanup_(plan_freep) struct plan *sketch = NULL;
    struct error ignored = {0};
    bool is_complete;
    int r;

    if (!b->env.tuner || tuner_count(b->env.tuner) == 0)
        return 0;
    r = plan_sketch(&b->env, i->inputs, i->threads, &sketch, &ignored);
    if (r < 0)
        return r == -ENOMEM ? error_oom(err) : 0; /* one image alone may not be possible */
    if (net_choose(sketch, &b->env, &is_complete) < 0 ||
        net_copy_choices(b->env.graph->n_nodes, sketch->choices, &i->choices) < 0)
        return error_oom(err);
    i->is_tuned = is_complete;
    return 0;
}

int net_image_new(const struct net *n, const struct net_build *b, const struct shape *inputs,
    unsigned threads, struct net_image *ret, struct error *err) {
    struct net_image i = {.threads = threads};
    int r;

    i.inputs = calloc(n->loaded->n_inputs + 1, sizeof(*i.inputs));
    if (!i.inputs)
        return error_oom(err);
    for (size_t k = 0; k < n->loaded->n_inputs; k++)
        i.inputs[k] = one_image(n, k, &inputs[k]);
    r = choose_by_times(b, &i, err);
    if (r < 0)
        net_image_done(&i);
    else
        *ret = i;
    return r;
}

/* In the place of the one not asked for the longest, when there are too many. */
struct net_image *net_keep_image(struct net *n, const struct net_image *i) {
    struct net_image *at = &n->image[0];

    for (size_t k = 1; k < n->n_images; k++) {
        if (n->image[k].used < at->used)
            at = &n->image[k];
    }
    if (n->n_images < MAX_PLANS)
        at = &n->image[n->n_images++];
    else
        net_image_done(at);
    *at = *i;
    return at;
}
