/* Tiles in order, and the structure `nm`: of each `in` consecutive input channels of a tap `kept` are stored
 * (2 of 4), with their places within, packed as codes are:
 *
 *     places ── Cast ── Gather(table int32[256][8 / bits]) ── Reshape[tiles][kept] ── indices of
 * ScatterElements */
#include "engine/weight_tile.h"

#include <errno.h>
#include <string.h>

#include "engine/constant.h"

void weight_tiles_init(struct weight_tiles *ret, const struct shape *s, const struct weight_tile *t) {
    *ret = (struct weight_tiles){.tile = *t, .taps = 1};
    for (int i = 2; i < s->rank; i++)
        ret->taps *= s->dim[i];
    ret->n_out = s->dim[t->out_axis] / t->out;
    ret->n_in = s->dim[!t->out_axis] / t->in;
}

int64_t weight_count_tiles(const struct shape *s, const struct weight_tile *t) {
    struct weight_tiles tiles;
    int64_t n;

    if (s->rank < 2 || !shape_count(s, &n) || n < 1 || t->out < 1 || t->in < 1 || t->out_axis < 0 ||
        t->out_axis > 1 || s->dim[t->out_axis] % t->out || s->dim[!t->out_axis] % t->in)
        return 0;
    weight_tiles_init(&tiles, s, t);
    return tiles.n_out * tiles.n_in * tiles.taps;
}

static const int64_t perms[2][5] = {{0, 3, 2, 4, 1}, {2, 4, 0, 3, 1}};

static void apart_shape(const struct shape *s, const struct weight_tile *t, struct shape *ret) {
    struct weight_tiles tiles;

    weight_tiles_init(&tiles, s, t);
    *ret = (struct shape){.rank = 5, .dim = {tiles.n_out, tiles.taps, tiles.n_in, t->out, t->in}};
}

int weight_match_tiles(const struct graph *g, int v, struct shape *ret_shape, struct weight_tile *ret) {
    struct shape apart, want;
    int from = weight_match_reshape(g, v, ret_shape);
    const struct node *n = from < 0 ? NULL : weight_producer(g, from, "Transpose");
    const struct attr *perm = n ? node_attr(n, "perm") : NULL;
    int64_t count;

    if (!perm || perm->type != ATTR_INTS || perm->n != 5 || !shape_count(ret_shape, &count))
        return -1;
    v = weight_match_reshape(g, n->in[0], &apart);
    if (v < 0 || !shape_count(&apart, &count) || apart.rank != 5 || count < 1)
        return -1;
    for (int axis = 0; axis < 2; axis++) {
        *ret = (struct weight_tile){.out = apart.dim[3], .in = apart.dim[4], .out_axis = axis};
        if (memcmp(perm->ints, perms[axis], sizeof(perms[axis])) != 0 || !weight_count_tiles(ret_shape, ret))
            continue;
        apart_shape(ret_shape, ret, &want);
        if (shape_equal(&want, &apart))
            return v;
    }
    return -1;
}

int weight_write_tiles(struct weight_writer *to, int value, enum dtype t, const struct weight *w) {
    const int64_t *perm = perms[w->tile.out_axis];
    struct shape apart, turned = {.rank = 5};
    int v, r;

    apart_shape(&w->shape, &w->tile, &apart);
    for (int i = 0; i < 5; i++)
        turned.dim[i] = apart.dim[perm[i]];
    v = weight_write_reshape(to, "tiles", value, t, &apart);
    v = weight_write_node(to, "Transpose", "turned", &v, 1, t, &turned);
    r = v < 0 ? v : weight_write_attr_ints(to, "perm", perm, 5);
    return r < 0 ? r : weight_write_reshape(to, "spread", v, t, &w->shape);
}

static unsigned place_bits(const struct weight_tile *t) {
    return t->in == 2 ? 1 : t->in == 4 ? 2 : t->in == 16 ? 4 : 0;
}

/* Is it the table of what bytes stand for, places 0, 1, 2 …? */
static bool is_place_table(const struct tensor *t, unsigned bits) {
    unsigned found;
    int64_t v[16];

    if (t->shape.rank != 2 || (t->dtype != DT_S32 && t->dtype != DT_S64) ||
        !weight_is_unpack_table(t, &found) || found != bits)
        return false;
    for (unsigned i = 0; i < 1u << bits; i++) {
        weight_read(t, 0, i * (8 / bits), 1, v);
        if (v[0] != i)
            return false;
    }
    return true;
}

