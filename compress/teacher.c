#include "compress/teacher.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compress/session.h"
#include "engine/pool.h"

struct teacher {
    struct session session;
    struct tensor in;
    int64_t item; /* floats of a sample */
    bool is_softmax;
    float *logits; /* [batch][classes] */
    int64_t n;
};

struct teacher *teacher_free(struct teacher *t) {
    if (!t)
        return NULL;
    session_done(&t->session);
    free(t->in.data);
    free(t->logits);
    free(t);
    return NULL;
}

static bool ends_in(const struct graph *g, const char *op) {
    int producer = g->values[g->outputs[0]].producer;

    return producer >= 0 && !strcmp(g->nodes[producer].op_type, op);
}

static int open_session(struct teacher *t, const struct graph *g, unsigned threads, struct error *err) {
    struct graph *copy = NULL;
    int r = graph_clone(g, &copy, err);

    if (r < 0)
        return r;
    copy->values[copy->inputs[0]].shape.dim[0] = -1;
    r = session_open_graph(copy, &t->session, err);
    if (r < 0 || threads < 2)
        return r;
    t->session.threads = threads;
    return pool_new(threads, &t->session.pool, err);
}

static int make_room(
    struct teacher *t, const struct shape *item, int64_t batch, int64_t classes, struct error *err) {
    const struct tensor *out = &t->session.out[0];
    int64_t n;

    if (out->dtype != DT_F32 || !shape_count(&out->shape, &n) || n != batch * classes)
        return error_code(err, -EBADMSG, "classes_do_not_match",
            "the teacher does not give %lld numbers for each picture", (long long)classes);
    t->n = n;
    t->in = (struct tensor){.dtype = DT_F32, .shape = *item};
    t->in.shape.dim[0] = batch;
    shape_count(item, &t->item);
    t->in.data = alloc_aligned((size_t)(batch * t->item) * sizeof(float));
    t->logits = calloc((size_t)n, sizeof(*t->logits));
    return t->in.data && t->logits ? 0 : error_oom(err);
}

int teacher_open(const struct graph *g, const struct shape *item, int64_t batch, int64_t classes,
    unsigned threads, struct teacher **ret, struct error *err) {
    _cleanup_(teacher_freep) struct teacher *t = calloc(1, sizeof(*t));
    struct shape shape = *item;
    int r;

    if (!t)
        return error_oom(err);
    if (g->n_inputs != 1 || g->values[g->inputs[0]].shape.rank < 1)
        return error_code(
            err, -EBADMSG, "method_not_applicable", "the teacher has not one input of known rank");
    shape.dim[0] = batch;
    t->is_softmax = ends_in(g, "Softmax");
    r = open_session(t, g, threads, err);
    if (r == 0)
        r = session_plan(&t->session, &shape, 1, err);
    if (r == 0)
        r = make_room(t, item, batch, classes, err);
    if (r < 0)
        return error_prefix(err, r, "the teacher");
    *ret = TAKE(t);
    return 0;
}

float *teacher_input(struct teacher *t, int64_t i) {
    return (float *)t->in.data + i * t->item;
}

const float *teacher_logits(struct teacher *t) {
    const float *y;

    session_run(&t->session, &t->in);
    y = t->session.out[0].data;
    for (int64_t i = 0; i < t->n; i++)
        t->logits[i] = t->is_softmax ? logf(fmaxf(y[i], 1e-30f)) : y[i];
    return t->logits;
}
