#include "daemon/residency.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/models.h"
#include "engine/pack_store.h"

/* What the table knows of a variant, loaded or not. */
struct entry {
    struct entry *next;
    enum variant_state state;
    struct resident *resident; /* one reference while READY */
    uint64_t used_ns;          /* last acquire */
    char reason[RESIDENCY_REASON_MAX];
    char key[];
};

struct residency {
    struct store *store;
    struct residency_options options;
    struct cpu cpu;
    struct pack_store *packs; /* of all nets */
    pthread_mutex_t lock;     /* protects the entries; never held while loading */
    pthread_cond_t changed;
    struct entry *first;
    atomic_size_t max_arena; /* what a slot may take for a run at a size that was not seen before */
    void (*unloaded)(void *ctx);
    void *unloaded_ctx;
    unsigned (*spare_threads)(void *ctx);
    void *spare_ctx;
};

struct resident_usage {
    _Atomic unsigned refs;
    struct resident *next; /* of those taken out of the table, to be let go outside the lock */
};

const char *variant_state_name(enum variant_state s) {
    static const char *const names[] = {[VARIANT_UNLOADED] = "unloaded",
        [VARIANT_LOADING] = "loading",
        [VARIANT_READY] = "ready",
        [VARIANT_FAILED] = "failed"};

    return names[s];
}

struct resident *resident_ref(struct resident *r) {
    if (r)
        r->usage->refs++;
    return r;
}

struct resident *resident_unref(struct resident *r) {
    if (!r || --r->usage->refs > 0)
        return NULL;
    net_unref(r->net);
    free(r->model);
    free(r->variant);
    free(r->key);
    free(r->usage);
    free(r);
    /* what malloc keeps for later belongs to the system until then */
    malloc_trim(0);
    return NULL;
}

int residency_new(
    struct store *s, const struct residency_options *o, struct residency **ret, struct error *err) {
    struct residency *r = calloc(1, sizeof(*r));
    int e;

    if (!r)
        return error_oom(err);
    e = cpu_detect(getenv("BONSAI_CPU_HIDE"), &r->cpu, err);
    r->packs = e < 0 ? NULL : pack_store_new();
    if (!r->packs) {
        free(r);
        return e < 0 ? e : error_oom(err);
    }
    r->store = s;
    r->options = *o;
    r->max_arena = o->budget / o->slots;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    *ret = r;
    return 0;
}

struct residency *residency_free(struct residency *r) {
    if (!r)
        return NULL;
    for (struct entry *e = r->first, *next; e; e = next) {
        next = e->next;
        resident_unref(e->resident);
        free(e);
    }
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    pack_store_unref(r->packs);
    free(r);
    return NULL;
}

static struct entry *entry_find(struct residency *r, const char *key, bool make) {
    struct entry *e = r->first;

    while (e && strcmp(e->key, key))
        e = e->next;
    if (e || !make)
        return e;
    e = calloc(1, sizeof(*e) + strlen(key) + 1);
    if (!e)
        return NULL;
    strcpy(e->key, key);
    e->next = r->first;
    return r->first = e;
}

static size_t net_bytes_total(struct net *n, unsigned slots) {
    struct net_bytes b;

    net_count_bytes(n, &b);
    return b.packed + b.plans + b.mapped + slots * b.arena_max;
}

/* What several together take: a slot has one arena, as large as the one that needs most. */
struct tally {
    uint64_t own, arena;
    uint64_t packs; /* number of the count of packed weights, which nets share */
};

static struct tally tally_new(const struct residency *r) {
    return (struct tally){.packs = pack_store_new_tally(r->packs)};
}

static void tally_add(struct tally *t, struct net *n) {
    struct net_bytes b;

    net_count_bytes(n, &b);
    t->own += net_tally_packed(n, t->packs) + b.plans + b.mapped;
    if (t->arena < b.arena_max)
        t->arena = b.arena_max;
}

static uint64_t tally_bytes(const struct tally *t, unsigned slots) {
    return t->own + slots * t->arena;
}

