/* Tensors in JSON, without a DOM of numbers: jansson would need 17 times as long and forty bytes a number
 * (survey/libraries.md 2).
 *
 *   tensor_json_cut()    tensor_json.c  copies the document without its inputs[].data arrays; "data":K stands
 *                                       for span K
 *   tensor_json_scan()   tensor_scan.c  span → numbers, when datatype and shape are known
 *   tensor_json_write()  tensor_text.c  numbers → text
 */
#ifndef API_TENSOR_JSON_H
#define API_TENSOR_JSON_H

#include <stddef.h>

#include "base/buf.h"
#include "base/error.h"
#include "engine/tensor.h"

#define TENSOR_JSON_MAX_SPANS 64
#define TENSOR_JSON_MAX_REST  (1u << 20) /* what may stand beside the numbers */

struct tensor_span {
    const char *text; /* from '[' */
    size_t size;      /* to the ']' that closes it, included */
};

struct tensor_json {
    struct buf rest;
    struct tensor_span span[TENSOR_JSON_MAX_SPANS];
    size_t n_spans;
};

void tensor_json_init(struct tensor_json *t);
void tensor_json_done(struct tensor_json *t);

/* Spans point into `text`, which a zero byte must follow. Errors: bad_json for nesting over `depth` and for
 * what cannot be followed, too_large for a rest over the limit. What is wrong with the rest itself, jansson
 * says. */
int tensor_json_cut(struct tensor_json *t, const char *text, size_t size, unsigned depth, struct error *err);

/* Exactly the shape's number of values into `ret` (its bytes are the caller's to check), flat or nested as
 * the shape. Floats as strtof and strtod give them; integers exactly. Errors without the input's name (the
 * caller prefixes it): bad_request for grammar, range, NaN, counts, and FP16, BF16 (binary only). */
int tensor_json_scan(
    const struct tensor_span *s, enum dtype dtype, const struct shape *shape, void *ret, struct error *err);

/* "[1,2.5,null]": flat; non-finite values are null; floats in the fewest of 6 to 9 digits that read back as
 * the same float. -EOPNOTSUPP for types that JSON cannot have. */
int tensor_json_write(struct buf *b, enum dtype dtype, const void *data, size_t n, struct error *err);

#endif
