/* Which channels go. In every family they go in the order of importance, in chunks; scope says how families
 * are held against one another. */
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/prune_channel.h"
#include "compress/prune_remove.h"

/* ---- chunks ---- */

struct by_score {
    double score;
    int channel;
};

static int compare(const void *a, const void *b) {
    const struct by_score *x = a, *y = b;

    if (x->score != y->score)
        return x->score < y->score ? -1 : 1;
    return x->channel - y->channel;
}

int channel_sort(struct channel_net *net, struct error *err) {
    _cleanup_(freep) struct by_score *list = malloc(((size_t)net->c.n + 1) * sizeof(*list));

    if (!list)
        return error_oom(err);
    for (int f = 0; f < net->n_families; f++) {
        struct channel_family *of = &net->of[f];

        for (int i = 0; i < of->n_free; i++)
            list[i] = (struct by_score){net->score[of->order[i]], of->order[i]};
        qsort(list, (size_t)of->n_free, sizeof(*list), compare);
        for (int i = 0; i < of->n_free; i++)
            of->order[i] = list[i].channel;
    }
    return 0;
}

/* The first chunk is what there is over a whole number of them. */
static int size_of_next(const struct channel_family *of) {
    int left = of->n - of->n_gone, over = left % of->chunk;

    return over ? over : of->chunk;
}

/* … and what the chunk that went last had; 0: nothing went. */
static int size_of_last(const struct channel_family *of) {
    int over = of->n % of->chunk;

    return of->n_gone == 0 ? 0 : of->n_gone <= over ? over : of->chunk;
}

/* Does a value, or a layer's weights, lose all its channels? */
static bool leaves_nothing(const struct channel_net *net) {
    for (size_t s = 0; s < net->c.n_sites; s++)
        if (net->c.site[s].n > 0 &&
            prune_count_kept(net->c.site[s].channel, net->c.site[s].n, net->goes) == 0)
            return true;
    for (size_t v = 0; v < net->c.n_values; v++)
        if (net->c.value[v].n > 0 &&
            prune_count_kept(net->c.value[v].channel, net->c.value[v].n, net->goes) == 0)
            return true;
    return false;
}

static void mark(struct channel_net *net, const struct channel_family *of, int from, int to, bool goes) {
    for (int i = from; i < to; i++)
        net->goes[of->order[i]] = goes;
}

/* The next chunk of a family goes. False: it cannot. */
static bool take_chunk(struct channel_net *net, struct channel_family *of) {
    int size = size_of_next(of), to = of->n_gone + size;

    if (of->is_stuck || to > of->n_free || of->n - to < of->least || of->n - to < 1)
        return false;
    mark(net, of, of->n_gone, to, true);
    if (leaves_nothing(net)) {
        mark(net, of, of->n_gone, to, false);
        of->is_stuck = true;
        return false;
    }
    of->n_gone = to;
    return true;
}

static void put_back(struct channel_net *net) {
    memset(net->goes, 0, (size_t)net->c.n * sizeof(*net->goes));
    for (int f = 0; f < net->n_families; f++) {
        net->of[f].n_gone = 0;
        net->of[f].is_stuck = false;
    }
}

static double n_left(const struct channel_net *net) {
    double n = 0;

    for (int f = 0; f < net->n_families; f++)
        n += net->of[f].n_free > 0 ? net->of[f].n - net->of[f].n_gone : 0;
    return n;
}

static double n_at_start(const struct channel_net *net) {
    double n = 0;

    for (int f = 0; f < net->n_families; f++)
        n += net->of[f].n_free > 0 ? net->of[f].n_start : 0;
    return n;
}

static bool is_met(const struct channel_net *net, const struct channel_goal *goal) {
    if (goal->macs > 0)
        return channel_net_macs(net) <= goal->macs * (1 + 1e-9);
    /* to the nearest channel */
    return n_left(net) <= n_at_start(net) * (1 - goal->sparsity) + 0.5;
}

static int not_met(
    const struct channel_net *net, const struct channel_goal *goal, double all, struct error *err) {
    if (goal->macs > 0)
        return error_code(err, -EBADMSG, "requirement_not_met",
            ".macs: %.4g of the network's multiplications is asked for, the least that channel pruning can "
            "leave is %.4g",
            goal->macs / all, channel_net_macs(net) / all);
    return error_code(err, -EBADMSG, "requirement_not_met",
        ".sparsity: %.4g of the channels is asked for, the most that can go is %.4g", goal->sparsity,
        1 - n_left(net) / n_at_start(net));
}

/* ---- scopes: always the cheapest chunk, until the goal is met ---- */

/* What the next chunk takes away and saves. */
struct chunk {
    double score, saving, rows, n;
};

static struct chunk next_chunk(const struct channel_net *net, const struct channel_family *of) {
    int to = of->n_gone + size_of_next(of);
    struct chunk c = {.n = to - of->n_gone};

    for (int i = of->n_gone; i < to && i < of->n_free; i++) {
        c.score += net->score[of->order[i]];
        c.saving += net->saving[of->order[i]];
        c.rows += net->n_rows[of->order[i]];
    }
    return c;
}

/* global: the importance that the next chunk takes away, for the work that it saves, or for each channel. */
static double price_of_importance(
    const struct channel_net *net, const struct channel_family *of, bool by_work) {
    struct chunk c = next_chunk(net, of);

    if (by_work)
        return c.saving > 0 ? c.score / c.saving : HUGE_VAL;
    return c.score / (net->is_relative ? c.rows : c.n);
}

