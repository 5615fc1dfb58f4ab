#include "tests/unit/weight_sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TILE_IN 4
#define KEPT    2
#define GROUP   2
#define DIM     3 /* of words of a product codebook */

static bool is(const char *a, const char *b) {
    return strcmp(a, b) == 0;
}

static int64_t count(const struct shape *s) {
    int64_t n = 0;

    (void)shape_count(s, &n);
    return n;
}

static bool is_integer(const struct sample_kind *k) {
    return k->code->dtype != DT_F32 && !(k->code->is_looked_up && k->has_float_book);
}

/* Offset of element (output o, input i, tap t). */
static int64_t offset(const struct sample_kind *k, int64_t o, int64_t i, int64_t t, int64_t taps) {
    const int64_t *d = k->shape.dim;

    return (k->axis == 0 ? o * d[1] + i : i * d[1] + o) * taps + t;
}

static void set_place(struct sample *s, enum dtype t, int64_t n) {
    s->t_place = (struct tensor){.dtype = t, .shape = {.rank = 1, .dim = {n}}, .data = s->place};
    s->w.place = &s->t_place;
}

/* Gaps of 1 to 7: every stored element somewhere else. */
static int64_t fill_sparse(struct sample *s, const struct sample_kind *k) {
    int64_t at = 2, n = 0, total = count(&k->shape);

    for (; at < total; n++) {
        s->place[n] = (uint8_t)(n ? at - s->at[n - 1] : at);
        s->at[n] = at;
        at += 1 + n * 5 % 7;
    }
    n -= k->code->is_looked_up && is(k->code->name, "product") ? n % DIM : 0;
    set_place(s, DT_U8, n);
    s->w.n_stored = n;
    return n;
}

static int64_t fill_tiles(struct sample *s, const struct sample_kind *k) {
    int64_t taps = 1, n_out = k->shape.dim[k->axis], n_in = k->shape.dim[!k->axis], tile = 0, n = 0, last = 0;
    bool is_nm = is(k->structure->name, "nm");

    for (int i = 2; i < k->shape.rank; i++)
        taps *= k->shape.dim[i];
    if (k->shape.rank < 2 || n_in % TILE_IN)
        return -1;
    s->w.tile =
        (struct weight_tile){.out = 1, .in = TILE_IN, .kept = is_nm ? KEPT : TILE_IN, .out_axis = k->axis};
    for (int64_t o = 0; o < n_out; o++)
        for (int64_t t = 0; t < taps; t++)
            for (int64_t i = 0; i < n_in; i += TILE_IN, tile++) {
                if (!is_nm && tile % 3 != 1)
                    continue;
                if (!is_nm)
                    s->place[n / TILE_IN] = (uint8_t)(tile - last);
                last = tile;
                for (int64_t e = 0; e < s->w.tile.kept; e++, n++) {
                    int64_t in = is_nm ? (tile + 2 * e) % TILE_IN : e;

                    if (is_nm)
                        s->place[n / 4] |= (uint8_t)(in << n % 4 * 2);
                    s->at[n] = offset(k, o, i + in, t, taps);
                }
            }
    set_place(s, DT_U8, is_nm ? n / 4 : n / TILE_IN);
    s->w.n_stored = n;
    return n % 4 ? -1 : n;
}

static int64_t fill_places(struct sample *s, const struct sample_kind *k) {
    int64_t n = count(&k->shape);

    if (is(k->structure->name, "sparse"))
        return fill_sparse(s, k);
    if (!is(k->structure->name, "dense"))
        return fill_tiles(s, k);
    for (int64_t i = 0; i < n; i++)
        s->at[i] = i;
    return n;
}

static void fill_book(struct sample *s, const struct sample_kind *k, int64_t words, int64_t dim) {
    bool is_bit = is(k->code->name, "bit"), is_trit = is(k->code->name, "trit");

    for (int64_t i = 0; i < words * dim; i++) {
        int8_t v = (int8_t)(is_bit ? 2 * i - 1 : is_trit ? (i == 3 ? -1 : i % 2) : i * 41 + 3);
        float f = (float)v / 8;

        if (k->has_float_book)
            memcpy(s->book + (size_t)i * sizeof(f), &f, sizeof(f));
        else
            s->book[i] = (uint8_t)v;
    }
    s->t_book = (struct tensor){.dtype = k->has_float_book ? DT_F32 : DT_S8,
        .shape = {.rank = dim > 1 ? 2 : 1, .dim = {words, dim}},
        .data = s->book};
    s->w.book = &s->t_book;
}

