#include "engine/pbqp.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct edge {
    size_t end[2];
    float *cost; /* [labels of end 0][labels of end 1] */
    bool is_gone;
};

struct vertex {
    size_t n_labels, degree; /* edges that are not gone */
    float *cost;
    size_t n_edges, cap; /* of `edge`, gone ones among them */
    size_t *edge;
    bool is_gone;
};

struct pbqp {
    size_t n_vertices, n_edges, cap;
    struct vertex *vertex;
    struct edge *edge;
    size_t n_order, *order;    /* vertices as they were taken out */
    size_t **kept, *n_kept;    /* of each vertex: its edges when it was taken out */
    size_t n_ready, ready_cap; /* vertices that may have come down to two neighbours */
    size_t *ready;
};

struct pbqp *pbqp_new(size_t n) {
    struct pbqp *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->n_vertices = n;
    p->vertex = calloc(n + 1, sizeof(*p->vertex));
    p->order = calloc(n + 1, sizeof(*p->order));
    p->kept = calloc(n + 1, sizeof(*p->kept));
    p->n_kept = calloc(n + 1, sizeof(*p->n_kept));
    return p->vertex && p->order && p->kept && p->n_kept ? p : pbqp_free(p);
}

struct pbqp *pbqp_free(struct pbqp *p) {
    if (!p)
        return NULL;
    for (size_t i = 0; p->vertex && i < p->n_vertices; i++) {
        free(p->vertex[i].cost);
        free(p->vertex[i].edge);
    }
    for (size_t i = 0; p->kept && i < p->n_vertices; i++)
        free(p->kept[i]);
    for (size_t i = 0; i < p->n_edges; i++)
        free(p->edge[i].cost);
    free(p->vertex);
    free(p->edge);
    free(p->order);
    free(p->kept);
    free(p->n_kept);
    free(p->ready);
    free(p);
    return NULL;
}

/* Room for one more index. */
static bool push(size_t **list, size_t *n, size_t *cap, size_t value) {
    if (*n == *cap) {
        size_t more = *cap ? 2 * *cap : 4;
        size_t *grown = realloc(*list, more * sizeof(**list));

        if (!grown)
            return false;
        *list = grown;
        *cap = more;
    }
    (*list)[(*n)++] = value;
    return true;
}

int pbqp_set_vertex(struct pbqp *p, size_t v, size_t n_labels, const float *cost) {
    struct vertex *x = &p->vertex[v];

    x->cost = calloc(n_labels, sizeof(*x->cost));
    if (!x->cost)
        return -ENOMEM;
    memcpy(x->cost, cost, n_labels * sizeof(*cost));
    x->n_labels = n_labels;
    return 0;
}

static struct edge *find_edge(const struct pbqp *p, size_t a, size_t b) {
    const struct vertex *x = &p->vertex[a];

    for (size_t i = 0; i < x->n_edges; i++) {
        struct edge *e = &p->edge[x->edge[i]];

        if (!e->is_gone && (e->end[0] == b || e->end[1] == b))
            return e;
    }
    return NULL;
}

static float *edge_at(const struct pbqp *p, struct edge *e, size_t a, size_t label_a, size_t label_b) {
    size_t cols = p->vertex[e->end[1]].n_labels;

    return e->end[0] == a ? &e->cost[label_a * cols + label_b] : &e->cost[label_b * cols + label_a];
}

static struct edge *new_edge(struct pbqp *p, size_t a, size_t b) {
    struct vertex *x = &p->vertex[a], *y = &p->vertex[b];
    size_t index = p->n_edges;

    if (p->n_edges == p->cap) {
        size_t more = p->cap ? 2 * p->cap : 64;
        struct edge *grown = realloc(p->edge, more * sizeof(*grown));

        if (!grown)
            return NULL;
        p->edge = grown;
        p->cap = more;
    }
    p->edge[index] = (struct edge){.end = {a, b}, .cost = calloc(x->n_labels * y->n_labels, sizeof(float))};
    if (!p->edge[index].cost)
        return NULL;
    p->n_edges++;
    if (!push(&x->edge, &x->n_edges, &x->cap, index) || !push(&y->edge, &y->n_edges, &y->cap, index))
        return NULL;
    x->degree++;
    y->degree++;
    return &p->edge[index];
}

int pbqp_add_edge(struct pbqp *p, size_t a, size_t b, const float *cost) {
    size_t rows = p->vertex[a].n_labels, cols = p->vertex[b].n_labels;
    struct edge *e = find_edge(p, a, b);

    if (!e && !(e = new_edge(p, a, b)))
        return -ENOMEM;
    for (size_t i = 0; i < rows; i++) {
        for (size_t k = 0; k < cols; k++)
            *edge_at(p, e, a, i, k) += cost[i * cols + k];
    }
    return 0;
}

static size_t other_end(const struct edge *e, size_t v) {
    return e->end[0] == v ? e->end[1] : e->end[0];
}

/* What label `label` of v costs with the best answer of neighbour y alone. */
static float best_with(const struct pbqp *p, struct edge *e, size_t v, size_t label) {
    const struct vertex *y = &p->vertex[other_end(e, v)];
    float best = INFINITY;

    for (size_t k = 0; k < y->n_labels; k++)
        best = fminf(best, *edge_at(p, e, v, label, k) + y->cost[k]);
    return best;
}

