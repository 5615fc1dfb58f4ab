#include "engine/hugemem.h"
#include "engine/net.h"

int arena_reserve(struct arena *a, size_t size, struct error *err) {
    void *data;

    if (a->size >= size)
        return 0;
    data = hugemem_new(size);
    if (!data)
        return error_oom(err);
    hugemem_free(a->data, a->size);
    a->data = data;
    a->size = size;
    return 0;
}

void arena_done(struct arena *a) {
    hugemem_free(a->data, a->size);
    *a = (struct arena){0};
}
