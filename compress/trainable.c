#include "compress/trainable.h"

#include <errno.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/layers.h"
#include "compress/trainable_priv.h"
#include "engine/ops.h"
#include "engine/pass.h"

struct trainable *trainable_free(struct trainable *t) {
    if (!t)
        return NULL;
    for (size_t i = 0; i < t->n_layers; i++)
        trainable_layer_done(&t->layer[i]);
    for (size_t i = 0; i < t->n_values; i++) {
        free(t->value[i].name);
        free(t->value[i].consumer);
        free(t->value[i].scale);
    }
    free(t->layer);
    free(t->value);
    free(t->weights);
    free(t->activations);
    graph_free(t->graph);
    graph_free(t->encoded);
    free(t);
    return NULL;
}

struct graph *trainable_graph(struct trainable *t) {
    return t->graph;
}

bool trainable_is_encoded(const struct trainable *t) {
    for (size_t i = 0; i < t->n_layers; i++)
        if (t->layer[i].form)
            return true;
    return t->n_values > 0;
}

bool trainable_fixes_scales(const struct trainable *t) {
    for (size_t i = 0; i < t->n_layers; i++)
        for (int k = 0; k < t->layer[i].n_chain; k++)
            if (t->layer[i].chain[k].row != transform_find("mask"))
                return true;
    return t->n_values > 0;
}

/* ---- opening ---- */

static int refuse(const struct layer_entry *e, const struct error *why, struct error *err) {
    return error_code(err, -EBADMSG, "method_not_applicable",
        "node '%s': its weights are encoded (%s), and %s", e->id, e->form ? e->form : "dense", why->text);
}

/* The layer's weights in t->graph become floats, if they are none yet. */
static int decode(struct trainable *t, const struct layer_entry *e, const struct weight *form, float **ret,
    struct error *err) {
    const struct tensor *init = t->graph->values[t->graph->nodes[e->node].in[1]].init;
    struct tensor f = {.dtype = DT_F32, .shape = form ? form->shape : init->shape};
    _cleanup_(freep) float *w = calloc((size_t)e->params + 1, sizeof(*w));
    const char *name;
    char base[512];
    int r = 0, value;

    if (!w)
        return error_oom(err);
    if (form)
        r = weight_decode(form, w, err);
    else
        memcpy(w, init->data, (size_t)e->params * sizeof(*w));
    if (r < 0)
        return r;
    if (form) {
        f.data = w;
        snprintf(base, sizeof(base), "%.400s_latent", e->id);
        name = graph_unique_name(t->graph, base);
        value = name ? graph_add_init(t->graph, name, &f, /* data_lives= */ false) : -ENOMEM;
        if (value < 0)
            return error_oom(err);
        t->graph->nodes[e->node].in[1] = value;
    }
    *ret = TAKE(w);
    return 0;
}

/* `encoded` and `graph` have the same nodes here. */
static int open_layer(struct trainable *t, const struct layer_entry *e, struct error *err) {
    int in = t->encoded->nodes[e->node].in[1];
    const struct tensor *init = t->encoded->values[in].init;
    const struct weight *form = NULL;
    _cleanup_(freep) float *w = NULL;
    struct trainable_layer *l = &t->layer[t->n_layers];
    struct error why = {0};
    int r;

    if (init && init->dtype != DT_F32)
        return 0; /* not learned, as any other constant */
    r = init ? 0 : weight_match(t->encoded, in, &form, NULL, err);
    if (r == 0)
        r = decode(t, e, form, &w, err);
    if (r < 0)
        return r;
    *l = (struct trainable_layer){.n = e->params};
    t->n_layers++;
    l->id = strdup(e->id);
    if (!l->id)
        return error_oom(err);
    r = trainable_layer_init(l, form, w, t->learns_scales, &why);
    if (r == -EOPNOTSUPP)
        return refuse(e, &why, err);
    if (r < 0)
        return error_copy(err, &why);
    if (!form && l->n_chain == 0) { /* nothing to hold */
        trainable_layer_done(l);
        t->n_layers--;
    }
    return 0;
}

static bool has_forms(const struct layers *l) {
    for (size_t i = 0; i < l->n; i++)
        if (l->entry[i].form)
            return true;
    return false;
}

/* Weights behind an Identity are layers, too; but patterns of forms may hold steps that change nothing. */
static int take_copy(struct trainable *t, const struct graph *g, struct error *err) {
    _cleanup_(layers_done) struct layers layers = {0};
    int r = graph_clone(g, &t->encoded, err);

    if (r == 0)
        r = layers_list(t->encoded, NULL, &layers, err);
    if (r == 0 && !has_forms(&layers))
        r = pass_remove_identities(t->encoded, err);
    return r < 0 ? r : graph_clone(t->encoded, &t->graph, err);
}

