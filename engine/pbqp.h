/* Choosing one label for every vertex of a graph so that the sum of the vertices' costs and of the edges'
 * costs (a matrix over the labels of both ends) is least: partitioned boolean quadratic programming, which
 * Anderson and Gregg (Optimal DNN primitive selection, CGO 2018) brought to kernels and layouts.
 *
 * Vertices with at most two neighbours are taken out exactly, their cost going into their neighbours'
 * (chains, residual joins, parallel branches: all series-parallel graphs vanish so). When every vertex left
 * has three or more, the one with the most is given the label that is best for what is known; the answer is
 * then good rather than proven. INFINITY forbids. */
#ifndef ENGINE_PBQP_H
#define ENGINE_PBQP_H

#include <stddef.h>

#include "base/cleanup.h"

struct pbqp;

/* NULL: out of memory. */
struct pbqp *pbqp_new(size_t n_vertices);
struct pbqp *pbqp_free(struct pbqp *p);
DEFINE_CLEANUP(struct pbqp *, pbqp_free)

/* Once for every vertex, before its edges; n_labels >= 1. 0 or -ENOMEM. */
int pbqp_set_vertex(struct pbqp *p, size_t v, size_t n_labels, const float *cost);
/* cost[label of a][label of b] is added to what is between the two. a != b. 0 or -ENOMEM. */
int pbqp_add_edge(struct pbqp *p, size_t a, size_t b, const float *cost);

/* Uses the problem up. ret[v]: label of each vertex. 0, -ENOMEM, or -ENOENT: everything is forbidden. */
int pbqp_solve(struct pbqp *p, size_t *ret);

#endif
