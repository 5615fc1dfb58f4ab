/* `preprocess` as JSON: read over what the input's shape gives, and written. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "image/preprocess.h"

static const char *const layouts[] = {"NCHW", "NHWC", NULL};
static const char *const colors[] = {"rgb", "bgr", "gray", NULL};
static const char *const modes[] = {"bilinear", "bicubic", "nearest", NULL};
static const char *const exifs[] = {"apply", "ignore", NULL};
static const char *const sources[] = {"default", NULL};

static int read_choice(
    const json_t *j, const char *path, const char *const *choices, int *ret, struct error *err) {
    const char *s = json_string_value(j);

    for (int i = 0; s && choices[i]; i++)
        if (!strcmp(s, choices[i])) {
            *ret = i;
            return 0;
        }
    return error_set(err, -EINVAL, "preprocess.%s must be one of %s%s%s%s%s", path, choices[0],
        choices[1] ? ", " : "", choices[1] ? choices[1] : "", choices[1] && choices[2] ? ", " : "",
        choices[1] && choices[2] ? choices[2] : "");
}

static int read_side(const json_t *j, const char *path, int *ret, struct error *err) {
    json_int_t v = json_integer_value(j);

    if (!json_is_integer(j) || v < 1 || v > PREPROCESS_MAX_SIDE)
        return error_set(
            err, -EINVAL, "preprocess.%s must be a number of pixels from 1 to %d", path, PREPROCESS_MAX_SIDE);
    *ret = (int)v;
    return 0;
}

/* [height, width] */
static int read_sides(const json_t *j, const char *path, int *ret_h, int *ret_w, struct error *err) {
    int r;

    if (json_array_size(j) != 2)
        return error_set(err, -EINVAL, "preprocess.%s must be [height, width]", path);
    r = read_side(json_array_get(j, 0), path, ret_h, err);
    return r < 0 ? r : read_side(json_array_get(j, 1), path, ret_w, err);
}

static int read_number(const json_t *j, const char *path, double *ret, struct error *err) {
    if (!json_is_number(j) || !isfinite(json_number_value(j)))
        return error_set(err, -EINVAL, "preprocess.%s must be a number", path);
    *ret = json_number_value(j);
    return 0;
}

static int read_layout(const json_t *j, struct preprocess *p, struct error *err) {
    int v = 0, r = read_choice(j, "layout", layouts, &v, err);

    p->layout = (enum preprocess_layout)v;
    return r;
}

static int read_color(const json_t *j, struct preprocess *p, struct error *err) {
    int v = 0, r = read_choice(j, "color", colors, &v, err);

    p->color = (enum preprocess_color)v;
    return r;
}

static int read_exif(const json_t *j, struct preprocess *p, struct error *err) {
    int v = 0, r = read_choice(j, "exif", exifs, &v, err);

    p->is_exif_ignored = v == 1;
    return r;
}

static int read_mode(const json_t *j, struct preprocess *p, struct error *err) {
    int v = 0, r = read_choice(j, "resize.mode", modes, &v, err);

    p->mode = (enum resize_mode)v;
    return r;
}

static int read_size(const json_t *j, struct preprocess *p, struct error *err) {
    p->height = p->width = p->shorter = 0;
    if (json_is_integer(j))
        return read_side(j, "resize.size", &p->shorter, err);
    return read_sides(j, "resize.size", &p->height, &p->width, err);
}

static int read_crop(const json_t *j, struct preprocess *p, struct error *err) {
    return read_sides(j, "resize.crop", &p->crop_height, &p->crop_width, err);
}

static int read_scale(const json_t *j, struct preprocess *p, struct error *err) {
    return read_number(j, "scale", &p->scale, err);
}

/* One number for each channel; how many there are is checked when the colour is known. */
static int read_numbers(const json_t *j, const char *path, double ret[3], struct error *err) {
    size_t n = json_array_size(j);

    if (n != 1 && n != 3)
        return error_set(err, -EINVAL, "preprocess.%s must have one number for each channel", path);
    for (size_t c = 0; c < 3; c++) {
        int r = read_number(json_array_get(j, c < n ? c : 0), path, &ret[c], err);

        if (r < 0)
            return r;
    }
    return 0;
}

static int read_mean(const json_t *j, struct preprocess *p, struct error *err) {
    return read_numbers(j, "mean", p->mean, err);
}

static int read_std(const json_t *j, struct preprocess *p, struct error *err) {
    int r = read_numbers(j, "std", p->std, err);

    for (int c = 0; r == 0 && c < 3; c++)
        if (p->std[c] == 0)
            r = error_set(err, -EINVAL, "preprocess.std must not be 0");
    return r;
}

static int read_source(const json_t *j, struct preprocess *p, struct error *err) {
    int v = 0;

    (void)p;
    return read_choice(j, "source", sources, &v, err);
}

struct key {
    const char *name;
    int (*read)(const json_t *j, struct preprocess *p, struct error *err);
};

static const struct key resize_keys[] = {{"crop", read_crop}, {"mode", read_mode}, {"size", read_size}};

