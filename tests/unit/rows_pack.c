#include "tests/unit/rows_pack.h"

#include <openssl/evp.h>

#include "base/cleanup.h"
#include "tests/unit/archive_make.h"
#include "tests/unit/cmocka_all.h"

#define SIDE    4
#define CLASSES 3

static void add_picture(struct pack_writer *w, int i, bool has_label) {
    uint8_t pixels[SIDE * SIDE];
    struct pack_item item = {.data = pixels,
        .size = sizeof(pixels),
        .label = has_label ? (uint32_t)(i % CLASSES) : PACK_NO_LABEL,
        .kind = PACK_RAW,
        .channels = 1,
        .height = SIDE,
        .width = SIDE};

    for (int k = 0; k < SIDE * SIDE; k++)
        pixels[k] = (uint8_t)((i * 37 + k * k * 11) % 97 + (k / SIDE == i % CLASSES ? 150 : 0));
    EVP_Digest(pixels, sizeof(pixels), item.sha256, NULL, EVP_sha256(), NULL);
    assert_int_equal(pack_writer_add(w, &item, NULL), 0);
}

struct pack *rows_pack(bool has_labels) {
    _cleanup_(closep) int fd = memory_file();
    _cleanup_(pack_writer_freep) struct pack_writer *w = NULL;
    struct pack *p = NULL;

    assert_int_equal(pack_writer_new(fd, &w, NULL), 0);
    assert_int_equal(pack_writer_split(w, "train", NULL), 0);
    for (int c = 0; c < CLASSES; c++)
        assert_int_equal(pack_writer_class(w, (const char *[]){"a", "b", "c"}[c], NULL), c);
    for (int i = 0; i < ROWS_PACK_N; i++)
        add_picture(w, i, has_labels);
    assert_int_equal(pack_writer_finish(w, false, NULL), 0);
    assert_int_equal(pack_open(fd, &p, NULL), 0);
    return p;
}
