/* Which weights of a layer stay: magnitude alone (Han et al. 2015, "Learning both weights and connections"),
 * of single elements, of blocks (their sum of squares) or n of each m. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/encode.h"
#include "engine/weight_tile.h"

#define MAX_GAP 255

/* Magnitudes as keys that sort as they do: the upper bits of the float without its sign. */
#define KEY_BITS 16
#define N_KEYS   (1 << KEY_BITS)

static uint32_t key_of(float v) {
    uint32_t bits;

    memcpy(&bits, &v, sizeof(bits));
    return (bits & INT32_MAX) >> (31 - KEY_BITS);
}

/* The share to keep of what is shown to it: everything above a key, and so many of that key. */
struct choice {
    int64_t count[N_KEYS];
    uint32_t key;
    int64_t left;
};

static void choice_settle(struct choice *c, int64_t n_kept) {
    int64_t above = 0;

    for (c->key = N_KEYS - 1; c->key > 0 && above + c->count[c->key] < n_kept; c->key--)
        above += c->count[c->key];
    c->left = n_kept - above;
}

static bool choice_keeps(struct choice *c, float v) {
    uint32_t k = key_of(v);

    return k > c->key || (k == c->key && c->left-- > 0);
}

static int64_t kept_of(const struct encode_options *o, int64_t n) {
    int64_t kept = (int64_t)((double)n * (1 - o->sparsity) + 0.5);

    return kept < 1 ? 1 : kept > n ? n : kept;
}

static int set_place(struct encoded *ret, int64_t n) {
    ret->place = (struct tensor){.dtype = DT_U8, .shape = {.rank = 1, .dim = {n}}};
    ret->place.data = calloc((size_t)n + 1, 1);
    ret->w.place = &ret->place;
    return ret->place.data ? 0 : -ENOMEM;
}

/* Things kept, in order, as gaps: where two are further apart than a byte can say, one between them is kept,
 * too. Marks it in `keep`; returns how many there are. */
static int64_t close_gaps(uint8_t *keep, int64_t n) {
    int64_t last = 0, count = 0;

    for (int64_t i = 0; i < n; i++) {
        if (!keep[i] && i - last < MAX_GAP)
            continue;
        if (!keep[i]) {
            /* only if something follows */
            if (!memchr(keep + i, 1, (size_t)(n - i)))
                break;
            keep[i] = 1;
        }
        last = i;
        count++;
    }
    return count;
}

static void write_gaps(const uint8_t *keep, int64_t n, uint8_t *gaps) {
    int64_t last = 0;

    for (int64_t i = 0; i < n; i++) {
        if (!keep[i])
            continue;
        *gaps++ = (uint8_t)(i - last);
        last = i;
    }
}

/* What `keep` marks, and what closes the gaps between. */
static int store_kept(uint8_t *keep, int64_t n, struct encoded *ret) {
    int64_t at = 0;

    ret->w.n_stored = close_gaps(keep, n);
    ret->at = malloc((size_t)ret->w.n_stored * sizeof(*ret->at) + 1);
    if (!ret->at || set_place(ret, ret->w.n_stored) < 0)
        return -ENOMEM;
    write_gaps(keep, n, ret->place.data);
    for (int64_t i = 0; i < n; i++)
        if (keep[i])
            ret->at[at++] = (uint32_t)i;
    return 0;
}

static int place_sparse(const struct encode_job *j, uint8_t *keep, struct choice *c, struct encoded *ret) {
    int64_t n = j->form.rows * j->form.cols;

    for (int64_t i = 0; i < n; i++)
        c->count[key_of(encode_number(j->w, i))]++;
    choice_settle(c, kept_of(j->o, n));
    for (int64_t i = 0; i < n; i++)
        keep[i] = choice_keeps(c, encode_number(j->w, i));
    return store_kept(keep, n, ret);
}

int encoded_store_nonzero(const void *w, int64_t n, struct encoded *ret, struct error *err) {
    _cleanup_(freep) uint8_t *keep = calloc((size_t)n + 1, 1);

    if (!keep)
        return error_oom(err);
    for (int64_t i = 0; i < n; i++)
        keep[i] = encode_number(w, i) != 0;
    return store_kept(keep, n, ret) < 0 ? error_oom(err) : 0;
}