static double book_at(const struct sample *s, const struct sample_kind *k, int64_t i) {
    float f;

    memcpy(&f, s->book + (size_t)i * sizeof(f), sizeof(f));
    return k->has_float_book ? (double)f : (int8_t)s->book[i];
}

/* Codes of `bits` bits, packed low bits first where they divide a byte; the meaning is looked up. */
static void fill_codes(struct sample *s, const struct sample_kind *k, int64_t n) {
    unsigned bits = k->code->bits;
    bool is_s4 = is(k->code->name, "s4");

    if (bits == 1 || bits == 2 || bits == 4)
        s->w.stored_bits = bits;
    if (is_s4 && is(k->scales->name, "group"))
        s->w.stored_bits = 0;
    for (int64_t i = 0; i < n; i++) {
        unsigned code = (unsigned)(i * 29 + i / 7) & ((1u << bits) - 1);

        if (bits == 1 || bits == 2 || bits == 4)
            s->codes[(uint64_t)i * bits / 8] |= (uint8_t)(code << (uint64_t)i * bits % 8);
        else
            s->codes[i] = (uint8_t)code;
        s->stored[i] = is_s4 ? (double)(code < 8 ? (int)code : (int)code - 16) : book_at(s, k, code);
    }
}

static void fill_words(struct sample *s, const struct sample_kind *k, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        s->codes[i / DIM] = (uint8_t)(i / DIM * 13 % 20);
        s->stored[i] = book_at(s, k, s->codes[i / DIM] * DIM + i % DIM);
    }
}

#define WORDS 9 /* of the book of a channel */

/* A book a channel of the output. */
static void fill_books(struct sample *s, const struct sample_kind *k, int64_t n) {
    int64_t channels = k->shape.dim[k->axis];
    bool is_first = k->axis == 0;

    fill_book(s, k, is_first ? channels : WORDS, is_first ? WORDS : channels);
    s->w.books = is_first ? WEIGHT_BOOKS_FIRST : WEIGHT_BOOKS_LAST;
    for (int64_t i = 0; i < n; i++) {
        int64_t channel = is_first ? i / (n / channels) : i % channels;

        s->codes[i] = (uint8_t)(i * 7 % WORDS);
        s->stored[i] =
            book_at(s, k, is_first ? channel * WORDS + s->codes[i] : s->codes[i] * channels + channel);
    }
}

/* Twenty words and, packed, sixteen small ones. */
static void fill_stages(struct sample *s, int64_t n) {
    for (int i = 0; i < 20; i++)
        s->book[i] = (uint8_t)(int8_t)(i * 11 - 100);
    for (int i = 0; i < 16; i++)
        s->more_book[i] = (uint8_t)(int8_t)(i - 7);
    for (int64_t i = 0; i < n; i++) {
        unsigned code = (unsigned)(i * 5 + i / 16) % 16;

        s->codes[i] = (uint8_t)(i * 13 % 20);
        s->more_codes[i / 2] |= (uint8_t)(code << i % 2 * 4);
        s->stored[i] = (int8_t)s->book[s->codes[i]] + (int8_t)s->more_book[code];
    }
    s->t_book = (struct tensor){.dtype = DT_S8, .shape = {.rank = 1, .dim = {20}}, .data = s->book};
    s->t_more_book = (struct tensor){.dtype = DT_S8, .shape = {.rank = 1, .dim = {16}}, .data = s->more_book};
    s->t_more_codes =
        (struct tensor){.dtype = DT_U8, .shape = {.rank = 1, .dim = {(n + 1) / 2}}, .data = s->more_codes};
    s->w.book = &s->t_book;
    s->w.more = &s->more;
    s->more = (struct weight){.structure = weight_structure_find("dense"),
        .code = weight_code_find("lut4"),
        .scales = weight_scales_find("layer"),
        .rows = n,
        .cols = 1,
        .book = &s->t_more_book,
        .codes = &s->t_more_codes,
        .stored_bits = 4};
}

