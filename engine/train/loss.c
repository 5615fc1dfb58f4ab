#include "engine/train/loss.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* log of the sum of exp(o / t), the largest taken out. */
static double log_sum(const float *o, int64_t n, double t) {
    double most = -HUGE_VAL, sum = 0;

    for (int64_t i = 0; i < n; i++)
        most = fmax(most, (double)o[i] / t);
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)o[i] / t - most);
    return most + log(sum);
}

static double cross_entropy(
    const struct loss_param *p, const float *o, const float *y, int64_t n, float scale, float *d) {
    double all = log_sum(o, n, 1), loss = 0, total = 0, even = (double)p->smoothing / (double)n;

    for (int64_t i = 0; i < n; i++)
        total += (double)y[i] * (1 - (double)p->smoothing) + even;
    for (int64_t i = 0; i < n; i++) {
        double target = (double)y[i] * (1 - (double)p->smoothing) + even, log_p = (double)o[i] - all;

        loss -= target * log_p;
        d[i] = (float)((double)scale * (exp(log_p) * total - target));
    }
    return loss;
}

static double kl_to(
    const struct loss_param *p, const float *o, const float *y, int64_t n, float scale, bool adds, float *d) {
    double t = p->temperature > 0 ? (double)p->temperature : 1, ours = log_sum(o, n, t),
           theirs = log_sum(y, n, t);
    double loss = 0;

    for (int64_t i = 0; i < n; i++) {
        double log_q = (double)o[i] / t - ours, log_p = (double)y[i] / t - theirs, q = exp(log_p);

        loss += q * (log_p - log_q) * t * t;
        d[i] = (adds ? d[i] : 0) + (float)((double)scale * t * (exp(log_q) - q));
    }
    return loss;
}

static double kl(
    const struct loss_param *p, const float *o, const float *y, int64_t n, float scale, float *d) {
    return kl_to(p, o, y, n, scale, false, d);
}

static double distil(
    const struct loss_param *p, const float *o, const float *y, int64_t n, float scale, float *d) {
    double hard = cross_entropy(p, o, y, n, scale * (1 - p->weight), d);

    return (1 - (double)p->weight) * hard +
           (double)p->weight * kl_to(p, o, y + n, n, scale * p->weight, true, d);
}

static double l2(
    const struct loss_param *p, const float *o, const float *y, int64_t n, float scale, float *d) {
    double loss = 0;

    (void)p;
    for (int64_t i = 0; i < n; i++) {
        double diff = (double)o[i] - (double)y[i];

        loss += 0.5 * diff * diff;
        d[i] = (float)((double)scale * diff);
    }
    return loss;
}

/* Of the sigmoids of the outputs, summed: several labels a sample. */
static double bce(
    const struct loss_param *p, const float *o, const float *y, int64_t n, float scale, float *d) {
    double loss = 0;

    (void)p;
    for (int64_t i = 0; i < n; i++) {
        double x = (double)o[i];

        loss += fmax(x, 0) - x * (double)y[i] + log1p(exp(-fabs(x)));
        d[i] = (float)((double)scale * (1 / (1 + exp(-x)) - (double)y[i]));
    }
    return loss;
}

static const struct loss_kind kinds[] = {
    {"bce", 1, true, bce},
    {"cross_entropy", 1, false, cross_entropy},
    {"distil", 2, false, distil},
    {"kl", 1, false, kl},
    {"l2", 1, true, l2},
};

const struct loss_kind *loss_find(const char *name) {
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}
