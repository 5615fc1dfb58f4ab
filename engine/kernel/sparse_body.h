/* The loops of sparse.h over vectors of any width, compiled by each instruction set's file, which first
 * defines
 *
 *     LANES, N_REGISTERS, TARGET
 *                       floats in a vector; vectors there are; target attribute
 *     vec, ivec         vectors of float and int32
 *     load_quads()      four dwords of each of LANES / 4 pixels, one in each 128-bit lane
 *     transpose_lanes() a 4 x 4 transposition in each 128-bit lane
 *     multiply_add()    a + w x, in one rounding or two
 *     struct quad, quad_of(), quad_dot()   four codes of a weight; sums + their product with codes of pixels
 */
#define INLINE static inline __attribute__((always_inline)) TARGET

INLINE vec load(const void *p) {
    vec v;

    __builtin_memcpy(&v, p, sizeof(v));
    return v;
}

INLINE void store(void *p, vec v) {
    __builtin_memcpy(p, &v, sizeof(v));
}

INLINE vec fill(float f) {
    return f - (vec){0};
}

INLINE vec pick(ivec mask, vec yes, vec no) {
    return (vec)(((ivec)yes & mask) | ((ivec)no & ~mask));
}

/* to[i] = dword i of all pixels, from LANES pixels' dwords at `offset`. */
INLINE void transpose_tile(const uint8_t *const *pixel, size_t offset, vec to[LANES]) {
#pragma GCC unroll 4
    for (int j = 0; j < LANES / 4; j++) {
        vec quad[4];

#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            quad[i] = load_quads(pixel + i, offset + 16 * (size_t)j);
        transpose_lanes(quad, to + 4 * j);
    }
}

/* ---- gather ---- */

/* The last dwords of a tap, fewer than a slice: copied first, so that nothing behind them is read. */
TARGET __attribute__((noinline)) static void gather_tail(
    const struct sparse_gather *g, const uint8_t *const *pixel, int64_t k, uint32_t *to, size_t step) {
    uint32_t row[LANES][SPARSE_SLICE] __attribute__((aligned(64))) = {0};
    const uint8_t *copy[LANES];

    for (int i = 0; i < LANES; i++) {
        memcpy(row[i], pixel[i] + 4 * k, 4 * (size_t)(g->n_dwords - k));
        copy[i] = (const uint8_t *)row[i];
    }
    for (int c = 0; c < SPARSE_SLICE; c += LANES) {
        vec tile[LANES];

        transpose_tile(copy, 4 * (size_t)c, tile);
        for (int i = 0; i < LANES; i++)
            store(to + (size_t)(c + i) * step, tile[i]);
    }
}

/* Vector by vector: the pixels of one are read from end to end, while those of the next are asked for. */
TARGET static void gather(const struct sparse_gather *g) {
    size_t step = (size_t)g->n_vecs * LANES;

    for (int v = 0; v < g->n_vecs; v++) {
        const uint8_t *const *pixel = g->pixel + v * LANES;
        const uint8_t *const *next = v + 1 < g->n_vecs ? pixel + LANES : pixel;
        uint32_t *to = g->panel + v * LANES;

        for (int64_t k = 0; k < g->n_dwords; k += SPARSE_SLICE, to += SPARSE_SLICE * step) {
            if (g->n_dwords - k < SPARSE_SLICE) {
                gather_tail(g, pixel, k, to, step);
                break;
            }
            for (int i = 0; i < LANES; i++)
                __builtin_prefetch(next[i] + 4 * k);
            for (int c = 0; c < SPARSE_SLICE; c += LANES) {
                vec tile[LANES];

                transpose_tile(pixel, 4 * (size_t)(k + c), tile);
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++)
                    store(to + (size_t)(c + i) * step, tile[i]);
            }
        }
    }
}

/* ---- multiply; n is a constant after inlining ---- */

/* Are there registers to add up every other product on its own, so that a sum waits half as often? */
#define CAN_SPLIT(n) (2 * (n) + 2 <= N_REGISTERS)

/* Products of one weight. */
INLINE void add_f32(vec *sum, const uint32_t *panel, const uint32_t *value, const uint8_t *at, const int n) {
    const uint32_t *x = panel + (size_t)*at * (size_t)(n * LANES);
    float f;

    __builtin_memcpy(&f, value, sizeof(f));
#pragma GCC unroll 8
    for (int v = 0; v < n; v++)
        sum[v] = multiply_add(sum[v], fill(f), load(x + v * LANES));
}

