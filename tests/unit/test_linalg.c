/* Linear algebra against its definitions. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/linalg.h"
#include "tests/unit/cmocka_all.h"

static double number(int i) {
    return sin(12.9898 * i + 1) * 0.7 + cos(4.1414 * i * i) * 0.3;
}

static void fill(double *a, int64_t n, int from) {
    for (int64_t i = 0; i < n; i++)
        a[i] = number(from + (int)i);
}

static void assert_near(const double *a, const double *b, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        assert_true(fabs(a[i] - b[i]) < 1e-10);
}

static void test_products_of_turned_matrices_are_the_same(void **state) {
    enum { M = 3, N = 5, K = 4 };
    double a[M * K], at[K * M], b[K * N], bt[N * K], want[M * N], got[M * N];

    (void)state;
    fill(a, M * K, 1);
    fill(b, K * N, 100);
    for (int i = 0; i < M; i++)
        for (int k = 0; k < K; k++)
            at[k * M + i] = a[i * K + k];
    for (int k = 0; k < K; k++)
        for (int j = 0; j < N; j++)
            bt[j * K + k] = b[k * N + j];
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            want[i * N + j] = 0;
            for (int k = 0; k < K; k++)
                want[i * N + j] += a[i * K + k] * b[k * N + j];
        }
    for (int turns = 0; turns < 4; turns++) {
        linalg_multiply(M, N, K, turns & 1 ? at : a, turns & 1, turns & 2 ? bt : b, turns & 2, got);
        assert_near(got, want, M * N);
    }
}

static void test_eigenvectors_make_the_matrix_again(void **state) {
    enum { N = 6 };
    double a[N * N], gram[N * N], turned[N * N], vectors[N * N], values[N], alone[N], sum;
    struct error err = {0};

    (void)state;
    fill(a, N * N, 7);
    linalg_gram(N, N, a, false, gram);
    linalg_gram(N, N, a, true, turned);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            double rows = 0, cols = 0;

            for (int k = 0; k < N; k++) {
                rows += a[i * N + k] * a[j * N + k];
                cols += a[k * N + i] * a[k * N + j];
            }
            assert_true(fabs(gram[i * N + j] - rows) < 1e-12 && fabs(turned[i * N + j] - cols) < 1e-12);
        }
    memcpy(vectors, gram, sizeof(gram));
    assert_int_equal(linalg_eigen(N, vectors, values, &err), 0);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            sum = 0;
            for (int k = 0; k < N; k++)
                sum += values[k] * vectors[k * N + i] * vectors[k * N + j];
            assert_true(fabs(sum - gram[i * N + j]) < 1e-10);
        }
    for (int k = 1; k < N; k++)
        assert_true(values[k] <= values[k - 1]);
    assert_int_equal(linalg_eigenvalues(N, gram, alone, &err), 0);
    assert_near(alone, values, N);
}

static void check_svd(int64_t m, int64_t n) {
    int64_t k = m < n ? m : n;
    double a[64], copy[64], u[64], s[8], vt[64];

    fill(a, m * n, 31);
    memcpy(copy, a, sizeof(copy));
    assert_int_equal(linalg_svd(m, n, copy, u, s, vt, NULL), 0);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;

            for (int64_t r = 0; r < k; r++)
                sum += u[i * k + r] * s[r] * vt[r * n + j];
            assert_true(fabs(sum - a[i * n + j]) < 1e-10);
        }
    for (int64_t r = 1; r < k; r++)
        assert_true(s[r] <= s[r - 1] && s[r] >= 0);
}

static void test_singular_vectors_make_the_matrix_again(void **state) {
    (void)state;
    check_svd(5, 7);
    check_svd(7, 5);
    check_svd(4, 4);
}

static void test_roots_and_solutions(void **state) {
    enum { N = 5, M = 3 };
    double a[N * N], c[N * N], root[N * N], inverse[N * N], product[N * N], x[M * N], b[M * N], copy[N * N];

    (void)state;
    fill(a, N * N, 3);
    linalg_gram(N, N, a, false, c);
    assert_int_equal(linalg_roots(N, c, 0, root, inverse, NULL), 0);
    linalg_multiply(N, N, N, root, false, root, false, product);
    assert_near(product, c, N * N);
    linalg_multiply(N, N, N, root, false, inverse, false, product);
    for (int i = 0; i < N * N; i++)
        assert_true(fabs(product[i] - (i % (N + 1) == 0)) < 1e-8);
    fill(x, M * N, 50);
    linalg_multiply(M, N, N, x, false, c, false, b);
    memcpy(copy, c, sizeof(copy));
    assert_int_equal(linalg_solve(N, copy, M, b, NULL), 0);
    for (int i = 0; i < M * N; i++)
        assert_true(fabs(b[i] - x[i]) < 1e-8);
}

static void test_what_cannot_be_is_an_error(void **state) {
    double a[4] = {1, (double)NAN, (double)NAN, 1}, values[2], zero[4] = {0}, b[2] = {1, 1};
    struct error err = {0};

    (void)state;
    assert_int_equal(linalg_eigen(2, a, values, &err), -EDOM);
    assert_int_equal(linalg_solve(2, zero, 1, b, NULL), -EDOM);
    assert_null(linalg_new(1 << 20, 1 << 20));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_of_turned_matrices_are_the_same),
        cmocka_unit_test(test_eigenvectors_make_the_matrix_again),
        cmocka_unit_test(test_singular_vectors_make_the_matrix_again),
        cmocka_unit_test(test_roots_and_solutions),
        cmocka_unit_test(test_what_cannot_be_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
