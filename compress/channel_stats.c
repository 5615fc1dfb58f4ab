#include "compress/channel_stats.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

static int start(struct channel_stats *s, int64_t n, struct error *err) {
    s->sum = calloc((size_t)n + 1, sizeof(*s->sum));
    s->square = calloc((size_t)n + 1, sizeof(*s->square));
    if (!s->sum || !s->square)
        return error_oom(err);
    s->n = n;
    return 0;
}

int channel_stats_add(struct channel_stats *s, const struct tensor *x, struct error *err) {
    int axis = x->shape.rank > 2 ? 1 : x->shape.rank - 1;
    int64_t outer = 1, inner = 1;
    const float *p = x->data;

    if (x->dtype != DT_F32 || axis < 0)
        return error_set(err, -EINVAL, "a value without channels cannot be calibrated");
    if (!s->n) {
        int r = start(s, x->shape.dim[axis], err);

        if (r < 0)
            return r;
    }
    if (s->n != x->shape.dim[axis])
        return error_set(err, -EINVAL, "the number of channels changes between samples");
    for (int i = 0; i < axis; i++)
        outer *= x->shape.dim[i];
    for (int i = axis + 1; i < x->shape.rank; i++)
        inner *= x->shape.dim[i];
    for (int64_t o = 0; o < outer; o++)
        for (int64_t c = 0; c < s->n; c++) {
            double sum = 0, square = 0;

            for (int64_t i = 0; i < inner; i++, p++) {
                sum += (double)*p;
                square += (double)*p * (double)*p;
            }
            s->sum[c] += sum;
            s->square[c] += square;
        }
    s->count += (double)(outer * inner);
    return 0;
}

double channel_mean(const struct channel_stats *s, int64_t c) {
    return s->count > 0 ? s->sum[c] / s->count : 0;
}

double channel_deviation(const struct channel_stats *s, int64_t c) {
    double mean = channel_mean(s, c);

    return s->count > 0 ? sqrt(fmax(0, s->square[c] / s->count - mean * mean)) : 0;
}

void channel_stats_done(struct channel_stats *s) {
    free(s->sum);
    free(s->square);
    *s = (struct channel_stats){0};
}
