/* Loading a variant: opened, planned and warmed outside the lock, then given room in the table. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/models.h"
#include "daemon/residency_priv.h"

static unsigned spare_threads(void *residency) {
    struct residency *r = residency;
    unsigned n;

    pthread_mutex_lock(&r->lock);
    n = r->spare_threads ? r->spare_threads(r->spare_ctx) : 1;
    pthread_mutex_unlock(&r->lock);
    return n;
}

/* Batch 1 at the declared shape is planned at once, so that the first request does not pay and the bytes are
 * true. */
static int warm_up(struct net *n, unsigned threads, struct error *err) {
    const struct graph *g = net_graph(n);
    struct shape shapes[64];
    struct plan *plan;
    int r;

    if (g->n_inputs > 64)
        return 0;
    for (size_t i = 0; i < g->n_inputs; i++) {
        shapes[i] = g->values[g->inputs[i]].shape;
        for (int k = 0; k < shapes[i].rank; k++) {
            if (shapes[i].dim[k] < 0 && k > 0)
                return 0; /* a free picture size: the first request says which */
            shapes[i].dim[k] = shapes[i].dim[k] < 0 ? 1 : shapes[i].dim[k];
        }
    }
    r = net_plan(n, shapes, threads, &plan, err);
    if (r == 0)
        plan_unref(plan);
    return r;
}

static struct resident *resident_new(const json_t *doc, const char *key) {
    struct resident *x = calloc(1, sizeof(*x));

    if (!x || !(x->usage = calloc(1, sizeof(*x->usage)))) {
        free(x);
        return NULL;
    }
    x->usage->refs = 1;
    x->number = (int)json_integer_value(json_object_get(doc, "number"));
    x->model = strdup(json_string_value(json_object_get(doc, "model")));
    x->variant = strdup(json_string_value(json_object_get(doc, "name")));
    x->key = strdup(key);
    return x->model && x->variant && x->key ? x : resident_unref(x);
}

static int load_net(
    struct residency *r, const json_t *doc, const char *key, struct resident **ret, struct error *err) {
    struct resident *x = resident_new(doc, key);
    struct net_options o = {.cpu = r->cpu,
        .tuner = r->options.tuner,
        .store = r->packs,
        .spare_threads = spare_threads,
        .spare_ctx = r};
    _cleanup_(closep) int fd = -1;
    const char *policy = json_string_value(json_object_get(doc, "policy"));
    int e;

    if (!x)
        return error_oom(err);
    x->threads = r->options.threads;
    o.policy = policy && !strcmp(policy, "memory") ? NET_MEMORY : NET_SPEED;
    fd = store_blob_open(r->store, json_string_value(json_object_get(doc, "digest")), err);
    e = fd < 0 ? fd : net_open_fd(fd, &o, &x->net, err);
    if (e == 0)
        e = warm_up(x->net, x->threads, err);
    if (e == 0) /* what the model itself asks for is judged with all it needs, when room is made */
        net_limit_arena(x->net, &r->max_arena);
    if (e < 0) {
        resident_unref(x);
        return e;
    }
    x->bytes = residency_net_bytes(x->net, r->options.slots);
    *ret = x;
    return 0;
}

static void set_state_locked(struct residency *r, struct entry *e, enum variant_state state,
    struct resident *x, const struct error *why) {
    e->resident = x;
    e->state = state;
    e->used_ns = clock_now_ns();
    snprintf(e->reason, sizeof(e->reason), "%.255s", why ? why->text : "");
    residency_limit_arenas_locked(r);
    pthread_cond_broadcast(&r->changed);
}

static void set_state(
    struct residency *r, struct entry *e, enum variant_state state, const struct error *why) {
    pthread_mutex_lock(&r->lock);
    set_state_locked(r, e, state, NULL, why);
    pthread_mutex_unlock(&r->lock);
}

/* The load itself, with the entry in LOADING, which is nobody else's meanwhile. Room is made and taken under
 * one lock: two loads at once cannot both count on the same bytes. */
