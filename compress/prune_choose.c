/* From scores to masks: the units with the least scores go until the budget is met exactly. Thresholds are
 * found as the radix of the scores' bits (scores are not negative: their bits sort as they do), units with
 * the threshold's own score go in order; so there is no sorting and no memory beside the masks. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/prune_weight.h"

/* Of a global budget no layer is emptied: it keeps at least this share of its units, or a quarter of what
 * stays of all where that is less. */
#define LEAST_SHARE 0.01

#define HIGH_BITS 16
#define LOW_BITS  15

static uint32_t key_of(float v) {
    uint32_t bits;

    memcpy(&bits, &v, sizeof(bits));
    return bits & INT32_MAX;
}

/* ---- the units that take part ---- */

/* In keep[] of a unit's first element while choosing. */
enum { GONE, KEPT, SAFE };

static uint8_t *state_of(struct prune_layer *l, int64_t u) {
    return &l->keep[prune_element(l, u, 0)];
}

typedef bool takes_part_fn(const struct prune_layer *l);

static bool is_pooled(const struct prune_layer *l) {
    return !l->is_alone;
}

static bool is_any(const struct prune_layer *l) {
    (void)l;
    return true;
}

/* Which of n layers take part; those that are SAFE do not count. */
struct pool {
    struct prune_layer *layer;
    size_t n;
    takes_part_fn *takes_part;
};

static void count_keys(const struct pool *p, int64_t *count, uint32_t high, bool is_low) {
    for (struct prune_layer *l = p->layer; l < p->layer + p->n; l++)
        for (int64_t u = 0; p->takes_part(l) && u < l->n_units; u++) {
            uint32_t key = key_of(l->score[u]);

            if (*state_of(l, u) == SAFE)
                continue;
            if (!is_low)
                count[key >> LOW_BITS]++;
            else if (key >> LOW_BITS == high)
                count[key & ((1u << LOW_BITS) - 1)]++;
        }
}

/* The bin in which the `n`-th (from 0) lies; *n: its place there. */
static uint32_t find_bin(const int64_t *count, uint32_t n_bins, int64_t *n) {
    uint32_t i = 0;

    for (; i + 1 < n_bins && *n >= count[i]; i++)
        *n -= count[i];
    return i;
}

/* The n_gone least of the pool get GONE, the others of it KEPT. */
static int choose_least(const struct pool *p, int64_t n_gone, struct error *err) {
    _cleanup_(freep) int64_t *count = calloc(1 << HIGH_BITS, sizeof(*count));
    uint32_t high, threshold;
    int64_t left = n_gone;

    if (!count)
        return error_oom(err);
    count_keys(p, count, 0, false);
    high = find_bin(count, 1 << HIGH_BITS, &left);
    memset(count, 0, (size_t)(1 << HIGH_BITS) * sizeof(*count));
    count_keys(p, count, high, true);
    threshold = high << LOW_BITS | find_bin(count, 1 << LOW_BITS, &left);
    for (struct prune_layer *l = p->layer; l < p->layer + p->n; l++)
        for (int64_t u = 0; p->takes_part(l) && u < l->n_units; u++) {
            uint32_t key = key_of(l->score[u]);

            if (*state_of(l, u) == SAFE)
                continue;
            *state_of(l, u) = key > threshold || (key == threshold && left-- <= 0) ? KEPT : GONE;
        }
    return 0;
}

/* From the units' states to the mask. */
static void spread(struct prune_layer *l) {
    l->n_kept = 0;
    for (int64_t u = 0; u < l->n_units; u++) {
        uint8_t keeps = *state_of(l, u) != GONE;

        for (int64_t k = 0; k < l->unit; k++)
            l->keep[prune_element(l, u, k)] = keeps;
        l->n_kept += keeps * l->unit;
    }
}

static void keep_all(struct prune_layer *l) {
    memset(l->keep, KEPT, (size_t)l->n);
    l->n_kept = l->n;
}