/* What is left of the budget beside weights and plans, for each slot. */
static void limit_arenas_locked(struct residency *r) {
    struct tally t = tally_new(r);

    for (const struct entry *e = r->first; e; e = e->next)
        if (e->resident)
            tally_add(&t, e->resident->net);
    atomic_store(
        &r->max_arena, r->options.budget > t.own ? (r->options.budget - t.own) / r->options.slots : 0);
}

static uint64_t used_locked(const struct residency *r) {
    struct tally t = tally_new(r);

    for (const struct entry *e = r->first; e; e = e->next)
        if (e->resident)
            tally_add(&t, e->resident->net);
    return tally_bytes(&t, r->options.slots);
}

/* May it go to make room? Neither pinned nor routed (the original is the route until routes exist) nor in
 * use. */
static bool is_evictable(struct residency *r, const struct entry *e) {
    json_t *doc;
    bool ok;

    if (e->state != VARIANT_READY || e->resident->usage->refs > 1)
        return false;
    doc = store_get(r->store, STORE_VARIANT, e->key);
    ok = !doc || (!json_is_true(json_object_get(doc, "pinned")) &&
                     json_integer_value(json_object_get(doc, "number")) != 1);
    json_decref(doc);
    return ok;
}

/* Adds it to *gone: freeing many megabytes under the lock would hold up the requests that look for others. */
static void evict_locked(struct entry *e, struct resident **gone) {
    e->resident->usage->next = *gone;
    *gone = e->resident;
    e->resident = NULL;
    e->state = VARIANT_UNLOADED;
}

void residency_on_unload(struct residency *r, void (*unloaded)(void *ctx), void *ctx) {
    pthread_mutex_lock(&r->lock);
    r->unloaded = unloaded;
    r->unloaded_ctx = ctx;
    pthread_mutex_unlock(&r->lock);
}

void residency_on_load(struct residency *r, unsigned (*spare_threads)(void *ctx), void *ctx) {
    pthread_mutex_lock(&r->lock);
    r->spare_threads = spare_threads;
    r->spare_ctx = ctx;
    pthread_mutex_unlock(&r->lock);
}

static unsigned spare_threads(void *residency) {
    struct residency *r = residency;
    unsigned n;

    pthread_mutex_lock(&r->lock);
    n = r->spare_threads ? r->spare_threads(r->spare_ctx) : 1;
    pthread_mutex_unlock(&r->lock);
    return n;
}

static void tell_unloaded(struct residency *r) {
    pthread_mutex_lock(&r->lock);
    if (r->unloaded)
        r->unloaded(r->unloaded_ctx);
    pthread_mutex_unlock(&r->lock);
}

static void let_go(struct residency *r, struct resident *gone) {
    if (gone)
        tell_unloaded(r);
    while (gone) {
        struct resident *next = gone->usage->next;

        resident_unref(gone);
        gone = next;
    }
}

/* With `net`, which is not in the table yet. */
static uint64_t used_with_locked(const struct residency *r, struct net *net) {
    struct tally t = tally_new(r);

    tally_add(&t, net);
    for (const struct entry *e = r->first; e; e = e->next)
        if (e->resident)
            tally_add(&t, e->resident->net);
    return tally_bytes(&t, r->options.slots);
}

/* Least recently used first, only if that is enough; nothing changes otherwise. */
static bool make_room_locked(
    struct residency *r, struct net *net, bool may_evict, uint64_t *ret_available, struct resident **gone) {
    struct tally kept = tally_new(r);
    uint64_t used;

    for (struct entry *e = r->first; e; e = e->next)
        if (e->resident && !(may_evict && is_evictable(r, e)))
            tally_add(&kept, e->resident->net);
    used = tally_bytes(&kept, r->options.slots);
    *ret_available = r->options.budget > used ? r->options.budget - used : 0;
    tally_add(&kept, net);
    if (tally_bytes(&kept, r->options.slots) > r->options.budget)
        return false;
    while (used_with_locked(r, net) > r->options.budget) {
        struct entry *oldest = NULL;

        for (struct entry *e = r->first; e; e = e->next)
            if (is_evictable(r, e) && (!oldest || e->used_ns < oldest->used_ns))
                oldest = e;
        if (!oldest)
            return false;
        evict_locked(oldest, gone);
    }
    return true;
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
    x->bytes = net_bytes_total(x->net, r->options.slots);
    *ret = x;
    return 0;
}