static int load_entry(struct residency *r, struct entry *e, const json_t *doc, bool may_evict,
    uint64_t *ret_needed, uint64_t *ret_available, struct error *err) {
    struct resident *x = NULL, *gone = NULL;
    struct error why = {0};
    uint64_t available = 0;
    bool fits;
    int k = load_net(r, doc, e->key, &x, &why);

    if (k < 0) {
        set_state(r, e, VARIANT_FAILED, &why);
        return error_copy(err, &why);
    }
    pthread_mutex_lock(&r->lock);
    fits = residency_make_room_locked(r, x->net, may_evict, &available, &gone);
    set_state_locked(r, e, fits ? VARIANT_READY : VARIANT_UNLOADED, fits ? x : NULL, NULL);
    pthread_mutex_unlock(&r->lock);
    residency_let_go(r, gone);
    if (fits)
        return 0;
    *ret_needed = x->bytes;
    *ret_available = available;
    resident_unref(x);
    return error_code(err, -ENOSPC, "memory_budget",
        "loading needs %llu bytes, %llu can be had within the memory budget", (unsigned long long)*ret_needed,
        (unsigned long long)available);
}

/* Makes the entry LOADING, which is then the caller's, and takes the variant's document: in this order, so
 * that a deletion meanwhile either shows in the document or waits for the load. 1: it is ready already. */
static int begin_load(
    struct residency *r, const char *key, struct entry **ret, json_t **ret_doc, struct error *err) {
    struct entry *e = residency_wait_settled(r, key);
    int k = e ? e->state == VARIANT_READY : error_oom(err);

    if (k == 0 && !(*ret_doc = store_get(r->store, STORE_VARIANT, key)))
        k = error_set(err, -ENOENT, "there is no such variant");
    if (k == 0) {
        e->state = VARIANT_LOADING;
        *ret = e;
    }
    pthread_mutex_unlock(&r->lock);
    return k;
}

static int load(struct residency *r, const char *key, bool is_request, bool may_evict, uint64_t *ret_needed,
    uint64_t *ret_available, struct error *err) {
    uint64_t needed = 0, available = 0;
    json_t *doc = store_get(r->store, STORE_VARIANT, key);
    struct entry *e;
    int k = doc ? 0 : error_set(err, -ENOENT, "there is no such variant");

    json_decref(doc);
    if (k == 0 && is_request)
        k = residency_mark_unloaded(r, key, false, err);
    if (k == 0)
        k = begin_load(r, key, &e, &doc, err);
    if (k != 0)
        return k < 0 ? k : 0;
    k = load_entry(r, e, doc, may_evict, &needed, &available, err);
    json_decref(doc);
    if (ret_needed)
        *ret_needed = needed;
    if (ret_available)
        *ret_available = available;
    return k;
}

int residency_load(struct residency *r, const char *key, bool is_request, uint64_t *ret_needed,
    uint64_t *ret_available, struct error *err) {
    return load(r, key, is_request, true, ret_needed, ret_available, err);
}

/* Loads the variants that were not unloaded by request: originals (which are routed) or the others. */
static void restore(struct residency *r, const json_t *list, bool originals) {
    json_t *v;
    size_t i;

    json_array_foreach(list, i, v) {
        char key[NAME_MAX_SIZE + 16];

        if ((json_integer_value(json_object_get(v, "number")) == 1) != originals)
            continue;
        variant_key(json_string_value(json_object_get(v, "model")),
            (int)json_integer_value(json_object_get(v, "number")), key, sizeof(key));
        if (!json_is_true(json_object_get(v, "is_unloaded")))
            load(r, key, false, false, NULL, NULL, NULL); /* a failure stays visible in the state */
    }
}

/* What does not fit beside those before it stays out: loading one in the place of another gives nothing. */
void residency_restore(struct residency *r) {
    json_t *list = store_list(r->store, STORE_VARIANT, NULL);

    restore(r, list, true);
    restore(r, list, false);
    json_decref(list);
}
