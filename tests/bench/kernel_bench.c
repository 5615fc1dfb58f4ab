/* Kernels beside their peers, a layer at a time: kernel_bench NAME|all [THREADS]
 *
 * Both sides of a row run the same layer in turns, in bursts of some milliseconds, with a rest after each.
 * Printed are the median ratio of neighbouring bursts (above 1: the first side is faster), the times, and
 * what share of the machine's peak the first side reaches; peaks are measured in the same run. Ends with a
 * line "kernel_NAME ratio=R" for each row. A side whose kernel does not exist, or does not take the layer, is
 * "not there": that is an error only if the row was asked for by its name.
 *
 * To add a row: one line in `rows`. The layer is {inputs, outputs, kernel, size, stride, groups, batch}; a
 * side says what its weights are (kernel_bench.h) and, where the table would choose another, part of the name
 * of the kernel that must run it. Values decide the packing: `levels` 16 is a codebook of 4 bits, `zeros` 0.9
 * with `block` 4 nine tenths of zeros in blocks of four inputs. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/bench/kernel_bench.h"

#define BURST_US   10000.0
#define REST_US    10000
#define ROUNDS     21
#define MAX_RUNS   200
#define MAX_REST_S 0.1

#define F32 WEIGHTS_FLOAT
#define S8  WEIGHTS_INT8
#define ONEDNN_8                                                                                             \
    { "oneDNN int8", WEIGHTS_PEER, NULL, 0, 0, 0, 0, false }
#define OUR_F32                                                                                              \
    { "float", F32, NULL, 0, 0, 0, 0, false }
#define OUR_S8                                                                                               \
    { "int8", S8, NULL, 0, 0, 0, 0, false }

struct row {
    const char *name;
    struct layer_shape layer;
    struct contender a, b;
    enum peak peak;
};

static const struct row rows[] = {
    {"f32_3x3_winograd", {256, 256, 3, 14, 1, 1, 1}, {"winograd", F32, "winograd", 0, 0, 0, 0, false},
        OUR_F32, PEAK_FMA},
    {"f32_3x3_64", {64, 64, 3, 56, 1, 1, 1}, OUR_F32, {"onednn", F32, "conv_f32_onednn", 0, 0, 0, 0, false},
        PEAK_FMA},
    {"f32_3x3_256", {256, 256, 3, 14, 1, 1, 1}, OUR_F32,
        {"onednn", F32, "conv_f32_onednn", 0, 0, 0, 0, false}, PEAK_FMA},
    {"f32_1x1_256_64", {256, 64, 1, 56, 1, 1, 1}, OUR_F32,
        {"onednn", F32, "conv_f32_onednn", 0, 0, 0, 0, false}, PEAK_FMA},
    {"f32_1x1_512", {512, 512, 1, 14, 1, 1, 1}, OUR_F32,
        {"onednn", F32, "conv_f32_onednn", 0, 0, 0, 0, false}, PEAK_FMA},
    {"f32_1x1_narrow", {24, 144, 1, 56, 1, 1, 1}, OUR_F32,
        {"onednn", F32, "conv_f32_onednn", 0, 0, 0, 0, false}, PEAK_FMA},
    {"f32_depthwise_3x3", {144, 144, 3, 56, 1, 144, 1}, OUR_F32,
        {"onednn", F32, "conv_f32_onednn", 0, 0, 0, 0, false}, PEAK_FMA},
    {"f32_depthwise_5x5", {240, 240, 5, 14, 1, 240, 1}, OUR_F32,
        {"onednn", F32, "conv_f32_onednn", 0, 0, 0, 0, false}, PEAK_FMA},
    {"f32_first_7x7", {3, 64, 7, 224, 2, 1, 1}, OUR_F32,
        {"onednn", F32, "conv_f32_onednn", 0, 0, 0, 0, false}, PEAK_FMA},
    {"f32_fc_4096", {4096, 4096, 0, 1, 1, 1, 1}, OUR_F32,
        {"onednn", F32, "gemm_f32_onednn", 0, 0, 0, 0, false}, PEAK_BANDWIDTH},
    {"s8_3x3_64", {64, 64, 3, 56, 1, 1, 1}, OUR_S8, ONEDNN_8, PEAK_VNNI},
    {"s8_3x3_128", {128, 128, 3, 28, 1, 1, 1}, OUR_S8, ONEDNN_8, PEAK_VNNI},
    {"s8_3x3_256", {256, 256, 3, 14, 1, 1, 1}, OUR_S8, ONEDNN_8, PEAK_VNNI},
    {"s8_3x3_512", {512, 512, 3, 7, 1, 1, 1}, OUR_S8, ONEDNN_8, PEAK_VNNI},
    {"s8_1x1_256_64", {256, 64, 1, 56, 1, 1, 1}, OUR_S8, ONEDNN_8, PEAK_VNNI},
    {"s8_1x1_1024_256", {1024, 256, 1, 14, 1, 1, 1}, OUR_S8, ONEDNN_8, PEAK_VNNI},
    {"s8_first_7x7", {3, 64, 7, 224, 2, 1, 1}, OUR_S8, ONEDNN_8, PEAK_VNNI},
    {"s8_first_3x3", {3, 32, 3, 224, 2, 1, 1}, OUR_S8, ONEDNN_8, PEAK_VNNI},
    {"s8_first_gray", {1, 32, 5, 28, 1, 1, 1}, OUR_S8, ONEDNN_8, PEAK_VNNI},
    {"s8_3x3_16", {16, 16, 3, 32, 1, 1, 1}, OUR_S8, ONEDNN_8, PEAK_VNNI},
    {"s8_1x1_expand", {16, 96, 1, 112, 1, 1, 1}, OUR_S8, ONEDNN_8, PEAK_VNNI},
    {"s8_1x1_64_256", {64, 256, 1, 56, 1, 1, 1}, OUR_S8, ONEDNN_8, PEAK_VNNI},
    {"s8_1x1_960_160", {960, 160, 1, 7, 1, 1, 1}, OUR_S8, ONEDNN_8, PEAK_VNNI},
    {"s8_depthwise_3x3", {144, 144, 3, 56, 1, 144, 1}, OUR_S8, ONEDNN_8, PEAK_VNNI},
    {"s8_fc_4096", {4096, 4096, 0, 1, 1, 1, 1}, OUR_S8, ONEDNN_8, PEAK_BANDWIDTH},
    {"sparse_f32_1x1_90", {512, 512, 1, 14, 1, 1, 1}, {"90% zeros", F32, "sparse", 0.9, 0, 0, 0, false},
        OUR_F32, PEAK_FMA},
    {"sparse_f32_1x1_95", {512, 512, 1, 14, 1, 1, 1}, {"95% zeros", F32, "sparse", 0.95, 0, 0, 0, false},
        OUR_F32, PEAK_FMA},
    {"sparse_f32_3x3_90", {256, 256, 3, 14, 1, 1, 1}, {"90% zeros", F32, "sparse", 0.9, 0, 0, 0, false},
        OUR_F32, PEAK_FMA},
    {"sparse_s8_1x1_90", {512, 512, 1, 14, 1, 1, 1}, {"90% zeros in 1x4", S8, "sparse", 0.9, 4, 0, 0, false},
        OUR_S8, PEAK_VNNI},
    {"sparse_s8_3x3_90", {256, 256, 3, 14, 1, 1, 1}, {"90% zeros in 1x4", S8, "sparse", 0.9, 4, 0, 0, false},
        OUR_S8, PEAK_VNNI},
    {"xnor_f32", {256, 256, 3, 14, 1, 1, 1}, {"signs", WEIGHTS_SIGN, "xnor", 0, 0, 2, 0, false}, OUR_F32,
        PEAK_POPCOUNT},
    {"xnor_s8", {256, 256, 3, 14, 1, 1, 1}, {"signs", WEIGHTS_SIGN, "xnor", 0, 0, 2, 0, false}, OUR_S8,
        PEAK_POPCOUNT},
    {"codebook_3x3", {256, 256, 3, 14, 1, 1, 1}, {"4 bits", S8, NULL, 0, 0, 16, 0, false}, OUR_S8, PEAK_VNNI},
    {"codebook_3x3_memory", {256, 256, 3, 14, 1, 1, 1}, {"4 bits, memory", S8, NULL, 0, 0, 16, 0, true},
        OUR_S8, PEAK_VNNI},
    {"codebook_1x1_memory", {1024, 256, 1, 14, 1, 1, 1}, {"4 bits, memory", S8, NULL, 0, 0, 16, 0, true},
        OUR_S8, PEAK_VNNI},
    {"codebook_3x3_512_memory", {512, 512, 3, 7, 1, 1, 1}, {"4 bits, memory", S8, NULL, 0, 0, 16, 0, true},
        OUR_S8, PEAK_VNNI},
    {"codebook_fc", {25088, 4096, 0, 1, 1, 1, 1}, {"4 bits", S8, NULL, 0, 0, 16, 0, false}, OUR_S8,
        PEAK_BANDWIDTH},
    {"binary_3x3", {256, 256, 3, 14, 1, 1, 1}, {"1 bit, memory", S8, NULL, 0, 0, 2, 0, true}, OUR_S8,
        PEAK_VNNI},
    {"ternary_3x3", {256, 256, 3, 14, 1, 1, 1}, {"2 bits, memory", S8, NULL, 0, 0, 3, 0, true}, OUR_S8,
        PEAK_VNNI},
    {"binary_fc", {25088, 4096, 0, 1, 1, 1, 1}, {"1 bit", S8, NULL, 0, 0, 2, 0, false}, OUR_S8,
        PEAK_BANDWIDTH},
    {"low_rank_3x3", {512, 512, 3, 14, 1, 1, 1}, {"rank 115", WEIGHTS_LOW_RANK, NULL, 0, 0, 0, 115, false},
        OUR_F32, PEAK_FMA},
    {"low_rank_1x1", {512, 512, 1, 14, 1, 1, 1}, {"rank 64", WEIGHTS_LOW_RANK, NULL, 0, 0, 0, 64, false},
        OUR_F32, PEAK_FMA},
};
#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double median(double *x, int n) {
    qsort(x, (size_t)n, sizeof(*x), compare);
    return x[n / 2];
}

/* Median of as many runs as fit in a burst; the first brings code and weights into the caches. */
static double burst(struct entry *e, double *scratch) {
    double begin, us;
    int n = 0;

    entry_run(e);
    begin = clock_now_us();
    do {
        scratch[n++] = entry_run(e);
        us = clock_now_us() - begin;
    } while (n < MAX_RUNS && us < BURST_US);
    usleep(us < MAX_REST_S * 1e6 ? (useconds_t)us : REST_US);
    return median(scratch, n);
}