/* ---- n of m ---- */

static void choose_in_tiles(struct prune_layer *l, int64_t n_gone) {
    keep_all(l);
    for (int64_t u = 0; u < l->n_units; u++)
        for (int64_t i = 0; i < n_gone; i++) {
            int64_t least = -1;

            for (int64_t k = 0; k < l->unit; k++) {
                int64_t at = prune_element(l, u, k);

                if (l->keep[at] && (least < 0 || l->score[at] < l->score[least]))
                    least = at;
            }
            l->keep[least] = GONE;
        }
    l->n_kept -= n_gone * l->n_units;
}

/* ---- one layer by itself ---- */

static int64_t gone_of(const struct prune_layer *l, double share) {
    int64_t n = (int64_t)nearbyint(share * (double)l->n_units);

    return n < 0 ? 0 : n < l->n_units ? n : l->n_units - 1;
}

static int choose_alone(struct prune_layer *l, double share, struct error *err) {
    struct pool p = {l, 1, is_any};
    int r;

    keep_all(l);
    r = choose_least(&p, gone_of(l, share), err);
    spread(l);
    return r;
}

int prune_choose_share(struct prune_layer *l, double share, struct error *err) {
    if (l->o->granularity != PRUNE_NM)
        return choose_alone(l, share, err);
    choose_in_tiles(l, (int64_t)nearbyint(share * (double)l->unit));
    return 0;
}

/* Standard deviation of what is not zero, from the scores, which are magnitudes: the mean of weights is 0 but
 * for a little. */
static double sigma_of(const struct prune_layer *l) {
    double sum = 0, n = 0;

    for (int64_t i = 0; i < l->n; i++) {
        sum += (double)l->score[i] * (double)l->score[i];
        n += l->score[i] > 0;
    }
    return n > 0 ? sqrt(sum / n) : 0;
}

/* Han et al. 2015, section 3.4; the largest weight stays. */
static void choose_by_sigma(struct prune_layer *l, double sigmas) {
    double threshold = sigmas * sigma_of(l);
    int64_t largest = 0;

    l->n_kept = 0;
    for (int64_t i = 0; i < l->n; i++) {
        l->keep[i] = (double)l->score[i] >= threshold && l->score[i] > 0;
        l->n_kept += l->keep[i];
        largest = l->score[i] > l->score[largest] ? i : largest;
    }
    if (!l->n_kept) {
        l->keep[largest] = KEPT;
        l->n_kept = 1;
    }
}

/* ---- all layers together ---- */

static double least_share(double share) {
    return fmin(LEAST_SHARE, (1 - share) / 4);
}

/* The best units of each layer stay whatever the others are. */
static int mark_safe(struct prune_set *s, double share, struct error *err) {
    for (struct prune_layer *l = s->layer; l < s->layer + s->n; l++) {
        int64_t n_safe = (int64_t)ceil(least_share(share) * (double)l->n_units);
        struct pool p = {l, 1, is_any};
        int r;

        if (l->is_alone)
            continue;
        memset(l->keep, KEPT, (size_t)l->n);
        r = choose_least(&p, l->n_units - n_safe, err);
        if (r < 0)
            return r;
        for (int64_t u = 0; u < l->n_units; u++)
            *state_of(l, u) = *state_of(l, u) == KEPT ? SAFE : KEPT;
    }
    return 0;
}

/* Without `share` of all pooled weights. A block of any layer has as many weights. */
static int choose_pooled(struct prune_set *s, double share, struct error *err) {
    struct pool p = {s->layer, s->n, is_pooled};
    int64_t n = 0, n_free = 0, n_gone;
    int r = mark_safe(s, share, err);

    for (struct prune_layer *l = s->layer; r == 0 && l < s->layer + s->n; l++) {
        n += is_pooled(l) ? l->n_units : 0;
        for (int64_t u = 0; is_pooled(l) && u < l->n_units; u++)
            n_free += *state_of(l, u) != SAFE;
    }
    n_gone = (int64_t)nearbyint(share * (double)n);
    if (r == 0)
        r = choose_least(&p, n_gone < n_free ? n_gone : n_free, err);
    for (struct prune_layer *l = s->layer; r == 0 && l < s->layer + s->n; l++)
        if (is_pooled(l))
            spread(l);
    return r;
}

