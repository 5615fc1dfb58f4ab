/* What residents take of the budget, and which of them go when another one needs it. */
#include "daemon/residency_priv.h"

size_t residency_net_bytes(struct net *n, unsigned slots) {
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

static struct tally tally_all_locked(const struct residency *r) {
    struct tally t = tally_new(r);

    for (const struct entry *e = r->first; e; e = e->next)
        if (e->resident)
            tally_add(&t, e->resident->net);
    return t;
}

void residency_limit_arenas_locked(struct residency *r) {
    struct tally t = tally_all_locked(r);

    atomic_store(
        &r->max_arena, r->options.budget > t.own ? (r->options.budget - t.own) / r->options.slots : 0);
}

uint64_t residency_used_locked(const struct residency *r, struct net *net) {
    struct tally t = tally_all_locked(r);

    if (net)
        tally_add(&t, net);
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

static void evict_locked(struct entry *e, struct resident **gone) {
    e->resident->usage->next = *gone;
    *gone = e->resident;
    e->resident = NULL;
    e->state = VARIANT_UNLOADED;
}

bool residency_make_room_locked(
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
    while (residency_used_locked(r, net) > r->options.budget) {
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
