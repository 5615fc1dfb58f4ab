#include "compress/learn_norms.h"

#include <string.h>

#include "compress/feed.h"

#define MEASURED     256  /* pictures */
#define RATE         0.01 /* unless given */
#define RATE_NO_NORM 0.002
#define CLIP_NO_NORM 1

static bool is_choice(const struct learn_options *o, const char *name) {
    return strcmp(learn_batch_norms[o->batch_norm], name) == 0;
}

int learn_insert_norms(struct graph *g, const struct learn_run *run, const struct learn_options *o,
    bool measures, struct norm_insert *ret, struct error *err) {
    struct feed feed = {0};
    struct samples s;
    int r;

    if (!is_choice(o, "insert") && !(is_choice(o, "auto") && norm_insert_is_due(g)))
        return 0;
    if (!measures)
        return norm_insert(g, NULL, run->frozen, NULL, ret, err);
    r = feed_open(
        run->source->pack, "train", &g->values[g->inputs[0]], run->source->preprocess, MEASURED, &feed, err);
    if (r < 0)
        return r;
    s = feed_samples(&feed);
    r = norm_insert(g, &s, run->frozen, run->progress, ret, err);
    feed_done(&feed);
    return r;
}

int learn_fold_norms(struct norm_insert *n, struct graph *g, int r, struct error *err) {
    if (r == 0)
        r = norm_insert_fold(n, g, err);
    if (r < 0)
        norm_insert_undo(n, g);
    return r;
}

bool learn_uses_batch_stats(const struct learn_options *o) {
    return !is_choice(o, "none");
}

double learn_rate(const struct learn_options *o) {
    return o->lr > 0 ? o->lr : is_choice(o, "none") ? RATE_NO_NORM : RATE;
}

double learn_clip(const struct learn_options *o) {
    return o->clip > 0 || !is_choice(o, "none") ? o->clip : CLIP_NO_NORM;
}