static int choose_each(struct prune_set *s, double share, struct error *err) {
    int r = 0;

    for (struct prune_layer *l = s->layer; r == 0 && l < s->layer + s->n; l++)
        if (!l->is_alone)
            r = choose_alone(l, s->o->scope == PRUNE_SENSITIVITY ? l->most * share : share, err);
    return r;
}

static bool is_pooling(const struct prune_set *s) {
    return s->o->scope == PRUNE_GLOBAL;
}

/* What the layers that share a budget lose; x: of what goes in the end. */
static int choose_shared(struct prune_set *s, double share, struct error *err) {
    return is_pooling(s) ? choose_pooled(s, share, err) : choose_each(s, share, err);
}

double prune_macs_kept(const struct prune_set *s) {
    double macs = s->macs;

    for (size_t i = 0; i < s->n; i++)
        macs -= s->layer[i].macs * (1 - (double)s->layer[i].n_kept / (double)s->layer[i].n);
    return s->macs > 0 ? macs / s->macs : 1;
}

double prune_sparsity(const struct prune_set *s) {
    int64_t kept = 0, n = 0;

    for (size_t i = 0; i < s->n; i++) {
        kept += s->layer[i].n_kept;
        n += s->layer[i].n;
    }
    return n ? 1 - (double)kept / (double)n : 0;
}

/* The least share of weights that brings the MACs down to `share` of the network's. */
static int choose_by_macs(struct prune_set *s, double share, struct error *err) {
    double low = 0, high = s->o->scope == PRUNE_SENSITIVITY ? 1 : 0.9999;
    int r = 0;

    for (int i = 0; r == 0 && i < 24; i++) {
        double mid = (low + high) / 2;

        r = choose_shared(s, mid, err);
        if (prune_macs_kept(s) > share)
            low = mid;
        else
            high = mid;
    }
    return r == 0 ? choose_shared(s, high, err) : r;
}

int prune_choose(struct prune_set *s, double x, struct error *err) {
    const struct prune_options *o = s->o;
    int r = 0;

    for (struct prune_layer *l = s->layer; r == 0 && l < s->layer + s->n; l++) {
        if (o->granularity == PRUNE_NM)
            choose_in_tiles(l, (int64_t)nearbyint(x * (o->nm[1] - o->nm[0])));
        else if (l->o->threshold_sigma > 0)
            choose_by_sigma(l, x * l->o->threshold_sigma);
        else if (l->is_alone)
            r = choose_alone(l, x * l->o->sparsity, err);
    }
    if (r < 0 || o->granularity == PRUNE_NM || o->threshold_sigma > 0)
        return r;
    if (o->macs > 0)
        return choose_by_macs(s, 1 - x * (1 - o->macs), err);
    return choose_shared(s, o->scope == PRUNE_SENSITIVITY ? x : x * o->sparsity, err);
}

int prune_check_budget(const struct prune_set *s, struct error *err) {
    double least = s->macs;

    if (s->o->macs <= 0)
        return 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct prune_layer *l = &s->layer[i];
        double gone = l->is_alone ? l->o->sparsity : 1 - LEAST_SHARE / 4;

        least -= l->macs * gone;
    }
    if (s->macs <= 0 || least <= s->o->macs * s->macs)
        return 0;
    return error_code(err, -EBADMSG, "requirement_not_met",
        ".macs: %g of the multiplications cannot be reached by the layers that the step touches; the least is %.3f",
        s->o->macs, least / s->macs);
}
