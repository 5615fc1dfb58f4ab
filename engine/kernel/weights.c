#include "engine/kernel/weights.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

bool kernel_has_weights(const struct layer *l) {
    return l->n_in > 1 && l->in[1] && (l->node->weight || (l->in[1]->data && l->in[1]->dtype == DT_F32));
}

const struct shape *kernel_weight_shape(const struct layer *l) {
    return l->node->weight ? &l->node->weight->shape : &l->in[1]->shape;
}

const void *kernel_plain_weights(const struct layer *l) {
    const struct weight *w = l->node->weight;

    if (!w)
        return l->in[1]->data;
    return weight_is_plain(w) ? w->codes->data : NULL;
}

int kernel_copy_weights(const struct layer *l, float *ret, struct error *err) {
    size_t bytes;

    if (l->node->weight)
        return weight_decode(l->node->weight, ret, err);
    if (!shape_bytes(&l->in[1]->shape, DT_F32, &bytes))
        return error_set(err, -EFBIG, "weights are too large");
    memcpy(ret, l->in[1]->data, bytes);
    return 0;
}

/* Names in files are of any length and two nodes may share none: the node's place in the graph, which
 * lives as long as the packs, makes the key unique. */
const char *kernel_pack_key(
    char buf[static PACK_KEY_MAX], const char *kernel, const struct layer *l, const char *what) {
    snprintf(buf, PACK_KEY_MAX, "%s/%td/%.200s/%s", kernel, l->node - l->graph->nodes,
        l->node->id ? l->node->id : "", what);
    return buf;
}

int kernel_decoded_weights(
    const struct layer *l, struct pack_cache *packs, const struct pack **ret, struct error *err) {
    char key[PACK_KEY_MAX];
    const struct pack *found;
    struct pack *p;
    size_t bytes;
    int r;

    kernel_pack_key(key, "decoded", l, "w");
    found = pack_find(packs, key);
    if (found) {
        *ret = found;
        return 0;
    }
    if (!shape_bytes(kernel_weight_shape(l), DT_F32, &bytes))
        return error_set(err, -EFBIG, "weights are too large");
    r = pack_new(key, NULL, 0, bytes, &p, err);
    if (r < 0)
        return r;
    r = kernel_copy_weights(l, p->data, err);
    if (r < 0) {
        pack_drop(p);
        return r;
    }
    *ret = pack_publish(packs, p);
    return 0;
}
