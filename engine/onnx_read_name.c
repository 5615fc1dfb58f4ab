/* Names: checked, copied, and turned into values. */
#include <errno.h>
#include <string.h>

#include "engine/onnx_read.h"

/* Overlong forms, surrogates and numbers over U+10FFFF are refused (Unicode 15, table 3-7). */
static bool is_utf8(const uint8_t *p, size_t size) {
    const uint8_t *end = p + size;

    while (p < end) {
        uint8_t c = *p++, low = 0x80, high = 0xbf;
        int more = c < 0x80 ? 0 : c < 0xc2 ? -1 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : c < 0xf5 ? 3 : -1;

        if (more < 0 || more > end - p || c == 0)
            return false;
        if (c == 0xe0)
            low = 0xa0;
        else if (c == 0xed)
            high = 0x9f;
        else if (c == 0xf0)
            low = 0x90;
        else if (c == 0xf4)
            high = 0x8f;
        for (; more > 0; more--, p++, low = 0x80, high = 0xbf)
            if (*p < low || *p > high)
                return false;
    }
    return true;
}

int onnx_read_name(
    struct graph *g, const struct wire *w, const struct wire_field *f, const char **ret, struct error *err) {
    struct bytes b;
    const char *s;
    int r = wire_get_bytes(w, f, &b, err);

    if (r < 0)
        return r;
    if (!is_utf8(b.data, b.size))
        return error_code(err, -EBADMSG, "invalid_model",
            "the text at byte %zu is not valid UTF-8 without zeros", f->offset);
    s = b.size ? graph_strdup(g, (const char *)b.data, b.size) : "";
    if (!s)
        return error_oom(err);
    *ret = s;
    return 0;
}

int onnx_value_id(struct graph *g, const char *name, int *ret, struct error *err) {
    int id = name[0] ? graph_find_value(g, name) : -1;

    if (id < 0 && name[0]) {
        id = graph_add_named(g, name);
        if (id == -EFBIG)
            return error_code(err, -EBADMSG, "invalid_model", "more than %u values", GRAPH_MAX_COUNT);
        if (id < 0)
            return error_oom(err);
    }
    *ret = id;
    return 0;
}
