/* Conv on bfloat16 where products of floats are the faster ones: some pictures at a time, few enough for the
 * second-level cache, become floats and go through the convolution of floats; what comes out is rounded. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/train/passes.h"
#include "engine/train/rows.h"

#define CHUNK_BYTES ((int64_t)1 << 20) /* of input and output of the pictures that go together */

struct train_state {
    struct train_state *floats; /* train_conv's, for `chunk` pictures */
    bool has_bias;
    int64_t n, chunk; /* pictures */
    int64_t x, y;     /* elements of a picture's input and output */
    const struct train_passes *passes;
    size_t at_x, at_y; /* in the lane's scratch, behind the convolution's own */
};

static bool widened_fits(const struct train_layer *l) {
    return l->in[0]->dtype == DT_BF16 && l->out[0].dtype == DT_BF16 && !l->cpu->bf16_products &&
           l->in[0]->shape.dim[0] > 0;
}

static struct train_state *widened_done(struct train_state *s) {
    if (s && s->floats)
        train_conv.done(s->floats);
    free(s);
    return NULL;
}
DEFINE_CLEANUP(struct train_state *, widened_done)

/* The most pictures that divide all of them and stay in the cache. */
static int64_t chunk_of(int64_t n, int64_t bytes) {
    int64_t chunk = n;

    while (chunk > 1 && (n % chunk || chunk * bytes > CHUNK_BYTES))
        chunk--;
    return chunk;
}

static int widened_prepare(
    const struct train_layer *l, struct train_state **ret, struct train_needs *needs, struct error *err) {
    _cleanup_(widened_donep) struct train_state *s = calloc(1, sizeof(*s));
    struct tensor x = *l->in[0], y = l->out[0];
    const struct tensor *in[3] = {&x, l->in[1], l->n_in > 2 ? l->in[2] : NULL};
    struct train_layer floats = *l;
    int r;

    if (!s)
        return error_oom(err);
    s->has_bias = in[2] != NULL;
    s->n = x.shape.dim[0];
    s->x = train_count(&x.shape) / s->n;
    s->y = train_count(&y.shape) / s->n;
    s->chunk = chunk_of(s->n, (s->x + s->y) * (int64_t)sizeof(float));
    s->passes = train_passes_for(l->cpu);
    x.dtype = y.dtype = DT_F32;
    x.shape.dim[0] = y.shape.dim[0] = s->chunk;
    floats.in = in;
    floats.out = &y;
    if (!train_conv.fits(&floats))
        return error_set(err, -EOPNOTSUPP, "not a convolution of oneDNN's");
    r = train_conv.prepare(&floats, &s->floats, needs, err);
    if (r < 0)
        return r;
    s->at_x = (needs->scratch + 63) / 64 * 64;
    s->at_y = s->at_x + (size_t)(s->chunk * s->x + 15) / 16 * 64;
    needs->scratch = s->at_y + (size_t)(s->chunk * s->y + 15) / 16 * 64;
    *ret = TAKE(s);
    return 0;
}

static void widened_pack(const struct train_state *s, const void *const *in) {
    train_conv.pack(s->floats, in);
}

static void widened_forward(const struct train_state *s, const struct train_io *io, int phase) {
    char *scratch = io->scratch;
    float *x = (float *)(void *)(scratch + s->at_x), *y = (float *)(void *)(scratch + s->at_y);
    const void *in[3] = {x, io->in[1], s->has_bias ? io->in[2] : NULL};
    struct train_io floats = *io;

    floats.in = in;
    floats.out = (void *[]){y};
    for (int64_t i = 0; i < s->n; i += s->chunk) {
        s->passes->widen(s->chunk * s->x, (const uint16_t *)io->in[0] + i * s->x, x);
        train_conv.forward(s->floats, &floats, phase);
        s->passes->narrow(s->chunk * s->y, y, (uint16_t *)io->out[0] + i * s->y, false);
    }
}

/* The first pictures write the parameters' gradients, unless a sum is there, the others add to them. The
 * data's takes the place of the data, which the weights' has read. */
static void widened_backward(const struct train_state *s, const struct train_io *io, int phase) {
    char *scratch = io->scratch;
    float *x = (float *)(void *)(scratch + s->at_x), *dy = (float *)(void *)(scratch + s->at_y);
    const void *in[3] = {x, io->in[1], s->has_bias ? io->in[2] : NULL};
    void *d_in[3] = {io->d_in[0] ? x : NULL, io->d_in[1], s->has_bias ? io->d_in[2] : NULL};
    bool adds[3] = {false, io->adds[1], s->has_bias && io->adds[2]};
    struct train_io floats = *io;

    floats.in = in;
    floats.d_in = d_in;
    floats.d_out = (const void *[]){dy};
    floats.adds = adds;
    for (int64_t i = 0; i < s->n; i += s->chunk) {
        if (d_in[1] || d_in[2])
            s->passes->widen(s->chunk * s->x, (const uint16_t *)io->in[0] + i * s->x, x);
        s->passes->widen(s->chunk * s->y, (const uint16_t *)io->d_out[0] + i * s->y, dy);
        train_conv.backward(s->floats, &floats, phase);
        if (io->d_in[0])
            s->passes->narrow(s->chunk * s->x, x, (uint16_t *)io->d_in[0] + i * s->x, io->adds[0]);
        adds[1] = adds[2] = true;
    }
}

const struct train_kernel train_conv_widened = {
    .name = "conv_widened",
    .op_types = (const char *const[]){"Conv", NULL},
    .fits = widened_fits,
    .prepare = widened_prepare,
    .pack = widened_pack,
    .n_forward = 1,
    .n_backward = 1,
    .forward = widened_forward,
    .backward = widened_backward,
    .done = widened_done,
    .saves_in = true,
};
