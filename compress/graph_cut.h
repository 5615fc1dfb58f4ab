/* What two networks have in common, and the rest of one as a network of its own.
 *
 * Each value has a digest of all it is computed from: operators, attributes, constants, inputs. Values of two
 * graphs with the same digest hold the same numbers, whatever they are called. So a network in which one
 * layer was changed need not be computed from its input: its tail starts at the values that it shares with
 * the one it was made from.
 *
 *   x - conv1 - relu - conv2' - relu' - fc'        ' : differs
 *                  \__ the cut: the tail's input */
#ifndef COMPRESS_GRAPH_CUT_H
#define COMPRESS_GRAPH_CUT_H

#include "engine/graph.h"

struct cut_digest {
    uint8_t byte[16]; /* the first half of a SHA-256 */
};

struct cut_digests {
    size_t n;                 /* the graph's n_values */
    struct cut_digest *value; /* by value id; all zero: nothing makes it */
    struct cut_place *place;  /* [n] the same in their order, for look-ups */
    struct cut_constant *constant;
    size_t n_constants;
};

/* `like` (NULL: none): of a graph whose constants `g` may share; it spares reading them again and must have
 * been made from a graph that lives. The digests hold as long as `g` lives. */
int cut_digests_new(
    const struct graph *g, const struct cut_digests *like, struct cut_digests *ret, struct error *err);
void cut_digests_done(struct cut_digests *d);

/* The value of the graph with this digest: the first of several. -1: none. */
int cut_digests_find(const struct cut_digests *d, const struct cut_digest *digest);

/* A network that computes some values of another from some others. */
struct cut {
    struct graph *graph; /* owned: session_open_graph takes it */
    size_t n_in;
    int *in; /* its inputs: value ids of the graph it was cut from */
};

/* `wanted`: value ids that `g` computes, in the order of the outputs. is_given: may the tail start at this
 * value? It is asked of values that nodes make; inputs of `g` are always given. shape_of: the value's shape
 * at a batch, to be declared with a free first dimension where the input of `g` has one. */
int cut_new(const struct graph *g, const int *wanted, size_t n_wanted, bool (*is_given)(void *ctx, int value),
    const struct shape *(*shape_of)(void *ctx, int value), void *ctx, struct cut *ret, struct error *err);
void cut_done(struct cut *c);

#endif