static void report(const struct row *r, const struct entry *a, const struct entry *b, double us[2],
    double ratio, const double peak[static N_PEAKS]) {
    bool is_read = r->peak == PEAK_BANDWIDTH;
    double most = is_read && peak[r->peak] > 0 ? peak_bandwidth(a->bytes) : peak[r->peak];
    double reach = (is_read ? (double)a->bytes : 2 * a->macs) / us[0];

    printf("%-22s %-18s %9.1f us %-30s %-12s %9.1f us %-30s packed %.2f and %.2f MiB", r->name, r->a.label,
        us[0], a->kernel, r->b.label, us[1], b->kernel, (double)a->bytes / 1048576,
        (double)b->bytes / 1048576);
    if (most > 0)
        printf("; %.0f%% of the peak (%s)", 100 * reach / most, peak_names[r->peak]);
    printf("\nkernel_%s ratio=%.3f\n", r->name, ratio);
    fflush(stdout);
}

static void run_contest(
    const struct row *r, struct entry *a, struct entry *b, const double peak[static N_PEAKS]) {
    double first[ROUNDS], second[ROUNDS], ratio[ROUNDS], scratch[MAX_RUNS], us[2], mid;

    for (int i = 0; i < ROUNDS; i++) {
        if (i % 2) {
            second[i] = burst(b, scratch);
            first[i] = burst(a, scratch);
        } else {
            first[i] = burst(a, scratch);
            second[i] = burst(b, scratch);
        }
        ratio[i] = second[i] / first[i];
    }
    mid = median(ratio, ROUNDS);
    us[0] = median(first, ROUNDS);
    us[1] = median(second, ROUNDS);
    report(r, a, b, us, mid, peak);
}

