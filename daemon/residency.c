#include "daemon/residency.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/residency_priv.h"

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

static void tell_unloaded(struct residency *r) {
    pthread_mutex_lock(&r->lock);
    if (r->unloaded)
        r->unloaded(r->unloaded_ctx);
    pthread_mutex_unlock(&r->lock);
}

void residency_let_go(struct residency *r, struct resident *gone) {
    if (gone)
        tell_unloaded(r);
    while (gone) {
        struct resident *next = gone->usage->next;

        resident_unref(gone);
        gone = next;
    }
}

struct entry *residency_wait_settled(struct residency *r, const char *key) {
    struct entry *e;

    pthread_mutex_lock(&r->lock);
    /* looked up again each time: another that waited may have forgotten it */
    while ((e = entry_find(r, key, true)) && e->state == VARIANT_LOADING)
        pthread_cond_wait(&r->changed, &r->lock);
    return e;
}

int residency_mark_unloaded(struct residency *r, const char *key, bool is_unloaded, struct error *err) {
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

int residency_unload(struct residency *r, const char *key, bool is_request, struct error *err) {
    struct resident *gone = NULL;
    struct entry *e;
    int k = is_request ? residency_mark_unloaded(r, key, true, err) : 0;

    if (k < 0)
        return k;
    e = residency_wait_settled(r, key);
    if (e) {
        gone = e->resident;
        e->resident = NULL;
        e->state = VARIANT_UNLOADED;
    }
    residency_limit_arenas_locked(r);
    pthread_mutex_unlock(&r->lock);
    residency_let_go(r, gone);
    return 0;
}

void residency_forget(struct residency *r, const char *key) {
    struct entry *gone = NULL;

    residency_wait_settled(r, key);
    for (struct entry **p = &r->first; *p; p = &(*p)->next)
        if (!strcmp((*p)->key, key)) {
            gone = *p;
            *p = gone->next;
            break;
        }
    residency_limit_arenas_locked(r);
    pthread_mutex_unlock(&r->lock);
    if (gone)
        residency_let_go(r, gone->resident);
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
            *ret_bytes = residency_net_bytes(e->resident->net, r->options.slots);
    }
    pthread_mutex_unlock(&r->lock);
    return s;
}

void residency_count(struct residency *r, uint64_t *ret_used, uint64_t *ret_budget) {
    pthread_mutex_lock(&r->lock);
    *ret_used = residency_used_locked(r, NULL);
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
