/* Structures whose elements stand apart: `sparse` (single elements) and `block` (tiles of elements), each
 * with the gap to the one before, a byte each (Han et al. 2016, "Deep compression", section 2):
 *
 *     gaps uint8[n] ── Cast ── CumSum ──────────────── indices ┐
 *     codes [n] ──────────────────────────────────── updates ──┤
 *                    ConstantOfShape(0) ──────────────  data ──┴ ScatterElements ── Reshape
 *
 * The first gap is the first place itself. Blocks are rows: the indices are spread over their elements
 * (Expand), and the tiles are put in order behind (Transpose, weight_tile.c). Files of others may have the
 * places themselves as integers. */
#include <errno.h>

#include "engine/constant.h"
#include "engine/weight_rows.h"
#include "engine/weight_tile.h"

static bool is_gaps(const struct tensor *place) {
    return place->dtype != DT_S64 && place->dtype != DT_S32;
}

/* The tensor of gaps or places behind the indices at v; NULL: another pattern. */
static const struct tensor *match_places(const struct graph *g, int v) {
    const struct node *sum = weight_producer(g, v, "CumSum");
    const struct tensor *t = constant_of(g, v);
    const struct dtype_info *info;
    int64_t axis;
    enum dtype to;
    int from;

    if (t)
        return t->dtype == DT_S64 || t->dtype == DT_S32 ? t : NULL;
    if (!sum || constant_ints(g, sum->in[1], &axis, 1) != 1 || (axis != 0 && axis != -1) ||
        node_attr_int(sum, "exclusive", 0) || node_attr_int(sum, "reverse", 0))
        return NULL;
    from = weight_match_cast(g, sum->in[0], &to);
    t = from < 0 ? NULL : g->values[from].init;
    info = t ? dtype_info(t->dtype) : NULL;
    return info && !info->is_float && !info->is_signed && info->bits <= 16 && t->shape.rank == 1 ? t : NULL;
}

static const struct node *match_scatter(const struct graph *g, int v, int64_t axis, struct shape *ret_data) {
    const struct node *n = weight_producer(g, v, "ScatterElements");

    if (!n || strcmp(node_attr_string(n, "reduction", "none"), "none") != 0 ||
        !weight_match_zeros(g, n->in[0], ret_data))
        return NULL;
    return ret_data->rank > 0 && node_attr_int(n, "axis", 0) == axis ? n : NULL;
}

static int sparse_match(struct graph *g, int v, struct weight *w, int *ret_stored) {
    struct shape shape, data;
    int from = weight_match_reshape(g, v, &shape);
    const struct node *n = match_scatter(g, from >= 0 ? from : v, 0, &data);
    int64_t count;

    if (!n || data.rank != 1 || !shape_count(&data, &count))
        return 0;
    w->place = match_places(g, n->in[1]);
    if (!w->place || w->place->shape.rank != 1 || (from >= 0 && !weight_resolve(&shape, count)))
        return 0;
    w->shape = from >= 0 ? shape : data;
    w->n_stored = w->place->shape.dim[0];
    *ret_stored = n->in[2];
    return 1;
}

/* Places of `n` things from gaps or integers. */
static int write_places(struct weight_writer *to, const struct tensor *place) {
    int64_t zero = 0;
    int in[2] = {weight_write_init(to, is_gaps(place) ? "gaps" : "places", place), -ENOMEM};

    if (!is_gaps(place))
        return in[0];
    in[0] = weight_write_cast(to, "steps", in[0], DT_S32, &place->shape);
    in[1] = weight_write_ints(to, "steps_axis", &zero, 1);
    return weight_write_node(to, "CumSum", "places", in, 2, DT_S32, &place->shape);
}

static enum dtype stored_type(const struct weight *w) {
    return weight_codes_are_integers(w) ? w->code->dtype : DT_F32;
}

static int sparse_emit(struct weight_writer *to, const struct weight *w, int stored) {
    struct shape flat = {.rank = 1};
    int in[3], v;

    if (!shape_count(&w->shape, &flat.dim[0]))
        return -EINVAL;
    in[2] = stored;
    in[1] = write_places(to, w->place);
    in[0] = weight_write_zeros(to, "zeros", stored_type(w), &flat);
    v = weight_write_node(to, "ScatterElements", "scattered", in, 3, stored_type(w), &flat);
    return weight_write_reshape(to, "spread", v, stored_type(w), &w->shape);
}

static bool sparse_shape(const struct weight *w, struct shape *ret) {
    *ret = (struct shape){.rank = 1, .dim = {w->n_stored}};
    return true;
}

/* Calls `put` with each place: gaps are summed up. */
struct places {
    const struct tensor *t;
    int64_t at, read; /* of the next to give */
    int64_t sum;
    int64_t chunk[WEIGHT_CHUNK];
};

static int64_t next_place(struct places *p, int64_t n) {
    int64_t i = p->at++ % WEIGHT_CHUNK;

    if (i == 0)
        weight_read(
            p->t, 0, p->at - 1, n - p->at + 1 < WEIGHT_CHUNK ? n - p->at + 1 : WEIGHT_CHUNK, p->chunk);
    p->sum = is_gaps(p->t) ? p->sum + p->chunk[i] : p->chunk[i];
    return p->sum;
}

/* A negative integer counts from the end, as ScatterElements has it. */
static int64_t from_end(int64_t place, int64_t count) {
    return place < 0 ? place + count : place;
}

