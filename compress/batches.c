/* Minibatches have a position: epoch times their number in an epoch, and on. A ring of slots holds those
 * around the reader:
 *
 *     position   head        head + 1      head + 2
 *                being read  being filled  being filled    by threads, a few samples at a time
 *
 * The reader takes slot head when all its samples are there (and helps until they are), then head moves on.
 */
#include "compress/batches.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define VAL_SHARE 10 /* one in so many */
#define N_SLOTS   3
#define CHUNK     8 /* samples a thread takes at once */

struct slot {
    uint64_t *item;      /* [batch] in the feed */
    uint8_t *pixels;     /* [batch][pixels of one] */
    int64_t position;    /* -1: free */
    int64_t taken, done; /* samples */
    int64_t failed;      /* the first sample that could not be read; batch: none */
    struct error err;
};

struct batches {
    struct feed train, val;
    int64_t batch, n_classes, per_epoch;
    uint64_t seed;

    pthread_mutex_t
        lock; /* protects what follows, but not the samples of slots, which who took them writes */
    pthread_cond_t work, filled;
    struct slot slot[N_SLOTS];
    int64_t head;    /* position of the reader; -1: nothing was read yet */
    uint64_t *order; /* [train.n] of order_epoch */
    int64_t order_epoch;
    bool is_ending;

    unsigned n_threads;
    pthread_t *threads;
};

/* ---- what is learned from, in which order ---- */

static bool is_val(const struct feed *f, uint64_t i) {
    struct pack_item item;
    uint64_t head;

    pack_item(f->pack, f->split, f->item[i], &item);
    memcpy(&head, item.sha256, sizeof(head));
    return head % VAL_SHARE == 0;
}

/* Keeps the items of one part. */
static void keep(struct feed *f, bool wants_val) {
    uint64_t n = 0;

    for (uint64_t i = 0; i < f->n; i++)
        if (is_val(f, i) == wants_val)
            f->item[n++] = f->item[i];
    f->n = n;
}

static int open_part(const struct feed_source *s, const struct value *input, bool wants_val, struct feed *ret,
    struct error *err) {
    int r = feed_open(s->pack, "train", input, s->preprocess, 0, ret, err);

    if (r == 0)
        keep(ret, wants_val);
    return r;
}

