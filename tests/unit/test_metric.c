#include "tests/unit/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "api/metric.h"

static char *render(const struct api *api, bool is_openmetrics) {
    struct buf b;

    buf_init(&b, 1 << 20);
    assert_int_equal(metric_render(api, is_openmetrics, &b), 0);
    return buf_take(&b);
}

static void observe(const struct api *api, struct metric_writer *w) {
    static const double bounds[] = {0.5, 1};
    static const uint64_t counts[] = {1, 3};

    (void)api;
    metric_histogram(w, "a=\"b\"", bounds, counts, 2, 4, 9.5);
}

static void test_answers_are_counted_by_class(void **state) {
    struct api api = {0};
    char *text;

    (void)state;
    atomic_store(&api.n_answers[4], 7);
    text = render(&api, false);
    assert_non_null(strstr(text, "# TYPE bonsai_http_requests_total counter\n"));
    assert_non_null(strstr(text, "bonsai_http_requests_total{code=\"4xx\"} 7\n"));
    free(text);
}

static void test_histograms_are_cumulative_and_end_at_infinity(void **state) {
    static const struct metric row = {"h", METRIC_HISTOGRAM, "A histogram.", observe};
    struct buf b;

    (void)state;
    buf_init(&b, 1000);
    assert_int_equal(metric_render_row(&row, NULL, false, &b), 0);
    assert_string_equal(b.data, "# HELP h A histogram.\n# TYPE h histogram\nh_bucket{a=\"b\",le=\"0.5\"} 1\n"
                                "h_bucket{a=\"b\",le=\"1\"} 3\nh_bucket{a=\"b\",le=\"+Inf\"} 4\n"
                                "h_sum{a=\"b\"} 9.5\nh_count{a=\"b\"} 4\n");
    buf_done(&b);
}

static void test_openmetrics_ends_and_names_counters_without_suffix(void **state) {
    struct api api = {0};
    char *text = render(&api, true);

    (void)state;
    assert_non_null(strstr(text, "# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total "));
    assert_string_equal(text + strlen(text) - 6, "# EOF\n");
    free(text);
}

static void test_labels_are_escaped(void **state) {
    char labels[64] = "";

    (void)state;
    metric_label(labels, sizeof(labels), "a", "x\"y\\z\n");
    metric_label(labels, sizeof(labels), "b", "");
    assert_string_equal(labels, "a=\"x\\\"y\\\\z \",b=\"\"");
}

static void test_table_is_sorted_and_documented(void **state) {
    (void)state;
    for (size_t i = 0; i < metric_table_size; i++) {
        assert_non_null(metric_table[i].collect);
        assert_true(strlen(metric_table[i].help) > 10);
        if (i)
            assert_true(strcmp(metric_table[i - 1].name, metric_table[i].name) < 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_counted_by_class),
        cmocka_unit_test(test_histograms_are_cumulative_and_end_at_infinity),
        cmocka_unit_test(test_openmetrics_ends_and_names_counters_without_suffix),
        cmocka_unit_test(test_labels_are_escaped),
        cmocka_unit_test(test_table_is_sorted_and_documented),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