static void fill_number(struct sample *s, const struct sample_kind *k, int64_t i) {
    const char *name = k->code->name;
    float f = (float)(i % 64) / 4 - 8;
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    if (is(name, "s8") || is(name, "u8")) {
        s->codes[i] = (uint8_t)(i * 37 + 11);
        s->stored[i] = is(name, "s8") ? (int8_t)s->codes[i] : s->codes[i];
        return;
    }
    s->stored[i] = (double)f;
    if (is(name, "f32")) {
        memcpy(s->codes + 4 * i, &f, 4);
    } else if (is(name, "bf16")) {
        memcpy(s->codes + 2 * i, (char *)&bits + 2, 2);
    } else {
        /* exact in half: sign, exponent from bias 127 to 15, the upper mantissa */
        uint16_t half = (uint16_t)(f == 0 ? 0
                                          : (bits >> 31) << 15 | (((bits >> 23 & 255) - 112) & 31) << 10 |
                                                (bits >> 13 & 1023));

        memcpy(s->codes + 2 * i, &half, 2);
    }
}

/* As an array: packed bytes, one code each word, or as many as elements. */
static void set_codes(struct sample *s, const struct sample_kind *k, int64_t n, const struct shape *stored) {
    const char *name = k->code->name;
    enum dtype t = is(name, "f32")                       ? DT_F32
                   : is(name, "bf16")                    ? DT_BF16
                   : is(name, "f16")                     ? DT_F16
                   : is(name, "s8")                      ? DT_S8
                   : is(name, "s4") && !s->w.stored_bits ? DT_S4
                                                         : DT_U8;

    s->t_codes = (struct tensor){.dtype = t, .shape = *stored, .data = s->codes};
    if (s->w.stored_bits)
        s->t_codes.shape = (struct shape){.rank = 1, .dim = {(n * s->w.stored_bits + 7) / 8}};
    if (is(name, "books")) {
        int64_t channels = k->shape.dim[k->axis];

        s->t_codes.shape = (struct shape){.rank = 2,
            .dim = {k->axis == 0 ? channels : n / channels, k->axis == 0 ? n / channels : channels}};
    }
    if (is(name, "product"))
        s->t_codes.shape = (struct shape){.rank = 1, .dim = {n / DIM}};
    s->w.codes = &s->t_codes;
}

static bool fill_scales(struct sample *s, const struct sample_kind *k) {
    bool is_layer = is(k->scales->name, "layer"), is_group = is(k->scales->name, "group");
    struct shape shape = {.rank = !is_layer, .dim = {k->shape.dim[k->axis]}};
    int64_t n;

    if (is_group && (!is_integer(k) || k->shape.dim[!k->axis] % GROUP))
        return false;
    if (is_group) {
        shape = k->shape;
        shape.dim[!k->axis] /= GROUP;
        s->w.group = GROUP;
        s->w.group_axis = !k->axis;
    }
    n = is_layer ? 1 : count(&shape);
    for (int64_t i = 0; i < n; i++) {
        s->scale[i] = 0.25f * (float)(i % 5 + 1);
        s->zero[i] = (uint8_t)(120 + i);
    }
    s->t_scale = (struct tensor){.dtype = DT_F32, .shape = shape, .data = s->scale};
    s->t_zero = (struct tensor){.dtype = DT_U8, .shape = shape, .data = s->zero};
    if (is_integer(k) || !is_layer)
        s->w.scale = &s->t_scale;
    s->w.zero = is(k->code->name, "u8") ? &s->t_zero : NULL;
    return true;
}

/* Which scale element `i` of the shape has. */
static int64_t scale_of(const struct sample_kind *k, int64_t i) {
    int64_t at[SHAPE_MAX_RANK], ret = 0, left = i;

    for (int d = k->shape.rank - 1; d >= 0; d--) {
        at[d] = left % k->shape.dim[d];
        left /= k->shape.dim[d];
    }
    if (is(k->scales->name, "layer"))
        return 0;
    if (is(k->scales->name, "channel"))
        return at[k->axis];
    at[!k->axis] /= GROUP;
    for (int d = 0; d < k->shape.rank; d++)
        ret = ret * (d == !k->axis ? k->shape.dim[d] / GROUP : k->shape.dim[d]) + at[d];
    return ret;
}