/* The packed places behind the indices at v, of shape *ret_index; NULL: another pattern. */
static const struct tensor *match_packed(
    const struct graph *g, int v, unsigned bits, struct shape *ret_index) {
    int from = weight_match_reshape(g, v, ret_index);
    const struct node *gather = from < 0 ? NULL : weight_producer(g, from, "Gather");
    const struct tensor *table = gather ? weight_input(g, gather, 0) : NULL;
    enum dtype to;

    if (!table || node_attr_int(gather, "axis", 0) != 0 || !is_place_table(table, bits))
        return NULL;
    from = weight_match_cast(g, gather->in[1], &to);
    return from >= 0 && g->values[from].init->dtype == DT_U8 ? g->values[from].init : NULL;
}

static const struct node *match_scatter(
    const struct graph *g, int v, const struct weight_tile *tile, int64_t n_tiles) {
    const struct node *n = weight_producer(g, v, "ScatterElements");
    struct shape data;

    if (!n || !n_tiles || node_attr_int(n, "axis", 0) != 1 ||
        strcmp(node_attr_string(n, "reduction", "none"), "none") != 0 ||
        !weight_match_zeros(g, n->in[0], &data))
        return NULL;
    return data.rank == 2 && data.dim[0] == n_tiles && data.dim[1] == tile->in ? n : NULL;
}

static int nm_match(struct graph *g, int v, struct weight *w, int *ret_stored) {
    struct shape index;
    int from = weight_match_tiles(g, v, &w->shape, &w->tile);
    unsigned bits = from < 0 ? 0 : place_bits(&w->tile);
    int64_t n_places, n_tiles = bits ? weight_count_tiles(&w->shape, &w->tile) : 0;
    const struct node *n = n_tiles ? match_scatter(g, from, &w->tile, n_tiles) : NULL;

    if (!n || w->tile.out != 1)
        return 0;
    w->place = match_packed(g, n->in[1], bits, &index);
    if (!w->place || index.rank != 2 || index.dim[0] != n_tiles || index.dim[1] < 1 ||
        index.dim[1] > w->tile.in)
        return 0;
    w->tile.kept = index.dim[1];
    w->n_stored = n_tiles * w->tile.kept;
    *ret_stored = n->in[2];
    return shape_count(&w->place->shape, &n_places) && n_places * (8 / bits) == w->n_stored;
}

static bool nm_shape(const struct weight *w, struct shape *ret) {
    *ret = (struct shape){.rank = 2, .dim = {weight_count_tiles(&w->shape, &w->tile), w->tile.kept}};
    return ret->dim[0] > 0;
}

static int nm_emit(struct weight_writer *to, const struct weight *w, int stored) {
    unsigned bits = place_bits(&w->tile);
    enum dtype t = weight_codes_are_integers(w) ? w->code->dtype : DT_F32;
    struct shape kept, all;
    int32_t values[16];
    struct tensor book = {.dtype = DT_S32, .shape = {.rank = 1, .dim = {1 << bits}}, .data = values};
    int in[3], r;

    if (!bits || !nm_shape(w, &kept))
        return -EINVAL;
    for (int i = 0; i < 16; i++)
        values[i] = i;
    all = (struct shape){.rank = 2, .dim = {kept.dim[0], w->tile.in}};
    in[1] = weight_write_unpack(to, "places", w->place, bits, &book, &kept);
    in[2] = stored;
    in[0] = weight_write_zeros(to, "zeros", t, &all);
    in[0] = weight_write_node(to, "ScatterElements", "scattered", in, 3, t, &all);
    r = in[0] < 0 ? in[0] : weight_write_attr(to, "axis", 1);
    return r < 0 ? r : weight_write_tiles(to, in[0], t, w);
}

static void nm_expand(const struct weight *w, const void *stored, size_t size, void *ret) {
    struct weight_tiles tiles;
    int64_t chunk[WEIGHT_CHUNK];

    weight_tiles_init(&tiles, &w->shape, &w->tile);
    for (int64_t i = 0; i < w->n_stored; i++) {
        int64_t at = i % WEIGHT_CHUNK, left = w->n_stored - i;

        if (at == 0)
            weight_read(w->place, place_bits(&w->tile), i, left < WEIGHT_CHUNK ? left : WEIGHT_CHUNK, chunk);
        weight_put(ret, weight_tile_element(&tiles, i / w->tile.kept, chunk[at]), stored, i, size);
    }
}

static size_t nm_bytes(const struct weight *w) {
    return (size_t)(w->n_stored * place_bits(&w->tile) + 7) / 8;
}

/* Places of so few bits cannot leave their tile. */
static int nm_check(const struct weight *w, struct error *err) {
    (void)w;
    (void)err;
    return 0;
}

const struct weight_structure weight_structure_nm = {
    .name = "nm",
    .match = nm_match,
    .emit = nm_emit,
    .stored_shape = nm_shape,
    .expand = nm_expand,
    .bytes = nm_bytes,
    .check = nm_check,
};
