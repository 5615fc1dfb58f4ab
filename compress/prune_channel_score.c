/* Criteria that look at weights alone. A channel's score is the sum over the layers that make it. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/chance.h"
#include "compress/encode.h"
#include "compress/prune_channel.h"

/* The rows of a site as they act: times the factor of the batch norm behind. */
struct rows {
    const struct coupling_site *site;
    const void *w;
    int64_t outer, inner; /* element (o, i, k) at (o n + i) inner + k */
    double *factor;       /* [n], owned */
    bool has_norm;
};

static void rows_done(struct rows *r) {
    free(r->factor);
}

static int rows_init(
    struct rows *r, const struct graph *g, const struct coupling_site *s, struct error *err) {
    const struct node *n = &g->nodes[s->node];
    const struct tensor *t = g->values[n->in[s->input]].init;

    *r = (struct rows){.site = s, .w = t->data, .outer = 1, .inner = 1};
    for (int d = 0; d < t->shape.rank; d++)
        if (d < s->axis)
            r->outer *= t->shape.dim[d];
        else if (d > s->axis)
            r->inner *= t->shape.dim[d];
    r->factor = malloc(((size_t)s->n + 1) * sizeof(*r->factor));
    if (!r->factor)
        return error_oom(err);
    r->has_norm = channel_norm_factors(g, s->node, s->n, r->factor, NULL);
    for (int64_t i = 0; !r->has_norm && i < s->n; i++)
        r->factor[i] = 1;
    return 0;
}

static double at(const struct rows *r, int64_t o, int64_t i, int64_t k) {
    return (double)encode_number(r->w, (o * r->site->n + i) * r->inner + k) * r->factor[i];
}

static double norm_of(const struct rows *r, int64_t i, int norm) {
    double sum = 0;

    for (int64_t o = 0; o < r->outer; o++)
        for (int64_t k = 0; k < r->inner; k++) {
            double w = at(r, o, i, k);

            sum += norm == PRUNE_L1 ? fabs(w) : w * w;
        }
    return norm == PRUNE_L1 ? sum : sqrt(sum);
}

/* Over their mean, so that layers can be held against one another. */
static void relate(double *score, int64_t n) {
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += score[i];
    for (int64_t i = 0; sum > 0 && i < n; i++)
        score[i] *= (double)n / sum;
}

/* Li et al. 2017: the norm of a filter. */
static void score_magnitude(const struct rows *r, const struct prune_options *o, double *score) {
    for (int64_t i = 0; i < r->site->n; i++)
        score[i] = norm_of(r, i, o->norm);
    relate(score, r->site->n);
}

/* Lee et al. 2021, equation 4, of filters: a square over the sum of those that are not smaller. */
static void score_lamp(const struct rows *r, const struct prune_options *o, double *score) {
    int64_t n = r->site->n;
    double *square = calloc((size_t)n + 1, sizeof(*square));

    (void)o;
    for (int64_t i = 0; square && i < n; i++) {
        double norm = norm_of(r, i, PRUNE_L2);

        square[i] = norm * norm;
    }
    for (int64_t i = 0; square && i < n; i++) {
        double sum = 0;

        for (int64_t j = 0; j < n; j++)
            sum += square[j] > square[i] || (square[j] == square[i] && j >= i) ? square[j] : 0;
        score[i] = sum > 0 ? square[i] / sum : 0;
    }
    free(square);
}

static double distance(const struct rows *r, int64_t a, int64_t b) {
    double sum = 0;

    for (int64_t o = 0; o < r->outer; o++)
        for (int64_t k = 0; k < r->inner; k++) {
            double d = at(r, o, a, k) - at(r, o, b, k);

            sum += d * d;
        }
    return sqrt(sum);
}

/* He et al. 2019, equation 6: filters near to all others are made up for by them. */
static void score_fpgm(const struct rows *r, const struct prune_options *o, double *score) {
    (void)o;
    for (int64_t i = 0; i < r->site->n; i++)
        score[i] = 0;
    for (int64_t i = 0; i < r->site->n; i++)
        for (int64_t j = i + 1; j < r->site->n; j++) {
            double d = distance(r, i, j);

            score[i] += d;
            score[j] += d;
        }
    relate(score, r->site->n);
}

/* Liu et al. 2017: the scale of the batch norm. */
static int score_norms(struct channel_net *net, struct error *err) {
    bool has_any = false;

    for (size_t s = 0; s < net->c.n_sites; s++) {
        const struct coupling_site *site = &net->c.site[s];
        const struct node *n = &net->g->nodes[site->node];

        if (site->role != COUPLING_PARAM || site->input != 1 || strcmp(n->op_type, "BatchNormalization") != 0)
            continue;
        has_any = true;
        for (int64_t i = 0; i < site->n; i++)
            net->score[site->channel[i]] +=
                fabs((double)encode_number(net->g->values[n->in[1]].init->data, i));
    }
    if (!has_any)
        return error_code(err, -EBADMSG, "method_not_applicable",
            ".criterion: 'bn_scale' needs batch norms, and the network has none (they are folded)");
    return 0;
}

static void score_random(struct channel_net *net, uint64_t seed) {
    for (int i = 0; i < net->c.n; i++)
        net->score[i] = chance_unit(chance_key(seed, 0x7072756eu, (uint64_t)i), 0) * net->n_rows[i];
}

int channel_score_weights(
    struct channel_net *net, const struct prune_options *o, uint64_t seed, struct error *err) {
    static void (*const scores[])(const struct rows *, const struct prune_options *, double *) = {
        [PRUNE_MAGNITUDE] = score_magnitude,
        [PRUNE_LAMP] = score_lamp,
        [PRUNE_FPGM] = score_fpgm,
        [PRUNE_RANDOM] = NULL,
    };

    net->is_relative = true;
    memset(net->score, 0, (size_t)net->c.n * sizeof(*net->score));
    if (o->criterion == PRUNE_RANDOM) {
        score_random(net, seed);
        return 0;
    }
    if (o->criterion == PRUNE_BN_SCALE)
        return score_norms(net, err);
    for (size_t s = 0; s < net->c.n_sites; s++) {
        const struct coupling_site *site = &net->c.site[s];
        _cleanup_(freep) double *score = calloc((size_t)site->n + 1, sizeof(*score));
        _cleanup_(rows_done) struct rows rows = {0};
        int r;

        if (site->role != COUPLING_ROW)
            continue;
        r = score ? rows_init(&rows, net->g, site, err) : error_oom(err);
        if (r < 0)
            return r;
        scores[o->criterion](&rows, o, score);
        for (int64_t i = 0; i < site->n; i++)
            net->score[site->channel[i]] += score[i];
    }
    return 0;
}
