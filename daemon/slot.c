/* Batches: the works' rows one after the other, split into powers of two, because a plan is for one number of
 * rows: rows 7 = 4 + 2 + 1
 */
#include "daemon/slot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/pool.h"

#define MAX_WORKS 256

struct slot {
    struct arena arena;
    struct pool *pool;
    unsigned threads;
    void *buffer[2 * SCHED_MAX_IO]; /* gathered inputs, outputs: grown, kept */
    size_t size[2 * SCHED_MAX_IO];
};

int slot_new(unsigned threads, struct slot **ret, struct error *err) {
    struct slot *s = calloc(1, sizeof(*s));
    int r = 0;

    if (!s)
        return error_oom(err);
    s->threads = threads ? threads : 1;
    if (s->threads > 1)
        r = pool_new(s->threads, &s->pool, err);
    if (r < 0) {
        free(s);
        return r;
    }
    *ret = s;
    return 0;
}

void slot_trim(struct slot *s) {
    for (size_t i = 0; i < 2 * SCHED_MAX_IO; i++) {
        free(s->buffer[i]);
        s->buffer[i] = NULL;
        s->size[i] = 0;
    }
    arena_done(&s->arena);
}

struct slot *slot_free(struct slot *s) {
    if (!s)
        return NULL;
    slot_trim(s);
    pool_free(s->pool);
    free(s);
    return NULL;
}

static void *slot_buffer(struct slot *s, size_t i, size_t size) {
    if (s->size[i] < size) {
        free(s->buffer[i]);
        s->buffer[i] = size > SIZE_MAX - 64 ? NULL : aligned_alloc(64, (size + 64) & ~(size_t)63);
        s->size[i] = s->buffer[i] ? size : 0;
    }
    return s->buffer[i];
}

/* Bytes of one row (first dimension taken off). */
static size_t row_bytes(const struct tensor *t) {
    struct shape row = t->shape;
    size_t size = 0;

    if (row.rank > 0)
        row.dim[0] = 1;
    (void)shape_bytes(&row, t->dtype, &size);
    return size;
}

/* Runs one plan. out[] gets shapes of the plan; data: where `at` rows in, or the whole buffer when `at` is 0.
 */
static int run_plan(struct slot *s, struct net *net, const struct tensor *in, size_t n_in, struct plan **ret,
    struct error *err) {
    struct shape shapes[SCHED_MAX_IO];
    int r;

    for (size_t i = 0; i < n_in; i++)
        shapes[i] = in[i].shape;
    r = net_plan(net, shapes, s->threads, ret, err);
    if (r == 0)
        r = arena_reserve(&s->arena, plan_arena_size(*ret), err);
    if (r == 0 && plan_n_outputs(*ret) > SCHED_MAX_IO)
        r = error_set(err, -EFBIG, "the model has more than %d outputs", SCHED_MAX_IO);
    return r;
}

int slot_run(struct slot *s, struct net *net, const struct tensor *in, struct tensor *out, size_t max_out,
    size_t *ret_n_out, double *ret_us, struct error *err) {
    struct plan *plan = NULL;
    uint64_t start;
    size_t n;
    int r = run_plan(s, net, in, net_graph(net)->n_inputs, &plan, err);

    if (r < 0) {
        plan_unref(plan);
        return r;
    }
    n = plan_n_outputs(plan);
    for (size_t i = 0; i < n && i < max_out; i++) {
        size_t size = 0;

        out[i] = *plan_output(plan, i);
        (void)shape_bytes(&out[i].shape, out[i].dtype, &size);
        out[i].data = slot_buffer(s, SCHED_MAX_IO + i, size);
        if (!out[i].data)
            r = error_oom(err);
    }
    if (n > max_out)
        r = error_set(err, -EFBIG, "the model has more than %zu outputs", max_out);
    start = clock_now_ns();
    if (r == 0)
        plan_run(plan, &s->arena, in, out, s->pool, NULL);
    if (r == 0)
        r = plan_check_outputs(plan, out, err);
    *ret_us = (double)(clock_now_ns() - start) / 1e3;
    *ret_n_out = n;
    plan_unref(plan);
    return r;
}

