/* Private to coupling*.c: units (one a channel of a value, before those that are tied become one) and the
 * walk over the nodes. */
#ifndef COMPRESS_COUPLING_PRIV_H
#define COMPRESS_COUPLING_PRIV_H

#include "compress/coupling.h"
#include "engine/ops.h"
#include "engine/shape_infer.h"

struct coupling_block {
    struct coupling_block *next;
    int64_t n;
    int unit[];
};

struct coupler {
    const struct graph *g;
    struct shapes s; /* at a sample */
    struct coupling *c;
    bool trusts_computed;
    int n_units, cap_units;
    int *parent;      /* union and find */
    const char **why; /* of roots: why they stay */
    size_t cap_sites;
};

extern const char coupling_computed[], coupling_mixed[], coupling_unlike[];

/* All return 0 or -ENOMEM. */

/* Room for n units, which lives as long as the coupling; NULL: out of memory. coupler_new fills it with new
 * ones. */
int *coupler_room(struct coupler *k, int64_t n);
int *coupler_new(struct coupler *k, int64_t n);

int coupler_root(struct coupler *k, int unit);
void coupler_tie(struct coupler *k, int a, int b);
void coupler_keep(struct coupler *k, int unit, const char *why);
/* All units of a value, if it is followed. */
void coupler_keep_value(struct coupler *k, int value, const char *why);
void coupler_keep_inputs(struct coupler *k, const struct node *n, const char *why);

/* NULL: not followed (or no value). */
const struct coupling_value *coupler_value(const struct coupler *k, int value);
void coupler_set(struct coupler *k, int value, int first, int last, int64_t n, int *unit);
int coupler_site(struct coupler *k, const struct node *n, int input, int axis, enum coupling_role role,
    int64_t units, const int *unit);

static inline const struct shape *coupler_shape(const struct coupler *k, int value) {
    return &k->s.value[value].shape;
}

static inline const struct tensor *coupler_init(const struct coupler *k, const struct node *n, int input) {
    return n->n_in > input && n->in[input] >= 0 ? k->g->values[n->in[input]].init : NULL;
}

/* Whole numbers of a constant or computed input, or of an attribute; at most SHAPE_MAX_RANK. False: there are
 * none, or they are not known. */
bool coupler_ints(const struct coupler *k, const struct node *n, int input, const char *attribute,
    int64_t *ret, int *ret_n);

/* One a kind of operator; table in coupling.c. */
int couple_conv(struct coupler *k, const struct node *n);
int couple_conv_transpose(struct coupler *k, const struct node *n);
int couple_gemm(struct coupler *k, const struct node *n);
int couple_same(struct coupler *k, const struct node *n);
int couple_join(struct coupler *k, const struct node *n);
int couple_view(struct coupler *k, const struct node *n);
int couple_transpose(struct coupler *k, const struct node *n);
int couple_concat(struct coupler *k, const struct node *n);
int couple_split(struct coupler *k, const struct node *n);
int couple_slice(struct coupler *k, const struct node *n);
int couple_pad(struct coupler *k, const struct node *n);
int couple_reduce(struct coupler *k, const struct node *n);

#endif
