/* Live statistics of variants: counts, latency histograms by stage, what clients told us. Any thread; a lock
 * a variant. Keys are "model/number". */
#ifndef DAEMON_JUDGE_H
#define DAEMON_JUDGE_H

#include <stddef.h>
#include <stdint.h>

enum judge_stage { STAGE_QUEUE, STAGE_DECODE, STAGE_INFER, STAGE_ENCODE, STAGE_TOTAL, STAGE_COUNT };
extern const char *const judge_stage_names[STAGE_COUNT];

/* Upper edges in seconds, from 50 µs; the last is +Inf. */
#define JUDGE_BUCKETS 22
extern const double judge_edges[JUDGE_BUCKETS];

struct judge_histogram {
    uint64_t count[JUDGE_BUCKETS]; /* not cumulative */
    uint64_t n, sum_ns, min_ns, max_ns;
};

#define JUDGE_CODES   8 /* status classes counted apart */
#define JUDGE_BATCHES 16

struct judge_stats {
    uint64_t n_success, n_fail, n_executed, n_items;
    uint64_t success_ns, fail_ns; /* sums of the whole time */
    uint64_t last_ms;             /* of the last inference, wall clock */
    struct judge_histogram stage[STAGE_COUNT];
    struct {
        unsigned status;
        uint64_t n;
    } code[JUDGE_CODES];
    struct {
        unsigned size; /* items */
        uint64_t n, decode_ns, infer_ns, encode_ns;
    } batch[JUDGE_BATCHES];
};

struct judge;

struct judge *judge_new(void);
struct judge *judge_free(struct judge *j);

struct judge_sample {
    uint64_t ns[STAGE_COUNT];
    unsigned status; /* HTTP */
    unsigned batch;  /* items that ran together; 0: never ran */
    unsigned items;  /* of this request */
};
void judge_add(struct judge *j, const char *key, const struct judge_sample *s);
/* One execution of `batch` items that served several requests. */
void judge_executed(struct judge *j, const char *key, unsigned batch);

/* A copy; zeros for a key never seen. */
void judge_get(struct judge *j, const char *key, struct judge_stats *ret);
void judge_forget(struct judge *j, const char *key);

/* Quantile (0 to 1) in seconds by linear interpolation within its bucket; 0 when empty. */
double judge_quantile(const struct judge_histogram *h, double q);

#endif
