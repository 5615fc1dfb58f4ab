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

static void test_counts_and_buckets(void **state) {
    struct api api = {.metrics = metrics_new()};
    const struct reply_timing t = {0.01, 0.2, 0.05, 0.001};
    struct metric_series s;
    char *text;

    (void)state;
    metrics_count(api.metrics, "m", "original", 200, &t, 0.3);
    metrics_count(api.metrics, "m", "original", 200, &t, 70000);
    metrics_count(api.metrics, "m", "original", 504, &t, 5);
    metrics_count(api.metrics, "m", "int8", 200, &t, 1);
    metrics_count_http(api.metrics, 404);
    text = render(&api, false);
    assert_non_null(strstr(text, "# TYPE bonsai_requests_total counter\n"));
    assert_non_null(strstr(text, "bonsai_requests_total{model=\"m\",variant=\"original\",code=\"200\"} 2\n"));
    assert_non_null(strstr(text, "bonsai_requests_total{model=\"m\",variant=\"original\",code=\"504\"} 1\n"));
    assert_non_null(strstr(text, "bonsai_http_requests_total{code=\"4xx\"} 1\n"));
    assert_non_null(strstr(text,
        "bonsai_request_duration_seconds_bucket{model=\"m\",variant=\"original\",stage=\"infer\",le=\"5e-05\"} 2\n"));
    assert_non_null(strstr(text, "stage=\"total\",le=\"30\"} 1\n"));
    assert_non_null(strstr(text, "stage=\"total\",le=\"+Inf\"} 2\n"));
    free(text);
    assert_true(metrics_find(api.metrics, "m", "original", &s));
    assert_int_equal(s.fail_n, 1);
    metrics_forget(api.metrics, "m", "int8");
    assert_false(metrics_find(api.metrics, "m", "int8", &s));
    assert_true(metrics_find(api.metrics, "m", "original", &s));
    metrics_forget(api.metrics, "m", NULL);
    assert_false(metrics_get(api.metrics, 0, &s));
    metrics_free(api.metrics);
}

static void test_openmetrics_ends_and_names_counters_without_suffix(void **state) {
    struct api api = {.metrics = metrics_new()};
    char *text = render(&api, true);

    (void)state;
    assert_non_null(strstr(text, "# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total "));
    assert_string_equal(text + strlen(text) - 6, "# EOF\n");
    free(text);
    metrics_free(api.metrics);
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
        cmocka_unit_test(test_counts_and_buckets),
        cmocka_unit_test(test_openmetrics_ends_and_names_counters_without_suffix),
        cmocka_unit_test(test_labels_are_escaped),
        cmocka_unit_test(test_table_is_sorted_and_documented),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