static void fill_meaning(struct sample *s, const struct sample_kind *k, int64_t n) {
    int64_t total = count(&k->shape), inner = 1, rows = k->shape.dim[s->w.axis];
    static double dense[SAMPLE_MAX];

    memset(dense, 0, sizeof(dense));
    for (int64_t i = 0; i < n; i++)
        dense[s->at[i]] = s->stored[i];
    for (int d = s->w.axis + 1; d < k->shape.rank; d++)
        inner *= k->shape.dim[d];
    for (int64_t i = 0; i < total; i++) {
        int64_t at = scale_of(k, i), row = i / inner % rows;
        double v = dense[i] - (s->w.zero ? s->zero[at] : 0);

        s->want[i] = (float)v * (s->w.scale ? s->scale[at] : 1);
        s->ints[row * (total / rows) + i / inner / rows * inner + i % inner] = (int16_t)v;
    }
}

bool sample_init(struct sample *s, const struct sample_kind *k) {
    bool is_channel = is(k->scales->name, "channel");
    struct shape stored;
    int64_t n;

    memset(s, 0, sizeof(*s));
    s->w = (struct weight){.structure = k->structure,
        .code = k->code,
        .scales = k->scales,
        .shape = k->shape,
        .axis = is_channel ? k->axis : 0,
        .transposed = is_channel && k->axis};
    s->w.rows = k->shape.dim[s->w.axis];
    s->w.cols = count(&k->shape) / s->w.rows;
    n = fill_places(s, k);
    if (n < 1 || (k->has_float_book &&
                     (!k->code->is_looked_up || is(k->code->name, "bit") || is(k->code->name, "trit"))))
        return false;
    if (is(k->code->name, "books")) {
        if (!is(k->structure->name, "dense"))
            return false;
        fill_books(s, k, n);
    } else if (is(k->code->name, "residual")) {
        if (k->has_float_book)
            return false;
        fill_stages(s, n);
    } else if (is(k->code->name, "product")) {
        if (n % DIM)
            return false;
        fill_book(s, k, 20, DIM);
        fill_words(s, k, n);
    } else if (k->code->is_looked_up || is(k->code->name, "s4")) {
        if (k->code->is_looked_up)
            fill_book(s, k, 1 << k->code->bits, 1);
        fill_codes(s, k, n);
    } else {
        for (int64_t i = 0; i < n; i++)
            fill_number(s, k, i);
    }
    if (!fill_scales(s, k) || !k->structure->stored_shape(&s->w, &stored))
        return false;
    set_codes(s, k, n, &stored);
    fill_meaning(s, k, n);
    return true;
}

void sample_each(void (*check)(struct sample *s, const struct sample_kind *k)) {
    static const struct {
        struct shape shape;
        int axis;
    } shapes[] = {
        {{.rank = 4, .dim = {4, 8, 2, 3}}, 0},
        {{.rank = 4, .dim = {3, 5, 3, 1}}, 0},
        {{.rank = 2, .dim = {8, 6}}, 1},
        {{.rank = 2, .dim = {6, 12}}, 0},
    };
    struct sample *s = malloc(sizeof(*s));

    for (size_t a = 0; s && a < n_weight_structures * n_weight_codes * n_weight_scales_kinds; a++)
        for (size_t i = 0; i < 2 * sizeof(shapes) / sizeof(shapes[0]); i++) {
            struct sample_kind k = {
                .structure = weight_structures[a % n_weight_structures],
                .code = weight_codes[a / n_weight_structures % n_weight_codes],
                .scales = weight_scales_kinds[a / n_weight_structures / n_weight_codes],
                .shape = shapes[i / 2].shape,
                .axis = shapes[i / 2].axis,
                .has_float_book = i % 2,
            };

            if (sample_init(s, &k))
                check(s, &k);
        }
    free(s);
}