/* v has one neighbour: the best of v for each label of it becomes that label's cost. */
static void fold_one(struct pbqp *p, size_t v, struct edge *e) {
    const struct vertex *x = &p->vertex[v];
    struct vertex *y = &p->vertex[other_end(e, v)];

    for (size_t k = 0; k < y->n_labels; k++) {
        float best = INFINITY;

        for (size_t i = 0; i < x->n_labels; i++)
            best = fminf(best, x->cost[i] + *edge_at(p, e, v, i, k));
        y->cost[k] += best;
    }
}

/* v has two neighbours: the best of v for each pair of their labels becomes an edge between them. */
static int fold_two(struct pbqp *p, size_t v, size_t e, size_t f) {
    const struct vertex *x = &p->vertex[v];
    size_t a = other_end(&p->edge[e], v), b = other_end(&p->edge[f], v);
    size_t rows = p->vertex[a].n_labels, cols = p->vertex[b].n_labels;
    _cleanup_(freep) float *cost = calloc(rows * cols, sizeof(*cost));

    if (!cost)
        return -ENOMEM;
    for (size_t i = 0; i < rows * cols; i++) {
        cost[i] = INFINITY;
        for (size_t k = 0; k < x->n_labels; k++)
            cost[i] = fminf(cost[i], x->cost[k] + *edge_at(p, &p->edge[e], v, k, i / cols) +
                                         *edge_at(p, &p->edge[f], v, k, i % cols));
    }
    return pbqp_add_edge(p, a, b, cost);
}

/* v has many: it takes the label that is best when each neighbour answers for itself. */
static void fix_label(struct pbqp *p, size_t v, const size_t *edges, size_t n) {
    const struct vertex *x = &p->vertex[v];
    float best = INFINITY;
    size_t label = 0;

    for (size_t i = 0; i < x->n_labels; i++) {
        float cost = x->cost[i];

        for (size_t k = 0; k < n; k++)
            cost += best_with(p, &p->edge[edges[k]], v, i);
        if (cost < best) {
            best = cost;
            label = i;
        }
    }
    for (size_t k = 0; k < n; k++) {
        struct edge *e = &p->edge[edges[k]];
        struct vertex *y = &p->vertex[other_end(e, v)];

        for (size_t i = 0; i < y->n_labels; i++)
            y->cost[i] += *edge_at(p, e, v, label, i);
    }
}

/* Takes v out of the graph; its edges are remembered for the way back. */
static int take_out(struct pbqp *p, size_t v) {
    struct vertex *x = &p->vertex[v];
    size_t n = 0, *kept = calloc(x->degree + 1, sizeof(*kept));
    int r = 0;

    if (!kept)
        return -ENOMEM;
    for (size_t i = 0; i < x->n_edges; i++) {
        if (!p->edge[x->edge[i]].is_gone)
            kept[n++] = x->edge[i];
    }
    p->kept[v] = kept;
    p->n_kept[v] = n;
    p->order[p->n_order++] = v;
    x->is_gone = true;
    for (size_t i = 0; i < n; i++)
        p->edge[kept[i]].is_gone = true;
    if (n == 1)
        fold_one(p, v, &p->edge[kept[0]]);
    else if (n == 2)
        r = fold_two(p, v, kept[0], kept[1]);
    else if (n > 2)
        fix_label(p, v, kept, n);
    for (size_t i = 0; r == 0 && i < n; i++) {
        size_t y = other_end(&p->edge[kept[i]], v);

        if (--p->vertex[y].degree <= 2 && !push(&p->ready, &p->n_ready, &p->ready_cap, y))
            r = -ENOMEM;
    }
    return r;
}

static bool next_vertex(struct pbqp *p, size_t *ret) {
    bool found = false;

    while (p->n_ready) {
        *ret = p->ready[--p->n_ready];
        if (!p->vertex[*ret].is_gone && p->vertex[*ret].degree <= 2)
            return true;
    }
    for (size_t i = 0; i < p->n_vertices; i++) {
        if (p->vertex[i].is_gone || (found && p->vertex[i].degree <= p->vertex[*ret].degree))
            continue;
        *ret = i;
        found = true;
    }
    return found;
}

/* The best label of v when all its neighbours have theirs. */
static int settle(const struct pbqp *p, size_t v, size_t *label) {
    float best = INFINITY;

    for (size_t i = 0; i < p->vertex[v].n_labels; i++) {
        float cost = p->vertex[v].cost[i];

        for (size_t k = 0; k < p->n_kept[v]; k++) {
            struct edge *e = &p->edge[p->kept[v][k]];

            cost += *edge_at(p, e, v, i, label[other_end(e, v)]);
        }
        if (cost < best) {
            best = cost;
            label[v] = i;
        }
    }
    return best < INFINITY ? 0 : -ENOENT;
}

int pbqp_solve(struct pbqp *p, size_t *ret) {
    size_t v = 0;
    int r = 0;

    for (size_t i = p->n_vertices; i-- > 0;) {
        if (p->vertex[i].degree <= 2 && !push(&p->ready, &p->n_ready, &p->ready_cap, i))
            return -ENOMEM;
    }
    while (r == 0 && next_vertex(p, &v))
        r = take_out(p, v);
    for (size_t i = p->n_order; r == 0 && i-- > 0;)
        r = settle(p, p->order[i], ret);
    return r;
}
