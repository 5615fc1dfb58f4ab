#include "engine/constant.h"

int constant_ints(const struct graph *g, int value, int64_t *ret, int max) {
    const struct tensor *t = constant_of(g, value);
    int64_t n;

    if (!t || (t->dtype != DT_S64 && t->dtype != DT_S32) || !shape_count(&t->shape, &n) || n > max)
        return -1;
    for (int64_t i = 0; i < n; i++) {
        int32_t v32;

        if (t->dtype == DT_S64) {
            memcpy(&ret[i], (const uint8_t *)t->data + (size_t)i * 8, 8);
            continue;
        }
        memcpy(&v32, (const uint8_t *)t->data + (size_t)i * 4, 4);
        ret[i] = v32;
    }
    return (int)n;
}
