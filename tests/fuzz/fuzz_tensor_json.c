/* An infer body: cut, and every array scanned as the type and shape that the first bytes choose. What was
 * read as floats must be written and read back to the same bits. */
#include <stdlib.h>
#include <string.h>

#include "api/tensor_json.h"
#include "tests/fuzz/fuzz.h"

static const enum dtype types[] = {DT_F32, DT_F64, DT_U8, DT_S8, DT_U16, DT_S16, DT_U32, DT_S32, DT_U64,
    DT_S64, DT_BOOL, DT_F16, DT_F32, DT_F32, DT_F32, DT_S64};

static void check_round_trip(const float *v, size_t n, const struct shape *shape) {
    struct tensor_span span;
    struct error err = {0};
    struct buf b;
    float *again = calloc(n, sizeof(*again));

    buf_init(&b, 1 << 20);
    if (!again || tensor_json_write(&b, DT_F32, v, n, &err))
        abort();
    span = (struct tensor_span){b.data, b.size};
    if (tensor_json_scan(&span, DT_F32, shape, again, &err) || memcmp(v, again, n * sizeof(*v)) != 0)
        abort();
    free(again);
    buf_done(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct shape shape = {.rank = 1, .dim = {1}};
    struct tensor_json t;
    struct error err = {0};
    int64_t n = 1;
    char *text;

    if (size < 2)
        return 0;
    text = strndup((const char *)data + 2, size - 2); /* up to a zero byte: a body with one is refused */
    if (!text)
        return 0;
    shape.rank = 1 + data[1] % 3;
    for (int i = 0; i < shape.rank; i++) {
        shape.dim[i] = 1 + (data[1] >> (2 * i + 2)) % 4;
        n *= shape.dim[i];
    }
    tensor_json_init(&t);
    if (!tensor_json_cut(&t, text, strlen(text), 64, &err))
        for (size_t i = 0; i < t.n_spans; i++) {
            enum dtype type = types[data[0] % 16];
            void *out = malloc((size_t)n * dtype_info(type)->bits / 8); /* exact, so that a sanitiser sees */

            error_clear(&err);
            if (out && !tensor_json_scan(&t.span[i], type, &shape, out, &err) && type == DT_F32)
                check_round_trip(out, (size_t)n, &shape);
            free(out);
        }
    tensor_json_done(&t);
    free(text);
    return 0;
}
