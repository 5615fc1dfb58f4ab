#include "engine/kernel/conv_pack_f32.h"

#include <string.h>

#include "engine/kernel/weights.h"

bool conv_pack_f32_fits(const struct layer *l, struct conv_geometry *ret) {
    const struct tensor *bias = l->n_in > 2 ? l->in[2] : NULL;

    if (!kernel_has_weights(l) || l->in[0]->data || l->in[0]->dtype != DT_F32 || l->out[0].dtype != DT_F32)
        return false;
    return (!bias || (bias->data && bias->dtype == DT_F32)) &&
           conv_geometry_init(l, kernel_weight_shape(l), ret);
}

int conv_pack_f32_bias(
    const struct layer *l, struct pack_cache *packs, int64_t n, const float **ret, struct error *err) {
    const struct tensor *t = l->n_in > 2 ? l->in[2] : NULL;
    const struct pack *found;
    char key[PACK_KEY_MAX];
    struct pack *p;

    found = pack_find(packs, kernel_pack_key(key, "conv_f32", l, "b"));
    if (!found) {
        int r = pack_new(key, NULL, 0, (size_t)((n + 15) / 16 * 16) * sizeof(float), &p, err);

        if (r < 0)
            return r;
        if (t)
            memcpy(p->data, t->data, (size_t)n * sizeof(float));
        found = pack_publish(packs, p);
    }
    *ret = found->data;
    return 0;
}
