/* The solver against trying everything, on small random problems of every shape it has a rule for. */
#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "engine/pbqp.h"

#define MAX_VERTICES 8
#define MAX_LABELS   3

struct problem {
    size_t n, labels[MAX_VERTICES];
    float cost[MAX_VERTICES][MAX_LABELS];
    float edge[MAX_VERTICES][MAX_VERTICES][MAX_LABELS * MAX_LABELS]; /* a < b, [label a][label b] */
    int has_edge[MAX_VERTICES][MAX_VERTICES];
};

static uint32_t state;

static uint32_t draw(uint32_t below) {
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % below;
}

static float draw_cost(void) {
    return draw(10) == 0 ? INFINITY : (float)draw(1000);
}

static void make_vertices(struct problem *p, size_t n) {
    *p = (struct problem){.n = n};
    for (size_t i = 0; i < n; i++) {
        p->labels[i] = 1 + draw(MAX_LABELS);
        for (size_t k = 0; k < p->labels[i]; k++)
            p->cost[i][k] = (float)draw(1000);
    }
}

static void make_edge(struct problem *p, size_t a, size_t b) {
    p->has_edge[a][b] = 1;
    for (size_t i = 0; i < p->labels[a] * p->labels[b]; i++)
        p->edge[a][b][i] = draw_cost();
}

static float total(const struct problem *p, const size_t *label) {
    float sum = 0;

    for (size_t a = 0; a < p->n; a++) {
        sum += p->cost[a][label[a]];
        for (size_t b = a + 1; b < p->n; b++) {
            if (p->has_edge[a][b])
                sum += p->edge[a][b][label[a] * p->labels[b] + label[b]];
        }
    }
    return sum;
}

static float best_of_all(const struct problem *p) {
    size_t label[MAX_VERTICES] = {0}, at;
    float best = INFINITY;

    do {
        best = fminf(best, total(p, label));
        for (at = 0; at < p->n && ++label[at] == p->labels[at]; at++)
            label[at] = 0;
    } while (at < p->n);
    return best;
}

static float solve(const struct problem *p) {
    _cleanup_(pbqp_freep) struct pbqp *q = pbqp_new(p->n);
    size_t label[MAX_VERTICES];
    int r;

    assert_non_null(q);
    for (size_t i = 0; i < p->n; i++)
        assert_int_equal(pbqp_set_vertex(q, i, p->labels[i], p->cost[i]), 0);
    for (size_t a = 0; a < p->n; a++) {
        for (size_t b = a + 1; b < p->n; b++) {
            if (p->has_edge[a][b])
                assert_int_equal(pbqp_add_edge(q, a, b, p->edge[a][b]), 0);
        }
    }
    r = pbqp_solve(q, label);
    if (r == -ENOENT)
        return INFINITY;
    assert_int_equal(r, 0);
    return total(p, label);
}

static void test_chains_are_solved_exactly(void **unused) {
    struct problem p;

    (void)unused;
    for (state = 1; state < 2000000000u; state += 9999991u) {
        make_vertices(&p, 2 + draw(MAX_VERTICES - 1));
        for (size_t i = 0; i + 1 < p.n; i++)
            make_edge(&p, i, i + 1);
        assert_true(solve(&p) == best_of_all(&p));
    }
}

/* A chain with a shortcut around two vertices, and a diamond: a residual block, parallel branches. */
static void test_joins_and_branches_are_solved_exactly(void **unused) {
    struct problem p;

    (void)unused;
    for (state = 1; state < 2000000000u; state += 9999991u) {
        make_vertices(&p, 8);
        for (size_t i = 0; i < 3; i++)
            make_edge(&p, i, i + 1);
        make_edge(&p, 0, 3);
        make_edge(&p, 3, 4);
        make_edge(&p, 3, 5);
        make_edge(&p, 4, 6);
        make_edge(&p, 5, 6);
        make_edge(&p, 6, 7);
        assert_true(solve(&p) == best_of_all(&p));
    }
}

/* Five vertices, each tied to each: no rule is exact. The answer stays allowed and near. */
static void test_dense_graphs_get_a_good_answer(void **unused) {
    double ours = 0, best = 0;
    struct problem p;

    (void)unused;
    for (state = 1; state < 2000000000u; state += 9999991u) {
        make_vertices(&p, 5);
        for (size_t a = 0; a < 5; a++) {
            for (size_t b = a + 1; b < 5; b++) {
                make_edge(&p, a, b);
                for (size_t i = 0; i < p.labels[a] * p.labels[b]; i++)
                    p.edge[a][b][i] = isinf(p.edge[a][b][i]) ? 1000 : p.edge[a][b][i];
            }
        }
        ours += (double)solve(&p);
        best += (double)best_of_all(&p);
        assert_true(solve(&p) >= best_of_all(&p));
    }
    assert_true(ours <= 1.05 * best);
}

static void test_what_is_forbidden_altogether_is_said(void **unused) {
    struct problem p = {.n = 2, .labels = {1, 1}, .has_edge = {{0, 1}}, .edge = {{{0}, {INFINITY}}}};

    (void)unused;
    assert_true(isinf(solve(&p)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chains_are_solved_exactly),
        cmocka_unit_test(test_joins_and_branches_are_solved_exactly),
        cmocka_unit_test(test_dense_graphs_get_a_good_answer),
        cmocka_unit_test(test_what_is_forbidden_altogether_is_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