/* Rows first .. first+rows of the gathered inputs through the plan for that many rows, into the gathered
 * outputs. */
static int run_part(struct slot *s, struct net *net, const struct tensor *all, struct tensor *out,
    size_t *ret_n_out, int64_t total, int64_t first, int64_t rows, struct error *err) {
    size_t n_in = net_graph(net)->n_inputs;
    struct tensor in[SCHED_MAX_IO], part[SCHED_MAX_IO];
    struct plan *plan = NULL;
    int r;

    for (size_t i = 0; i < n_in; i++) {
        in[i] = all[i];
        in[i].data = (char *)all[i].data + (size_t)first * row_bytes(&all[i]);
        in[i].shape.dim[0] = rows;
    }
    r = run_plan(s, net, in, n_in, &plan, err);
    *ret_n_out = r < 0 ? 0 : plan_n_outputs(plan);
    for (size_t i = 0; r == 0 && i < *ret_n_out; i++) {
        part[i] = *plan_output(plan, i);
        if (part[i].shape.rank < 1 || part[i].shape.dim[0] != rows) {
            r = error_set(err, -EINVAL, "output %zu has no row for each of the batch", i);
            break;
        }
        out[i] = part[i];
        out[i].shape.dim[0] = total;
        out[i].data = slot_buffer(s, SCHED_MAX_IO + i, (size_t)total * row_bytes(&part[i]));
        if (!out[i].data)
            r = error_oom(err);
        part[i].data = (char *)out[i].data + (size_t)first * row_bytes(&part[i]);
    }
    if (r == 0)
        plan_run(plan, &s->arena, in, part, s->pool, NULL);
    plan_unref(plan);
    return r;
}

static int run_rows(struct slot *s, struct net *net, const struct tensor *all, struct tensor *out,
    size_t *ret_n_out, int64_t total, struct error *err) {
    int r = 0;

    for (int64_t first = 0; r == 0 && first < total;) {
        int64_t rows = 1;

        while (rows * 2 <= total - first)
            rows *= 2;
        r = run_part(s, net, all, out, ret_n_out, total, first, rows, err);
        first += rows;
    }
    return r;
}

/* Do two works' inputs differ in nothing but the number of rows? */
static bool same_rows(const struct sched_work *a, const struct sched_work *b, size_t n_in) {
    for (size_t i = 0; i < n_in; i++) {
        struct shape x = a->in[i].shape, y = b->in[i].shape;

        if (x.rank < 1 || y.rank < 1 || a->in[i].dtype != b->in[i].dtype)
            return false;
        x.dim[0] = y.dim[0] = 0;
        if (!shape_equal(&x, &y) || a->in[i].shape.dim[0] != a->in[0].shape.dim[0] ||
            b->in[i].shape.dim[0] != b->in[0].shape.dim[0])
            return false;
    }
    return true;
}

static void finish(struct sched_work *w, const struct tensor *out, size_t n_out, const struct error *err) {
    struct resident *r = w->resident;

    w->finish(w, out, n_out, err);
    resident_unref(r);
}

/* Prepares; a work that is late, gone or malformed is finished at once. */
static bool prepare(struct sched_work *w, uint64_t now) {
    struct error err = {0};
    uint64_t start = clock_now_ns();

    w->timing.queue_ns = now - w->queued_ns;
    if (atomic_load(&w->is_cancelled))
        error_code(&err, -ECANCELED, "cancelled", "the client has gone");
    else if (w->deadline_ns && now > w->deadline_ns)
        error_code(&err, -ETIMEDOUT, "deadline", "the deadline passed in the queue");
    else if (w->prepare(w, w->in, &err) < 0 && !err.err)
        error_set(&err, -EINVAL, "the request cannot be read");
    w->timing.decode_ns = clock_now_ns() - start;
    if (!err.err)
        return true;
    finish(w, NULL, 0, &err);
    return false;
}

