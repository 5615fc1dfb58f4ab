/* How long the numbers of a 3x224x224 JSON body take: the two passes of api/tensor_json, beside jansson's DOM
 * of the same text. Prints both medians and "json_parse ratio=R" (goal: at most 4 ms for ours). */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/tensor_json.h"
#include "base/cleanup.h"
#include "base/clock.h"

#define VALUES (3 * 224 * 224)
#define ROUNDS 31

static int compare(const void *a, const void *b) {
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static size_t make_body(char *text, size_t cap) {
    size_t n = (size_t)snprintf(
        text, cap, "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,3,224,224],\"data\":[");
    unsigned seed = 1;

    for (int i = 0; i < VALUES; i++) {
        seed = seed * 1664525u + 1013904223u; /* normalised pixels, nine digits as a float needs */
        n += (size_t)snprintf(
            text + n, cap - n, "%s%.9g", i ? "," : "", (double)((float)(seed >> 24) / 255 - 0.485f) / 0.229);
    }
    return n + (size_t)snprintf(text + n, cap - n, "]}]}");
}

static int parse_ours(const char *text, size_t size, float *values) {
    _cleanup_(tensor_json_done) struct tensor_json t;
    const struct shape shape = {.rank = 4, .dim = {1, 3, 224, 224}};
    struct error err = {0};

    tensor_json_init(&t);
    if (tensor_json_cut(&t, text, size, 64, &err))
        return -1;
    return tensor_json_scan(&t.span[0], DT_F32, &shape, values, &err);
}

int main(void) {
    const size_t cap = (size_t)VALUES * 20;
    _cleanup_(freep) char *text = malloc(cap);
    _cleanup_(freep) float *values = malloc(VALUES * sizeof(*values));
    double ours[ROUNDS], dom[ROUNDS];
    size_t size;

    if (!text || !values)
        return 1;
    size = make_body(text, cap);
    for (int i = 0; i < ROUNDS; i++) {
        double begin = clock_now_us(), middle;

        if (parse_ours(text, size, values))
            return 1;
        middle = clock_now_us();
        json_decref(json_loadb(text, size, 0, NULL));
        ours[i] = middle - begin;
        dom[i] = clock_now_us() - middle;
    }
    qsort(ours, ROUNDS, sizeof(*ours), compare);
    qsort(dom, ROUNDS, sizeof(*dom), compare);
    printf("json_parse: 3x224x224 in %zu bytes: ours %.2f ms (best %.2f), jansson's DOM %.2f ms\n", size,
        ours[ROUNDS / 2] / 1e3, ours[0] / 1e3, dom[ROUNDS / 2] / 1e3);
    printf("json_parse ratio=%.3f\n", dom[ROUNDS / 2] / ours[ROUNDS / 2]);
    return 0;
}
