#include "compress/observer.h"

#include <math.h>

#define MSE_STEPS    80
#define MSE_SMALLEST 0.5

#define PERCENTILE_OUTSIDE 1e-4

#define ENTROPY_LEVELS 128
#define ENTROPY_STEP   8
#define ENTROPY_LEAST  1e-12 /* share of a level that is empty inside the range */

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

static struct quant quant_mse(const struct observer *o, enum dtype t) {
    struct quant best = quant_of_range(o->low, o->high, t);
    double best_error = squared_error(o, best, t);

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

/* A ten-thousandth of the values outside: all of it above when nothing is negative, else half on each side.
 */
static struct quant quant_percentile(const struct observer *o, enum dtype t) {
    double width = ((double)o->high - (double)o->low) / OBSERVER_BINS, total = 0, cut, seen = 0;
    int first = 0, last = OBSERVER_BINS - 1;

    for (int i = 0; i < OBSERVER_BINS; i++)
        total += (double)o->bins[i];
    cut = total * PERCENTILE_OUTSIDE * (o->low < 0 && o->high > 0 ? 0.5 : 1);
    while (o->high > 0 && last > 0 && seen + (double)o->bins[last] <= cut)
        seen += (double)o->bins[last--];
    seen = 0;
    while (o->low < 0 && first < last && seen + (double)o->bins[first] <= cut)
        seen += (double)o->bins[first++];
    return quant_of_range(fminf((float)((double)o->low + first * width), 0),
        fmaxf((float)((double)o->low + (last + 1) * width), 0), t);
}

/* Kullback-Leibler divergence of what is seen in bins [first, end), all outside counted into the two at its
 * ends, from the same in ENTROPY_LEVELS levels, each spread evenly over its bins that are not empty. */
static double divergence(const struct observer *o, int first, int end, double total) {
    double p_first = 0, p_last = 0, inside = 0, sum = 0;
    int n = end - first;

    for (int i = 0; i < OBSERVER_BINS; i++) {
        p_first += i <= first ? (double)o->bins[i] : 0;
        p_last += i >= end - 1 ? (double)o->bins[i] : 0;
        inside += i >= first && i < end ? (double)o->bins[i] : 0;
    }
    for (int level = 0; level < ENTROPY_LEVELS; level++) {
        int from = first + level * n / ENTROPY_LEVELS, to = first + (level + 1) * n / ENTROPY_LEVELS;
        double have = 0, filled = 0;

        for (int i = from; i < to; i++) {
            have += (double)o->bins[i];
            filled += o->bins[i] > 0;
        }
        for (int i = from; i < to; i++) {
            double p = i == first ? p_first : i == end - 1 ? p_last : (double)o->bins[i];
            double q = o->bins[i] ? have / filled / inside : 0;

            if (p > 0)
                sum += p / total * log(p / total / fmax(q, ENTROPY_LEAST));
        }
    }
    return sum;
}

static struct quant quant_entropy(const struct observer *o, enum dtype t) {
    double width = ((double)o->high - (double)o->low) / OBSERVER_BINS, zero = -(double)o->low / width;
    double total = 0, best = HUGE_VAL;
    int best_first = 0, best_end = OBSERVER_BINS;

    for (int i = 0; i < OBSERVER_BINS; i++)
        total += (double)o->bins[i];
    for (int n = ENTROPY_LEVELS; n <= OBSERVER_BINS && total > 0; n += ENTROPY_STEP) {
        int first = (int)(zero * (1 - (double)n / OBSERVER_BINS)), end = first + n;
        double d = divergence(o, first, end, total);

        if (d < best) {
            best = d;
            best_first = first;
            best_end = end;
        }
    }
    return quant_of_range(fminf((float)((double)o->low + best_first * width), 0),
        fmaxf((float)((double)o->low + best_end * width), 0), t);
}

struct quant observer_quant(const struct observer *o, enum observer_kind kind, enum dtype t) {
    if (o->high - o->low <= 0)
        return quant_of_range(o->low, o->high, t);
    switch (kind) {
    case OBSERVER_MSE: return quant_mse(o, t);
    case OBSERVER_PERCENTILE: return quant_percentile(o, t);
    case OBSERVER_ENTROPY: return quant_entropy(o, t);
    case OBSERVER_MINMAX: break;
    }
    return quant_of_range(o->low, o->high, t);
}
