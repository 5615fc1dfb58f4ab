/* cp: w[t][s][i][j] = sum over r of u[t][r] v[r][s] y[r][i] x[r][j] (Lebedev et al. 2015, Speeding-up
 * convolutional neural networks using fine-tuned CP-decomposition), by alternating least squares: one side
 * after the other is the best for the other three.
 *
 * Terms of such a sum grow against each other without bound where no best sum exists, and the network with
 * them cannot be trained (Phan et al. 2020, Stable low-rank tensor decomposition for compression of
 * convolutional neural network). So each side pays for its squares (Tikhonov), which with weights of norm 1
 * bounds the terms, and after each round the four norms of a term are made equal, the cheapest way to have
 * it. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/chance.h"
#include "compress/linalg.h"
#include "compress/lowrank.h"

#define ROUNDS      200
#define PRICE       1e-5 /* of a squared factor, with weights of norm 1 */
#define ENOUGH      1e-6 /* of the error's share, by which a round must do better to be followed by another */
#define N_SIDES     4
#define ALMOST_NONE 1e-10 /* a price that only keeps the last system solvable */

struct cp {
    int64_t rank, dim[N_SIDES]; /* outputs, inputs, rows, columns */
    double *side[N_SIDES];      /* [dim][rank] */
    const double *w;            /* [t][s][i][j], norm 1 */
    double *product;            /* [rank][s i j]: u' w, or the sides' product */
    double *right;              /* [max dim][rank] */
    double *gram, *system;      /* [rank][rank] */
};

static void cp_done(struct cp *c) {
    for (int k = 0; k < N_SIDES; k++)
        free(c->side[k]);
    free(c->product);
    free(c->right);
    free(c->gram);
    free(c->system);
}

/* Uniform in a ball is as good as any: the first round replaces u. */
static int cp_init(
    struct cp *c, const struct lowrank_layer *l, int64_t rank, uint64_t seed, struct error *err) {
    int64_t most = l->outputs > l->inputs ? l->outputs : l->inputs;

    c->rank = rank;
    c->dim[0] = l->outputs;
    c->dim[1] = l->inputs;
    c->dim[2] = l->kernel[0];
    c->dim[3] = l->kernel[1];
    most = most > l->taps ? most : l->taps;
    for (int k = 0; k < N_SIDES; k++) {
        c->side[k] = linalg_new(c->dim[k], rank);
        for (int64_t i = 0; c->side[k] && i < c->dim[k] * rank; i++)
            c->side[k][i] = chance_between(chance_key(seed, (uint64_t)k, 0), (uint64_t)i, -1, 1);
    }
    c->product = linalg_new(rank, l->inputs * l->taps);
    c->right = linalg_new(most, rank);
    c->gram = linalg_new(rank, rank);
    c->system = linalg_new(rank, rank);
    return c->side[0] && c->side[1] && c->side[2] && c->side[3] && c->product && c->right && c->gram &&
                   c->system
               ? 0
               : error_oom(err);
}

/* product[r][s i j] = v[s][r] y[i][r] x[j][r] */
static void cp_multiply_sides(struct cp *c) {
    int64_t at = 0;

    for (int64_t r = 0; r < c->rank; r++)
        for (int64_t s = 0; s < c->dim[1]; s++)
            for (int64_t i = 0; i < c->dim[2]; i++)
                for (int64_t j = 0; j < c->dim[3]; j++)
                    c->product[at++] = c->side[1][s * c->rank + r] * c->side[2][i * c->rank + r] *
                                       c->side[3][j * c->rank + r];
}

/* right[d][r]: w against the other sides, d along side k; product is u' w. */
static void cp_contract(struct cp *c, int k) {
    memset(c->right, 0, (size_t)(c->dim[k] * c->rank) * sizeof(*c->right));
    for (int64_t r = 0; r < c->rank; r++) {
        const double *z = c->product + r * c->dim[1] * c->dim[2] * c->dim[3];

        for (int64_t s = 0; s < c->dim[1]; s++)
            for (int64_t i = 0; i < c->dim[2]; i++)
                for (int64_t j = 0; j < c->dim[3]; j++) {
                    int64_t at[N_SIDES] = {0, s, i, j};
                    double p = *z++;

                    for (int o = 1; o < N_SIDES; o++)
                        p *= o == k ? 1 : c->side[o][at[o] * c->rank + r];
                    c->right[at[k] * c->rank + r] += p;
                }
    }
}

/* side k = right (gram of the others + price)^-1; gram: product over the others of their own, elementwise */
static int cp_solve(struct cp *c, int k, double price, struct error *err) {
    int64_t n = c->rank * c->rank;

    for (int64_t i = 0; i < n; i++)
        c->system[i] = 1;
    for (int o = 0; o < N_SIDES; o++) {
        if (o == k)
            continue;
        linalg_gram(c->dim[o], c->rank, c->side[o], true, c->gram);
        for (int64_t i = 0; i < n; i++)
            c->system[i] *= c->gram[i];
    }
    for (int64_t r = 0; r < c->rank; r++)
        c->system[r * c->rank + r] += price;
    memcpy(c->side[k], c->right, (size_t)(c->dim[k] * c->rank) * sizeof(double));
    return linalg_solve(c->rank, c->system, c->dim[k], c->side[k], err);
}

