/* What stands behind a batch norm and is done in its passes over memory: the addition of another value, then
 * Relu or Clip. The step takes the place of the last of these nodes, where all that it reads is known. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/pass.h"
#include "engine/train/tape.h"

#define NOBODY  -1
#define SEVERAL -2

/* [values] the only needed node that reads each, or NOBODY, or SEVERAL; the loss counts as another. */
static int *find_readers(const struct tape *t, const bool *is_needed) {
    int *reader = malloc((t->n_values + 1) * sizeof(*reader));

    for (size_t v = 0; reader && v < t->n_values; v++)
        reader[v] = NOBODY;
    for (size_t i = 0; reader && i < t->graph->n_nodes; i++) {
        const struct node *n = &t->graph->nodes[i];

        for (int k = 0; is_needed[i] && k < n->n_in; k++)
            if (n->in[k] >= 0)
                reader[n->in[k]] = reader[n->in[k]] == NOBODY ? (int)i : SEVERAL;
    }
    if (reader)
        reader[t->logits] = SEVERAL;
    return reader;
}

/* The value that node n adds to v, of the same shape and made by the batch too; -1: it does not. */
static int added_to(const struct tape *t, const struct node *n, int v) {
    int other;

    if (strcmp(n->op_type, "Add") != 0 || n->n_in != 2)
        return -1;
    other = n->in[0] == v ? n->in[1] : n->in[0];
    if (other < 0 || other == v || t->value[other].t.data ||
        !shape_equal(&t->value[other].t.shape, &t->value[v].t.shape) ||
        !shape_equal(&t->value[n->out[0]].t.shape, &t->value[v].t.shape))
        return -1;
    return other;
}

static bool read_clamp(const struct graph *g, const struct node *n, struct tape_tail *tail) {
    struct post p;

    if (strcmp(n->op_type, "Relu") == 0) {
        tail->low = 0;
        return true;
    }
    if (strcmp(n->op_type, "Clip") != 0 || !fuse_read_numbers(g, n, &p))
        return false;
    tail->low = p.alpha;
    tail->high = p.beta;
    return true;
}

static bool takes_tail(const struct tape *t, const struct node *n) {
    return strcmp(n->op_type, "BatchNormalization") == 0 && n->in[0] >= 0 && n->out[0] >= 0 &&
           t->value[n->out[0]].t.dtype == DT_F32 && t->value[n->out[0]].t.shape.rank >= 2;
}

static struct tape_tail follow(const struct tape *t, const int *reader, size_t i) {
    struct tape_tail tail = {
        .head = (int)i, .last = (int)i, .adds = -1, .other = -1, .low = -HUGE_VALF, .high = HUGE_VALF};
    const struct node *nodes = t->graph->nodes;
    int v = nodes[i].out[0], next = reader[v];

    if (next >= 0) {
        tail.other = added_to(t, &nodes[next], v);
        if (tail.other == nodes[i].in[0])
            tail.other = -1;
        if (tail.other >= 0) {
            tail.last = tail.adds = next;
            next = reader[nodes[next].out[0]];
        }
    }
    if (next >= 0 && read_clamp(t->graph, &nodes[next], &tail))
        tail.last = next;
    return tail;
}

int tape_find_tails(const struct tape *t, bool *is_needed, struct tape_tail **ret, struct error *err) {
    size_t n = t->graph->n_nodes;
    _cleanup_(freep) struct tape_tail *tail = calloc(n + 1, sizeof(*tail));
    _cleanup_(freep) int *reader = find_readers(t, is_needed);

    if (!tail || !reader)
        return error_oom(err);
    for (size_t i = 0; i < n; i++)
        tail[i] = (struct tape_tail){.head = -1};
    for (size_t i = 0; i < n; i++) {
        struct tape_tail f;

        if (!is_needed[i] || !takes_tail(t, &t->graph->nodes[i]))
            continue;
        f = follow(t, reader, i);
        if (f.last != (int)i && tail[f.last].head < 0) /* an addition of two batch norms is the first one's */
            tail[f.last] = f;
    }
    for (size_t i = 0; i < n; i++) {
        if (tail[i].head < 0)
            continue;
        is_needed[tail[i].head] = false;
        if (tail[i].adds >= 0)
            is_needed[tail[i].adds] = tail[i].adds == (int)i;
    }
    *ret = TAKE(tail);
    return 0;
}
