#include "engine/train/optim.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "engine/hugemem.h"

/* Sutskever 2013 in the form of PyTorch: m = momentum m + g, w -= lr (g + momentum m) or lr m. */
static void sgd(const struct optim_param *p, float lr, float decay, int64_t step, int64_t n, float *w,
    const float *g, float *const *m) {
    float first = step == 1 ? 0 : p->momentum, momentum = p->momentum;
    bool nesterov = p->nesterov;
    float *restrict to = w, *restrict mean = m[0];
    const float *restrict from = g;

    for (int64_t i = 0; i < n; i++) {
        float d = from[i] + decay * to[i];

        mean[i] = first * mean[i] + d;
        to[i] -= lr * (nesterov ? d + momentum * mean[i] : mean[i]);
    }
}

/* Kingma and Ba 2015, algorithm 1; `decay` is added to the gradient, `shrink` taken off the weights. */
static void adam_step(const struct optim_param *p, float lr, float decay, float shrink, int64_t step,
    int64_t n, float *w, const float *g, float *const *m) {
    float c1 = (float)(1 - pow((double)p->beta1, (double)step));
    float c2 = (float)sqrt(1 - pow((double)p->beta2, (double)step));

    for (int64_t i = 0; i < n; i++) {
        float d = g[i] + decay * w[i];

        m[0][i] = p->beta1 * m[0][i] + (1 - p->beta1) * d;
        m[1][i] = p->beta2 * m[1][i] + (1 - p->beta2) * d * d;
        w[i] -= lr * shrink * w[i] + lr / c1 * m[0][i] / (sqrtf(m[1][i]) / c2 + p->epsilon);
    }
}

static void adam(const struct optim_param *p, float lr, float decay, int64_t step, int64_t n, float *w,
    const float *g, float *const *m) {
    adam_step(p, lr, decay, 0, step, n, w, g, m);
}

static void adamw(const struct optim_param *p, float lr, float decay, int64_t step, int64_t n, float *w,
    const float *g, float *const *m) {
    adam_step(p, lr, 0, decay, step, n, w, g, m);
}

static const struct optim_kind kinds[] = {
    {"adam", 2, adam},
    {"adamw", 2, adamw},
    {"sgd", 1, sgd},
};

const struct optim_kind *optim_find(const char *name) {
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

struct optim_param optim_defaults(void) {
    return (struct optim_param){
        .momentum = 0.9f, .nesterov = true, .beta1 = 0.9f, .beta2 = 0.999f, .epsilon = 1e-8f};
}

int optim_init(struct optim *o, const struct optim_kind *kind, const struct optim_param *p, int64_t n,
    struct error *err) {
    *o = (struct optim){.kind = kind, .param = *p, .n = n};
    o->moment = hugemem_new((size_t)n * kind->n_moments * sizeof(float) + 64);
    return o->moment ? 0 : error_oom(err);
}

void optim_done(struct optim *o) {
    if (o->moment)
        hugemem_free(o->moment, (size_t)o->n * o->kind->n_moments * sizeof(float) + 64);
    o->moment = NULL;
}

static double constant(double at) {
    (void)at;
    return 1;
}

static double cosine(double at) {
    return 0.5 * (1 + cos(M_PI * at));
}

static double onecycle(double at) {
    return at < 0.3 ? 0.04 + 0.96 * 0.5 * (1 - cos(M_PI * at / 0.3))
                    : 0.5 * (1 + cos(M_PI * (at - 0.3) / 0.7));
}

static double by_steps(double at) {
    return at < 0.5 ? 1 : at < 0.75 ? 0.1 : 0.01;
}

static const struct schedule_kind schedules[] = {
    {"constant", constant},
    {"cosine", cosine},
    {"onecycle", onecycle},
    {"step", by_steps},
};

const struct schedule_kind *schedule_find(const char *name) {
    for (size_t i = 0; i < sizeof(schedules) / sizeof(schedules[0]); i++)
        if (strcmp(schedules[i].name, name) == 0)
            return &schedules[i];
    return NULL;
}

float schedule_rate(const struct schedule_kind *k, float lr, double warmup, int64_t step, int64_t n) {
    double at = n > 0 ? (double)step / (double)n : 0;
    double rise = warmup > 0 && at < warmup ? ((double)step + 1) / (warmup * (double)n) : 1;

    return (float)((double)lr * fmin(rise, 1) * k->factor(at));
}
