/* The method `lowrank`: a layer becomes a chain of smaller ones (methods.md 1).
 *
 *   lowrank.c            options, plan (dry run), apply
 *   lowrank_plan.c lowrank_break_even.c lowrank_saved.c   which layers; those that gain nothing; measured
 * times kept lowrank_layer.c      what a layer is as a tensor, and the parts of each decomposition with their
 * MACs lowrank_rank.c       ranks: EVBMF, energy, ratio, a budget of MACs over all layers, explicit
 *   lowrank_spectrum.c   the squared singular values they are chosen by
 *   lowrank_svd.c lowrank_spatial.c lowrank_tucker.c lowrank_cp.c   the decompositions
 *   lowrank_data.c       what the layer's inputs and outputs are like on samples, and factors fitted to them
 *   lowrank_graph.c      the node replaced by its parts
 *   lowrank_time.c       a layer and its parts timed in this engine
 *
 * A layer's weights are w[outputs][inputs][taps] in double: T x S x k of a convolution over k taps, k = 1 of
 * a 1x1 convolution and of a fully connected layer. Its parts, from input to output:
 *
 *   svd       v: 1x1, S -> r                                  u: 1x1, r -> T     Xue et al. 2013; Denton et
 * al. 2014 channel   v: the layer's window, S -> r                   u: 1x1, r -> T     Zhang et al. 2015
 *   spatial   v: kh x 1, S -> r                               u: 1 x kw, r -> T  Jaderberg et al. 2014
 *   tucker2   v: 1x1, S -> r0    core: the window, r0 -> r1   u: 1x1, r1 -> T    Kim et al. 2016
 *   cp        v: 1x1, S -> r     y: kh x 1, x: 1 x kw, each channel by itself    u: 1x1, r -> T   Lebedev et
 * al. 2015
 *
 * The bias stands in u. One matrix (taps = 1) is svd in all of them. */
#ifndef COMPRESS_LOWRANK_H
#define COMPRESS_LOWRANK_H

#include "compress/method.h"
#include "engine/shape_infer.h"

#define LOWRANK_MAX_DIMS  3
#define LOWRANK_MAX_PARTS 4

enum lowrank_decomposition {
    LOWRANK_TUCKER2,
    LOWRANK_SVD,
    LOWRANK_SPATIAL,
    LOWRANK_CHANNEL,
    LOWRANK_CP,
};

extern const char *const lowrank_decompositions[]; /* their names, NULL-terminated */

/* ---- lowrank_layer.c ---- */

struct lowrank_layer {
    int node;
    const char *id;
    bool is_conv;
    int64_t outputs, inputs, taps;
    int n_dims; /* spatial dimensions; 0: fully connected */
    int64_t kernel[LOWRANK_MAX_DIMS];
    int64_t in_size[LOWRANK_MAX_DIMS],
        out_size[LOWRANK_MAX_DIMS]; /* pixels, at the sample that MACs are counted for */
    int64_t rows; /* samples of a convolution, rows of a fully connected layer's input, there */
    int64_t macs; /* of the layer as it is, there */
};

/* How the layer is decomposed and to what ranks: [in, out] of tucker2, else one. */
struct lowrank_choice {
    int decomposition; /* as it is carried out: svd where there is one matrix */
    int64_t rank[2];
};

struct lowrank_part {
    const char *name;        /* "v", "core", "y", "x", "u": the node is LAYER/name */
    int64_t outputs, inputs; /* inputs: of a group */
    int64_t group;
    unsigned dims; /* bit d: it has spatial dimension d of the layer's window, with its stride and padding */
};

/* Fills ret for the node; *ret_reason: why the layer cannot be factorised (static), NULL: it can. `shapes`:
 * of g's values at the sample. */
int lowrank_layer_read(const struct graph *g, int node, const struct shapes *shapes,
    struct lowrank_layer *ret, const char **ret_reason, struct error *err);

/* The decomposition that is carried out when `wanted` is asked for; -1: none fits, *ret_reason says why. */
int lowrank_fit(const struct lowrank_layer *l, int wanted, const char **ret_reason);

/* Full ranks: above them there is nothing to gain. Of cp: inputs or outputs, whichever are more. */
void lowrank_full(const struct lowrank_layer *l, int decomposition, int64_t ret[2]);

/* Returns how many parts there are. */
int lowrank_parts(const struct lowrank_layer *l, const struct lowrank_choice *c,
    struct lowrank_part ret[LOWRANK_MAX_PARTS]);
