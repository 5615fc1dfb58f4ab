#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "engine/net_priv.h"
#include "engine/onednn.h"
#include "engine/onnx.h"
#include "engine/pass.h"

struct net_packs *net_packs_new(struct pack_store *store) {
    struct net_packs *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->refs = 1;
    p->cache = pack_cache_new(store);
    if (p->cache)
        return p;
    free(p);
    return NULL;
}

/* NULL, or what the caller frees outside the net's mutex. */
static struct pack_cache *packs_unref_locked(struct net_packs *p) {
    struct pack_cache *cache = NULL;

    if (p && --p->refs == 0) {
        cache = p->cache;
        free(p);
    }
    return cache;
}

/* With its hold on the packs; outside the net's mutex. */
static void plan_drop(struct net *n, struct plan *p) {
    struct net_packs *packs = p ? p->packs : NULL;
    struct pack_cache *cache;

    plan_free(p); /* before its packs */
    pthread_mutex_lock(&n->mutex);
    cache = packs_unref_locked(packs);
    pthread_mutex_unlock(&n->mutex);
    pack_cache_free(cache);
}

static struct net *net_free(struct net *n) {
    if (!n)
        return NULL;
    for (size_t i = 0; i < n->n_plans; i++)
        plan_drop(n, n->plans[i]);
    for (size_t i = 0; i < n->n_images; i++)
        net_image_done(&n->image[i]);
    pack_cache_free(packs_unref_locked(n->packs));
    pthread_mutex_destroy(&n->mutex);
    pthread_mutex_destroy(&n->building);
    onednn_free(n->onednn);
    free(n->kernels);
    graph_free(n->loaded);
    free(n);
    return NULL;
}
DEFINE_CLEANUP(struct net *, net_free)

static int run_passes(struct graph *g, struct error *err) {
    for (size_t i = 0; i < pass_table_size; i++) {
        int r = pass_table[i]->run(g, err);

        if (r < 0)
            return r;
    }
    return 0;
}

int net_new(struct graph *g, const struct net_options *o, struct net **ret, struct error *err) {
    _cleanup_(net_freep) struct net *n = calloc(1, sizeof(*n));
    int r;

    if (!n) {
        graph_free(g);
        return error_oom(err);
    }
    pthread_mutex_init(&n->building, NULL);
    pthread_mutex_init(&n->mutex, NULL);
    n->loaded = g;
    n->refs = 1;
    n->options = *o;
    n->kernels = o->kernels ? strdup(o->kernels) : NULL;
    n->options.kernels = n->kernels;
    n->packs = net_packs_new(n->options.store);
    if (!n->packs || (o->kernels && !n->kernels))
        return error_oom(err);
    r = onednn_new(&n->onednn, err);
    if (r < 0)
        return r;
    *ret = TAKE(n);
    return 0;
}

int net_open_fd(int fd, const struct net_options *o, struct net **ret, struct error *err) {
    struct graph *g;
    int r = onnx_read_fd(fd, &g, err);

    return r < 0 ? r : net_new(g, o, ret, err);
}

struct net *net_ref(struct net *n) {
    pthread_mutex_lock(&n->mutex);
    n->refs++;
    pthread_mutex_unlock(&n->mutex);
    return n;
}

struct net *net_unref(struct net *n) {
    bool last;

    if (!n)
        return NULL;
    pthread_mutex_lock(&n->mutex);
    last = --n->refs == 0;
    pthread_mutex_unlock(&n->mutex);
    return last ? net_free(n) : NULL;
}

void net_limit_arena(struct net *n, const atomic_size_t *max) {
    n->max_arena = max;
}

const struct graph *net_graph(const struct net *n) {
    return n->loaded;
}

static bool is_plan_for(
    const struct net *n, const struct plan *p, const struct shape *inputs, unsigned threads) {
    if (p->n_threads != threads)
        return false;
    for (size_t i = 0; i < n->loaded->n_inputs; i++) {
        if (!shape_equal(&p->inputs[i], &inputs[i]))
            return false;
    }
    return true;
}

