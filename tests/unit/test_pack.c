/* Packed weights: equal ones are there once in a store, different ones never, and all are counted so. */
#include "tests/unit/cmocka_all.h"

#include <pthread.h>
#include <string.h>

#include "engine/pack.h"
#include "tests/unit/net_text.h"

#define BIG ((size_t)300 << 10)

static const struct pack *add(
    struct pack_cache *c, const char *key, size_t size, uint8_t fill, size_t odd_at) {
    struct error err = {0};
    struct pack *p;

    assert_int_equal(pack_new(key, "meta", 5, size, &p, &err), 0);
    memset(p->data, fill, size);
    if (odd_at < size)
        ((uint8_t *)p->data)[odd_at]++;
    return pack_publish(c, p);
}

static void test_equal_bytes_are_there_once(void **state) {
    static const size_t sizes[] = {0, 1, 63, 4096, BIG, 4 << 20};
    struct pack_store *store = pack_store_new();
    struct pack_cache *a = pack_cache_new(store), *b = pack_cache_new(store);
    size_t sum = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char key[16] = {(char)('a' + i), 0};
        const struct pack *p = add(a, key, sizes[i], 7, SIZE_MAX), *q = add(b, key, sizes[i], 7, SIZE_MAX);

        sum += sizes[i];
        assert_ptr_not_equal(p, q);
        assert_ptr_equal(p->data, q->data);
        assert_ptr_equal(pack_find(b, key), q);
        assert_string_equal(q->meta, "meta");
    }
    assert_int_equal(pack_count_bytes(a).own, 0);
    assert_int_equal(pack_count_bytes(a).shared, sum);
    pack_cache_free(a);
    assert_int_equal(pack_count_bytes(b).own, sum); /* still there, and nobody else's now */
    assert_int_equal(pack_count_bytes(b).shared, 0);
    assert_int_equal(((const uint8_t *)pack_find(b, "e")->data)[BIG - 1], 7);
    pack_cache_free(b);
    pack_store_unref(store);
}

/* Where the hash takes no sample it is the same for both: only comparing tells. */
static void test_bytes_that_differ_anywhere_stay_apart(void **state) {
    static const size_t places[] = {0, 63, 64, 500, 1023, 1024, BIG - 1};
    struct pack_cache *c = pack_cache_new(NULL);
    const struct pack *plain = add(c, "plain", BIG, 1, SIZE_MAX);

    (void)state;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        char key[16] = {(char)('a' + i), 0};
        const struct pack *p = add(c, key, BIG, 1, places[i]);

        assert_ptr_not_equal(p->data, plain->data);
        assert_int_equal(((const uint8_t *)p->data)[places[i]], 2);
    }
    assert_int_equal(((const uint8_t *)plain->data)[500], 1);
    assert_ptr_equal(add(c, "again", BIG, 1, 500)->data, pack_find(c, "d")->data);
    pack_cache_free(c);
}

static void test_counts_take_each_once(void **state) {
    struct pack_store *store = pack_store_new();
    struct pack_cache *a = pack_cache_new(store), *b = pack_cache_new(store);
    uint64_t tally = pack_store_new_tally(store);

    (void)state;
    add(a, "one", 1000, 1, SIZE_MAX);
    add(a, "same", 1000, 1, SIZE_MAX); /* twice in one net: that net's own */
    add(a, "two", 500, 2, SIZE_MAX);
    add(b, "two of b", 500, 2, SIZE_MAX);
    add(b, "three", 30, 3, SIZE_MAX);
    assert_int_equal(pack_count_bytes(a).own, 1000);
    assert_int_equal(pack_count_bytes(a).shared, 500);
    assert_int_equal(pack_count_bytes(b).own, 30);
    assert_int_equal(pack_tally_bytes(a, tally), 1500);
    assert_int_equal(pack_tally_bytes(b, tally), 30);
    pack_cache_free(b);
    assert_int_equal(pack_count_bytes(a).own, 1500);
    pack_cache_free(a);
    pack_store_unref(store);
}

struct churn {
    struct pack_store *store;
    int failed;
};

static void *churn(void *arg) {
    struct churn *t = arg;

    for (int i = 0; i < 200; i++) {
        struct pack_cache *c = pack_cache_new(t->store);
        const struct pack *p = add(c, "p", BIG, (uint8_t)(i % 3), SIZE_MAX);

        pack_count_bytes(c);
        if (((const uint8_t *)p->data)[BIG / 2] != (uint8_t)(i % 3))
            t->failed = 1;
        pack_cache_free(c);
    }
    return NULL;
}

static void test_from_many_threads(void **state) {
    pthread_t t[4];
    struct pack_store *store = pack_store_new();
    struct churn c[4] = {{store, 0}, {store, 0}, {store, 0}, {store, 0}};

    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, churn, &c[i]), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(c[i].failed, 0);
    }
    pack_store_unref(store);
}

static struct net *open_planned(const char *text, struct pack_store *store) {
    struct net_text t = net_text_read(text);
    struct net_options o = {.store = store};
    struct error err = {0};
    struct plan *p;
    struct net *n;

    assert_int_equal(cpu_detect(NULL, &o.cpu, &err), 0);
    assert_int_equal(net_new(t.graph, &o, &n, &err), 0);
    assert_int_equal(net_plan(n, t.input, 1, &p, &err), 0);
    plan_unref(p);
    return n;
}

static void test_nets_with_a_layer_in_common(void **state) {
    struct pack_store *store = pack_store_new();
    struct net *a = open_planned("Conv x=1x64x14x14 w=64x64x3x3 b=64; Conv $ v=32x64x1x1", store),
               *b = open_planned("Conv x=1x64x14x14 w=64x64x3x3 b=64; Conv $ v=64x64x1x1", store);
    uint64_t tally = pack_store_new_tally(store);
    struct net_bytes x, y;

    (void)state;
    net_count_bytes(a, &x);
    net_count_bytes(b, &y);
    assert_true(x.shared >= 64 * 64 * 9 * sizeof(float));
    assert_int_equal(x.shared, y.shared);
    assert_true(x.packed >= 32 * 64 * sizeof(float) && y.packed >= 64 * 64 * sizeof(float));
    assert_int_equal(net_tally_packed(a, tally) + net_tally_packed(b, tally), x.shared + x.packed + y.packed);
    net_unref(a);
    net_count_bytes(b, &x);
    assert_int_equal(x.shared, 0);
    assert_int_equal(x.packed, y.packed + y.shared);
    net_unref(b);
    pack_store_unref(store);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_bytes_are_there_once),
        cmocka_unit_test(test_bytes_that_differ_anywhere_stay_apart),
        cmocka_unit_test(test_counts_take_each_once),
        cmocka_unit_test(test_from_many_threads),
        cmocka_unit_test(test_nets_with_a_layer_in_common),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