static int read_object(const json_t *j, const char *path, const struct key *keys, size_t n,
    struct preprocess *p, struct error *err) {
    const char *dot = *path ? "." : "", *name;
    json_t *value;

    if (!json_is_object(j))
        return error_set(err, -EINVAL, "preprocess%s%s must be an object", dot, path);
    json_object_foreach((json_t *)(uintptr_t)j, name, value) {
        size_t i = 0;
        int r;

        while (i < n && strcmp(keys[i].name, name))
            i++;
        if (i == n)
            return error_code(
                err, -EINVAL, "unknown_field", "preprocess%s%s.%s is not known", dot, path, name);
        r = json_is_null(value) ? 0 : keys[i].read(value, p, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int read_resize(const json_t *j, struct preprocess *p, struct error *err) {
    return read_object(j, "resize", resize_keys, sizeof(resize_keys) / sizeof(resize_keys[0]), p, err);
}

static const struct key keys[] = {
    {"color", read_color},
    {"exif", read_exif},
    {"layout", read_layout},
    {"mean", read_mean},
    {"resize", read_resize},
    {"scale", read_scale},
    {"source", read_source},
    {"std", read_std},
};

static bool is_colors(int64_t n) {
    return n == 1 || n == 3;
}

static int derive(const int64_t *dim, int rank, struct preprocess *p, struct error *err) {
    int64_t h, w, c;

    if (rank != 4 || (!is_colors(dim[1]) && !is_colors(dim[3])))
        return error_code(err, -EBADMSG, "shape_mismatch",
            "the model's input takes no picture: it is not [N,C,H,W] or [N,H,W,C] with 1 or 3 channels");
    *p = (struct preprocess){.layout = is_colors(dim[1]) ? PREPROCESS_NCHW : PREPROCESS_NHWC,
        .scale = 1.0 / 255,
        .std = {1, 1, 1}};
    c = p->layout == PREPROCESS_NCHW ? dim[1] : dim[3];
    h = p->layout == PREPROCESS_NCHW ? dim[2] : dim[1];
    w = p->layout == PREPROCESS_NCHW ? dim[3] : dim[2];
    p->color = c == 1 ? PREPROCESS_GRAY : PREPROCESS_RGB;
    if (h > 0 && w > 0 && h <= PREPROCESS_MAX_SIDE && w <= PREPROCESS_MAX_SIDE) {
        p->height = (int)h;
        p->width = (int)w;
    }
    return 0;
}

/* What was given must fit together and fit the input. */
static int check(const struct preprocess *p, const json_t *j, const int64_t *dim, struct error *err) {
    static const char *const lists[] = {"mean", "std"};
    int64_t got[4];

    if (!p->shorter && !p->height)
        return error_code(err, -EBADMSG, "preprocess_required",
            "the model takes pictures of any height or width: its preprocess needs resize.size");
    if (p->shorter && !p->crop_height)
        return error_set(
            err, -EINVAL, "preprocess.resize.size is the shorter side: resize.crop is needed too");
    for (size_t i = 0; i < 2; i++) {
        const json_t *list = json_object_get(j, lists[i]);

        if (json_is_array(list) && json_array_size(list) != (size_t)preprocess_channels(p))
            return error_set(err, -EINVAL, "preprocess.%s must have one number for each of %d channels",
                lists[i], preprocess_channels(p));
    }
    preprocess_shape(p, got);
    for (int i = 1; i < 4; i++)
        if (dim[i] >= 0 && dim[i] != got[i])
            return error_code(err, -EBADMSG, "shape_mismatch",
                "preprocess gives [1,%lld,%lld,%lld], the model's input is [N,%lld,%lld,%lld]",
                (long long)got[1], (long long)got[2], (long long)got[3], (long long)dim[1], (long long)dim[2],
                (long long)dim[3]);
    return 0;
}

int preprocess_from_json(
    const json_t *j, const int64_t *dim, int rank, struct preprocess *ret, struct error *err) {
    bool is_set = j && !json_is_null(j);
    const char *source = json_string_value(json_object_get(j, "source"));
    struct preprocess p = {0}, derived;
    int r = derive(dim, rank, &p, err);

    memcpy(&derived, &p, sizeof(p));
    if (r == 0 && is_set)
        r = read_object(j, "", keys, sizeof(keys) / sizeof(keys[0]), &p, err);
    if (r == 0)
        r = check(&p, j, dim, err);
    if (r < 0)
        return r;
    p.is_default = !is_set || (source && !memcmp(&p, &derived, sizeof(p))); /* what was shown came back */
    *ret = p;
    return 0;
}

static json_t *numbers(const double v[3], int n) {
    json_t *list = json_array();

    for (int i = 0; i < n; i++)
        json_array_append_new(list, json_real(v[i]));
    return list;
}

json_t *preprocess_to_json(const struct preprocess *p) {
    int n = preprocess_channels(p);
    json_t *size = p->shorter ? json_integer(p->shorter) : json_pack("[i,i]", p->height, p->width);
    json_t *crop = p->crop_height ? json_pack("[i,i]", p->crop_height, p->crop_width) : json_null();
    json_t *j = json_pack("{s:s, s:s, s:{s:s, s:o, s:o}, s:f, s:o, s:o, s:s}", "layout", layouts[p->layout],
        "color", colors[p->color], "resize", "mode", modes[p->mode], "size", size, "crop", crop, "scale",
        p->scale, "mean", numbers(p->mean, n), "std", numbers(p->std, n), "exif", exifs[p->is_exif_ignored]);

    if (j && p->is_default)
        json_object_set_new(j, "source", json_string("default"));
    return j;
}
