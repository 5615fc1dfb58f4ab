/* What a training is told and what it finds: the specification, the pictures' shape and numbers, the metadata
 * of a model file, which may be anything. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compress/model_props.h"
#include "compress/train_pictures.h"
#include "compress/train_spec.h"
#include "tests/unit/archive_make.h"
#include "tests/unit/cmocka_all.h"

/* ---- the specification ---- */

static int read_spec(const char *text, struct train_spec *ret, struct error *err) {
    json_auto_t *j = json_loads(text, JSON_DECODE_ANY, NULL);

    assert_non_null(j);
    return train_spec_read(j, ret, err);
}

static void test_defaults_are_the_networks_own_over_finetunes(void **state) {
    struct learn_options finetune = {0};
    struct train_spec s;
    struct error err = {0};

    (void)state;
    assert_int_equal(param_defaults(&learn_table, &finetune, &err), 0);
    assert_int_equal(read_spec("{\"network\": {\"zoo\": \"resnet20\"}, \"momentum\": 0.8}", &s, &err), 0);
    assert_ptr_equal(s.net, zoo_find("resnet20"));
    assert_true(s.learn.lr == 0.1 && s.learn.epochs == 30); /* the network's */
    assert_true(s.learn.momentum == 0.8);                   /* the spec's */
    assert_int_equal(s.learn.batch, finetune.batch);
    assert_true(s.network.width == 1 && s.network.depth == 1 && s.network.size == 0);
    assert_true(s.minutes == 0 && s.seed == 0);
    train_spec_done(&s);
    assert_int_equal(read_spec("{\"from\": \"x\", \"seed\": 9, \"minutes\": 1.5}", &s, &err), 0);
    assert_null(s.net);
    assert_true(s.learn.lr == finetune.lr && s.minutes == 1.5 && s.seed == 9);
    train_spec_done(&s);
}

static void test_defaults_of_every_network_can_be_read(void **state) {
    (void)state;
    for (size_t i = 0; i < zoo_table_size; i++) {
        struct train_spec s;
        struct error err = {0};
        char text[128];

        snprintf(text, sizeof(text), "{\"network\": {\"zoo\": \"%s\"}}", zoo_table[i]->name);
        if (read_spec(text, &s, &err) < 0)
            fail_msg("%s: %s", zoo_table[i]->name, err.text);
        train_spec_done(&s);
    }
}

