/* The minibatches of a training: each picture once an epoch, in an order that seed and epoch alone decide,
 * whatever the threads and wherever reading begins. */
#include <errno.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "compress/batches.h"
#include "tests/unit/archive_make.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/temp_dir.h"

#define N       300
#define SIDE    4
#define FLOATS  (3 * SIDE * SIDE)
#define BATCH   16
#define CLASSES 10

static const struct value input = {.dtype = DT_F32, .shape = {.rank = 4, .dim = {-1, 3, SIDE, SIDE}}};

struct made {
    int64_t n;
    bool is_unlabelled;
    int64_t damaged; /* this picture is no picture; 0: none */
    uint32_t side;   /* of the first one, the others are up to 2 smaller; 0: SIDE, all */
    uint8_t add;     /* to all bytes, which digests do not tell */
};

/* Picture i is filled with the bytes of its number; its label is the number's last digit. */
static struct pack *make_other_pack(const struct made *m) {
    _cleanup_(closep) int fd = memory_file();
    _cleanup_(pack_writer_freep) struct pack_writer *w = NULL;
    struct pack *p = NULL;

    assert_int_equal(pack_writer_new(fd, &w, NULL), 0);
    assert_int_equal(pack_writer_split(w, "train", NULL), 0);
    for (int c = 0; c < CLASSES; c++) {
        char name[8];

        snprintf(name, sizeof(name), "%d", c);
        assert_int_equal(pack_writer_class(w, name, NULL), c);
    }
    for (int64_t i = 0; i < m->n; i++) {
        uint32_t side = m->side ? m->side - (uint32_t)(i % 3) : SIDE;
        uint8_t pixels[4 * FLOATS];
        struct pack_item item = {.data = pixels,
            .size = (uint64_t)3 * side * side,
            .label = m->is_unlabelled ? PACK_NO_LABEL : (uint32_t)(i % CLASSES),
            .kind = i && i == m->damaged ? PACK_PNG : PACK_RAW,
            .channels = 3,
            .height = side,
            .width = side};

        for (int k = 0; k < 4 * FLOATS; k++)
            pixels[k] = (uint8_t)(k % 2 ? i / 256 : i % 256);
        EVP_Digest(pixels, sizeof(pixels), item.sha256, NULL, EVP_sha256(), NULL);
        for (int k = 0; k < 4 * FLOATS; k++)
            pixels[k] = (uint8_t)(pixels[k] + m->add);
        assert_int_equal(pack_writer_add(w, &item, NULL), 0);
    }
    assert_int_equal(pack_writer_finish(w, false, NULL), 0);
    assert_int_equal(pack_open(fd, &p, NULL), 0);
    return p;
}

static struct pack *make_pack(int64_t n) {
    return make_other_pack(&(struct made){.n = n});
}

struct store {
    float x[BATCH][FLOATS];
    float targets[BATCH * CLASSES];
};

static float *place(void *ctx, int64_t i) {
    return ((struct store *)ctx)->x[i];
}

