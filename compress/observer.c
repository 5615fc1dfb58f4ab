#include "compress/observer.h"

#include <math.h>

#define MSE_STEPS    80
#define MSE_SMALLEST 0.5

void observer_init(struct observer *o) {
    *o = (struct observer){0};
}

#define LANES 16

void observer_range(struct observer *o, const float *x, int64_t n) {
    float low[LANES], high[LANES];
    int64_t i = 0;

    /* lanes, because the compiler may not reorder one running minimum of floats */
    for (int k = 0; k < LANES; k++) {
        low[k] = o->low;
        high[k] = o->high;
    }
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++) {
            low[k] = x[i + k] < low[k] ? x[i + k] : low[k];
            high[k] = x[i + k] > high[k] ? x[i + k] : high[k];
        }
    for (; i < n; i++) {
        low[0] = x[i] < low[0] ? x[i] : low[0];
        high[0] = x[i] > high[0] ? x[i] : high[0];
    }
    /* a network that overflows on some picture must not make the scale infinite */
    for (int k = 0; k < LANES; k++) {
        if (isfinite(low[k]) && low[k] < o->low)
            o->low = low[k];
        if (isfinite(high[k]) && high[k] > o->high)
            o->high = high[k];
    }
}

void observer_count(struct observer *o, const float *x, int64_t n) {
    float width = o->high - o->low, per = width > 0 ? (float)OBSERVER_BINS / width : 0;

    for (int64_t i = 0; i < n; i++) {
        int bin;

        if (x[i] == 0) {
            o->n_zero++;
            continue;
        }
        if (!isfinite(x[i]))
            continue;
        bin = (int)((x[i] - o->low) * per);
        bin = bin < 0 ? 0 : bin >= OBSERVER_BINS ? OBSERVER_BINS - 1 : bin;
        o->bins[bin]++;
    }
}

struct quant quant_of_range(float low, float high, enum dtype t) {
    struct quant q = {.scale = 1, .zero = 0};
    float span;

    if (t == DT_S8) {
        span = fmaxf(-low, high) / 127.0f;
    } else if (low >= 0) {
        span = high / 255.0f;
    } else {
        span = (high - low) / 255.0f;
        if (span > 0)
            q.zero = (int32_t)lrintf(-low / span);
    }
    /* subnormal scales have no reciprocal */
    if (span >= 1e-30f)
        q.scale = span;
    else
        q.zero = 0;
    return q;
}

static double squared_error(const struct observer *o, struct quant q, enum dtype t) {
    double width = ((double)o->high - (double)o->low) / OBSERVER_BINS, sum = 0, scale = (double)q.scale;
    double lowest = t == DT_S8 ? -128 : 0, highest = t == DT_S8 ? 127 : 255;

    for (int i = 0; i < OBSERVER_BINS; i++) {
        double x, stored, error;

        if (!o->bins[i])
            continue;
        x = (double)o->low + ((double)i + 0.5) * width;
        stored = fmin(fmax(nearbyint(x / scale) + q.zero, lowest), highest);
        error = x - scale * (stored - q.zero);
        sum += (double)o->bins[i] * error * error;
    }
    return sum;
}

struct quant observer_quant(const struct observer *o, enum observer_kind kind, enum dtype t) {
    struct quant best = quant_of_range(o->low, o->high, t);
    double best_error;

    if (kind == OBSERVER_MINMAX || o->high - o->low <= 0)
        return best;
    best_error = squared_error(o, best, t);
    for (int i = 1; i <= MSE_STEPS; i++) {
        float share = (float)(1 - (1 - MSE_SMALLEST) * i / MSE_STEPS);
        struct quant q = quant_of_range(o->low * share, o->high * share, t);
        double error = squared_error(o, q, t);

        if (error < best_error) {
            best_error = error;
            best = q;
        }
    }
    return best;
}
