/* Codes that are looked up in a book: lut1 to lut8 by its length, bit (-1, 1) and trit (-1, 0, 1), and
 * product (words of several elements):
 *
 *     indices ── Cast ── Gather(book[words] or [words][dim]) ── Reshape
 *
 * Indices of 1, 2 and 4 bits lie packed in bytes, low bits first; the Gather is then in the table of what
 * each byte stands for, int8[256][8 / bits], so that opset 13 suffices; elements that fill no byte are cut
 * off:
 *
 *     uint8[bytes] ── Cast ── Gather(table) ── (Reshape[-1] ── Slice[0:n]) ── Reshape
 *
 * Packed 4-bit codes whose book is -8 … 7 are s4. */
#include <errno.h>
#include <string.h>

#include "engine/constant.h"
#include "engine/weight_rows.h"

static size_t element_size(const struct tensor *t) {
    return dtype_info(t->dtype)->bits / 8;
}

bool weight_is_unpack_table(const struct tensor *table, unsigned *ret_bits) {
    const char *p = table->data;
    size_t size = element_size(table), per = (size_t)table->shape.dim[1];
    unsigned bits = per ? (unsigned)(8 / per) : 0;

    if (table->shape.dim[0] != 256 || (per != 2 && per != 4 && per != 8))
        return false;
    for (unsigned b = 0; b < 256; b++)
        for (unsigned j = 0; j < per; j++) {
            unsigned code = b >> (j * bits) & ((1u << bits) - 1);

            if (memcmp(p + (b * per + j) * size, p + code * per * size, size) != 0)
                return false;
        }
    *ret_bits = bits;
    return true;
}

int weight_write_unpack(struct weight_writer *to, const char *suffix, const struct tensor *codes,
    unsigned bits, const struct tensor *book, const struct shape *shape) {
    unsigned per = 8 / bits;
    size_t size = element_size(book);
    char table[256 * 8 * sizeof(int64_t)], text[64];
    struct tensor t = {.dtype = book->dtype, .shape = {.rank = 2, .dim = {256, per}}, .data = table};
    struct shape flat = {.rank = 1}, bytes = codes->shape, wide = {.rank = 2, .dim = {0, per}};
    int64_t n, n_bytes, minus = -1, zero = 0;
    int in[3], v;

    if (!shape_count(shape, &n) || !shape_count(&bytes, &n_bytes) || size > sizeof(int64_t) ||
        (n + per - 1) / per != n_bytes)
        return -EINVAL;
    for (unsigned b = 0; b < 256; b++)
        for (unsigned j = 0; j < per; j++)
            memcpy(table + (b * per + j) * size,
                (const char *)book->data + (b >> (j * bits) & ((1u << bits) - 1)) * size, size);
    wide.dim[0] = n_bytes;
    in[1] = weight_write_init(to, suffix, codes);
    snprintf(text, sizeof(text), "%s_table", suffix);
    in[0] = weight_write_init(to, text, &t);
    in[1] = weight_write_cast(to, "index", in[1], DT_S32, &bytes);
    v = weight_write_node(to, "Gather", "unpacked", in, 2, book->dtype, &wide);
    if (n % per == 0)
        return weight_write_reshape(to, "shaped", v, book->dtype, shape);
    flat.dim[0] = n_bytes * per;
    in[0] = v;
    in[1] = weight_write_ints(to, "flat_shape", &minus, 1);
    v = weight_write_node(to, "Reshape", "flat", in, 2, book->dtype, &flat);
    flat.dim[0] = n;
    in[0] = v;
    in[1] = weight_write_ints(to, "start", &zero, 1);
    in[2] = weight_write_ints(to, "end", &n, 1);
    v = weight_write_node(to, "Slice", "cut", in, 3, book->dtype, &flat);
    return weight_write_reshape(to, "shaped", v, book->dtype, shape);
}

/* Parts of the pattern, as found. */
struct lookup {
    const struct tensor *book, *index;
    int index_value;
    bool has_shape;
    struct shape shape; /* of the Reshape */
    int64_t cut;        /* elements the Slice leaves; -1: none */
};

