/* Private to prune_channel*.c: a network, its channels, how important each is, and which go. */
#ifndef COMPRESS_PRUNE_CHANNEL_H
#define COMPRESS_PRUNE_CHANNEL_H

#include "compress/coupling.h"
#include "compress/prune.h"

/* Output channels that a kernel computes together; input channels cost by the piece. Measured on 3x3
 * convolutions with AVX-512: 24 channels in and out in place of 32 have 56% of the multiplications and take
 * 83% of the time, 20 have 39% and take 70%; 8 in place of 16 have 25% and take 58%. */
#define CHANNEL_BLOCK 16

/* Layers whose channels are tied through a common row site make one family: a chain's layer, the convolutions
 * that a residual stage adds up. Its channels are taken in runs ("chunks"), the least important first. */
struct channel_family {
    int n;          /* channels, those that must stay among them */
    int n_free;     /* that may go */
    int *order;     /* [n_free], the least important first; part of the net's list */
    int n_gone;     /* the first so many of `order` go */
    int chunk;      /* how many go at once, so that kernels' blocks are full */
    int least;      /* channels that have to stay at least */
    int n_start;    /* channels before the first round */
    const char *id; /* of its first layer; lives in the graph */
    double share;   /* override of this family's sparsity; 0: none */
    bool is_stuck;  /* what would go next would leave a value without channels */
};

struct channel_net {
    const struct graph *g;
    struct coupling c;
    int *family; /* [c.n] of each channel; -1: none */
    struct channel_family *of;
    int n_families;
    int *order;       /* [c.n], owned; families' lists lie in it */
    double *score;    /* [c.n] importance */
    bool is_relative; /* scores are sums over a channel's layers of numbers around one */
    double *n_rows;   /* [c.n] layers that make the channel */
    double *saving;   /* [c.n] multiplications, as kernels do them, that the network loses with it alone */
    double *macs;     /* [n_nodes] at the sample */
    bool *goes;       /* [c.n] */
};

/* What has to be met: the first that is not 0. */
struct channel_goal {
    double macs;     /* most multiplications that stay, absolute */
    double sparsity; /* share of the channels that goes, of those there were before the first round */
};

/* Channels of layers that `layers` does not select stay (NULL: all are selected). `start`: how many channels
 * layers had before the first round, by id; NULL: as many as now. Errors: as coupling_find. */
int channel_net_init(struct channel_net *net, const struct graph *g, bool trusts_computed,
    const struct layers *layers, const struct layers *start, struct error *err);
void channel_net_done(struct channel_net *net);

/* Multiplications of the network without what goes now. */
double channel_net_macs(const struct channel_net *net);

/* Scores that need no data. */
int channel_score_weights(
    struct channel_net *net, const struct prune_options *o, uint64_t seed, struct error *err);
/* … that need it. */
int channel_score_data(
    struct channel_net *net, struct work *work, const struct prune_options *o, struct error *err);

int channel_score_thinet(struct channel_net *net, struct work *work, struct error *err);

/* Sorts each family's list by score. */
int channel_sort(struct channel_net *net, struct error *err);

/* Fills net->goes. `damage`: for scope sensitivity, of channel_sensitivity; NULL: as scope layer. Errors:
 * method_not_applicable: the goal cannot be met, with the best that can. */
int channel_select(struct channel_net *net, const struct prune_options *o, const struct channel_goal *goal,
    const double *damage, struct error *err);

/* scope sensitivity: damage[family][step] of its channels gone by (step + 1) / CHANNEL_STEPS. */
#define CHANNEL_STEPS 8
int channel_sensitivity(struct channel_net *net, struct work *work, double **ret, struct error *err);

/* What layers read of channels that go is lost; its mean becomes part of their biases. */
struct channel_constant {
    int node;   /* that read them; its place in the graph stays */
    int64_t n;  /* its own outputs that stay */
    float *add; /* [n], owned */
};
struct channel_constants {
    size_t n;
    struct channel_constant *of;
};

/* Of net->goes, before the removal: means over the samples; without samples, what is left of the channels
 * when their weights are zero (exact for dead ones). */
int channel_constants_find(
    const struct channel_net *net, const struct work *work, struct channel_constants *ret, struct error *err);
/* After it. */
int channel_constants_put(struct graph *g, const struct channel_constants *c, struct error *err);
void channel_constants_done(struct channel_constants *c);

/* The factor of a batch norm behind the layer, which alone reads it: scale / sqrt(variance + epsilon) of
 * each channel, to ret[n]; false: there is none. *ret_norm (may be NULL): its node. */
bool channel_norm_factors(const struct graph *g, int node, int64_t n, double *ret, int *ret_norm);

#endif
