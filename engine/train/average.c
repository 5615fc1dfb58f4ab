#include "engine/train/average.h"

#include <math.h>
#include <string.h>

#include "engine/hugemem.h"

int average_init(struct average *a, const struct trainer *t, float decay, struct error *err) {
    float *to;

    *a = (struct average){.decay = decay};
    for (size_t i = 0; i < trainer_n_params(t); i++)
        a->n += trainer_param(t, i)->n;
    a->data = to = hugemem_new((size_t)a->n * sizeof(float));
    if (!a->data)
        return error_oom(err);
    for (size_t i = 0; i < trainer_n_params(t); i++) {
        memcpy(to, trainer_param(t, i)->data, (size_t)trainer_param(t, i)->n * sizeof(float));
        to += trainer_param(t, i)->n;
    }
    return 0;
}

void average_done(struct average *a) {
    if (a->data)
        hugemem_free(a->data, (size_t)a->n * sizeof(float));
    a->data = NULL;
}

struct update {
    const struct trainer *t;
    float *data, decay;
};

static void update_param(void *ctx, unsigned param) {
    const struct update *u = ctx;
    const struct train_param *p = trainer_param(u->t, param);
    float *a = u->data;

    for (unsigned i = 0; i < param; i++)
        a += trainer_param(u->t, i)->n;
    for (int64_t i = 0; i < p->n; i++)
        a[i] += (1 - u->decay) * (p->data[i] - a[i]);
}

void average_update(struct average *a, const struct trainer *t, struct pool *pool, int64_t step) {
    float rising = (float)(1 + step) / (float)(10 + step);
    struct update u = {t, a->data, fminf(a->decay, rising)};

    pool_run(pool, (unsigned)trainer_n_params(t), update_param, &u);
}

void average_swap(struct average *a, struct trainer *t) {
    float *p = a->data;

    for (size_t i = 0; i < trainer_n_params(t); i++) {
        const struct train_param *param = trainer_param(t, i);

        for (int64_t k = 0; k < param->n; k++, p++) {
            float w = param->data[k];

            param->data[k] = *p;
            *p = w;
        }
    }
}