static int match_slice(const struct graph *g, int v, int64_t *ret_n) {
    const struct node *n = weight_producer(g, v, "Slice");
    int64_t start, end, axis = 0, step = 1;

    if (!n || n->n_in < 3 || constant_ints(g, n->in[1], &start, 1) != 1 ||
        constant_ints(g, n->in[2], &end, 1) != 1 || start != 0 || end < 1)
        return -1;
    if ((n->n_in > 3 && n->in[3] >= 0 && constant_ints(g, n->in[3], &axis, 1) != 1) ||
        (n->n_in > 4 && n->in[4] >= 0 && constant_ints(g, n->in[4], &step, 1) != 1) || axis != 0 || step != 1)
        return -1;
    *ret_n = end;
    return n->in[0];
}

static bool find_lookup(const struct graph *g, int v, struct lookup *ret) {
    struct shape flat;
    const struct node *n;
    enum dtype to;
    int from = weight_match_reshape(g, v, &ret->shape);

    *ret = (struct lookup){.has_shape = from >= 0, .shape = ret->shape, .cut = -1};
    v = from >= 0 ? from : v;
    from = match_slice(g, v, &ret->cut);
    if (from >= 0) {
        v = weight_match_reshape(g, from, &flat);
        if (v < 0 || flat.rank != 1)
            return false;
    }
    n = weight_producer(g, v, "Gather");
    if (!n || node_attr_int(n, "axis", 0) != 0)
        return false;
    ret->book = weight_input(g, n, 0);
    ret->index_value = weight_match_cast(g, n->in[1], &to);
    if (!ret->book || ret->index_value < 0)
        return false;
    ret->index = g->values[ret->index_value].init;
    return true;
}

/* The book of a table: its column 0, of 2^bits words. */
static const struct tensor *column(struct graph *g, const struct tensor *table, unsigned bits) {
    struct tensor *t = graph_alloc(g, sizeof(*t));
    size_t size = element_size(table), per = (size_t)table->shape.dim[1];

    if (!t)
        return NULL;
    *t = (struct tensor){.dtype = table->dtype, .shape = {.rank = 1, .dim = {1 << bits}}};
    t->data = graph_alloc(g, size << bits);
    for (size_t i = 0; t->data && i < (size_t)1 << bits; i++)
        memcpy((char *)t->data + i * size, (const char *)table->data + i * per * size, size);
    return t->data ? t : NULL;
}

static bool all_between(const struct tensor *book, int low, int high, bool without_zero) {
    for (int64_t i = 0; i < book->shape.dim[0]; i++) {
        int v = ((const int8_t *)book->data)[i];

        if (v < low || v > high || (without_zero && v == 0))
            return false;
    }
    return true;
}

static bool is_nibble(const struct tensor *book) {
    for (int i = 0; i < 16; i++)
        if (((const int8_t *)book->data)[i] != (i < 8 ? i : i - 16))
            return false;
    return true;
}

static const struct weight_code *code_of(const struct tensor *book, unsigned stored_bits) {
    static const struct weight_code *const luts[] = {&weight_code_lut1, &weight_code_lut2, &weight_code_lut3,
        &weight_code_lut4, &weight_code_lut5, &weight_code_lut6, &weight_code_lut7, &weight_code_lut8};
    int64_t n = book->shape.dim[0];

    if (book->shape.rank == 2)
        return &weight_code_product;
    if (book->dtype == DT_S8 && n <= 2 && all_between(book, -1, 1, true))
        return &weight_code_bit;
    if (book->dtype == DT_S8 && n <= 4 && all_between(book, -1, 1, false))
        return &weight_code_trit;
    if (book->dtype == DT_S8 && n == 16 && stored_bits == 4 && is_nibble(book))
        return &weight_code_s4;
    for (unsigned bits = 1; bits <= 8; bits++)
        if (n <= 1 << bits)
            return luts[bits - 1];
    return NULL;
}

bool weight_is_index_type(enum dtype t) {
    const struct dtype_info *info = dtype_info(t);

    return info && !info->is_float && t != DT_BOOL && t != DT_U64;
}

