#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "compress/finetune.h"
#include "compress/prune_weight.h"
#include "compress/recover.h"

/* Fewer zeros than this are weights that happen to be 0 (methods.md, Composition). */
#define LEAST_ZEROS 0.2

/* The masks as the trainer takes them: those of the set, and of all layers what is zero already and stays so.
 */
struct masks {
    struct weight_transform *transform; /* [n] */
    struct transform_mask *param;       /* [n] */
    uint8_t **found;                    /* [n] owned, NULL: the set's */
    size_t n;
};

static void masks_done(struct masks *m) {
    for (size_t i = 0; i < m->n; i++)
        free(m->found[i]);
    free(m->transform);
    free(m->param);
    free(m->found);
}

static void add_mask(struct masks *m, int value, const uint8_t *keep, uint8_t *owned) {
    m->param[m->n] = (struct transform_mask){.keep = keep};
    m->found[m->n] = owned;
    m->transform[m->n] =
        (struct weight_transform){.value = value, .row = transform_find("mask"), .param = &m->param[m->n]};
    m->n++;
}

static int find_zeros(
    const struct graph *g, const struct layer_entry *e, struct masks *m, struct error *err) {
    int value = g->nodes[e->node].in[1];
    const struct tensor *t = g->values[value].init;
    _cleanup_(freep) uint8_t *keep = NULL;
    int64_t n_zeros = 0;

    if (!t || t->dtype != DT_F32)
        return 0;
    keep = malloc((size_t)e->params + 1);
    if (!keep)
        return error_oom(err);
    for (int64_t i = 0; i < e->params; i++) {
        keep[i] = prune_weight(t->data, i) != 0;
        n_zeros += !keep[i];
    }
    if ((double)n_zeros >= LEAST_ZEROS * (double)e->params) {
        uint8_t *owned = TAKE(keep);

        add_mask(m, value, owned, owned);
    }
    return 0;
}

static int make_masks(struct graph *g, const struct prune_set *s, struct masks *m, struct error *err) {
    _cleanup_(layers_done) struct layers all = {0};
    int r = layers_list(g, NULL, &all, err);

    if (r < 0)
        return r;
    m->transform = calloc(s->n + all.n + 1, sizeof(*m->transform));
    m->param = calloc(s->n + all.n + 1, sizeof(*m->param));
    m->found = calloc(s->n + all.n + 1, sizeof(*m->found));
    if (!m->transform || !m->param || !m->found)
        return error_oom(err);
    for (size_t i = 0; i < s->n; i++)
        add_mask(m, s->layer[i].value, s->layer[i].keep, NULL);
    for (size_t i = 0; r == 0 && i < all.n; i++)
        r = find_zeros(g, &all.entry[i], m, err);
    return r;
}

/* What of the options shows in the result, beside what the trainer begins with. */
static void write_key(const struct prune_set *s, char *ret, size_t size) {
    const struct prune_options *o = s->o;

    snprintf(ret, size, "prune %d %d %d %d %.17g %.17g %.17g %d %d,%d %d,%d %d %d %.17g", o->granularity,
        o->criterion, o->norm, o->scope, o->sparsity, o->macs, o->threshold_sigma, o->schedule.kind,
        o->block[0], o->block[1], o->nm[0], o->nm[1], o->has_regularize, o->regularize.kind,
        o->regularize.strength);
}

static int run(struct work *work, const struct learn_run *run, const struct learn_options *o, json_t *report,
    struct error *err) {
    json_t *found = json_object();
    int r = found ? learn(work->graph, run, o, found, err) : error_oom(err);

    if (r < 0 || json_object_set(report, "finetune", found) < 0)
        r = r < 0 ? r : error_oom(err);
    json_decref(found);
    return r;
}

int prune_train(struct work *work, struct prune_set *s, const struct learn_hook *hook, int epochs,
    const char *name, json_t *report, struct error *err) {
    _cleanup_(masks_done) struct masks masks = {0};
    struct learn_options o = work->recover->finetune;
    struct learn_distil distil;
    char checkpoint[4096], key[512];
    struct learn_run learning = {.seed = work->seed,
        .progress = work->progress,
        .checkpoint_seconds = work->checkpoint_seconds,
        .memory_bytes = work->memory_bytes,
        .hook = hook,
        .transforms_key = key};
    int r = finetune_prepare(work->graph, err);

    if (r == 0 && !work->samples->source)
        return error_code(
            err, -EBADMSG, "data_required", "training needs a data set of pictures, not ready inputs");
    if (r == 0)
        r = prune_set_find(s, work->graph, err);
    if (r == 0)
        r = make_masks(work->graph, s, &masks, err);
    if (r == 0 && work->recover->has_distill)
        r = distil_read(&work->recover->distill, work->parent, &distil, err);
    if (r < 0)
        return r;
    if (epochs > 0)
        o.epochs = epochs;
    write_key(s, key, sizeof(key));
    learning.distil = work->recover->has_distill ? &distil : NULL;
    learning.source = work->samples->source;
    learning.weights = masks.transform;
    learning.n_weights = masks.n;
    if (work->checkpoint && snprintf(checkpoint, sizeof(checkpoint), "%s/step%zu.%s", work->checkpoint,
                                work->step, name) < (int)sizeof(checkpoint))
        learning.checkpoint = checkpoint;
    r = run(work, &learning, &o, report, err);
    return r == 0 ? prune_set_find(s, work->graph, err) : r;
}