INLINE void rows_f32(const struct sparse_multiply *m, const int n) {
    const uint32_t *panel = m->panel, *value = m->value;
    const uint8_t *at = m->at;

    for (const struct sparse_row *r = m->row; r < m->row_end; r++) {
        uint32_t *sums = m->sums + (size_t)r->output * (size_t)(n * LANES);
        vec sum[SPARSE_MAX_VECS], odd[SPARSE_MAX_VECS];
        const uint8_t *end = at + r->count;
        float f;

        if (m->bias)
            __builtin_memcpy(&f, m->bias + r->output, sizeof(f));
#pragma GCC unroll 8
        for (int v = 0; v < n; v++) {
            sum[v] = m->bias ? fill(f) : load(sums + v * LANES);
            odd[v] = fill(0);
        }
        for (; at < end; at += 2, value += 2) {
            add_f32(sum, panel, value, at, n);
            add_f32(CAN_SPLIT(n) ? odd : sum, panel, value + 1, at + 1, n);
        }
#pragma GCC unroll 8
        for (int v = 0; v < n; v++)
            store(sums + v * LANES, CAN_SPLIT(n) ? sum[v] + odd[v] : sum[v]);
    }
}

INLINE void add_s8(ivec *sum, const uint32_t *panel, const uint32_t *value, const uint8_t *at, const int n) {
    const uint32_t *x = panel + (size_t)*at * (size_t)(n * LANES);
    const struct quad w = quad_of(*value);

#pragma GCC unroll 8
    for (int v = 0; v < n; v++)
        sum[v] = quad_dot(sum[v], (ivec)load(x + v * LANES), w);
}

INLINE void rows_s8(const struct sparse_multiply *m, const int n) {
    const uint32_t *panel = m->panel, *value = m->value;
    const uint8_t *at = m->at;

    for (const struct sparse_row *r = m->row; r < m->row_end; r++) {
        uint32_t *sums = m->sums + (size_t)r->output * (size_t)(n * LANES);
        ivec sum[SPARSE_MAX_VECS], odd[SPARSE_MAX_VECS];
        const uint8_t *end = at + r->count;

#pragma GCC unroll 8
        for (int v = 0; v < n; v++) {
            sum[v] = m->bias ? (int32_t)m->bias[r->output] - (ivec){0} : (ivec)load(sums + v * LANES);
            odd[v] = (ivec){0};
        }
        for (; at < end; at += 2, value += 2) {
            add_s8(sum, panel, value, at, n);
            add_s8(CAN_SPLIT(n) ? odd : sum, panel, value + 1, at + 1, n);
        }
#pragma GCC unroll 8
        for (int v = 0; v < n; v++)
            store(sums + v * LANES, (vec)(CAN_SPLIT(n) ? sum[v] + odd[v] : sum[v]));
    }
}

#define MULTIPLY(type)                                                                                       \
    TARGET static void multiply_##type(const struct sparse_multiply *m) {                                    \
        switch (m->n_vecs) {                                                                                 \
        case 1: rows_##type(m, 1); break;                                                                    \
        case 2: rows_##type(m, 2); break;                                                                    \
        case 3: rows_##type(m, 3); break;                                                                    \
        case 4: rows_##type(m, 4); break;                                                                    \
        case 5: rows_##type(m, 5); break;                                                                    \
        case 6: rows_##type(m, 6); break;                                                                    \
        case 7: rows_##type(m, 7); break;                                                                    \
        default: rows_##type(m, 8); break;                                                                   \
        }                                                                                                    \
    }

MULTIPLY(f32)
MULTIPLY(s8)

/* ---- store ---- */

/* n pixels of a tile, n_channels each, to y. */
INLINE void write_tile(const struct sparse_store *s, const vec *tile, size_t at, int n, size_t n_bytes) {
    uint8_t *y = s->y + at;

#pragma GCC unroll 16
    for (int i = 0; i < n; i++, y += s->y_pixel) {
        if (n_bytes >= sizeof(vec))
            store(y, tile[i]);
        else
            memcpy(y, &tile[i], n_bytes);
    }
}

INLINE void add_residual(
    const struct sparse_store *s, const struct sparse_post *p, vec *tile, size_t at, int n, size_t n_bytes) {
    const uint8_t *from = (p->residual < 0 ? s->y : (const uint8_t *)s->residual[p->residual]) + at;

#pragma GCC unroll 16
    for (int i = 0; i < n; i++, from += s->y_pixel) {
        vec v = {0};

        if (n_bytes >= sizeof(vec))
            v = load(from);
        else
            memcpy(&v, from, n_bytes);
        tile[i] += v;
    }
}

INLINE vec clip(vec v, float low, float high) {
    v = pick(v < fill(low), fill(low), v);
    return pick(v > fill(high), fill(high), v);
}

INLINE vec activation(const struct sparse_post *p, vec v) {
    if (p->kind == SPARSE_POST_CLIP)
        return clip(v, p->alpha, p->beta);
    if (p->kind == SPARSE_POST_RELU)
        return pick(v < fill(0), p->alpha == 0 ? fill(0) : fill(p->alpha) * v, v);
    if (p->kind == SPARSE_POST_HARD_SIGMOID)
        return clip(fill(p->alpha) * v + fill(p->beta), 0, 1);
    return v * clip(v * fill(1.0f / 6) + fill(0.5f), 0, 1);
}

