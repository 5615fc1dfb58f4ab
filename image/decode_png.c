/* PNG by libpng. The library leaves by longjmp: everything hangs on struct png_job, which the caller of
 * setjmp owns. */
#include <errno.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

#include "base/cleanup.h"
#include "base/reader.h"
#include "image/decode_format.h"
#include "image/exif.h"

#define CHUNKS_MAX     1000       /* ancillary chunks kept */
#define CHUNK_SIZE_MAX (1u << 20) /* bytes of one, expanded */

struct png_job {
    png_structp png;
    png_infop info;
    struct reader r;
    const struct decode_options *o;
    struct picture picture;
    uint8_t *raw;    /* rows as the library gives them, when they are not the result's */
    png_bytepp rows; /* [height] */
    bool is_whole;   /* all pixels are there: what comes behind them may be damaged */
    struct error *err;
    int result;
};

static void leave(png_structp png, png_const_charp text) {
    struct png_job *j = png_get_error_ptr(png);

    if (!j->is_whole)
        j->result = error_set(j->err, -EINVAL, "the PNG cannot be decoded: %s", text);
    png_longjmp(png, 1);
}

/* Only one is taken seriously: a text that expands beyond CHUNK_SIZE_MAX, which is how bombs are made. */
static void judge_warning(png_structp png, png_const_charp text) {
    if (!strcmp(text, "zTXt: truncated") || !strcmp(text, "iTXt: truncated"))
        png_error(png, "a compressed text expands too far");
}

static void read_bytes(png_structp png, png_bytep to, size_t size) {
    struct png_job *j = png_get_io_ptr(png);
    const uint8_t *from;

    if (!reader_bytes(&j->r, size, &from))
        png_error(png, "the file ends too early");
    memcpy(to, from, size);
}

static int read_orientation(const struct png_job *j) {
    png_bytep exif = NULL;
    png_uint_32 size = 0;
    png_textp text = NULL;
    int n = 0, o = 0;

    if (png_get_eXIf_1(j->png, j->info, &size, &exif) & PNG_INFO_eXIf)
        o = exif_orientation(exif, size);
    png_get_text(j->png, j->info, &text, &n);
    for (int i = 0; i < n && !o; i++)
        if (text[i].text && !strcmp(text[i].key, "Raw profile type exif"))
            o = exif_orientation_hex(text[i].text, strlen(text[i].text));
    return o;
}

static int header(struct png_job *j, struct decode_info *ret) {
    png_uint_32 width, height;
    int r, color;

    png_set_user_limits(j->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_set_chunk_cache_max(j->png, CHUNKS_MAX);
    png_set_chunk_malloc_max(j->png, CHUNK_SIZE_MAX);
    png_read_info(j->png, j->info);
    width = png_get_image_width(j->png, j->info);
    height = png_get_image_height(j->png, j->info);
    r = decode_check_pixels(width, height, j->o, j->err);
    if (r < 0)
        return r;
    color = png_get_color_type(j->png, j->info);
    *ret = (struct decode_info){
        DECODE_PNG, (int)width, (int)height, read_orientation(j), color & PNG_COLOR_MASK_COLOR ? 3 : 1};
    return 0;
}

/* Transparency goes; what is left is 8-bit gray or RGB, or gray of 16 bits. */
static bool set_transforms(struct png_job *j) {
    bool is_gray16 = png_get_bit_depth(j->png, j->info) == 16 &&
                     png_get_color_type(j->png, j->info) == PNG_COLOR_TYPE_GRAY;

    if (png_get_color_type(j->png, j->info) == PNG_COLOR_TYPE_PALETTE)
        png_set_palette_to_rgb(j->png);
    else if (png_get_bit_depth(j->png, j->info) < 8)
        png_set_expand_gray_1_2_4_to_8(j->png);
    if (!is_gray16)
        png_set_strip_16(j->png);
    png_set_strip_alpha(j->png);
    png_set_interlace_handling(j->png);
    png_read_update_info(j->png, j->info);
    return is_gray16;
}

/* Pillow holds 16-bit gray as integers and clips them. */
static void clip_gray16(const uint8_t *from, size_t n, uint8_t *to) {
    for (size_t i = 0; i < n; i++)
        to[i] = from[2 * i] ? 255 : from[2 * i + 1];
}

static int decode(struct png_job *j, const struct decode_info *info) {
    size_t width = (size_t)info->width, height = (size_t)info->height;
    bool is_gray16 = set_transforms(j);
    size_t stride = png_get_rowbytes(j->png, j->info);
    uint8_t *to;
    int r;

    if (stride != width * (size_t)info->channels * (is_gray16 ? 2 : 1))
        return error_set(j->err, -EINVAL, "the PNG has rows of an unexpected size");
    r = picture_init(&j->picture, info->width, info->height, info->channels, j->err);
    if (r < 0)
        return r;
    j->rows = calloc(height, sizeof(*j->rows));
    j->raw = is_gray16 ? malloc(stride * height) : NULL;
    if (!j->rows || (is_gray16 && !j->raw))
        return error_oom(j->err);
    to = is_gray16 ? j->raw : j->picture.pixels;
    for (size_t y = 0; y < height; y++)
        j->rows[y] = to + y * stride;
    png_read_image(j->png, j->rows);
    if (is_gray16)
        clip_gray16(j->raw, width * height, j->picture.pixels);
    return 0;
}

static void run(struct png_job *j, bool is_header_only, struct decode_info *info) {
    if (setjmp(png_jmpbuf(j->png)))
        return;
    j->result = header(j, info);
    if (j->result < 0 || is_header_only)
        return;
    j->result = decode(j, info);
    if (j->result < 0)
        return;
    j->is_whole = true;
    png_read_end(j->png, j->info); /* EXIF data may stand behind the pixels */
    info->orientation = read_orientation(j);
}

static void job_done(struct png_job *j) {
    png_destroy_read_struct(&j->png, &j->info, NULL);
    picture_done(&j->picture);
    free(j->raw);
    free(j->rows);
    free(j);
}

int decode_png(const void *data, size_t size, const struct decode_options *o, struct picture *ret,
    struct decode_info *ret_info, struct error *err) {
    struct png_job *j = calloc(1, sizeof(*j));
    int r;

    if (!j)
        return error_oom(err);
    j->o = o;
    j->err = err;
    reader_init(&j->r, data, size);
    j->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, j, leave, judge_warning);
    j->info = j->png ? png_create_info_struct(j->png) : NULL;
    if (!j->info) {
        job_done(j);
        return error_oom(err);
    }
    png_set_read_fn(j->png, j, read_bytes);
    run(j, !ret, ret_info);
    r = j->result;
    if (r == 0 && ret && o->channels)
        r = picture_set_channels(&j->picture, o->channels, err);
    if (r == 0 && ret) {
        *ret = j->picture;
        j->picture = (struct picture){0};
    }
    job_done(j);
    return r;
}
