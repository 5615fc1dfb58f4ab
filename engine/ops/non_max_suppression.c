/* NonMaxSuppression: of the boxes of each class, the best that do not overlap a better one.
 *
 *     boxes[batch][n][4]  scores[batch][classes][n]  →  selected[found][3] = {batch, class, box}
 *
 * Greedy, as ONNX has it: boxes by falling score, equal ones as they stand; one is taken unless its
 * intersection over union with one taken before is above the threshold. */
#include <stdlib.h>

#include "engine/ops/common.h"
#include "engine/ops/rows.h"

struct box {
    float y1, x1, y2, x2; /* y1 <= y2, x1 <= x2 */
};

struct candidate {
    float score;
    int64_t index;
};

/* Inputs 2 to 4 are one number each, or left out. */
static const struct tensor *optional(const struct node *n, const struct tensor *const *in, int i) {
    return i < n->n_in ? in[i] : NULL;
}

static int check_number(const struct tensor *t, enum dtype want, const char *what, struct error *err) {
    if (!t || (t->dtype == want && op_count(t) == 1))
        return 0;
    return error_code(err, -EBADMSG, "invalid_model", "%s is not one %s", what, dtype_info(want)->name);
}

static int64_t max_boxes(const struct node *n, const struct tensor *const *in) {
    const struct tensor *t = optional(n, in, 2);
    int64_t most = 0;

    if (t)
        memcpy(&most, t->data, sizeof(most));
    return most < 0 ? 0 : most;
}

static float number(const struct node *n, const struct tensor *const *in, int i, float missing) {
    const struct tensor *t = optional(n, in, i);
    float f = missing;

    if (t)
        memcpy(&f, t->data, sizeof(f));
    return f;
}

/* The most there may be: without a known limit every box of every class. */
static int nms_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct shape *b = &in[0]->shape, *s = &in[1]->shape;
    const struct tensor *limit = optional(n, in, 2);
    int64_t most = 0, rows;
    int r = op_check_float(in[0], err);

    if (r == 0)
        r = op_check_float(in[1], err);
    if (r == 0)
        r = check_number(limit, DT_S64, "max_output_boxes_per_class", err);
    if (r == 0)
        r = check_number(optional(n, in, 3), DT_F32, "iou_threshold", err);
    if (r == 0)
        r = check_number(optional(n, in, 4), DT_F32, "score_threshold", err);
    if (r < 0)
        return r;
    if (b->rank != 3 || s->rank != 3 || b->dim[2] != 4 || b->dim[0] != s->dim[0] || b->dim[1] != s->dim[2])
        return error_code(
            err, -EBADMSG, "shape_mismatch", "boxes are not [batch,n,4] with scores [batch,classes,n]");
    if (limit)
        most = limit->data ? max_boxes(n, in) : b->dim[1];
    most = most < b->dim[1] ? most : b->dim[1];
    if (__builtin_mul_overflow(s->dim[0] * s->dim[1], most, &rows) || rows > SHAPE_MAX_COUNT / 3)
        return error_code(err, -EBADMSG, "shape_mismatch", "there may be too many boxes");
    out[0].dtype = DT_S64;
    out[0].shape = (struct shape){.rank = 2, .dim = {rows, 3}};
    return 0;
}

static struct box read_box(const float *p, bool is_centre) {
    struct box b;

    if (is_centre) /* x y width height */
        return (struct box){p[1] - p[3] / 2, p[0] - p[2] / 2, p[1] + p[3] / 2, p[0] + p[2] / 2};
    b = (struct box){p[0], p[1], p[2], p[3]}; /* two corners, in any order */
    return (struct box){fminf(b.y1, b.y2), fminf(b.x1, b.x2), fmaxf(b.y1, b.y2), fmaxf(b.x1, b.x2)};
}

static float area(const struct box *b) {
    return (b->y2 - b->y1) * (b->x2 - b->x1);
}

