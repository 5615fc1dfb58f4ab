#include "api/dataset_item.h"

#include <errno.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/decode.h"
#include "image/pack.h"

/* libpng's simplified interface: the whole picture at once. */
static int encode_png(const struct picture *picture, char **ret, size_t *ret_size, struct error *err) {
    png_image png = {.version = PNG_IMAGE_VERSION,
        .width = (png_uint_32)picture->width,
        .height = (png_uint_32)picture->height,
        .format = picture->channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB};
    png_alloc_size_t size = 0;
    char *data;

    if (!png_image_write_get_memory_size(png, size, 0, picture->pixels, 0, NULL))
        return error_set(err, -EIO, "the item cannot be written as PNG: %s", png.message);
    data = malloc(size);
    if (!data)
        return error_oom(err);
    if (!png_image_write_to_memory(&png, data, &size, 0, picture->pixels, 0, NULL)) {
        free(data);
        return error_set(err, -EIO, "the item cannot be written as PNG: %s", png.message);
    }
    *ret = data;
    *ret_size = size;
    return 0;
}

static int item_png(const struct pack_item *item, char **ret, size_t *ret_size, struct error *err) {
    struct picture picture = {.pixels = (uint8_t *)(uintptr_t)item->data,
        .width = (int)item->width,
        .height = (int)item->height,
        .channels = item->channels};
    int r;

    if (item->kind == PACK_RAW)
        return encode_png(&picture, ret, ret_size, err);
    if (item->kind == PACK_PNG) { /* as it came */
        *ret = malloc(item->size);
        *ret_size = item->size;
        if (!*ret)
            return error_oom(err);
        memcpy(*ret, item->data, item->size);
        return 0;
    }
    picture = (struct picture){0};
    r = decode_picture(item->data, item->size, &(struct decode_options){0}, &picture, NULL, err);
    if (r == 0)
        r = encode_png(&picture, ret, ret_size, err);
    picture_done(&picture);
    return r;
}

int dataset_item_reply(int fd, const char *split, uint64_t index, struct reply *p, struct error *err) {
    _cleanup_(pack_freep) struct pack *pack = NULL;
    struct pack_item item;
    char *png = NULL;
    size_t size = 0;
    int id, r = pack_open(fd, &pack, err);

    if (r < 0)
        return r;
    id = split ? pack_find_split(pack, split) : 0;
    if (id < 0 || (uint32_t)id >= pack_n_splits(pack))
        return error_set(err, -ENOENT, "the data set has no split '%.64s'", split ? split : "");
    if (index >= pack_count(pack, (uint32_t)id))
        return error_set(err, -ENOENT, "the split '%.64s' has %llu items, counted from 0",
            pack_split(pack, (uint32_t)id), (unsigned long long)pack_count(pack, (uint32_t)id));
    pack_item(pack, (uint32_t)id, index, &item);
    r = item_png(&item, &png, &size, err);
    if (r < 0)
        return r;
    if (item.label != PACK_NO_LABEL)
        reply_header(p, "Bonsai-Label", "%s", pack_class(pack, item.label));
    return reply_bytes(p, 200, "image/png", png, size);
}
