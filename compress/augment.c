#include "compress/augment.h"

#include <math.h>
#include <string.h>

#include "compress/chance.h"

static const struct param rows[] = {
    {
        .name = "crop_padding",
        .type = PARAM_INT,
        .at = offsetof(struct augment_options, crop_padding),
        .min = 0,
        .max = 1024,
        .dflt = "4",
        .doc = "the picture is moved by up to so many pixels each way; black comes in",
        .source = "He et al. 2016, Deep residual learning for image recognition",
    },
    {
        .name = "flip",
        .type = PARAM_BOOL,
        .at = offsetof(struct augment_options, flip),
        .dflt = "true",
        .doc = "every other picture is mirrored, left for right; false where that changes the meaning (text, "
               "digits)",
    },
    {
        .name = "rotate",
        .type = PARAM_REAL,
        .at = offsetof(struct augment_options, rotate),
        .min = 0,
        .max = 180,
        .dflt = "0",
        .doc = "turned by up to so many degrees either way",
    },
    {
        .name = "scale",
        .type = PARAM_REAL,
        .at = offsetof(struct augment_options, scale),
        .min = 0,
        .max = 0.9,
        .dflt = "0",
        .doc = "enlarged by a factor from 1 - scale to 1 + scale",
    },
    {
        .name = "cutout",
        .type = PARAM_REAL,
        .at = offsetof(struct augment_options, cutout),
        .min = 0,
        .max = 1,
        .dflt = "0",
        .doc = "side of a square that is made even, as a share of the picture's shorter side; its middle is "
               "anywhere in the picture",
        .source =
            "DeVries and Taylor 2017, Improved regularization of convolutional neural networks with cutout",
    },
    {
        .name = "mixup",
        .type = PARAM_REAL,
        .at = offsetof(struct augment_options, mixup),
        .min = 0,
        .max = 1,
        .dflt = "0",
        .doc = "two pictures and their targets are mixed, in shares of the distribution Beta(mixup, mixup)",
        .source = "Zhang et al. 2018, mixup: beyond empirical risk minimization",
    },
    {
        .name = "color",
        .type = PARAM_REAL,
        .at = offsetof(struct augment_options, color),
        .min = 0,
        .max = 1,
        .dflt = "0",
        .doc = "brightness, contrast and saturation times factors from 1 - color to 1 + color",
    },
};

const struct param_table augment_table = {rows, sizeof(rows) / sizeof(rows[0])};

/* Places of the numbers; those of mixup go on. */
enum {
    AT_FLIP,
    AT_RIGHT,
    AT_DOWN,
    AT_ANGLE,
    AT_FACTOR,
    AT_BRIGHTNESS,
    AT_CONTRAST,
    AT_SATURATION,
    AT_CUT_X,
    AT_CUT_Y,
    AT_OTHER,
    AT_SHARE,
};

bool augment_changes_pixels(const struct augment_options *o) {
    return o->is_wanted &&
           (o->crop_padding > 0 || o->flip || o->rotate > 0 || o->scale > 0 || o->cutout > 0 || o->color > 0);
}

static struct augment_place choose_place(const struct augment_options *o, uint64_t key) {
    uint64_t ways = 2 * (uint64_t)o->crop_padding + 1;

    return (struct augment_place){
        .is_flipped = o->flip && chance_unit(key, AT_FLIP) < 0.5,
        .right = (int)chance_below(key, AT_RIGHT, ways) - o->crop_padding,
        .down = (int)chance_below(key, AT_DOWN, ways) - o->crop_padding,
        .angle = chance_between(key, AT_ANGLE, -o->rotate, o->rotate),
        .factor = chance_between(key, AT_FACTOR, 1 - o->scale, 1 + o->scale),
    };
}

static struct augment_color choose_color(const struct augment_options *o, uint64_t key) {
    return (struct augment_color){
        .brightness = chance_between(key, AT_BRIGHTNESS, 1 - o->color, 1 + o->color),
        .contrast = chance_between(key, AT_CONTRAST, 1 - o->color, 1 + o->color),
        .saturation = chance_between(key, AT_SATURATION, 1 - o->color, 1 + o->color),
    };
}

static void cut_somewhere(
    struct picture *p, const struct augment_options *o, uint64_t key, const uint8_t fill[static 3]) {
    int shorter = p->height < p->width ? p->height : p->width;

    augment_cut(p, (int)chance_below(key, AT_CUT_X, (uint64_t)p->width),
        (int)chance_below(key, AT_CUT_Y, (uint64_t)p->height), (int)lrint(o->cutout * shorter), fill);
}

void augment_picture(const struct augment_options *o, uint64_t key, const struct picture *from,
    const uint8_t fill[static 3], uint8_t *ret) {
    struct augment_place place = choose_place(o, key);
    struct augment_color color = choose_color(o, key);
    struct picture p = *from;

    p.pixels = ret;
    augment_move(from, &place, ret);
    if (o->color > 0)
        augment_recolor(&p, &color);
    if (o->cutout > 0)
        cut_somewhere(&p, o, key, fill);
}

/* Beta(a, a), 0 < a ≤ 1, by Jöhnk 1964: u^(1/a) / (u^(1/a) + v^(1/a)) of the first pair whose sum is at
 * most 1, which is every other pair or more. */
static double draw_beta(double a, uint64_t key) {
    for (uint64_t i = 0; i < 64; i++) {
        double u = chance_unit(key, AT_SHARE + 2 * i), v = chance_unit(key, AT_SHARE + 2 * i + 1);
        double x = pow(u, 1 / a), y = pow(v, 1 / a);

        if (x + y > 0 && x + y <= 1)
            return x / (x + y);
        if (x + y <= 0) /* both too small for a double: all is one's or the other's */
            return u > v;
    }
    return 1;
}

double augment_mix(const struct augment_options *o, uint64_t key, uint64_t n, uint64_t *ret_other) {
    if (!o->is_wanted || o->mixup <= 0)
        return 1;
    *ret_other = chance_below(key, AT_OTHER, n);
    return draw_beta(o->mixup, key);
}
