/* JPEG by libjpeg-turbo. All bytes are in memory: when the library asks for more, the file is cut off.
 *
 * The library leaves by longjmp: everything it or we allocate hangs on struct jpeg_job, which the caller of
 * setjmp owns. */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "base/cleanup.h"
#include "image/decode_format.h"
#include "image/exif.h"

struct jpeg_job {
    struct jpeg_decompress_struct d;
    struct jpeg_error_mgr manager;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr monitor;
    jmp_buf out;
    const struct decode_options *o;
    struct picture picture;
    uint8_t *row; /* one row as the library gives it, when it is not the result's */
    struct error *err;
    int result;
};

static struct jpeg_job *job_of(j_common_ptr d) {
    return d->client_data;
}

static void leave(j_common_ptr d) {
    char text[JMSG_LENGTH_MAX];

    (*d->err->format_message)(d, text);
    job_of(d)->result = error_set(job_of(d)->err, -EINVAL, "the JPEG cannot be decoded: %s", text);
    longjmp(job_of(d)->out, 1);
}

static void ignore_message(j_common_ptr d) {
    (void)d;
}

/* A few bytes can make a progressive file of thousands of scans over the same big picture. */
static void watch_scans(j_common_ptr d) {
    struct jpeg_job *j = job_of(d);

    if (j->d.input_scan_number <= j->o->max_scans)
        return;
    j->result = error_set(j->err, -EFBIG, "the JPEG has more than %d scans", j->o->max_scans);
    longjmp(j->out, 1);
}

static void nothing(j_decompress_ptr d) {
    (void)d;
}

static boolean no_more(j_decompress_ptr d) {
    (void)d;
    return FALSE;
}

static void skip(j_decompress_ptr d, long n) {
    size_t size = n > 0 ? (size_t)n : 0;

    if (size > d->src->bytes_in_buffer)
        size = d->src->bytes_in_buffer;
    d->src->next_input_byte += size;
    d->src->bytes_in_buffer -= size;
}

static int truncated(struct jpeg_job *j) {
    return error_set(j->err, -EINVAL, "the JPEG ends too early");
}

static void set_up(struct jpeg_job *j, const void *data, size_t size) {
    j->d.err = jpeg_std_error(&j->manager);
    j->d.client_data = j;
    j->manager.error_exit = leave;
    j->manager.output_message = ignore_message;
    j->source = (struct jpeg_source_mgr){.next_input_byte = data,
        .bytes_in_buffer = size,
        .init_source = nothing,
        .fill_input_buffer = no_more,
        .skip_input_data = skip,
        .resync_to_restart = jpeg_resync_to_restart,
        .term_source = nothing};
    j->monitor.progress_monitor = watch_scans;
}

static int read_orientation(const struct jpeg_decompress_struct *d) {
    for (jpeg_saved_marker_ptr m = d->marker_list; m; m = m->next)
        if (m->marker == JPEG_APP0 + 1 && m->data_length > 6 && !memcmp(m->data, "Exif\0", 5))
            return exif_orientation(m->data + 6, m->data_length - 6);
    return 0;
}

/* Adobe's CMYK is stored inverted; so Pillow takes all of it: R = (255 - K) - C (255 - K) / 255. */
static void convert_cmyk(const uint8_t *from, size_t n, uint8_t *to) {
    for (size_t i = 0; i < n; i++, from += 4, to += 3)
        for (int c = 0; c < 3; c++) {
            unsigned k = from[3], t = (255u - from[c]) * k + 128;
            int v = (int)k - (int)(((t >> 8) + t) >> 8);

            to[c] = (uint8_t)(v < 0 ? 0 : v);
        }
}

static int header(struct jpeg_job *j, struct decode_info *ret) {
    struct jpeg_decompress_struct *d = &j->d;
    int r;

    jpeg_save_markers(d, JPEG_APP0 + 1, 0xffff);
    if (jpeg_read_header(d, TRUE) != JPEG_HEADER_OK)
        return truncated(j);
    r = decode_check_pixels(d->image_width, d->image_height, j->o, j->err);
    if (r < 0)
        return r;
    if (d->num_components != 1 && d->num_components != 3 && d->num_components != 4)
        return error_set(j->err, -EINVAL, "a JPEG of %d components is not a picture", d->num_components);
    *ret = (struct decode_info){DECODE_JPEG, (int)d->image_width, (int)d->image_height, read_orientation(d),
        d->num_components == 1 ? 1 : 3};
    return 0;
}

/* Rows come as gray, RGB or CMYK; what is read and what is wanted may differ. */
static int read_rows(struct jpeg_job *j) {
    struct jpeg_decompress_struct *d = &j->d;
    size_t width = d->output_width, stride = width * (size_t)d->output_components;

    j->row = malloc(stride);
    if (!j->row)
        return error_oom(j->err);
    while (d->output_scanline < d->output_height) {
        uint8_t *to = j->picture.pixels + (size_t)d->output_scanline * width * (size_t)j->picture.channels;
        bool is_direct = d->output_components == j->picture.channels;
        JSAMPROW row = is_direct ? to : j->row;

        if (jpeg_read_scanlines(d, &row, 1) != 1)
            return truncated(j);
        if (d->output_components == 4)
            convert_cmyk(j->row, width, to);
        else if (!is_direct)
            for (size_t x = 0; x < width; x++)
                memset(to + 3 * x, j->row[x], 3);
    }
    return 0;
}

static int decode(struct jpeg_job *j, const struct decode_info *info) {
    struct jpeg_decompress_struct *d = &j->d;
    int r, channels = info->channels == 3 || j->o->channels == 3 ? 3 : 1;

    d->progress = &j->monitor;
    d->out_color_space = d->num_components == 1 ? JCS_GRAYSCALE : d->num_components == 3 ? JCS_RGB : JCS_CMYK;
    if (!jpeg_start_decompress(d))
        return truncated(j);
    r = picture_init(&j->picture, info->width, info->height, channels, j->err);
    if (r == 0)
        r = read_rows(j);
    if (r == 0 && !jpeg_finish_decompress(d))
        r = truncated(j);
    if (r == 0 && j->o->channels)
        r = picture_set_channels(&j->picture, j->o->channels, j->err);
    return r;
}

static void run(struct jpeg_job *j, bool is_header_only, struct decode_info *info) {
    if (setjmp(j->out))
        return;
    jpeg_create_decompress(&j->d);
    j->d.src = &j->source;
    j->result = header(j, info);
    if (j->result == 0 && !is_header_only)
        j->result = decode(j, info);
}

int decode_jpeg(const void *data, size_t size, const struct decode_options *o, struct picture *ret,
    struct decode_info *ret_info, struct error *err) {
    struct jpeg_job *j = calloc(1, sizeof(*j));
    int r;

    if (!j)
        return error_oom(err);
    j->o = o;
    j->err = err;
    set_up(j, data, size);
    run(j, !ret, ret_info);
    jpeg_destroy_decompress(&j->d);
    r = j->result;
    if (r == 0 && ret)
        *ret = j->picture;
    else
        picture_done(&j->picture);
    free(j->row);
    free(j);
    return r;
}