static void sparse_expand(const struct weight *w, const void *stored, size_t size, void *ret) {
    struct places p = {.t = w->place};
    int64_t count = w->rows * w->cols;

    for (int64_t i = 0; i < w->n_stored; i++)
        weight_put(ret, from_end(next_place(&p, w->n_stored), count), stored, i, size);
}

static size_t gap_bytes(const struct weight *w) {
    size_t size = 0;

    (void)shape_bytes(&w->place->shape, w->place->dtype, &size);
    return size;
}

static int check_places(const struct tensor *place, int64_t n, int64_t count, struct error *err) {
    struct places p = {.t = place};

    for (int64_t i = 0; i < n; i++) {
        int64_t at = from_end(next_place(&p, n), count);

        if (at < 0 || at >= count)
            return error_code(err, -EBADMSG, "invalid_model",
                "entry %lld of its %s puts a weight at %lld, outside of %lld", (long long)i,
                is_gaps(place) ? "gaps" : "places", (long long)at, (long long)count);
    }
    return 0;
}

static int sparse_check(const struct weight *w, struct error *err) {
    return check_places(w->place, w->n_stored, w->rows * w->cols, err);
}

const struct weight_structure weight_structure_sparse = {
    .name = "sparse",
    .match = sparse_match,
    .emit = sparse_emit,
    .stored_shape = sparse_shape,
    .expand = sparse_expand,
    .bytes = gap_bytes,
    .check = sparse_check,
};

/* ---- block ---- */

/* indices spread over the elements of a row: Expand(Reshape([n, 1]), [n, elements]) */
static const struct tensor *match_spread(const struct graph *g, int v, int64_t elements) {
    const struct node *expand = weight_producer(g, v, "Expand");
    const struct tensor *place;
    struct shape column;
    int64_t to[2];
    int from = expand ? weight_match_reshape(g, expand->in[0], &column) : -1;

    if (from < 0 || column.rank != 2 || column.dim[1] != 1 || constant_ints(g, expand->in[1], to, 2) != 2)
        return NULL;
    place = match_places(g, from);
    if (!place || place->shape.rank != 1 || to[0] != place->shape.dim[0] || to[1] != elements)
        return NULL;
    return column.dim[0] == to[0] || column.dim[0] == -1 ? place : NULL;
}

static int block_match(struct graph *g, int v, struct weight *w, int *ret_stored) {
    struct shape data;
    struct weight_tile tile = {0};
    int from = weight_match_tiles(g, v, &w->shape, &tile);
    const struct node *n = from < 0 ? NULL : match_scatter(g, from, 0, &data);

    if (!n || data.rank != 2 || data.dim[1] != tile.out * tile.in ||
        weight_count_tiles(&w->shape, &tile) != data.dim[0])
        return 0;
    w->place = match_spread(g, n->in[1], data.dim[1]);
    tile.kept = tile.out * tile.in;
    if (!w->place || __builtin_mul_overflow(w->place->shape.dim[0], tile.kept, &w->n_stored))
        return 0;
    w->tile = tile;
    *ret_stored = n->in[2];
    return 1;
}

static bool block_shape(const struct weight *w, struct shape *ret) {
    *ret = (struct shape){.rank = 2, .dim = {w->place->shape.dim[0], w->tile.out * w->tile.in}};
    return weight_count_tiles(&w->shape, &w->tile) > 0;
}

static int block_emit(struct weight_writer *to, const struct weight *w, int stored) {
    enum dtype t = stored_type(w);
    struct shape rows, column = {.rank = 2, .dim = {w->place->shape.dim[0], 1}};
    struct shape all = {
        .rank = 2, .dim = {weight_count_tiles(&w->shape, &w->tile), w->tile.out * w->tile.in}};
    enum dtype index = is_gaps(w->place) ? DT_S32 : w->place->dtype;
    int in[3];

    if (!block_shape(w, &rows))
        return -EINVAL;
    in[0] = write_places(to, w->place);
    in[0] = weight_write_reshape(to, "rows", in[0], index, &column);
    in[1] = weight_write_ints(to, "block_shape", rows.dim, 2);
    in[1] = weight_write_node(to, "Expand", "elements", in, 2, index, &rows);
    in[2] = stored;
    in[0] = weight_write_zeros(to, "zeros", t, &all);
    in[0] = weight_write_node(to, "ScatterElements", "scattered", in, 3, t, &all);
    return weight_write_tiles(to, in[0], t, w);
}

static void block_expand(const struct weight *w, const void *stored, size_t size, void *ret) {
    struct places p = {.t = w->place};
    struct weight_tiles tiles;
    int64_t n = w->place->shape.dim[0], count = weight_count_tiles(&w->shape, &w->tile);
    int64_t elements = w->tile.out * w->tile.in;

    weight_tiles_init(&tiles, &w->shape, &w->tile);
    for (int64_t i = 0; i < n; i++) {
        int64_t tile = from_end(next_place(&p, n), count);

        for (int64_t k = 0; k < elements; k++)
            weight_put(ret, weight_tile_element(&tiles, tile, k), stored, i * elements + k, size);
    }
}

static int block_check(const struct weight *w, struct error *err) {
    return check_places(w->place, w->place->shape.dim[0], weight_count_tiles(&w->shape, &w->tile), err);
}

const struct weight_structure weight_structure_block = {
    .name = "block",
    .match = block_match,
    .emit = block_emit,
    .stored_shape = block_shape,
    .expand = block_expand,
    .bytes = gap_bytes,
    .check = block_check,
};