static bool overlap(const struct box *a, const struct box *b, float threshold) {
    float height = fminf(a->y2, b->y2) - fmaxf(a->y1, b->y1),
          width = fminf(a->x2, b->x2) - fmaxf(a->x1, b->x1);
    float both = height > 0 && width > 0 ? height * width : 0, either = area(a) + area(b) - both;

    return both > 0 && either > 0 && both / either > threshold;
}

static int by_score(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;

    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

/* [n] candidates, [n] boxes taken */
static size_t nms_scratch(const struct node *n, const struct tensor *const *in, const struct tensor *out) {
    (void)n;
    (void)out;
    return (size_t)in[0]->shape.dim[1] * (sizeof(struct candidate) + sizeof(struct box));
}

struct nms {
    bool is_centre, has_least;
    float threshold, least;
    int64_t n, most;
    struct candidate *candidates;
    struct box *taken;
};

/* One class of one picture: writes {batch, class, box} rows, returns how many. */
static int64_t select_boxes(const struct nms *s, const float *boxes, const float *scores, int64_t batch,
    int64_t class, int64_t *ret) {
    int64_t n = 0, found = 0;

    for (int64_t i = 0; i < s->n; i++) {
        if (scores[i] != scores[i] || (s->has_least && !(scores[i] > s->least)))
            continue;
        s->candidates[n++] = (struct candidate){.score = scores[i], .index = i};
    }
    qsort(s->candidates, (size_t)n, sizeof(*s->candidates), by_score);
    for (int64_t i = 0; i < n && found < s->most; i++) {
        struct box b = read_box(boxes + 4 * s->candidates[i].index, s->is_centre);
        bool is_free = true;

        for (int64_t k = 0; is_free && k < found; k++)
            is_free = !overlap(&b, &s->taken[k], s->threshold);
        if (!is_free)
            continue;
        s->taken[found] = b;
        ret[3 * found] = batch;
        ret[3 * found + 1] = class;
        ret[3 * found + 2] = s->candidates[i].index;
        found++;
    }
    return found;
}

static void nms_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    int64_t batches = in[1]->shape.dim[0], classes = in[1]->shape.dim[1], found = 0;
    struct nms s = {.is_centre = node_attr_int(n, "center_point_box", 0) != 0,
        .has_least = optional(n, in, 4) != NULL,
        .threshold = number(n, in, 3, 0),
        .least = number(n, in, 4, 0),
        .n = in[0]->shape.dim[1],
        .most = max_boxes(n, in),
        .candidates = scratch};

    s.most = s.most < s.n ? s.most : s.n;
    s.taken = (struct box *)(void *)(s.candidates + s.n);
    for (int64_t b = 0; b < batches; b++)
        for (int64_t c = 0; c < classes; c++)
            found += select_boxes(&s, (const float *)in[0]->data + b * s.n * 4,
                (const float *)in[1]->data + (b * classes + c) * s.n, b, c,
                (int64_t *)out[0].data + 3 * found);
    out[0].shape.dim[0] = found;
}

static void nms_cost(
    const struct node *n, const struct tensor *const *in, const struct tensor *out, struct op_cost *ret) {
    (void)n;
    (void)out;
    *ret = (struct op_cost){.macs = op_count(in[1]), .bytes = (int64_t)(op_bytes(in[0]) + op_bytes(in[1]))};
}

const struct op op_non_max_suppression = {
    .name = "NonMaxSuppression",
    .domain = "",
    .since = 10,
    .until = OPSET_LAST,
    .min_in = 2,
    .max_in = 5,
    .min_out = 1,
    .max_out = 1,
    .shape = nms_shape,
    .scratch = nms_scratch,
    .forward = nms_forward,
    .cost = nms_cost,
    .couple = OP_COUPLE_NONE,
    .quant = OP_QUANT_FLOAT,
    .is_counted = true,
};
