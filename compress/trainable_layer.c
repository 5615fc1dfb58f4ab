/* Which transforms a weight form is while it learns. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/trainable_priv.h"

static void add(struct trainable_layer *l, const char *row, const void *param) {
    l->chain[l->n_chain].row = transform_find(row);
    l->chain[l->n_chain++].param = param;
}

void trainable_layer_done(struct trainable_layer *l) {
    free(l->id);
    free(l->keep);
    free(l->index);
    free(l->entries);
    free(l->scale);
    free(l->learned);
}

/* ---- which weights there are ---- */

static int add_mask(struct trainable_layer *l) {
    l->mask = (struct transform_mask){.keep = l->keep};
    add(l, "mask", &l->mask);
    return 0;
}

static int mask_places(struct trainable_layer *l, const struct weight *form, struct error *err) {
    int64_t n = weight_count_stored(form);
    _cleanup_(freep) uint32_t *place = malloc((size_t)n * sizeof(*place) + 1);
    int r;

    l->keep = calloc((size_t)l->n + 1, 1);
    if (!l->keep || !place)
        return error_oom(err);
    r = weight_get_places(form, place, err);
    for (int64_t i = 0; r == 0 && i < n; i++)
        l->keep[place[i]] = 1;
    return r < 0 ? r : add_mask(l);
}

static int mask_zeros(struct trainable_layer *l, const float *w, struct error *err) {
    int64_t zeros = 0;

    for (int64_t i = 0; i < l->n; i++)
        zeros += w[i] == 0;
    if ((double)zeros < TRAINABLE_SPARSE_FROM * (double)l->n)
        return 0;
    l->keep = calloc((size_t)l->n + 1, 1);
    if (!l->keep)
        return error_oom(err);
    for (int64_t i = 0; i < l->n; i++)
        l->keep[i] = w[i] != 0;
    return add_mask(l);
}

/* ---- what a code is ---- */

static bool is_per_channel(const struct weight *form) {
    return strcmp(form->scales->name, "channel") == 0;
}

static int copy_scale(struct trainable_layer *l, const struct weight *form, struct error *err) {
    int64_t n = is_per_channel(form) ? form->rows : 1;

    l->scale = malloc((size_t)n * sizeof(*l->scale) + 1);
    if (!l->scale)
        return error_oom(err);
    for (int64_t i = 0; i < n; i++)
        l->scale[i] = form->scale ? weight_scale_at(form, i) : 1;
    return 0;
}

static bool has_zero_points(const struct weight *form) {
    for (int64_t i = 0; form->zero && i < form->rows; i++)
        if (weight_zero_at(form, i) != 0)
            return true;
    return false;
}

static int add_integers(
    struct trainable_layer *l, const struct weight *form, int bits, bool learns, struct error *err) {
    int r = copy_scale(l, form, err);

    if (r < 0)
        return r;
    l->param.fake = (struct transform_fake_quantize){.bits = bits,
        .range = is_per_channel(form) ? TRANSFORM_CHANNEL : TRANSFORM_LAYER,
        .scale = l->scale,
        .learns_scale = learns};
    add(l, "fake_quantize", &l->param.fake);
    return 0;
}

static float entry_at(const struct tensor *book, int64_t k) {
    float v;

    if (book->dtype == DT_S8)
        return (float)((const int8_t *)book->data)[k];
    memcpy(&v, (const char *)book->data + (size_t)k * sizeof(v), sizeof(v));
    return v;
}

/* One scale a layer goes into the entries, those of channels stay. Entries of int8 are learned as shares of
 * the largest, so that they and float weights move alike. The entry of zeros, if there is one, stays. */
static int add_book(struct trainable_layer *l, const struct weight *form, struct error *err) {
    int64_t n = form->book->shape.dim[0];
    float unit = is_per_channel(form) && form->book->dtype == DT_S8 ? INT8_MAX : 1;
    float one = !is_per_channel(form) && form->scale ? weight_scale_at(form, 0) : 1 / unit;
    int zero = -1, r = 0;

    if (form->book->shape.rank != 1 || n > 256 || (form->book->dtype != DT_S8 && form->book->dtype != DT_F32))
        return error_set(err, -EOPNOTSUPP, "codebooks of this type cannot be trained");
    l->index = calloc((size_t)l->n + 1, 1);
    l->entries = calloc((size_t)n + 1, sizeof(*l->entries));
    if (!l->index || !l->entries)
        return error_oom(err);
    r = weight_get_indices(form, l->index, err);
    if (r == 0 && is_per_channel(form))
        r = copy_scale(l, form, err);
    if (r < 0)
        return r;
    l->unit = unit;
    for (int64_t i = 0; l->scale && i < form->rows; i++)
        l->scale[i] *= unit;
    for (int64_t k = 0; k < n; k++) {
        l->entries[k] = one * entry_at(form->book, k);
        if (l->entries[k] == 0)
            zero = (int)k;
    }
    for (int64_t i = 0; i < l->n; i++) /* the engine takes codes beyond the book for its last word */
        if (l->index[i] >= n)
            l->index[i] = (uint8_t)(n - 1);
    l->param.book = (struct transform_codebook){.index = l->index,
        .entries = l->entries,
        .n_entries = (int)n,
        .range = TRANSFORM_LAYER,
        .scale = l->scale,
        .zero = zero};
    add(l, "codebook", &l->param.book);
    return 0;
}

static int add_sign(struct trainable_layer *l, const struct weight *form) {
    l->param.sign = (struct transform_sign){.magnitude = !form->scale           ? TRANSFORM_ONE
                                                         : is_per_channel(form) ? TRANSFORM_MEAN_CHANNEL
                                                                                : TRANSFORM_MEAN_LAYER,
        .gradient = TRANSFORM_STE};
    add(l, "sign", &l->param.sign);
    return 0;
}

static int add_ternary(struct trainable_layer *l, const struct weight *form) {
    l->param.ternary =
        (struct transform_ternary){.range = is_per_channel(form) ? TRANSFORM_CHANNEL : TRANSFORM_LAYER};
    add(l, "ternary", &l->param.ternary);
    return 0;
}

static int add_code(struct trainable_layer *l, const struct weight *form, bool learns, struct error *err) {
    const char *code = form->code->name;

    if (form->code->dtype == DT_F32)
        return 0;
    if (form->group || has_zero_points(form))
        return error_set(err, -EOPNOTSUPP, "weights with scales of blocks or zero points cannot be trained");
    if (strcmp(code, "s8") == 0)
        return add_integers(l, form, 8, learns, err);
    if (strcmp(code, "s4") == 0)
        return add_integers(l, form, 4, learns, err);
    if (strcmp(code, "bit") == 0)
        return add_sign(l, form);
    if (strcmp(code, "trit") == 0)
        return add_ternary(l, form);
    if (form->code->is_looked_up && form->book && form->book->shape.rank == 1 && !form->more)
        return add_book(l, form, err);
    return error_set(err, -EOPNOTSUPP, "weights in code '%s' cannot be trained", code);
}

int trainable_layer_init(struct trainable_layer *l, const struct weight *form, const float *w,
    bool learns_scales, struct error *err) {
    int r;

    l->form = form;
    if (!form)
        return mask_zeros(l, w, err);
    r = add_code(l, form, learns_scales, err);
    if (r == 0 && strcmp(form->structure->name, "dense") != 0)
        r = mask_places(l, form, err);
    else if (r == 0 && l->n_chain == 1 && strcmp(form->code->name, "s8") == 0)
        r = mask_zeros(l, w, err); /* a pruned layer's zeros, stored densely */
    return r;
}
