/* Which layers are factorised, how and to what ranks: what the dry run shows and what apply then does. */
#ifndef COMPRESS_LOWRANK_PLAN_H
#define COMPRESS_LOWRANK_PLAN_H

#include "compress/lowrank_spectrum.h"

enum lowrank_break_even { BREAK_EVEN_LATENCY, BREAK_EVEN_MACS, BREAK_EVEN_NONE };

struct lowrank_options {
    int decomposition; /* enum lowrank_decomposition */
    int rank_word;     /* 0: auto; -1: `rank` says */
    struct {
        double energy, ratio, macs; /* one of them, or `layers`; 0: not given */
        json_t *layers;             /* {glob: [ranks]} */
    } rank;
    json_t *data_aware; /* true, false; NULL: if there is data */
    int multiple, sweeps;
    int break_even;                 /* enum lowrank_break_even */
    struct param_objects latencies; /* of struct lowrank_latency */
};

/* A layer and its parts timed in this engine. */
struct lowrank_latency {
    char *layer;
    int decomposition;
    json_t *ranks;
    double dense_us, factors_us;
};

struct lowrank_item {
    struct layer_entry *entry;
    const struct lowrank_options *options; /* of this layer */
    struct lowrank_layer layer;
    struct lowrank_choice choice;
    struct lowrank_spectrum spectrum;
    bool is_wanted;              /* it is selected and can be factorised */
    bool is_chosen;              /* it will be, to `choice` */
    bool is_kept;                /* its parts are no gain: it stays as it is */
    double dense_us, factors_us; /* 0: not measured */
};

struct lowrank_plan {
    size_t n;
    struct lowrank_item *item; /* one an entry of `layers` */
    struct summary *summary;   /* of the graph, owned */
    struct shapes shapes;      /* of its values, at the summary's sample */
    int64_t macs;              /* of the network when it is done */
    json_t *latencies;         /* list of all times that were looked at, as struct lowrank_latency has them */
    bool is_missed;            /* a budget that measured times keep out of reach */
};

int lowrank_plan_init(const struct graph *g, const struct lowrank_options *o, struct layers *layers,
    struct lowrank_plan *ret, struct error *err);
void lowrank_plan_done(struct lowrank_plan *p);

/* Ranks for all wanted layers but those that are kept; is_chosen and the entries' reasons follow.
 * `is_strict`: a budget that cannot be met is an error (requirement_not_met), which says what is the least;
 * else all of the least. Other errors: -EINVAL for explicit ranks beyond the matrix, with the path
 * ".rank.layers". */
int lowrank_choose(
    struct lowrank_plan *p, const struct lowrank_options *o, bool is_strict, struct error *err);

/* After the last choice: the entries that no choice took are skipped. */
void lowrank_settle(struct lowrank_plan *p);

/* The layer stays as it is. */
void lowrank_keep(struct lowrank_item *i, const char *reason);

/* lowrank_break_even.c: chosen layers that are no gain are kept and the budget is met by the others. Times
 * come from the options, then from `known` (a list as the report has it, NULL: nothing), then are measured if
 * `measures`. */
int lowrank_break_even(const struct graph *g, struct lowrank_plan *p, const struct lowrank_options *o,
    const json_t *known, bool measures, const struct progress *progress, struct error *err);

/* lowrank_time.c: the layer and its parts, one after the other, on noise; the least of many runs, in
 * microseconds. */
int lowrank_time(const struct graph *g, const struct lowrank_layer *l, const struct shape *input,
    const struct lowrank_choice *c, double *ret_dense, double *ret_factors, struct error *err);

/* lowrank_graph.c: the node becomes its parts, in its place; all values around it stay. `bias`: [outputs], in
 * the place of the layer's; NULL: it stays. graph_finish afterwards. */
int lowrank_replace(struct graph *g, const struct lowrank_layer *l, const struct lowrank_factors *f,
    const float *bias, struct error *err);
/* The layer's bias as floats, [outputs]; zeros when it has none. 1: it may change; 0: it may not, *ret is
 * NULL. */
int lowrank_read_bias(const struct graph *g, const struct lowrank_layer *l, float **ret, struct error *err);

#endif
