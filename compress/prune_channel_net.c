#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/prune_channel.h"
#include "compress/prune_remove.h"
#include "engine/summary.h"

static const char is_unselected[] = "it is tied to a layer that is not selected";

static int find_root(int *parent, int i) {
    while (parent[i] != i)
        i = parent[i] = parent[parent[i]];
    return i;
}

/* Families: channels of one row site are of one. */
static int find_families(struct channel_net *net, struct error *err) {
    const struct coupling *c = &net->c;
    _cleanup_(freep) int *parent = malloc(((size_t)c->n + 1) * sizeof(*parent));
    _cleanup_(freep) int *number = malloc(((size_t)c->n + 1) * sizeof(*number));

    net->family = malloc(((size_t)c->n + 1) * sizeof(*net->family));
    net->of = calloc((size_t)c->n + 1, sizeof(*net->of));
    if (!parent || !number || !net->family || !net->of)
        return error_oom(err);
    for (int i = 0; i < c->n; i++) {
        parent[i] = i;
        number[i] = net->family[i] = -1;
    }
    for (size_t s = 0; s < c->n_sites; s++)
        for (int64_t i = 0; c->site[s].role == COUPLING_ROW && i < c->site[s].n; i++) {
            parent[find_root(parent, c->site[s].channel[i])] = find_root(parent, c->site[s].channel[0]);
            net->family[c->site[s].channel[i]] = 0;
        }
    for (size_t s = 0; s < c->n_sites; s++) {
        int root;

        if (c->site[s].role != COUPLING_ROW || c->site[s].n < 1)
            continue;
        root = find_root(parent, c->site[s].channel[0]);
        if (number[root] < 0) {
            number[root] = net->n_families;
            net->of[net->n_families++].id = net->g->nodes[c->site[s].node].id;
        }
    }
    for (int i = 0; i < c->n; i++)
        if (net->family[i] == 0) {
            net->family[i] = number[find_root(parent, i)];
            net->of[net->family[i]].n++;
        }
    return 0;
}

/* A channel may have several rows (grouped convolutions): as many as now. */
static int count_at_start(const struct channel_net *net, const struct channel_family *of, int64_t rows) {
    int64_t now = coupling_rows(&net->c, graph_find_node(net->g, of->id))->n;

    return rows > now ? (int)(of->n * rows / now) : of->n;
}

/* Sizes of families, their parts of the list, and how many go at once. */
static void size_families(struct channel_net *net, const struct layers *layers, const struct layers *start) {
    int at = 0;

    for (int f = 0; f < net->n_families; f++) {
        struct channel_family *of = &net->of[f];

        of->order = net->order + at;
        for (int i = 0; i < net->c.n; i++)
            if (net->family[i] == f && !net->c.reason[i])
                of->order[of->n_free++] = i;
        at += of->n_free;
        of->n_start = of->n;
        for (size_t k = 0; start && k < start->n; k++)
            if (!strcmp(start->entry[k].id, of->id))
                of->n_start = count_at_start(net, of, start->entry[k].rows);
        /* as many as there were at first decide, so that rounds take what one step would */
        of->chunk = of->n_start >= 2 * CHANNEL_BLOCK ? CHANNEL_BLOCK
                    : of->n_start >= 16              ? 8
                    : of->n_start >= 8               ? 2
                                                     : 1;
        of->least = (of->n_start + 9) / 10;
        for (size_t k = 0; layers && k < layers->n; k++) {
            const struct prune_options *own = layers->entry[k].options;

            if (own && !strcmp(layers->entry[k].id, of->id))
                of->share = own->sparsity;
        }
    }
}

static void keep_unselected(struct channel_net *net, const struct layers *layers) {
    for (size_t s = 0; layers && s < net->c.n_sites; s++) {
        const struct coupling_site *site = &net->c.site[s];
        const struct layer_entry *e = site->role == COUPLING_ROW ? layers_find(layers, site->node) : NULL;

        for (int64_t i = 0; e && !e->is_selected && i < site->n; i++)
            if (!net->c.reason[site->channel[i]])
                net->c.reason[site->channel[i]] = is_unselected;
    }
}

/* ---- work ---- */

static int find_macs(struct channel_net *net, struct error *err) {
    _cleanup_(summary_freep) struct summary *s = NULL;
    int r = summary_new(net->g, &s, err);

    net->macs = calloc(net->g->n_nodes + 1, sizeof(*net->macs));
    if (r == 0 && !net->macs)
        r = error_oom(err);
    for (size_t i = 0; r == 0 && i < s->n_layers; i++) {
        int node = graph_find_node(net->g, s->layers[i].id);

        if (node >= 0)
            net->macs[node] = (double)s->layers[i].macs;
    }
    return r;
}