static int gather(struct slot *s, struct sched_work *const *w, size_t n, size_t n_in, struct tensor *all,
    int64_t *ret_total, struct error *err) {
    int64_t total = 0;

    for (size_t k = 0; k < n; k++)
        total += w[k]->in[0].shape.dim[0];
    *ret_total = total;
    for (size_t i = 0; i < n_in; i++) {
        size_t row = row_bytes(&w[0]->in[i]), at = 0;
        char *to = n > 1 ? slot_buffer(s, i, (size_t)total * row) : w[0]->in[i].data;

        if (!to)
            return error_oom(err);
        all[i] = w[0]->in[i];
        all[i].shape.dim[0] = total;
        all[i].data = to;
        for (size_t k = 0; n > 1 && k < n; k++) {
            size_t size = (size_t)w[k]->in[i].shape.dim[0] * row;

            memcpy(to + at, w[k]->in[i].data, size);
            at += size;
        }
    }
    return 0;
}

/* n works with rows that fit together, as one batch. */
static void run_group(struct slot *s, struct sched_work *const *w, size_t n) {
    struct net *net = w[0]->resident->net;
    struct tensor all[SCHED_MAX_IO], out[SCHED_MAX_IO];
    size_t n_in = net_graph(net)->n_inputs, n_out = 0;
    bool has_rows = w[0]->max_batch > 0 && same_rows(w[0], w[0], n_in);
    int64_t total = 1, at = 0;
    struct error err = {0};
    uint64_t start = clock_now_ns(), spent;
    double us;
    int r;

    if (has_rows) {
        r = gather(s, w, n, n_in, all, &total, &err);
        if (r == 0)
            r = run_rows(s, net, all, out, &n_out, total, &err);
    } else {
        r = slot_run(s, net, w[0]->in, out, SCHED_MAX_IO, &n_out, &us, &err);
    }
    spent = clock_now_ns() - start;
    for (size_t k = 0; k < n; k++) {
        struct tensor own[SCHED_MAX_IO];
        int64_t rows = has_rows ? w[k]->in[0].shape.dim[0] : 1;

        w[k]->timing.infer_ns = spent;
        w[k]->timing.batch = (unsigned)total;
        w[k]->timing.is_first = k == 0;
        for (size_t i = 0; r == 0 && i < n_out; i++) {
            own[i] = out[i];
            if (has_rows) {
                own[i].shape.dim[0] = rows;
                own[i].data = (char *)out[i].data + (size_t)at * row_bytes(&out[i]);
            }
        }
        at += rows;
        finish(w[k], r == 0 ? own : NULL, r == 0 ? n_out : 0, r == 0 ? NULL : &err);
    }
}

static void run_prepared(struct slot *s, struct sched_work **w, size_t n) {
    for (size_t first = 0; first < n;) {
        size_t n_in = net_graph(w[first]->resident->net)->n_inputs, count = 1;
        int64_t rows = w[first]->in[0].shape.rank > 0 ? w[first]->in[0].shape.dim[0] : 1;

        while (w[first]->max_batch > 1 && first + count < n && same_rows(w[first], w[first + count], n_in) &&
               rows + w[first + count]->in[0].shape.dim[0] <= (int64_t)w[first]->max_batch)
            rows += w[first + count++]->in[0].shape.dim[0];
        run_group(s, w + first, count);
        first += count;
    }
}

void slot_work(struct slot *s, struct sched_work *list) {
    struct sched_work *works[MAX_WORKS], *next;
    uint64_t now = clock_now_ns();
    size_t n = 0;

    for (struct sched_work *w = list; w; w = next) {
        next = w->next;
        w->next = NULL;
        if (w->task) {
            struct resident *r = w->resident;

            w->timing.queue_ns = now - w->queued_ns;
            w->task(w, s);
            resident_unref(r);
            continue;
        }
        if (prepare(w, now))
            works[n++] = w;
        if (n == MAX_WORKS) {
            run_prepared(s, works, n);
            n = 0;
        }
    }
    run_prepared(s, works, n);
}