/* layer: the share that is gone at the middle of the next chunk: all families stay abreast. */
static double price_of_share(const struct channel_family *of) {
    return 1 - (of->n - of->n_gone - size_of_next(of) / 2.0) / of->n_start;
}

/* Damage without the first n channels; between what was measured, linear. */
static double damage_of(const struct channel_family *of, const double *damage, int n) {
    double at = (double)n * CHANNEL_STEPS / of->n;
    int step = (int)at;
    double low = step > 0 ? damage[step - 1] : 0;

    return step >= CHANNEL_STEPS ? low : low + (at - step) * (damage[step] - low);
}

/* sensitivity: the damage that the next chunk adds, for what it saves: of layers that are measured each by
 * itself the sum of damages is then least. */
static double price_of_damage(
    const struct channel_net *net, const struct channel_family *of, const double *damage, bool by_work) {
    struct chunk c = next_chunk(net, of);
    double added = damage_of(of, damage, of->n_gone + (int)c.n) - damage_of(of, damage, of->n_gone);

    if (by_work)
        return c.saving > 0 ? added / c.saving : HUGE_VAL;
    return added / c.n;
}

static double price(const struct channel_net *net, int f, const struct prune_options *o,
    const struct channel_goal *goal, const double *damage) {
    const struct channel_family *of = &net->of[f];

    if (of->is_stuck || of->share > 0 || of->n_gone >= of->n_free)
        return HUGE_VAL;
    if (o->scope == PRUNE_GLOBAL)
        return price_of_importance(net, of, goal->macs > 0);
    if (o->scope == PRUNE_SENSITIVITY && damage)
        return price_of_damage(net, of, damage + (ptrdiff_t)f * CHANNEL_STEPS, goal->macs > 0);
    return price_of_share(of);
}

/* Families with a share of their own, to the nearest chunk. */
static void take_own_shares(struct channel_net *net) {
    for (int f = 0; f < net->n_families; f++)
        while (net->of[f].share > 0 && price_of_share(&net->of[f]) <= net->of[f].share &&
               take_chunk(net, &net->of[f]))
            ;
}

/* Outputs of one block of a kernel take its whole time, however few they are: such families wait until the
 * others cannot meet a goal of work (measured: docs/prune_channel.md). */
static bool waits(
    const struct channel_family *of, const struct prune_options *o, const struct channel_goal *goal) {
    return of->n_start <= CHANNEL_BLOCK && goal->macs > 0 && o->scope != PRUNE_LAYER;
}

static struct channel_family *find_cheapest(struct channel_net *net, const struct prune_options *o,
    const struct channel_goal *goal, const double *damage, bool with_waiting) {
    struct channel_family *cheapest = NULL;
    double least = HUGE_VAL;

    for (int f = 0; f < net->n_families; f++) {
        double p = !with_waiting && waits(&net->of[f], o, goal) ? HUGE_VAL : price(net, f, o, goal, damage);

        if (p < least) {
            least = p;
            cheapest = &net->of[f];
        }
    }
    return cheapest;
}

static bool take_cheapest(struct channel_net *net, const struct prune_options *o,
    const struct channel_goal *goal, const double *damage) {
    while (!is_met(net, goal)) {
        struct channel_family *cheapest = find_cheapest(net, o, goal, damage, false);

        if (!cheapest)
            cheapest = find_cheapest(net, o, goal, damage, true);
        if (!cheapest)
            return false;
        if (!take_chunk(net, cheapest))
            cheapest->is_stuck = true;
    }
    return true;
}

/* The last chunk of a family stays after all. */
static void give_back(struct channel_net *net, struct channel_family *of, int size) {
    of->n_gone -= size;
    mark(net, of, of->n_gone, of->n_gone + size, false);
}

/* Chunks are coarse: what went beyond the goal comes back, the dearest first. */
static void give_back_dearest(struct channel_net *net, const struct prune_options *o,
    const struct channel_goal *goal, const double *damage) {
    for (int f = 0; f < net->n_families; f++)
        net->of[f].is_stuck = false;
    for (;;) {
        struct channel_family *dearest = NULL;
        double most = -1;

        for (int f = 0; f < net->n_families; f++) {
            struct channel_family *of = &net->of[f];
            int size = size_of_last(of);
            double p;

            if (size == 0 || of->is_stuck || of->share > 0)
                continue;
            of->n_gone -= size;
            p = price(net, f, o, goal, damage);
            of->n_gone += size;
            if (p > most) {
                most = p;
                dearest = of;
            }
        }
        if (!dearest)
            return;
        most = size_of_last(dearest);
        give_back(net, dearest, (int)most);
        if (!is_met(net, goal)) {
            dearest->n_gone += (int)most;
            mark(net, dearest, dearest->n_gone - (int)most, dearest->n_gone, true);
            dearest->is_stuck = true;
        }
    }
}

int channel_select(struct channel_net *net, const struct prune_options *o, const struct channel_goal *goal,
    const double *damage, struct error *err) {
    int r = channel_sort(net, err);
    double all;

    if (r < 0)
        return r;
    put_back(net);
    all = channel_net_macs(net);
    take_own_shares(net);
    if (!take_cheapest(net, o, goal, damage))
        return not_met(net, goal, all, err);
    give_back_dearest(net, o, goal, damage);
    return 0;
}