static void test_mistakes_are_named_with_their_path(void **state) {
    static const struct {
        const char *text, *part;
    } wrong[] = {
        {"[]", "not an object"},
        {"{}", "exactly one of network and from"},
        {"{\"network\": {\"zoo\": \"vgg8\"}, \"from\": \"x\"}", "exactly one of network and from"},
        {"{\"network\": {}}", "network.zoo is missing"},
        {"{\"network\": {\"zoo\": \"alexnet\"}}", "'alexnet'; there are lenet300, lenet5, mobilenet_v1"},
        {"{\"network\": {\"zoo\": 3}}", "network.zoo is not a string"},
        {"{\"network\": {\"zoo\": \"vgg8\", \"width\": \"wide\"}}", "network.width is not a number"},
        {"{\"network\": {\"zoo\": \"vgg8\", \"width\": 5}}", "network.width: 5 is not from"},
        {"{\"network\": {\"zoo\": \"vgg8\", \"layers\": 5}}", "network.layers is not known"},
        {"{\"network\": {\"zoo\": \"vgg8\", \"size\": 2000}}", "network.size"},
        {"{\"network\": {\"zoo\": \"vgg8\"}, \"epoch\": 5}", "epoch is not known"},
        {"{\"network\": {\"zoo\": \"vgg8\"}, \"batch\": 0}", "batch: 0 is not from"},
        {"{\"network\": {\"zoo\": \"vgg8\"}, \"minutes\": -1}", "minutes"},
        {"{\"network\": {\"zoo\": \"vgg8\"}, \"augment\": {\"flop\": 1}}", "augment.flop"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct train_spec s;
        struct error err = {0};

        assert_int_equal(read_spec(wrong[i].text, &s, &err), -EINVAL);
        if (!strstr(err.text, wrong[i].part))
            fail_msg("%s: %s", wrong[i].text, err.text);
        train_spec_done(&s);
    }
}

static void test_the_schema_has_both_tables(void **state) {
    json_auto_t *schema = train_spec_schema();
    const json_t *p = json_object_get(schema, "properties");

    (void)state;
    for (size_t i = 0; i < learn_table.n; i++)
        assert_non_null(json_object_get(p, learn_table.param[i].name));
    assert_non_null(json_object_get(json_object_get(json_object_get(p, "network"), "properties"), "zoo"));
}

/* ---- the pictures ---- */

struct drawn {
    uint32_t width, height;
    uint8_t channels, first, second; /* the left half is `first`, the right half `second` */
};

static struct pack *pack_of(const struct drawn *d, size_t n, const char *split) {
    int fd = memory_file();
    struct pack_writer *w = NULL;
    struct pack *pack = NULL;
    struct error err = {0};
    uint8_t *pixels = malloc(1u << 20);

    assert_non_null(pixels);
    assert_int_equal(pack_writer_new(fd, &w, &err), 0);
    pack_writer_split(w, split, &err);
    for (size_t i = 0; i < n; i++) {
        size_t row = (size_t)d[i].width * d[i].channels, size = row * d[i].height;
        struct pack_item item = {.data = pixels,
            .size = size,
            .label = (uint32_t)pack_writer_class(w, i % 2 ? "b" : "a", &err),
            .kind = PACK_RAW,
            .channels = d[i].channels,
            .height = d[i].height,
            .width = d[i].width,
            .sha256 = {(uint8_t)i}};

        assert_true(size <= 1u << 20);
        for (size_t k = 0; k < size; k++)
            pixels[k] = k % row < row / 2 ? d[i].first : d[i].second;
        assert_int_equal(pack_writer_add(w, &item, &err), 0);
    }
    assert_int_equal(pack_writer_finish(w, true, &err), 0);
    pack_writer_free(w);
    assert_int_equal(pack_open(fd, &pack, &err), 0);
    close(fd);
    free(pixels);
    return pack;
}

static struct preprocess look(const struct drawn *d, size_t n, int size) {
    struct pack *pack = pack_of(d, n, "train");
    struct preprocess p = {0};
    struct error err = {0};

    if (train_pictures_look(pack, size, true, NULL, &p, &err) < 0)
        fail_msg("%s", err.text);
    pack_free(pack);
    return p;
}

static void test_mean_and_deviation_are_measured(void **state) {
    const struct drawn gray[] = {{28, 28, 1, 0, 255}, {28, 28, 1, 0, 255}};
    const struct drawn colour[] = {{32, 16, 3, 51, 51}, {32, 16, 3, 153, 153}};
    struct preprocess p = look(gray, 2, 0);

    (void)state;
    assert_int_equal(p.color, PREPROCESS_GRAY);
    assert_true(p.height == 28 && p.width == 28 && !p.shorter);
    assert_true(fabs(p.mean[0] - 0.5) < 1e-9 && fabs(p.std[0] - 0.5) < 1e-9);
    p = look(colour, 2, 0);
    assert_int_equal(p.color, PREPROCESS_RGB);
    assert_true(p.height == 16 && p.width == 32);
    for (int c = 0; c < 3; c++) /* 0.2 and 0.6 */
        assert_true(fabs(p.mean[c] - 0.4) < 1e-9 && fabs(p.std[c] - 0.2) < 1e-9);
}

static void test_pictures_of_one_colour_do_not_divide_by_zero(void **state) {
    const struct drawn flat[] = {{8, 8, 1, 100, 100}, {8, 8, 1, 100, 100}};

    (void)state;
    assert_true(look(flat, 2, 0).std[0] == 1);
}

static void test_sizes_follow_the_pictures(void **state) {
    const struct drawn mixed[] = {{100, 70, 3, 1, 9}, {70, 120, 3, 1, 9}, {300, 200, 3, 1, 9}};
    const struct drawn large[] = {{400, 300, 3, 1, 9}};
    const struct drawn tiny[] = {{10, 12, 1, 1, 9}, {9, 9, 1, 1, 9}};
    const struct drawn square[] = {{64, 64, 1, 1, 9}};
    struct preprocess p;

    (void)state;
    p = look(mixed, 3, 0); /* median of the shorter sides: 70 */
    assert_true(p.shorter == 64 && p.crop_height == 64 && p.crop_width == 64);
    p = look(large, 1, 0);
    assert_int_equal(p.shorter, 224);
    p = look(tiny, 2, 0);
    assert_int_equal(p.shorter, 32);
    p = look(square, 1, 96);
    assert_true(p.height == 96 && p.width == 96 && !p.shorter);
    p = look(mixed, 3, 50);
    assert_true(p.shorter == 50 && p.crop_width == 50);
}

static void test_one_colour_picture_makes_all_colour(void **state) {
    const struct drawn both[] = {{8, 8, 1, 1, 9}, {8, 8, 3, 1, 9}};

    (void)state;
    assert_int_equal(look(both, 2, 0).color, PREPROCESS_RGB);
}

static void test_no_split_to_learn_from_is_said(void **state) {
    const struct drawn one[] = {{8, 8, 1, 1, 9}};
    struct pack *pack = pack_of(one, 1, "test");
    struct preprocess p;
    struct error err = {0};

    (void)state;
    assert_int_equal(train_pictures_look(pack, 0, true, NULL, &p, &err), -EBADMSG);
    assert_string_equal(err.code, "no_train_split");
    pack_free(pack);
}

/* ---- metadata ---- */

static struct graph *small(void) {
    struct zoo_spec spec = {
        .width = 1, .depth = 1, .channels = 1, .height = 8, .width_px = 8, .n_classes = 2};
    struct graph *g = NULL;
    struct error err = {0};

    assert_int_equal(zoo_new(zoo_find("lenet300"), &spec, &g, &err), 0);
    return g;
}

static void test_labels_and_preprocess_come_back(void **state) {
    struct graph *g = small();
    json_auto_t *labels = json_pack("[s, s]", "a", "b"), *got = NULL, *got_preprocess = NULL;
    struct preprocess p = {.scale = 1.0 / 255,
        .height = 8,
        .width = 8,
        .color = PREPROCESS_GRAY,
        .mean = {0.2854},
        .std = {0.3539, 1, 1}};
    json_auto_t *preprocess = preprocess_to_json(&p);
    struct error err = {0};

    (void)state;
    assert_int_equal(model_props_set(g, labels, preprocess, &err), 0);
    model_props_read(g, &got, &got_preprocess);
    assert_true(json_equal(labels, got));
    assert_true(json_equal(preprocess, got_preprocess)); /* doubles to the last bit */
    graph_free(g);
}

static void test_foreign_metadata_that_does_not_fit_is_ignored(void **state) {
    static const char *const texts[] = {"", "{", "null", "3", "\"a\"", "[]", "[\"a\"]", "[\"a\", 1]",
        "[\"a\", \"b\", \"c\"]", "{\"scale\": \"x\"}", "{\"color\": \"rgb\"}", "{\"std\": [0]}",
        "{\"resize\": {\"size\": [9, 9]}}", "{\"a\": 1, \"a\": 2}"};

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct graph *g = small();
        json_t *labels = NULL, *preprocess = NULL;

        assert_int_equal(graph_set_prop(g, "bonsai.labels", texts[i]), 0);
        assert_int_equal(graph_set_prop(g, "bonsai.preprocess", texts[i]), 0);
        model_props_read(g, &labels, &preprocess);
        if (labels || preprocess)
            fail_msg("%s was taken", texts[i]);
        graph_free(g);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_the_networks_own_over_finetunes),
        cmocka_unit_test(test_defaults_of_every_network_can_be_read),
        cmocka_unit_test(test_mistakes_are_named_with_their_path),
        cmocka_unit_test(test_the_schema_has_both_tables),
        cmocka_unit_test(test_mean_and_deviation_are_measured),
        cmocka_unit_test(test_pictures_of_one_colour_do_not_divide_by_zero),
        cmocka_unit_test(test_sizes_follow_the_pictures),
        cmocka_unit_test(test_one_colour_picture_makes_all_colour),
        cmocka_unit_test(test_no_split_to_learn_from_is_said),
        cmocka_unit_test(test_labels_and_preprocess_come_back),
        cmocka_unit_test(test_foreign_metadata_that_does_not_fit_is_ignored),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