static void cp_balance(struct cp *c) {
    for (int64_t r = 0; r < c->rank; r++) {
        double norm[N_SIDES], all = 1;

        for (int k = 0; k < N_SIDES; k++) {
            norm[k] = 0;
            for (int64_t d = 0; d < c->dim[k]; d++)
                norm[k] += c->side[k][d * c->rank + r] * c->side[k][d * c->rank + r];
            norm[k] = sqrt(norm[k]);
            all *= norm[k];
        }
        for (int k = 0; k < N_SIDES && all > 0; k++)
            for (int64_t d = 0; d < c->dim[k]; d++)
                c->side[k][d * c->rank + r] *= pow(all, 1.0 / N_SIDES) / norm[k];
    }
}

/* One round; *ret: |w - w'|² / |w|² as u was solved for, plus what the sides pay. */
static int cp_round(struct cp *c, double *ret, struct error *err) {
    int64_t width = c->dim[1] * c->dim[2] * c->dim[3];
    double explained = 0;
    int e;

    cp_multiply_sides(c);
    linalg_multiply(c->dim[0], c->rank, width, c->w, false, c->product, true, c->right);
    e = cp_solve(c, 0, PRICE, err);
    if (e < 0)
        return e;
    /* u is where the gradient is 0: |w - w'|² + price |u|² = |w|² - u · right */
    for (int64_t i = 0; i < c->dim[0] * c->rank; i++)
        explained += c->side[0][i] * c->right[i];
    *ret = 1 - explained;
    for (int k = 1; k < N_SIDES; k++)
        for (int64_t i = 0; i < c->dim[k] * c->rank; i++)
            *ret += PRICE * c->side[k][i] * c->side[k][i];
    linalg_multiply(c->rank, width, c->dim[0], c->side[0], true, c->w, false, c->product);
    for (int k = 1; e == 0 && k < N_SIDES; k++) {
        cp_contract(c, k);
        e = cp_solve(c, k, PRICE, err);
    }
    cp_balance(c);
    return e;
}

/* to[r][d] = from[d][r] */
static void cp_turn(const struct cp *c, int k, double *to) {
    for (int64_t d = 0; d < c->dim[k]; d++)
        for (int64_t r = 0; r < c->rank; r++)
            to[r * c->dim[k] + d] = c->side[k][d * c->rank + r];
}

/* u once more without a price: the best for the weights, or for the outputs. */
static int cp_finish(
    struct cp *c, const struct lowrank_input *in, double norm, struct lowrank_factors *f, struct error *err) {
    int64_t width = in->layer->inputs * in->layer->taps;
    int e;

    cp_turn(c, 1, f->part[0]);
    cp_turn(c, 2, f->part[1]);
    cp_turn(c, 3, f->part[2]);
    cp_multiply_sides(c);
    if (in->stats)
        return lowrank_regress(in->stats, c->product, c->rank, f->part[3], NULL, err);
    linalg_multiply(c->dim[0], c->rank, width, c->w, false, c->product, true, c->right);
    e = cp_solve(c, 0, ALMOST_NONE, err);
    for (int64_t i = 0; e == 0 && i < c->dim[0] * c->rank; i++)
        f->part[3][i] = norm * c->side[0][i] / (in->gain ? in->gain[i / c->rank] : 1);
    return e;
}

int lowrank_cp(const struct lowrank_input *in, struct lowrank_factors *f, struct error *err) {
    int64_t width = in->layer->inputs * in->layer->taps, count = in->layer->outputs * width;
    _cleanup_(freep) double *w = linalg_new(in->layer->outputs, width);
    _cleanup_(cp_done) struct cp c = {.w = w};
    double norm = 0, before = HUGE_VAL, now;
    int e = w ? cp_init(&c, in->layer, f->choice.rank[0], in->seed, err) : error_oom(err);

    if (e < 0)
        return e;
    for (int64_t i = 0; i < count; i++) {
        w[i] = in->w[i] * (in->gain ? in->gain[i / width] : 1);
        norm += w[i] * w[i];
    }
    norm = sqrt(norm);
    for (int64_t i = 0; i < count && norm > 0; i++)
        w[i] /= norm;
    for (int i = 0; e == 0 && i < ROUNDS; i++) {
        e = cp_round(&c, &now, err);
        if (e == 0 && before - now < ENOUGH)
            break;
        before = now;
    }
    return e < 0 ? e : cp_finish(&c, in, norm, f, err);
}
