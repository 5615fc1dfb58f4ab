/* Scales: the largest weight at the largest code; for signs the mean magnitude (Rastegari et al. 2016,
 * "XNOR-Net", equation 6), for -1, 0, 1 the mean of what is above 0.7 of it (Li et al. 2016, "Ternary weight
 * networks", section 2.3). */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/encode.h"

/* Which scale the element `at` of the tensor has. */
static int64_t scale_of(const struct weight *w, int64_t at) {
    int64_t inner = 1, n;

    if (strcmp(w->scales->name, "layer") == 0)
        return 0;
    for (int i = (w->group ? w->group_axis : w->axis) + 1; i < w->shape.rank; i++)
        inner *= w->shape.dim[i];
    if (!w->group)
        return at / inner % w->rows;
    n = w->shape.dim[w->group_axis];
    return (at / inner / n * ((n + w->group - 1) / w->group) + at / inner % n / w->group) * inner +
           at % inner;
}

float encoded_quotient(const struct encode_job *j, const struct encoded *e, int64_t i) {
    int64_t at = encoded_at(e, i);
    float v = encode_number(j->w, at), s = 1;

    if (e->scale.data)
        memcpy(&s, (const char *)e->scale.data + (size_t)scale_of(&j->form, at) * sizeof(s), sizeof(s));
    return v / s;
}

/* The code that the largest weight gets; 0: signs, -1: three values. */
static float largest_code(const struct encode_job *j) {
    const char *code = j->form.code->name;

    if (strcmp(code, "bit") == 0)
        return 0;
    if (strcmp(code, "trit") == 0)
        return -1;
    if (strcmp(code, "s4") == 0)
        return 7;
    return j->form.code->is_looked_up && j->o->entries == ENTRIES_FLOAT ? 1 : 127;
}

static void shape_of_scales(const struct weight *w, struct shape *ret) {
    *ret = (struct shape){.rank = 0};
    if (strcmp(w->scales->name, "channel") == 0)
        *ret = (struct shape){.rank = 1, .dim = {w->rows}};
    if (w->group) {
        *ret = w->shape;
        ret->dim[w->group_axis] = (ret->dim[w->group_axis] + w->group - 1) / w->group;
    }
}

struct sums {
    float *most;
    double *sum;
    int64_t *count;
    int64_t n;
};

static void sums_done(struct sums *s) {
    free(s->most);
    free(s->sum);
    free(s->count);
}

static int collect(const struct encode_job *j, const struct encoded *e, struct sums *s, struct error *err) {
    int64_t n = weight_count_stored(&e->w);

    for (int64_t i = 0; i < n; i++) {
        int64_t at = encoded_at(e, i), k = scale_of(&j->form, at);
        float v = fabsf(encode_number(j->w, at));

        if (!isfinite(v))
            return error_set(err, -EBADMSG, "weight %lld is not a finite number", (long long)at);
        s->most[k] = fmaxf(s->most[k], v);
        s->sum[k] += (double)v;
        s->count[k]++;
    }
    return 0;
}

/* The mean of those above 0.7 of the mean of all. */
static void collect_above(const struct encode_job *j, const struct encoded *e, struct sums *s) {
    int64_t n = weight_count_stored(&e->w);

    for (int64_t k = 0; k < s->n; k++) {
        s->most[k] = s->count[k] ? 0.7f * (float)(s->sum[k] / (double)s->count[k]) : 0;
        s->sum[k] = 0;
        s->count[k] = 0;
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t at = encoded_at(e, i), k = scale_of(&j->form, at);
        float v = fabsf(encode_number(j->w, at));

        if (v > s->most[k]) {
            s->sum[k] += (double)v;
            s->count[k]++;
        }
    }
}

static void choose(const struct encode_job *j, const struct sums *s, float largest, float *scale) {
    for (int64_t k = 0; k < s->n; k++) {
        float v = largest > 0   ? s->most[k] / largest
                  : s->count[k] ? (float)(s->sum[k] / (double)s->count[k])
                                : 0;

        if (j->min_scale && !j->form.group)
            for (int64_t r = s->n > 1 ? k : 0; r < (s->n > 1 ? k + 1 : j->rows->rows); r++)
                v = fmaxf(v, j->min_scale[r]);
        scale[k] = v < 1e-30f ? 1 : v; /* of zeros */
    }
}

int encode_scales(const struct encode_job *j, struct encoded *ret, struct error *err) {
    _cleanup_(sums_done) struct sums s = {0};
    float largest = largest_code(j);
    int r;

    ret->scale = (struct tensor){.dtype = DT_F32};
    shape_of_scales(&j->form, &ret->scale.shape);
    if (!shape_count(&ret->scale.shape, &s.n))
        return error_set(err, -EFBIG, "too many scales");
    s.most = calloc((size_t)s.n, sizeof(*s.most));
    s.sum = calloc((size_t)s.n, sizeof(*s.sum));
    s.count = calloc((size_t)s.n, sizeof(*s.count));
    ret->scale.data = NULL;
    if (!s.most || !s.sum || !s.count)
        return error_oom(err);
    r = collect(j, ret, &s, err);
    if (r < 0)
        return r;
    if (largest < 0)
        collect_above(j, ret, &s);
    ret->scale.data = calloc((size_t)s.n, sizeof(float));
    if (!ret->scale.data)
        return error_oom(err);
    choose(j, &s, largest, ret->scale.data);
    ret->w.scale = &ret->scale;
    return 0;
}