static int open_layers(struct trainable *t, struct error *err) {
    _cleanup_(layers_done) struct layers layers = {0};
    int r = layers_list(t->encoded, NULL, &layers, err);

    t->layer = calloc(layers.n + 1, sizeof(*t->layer));
    if (r == 0 && !t->layer)
        return error_oom(err);
    for (size_t i = 0; r == 0 && i < layers.n; i++)
        r = open_layer(t, &layers.entry[i], err);
    return r;
}

static struct tensor *weights_of(const struct graph *g, const char *id) {
    int node = graph_find_node(g, id);
    int in = node >= 0 && g->nodes[node].n_in > 1 ? g->nodes[node].in[1] : -1;
    const struct tensor *t = in >= 0 ? g->values[in].init : NULL;

    return t && t->dtype == DT_F32 ? (struct tensor *)(uintptr_t)t : NULL;
}

/* Layers whose codebook decides alone have no use for latents. */
static int take_latents(struct trainable *t, const struct graph *latents, struct error *err) {
    for (size_t i = 0; latents && i < t->n_layers; i++) {
        const struct trainable_layer *l = &t->layer[i];
        const struct tensor *from = weights_of(latents, l->id), *to = weights_of(t->graph, l->id);

        if (!from || !to || !shape_equal(&from->shape, &to->shape))
            continue;
        if (graph_set_copy(t->graph, t->graph->nodes[graph_find_node(t->graph, l->id)].in[1], from) < 0)
            return error_oom(err);
    }
    return 0;
}

/* ---- transforms ---- */

static int collect(struct trainable *t, struct error *err) {
    t->weights = calloc(t->n_layers * TRAINABLE_MAX_CHAIN + 1, sizeof(*t->weights));
    t->activations = calloc(t->n_values + 1, sizeof(*t->activations));
    if (!t->weights || !t->activations)
        return error_oom(err);
    for (size_t i = 0; i < t->n_layers; i++) {
        const struct trainable_layer *l = &t->layer[i];
        int node = graph_find_node(t->graph, l->id);

        for (int k = 0; node >= 0 && k < l->n_chain; k++)
            t->weights[t->n_weights++] = (struct weight_transform){
                .value = t->graph->nodes[node].in[1], .row = l->chain[k].row, .param = l->chain[k].param};
    }
    for (size_t i = 0; i < t->n_values; i++) {
        const struct trainable_value *v = &t->value[i];

        t->activations[i] = (struct activation_transform){.value = graph_find_value(t->graph, v->name),
            .consumer = v->consumer,
            .row = activation_find(v->learns ? "lsq" : "clip_quantize"),
            .param = v->learns ? (const void *)&v->lsq : &v->param};
    }
    return 0;
}

static bool digest_layer(EVP_MD_CTX *md, const struct trainable_layer *l) {
    bool ok = EVP_DigestUpdate(md, l->id, strlen(l->id) + 1);

    for (int k = 0; k < l->n_chain; k++)
        ok = ok && EVP_DigestUpdate(md, l->chain[k].row->name, strlen(l->chain[k].row->name) + 1);
    ok = ok && (!l->keep || EVP_DigestUpdate(md, l->keep, (size_t)l->n));
    ok = ok && (!l->index || EVP_DigestUpdate(md, l->index, (size_t)l->n));
    return ok &&
           (!l->scale ||
               EVP_DigestUpdate(md, l->scale,
                   sizeof(float) * (size_t)(l->form->rows > 1 && strcmp(l->form->scales->name, "channel") == 0
                                                ? l->form->rows
                                                : 1)));
}

/* What the transforms are: parameters themselves are in the training's own key. */
static int make_key(struct trainable *t, struct error *err) {
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    unsigned char digest[EVP_MAX_MD_SIZE];
    bool ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL);

    for (size_t i = 0; i < t->n_layers; i++)
        ok = ok && digest_layer(md, &t->layer[i]);
    for (size_t i = 0; i < t->n_values; i++)
        ok = ok && EVP_DigestUpdate(md, t->value[i].name, strlen(t->value[i].name) + 1) &&
             EVP_DigestUpdate(md, &t->value[i].param, sizeof(t->value[i].param));
    ok = ok && EVP_DigestFinal_ex(md, digest, NULL);
    EVP_MD_CTX_free(md);
    for (int i = 0; ok && i < 32; i++)
        snprintf(t->key + 2 * i, 3, "%02x", digest[i]);
    return ok ? 0 : error_oom(err);
}