static float tile_norm(const struct encode_job *j, const struct weight_tiles *t, int64_t tile) {
    float sum = 0;

    for (int64_t k = 0; k < t->tile.out * t->tile.in; k++) {
        float v = encode_number(j->w, weight_tile_element(t, tile, k));

        sum += v * v;
    }
    return sum;
}

static int place_blocks(const struct encode_job *j, uint8_t *keep, struct choice *c, struct encoded *ret) {
    int64_t n = weight_count_tiles(&j->form.shape, &j->form.tile), size, n_kept, at = 0;
    struct weight_tiles t;

    weight_tiles_init(&t, &j->form.shape, &j->form.tile);
    size = t.tile.out * t.tile.in;
    for (int64_t i = 0; i < n; i++)
        c->count[key_of(tile_norm(j, &t, i))]++;
    choice_settle(c, kept_of(j->o, n));
    for (int64_t i = 0; i < n; i++)
        keep[i] = choice_keeps(c, tile_norm(j, &t, i));
    n_kept = close_gaps(keep, n);
    ret->w.n_stored = n_kept * size;
    ret->at = malloc((size_t)ret->w.n_stored * sizeof(*ret->at) + 1);
    if (!ret->at || set_place(ret, n_kept) < 0)
        return -ENOMEM;
    write_gaps(keep, n, ret->place.data);
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; keep[i] && k < size; k++)
            ret->at[at++] = (uint32_t)weight_tile_element(&t, i, k);
    return 0;
}

/* The `kept` largest of a tile, in order. */
static void choose_in_tile(
    const struct encode_job *j, const struct weight_tiles *t, int64_t tile, bool *keep) {
    memset(keep, 0, (size_t)t->tile.in * sizeof(*keep));
    for (int64_t n = 0; n < t->tile.kept; n++) {
        int64_t best = -1;
        float most = -1;

        for (int64_t k = 0; k < t->tile.in; k++) {
            float v = __builtin_fabsf(encode_number(j->w, weight_tile_element(t, tile, k)));

            if (!keep[k] && v > most) {
                most = v;
                best = k;
            }
        }
        keep[best < 0 ? 0 : best] = true;
    }
}

static int place_nm(const struct encode_job *j, struct encoded *ret) {
    int64_t n = weight_count_tiles(&j->form.shape, &j->form.tile), at = 0;
    unsigned bits = j->form.tile.in == 2 ? 1 : j->form.tile.in == 4 ? 2 : 4;
    struct weight_tiles t;
    bool keep[16];
    uint8_t *place;

    weight_tiles_init(&t, &j->form.shape, &j->form.tile);
    ret->w.n_stored = n * t.tile.kept;
    ret->at = malloc((size_t)ret->w.n_stored * sizeof(*ret->at) + 1);
    if (!ret->at || set_place(ret, (ret->w.n_stored * bits + 7) / 8) < 0)
        return -ENOMEM;
    place = ret->place.data;
    for (int64_t i = 0; i < n; i++) {
        choose_in_tile(j, &t, i, keep);
        for (int64_t k = 0; k < t.tile.in; k++) {
            if (!keep[k])
                continue;
            place[(uint64_t)at * bits / 8] |= (uint8_t)(k << (uint64_t)at * bits % 8);
            ret->at[at++] = (uint32_t)weight_tile_element(&t, i, k);
        }
    }
    return 0;
}

int encode_places(const struct encode_job *j, struct encoded *ret, struct error *err) {
    _cleanup_(freep) uint8_t *keep = calloc((size_t)(j->form.rows * j->form.cols) + 1, 1);
    _cleanup_(freep) struct choice *c = calloc(1, sizeof(*c));
    const char *name = j->form.structure->name;
    int r = 0;

    if (!keep || !c)
        return error_oom(err);
    if (strcmp(name, "sparse") == 0)
        r = place_sparse(j, keep, c, ret);
    else if (strcmp(name, "block") == 0)
        r = place_blocks(j, keep, c, ret);
    else if (strcmp(name, "nm") == 0)
        r = place_nm(j, ret);
    return r < 0 ? error_oom(err) : 0;
}
