#include "engine/net.h"

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "engine/onednn.h"
#include "engine/onnx.h"
#include "engine/pass.h"
#include "engine/plan.h"

#define MAX_PLANS 16

struct net {
    struct graph *loaded;
    struct net_options options;
    char *kernels;
    struct pack_cache *packs;
    struct onednn *onednn;

    pthread_mutex_t building; /* one plan is built at a time; never taken while `mutex` is held */
    pthread_mutex_t mutex;    /* protects the rest and the counts of plans */
    unsigned refs;            /* handles to the net and to its plans */
    unsigned long clock;
    size_t n_plans;
    struct plan *plans[MAX_PLANS];
};

static struct net *net_free(struct net *n) {
    if (!n)
        return NULL;
    for (size_t i = 0; i < n->n_plans; i++)
        plan_free(n->plans[i]);
    pthread_mutex_destroy(&n->mutex);
    pthread_mutex_destroy(&n->building);
    pack_cache_free(n->packs);
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
    n->packs = pack_cache_new();
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
        out = n->plans[at];
        out->is_cached = false;
        if (out->refs)
            out = NULL;
    } else {
        n->n_plans++;
    }
    p->net = n;
    p->refs = 1;
    p->is_cached = true;
    p->used = ++n->clock;
    n->plans[at] = p;
    n->refs++;
    pthread_mutex_unlock(&n->mutex);
    plan_free(out);
}

/* Each plan has its own execution graph: what the passes compute (folded weights) is let go once it is
 * packed, and made again for the next plan. */
static int build_plan(
    const struct net *n, const struct shape *inputs, unsigned threads, struct plan **ret, struct error *err) {
    struct plan_env env = {
        .graph = n->loaded, .options = &n->options, .packs = n->packs, .onednn = n->onednn};
    _cleanup_(graph_freep) struct graph *exec = NULL;
    int r = 0;

    onednn_enter();
    if (!n->options.reference) {
        r = graph_clone(n->loaded, &exec, err);
        if (r == 0)
            r = run_passes(exec, err);
        env.graph = exec;
    }
    if (r == 0)
        r = plan_build(&env, inputs, threads, ret, err);
    if (r < 0)
        return r;
    if (exec)
        graph_drop_constants(exec);
    (*ret)->graph = TAKE(exec);
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
            /* packing needed room of its own: the heap and the file's pages go back */
            graph_release_pages(n->loaded);
            malloc_trim(0);
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
        plan_free(p);
    net_unref(n);
    return NULL;
}

/* A primitive's descriptors and tables (measured over resnet20 in both forms, resnet18 and mobilenet_v2, with
 * mallinfo2 and smaps; the library does not tell). Its code is not counted: oneDNN's cache keeps it, for all
 * nets with that shape, and unloading does not give it back. */
#define PRIM_BYTES ((size_t)14 << 10)

void net_count_bytes(const struct net *n, struct net_bytes *ret) {
    struct net *m = (struct net *)(uintptr_t)n; /* its mutex */

    *ret = (struct net_bytes){.packed = pack_count_bytes(n->packs),
        .plans = graph_count_bytes(n->loaded) + atomic_load(&n->onednn->n_prims) * PRIM_BYTES};
    pthread_mutex_lock(&m->mutex);
    for (size_t i = 0; i < n->n_plans; i++) {
        ret->plans += plan_count_bytes(n->plans[i]);
        if (ret->arena_max < n->plans[i]->arena_size)
            ret->arena_max = n->plans[i]->arena_size;
    }
    pthread_mutex_unlock(&m->mutex);
}
