/* Our packing of weights gives the bytes of the library's reorder, in every layout it chooses for us. */
#include "tests/unit/cmocka_all.h"

#include <string.h>

#include "engine/hugemem.h"
#include "engine/kernel/pack_blocked.h"
#include "engine/onednn.h"

struct place {
    int rank;
    dnnl_format_tag_t plain, packed;
};

static const struct place places[] = {
    {4, dnnl_abcd, dnnl_ABcd16b16a},
    {4, dnnl_abcd, dnnl_Acdb16a},
    {4, dnnl_abcd, dnnl_Acdb64a},
    {4, dnnl_abcd, dnnl_ABcd8b8a},
    {4, dnnl_abcd, dnnl_Abcd16a},
    {3, dnnl_abc, dnnl_ABc16b16a},
    {5, dnnl_abcde, dnnl_Abcde16a},
    {5, dnnl_abcde, dnnl_aBCde16c16b},
    {2, dnnl_ab, dnnl_AB16b64a},
    {2, dnnl_ab, dnnl_AB16b16a},
    {2, dnnl_ba, dnnl_AB16b32a},
};

static const int64_t sizes[][5] = {{64, 32, 3, 3, 2}, {17, 19, 3, 3, 2}, {1, 1, 1, 1, 2}, {130, 7, 1, 1, 2},
    {15, 48, 5, 1, 2}, {200, 66, 2, 3, 2}};

static void count_call(void *ctx) {
    (*(int *)ctx)++;
}

static void compare(const struct onednn *o, const struct place *place, const int64_t *size, size_t shift) {
    dnnl_memory_desc_t plain, packed;
    dnnl_dims_t dims;
    struct error err = {0};
    size_t n = 1, bytes;
    char *from;
    float *ours, *theirs;

    for (int i = 0; i < place->rank; i++) {
        dims[i] = size[i];
        n *= (size_t)size[i];
    }
    assert_int_equal(dnnl_memory_desc_init_by_tag(&plain, place->rank, dims, dnnl_f32, place->plain), 0);
    assert_int_equal(dnnl_memory_desc_init_by_tag(&packed, place->rank, dims, dnnl_f32, place->packed), 0);
    bytes = dnnl_memory_desc_get_size(&packed);
    from = hugemem_new(n * sizeof(float) + shift);
    ours = hugemem_new(bytes);
    theirs = hugemem_new(bytes);
    for (size_t i = 0; i < n; i++) {
        float v = (float)(i + 1);

        memcpy(from + shift + i * sizeof(v), &v, sizeof(v));
    }
    assert_int_equal(onednn_reorder(o, &plain, from + shift, &packed, theirs, &err), 0);
    assert_true(pack_blocked_f32(&plain, from + shift, &packed, ours, NULL, NULL));
    assert_memory_equal(ours, theirs, bytes);
    hugemem_free(from, n * sizeof(float) + shift);
    hugemem_free(ours, bytes);
    hugemem_free(theirs, bytes);
}

static void test_bytes_of_the_library(void **state) {
    struct error err = {0};
    struct onednn *o;

    (void)state;
    assert_int_equal(onednn_new(&o, &err), 0);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++)
            for (size_t shift = 0; shift < 2; shift++)
                compare(o, &places[i], sizes[k], shift);
    onednn_free(o);
}

static void test_other_layouts_are_left_to_the_library(void **state) {
    const dnnl_dims_t dims = {16, 16, 3, 3};
    dnnl_memory_desc_t plain, other;
    float x = 0;

    (void)state;
    dnnl_memory_desc_init_by_tag(&plain, 4, dims, dnnl_f32, dnnl_abcd);
    dnnl_memory_desc_init_by_tag(&other, 4, dims, dnnl_f32, dnnl_cdba);
    assert_false(pack_blocked_f32(&plain, &x, &other, &x, NULL, NULL));
    dnnl_memory_desc_init_by_tag(&other, 4, dims, dnnl_s8, dnnl_ABcd16b16a);
    assert_false(pack_blocked_f32(&plain, &x, &other, &x, NULL, NULL));
    dnnl_memory_desc_init_by_tag(&other, 4, dims, dnnl_f32, dnnl_ABcd16b16a);
    assert_false(pack_blocked_f32(&other, &x, &other, &x, NULL, NULL));
}

static void test_a_large_source_is_let_go_in_pieces(void **state) {
    const dnnl_dims_t dims = {4096, 4096};
    const size_t bytes = 4096 * 4096 * sizeof(float);
    dnnl_memory_desc_t plain, packed;
    float *from = hugemem_new(bytes), *to = hugemem_new(bytes);
    int n_calls = 0;

    (void)state;
    dnnl_memory_desc_init_by_tag(&plain, 2, dims, dnnl_f32, dnnl_ab);
    dnnl_memory_desc_init_by_tag(&packed, 2, dims, dnnl_f32, dnnl_AB16b64a);
    assert_true(pack_blocked_f32(&plain, from, &packed, to, count_call, &n_calls));
    assert_in_range(n_calls, 2, 4);
    hugemem_free(from, bytes);
    hugemem_free(to, bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_of_the_library),
        cmocka_unit_test(test_other_layouts_are_left_to_the_library),
        cmocka_unit_test(test_a_large_source_is_let_go_in_pieces),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