/* splitmix64 */
static uint64_t hash(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

struct draw {
    uint64_t key, item;
};

static int by_key(const void *a, const void *b) {
    const struct draw *x = a, *y = b;

    return x->key != y->key ? (x->key > y->key ? 1 : -1) : (x->item > y->item) - (x->item < y->item);
}

/* The epoch's order: by a number drawn from seed, epoch and item. */
static int shuffle(struct batches *b, int64_t epoch, struct error *err) {
    _cleanup_(freep) struct draw *all = NULL;

    if (b->order_epoch == epoch)
        return 0;
    all = calloc(b->train.n + 1, sizeof(*all));
    if (!all)
        return error_oom(err);
    for (uint64_t i = 0; i < b->train.n; i++)
        all[i] = (struct draw){hash(hash(b->seed * 1000003u + (uint64_t)epoch) ^ i), i};
    qsort(all, b->train.n, sizeof(*all), by_key);
    for (uint64_t i = 0; i < b->train.n; i++)
        b->order[i] = all[i].item;
    b->order_epoch = epoch;
    return 0;
}

/* ---- slots; all with the lock held, but for read_samples() ---- */

/* A slot for the next position that has none; NULL: all that may be read ahead is. */
static struct slot *begin_slot(struct batches *b) {
    for (int64_t p = b->head; p < b->head + N_SLOTS; p++) {
        struct slot *s = &b->slot[p % N_SLOTS];

        if (s->position == p)
            continue;
        *s = (struct slot){.item = s->item, .pixels = s->pixels, .position = p, .failed = b->batch};
        if (shuffle(b, p / b->per_epoch, &s->err) < 0)
            s->failed = 0;
        else
            memcpy(s->item, b->order + p % b->per_epoch * b->batch, (size_t)b->batch * sizeof(*s->item));
        return s;
    }
    return NULL;
}

/* The earliest slot with samples that nobody took; NULL: nothing to do. */
static struct slot *slot_with_work(struct batches *b) {
    for (int64_t p = b->head; b->head >= 0 && p < b->head + N_SLOTS; p++) {
        struct slot *s = &b->slot[p % N_SLOTS];

        if (s->position == p && s->taken < b->batch)
            return s;
    }
    return b->head >= 0 ? begin_slot(b) : NULL;
}

/* Samples first .. end-1; returns the first that failed, with its error, or `batch`. */
static int64_t read_samples(
    const struct batches *b, const struct slot *s, int64_t first, int64_t end, struct error *err) {
    for (int64_t i = first; i < end; i++) {
        int r = feed_pixels(&b->train, s->item[i], s->pixels + (size_t)i * b->train.item_floats, err);

        if (r < 0) {
            error_prefix(
                err, r, "picture %llu of the split 'train'", (unsigned long long)b->train.item[s->item[i]]);
            return i;
        }
    }
    return b->batch;
}

/* Reads some samples of the slot, without the lock meanwhile. */
static void fill(struct batches *b, struct slot *s) {
    int64_t first = s->taken, n = b->batch - first < CHUNK ? b->batch - first : CHUNK;
    int64_t end = first + n < s->failed ? first + n : s->failed, failed;
    struct error err = {0};

    s->taken += n;
    pthread_mutex_unlock(&b->lock);
    failed = read_samples(b, s, first, end, &err);
    pthread_mutex_lock(&b->lock);
    s->done += n;
    if (failed < s->failed) {
        s->failed = failed;
        s->err = err;
    }
    if (s->done == s->taken) /* nobody is at it: it is full, or may be given up */
        pthread_cond_broadcast(&b->filled);
}

static void *read_ahead(void *arg) {
    struct batches *b = arg;

    pthread_mutex_lock(&b->lock);
    while (!b->is_ending) {
        struct slot *s = slot_with_work(b);

        if (s)
            fill(b, s);
        else
            pthread_cond_wait(&b->work, &b->lock);
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

/* Somewhere else: what is being read is waited for, then forgotten. */
static void move_to(struct batches *b, int64_t position) {
    b->head = -1;
    for (int i = 0; i < N_SLOTS; i++) {
        while (b->slot[i].done < b->slot[i].taken)
            pthread_cond_wait(&b->filled, &b->lock);
        b->slot[i].position = -1;
    }
    b->head = position;
}

/* ---- for the reader ---- */

static struct slot *wait_for(struct batches *b, int64_t position) {
    struct slot *s = &b->slot[position % N_SLOTS];

    if (position != b->head)
        move_to(b, position);
    pthread_cond_broadcast(&b->work);
    while (s->position != position || s->done < b->batch) {
        struct slot *open = slot_with_work(b);

        if (open == s)
            fill(b, s);
        else
            pthread_cond_wait(&b->filled, &b->lock);
    }
    return s;
}

static int hand_over(struct batches *b, const struct slot *s, float *(*place)(void *ctx, int64_t i),
    void *ctx, float *targets, struct error *err) {
    if (s->failed < b->batch)
        return error_copy(err, &s->err);
    if (targets)
        memset(targets, 0, (size_t)(b->batch * b->n_classes) * sizeof(*targets));
    for (int64_t i = 0; i < b->batch; i++) {
        int64_t label = feed_label(&b->train, s->item[i]);

        if (targets && label < 0)
            return error_code(err, -EBADMSG, "bad_dataset", "a picture of the split 'train' has no label");
        if (targets)
            targets[i * b->n_classes + label] = 1; /* batches_map_classes() checked that it is a class */
        feed_normalize(&b->train, s->pixels + (size_t)i * b->train.item_floats, place(ctx, i));
    }
    return 0;
}

int batches_read(struct batches *b, int epoch, int64_t k, float *(*place)(void *ctx, int64_t i), void *ctx,
    float *targets, struct error *err) {
    int64_t position = epoch * b->per_epoch + k;
    struct slot *s;
    int r;

    pthread_mutex_lock(&b->lock);
    s = wait_for(b, position);
    pthread_mutex_unlock(&b->lock);
    r = hand_over(b, s, place, ctx, targets, err);
    pthread_mutex_lock(&b->lock);
    b->head = position + 1;
    pthread_cond_broadcast(&b->work);
    pthread_mutex_unlock(&b->lock);
    return r;
}

int64_t batches_per_epoch(const struct batches *b) {
    return b->per_epoch;
}

const struct shape *batches_shape(const struct batches *b) {
    return &b->train.shape;
}

int batches_map_classes(struct batches *b, const json_t *labels, int64_t n_classes, struct error *err) {
    b->n_classes = n_classes;
    return feed_map_classes(&b->train, labels, n_classes, err);
}

struct feed *batches_val(struct batches *b) {
    return &b->val;
}

/* ---- life ---- */

struct batches *batches_free(struct batches *b) {
    if (!b)
        return NULL;
    pthread_mutex_lock(&b->lock);
    b->is_ending = true;
    pthread_cond_broadcast(&b->work);
    pthread_mutex_unlock(&b->lock);
    for (unsigned i = 0; i < b->n_threads; i++)
        pthread_join(b->threads[i], NULL);
    for (int i = 0; i < N_SLOTS; i++) {
        free(b->slot[i].item);
        free(b->slot[i].pixels);
    }
    feed_done(&b->train);
    feed_done(&b->val);
    free(b->order);
    free(b->threads);
    pthread_cond_destroy(&b->filled);
    pthread_cond_destroy(&b->work);
    pthread_mutex_destroy(&b->lock);
    free(b);
    return NULL;
}

static int make_slots(struct batches *b, struct error *err) {
    size_t size;

    if (__builtin_mul_overflow((size_t)b->batch, b->train.item_floats, &size))
        return error_oom(err);
    b->order = calloc(b->train.n + 1, sizeof(*b->order));
    for (int i = 0; i < N_SLOTS; i++) {
        b->slot[i] = (struct slot){.position = -1,
            .item = calloc((size_t)b->batch, sizeof(*b->slot[i].item)),
            .pixels = malloc(size)};
        if (!b->slot[i].item || !b->slot[i].pixels)
            return error_oom(err);
    }
    return b->order ? 0 : error_oom(err);
}

static int start_threads(struct batches *b, unsigned n, struct error *err) {
    b->threads = calloc(n + 1, sizeof(*b->threads));
    if (!b->threads)
        return error_oom(err);
    for (; b->n_threads < n; b->n_threads++) {
        int r = pthread_create(&b->threads[b->n_threads], NULL, read_ahead, b);

        if (r)
            return error_set(err, -r, "cannot start a thread that reads ahead");
    }
    return 0;
}

int batches_open(const struct feed_source *s, const struct value *input, const struct batches_options *o,
    struct batches **ret, struct error *err) {
    _cleanup_(batches_freep) struct batches *b = calloc(1, sizeof(*b));
    int r;

    if (!b)
        return error_oom(err);
    b->batch = o->batch;
    b->seed = o->seed;
    b->head = b->order_epoch = -1;
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->work, NULL);
    pthread_cond_init(&b->filled, NULL);
    r = open_part(s, input, false, &b->train, err);
    if (r == 0)
        r = open_part(s, input, true, &b->val, err);
    if (r < 0)
        return r;
    b->per_epoch = (int64_t)(b->train.n / (uint64_t)o->batch);
    if (b->per_epoch < 1)
        return error_code(err, -EBADMSG, "bad_dataset",
            "the split 'train' has %llu pictures to learn from (a tenth is held out), fewer than a batch of "
            "%lld",
            (unsigned long long)b->train.n, (long long)o->batch);
    r = make_slots(b, err);
    if (r == 0)
        r = start_threads(b, o->threads, err);
    if (r < 0)
        return r;
    *ret = TAKE(b);
    return 0;
}