/* How many elements the indices stand for: a byte several codes, or a code several elements. */
static bool count_elements(const struct lookup *l, unsigned bits, int64_t *ret) {
    int64_t n, per = bits ? 8 / bits : l->book->shape.rank == 2 ? l->book->shape.dim[1] : 1;

    if (!shape_count(&l->index->shape, &n) || __builtin_mul_overflow(n, per, &n))
        return false;
    if (l->cut >= 0 && (!l->has_shape || l->cut > n || (bits && l->cut <= n - per) || (!bits && l->cut != n)))
        return false;
    *ret = l->cut >= 0 ? l->cut : n;
    return n > 0;
}

static bool can_look_up(const struct lookup *l) {
    const struct shape *s = &l->book->shape;

    return (l->book->dtype == DT_S8 || l->book->dtype == DT_F32) && weight_is_index_type(l->index->dtype) &&
           (s->rank == 1 || (s->rank == 2 && s->dim[1] > 0)) && s->dim[0] > 0;
}

static int lut_match(struct graph *g, int v, struct weight *w, struct shape *ret_shape, int *ret_codes) {
    struct lookup l = {0};
    unsigned bits = 0;
    int64_t n;

    if (!find_lookup(g, v, &l) || !can_look_up(&l))
        return 0;
    if (l.book->shape.rank == 2 && l.index->dtype == DT_U8 && weight_is_unpack_table(l.book, &bits)) {
        l.book = column(g, l.book, bits);
        if (!l.book)
            return -ENOMEM;
    }
    *ret_shape = l.has_shape ? l.shape : l.index->shape;
    if (!count_elements(&l, bits, &n) || (!l.has_shape && (bits || l.book->shape.rank == 2)) ||
        !weight_resolve(ret_shape, n))
        return 0;
    w->code = code_of(l.book, bits);
    w->book = w->code == &weight_code_s4 ? NULL : l.book;
    w->stored_bits = bits;
    w->codes = l.index;
    *ret_codes = l.index_value;
    return w->code ? 1 : 0;
}

static int lut_emit(struct weight_writer *to, const struct weight *w, const struct shape *stored) {
    struct shape gathered = w->codes->shape;
    int in[2], v;

    if (w->stored_bits)
        return weight_write_unpack(to, "codes", w->codes, w->stored_bits, w->book, stored);
    if (w->book->shape.rank == 2) {
        if (gathered.rank >= SHAPE_MAX_RANK)
            return -EINVAL;
        gathered.dim[gathered.rank++] = w->book->shape.dim[1];
    }
    in[1] = weight_write_init(to, "codes", w->codes);
    in[0] = weight_write_init(to, "book", w->book);
    in[1] = weight_write_cast(to, "index", in[1], DT_S32, &w->codes->shape);
    v = weight_write_node(to, "Gather", "looked_up", in, 2, w->book->dtype, &gathered);
    if (v < 0 || shape_equal(&gathered, stored))
        return v;
    return weight_write_reshape(to, "shaped", v, w->book->dtype, stored);
}

/* The rows share a match: which of them it is follows from the book. */
#define LUT_ROW(row, text, n_bits)                                                                           \
    const struct weight_code weight_code_##row = {.name = text,                                              \
        .dtype = DT_S8,                                                                                      \
        .bits = n_bits,                                                                                      \
        .is_looked_up = true,                                                                                \
        .match = lut_match,                                                                                  \
        .emit = lut_emit}

LUT_ROW(bit, "bit", 1);
LUT_ROW(trit, "trit", 2);
LUT_ROW(lut1, "lut1", 1);
LUT_ROW(lut2, "lut2", 2);
LUT_ROW(lut3, "lut3", 3);
LUT_ROW(lut4, "lut4", 4);
LUT_ROW(lut5, "lut5", 5);
LUT_ROW(lut6, "lut6", 6);
LUT_ROW(lut7, "lut7", 7);
LUT_ROW(lut8, "lut8", 8);
LUT_ROW(product, "product", 8);