static void set_state_locked(struct residency *r, struct entry *e, enum variant_state state,
    struct resident *x, const struct error *why) {
    e->resident = x;
    e->state = state;
    e->used_ns = clock_now_ns();
    snprintf(e->reason, sizeof(e->reason), "%.255s", why ? why->text : "");
    limit_arenas_locked(r);
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
    fits = make_room_locked(r, x->net, may_evict, &available, &gone);
    set_state_locked(r, e, fits ? VARIANT_READY : VARIANT_UNLOADED, fits ? x : NULL, NULL);
    pthread_mutex_unlock(&r->lock);
    let_go(r, gone);
    if (fits)
        return 0;
    *ret_needed = x->bytes;
    *ret_available = available;
    resident_unref(x);
    return error_code(err, -ENOSPC, "memory_budget",
        "loading needs %llu bytes, %llu can be had within the memory budget", (unsigned long long)*ret_needed,
        (unsigned long long)available);
}

/* Waits while another thread loads it. Returns the entry in any other state, the lock held; NULL: out of
 * memory. */
static struct entry *wait_settled(struct residency *r, const char *key) {
    struct entry *e;

    pthread_mutex_lock(&r->lock);
    /* looked up again each time: another that waited may have forgotten it */
    while ((e = entry_find(r, key, true)) && e->state == VARIANT_LOADING)
        pthread_cond_wait(&r->changed, &r->lock);
    return e;
}

static int mark_unloaded(struct residency *r, const char *key, bool is_unloaded, struct error *err) {
    json_t *doc, *copy;
    int e = 0;

    store_lock(r->store);
    doc = store_get(r->store, STORE_VARIANT, key);
    if (!doc)
        e = error_set(err, -ENOENT, "there is no such variant");
    else if (json_is_true(json_object_get(doc, "is_unloaded")) != is_unloaded) {
        copy = json_copy(doc);
        json_object_set_new(copy, "is_unloaded", json_boolean(is_unloaded));
        e = store_apply(r->store, &(struct store_change){STORE_VARIANT, key, copy}, 1, err);
        json_decref(copy);
    }
    json_decref(doc);
    store_unlock(r->store);
    return e;
}

/* Makes the entry LOADING, which is then the caller's, and takes the variant's document: in this order, so
 * that a deletion meanwhile either shows in the document or waits for the load. 1: it is ready already. */