/* The share of a node's work that is left, of a layer as rows times columns. */
static void multiply_site(const struct channel_net *net, const struct coupling_site *s, double *left) {
    if (s->role != COUPLING_PARAM && s->n > 0)
        left[s->node] *= (double)prune_count_kept(s->channel, s->n, net->goes) / (double)s->n;
}

double channel_net_macs(const struct channel_net *net) {
    _cleanup_(freep) double *left = malloc((net->g->n_nodes + 1) * sizeof(*left));
    _cleanup_(freep) bool *is_layer = calloc(net->g->n_nodes + 1, sizeof(*is_layer));
    double all = 0;

    if (!left || !is_layer)
        return HUGE_VAL; /* memory is short: no goal is met */
    for (size_t i = 0; i < net->g->n_nodes; i++)
        left[i] = 1;
    for (size_t s = 0; s < net->c.n_sites; s++) {
        multiply_site(net, &net->c.site[s], left);
        is_layer[net->c.site[s].node] |= net->c.site[s].role != COUPLING_PARAM;
    }
    for (size_t i = 0; i < net->g->n_nodes; i++) {
        const struct node *n = &net->g->nodes[i];
        const struct coupling_value *y = n->n_out > 0 && n->out[0] >= 0 ? &net->c.value[n->out[0]] : NULL;

        if (!is_layer[i] && y && y->n > 0)
            left[i] = (double)prune_count_kept(y->channel, y->n, net->goes) / (double)y->n;
        all += left[i] * net->macs[i];
    }
    return all;
}

static void find_savings(struct channel_net *net) {
    for (size_t s = 0; s < net->c.n_sites; s++) {
        const struct coupling_site *site = &net->c.site[s];
        double part =
            site->role == COUPLING_PARAM || site->n < 1 ? 0 : net->macs[site->node] / (double)site->n;

        /* a block that is not full takes the time of a full one; a depthwise layer has no columns */
        if (site->role == COUPLING_ROW && site->n <= CHANNEL_BLOCK)
            part /= 8;
        for (int64_t i = 0; i < site->n; i++) {
            net->saving[site->channel[i]] += part;
            net->n_rows[site->channel[i]] += site->role == COUPLING_ROW;
        }
    }
}

int channel_net_init(struct channel_net *net, const struct graph *g, bool trusts_computed,
    const struct layers *layers, const struct layers *start, struct error *err) {
    int r = coupling_find(g, trusts_computed, &net->c, err);
    size_t n = (size_t)net->c.n + 1;

    if (r < 0)
        return r;
    net->g = g;
    net->order = calloc(n, sizeof(*net->order));
    net->score = calloc(n, sizeof(*net->score));
    net->n_rows = calloc(n, sizeof(*net->n_rows));
    net->saving = calloc(n, sizeof(*net->saving));
    net->goes = calloc(n, sizeof(*net->goes));
    if (!net->order || !net->score || !net->n_rows || !net->saving || !net->goes)
        return error_oom(err);
    r = find_families(net, err);
    if (r == 0)
        r = find_macs(net, err);
    if (r < 0)
        return r;
    keep_unselected(net, layers);
    size_families(net, layers, start);
    find_savings(net);
    return 0;
}

void channel_net_done(struct channel_net *net) {
    coupling_done(&net->c);
    free(net->family);
    free(net->of);
    free(net->order);
    free(net->score);
    free(net->n_rows);
    free(net->saving);
    free(net->macs);
    free(net->goes);
    *net = (struct channel_net){0};
}

bool channel_norm_factors(const struct graph *g, int node, int64_t n, double *ret, int *ret_norm) {
    int reader[2], value = g->nodes[node].out[0];
    const struct node *norm;
    const struct tensor *t[5];
    double epsilon;

    if (graph_consumers(g, value, reader, 2) != 1 || g->values[value].is_output)
        return false;
    norm = &g->nodes[reader[0]];
    if (strcmp(norm->op_type, "BatchNormalization") != 0 || norm->in[0] != value)
        return false;
    for (int i = 1; i < 5; i++) {
        t[i] = g->values[norm->in[i]].init;
        if (!t[i] || t[i]->dtype != DT_F32 || t[i]->shape.rank != 1 || t[i]->shape.dim[0] != n)
            return false;
    }
    epsilon = (double)node_attr_float(norm, "epsilon", 1e-5f);
    for (int64_t i = 0; i < n; i++) {
        float gamma, variance;

        memcpy(&gamma, (const char *)t[1]->data + (size_t)i * sizeof(gamma), sizeof(gamma));
        memcpy(&variance, (const char *)t[4]->data + (size_t)i * sizeof(variance), sizeof(variance));
        ret[i] = (double)gamma / sqrt((double)variance + epsilon);
    }
    if (ret_norm)
        *ret_norm = reader[0];
    return true;
}
