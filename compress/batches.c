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
#include "compress/chance.h"

#define VAL_SHARE 10 /* one in so many */
#define N_SLOTS   3
#define CHUNK     8 /* samples a thread takes at once */

struct sample {
    uint64_t item, other; /* in the feed; other: what it is mixed with */
    double share;         /* of item in the mixture; 1: all of it */
};

struct slot {
    struct sample *sample; /* [batch] */
    uint8_t *pixels;       /* [batch][n_parts][pixels of one] */
    int64_t position;      /* -1: free */
    int64_t taken, done;   /* samples */
    int64_t failed;        /* the first sample that could not be read; batch: none */
    struct error err;
};

struct batches {
    struct feed train, val;
    struct picture_cache *cache; /* theirs; NULL: none */
    int64_t batch, n_classes, per_epoch;
    uint64_t seed;
    struct augment_options augment;
    uint8_t fill[3];    /* what cutout leaves: what becomes 0 */
    int n_parts;        /* pictures in a sample: 2 with mixup */
    struct picture one; /* size of a picture; its pixels are nobody's */
    float *mixed;       /* [pixels of one], the reader's; NULL without mixup */

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
    unsigned (*allowed)(void *ctx);
    void *allowed_ctx;
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
        all[i] = (struct draw){chance_key(b->seed, (uint64_t)epoch, i), i};
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
        *s = (struct slot){.sample = s->sample, .pixels = s->pixels, .position = p, .failed = b->batch};
        if (shuffle(b, p / b->per_epoch, &s->err) < 0)
            s->failed = 0;
        for (int64_t i = 0; s->failed > 0 && i < b->batch; i++)
            s->sample[i].item = b->order[p % b->per_epoch * b->batch + i];
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

/* By the picture's own number, so that what happens to it does not depend on what else is learned from. */
static uint64_t key_of(const struct batches *b, int64_t epoch, uint64_t item) {
    return chance_key(b->seed, (uint64_t)epoch, ~b->train.item[item]);
}

/* One picture as it is in this epoch. `scratch`: pixels of one. */
static int read_picture(const struct batches *b, int64_t epoch, uint64_t item, uint8_t *scratch, uint8_t *ret,
    struct error *err) {
    bool changes = augment_changes_pixels(&b->augment);
    struct picture p = b->one;
    int r = feed_pixels(&b->train, item, changes ? scratch : ret, err);

