/* Pictures a second that one thread makes ready for training, from an archive: decoded each time, from the
 * cache, augmented. All take turns, some minibatches each; medians of the rounds.
 *     data_path ARCHIVE SIDE CHANNELS [SECONDS]
 * Ends with the ratio of the usual augmentation (crop, flip) from the cache to the same decoded each time. */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "compress/batches.h"
#include "compress/offline_data.h"

#define BATCH  128
#define ROUNDS 400 /* at most */
#define BURST  4   /* minibatches a turn */

static const struct contender {
    const char *name;
    bool is_cached;
    struct augment_options augment;
} contenders[] = {
    {"decoded, crop and flip", false, {.is_wanted = true, .crop_padding = 4, .flip = true}},
    {"kept, nothing", true, {0}},
    {"kept, crop and flip", true, {.is_wanted = true, .crop_padding = 4, .flip = true}},
    {"kept, crop, flip, cutout", true, {.is_wanted = true, .crop_padding = 4, .flip = true, .cutout = 0.5}},
    {"kept, rotate and scale", true, {.is_wanted = true, .flip = true, .rotate = 15, .scale = 0.1}},
    {"kept, color", true, {.is_wanted = true, .color = 0.4}},
    {"kept, all", true,
        {.is_wanted = true,
            .crop_padding = 4,
            .flip = true,
            .rotate = 15,
            .scale = 0.1,
            .cutout = 0.5,
            .color = 0.4,
            .mixup = 0.4}},
};
#define FIRST_KEPT 1
#define N          (sizeof(contenders) / sizeof(contenders[0]))

static float *input;
static size_t item;

static float *place(void *ctx, int64_t i) {
    (void)ctx;
    return input + (size_t)i * item;
}

static int by_value(const void *a, const void *b) {
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static double median(double *v, size_t n) {
    qsort(v, n, sizeof(*v), by_value);
    return v[n / 2];
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *f) {
    (void)st;
    (void)kind;
    (void)f;
    return remove(path);
}

static void check(int r, const struct error *err) {
    if (r < 0) {
        fprintf(stderr, "data_path: %s\n", err->text);
        exit(1);
    }
}

static double turn(struct batches *b, int64_t *at) {
    double begin = clock_now_s();

    for (int i = 0; i < BURST; i++, ++*at) {
        struct error err = {0};

        check(batches_read(
                  b, (int)(*at / batches_per_epoch(b)), *at % batches_per_epoch(b), place, NULL, NULL, &err),
            &err);
    }
    return BURST * BATCH / (clock_now_s() - begin);
}

int main(int argc, char **argv) {
    static double rate[N][ROUNDS];
    struct batches *b[N];
    int64_t at[N] = {0};
    struct feed_source source;
    struct error err = {0};
    struct value in = {.dtype = DT_F32, .shape = {.rank = 4, .dim = {-1}}};
    char folder[] = "/tmp/bonsai-bench-XXXXXX";
    double end, median_rate[N];
    size_t rounds = 0;

    if (argc < 4 || !mkdtemp(folder))
        return 2;
    in.shape.dim[1] = atoi(argv[3]);
    in.shape.dim[2] = in.shape.dim[3] = atoi(argv[2]);
    item = (size_t)(in.shape.dim[1] * in.shape.dim[2] * in.shape.dim[3]);
    input = malloc(BATCH * item * sizeof(*input));
    check(offline_source(argv[1], NULL, &source, &err), &err);
    if (!source.preprocess && source.pack) /* pictures of any size */
        source.preprocess = json_pack("{s:{s:s, s:[i, i]}}", "resize", "mode", "bilinear", "size",
            (int)in.shape.dim[2], (int)in.shape.dim[3]);
    for (size_t i = 0; i < N; i++) {
        struct batches_options o = {.batch = BATCH, .seed = 1, .augment = contenders[i].augment};
        struct feed_source s = source;

        s.cache = (struct picture_cache_place){folder, "bench", contenders[i].is_cached ? 4ull << 30 : 0};
        check(batches_open(&s, &in, &o, &b[i], &err), &err);
        while (i == FIRST_KEPT && at[i] < batches_per_epoch(b[i])) /* all is kept */
            turn(b[i], &at[i]);
    }
    end = clock_now_s() + (argc > 4 ? atof(argv[4]) : 20);
    for (; rounds < ROUNDS && (rounds < 5 || clock_now_s() < end); rounds++)
        for (size_t i = 0; i < N; i++)
            rate[i][rounds] = turn(b[i], &at[i]);
    for (size_t i = 0; i < N; i++) {
        median_rate[i] = median(rate[i], rounds);
        printf("%-26s %9.0f pictures/s on one thread\n", contenders[i].name, median_rate[i]);
        batches_free(b[i]);
    }
    printf("data_path ratio=%.2f\n", median_rate[2] / median_rate[0]);
    feed_source_done(&source);
    nftw(folder, remove_one, 4, FTW_DEPTH | FTW_PHYS);
    free(input);
    return 0;
}
