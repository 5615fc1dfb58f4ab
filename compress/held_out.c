#include "compress/held_out.h"

#include "base/cleanup.h"
#include "compress/batches.h"
#include "compress/evaluate.h"

/* The loop's own fraction is not this one's. */
static struct progress quietly(const struct progress *p) {
    return p ? (struct progress){.ctx = p->ctx, .threads = p->threads, .is_cancelled = p->is_cancelled}
             : (struct progress){0};
}

static bool has_labels(const struct feed *f) {
    for (uint64_t i = 0; i < f->n; i++) {
        struct pack_item item;

        pack_item(f->pack, f->split, f->item[i], &item);
        if (item.label == PACK_NO_LABEL)
            return false;
    }
    return f->n > 0;
}

int held_out_accuracy(const struct work *work, const struct graph *g, double *ret, struct error *err) {
    const struct feed_source *source = work->samples ? work->samples->source : NULL;
    const struct batches_options one = {.batch = 1};
    struct progress quiet = quietly(work->progress);
    _cleanup_(batches_freep) struct batches *b = NULL;
    _cleanup_(evaluation_done) struct evaluation e = {0};
    struct session s = {0};
    struct graph *copy;
    int r;

    *ret = -1;
    if (!source || g->n_inputs != 1)
        return 0;
    r = batches_open(source, &g->values[g->inputs[0]], &one, &b, err);
    if (r < 0 || !has_labels(batches_val(b)))
        return r;
    r = graph_clone(g, &copy, err);
    if (r == 0)
        r = session_open_graph(copy, &s, err);
    if (r == 0)
        r = evaluate(&s, batches_val(b), source->labels, &quiet, &e, err);
    if (r == 0)
        *ret = (double)e.n_correct / (double)e.n;
    session_done(&s);
    return r;
}