static struct batches *open_augmented(
    struct pack *p, unsigned threads, uint64_t seed, struct augment_options augment) {
    struct feed_source source = {.pack = p};
    struct batches_options o = {.batch = BATCH, .seed = seed, .threads = threads, .augment = augment};
    struct batches *b = NULL;
    struct error err = {0};

    if (batches_open(&source, &input, &o, &b, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(batches_map_classes(b, NULL, CLASSES, &err), 0);
    return b;
}

static struct batches *open_batches(struct pack *p, unsigned threads, uint64_t seed) {
    return open_augmented(p, threads, seed, (struct augment_options){0});
}

static void read_batch(struct batches *b, int epoch, int64_t k, struct store *ret) {
    struct error err = {0};

    if (batches_read(b, epoch, k, place, ret, ret->targets, &err) < 0)
        fail_msg("%s", err.text);
}

/* Default preprocess: bytes as they are, by 255. */
static int number_of(const float *x) {
    return (int)(x[0] * 255 + 0.5f) + 256 * (int)(x[1] * 255 + 0.5f);
}

static void test_each_picture_comes_once_an_epoch_with_its_label(void **state) {
    _cleanup_(pack_freep) struct pack *p = make_pack(N);
    _cleanup_(batches_freep) struct batches *b = open_batches(p, 1, 3);
    int64_t n = batches_per_epoch(b), n_val = (int64_t)batches_val(b)->n;
    struct store s;

    (void)state;
    assert_in_range(n_val, N / 20, N / 5);
    assert_int_equal(n, (N - n_val) / BATCH);
    for (int epoch = 0; epoch < 3; epoch++) {
        int seen[N] = {0};

        for (uint64_t i = 0; i < batches_val(b)->n; i++)
            seen[batches_val(b)->item[i]]++;
        for (int64_t k = 0; k < n; k++) {
            read_batch(b, epoch, k, &s);
            for (int i = 0; i < BATCH; i++) {
                int number = number_of(s.x[i]);

                assert_in_range(number, 0, N - 1);
                assert_int_equal(seen[number]++, 0);
                for (int c = 0; c < CLASSES; c++)
                    assert_true(s.targets[i * CLASSES + c] == (c == number % CLASSES));
            }
        }
    }
}

static void test_threads_and_the_beginning_do_not_change_a_byte(void **state) {
    static const unsigned threads[] = {0, 1, 3, 7};
    static const struct augment_options augment = {
        .is_wanted = true, .crop_padding = 1, .flip = true, .rotate = 9, .color = 0.2, .mixup = 0.5};
    _cleanup_(pack_freep) struct pack *p = make_pack(N);
    _cleanup_(batches_freep) struct batches *first = open_augmented(p, 0, 5, augment);
    int64_t n = batches_per_epoch(first);
    struct store want, s;

    (void)state;
    for (size_t t = 0; t < sizeof(threads) / sizeof(threads[0]); t++) {
        _cleanup_(batches_freep) struct batches *b = open_augmented(p, threads[t], 5, augment);

        for (int round = 0; round < 40; round++) { /* in order, with leaps */
            int64_t at = (round + (round >= 20 ? 37 : 0) - (round >= 30 ? 50 : 0));

            read_batch(b, (int)(at / n), at % n, &s);
            read_batch(first, (int)(at / n), at % n, &want);
            assert_memory_equal(&s, &want, sizeof(s));
        }
    }
}

static void test_seed_and_epoch_change_the_order(void **state) {
    _cleanup_(pack_freep) struct pack *p = make_pack(N);
    _cleanup_(batches_freep) struct batches *a = open_batches(p, 1, 1), *b = open_batches(p, 1, 2);
    struct store x, y, z;

    (void)state;
    read_batch(a, 0, 0, &x);
    read_batch(b, 0, 0, &y);
    read_batch(a, 1, 0, &z);
    assert_memory_not_equal(&x, &y, sizeof(x));
    assert_memory_not_equal(&x, &z, sizeof(x));
}

/* Uniform pictures stay what they are wherever they are moved from, but for the black that comes in; the
 * mixture of two is told by the two targets. */
static void test_mixtures_and_their_targets_agree(void **state) {
    static const struct augment_options mixup = {.is_wanted = true, .mixup = 1};
    _cleanup_(pack_freep) struct pack *p = make_pack(N);
    _cleanup_(batches_freep) struct batches *plain = open_batches(p, 1, 4);
    _cleanup_(batches_freep) struct batches *mixed = open_augmented(p, 1, 4, mixup);
    struct store own, s;
    int n_mixed = 0;

    (void)state;
    read_batch(plain, 1, 2, &own);
    read_batch(mixed, 1, 2, &s);
    for (int i = 0; i < BATCH; i++) {
        float sum = 0, share = s.targets[i * CLASSES + number_of(own.x[i]) % CLASSES];
        double other;
        int n_classes = 0;

        for (int c = 0; c < CLASSES; c++) {
            float t = s.targets[i * CLASSES + c];

            sum += t;
            n_classes += t > 0;
        }
        assert_true(fabsf(sum - 1) < 1e-6F && share > 0 && n_classes <= 2);
        if (n_classes < 2) /* one class, or two pictures of it */
            continue;
        n_mixed++;
        /* what is left when the own share is taken away is a picture: a whole number of 255ths */
        other = (double)(s.x[i][0] - share * own.x[i][0]) / (1 - (double)share) * 255;
        if (share < 0.9F)
            assert_true(fabs(other - rint(other)) < 0.01 && other > -0.01 && other < 255.01);
    }
    assert_in_range(n_mixed, BATCH / 2, BATCH);
}

static void test_what_is_augmented_changes_with_the_epoch(void **state) {
    static const struct augment_options crop = {.is_wanted = true, .crop_padding = 2};
    _cleanup_(pack_freep) struct pack *p = make_pack(N);
    _cleanup_(batches_freep) struct batches *b = open_augmented(p, 2, 4, crop);
    _cleanup_(batches_freep) struct batches *plain = open_batches(p, 0, 4); /* the same order */
    static float seen[N][FLOATS];
    int n_same = 0, n_differ = 0;
    struct store s, own;

    (void)state;
    for (int epoch = 0; epoch < 2; epoch++)
        for (int64_t k = 0; k < batches_per_epoch(b); k++) {
            read_batch(b, epoch, k, &s);
            read_batch(plain, epoch, k, &own);
            for (int i = 0; i < BATCH; i++) {
                float *x = seen[number_of(own.x[i])];

                if (epoch && memcmp(x, s.x[i], sizeof(s.x[i])))
                    n_differ++;
                else
                    n_same += epoch;
                memcpy(x, s.x[i], sizeof(s.x[i]));
            }
        }
    assert_true(n_differ > 3 * n_same);
}

static unsigned allowed_now(void *ctx) {
    return atomic_fetch_add((atomic_uint *)ctx, 1) / 5 % 3;
}

/* One thread, or more, at any moment: readers stop and come back, and the bytes are the same. */
static void test_readers_give_way(void **state) {
    _cleanup_(pack_freep) struct pack *p = make_pack(N);
    _cleanup_(batches_freep) struct batches *plain = open_batches(p, 0, 4), *b = NULL;
    struct feed_source source = {.pack = p};
    atomic_uint n_asked = 0;
    struct batches_options o = {
        .batch = BATCH, .seed = 4, .threads = 3, .allowed = allowed_now, .ctx = &n_asked};
    struct store s, want;

    (void)state;
    assert_int_equal(batches_open(&source, &input, &o, &b, NULL), 0);
    assert_int_equal(batches_map_classes(b, NULL, CLASSES, NULL), 0);
    /* until the readers have had their turns: the caller may be faster than they wake */
    for (int64_t k = 0; k < 60 || (atomic_load(&n_asked) < 15 && k < 1000000); k++) {
        read_batch(b, (int)(k / batches_per_epoch(b)), k % batches_per_epoch(b), &s);
        read_batch(plain, (int)(k / batches_per_epoch(b)), k % batches_per_epoch(b), &want);
        assert_memory_equal(&s, &want, sizeof(s));
    }
    assert_true(atomic_load(&n_asked) >= 15);
}

static void test_what_cannot_be_read_is_said_by_the_reader(void **state) {
    _cleanup_(pack_freep) struct pack *p = make_other_pack(&(struct made){.n = N, .damaged = 77});
    struct store s;

    (void)state;
    for (unsigned threads = 0; threads < 4; threads++) {
        _cleanup_(batches_freep) struct batches *b = open_batches(p, threads, 9);
        int n_failed = 0;

        for (int64_t k = 0; k < batches_per_epoch(b); k++) {
            struct error err = {0};

            if (batches_read(b, 0, k, place, &s, s.targets, &err) < 0) {
                n_failed++;
                assert_non_null(strstr(err.text, "picture 77 of the split 'train': "));
            }
        }
        assert_in_range(n_failed, 0, 1);
        if (threads == 0 && n_failed == 0)
            fail_msg("picture 77 is held out or left over: take another one");
    }
}

static void test_labels_are_needed_only_for_targets(void **state) {
    _cleanup_(pack_freep) struct pack *p = make_other_pack(&(struct made){.n = N, .is_unlabelled = true});
    _cleanup_(batches_freep) struct batches *b = open_batches(p, 1, 9);
    struct error err = {0};
    struct store s;

    (void)state;
    assert_int_equal(batches_read(b, 0, 0, place, &s, NULL, &err), 0);
    assert_int_equal(batches_read(b, 0, 0, place, &s, s.targets, &err), -EBADMSG);
    assert_string_equal(err.code, "bad_dataset");
}

static struct batches *open_cached(struct pack *p, struct picture_cache_place cache) {
    struct feed_source source = {.pack = p, .cache = cache};
    struct batches_options o = {.batch = BATCH, .seed = 1, .threads = 2};
    struct batches *b = NULL;

    assert_int_equal(batches_open(&source, &input, &o, &b, NULL), 0);
    assert_int_equal(batches_map_classes(b, NULL, CLASSES, NULL), 0);
    return b;
}

/* Pictures of other sizes: resized once. That they come from the cache is told by a pack that claims to be
 * the same and is not. */
static void test_pictures_are_prepared_once(void **state) {
    struct picture_cache_place place_of = {.owner = "d", .budget = 1 << 20};
    _cleanup_(pack_freep) struct pack *p = make_other_pack(&(struct made){.n = N, .side = 2 * SIDE});
    _cleanup_(pack_freep) struct pack *q =
        make_other_pack(&(struct made){.n = N, .side = 2 * SIDE, .add = 1});
    struct store want, s;
    char folder[64];

    (void)state;
    temp_dir_make(folder);
    place_of.folder = folder;
    for (int round = 0; round < 3; round++) {
        _cleanup_(batches_freep) struct batches *plain = open_cached(p, (struct picture_cache_place){0});
        _cleanup_(batches_freep) struct batches *kept = open_cached(round < 2 ? p : q, place_of);

        for (int64_t k = 0; k < 2 * batches_per_epoch(plain); k++) {
            int epoch = (int)(k / batches_per_epoch(plain));

            read_batch(plain, epoch, k % batches_per_epoch(plain), &want);
            read_batch(kept, epoch, k % batches_per_epoch(plain), &s);
            assert_memory_equal(&s, &want, sizeof(s));
        }
    }
    temp_dir_remove(folder);
}

static void test_too_few_pictures_are_refused(void **state) {
    _cleanup_(pack_freep) struct pack *p = make_pack(10);
    struct feed_source source = {.pack = p};
    struct batches_options o = {.batch = BATCH};
    struct batches *b = NULL;
    struct error err = {0};

    (void)state;
    assert_int_equal(batches_open(&source, &input, &o, &b, &err), -EBADMSG);
    assert_string_equal(err.code, "bad_dataset");
    assert_non_null(strstr(err.text, "fewer than a batch of 16"));
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_picture_comes_once_an_epoch_with_its_label),
        cmocka_unit_test(test_threads_and_the_beginning_do_not_change_a_byte),
        cmocka_unit_test(test_seed_and_epoch_change_the_order),
        cmocka_unit_test(test_mixtures_and_their_targets_agree),
        cmocka_unit_test(test_what_is_augmented_changes_with_the_epoch),
        cmocka_unit_test(test_readers_give_way),
        cmocka_unit_test(test_what_cannot_be_read_is_said_by_the_reader),
        cmocka_unit_test(test_labels_are_needed_only_for_targets),
        cmocka_unit_test(test_pictures_are_prepared_once),
        cmocka_unit_test(test_too_few_pictures_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
