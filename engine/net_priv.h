/* Inside of a net: for net*.c alone. */
#ifndef ENGINE_NET_PRIV_H
#define ENGINE_NET_PRIV_H

#include <pthread.h>

#include "engine/net.h"
#include "engine/plan.h"

#define MAX_PLANS 16

/* Packed weights of all plans made since the last tuning: those before it keep their own until they are gone.
 */
struct net_packs {
    unsigned refs; /* the net's and its plans', protected by the net's mutex */
    struct pack_cache *cache;
};

/* What runs at an image size, whatever the batch. */
struct net_image {
    struct shape *inputs; /* one image each */
    unsigned threads;     /* of the plan that was first */
    struct plan_choice *choices;
    bool is_tuned;
    unsigned long used;
};

struct net {
    struct graph *loaded;
    struct net_options options;
    char *kernels;
    struct onednn *onednn;
    const atomic_size_t *max_arena; /* NULL: no limit */

    pthread_mutex_t building; /* one plan is built at a time; never taken while `mutex` is held. Protects: */
    unsigned long n_asked;    /* counts plans made */
    size_t n_images;
    struct net_image image[MAX_PLANS];

    pthread_mutex_t mutex; /* protects the rest and the counts of plans */
    unsigned refs;         /* handles to the net and to its plans */
    unsigned long clock;
    struct net_packs *packs;
    size_t n_plans;
    struct plan *plans[MAX_PLANS];
};

/* The execution graph and what building over it needs. */
struct net_build {
    struct graph *exec;
    struct plan_env env;
};
int net_begin_build(const struct net *n, struct pack_cache *packs, struct net_build *ret, struct error *err);
void net_build_done(struct net_build *b);

/* A plan with these choices (NULL: the default), not in the cache and not counted. */
int net_build_plan(const struct net *n, struct net_build *b, const struct plan_choice *choices,
    const struct shape *inputs, unsigned threads, struct plan **ret, struct error *err);

struct net_packs *net_packs_new(struct pack_store *store);

/* The rest with `building` held. */

/* The cached plans go, `p`, which was made over `packs`, comes in their place, counted for the caller. */
void net_swap(struct net *n, struct plan *p, struct net_packs *packs);

/* net_image.c. NULL: not there. */
struct net_image *net_find_image(struct net *n, const struct shape *inputs);
/* With choices if times are known, else without. */
int net_image_new(const struct net *n, const struct net_build *b, const struct shape *inputs,
    unsigned threads, struct net_image *ret, struct error *err);
void net_image_done(struct net_image *i);
/* Takes what is in it; the one not asked for the longest goes when there are too many. */
struct net_image *net_keep_image(struct net *n, const struct net_image *i);
int net_copy_choices(size_t n, const struct plan_choice *from, struct plan_choice **ret);

/* net_tune.c: the search over a sketch, unless its whole was measured and was not faster. 0 or -ENOMEM. */
int net_choose(struct plan *sketch, const struct plan_env *env, bool *ret_is_complete);

#endif