static int begin_load(
    struct residency *r, const char *key, struct entry **ret, json_t **ret_doc, struct error *err) {
    struct entry *e = wait_settled(r, key);
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
        k = mark_unloaded(r, key, false, err);
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

int residency_unload(struct residency *r, const char *key, bool is_request, struct error *err) {
    struct resident *gone = NULL;
    struct entry *e;
    int k = is_request ? mark_unloaded(r, key, true, err) : 0;

    if (k < 0)
        return k;
    e = wait_settled(r, key);
    if (e) {
        gone = e->resident;
        e->resident = NULL;
        e->state = VARIANT_UNLOADED;
    }
    limit_arenas_locked(r);
    pthread_mutex_unlock(&r->lock);
    if (gone)
        tell_unloaded(r);
    resident_unref(gone);
    return 0;
}

void residency_forget(struct residency *r, const char *key) {
    struct entry *gone = NULL;

    wait_settled(r, key);
    for (struct entry **p = &r->first; *p; p = &(*p)->next)
        if (!strcmp((*p)->key, key)) {
            gone = *p;
            *p = gone->next;
            break;
        }
    limit_arenas_locked(r);
    pthread_mutex_unlock(&r->lock);
    if (gone && gone->resident) {
        tell_unloaded(r);
        resident_unref(gone->resident);
    }
    free(gone);
}

struct resident *residency_get(struct residency *r, const char *key) {
    struct resident *x = NULL;
    struct entry *e;

    pthread_mutex_lock(&r->lock);
    e = entry_find(r, key, false);
    if (e && e->state == VARIANT_READY) {
        x = resident_ref(e->resident);
        e->used_ns = clock_now_ns();
    }
    pthread_mutex_unlock(&r->lock);
    return x;
}

int residency_acquire(
    struct residency *r, const char *key, bool may_wait, struct resident **ret, struct error *err) {
    json_t *doc;
    bool is_unloaded;
    int k;

    *ret = residency_get(r, key);
    if (*ret)
        return 0;
    doc = store_get(r->store, STORE_VARIANT, key);
    if (!doc)
        return error_set(err, -ENOENT, "there is no such variant");
    is_unloaded = json_is_true(json_object_get(doc, "is_unloaded"));
    json_decref(doc);
    if (is_unloaded)
        return error_code(
            err, -EAGAIN, "not_loaded", "the variant was unloaded by request: POST …/load brings it back");
    if (!may_wait)
        return error_code(err, -EAGAIN, "loading", "the variant is being loaded");
    k = residency_load(r, key, false, NULL, NULL, err);
    if (k < 0)
        return k;
    *ret = residency_get(r, key);
    return *ret ? 0 : error_code(err, -EAGAIN, "not_loaded", "the variant went out of memory again");
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

/* Each once: what all variants of the model come to, less what each has for itself. */
uint64_t residency_shared(struct residency *r, const char *model) {
    uint64_t tally = pack_store_new_tally(r->packs), all = 0, own = 0;

    pthread_mutex_lock(&r->lock);
    for (const struct entry *e = r->first; e; e = e->next) {
        struct net_bytes b;

        if (!e->resident || strcmp(e->resident->model, model) != 0)
            continue;
        net_count_bytes(e->resident->net, &b);
        own += b.packed;
        all += net_tally_packed(e->resident->net, tally);
    }
    pthread_mutex_unlock(&r->lock);
    return all > own ? all - own : 0;
}

enum variant_state residency_state(
    struct residency *r, const char *key, uint64_t *ret_bytes, char reason[static RESIDENCY_REASON_MAX]) {
    enum variant_state s = VARIANT_UNLOADED;
    struct entry *e;

    *ret_bytes = 0;
    reason[0] = 0;
    pthread_mutex_lock(&r->lock);
    e = entry_find(r, key, false);
    if (e) {
        s = e->state;
        memcpy(reason, e->reason, RESIDENCY_REASON_MAX);
        if (e->resident)
            *ret_bytes = net_bytes_total(e->resident->net, r->options.slots);
    }
    pthread_mutex_unlock(&r->lock);
    return s;
}

void residency_count(struct residency *r, uint64_t *ret_used, uint64_t *ret_budget) {
    pthread_mutex_lock(&r->lock);
    *ret_used = used_locked(r);
    pthread_mutex_unlock(&r->lock);
    *ret_budget = r->options.budget;
}

struct resident *residency_next(struct residency *r, const char *key) {
    struct entry *next = NULL;
    struct resident *x;

    pthread_mutex_lock(&r->lock);
    for (struct entry *e = r->first; e; e = e->next)
        if (e->state == VARIANT_READY && strcmp(e->key, key) > 0 && (!next || strcmp(e->key, next->key) < 0))
            next = e;
    x = next ? resident_ref(next->resident) : NULL;
    pthread_mutex_unlock(&r->lock);
    return x;
}

bool residency_is_loading(struct residency *r) {
    bool is_loading = false;

    pthread_mutex_lock(&r->lock);
    for (const struct entry *e = r->first; e; e = e->next)
        is_loading = is_loading || e->state == VARIANT_LOADING;
    pthread_mutex_unlock(&r->lock);
    return is_loading;
}
