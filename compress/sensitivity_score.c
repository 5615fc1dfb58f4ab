/* From answers to damage. */
#include <math.h>
#include <string.h>

#include "compress/sensitivity_priv.h"

#define MAX_CLASSES 100000 /* above it these are pictures */

static int64_t best_of(const float *y, int64_t n) {
    int64_t best = 0;

    for (int64_t k = 1; k < n; k++)
        if (y[k] > y[best])
            best = k;
    return best;
}

/* Is every answer a distribution, as a softmax gives it? */
static bool is_softmax(const float *y, int64_t rows, int64_t classes) {
    for (int64_t i = 0; i < rows; i++) {
        double sum = 0;

        for (int64_t k = 0; k < classes; k++) {
            if (y[i * classes + k] < 0)
                return false;
            sum += (double)y[i * classes + k];
        }
        if (!(fabs(sum - 1) <= 1e-3))
            return false;
    }
    return true;
}

/* Classes of the first output; 0: it is none of a classifier. */
static int64_t classes_of(const struct sensitivity_base *b) {
    const struct tensor *t = &b->shapes.value[b->graph->outputs[0]];
    bool is_row = t->shape.rank == 2 || (t->shape.rank == 4 && t->shape.dim[2] == 1 && t->shape.dim[3] == 1);

    return is_row && t->shape.dim[1] > 1 && t->shape.dim[1] <= MAX_CLASSES ? t->shape.dim[1] : 0;
}

int score_parent(struct sensitivity *s, struct error *err) {
    struct sensitivity_facts *f = &s->facts;
    const float *y = s->base[0].answers[0];

    f->n_classes = classes_of(&s->base[0]);
    if (!f->n_classes)
        return 0;
    s->is_softmax = is_softmax(y, f->n, f->n_classes);
    s->answer = calloc((size_t)f->n + 1, sizeof(*s->answer));
    if (!s->answer)
        return error_oom(err);
    for (int64_t i = 0; i < f->n; i++)
        s->answer[i] = (int32_t)best_of(y + i * f->n_classes, f->n_classes);
    f->answer = s->answer;
    return 0;
}

static void log_softmax(const float *y, int64_t n, bool is_soft, double *ret) {
    double most = -HUGE_VAL, sum = 0;

    for (int64_t k = 0; k < n; k++) {
        ret[k] = is_soft ? log(fmax((double)y[k], 1e-30)) : (double)y[k];
        most = fmax(most, ret[k]);
    }
    for (int64_t k = 0; k < n; k++)
        sum += exp(ret[k] - most);
    for (int64_t k = 0; k < n; k++)
        ret[k] -= most + log(sum);
}

/* In nats; not below 0, where rounding may lead. */
static double divergence(struct score *c, const float *before, const float *after) {
    int64_t n = c->s->facts.n_classes;
    double *p = c->p, *q = c->p + n, sum = 0;

    log_softmax(before, n, c->s->is_softmax, p);
    log_softmax(after, n, c->s->is_softmax, q);
    for (int64_t k = 0; k < n; k++)
        sum += exp(p[k]) * (p[k] - q[k]);
    return sum > 0 || isnan(sum) ? sum : 0;
}

int score_begin(struct sensitivity *s, struct sensitivity_damage *d, struct score *ret, struct error *err) {
    size_t n = (size_t)s->facts.n, n_out = s->facts.n_outputs;
    struct score c = {.s = s,
        .d = d,
        .error = calloc(n_out + 1, sizeof(*c.error)),
        .size = calloc(n_out + 1, sizeof(*c.size)),
        .p = calloc(2 * (size_t)s->facts.n_classes + 1, sizeof(*c.p))};

    *d = (struct sensitivity_damage){.kl = (double)NAN,
        .agreement = (double)NAN,
        .relative_l2 = calloc(n_out + 1, sizeof(*d->relative_l2)),
        .sample = calloc(n + 1, sizeof(*d->sample)),
        .answer = s->facts.n_classes ? calloc(n + 1, sizeof(*d->answer)) : NULL};
    *ret = c;
    return c.error && c.size && c.p && d->relative_l2 && d->sample && (d->answer || !s->facts.n_classes)
               ? 0
               : error_oom(err);
}

static double root_share(double error, double size) {
    return sqrt(error / fmax(size, 1e-30));
}

static void add_output(struct score *c, size_t o, int64_t first, int64_t count, const float *y) {
    int64_t per = c->s->per_sample[o];
    const float *want = c->s->base[0].answers[o];

    for (int64_t i = 0; i < count; i++) {
        double error = 0, size = 0;

        for (int64_t k = 0; k < per; k++) {
            double before = (double)want[(first + i) * per + k], d = (double)y[i * per + k] - before;

            error += d * d;
            size += before * before;
        }
        c->error[o] += error;
        c->size[o] += size;
        if (!c->s->facts.n_classes)
            c->d->sample[first + i] = fmax(c->d->sample[first + i], root_share(error, size));
    }
}

static void add_classes(struct score *c, int64_t first, int64_t count, const float *y) {
    const struct sensitivity *s = c->s;
    int64_t classes = s->facts.n_classes;

    for (int64_t i = first; i < first + count; i++) {
        const float *after = y + (i - first) * classes;

        c->d->sample[i] = divergence(c, s->base[0].answers[0] + i * classes, after);
        c->d->answer[i] = (int32_t)best_of(after, classes);
        if (!s->label || s->label[i] < 0)
            continue;
        c->d->n01 += s->answer[i] == s->label[i] && c->d->answer[i] != s->label[i];
        c->d->n10 += s->answer[i] != s->label[i] && c->d->answer[i] == s->label[i];
    }
}

void score_add(struct score *c, int64_t first, int64_t count, const float *const *y) {
    for (size_t o = 0; o < c->s->facts.n_outputs; o++)
        add_output(c, o, first, count, y[o]);
    if (c->s->facts.n_classes)
        add_classes(c, first, count, y[0]);
}

void score_end(struct score *c) {
    const struct sensitivity_facts *f = &c->s->facts;
    double kl = 0, same = 0;

    for (size_t o = 0; o < f->n_outputs; o++) {
        c->d->relative_l2[o] = root_share(c->error[o], c->size[o]);
        c->d->damage = o == 0 || c->d->relative_l2[o] > c->d->damage ? c->d->relative_l2[o] : c->d->damage;
    }
    if (!f->n_classes)
        return;
    for (int64_t i = 0; i < f->n; i++) {
        kl += c->d->sample[i];
        same += c->d->answer[i] == c->s->answer[i];
    }
    c->d->damage = c->d->kl = kl / (double)f->n;
    c->d->agreement = same / (double)f->n;
}

double sensitivity_cost(const struct sensitivity_damage *d) {
    return isnan(d->kl) ? d->damage * d->damage : d->kl;
}

void score_done(struct score *c) {
    free(c->error);
    free(c->size);
    free(c->p);
}