/* Pixels from n on are left as they are. */
INLINE void apply_posts(const struct sparse_store *s, vec *tile, size_t at, int n, size_t n_bytes) {
    for (int k = 0; k < s->n_posts; k++) {
        const struct sparse_post *p = &s->post[k];

        if (p->kind == SPARSE_POST_ADD)
            add_residual(s, p, tile, at, n, n_bytes);
        else
#pragma GCC unroll 16
            for (int i = 0; i < n; i++)
                tile[i] = activation(p, tile[i]);
    }
}

INLINE void load_rows(const uint32_t *rows, size_t step, vec tile[LANES]) {
    const uint8_t *row[LANES];

#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        row[i] = (const uint8_t *)(rows + (size_t)i * step);
    transpose_tile(row, 0, tile);
}

/* LANES pixels of LANES rows: stays in registers. */
INLINE void store_tile(const struct sparse_store *s, const uint32_t *rows, size_t step, size_t at) {
    vec tile[LANES];

    load_rows(rows, step, tile);
    apply_posts(s, tile, at, LANES, sizeof(vec));
    write_tile(s, tile, at, LANES, sizeof(vec));
}

/* Fewer, or posts that are functions of their own. */
TARGET __attribute__((noinline)) static void store_part(
    const struct sparse_store *s, const uint32_t *rows, size_t step, size_t at, int n, size_t n_bytes) {
    vec tile[LANES] __attribute__((aligned(64)));
    struct sparse_store one = *s;

    load_rows(rows, step, tile);
    one.n_posts = 1;
    for (int k = 0; k < s->n_posts; k++) {
        one.post = s->post + k;
        if (one.post->kind == SPARSE_POST_FORWARD)
            sparse_post_forward(one.post->post, (float *)(void *)tile, n * LANES);
        else
            apply_posts(&one, tile, at, n, n_bytes);
    }
    write_tile(s, tile, at, n, n_bytes);
}

/* rows[r][pixel] to pixels of n_bytes, LANES rows at a time. */
INLINE void store_rows(const struct sparse_store *s, const uint32_t *rows, size_t n_bytes) {
    const size_t step = (size_t)s->n_vecs * LANES;
    bool is_simple = true;

    for (int k = 0; k < s->n_posts; k++)
        is_simple = is_simple && s->post[k].kind != SPARSE_POST_FORWARD;
    for (int p = 0; p < s->n_pixels; p += LANES, rows += LANES)
        for (size_t done = 0; done < n_bytes; done += sizeof(vec)) {
            int n = s->n_pixels - p < LANES ? s->n_pixels - p : LANES;
            size_t at = s->at + (size_t)p * s->y_pixel + done;
            const uint32_t *first = rows + done / sizeof(*rows) * step;

            if (is_simple && n == LANES && n_bytes - done >= sizeof(vec))
                store_tile(s, first, step, at);
            else
                store_part(s, first, step, at, n, n_bytes - done);
        }
}

TARGET static void store_f32(const struct sparse_store *s) {
    store_rows(s, s->sums, sizeof(float) * (size_t)s->n_outputs);
}

INLINE vec scaled(const uint32_t *sums, float scale) {
    return __builtin_convertvector((ivec)load(sums), vec) * fill(scale);
}

/* As s8_clamp(). */
INLINE vec clamped(vec v, const struct s8_output *o) {
    v = pick(v > fill(o->low), v, fill(o->low));
    return pick(v < fill(o->high), v, fill(o->high));
}

TARGET static void store_s8(const struct sparse_store *s) {
    const size_t step = (size_t)s->n_vecs * LANES;
    uint32_t *to = s->sums;

    if (s->out->is_float) {
        for (int r = 0; r < s->n_outputs; r++)
            for (size_t p = 0; p < step; p += LANES) {
                uint32_t *sums = s->sums + (size_t)r * step + p;

                store(sums, clamped(scaled(sums, s->scale[r]), s->out));
            }
        store_rows(s, s->sums, sizeof(float) * (size_t)s->n_outputs);
        return;
    }
    /* four outputs become one row of dwords, in the place of the first quarter */
    for (int r = 0; r < s->n_outputs; r += 4, to += step) {
        const uint32_t *from = s->sums + (size_t)r * step;

        for (size_t p = 0; p < step; p += LANES) {
            vec v[4];

#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                v[i] = scaled(from + (size_t)i * step + p, s->scale[r + i]);
            store(to + p, (vec)encode_quad(v, s->out));
        }
    }
    store_rows(s, s->sums, (size_t)s->n_outputs);
}