int64_t lowrank_part_params(const struct lowrank_layer *l, const struct lowrank_part *p);
int64_t lowrank_macs(const struct lowrank_layer *l, const struct lowrank_choice *c);
int64_t lowrank_params(const struct lowrank_layer *l, const struct lowrank_choice *c);

/* w[outputs][inputs][taps]; free() it. Gemm's alpha is in it. */
int lowrank_read_weights(
    const struct graph *g, const struct lowrank_layer *l, double **ret, struct error *err);

/* ---- factors ---- */

/* part[k]: [outputs][inputs of a group][taps], as lowrank_parts lists them; owned. */
struct lowrank_factors {
    struct lowrank_choice choice;
    int n;
    double *part[LOWRANK_MAX_PARTS];
};

int lowrank_factors_init(const struct lowrank_layer *l, const struct lowrank_choice *c,
    struct lowrank_factors *ret, struct error *err);
void lowrank_factors_done(struct lowrank_factors *f);

/* ret[outputs][inputs][taps]: the weights that the chain stands for. */
int lowrank_compose(
    const struct lowrank_layer *l, const struct lowrank_factors *f, double *ret, struct error *err);

struct lowrank_stats;

/* What a decomposition starts from. */
struct lowrank_input {
    const struct lowrank_layer *layer;
    const double *w;
    const double *gain;                /* [outputs]: how much an error of an output counts; NULL: all alike */
    const struct lowrank_stats *stats; /* NULL: the weights alone */
    int sweeps;                        /* of HOOI */
    uint64_t seed;
};

/* Each fills factors of f->choice. Without stats they minimise |gain (w - w')|², with them E|gain (y - y')|².
 */
int lowrank_svd(const struct lowrank_input *in, struct lowrank_factors *f, struct error *err);
int lowrank_spatial(const struct lowrank_input *in, struct lowrank_factors *f, struct error *err);
int lowrank_tucker(const struct lowrank_input *in, struct lowrank_factors *f, struct error *err);
int lowrank_cp(const struct lowrank_input *in, struct lowrank_factors *f, struct error *err);
/* By the choice. */
int lowrank_decompose(const struct lowrank_input *in, struct lowrank_factors *f, struct error *err);

/* ---- lowrank_data.c ---- */

/* Above it the inputs of a window are too many for their covariance: 512 MiB. */
#define LOWRANK_MAX_WINDOW 8192

/* Second moments of what goes into and comes out of a layer, with a ridge: as if there were besides the
 * samples white inputs whose outputs are the weights'. */
struct lowrank_stats {
    int64_t n, outputs; /* inputs of a window (inputs x taps), outputs */
    bool is_centred;    /* around the means: the bias makes up for them */
    double *cov;        /* [n][n] of the inputs as the network has them now; NULL: too many */
    double *cross;      /* [outputs][n] of the outputs that are wanted, with those inputs; NULL as cov */
    double *cov_out;    /* [outputs][outputs] of the wanted outputs; only where cov is NULL */
    double *mean_in, *mean_out;
};

void lowrank_stats_done(struct lowrank_stats *s);

/* `original`: the graph before any layer was factorised, where the layer's output is the value of the same
 * number. `w`: for the ridge. `is_centred`: the layer's bias may change. */
int lowrank_observe(const struct graph *original, const struct graph *now, const struct lowrank_layer *l,
    const double *w, bool is_centred, const struct samples *samples, struct lowrank_stats *ret,
    struct error *err);

/* a[outputs][q] that makes the wanted outputs best of the features b x, b[q][n]; *ret_gram (may be NULL,
 * free() it): [q][q], the features' covariance. */
int lowrank_regress(const struct lowrank_stats *s, const double *b, int64_t q, double *a, double **ret_gram,
    struct error *err);

/* u[outputs][r] v[r][q]: a of lowrank_regress at rank r, best for the outputs (reduced-rank regression,
 * Izenman 1975). `gram`: as it gave; NULL: weights alone, all features alike. */
int lowrank_reduce(int64_t outputs, int64_t q, int64_t r, const double *a, const double *gram,
    const double *gain, double *u, double *v, struct error *err);

/* The same where the outputs' covariance is known, [outputs][outputs]. */
int lowrank_reduce_outputs(int64_t outputs, int64_t q, int64_t r, const double *a, const double *cov_out,
    const double *gain, double *u, double *v, struct error *err);

/* What the bias changes by when w becomes `made`: [outputs]. */
void lowrank_bias_change(
    const struct lowrank_stats *s, const double *old_bias, const double *made, double *ret);

extern const struct method method_lowrank;

#endif