    if (r < 0)
        return error_prefix(
            err, r, "picture %llu of the split 'train'", (unsigned long long)b->train.item[item]);
    p.pixels = scratch;
    if (changes)
        augment_picture(&b->augment, key_of(b, epoch, item), &p, b->fill, ret);
    return 0;
}

/* Samples first .. end-1; returns the first that failed, with its error, or `batch`. */
static int64_t read_samples(
    const struct batches *b, const struct slot *s, int64_t first, int64_t end, struct error *err) {
    size_t size = b->train.item_floats;
    _cleanup_(freep) uint8_t *scratch = malloc(size);
    int64_t epoch = s->position / b->per_epoch;

    if (!scratch) {
        error_oom(err);
        return first;
    }
    for (int64_t i = first; i < end; i++) {
        struct sample *one = &s->sample[i];
        uint8_t *to = s->pixels + (size_t)i * size * (size_t)b->n_parts;
        int r = read_picture(b, epoch, one->item, scratch, to, err);

        one->share = augment_mix(&b->augment, key_of(b, epoch, one->item), b->train.n, &one->other);
        if (r == 0 && one->share < 1)
            r = read_picture(b, epoch, one->other, scratch, to + size, err);
        if (r < 0)
            return i;
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

static bool may_read_ahead(const struct batches *b) {
    return !b->allowed || b->allowed(b->allowed_ctx) > 1;
}

static void *read_ahead(void *arg) {
    struct batches *b = arg;

    pthread_mutex_lock(&b->lock);
    while (!b->is_ending) {
        struct slot *s = may_read_ahead(b) ? slot_with_work(b) : NULL;

        if (s)
            fill(b, s);
        else /* each batches_read() wakes */
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

static int add_target(const struct batches *b, uint64_t item, float share, float *target, struct error *err) {
    int64_t label = feed_label(&b->train, item);

    if (label < 0)
        return error_code(err, -EBADMSG, "bad_dataset", "a picture of the split 'train' has no label");
    target[label] += share; /* batches_map_classes() checked that it is a class */
    return 0;
}

static int hand_over_targets(
    const struct batches *b, const struct slot *s, float *targets, struct error *err) {
    int r = 0;

    memset(targets, 0, (size_t)(b->batch * b->n_classes) * sizeof(*targets));
    for (int64_t i = 0; r == 0 && i < b->batch; i++) {
        const struct sample *one = &s->sample[i];
        float *target = targets + i * b->n_classes;

        r = add_target(b, one->item, (float)one->share, target, err);
        if (r == 0 && one->share < 1)
            r = add_target(b, one->other, (float)(1 - one->share), target, err);
    }
    return r;
}

static void hand_over_input(struct batches *b, const struct slot *s, int64_t i, float *ret) {
    const struct sample *one = &s->sample[i];
    size_t size = b->train.item_floats;
    const uint8_t *pixels = s->pixels + (size_t)i * size * (size_t)b->n_parts;

    feed_normalize(&b->train, pixels, ret);
    if (one->share >= 1)
        return;
    feed_normalize(&b->train, pixels + size, b->mixed);
    for (size_t k = 0; k < size; k++)
        ret[k] = (float)one->share * ret[k] + (float)(1 - one->share) * b->mixed[k];
}

int batches_read(struct batches *b, int epoch, int64_t k, float *(*place)(void *ctx, int64_t i), void *ctx,
    float *targets, struct error *err) {
    int64_t position = epoch * b->per_epoch + k;
    struct slot *s;
    int r;

    pthread_mutex_lock(&b->lock);
    s = wait_for(b, position);
    pthread_mutex_unlock(&b->lock);
    r = s->failed < b->batch ? error_copy(err, &s->err) : 0;
    if (r == 0 && targets)
        r = hand_over_targets(b, s, targets, err);
    for (int64_t i = 0; r == 0 && i < b->batch; i++)
        hand_over_input(b, s, i, place(ctx, i));
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
        free(b->slot[i].sample);
        free(b->slot[i].pixels);
    }
    feed_done(&b->train);
    feed_done(&b->val);
    picture_cache_free(b->cache);
    free(b->order);
    free(b->mixed);
    free(b->threads);
    pthread_cond_destroy(&b->filled);
    pthread_cond_destroy(&b->work);
    pthread_mutex_destroy(&b->lock);
    free(b);
    return NULL;
}

static void set_augmentation(struct batches *b, const struct augment_options *o) {
    b->augment = *o;
    b->n_parts = o->is_wanted && o->mixup > 0 ? 2 : 1;
    preprocess_zero(&b->train.preprocess, b->fill);
    preprocess_size(&b->train.preprocess, &b->one.height, &b->one.width, &b->one.channels);
}

static int make_slots(struct batches *b, struct error *err) {
    size_t size;

    if (__builtin_mul_overflow((size_t)b->batch * (size_t)b->n_parts, b->train.item_floats, &size))
        return error_oom(err);
    b->mixed = b->n_parts > 1 ? calloc(b->train.item_floats, sizeof(*b->mixed)) : NULL;
    if (b->n_parts > 1 && !b->mixed)
        return error_oom(err);
    b->order = calloc(b->train.n + 1, sizeof(*b->order));
    for (int i = 0; i < N_SLOTS; i++) {
        b->slot[i] = (struct slot){.position = -1,
            .sample = calloc((size_t)b->batch, sizeof(*b->slot[i].sample)),
            .pixels = malloc(size)};
        if (!b->slot[i].sample || !b->slot[i].pixels)
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
    b->allowed = o->allowed;
    b->allowed_ctx = o->ctx;
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
    b->cache = b->train.cache = b->val.cache = feed_cache(&b->train, &s->cache);
    set_augmentation(b, &o->augment);
    r = make_slots(b, err);
    if (r == 0)
        r = start_threads(b, o->threads, err);
    if (r < 0)
        return r;
    *ret = TAKE(b);
    return 0;
}
