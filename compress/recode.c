#include "compress/recode.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/encode.h"

static int copy_tensor(const struct tensor *from, struct tensor *to, struct error *err) {
    size_t size;

    *to = (struct tensor){.dtype = from->dtype, .shape = from->shape};
    if (!shape_bytes(&from->shape, from->dtype, &size) || !(to->data = malloc(size + 1)))
        return error_oom(err);
    memcpy(to->data, from->data, size);
    return 0;
}

static int copy_places(const struct weight *form, struct encoded *e, struct error *err) {
    int r;

    if (!form->place)
        return 0;
    r = copy_tensor(form->place, &e->place, err);
    if (r < 0)
        return r;
    e->w.place = &e->place;
    e->at = malloc((size_t)weight_count_stored(form) * sizeof(*e->at) + 1);
    return e->at ? weight_get_places(form, e->at, err) : error_oom(err);
}

static int copy_scales(const struct weight *form, const float *scale, struct encoded *e, struct error *err) {
    int64_t n;
    int r;

    if (!form->scale)
        return 0;
    r = copy_tensor(form->scale, &e->scale, err);
    if (r < 0)
        return r;
    e->w.scale = &e->scale;
    if (scale && shape_count(&e->scale.shape, &n))
        memcpy(e->scale.data, scale, (size_t)n * sizeof(*scale));
    return 0;
}

/* Entries that are integers already stay (nothing was learned); others take the whole range of int8: what
 * they are divided by goes into the scales. */
static float factor_of(const float *entries, int64_t n) {
    float most = 0, rest = 0, highest = 0;

    for (int64_t i = 0; i < n; i++) {
        most = fmaxf(most, fabsf(entries[i]));
        highest = fmaxf(highest, entries[i]);
        rest = fmaxf(rest, fabsf(entries[i] - nearbyintf(entries[i])));
    }
    return most == 0 || (most < 128.5f && highest < 127.5f && rest < 1e-3f) ? 1 : most / 127;
}

static void round_entries(const float *entries, int64_t n, struct encoded *e) {
    int8_t *book = e->book.data;
    float factor = factor_of(entries, n), *scale = e->scale.data;
    int64_t n_scale;

    for (int64_t i = 0; i < n; i++)
        book[i] = (int8_t)nearbyintf(entries[i] / factor);
    if (scale && shape_count(&e->scale.shape, &n_scale))
        for (int64_t i = 0; i < n_scale; i++)
            scale[i] *= factor;
}

/* The codes as they are, with another book. */
static int copy_codes(const struct weight *form, const float *entries, struct encoded *e, struct error *err) {
    int r = copy_tensor(form->codes, &e->codes, err);
    int64_t n;

    if (r == 0)
        r = copy_tensor(form->book, &e->book, err);
    if (r < 0)
        return r;
    e->w.codes = &e->codes;
    e->w.book = &e->book;
    if (!shape_count(&e->book.shape, &n))
        return error_oom(err);
    if (e->book.dtype == DT_S8)
        round_entries(entries, n, e);
    else
        memcpy(e->book.data, entries, (size_t)n * sizeof(*entries));
    return 0;
}

static bool can_recode(const struct weight *form, const struct recode_options *o) {
    const char *code = form->code->name;

    if (strcmp(code, "product") == 0 || strcmp(code, "u8") == 0)
        return false;
    return !form->code->is_looked_up || strcmp(code, "bit") == 0 || strcmp(code, "trit") == 0 ||
           (o->entries && (form->book->dtype == DT_F32 || (form->book->dtype == DT_S8 && form->scale)));
}

int recode_layer(struct graph *g, int node, const struct weight *form, const float *dense,
    const struct recode_options *o, float **ret_scale, int64_t *ret_n, struct error *err) {
    _cleanup_(encoded_done) struct encoded e = {.w = *form};
    struct encode_job j = {.w = dense, .form = *form};
    const char *id = g->nodes[node].id;
    int r, value;

    if (!can_recode(form, o))
        return error_set(err, -EOPNOTSUPP, "node '%s': weights in this form cannot be written again", id);
    e.w.stored_bits = 0;
    e.w.zero = NULL;
    e.w.book = NULL;
    r = copy_places(form, &e, err);
    if (r == 0)
        r = copy_scales(form, o->scale, &e, err);
    if (r == 0 && o->entries)
        r = copy_codes(form, o->entries, &e, err);
    else if (r == 0)
        r = encode_codes(&j, &e, err);
    if (r < 0)
        return r;
    if (o->entries)
        e.w.stored_bits = form->stored_bits;
    value = weight_emit(g, g->n_nodes, id, &e.w);
    if (value < 0)
        return error_set(err, value, "node '%s': its weights could not be written", id);
    g->nodes[node].in[1] = value;
    if (ret_scale) {
        *ret_n = 0;
        *ret_scale = e.scale.data;
        if (e.scale.data && !shape_count(&e.scale.shape, ret_n))
            return error_oom(err);
        e.scale.data = NULL;
    }
    return 0;
}