static int check_codes(const struct graph *g, struct error *err) {
    for (size_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op->sees_codes)
            return error_code(err, -EBADMSG, "method_not_applicable",
                "node '%s': %s cannot be trained; a network quantised with QuantizeLinear and DequantizeLinear can",
                g->nodes[i].id, g->nodes[i].op_type);
    return 0;
}

int trainable_open(
    const struct graph *g, const struct trainable_options *o, struct trainable **ret, struct error *err) {
    _cleanup_(trainable_freep) struct trainable *t = calloc(1, sizeof(*t));
    int r;

    if (!t)
        return error_oom(err);
    t->learns_scales = o && o->learns_scales;
    r = take_copy(t, g, err);
    if (r == 0)
        r = open_layers(t, err);
    if (r == 0)
        r = trainable_values_take(t, err);
    if (r == 0)
        r = pass_remove_identities(t->graph, err);
    if (r == 0)
        r = pass_fold_constants(t->graph, err);
    if (r == 0)
        r = check_codes(t->graph, err);
    if (r == 0)
        r = take_latents(t, o ? o->latents : NULL, err);
    if (r == 0)
        r = collect(t, err);
    if (r == 0)
        r = make_key(t, err);
    if (r < 0)
        return r;
    *ret = TAKE(t);
    return 0;
}

/* ---- training ---- */

static bool is_scale_of(const struct train_param *p, const char *name) {
    size_t n = strlen(name);

    return strncmp(p->name, name, n) == 0 && strcmp(p->name + n, "/scale") == 0;
}

/* A step that is too large for a value's scale would take the value away for good. */
#define SCALE_WITHIN 4.0f

static float kept_within(const struct trainable_value *v, float scale) {
    return fminf(fmaxf(scale, v->lsq.scale / SCALE_WITHIN), v->lsq.scale * SCALE_WITHIN);
}

static int confine_scales(
    void *ctx, struct trainer *trainer, int64_t step, int64_t n_steps, struct error *err) {
    struct trainable *t = ctx;

    (void)step;
    (void)n_steps;
    (void)err;
    for (size_t i = 0; i < trainer_n_params(trainer); i++) {
        const struct train_param *p = trainer_param(trainer, i);

        for (size_t k = 0; p->value < 0 && k < t->n_values; k++)
            if (t->value[k].learns && is_scale_of(p, t->value[k].name))
                p->data[0] = kept_within(&t->value[k], p->data[0]);
    }
    return 0;
}

/* Learned scales are parameters of the transforms, which have no place in a graph. */
static int read_scales(void *ctx, const struct trainer *trainer, struct error *err) {
    struct trainable *t = ctx;

    for (size_t i = 0; i < trainer_n_params(trainer); i++) {
        const struct train_param *p = trainer_param(trainer, i);

        for (size_t k = 0; p->value < 0 && k < t->n_values; k++)
            if (t->value[k].learns && is_scale_of(p, t->value[k].name))
                t->value[k].learned = kept_within(&t->value[k], p->data[0]);
        for (size_t k = 0; p->value < 0 && k < t->n_layers; k++) {
            struct trainable_layer *l = &t->layer[k];
            int node = graph_find_node(t->graph, l->id);
            const char *name = node < 0 ? "" : t->graph->values[t->graph->nodes[node].in[1]].name;

            if (!is_scale_of(p, name))
                continue;
            free(l->learned);
            l->learned = malloc((size_t)p->n * sizeof(*l->learned) + 1);
            if (!l->learned)
                return error_oom(err);
            memcpy(l->learned, p->data, (size_t)p->n * sizeof(*l->learned));
        }
    }
    return 0;
}

static int deploy(void *ctx, const struct graph *g, struct graph **ret, struct error *err) {
    return trainable_close(ctx, g, ret, err);
}

void trainable_run(struct trainable *t, struct learn_run *run) {
    run->weights = t->weights;
    run->n_weights = t->n_weights;
    run->activations = t->activations;
    run->n_activations = t->n_values;
    run->transforms_key = t->key;
    if (t->learns_scales) {
        t->hook = (struct learn_hook){.ctx = t, .begin = confine_scales, .done = read_scales};
        run->hook = &t->hook;
    }
    if (trainable_is_encoded(t)) {
        run->deploy = deploy;
        run->deploy_ctx = t;
    }
}