/* 0, 1: a side is not there, or a negative errno. */
static int run_row(const struct row *r, unsigned threads, const double peak[static N_PEAKS]) {
    struct entry a = {0}, b = {0};
    struct error err = {0};
    int e = entry_open(&a, &r->layer, &r->a, threads, &err);

    if (e == 0)
        e = entry_open(&b, &r->layer, &r->b, threads, &err);
    if (e == 0)
        run_contest(r, &a, &b, peak);
    else
        printf("%-22s %s%s\n", r->name, e == -ENOENT ? "not there: " : "", err.text);
    entry_close(&a);
    entry_close(&b);
    return e == -ENOENT ? 1 : e;
}

int main(int argc, char **argv) {
    bool is_all = argc > 1 && !strcmp(argv[1], "all"), is_found = is_all;
    unsigned threads = argc > 2 ? (unsigned)atoi(argv[2]) : 1;
    double peak[N_PEAKS];
    struct error err = {0};
    struct cpu cpu;
    int status = 0;

    if (argc < 2 || argc > 3 || threads < 1) {
        fprintf(stderr, "usage: kernel_bench NAME|all [THREADS]\n");
        return 2;
    }
    if (cpu_detect(getenv("BONSAI_HIDE_CPU"), &cpu, &err) < 0) {
        fprintf(stderr, "kernel_bench: %s\n", err.text);
        return 1;
    }
    peak_measure(&cpu, peak);
    printf("peaks of one core: FMA %.0f, VNNI %.0f, popcount %.0f GOP/s, bandwidth %.1f GB/s\n",
        peak[PEAK_FMA] / 1e3, peak[PEAK_VNNI] / 1e3, peak[PEAK_POPCOUNT] / 1e3, peak[PEAK_BANDWIDTH] / 1e3);
    for (size_t i = 0; i < N_ROWS; i++) {
        int r;

        if (!is_all && strcmp(argv[1], rows[i].name) != 0)
            continue;
        is_found = true;
        r = run_row(&rows[i], threads, peak);
        if (r < 0 || (r > 0 && !is_all))
            status = 1;
    }
    if (!is_found)
        fprintf(stderr, "kernel_bench: there is no row '%s'\n", argv[1]);
    return is_found ? status : 2;
}
