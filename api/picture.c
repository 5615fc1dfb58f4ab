#include "api/picture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "api/target.h"
#include "base/cleanup.h"
#include "image/preprocess.h"

#define DEFAULT_TOP 5

static const struct value *first_input(const struct graph *g) {
    return &g->values[g->inputs[0]];
}

static bool takes_pictures(const struct graph *g) {
    return g->n_inputs == 1 && first_input(g)->dtype == DT_F32 && first_input(g)->shape.rank == 4;
}

static int find_preprocess(
    const json_t *model, const struct graph *g, struct preprocess *ret, struct error *err) {
    const struct value *v;

    if (g->n_inputs != 1)
        return error_code(err, -EINVAL, "shape_mismatch",
            "a picture needs a model with exactly one input, this one has %zu", g->n_inputs);
    v = first_input(g);
    if (!takes_pictures(g))
        return error_code(err, -EINVAL, "shape_mismatch",
            "input '%s' takes no pictures: it is not a float tensor of four dimensions", v->name);
    return preprocess_from_json(json_object_get(model, "preprocess"), v->shape.dim, v->shape.rank, ret, err);
}

/* Room for n results of the preprocess as input 0. */
static int make_input(
    const struct preprocess *p, int64_t n, struct infer *in, size_t *ret_item, struct error *err) {
    struct tensor *t = &in->in[0];
    void *data;
    size_t bytes = 0;

    *t = (struct tensor){.dtype = DT_F32, .shape.rank = 4, .layout = LAYOUT_PLAIN};
    *ret_item = preprocess_shape(p, t->shape.dim);
    t->shape.dim[0] = n;
    if (!shape_bytes(&t->shape, DT_F32, &bytes))
        return error_set(err, -EFBIG, "the pictures are too many");
    data = malloc(bytes);
    if (!data)
        return error_oom(err);
    free(in->owned[0]);
    in->owned[0] = t->data = data;
    in->n_in = 1;
    return 0;
}

static int bind_picture(const struct request *r, const json_t *model, const struct graph *g, struct infer *in,
    struct error *err) {
    struct decode_options limits = {.max_pixels = (int64_t)r->api->limits.picture_pixels};
    struct preprocess p;
    size_t item = 0;
    int rc = find_preprocess(model, g, &p, err);

    if (!rc)
        rc = make_input(&p, 1, in, &item, err);
    if (!rc)
        rc = preprocess_encoded(&p, r->body, r->body_size, &limits, in->in[0].data, err);
    if (!rc && request_query_bool(r, "outputs", true))
        rc = infer_want_all(g, false, in, err);
    return rc;
}

/* Before anything is allocated for the batch: a pixel of the body may become a whole picture of floats. */
static int check_batch(
    const struct api *api, const json_t *model, const struct graph *g, int64_t n, struct error *err) {
    const struct value *v = first_input(g);

    if (v->shape.dim[0] < 0)
        return target_check_batch(api, model, v->name, n, err);
    if (n == v->shape.dim[0])
        return 0;
    return error_code(err, -EINVAL, "shape_mismatch", "input '%s' has %lld pictures, the model takes %lld",
        v->name, (long long)n, (long long)v->shape.dim[0]);
}

/* [N,C,H,W] or [N,H,W,C] pixels, of any height and width. */
static int convert_pixels(
    const struct api *api, const json_t *model, const struct graph *g, struct infer *in, struct error *err) {
    const struct tensor pixels = in->in[0];
    _cleanup_(freep) void *owned = TAKE(in->owned[0]); /* the pixels live until they are converted */
    struct preprocess p;
    size_t item = 0;
    bool is_planes;
    int64_t h, w, c;
    int rc = find_preprocess(model, g, &p, err);

    (void)owned;
    if (rc)
        return rc;
    is_planes = p.layout == PREPROCESS_NCHW;
    c = pixels.shape.dim[is_planes ? 1 : 3];
    h = pixels.shape.dim[is_planes ? 2 : 1];
    w = pixels.shape.dim[is_planes ? 3 : 2];
    if (pixels.shape.rank != 4 || c != preprocess_channels(&p) || h > PREPROCESS_MAX_SIDE ||
        w > PREPROCESS_MAX_SIDE)
        return error_code(err, -EINVAL, "shape_mismatch",
            "pixels must have the shape [N,%s] with %d channels", is_planes ? "C,H,W" : "H,W,C",
            preprocess_channels(&p));
    rc = check_batch(api, model, g, pixels.shape.dim[0], err);
    if (!rc)
        rc = make_input(&p, pixels.shape.dim[0], in, &item, err);
    for (int64_t i = 0; !rc && i < pixels.shape.dim[0]; i++)
        rc = preprocess_array(&p, (const uint8_t *)pixels.data + i * c * h * w, (int)h, (int)w,
            (float *)in->in[0].data + (size_t)i * item, err);
    return rc;
}

int picture_bind(const struct request *r, const json_t *model, const struct graph *g, struct infer *in,
    struct error *err) {
    int rc;

    if (infer_is_picture(r))
        return bind_picture(r, model, g, in, err);
    rc = infer_bind(in, g, takes_pictures(g), err);
    if (!rc && in->needs_preprocess)
        rc = convert_pixels(r->api, model, g, in, err);
    return rc;
}

void picture_describe(const struct graph *g, const struct tensor *out, struct infer_answer *ret) {
    const struct shape *s = &out[0].shape;
    int producer = g->values[g->outputs[0]].producer;

    ret->has_classes = out[0].dtype == DT_F32 && s->rank >= 2 && (s->rank == 2 || s->rank == 4);
    for (int d = 2; d < s->rank; d++)
        ret->has_classes &= s->dim[d] == 1;
    ret->is_softmax = producer >= 0 && !strcmp(g->nodes[producer].op_type, "Softmax");
    if (!ret->top)
        ret->top = DEFAULT_TOP;
}