/* A cached plan, counted; NULL. */
static struct plan *find_plan(struct net *n, const struct shape *inputs, unsigned threads) {
    struct plan *found = NULL;

    pthread_mutex_lock(&n->mutex);
    for (size_t i = 0; i < n->n_plans && !found; i++) {
        if (is_plan_for(n, n->plans[i], inputs, threads))
            found = n->plans[i];
    }
    if (found) {
        found->refs++;
        found->used = ++n->clock;
        n->refs++;
    }
    pthread_mutex_unlock(&n->mutex);
    return found;
}

/* Counted once for the caller. */
static void insert_locked(struct net *n, struct plan *p, struct net_packs *packs, size_t at) {
    p->net = n;
    p->packs = packs;
    packs->refs++;
    p->refs = 1;
    p->is_cached = true;
    p->used = ++n->clock;
    n->plans[at] = p;
    n->refs++;
}

/* NULL: somebody runs it, who frees it. */
static struct plan *take_out_locked(struct net *n, size_t at) {
    struct plan *out = n->plans[at];

    out->is_cached = false;
    return out->refs ? NULL : out;
}

/* Puts a new plan into the cache, counted for the caller; the one it drives out is freed, or by its last
 * holder when in use. */
static void keep_plan(struct net *n, struct plan *p) {
    struct plan *out = NULL;
    size_t at;

    pthread_mutex_lock(&n->mutex);
    at = n->n_plans;
    if (at == MAX_PLANS) {
        at = 0;
        for (size_t i = 1; i < MAX_PLANS; i++) {
            if (n->plans[i]->used < n->plans[at]->used)
                at = i;
        }
        out = take_out_locked(n, at);
    } else {
        n->n_plans++;
    }
    insert_locked(n, p, n->packs, at);
    pthread_mutex_unlock(&n->mutex);
    plan_drop(n, out);
}

void net_swap(struct net *n, struct plan *p, struct net_packs *packs) {
    struct plan *out[MAX_PLANS];
    struct pack_cache *cache;
    size_t n_out;

    pthread_mutex_lock(&n->mutex);
    n_out = n->n_plans;
    for (size_t i = 0; i < n_out; i++)
        out[i] = take_out_locked(n, i);
    cache = packs_unref_locked(n->packs);
    n->packs = packs;
    n->n_plans = 1;
    insert_locked(n, p, packs, 0);
    pthread_mutex_unlock(&n->mutex);
    for (size_t i = 0; i < n_out; i++)
        plan_drop(n, out[i]);
    pack_cache_free(cache);
}

int net_begin_build(const struct net *n, struct pack_cache *packs, struct net_build *ret, struct error *err) {
    int r = 0;

    *ret = (struct net_build){0};
    onednn_enter();
    r = graph_clone(n->loaded, &ret->exec, err);
    if (r == 0 && n->options.float_io)
        r = pass_float_io(ret->exec, err);
    if (r == 0)
        r = n->options.reference ? pass_widen(ret->exec, err) : run_passes(ret->exec, err);
    ret->env = (struct plan_env){.graph = ret->exec,
        .options = &n->options,
        .packs = packs,
        .onednn = n->onednn,
        .max_arena = n->max_arena ? atomic_load(n->max_arena) : SIZE_MAX,
        .tuner = n->options.reference ? NULL : n->options.tuner};
    return r;
}

void net_build_done(struct net_build *b) {
    b->exec = graph_free(b->exec);
}

/* Each plan has its own execution graph: what the passes compute (folded weights) is let go once it is
 * packed, and made again for the next plan. */
int net_build_plan(const struct net *n, struct net_build *b, const struct plan_choice *choices,
    const struct shape *inputs, unsigned threads, struct plan **ret, struct error *err) {
    int r;

    b->env.choices = choices;
    r = plan_build(&b->env, inputs, threads, ret, err);
    if (r == 0) {
        graph_drop_constants(b->exec);
        (*ret)->graph = TAKE(b->exec);
    }
    /* packing needed room of its own: the heap and the file's pages go back */
    graph_release_pages(n->loaded);
    malloc_trim(0);
    return r;
}

