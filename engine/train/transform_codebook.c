/* seen = scale[c] entry[book][index]: indices are fixed, entries learn (Han 2016, section 3). */
#include <errno.h>
#include <string.h>

#include "engine/train/transform_rows.h"

static int64_t n_books(const struct transform_site *site, const struct transform_codebook *p) {
    return p->range == TRANSFORM_CHANNEL ? site->channels : 1;
}

/* Sums of gradients: of each book, or of the one book in each part. */
static int64_t n_tables(const struct transform_site *site, const struct transform_codebook *p) {
    return p->range == TRANSFORM_CHANNEL ? site->channels : site->n_parts;
}

static int codebook_prepare(
    const struct transform_site *site, const void *param, struct transform_needs *ret, struct error *err) {
    const struct transform_codebook *p = param;

    if (p->n_entries < 1 || p->n_entries > 256 || p->zero >= p->n_entries || !p->entries || !p->index)
        return error_set(err, -EINVAL, "parameter '%s': no codebook of %d entries", site->name, p->n_entries);
    for (int64_t i = 0; i < site->n; i++)
        if (p->index[i] >= p->n_entries)
            return error_set(err, -EINVAL, "parameter '%s': index %d at %lld is past %d entries", site->name,
                p->index[i], (long long)i, p->n_entries);
    *ret = (struct transform_needs){.n_own = 1, .replaces = true};
    ret->own[0].name = "entries";
    ret->own[0].n = n_books(site, p) * p->n_entries;
    ret->n_sums = (size_t)(n_tables(site, p) * p->n_entries);
    return 0;
}

static void codebook_start(const struct transform_site *site, const void *param, float *const *own) {
    const struct transform_codebook *p = param;

    memcpy(own[0], p->entries, (size_t)(n_books(site, p) * p->n_entries) * sizeof(**own));
}

static void codebook_forward(const struct transform_io *io, int phase, unsigned part) {
    const struct transform_codebook *p = io->param;
    const struct transform_site *site = io->site;

    (void)phase;
    for (int64_t o = 0; o < site->outer; o++)
        for (int64_t c = transform_first_channel(site, part); c < transform_first_channel(site, part + 1);
             c++) {
            const float *book = io->own[0] + (p->range == TRANSFORM_CHANNEL ? c * p->n_entries : 0);
            int64_t first = transform_at(site, o, c);
            float scale = p->scale ? p->scale[c] : 1;

            for (int64_t i = first; i < first + site->inner; i++)
                io->y[i] = scale * book[p->index[i]];
        }
}

static void sum_part(const struct transform_io *io, unsigned part) {
    const struct transform_codebook *p = io->param;
    const struct transform_site *site = io->site;
    int64_t c0 = transform_first_channel(site, part), c1 = transform_first_channel(site, part + 1);
    bool is_channel = p->range == TRANSFORM_CHANNEL;

    memset(io->sums + (is_channel ? c0 : part) * p->n_entries, 0,
        (size_t)((is_channel ? c1 - c0 : 1) * p->n_entries) * sizeof(*io->sums));
    for (int64_t o = 0; o < site->outer; o++)
        for (int64_t c = c0; c < c1; c++) {
            double *sum = io->sums + (is_channel ? c : part) * p->n_entries;
            double scale = p->scale ? (double)p->scale[c] : 1;
            int64_t first = transform_at(site, o, c);

            for (int64_t i = first; i < first + site->inner; i++)
                sum[p->index[i]] += scale * (double)io->dy[i];
        }
}

static void codebook_backward(const struct transform_io *io, int phase, unsigned part) {
    const struct transform_codebook *p = io->param;
    int64_t books = n_books(io->site, p), tables = n_tables(io->site, p);

    if (phase == 0) {
        sum_part(io, part);
        return;
    }
    for (int64_t i = 0; part == 0 && i < books * p->n_entries; i++) {
        double sum = 0;

        for (int64_t k = 0; k < tables; k += books)
            sum += io->sums[k * p->n_entries + i];
        io->d_own[0][i] = i % p->n_entries == p->zero ? 0 : (float)sum;
    }
}

const struct transform transform_codebook_row = {
    .name = "codebook",
    .n_forward = 1,
    .n_backward = 2,
    .prepare = codebook_prepare,
    .start = codebook_start,
    .forward = codebook_forward,
    .backward = codebook_backward,
};