/* The first plan of an image size decides which kernels run it; the later ones take those. */
static int build_plan(
    struct net *n, const struct shape *inputs, unsigned threads, struct plan **ret, struct error *err) {
    _cleanup_(net_build_done) struct net_build b = {0};
    struct net_image *image = net_find_image(n, inputs), made = {0};
    int r = net_begin_build(n, n->packs->cache, &b, err);

    if (r == 0 && !image)
        r = net_image_new(n, &b, inputs, threads, &made, err);
    if (r == 0)
        r = net_build_plan(n, &b, image ? image->choices : made.choices, inputs, threads, ret, err);
    if (r == 0 && !image && !made.choices &&
        net_copy_choices((*ret)->graph ? (*ret)->graph->n_nodes : n->loaded->n_nodes, (*ret)->choices,
            &made.choices) < 0) {
        *ret = plan_free(*ret);
        r = error_oom(err);
    }
    if (r < 0) {
        net_image_done(&made);
        return r;
    }
    if (!image)
        image = net_keep_image(n, &made);
    image->used = ++n->n_asked;
    return 0;
}

int net_plan(
    struct net *n, const struct shape *inputs, unsigned threads, struct plan **ret, struct error *err) {
    struct plan *p;
    int r = 0;

    threads = threads ? threads : 1;
    p = find_plan(n, inputs, threads);
    if (!p) {
        pthread_mutex_lock(&n->building);
        p = find_plan(n, inputs, threads); /* another thread may have built it meanwhile */
        if (!p) {
            r = build_plan(n, inputs, threads, &p, err);
            if (r == 0)
                keep_plan(n, p);
        }
        pthread_mutex_unlock(&n->building);
    }
    if (r < 0)
        return r;
    *ret = p;
    return 0;
}

struct plan *plan_ref(struct plan *p) {
    pthread_mutex_lock(&p->net->mutex);
    p->refs++;
    p->net->refs++;
    pthread_mutex_unlock(&p->net->mutex);
    return p;
}

struct plan *plan_unref(struct plan *p) {
    struct net *n;
    bool last;

    if (!p)
        return NULL;
    n = p->net;
    pthread_mutex_lock(&n->mutex);
    last = --p->refs == 0 && !p->is_cached;
    pthread_mutex_unlock(&n->mutex);
    if (last)
        plan_drop(n, p);
    net_unref(n);
    return NULL;
}

/* A primitive's descriptors and tables (measured over resnet20 in both forms, resnet18 and mobilenet_v2, with
 * mallinfo2 and smaps; the library does not tell). Its code is not counted: oneDNN's cache keeps it, for all
 * nets with that shape, and unloading does not give it back. */
#define PRIM_BYTES ((size_t)14 << 10)

void net_count_bytes(const struct net *n, struct net_bytes *ret) {
    struct net *m = (struct net *)(uintptr_t)n; /* its mutex */
    struct pack_count packs;

    *ret = (struct net_bytes){
        .plans = graph_count_bytes(n->loaded) + atomic_load(&n->onednn->n_prims) * PRIM_BYTES};
    pthread_mutex_lock(&m->mutex);
    packs = pack_count_bytes(n->packs->cache);
    ret->packed = packs.own;
    ret->shared = packs.shared;
    for (size_t i = 0; i < n->n_plans; i++) {
        ret->plans += plan_count_bytes(n->plans[i]);
        if (ret->arena_max < n->plans[i]->arena_size)
            ret->arena_max = n->plans[i]->arena_size;
    }
    pthread_mutex_unlock(&m->mutex);
}

size_t net_tally_packed(const struct net *n, uint64_t tally) {
    struct net *m = (struct net *)(uintptr_t)n;
    size_t sum;

    pthread_mutex_lock(&m->mutex);
    sum = pack_tally_bytes(n->packs->cache, tally);
    pthread_mutex_unlock(&m->mutex);
    return sum;
}
