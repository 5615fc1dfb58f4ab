#include "engine/cpu.h"

#include <errno.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <stddef.h>
#include <string.h>

/* Names a feature can be hidden by. Hiding one hides what is built on it. */
static const struct {
    const char *name;
    size_t offset;
} features[] = {
    {"avx2", offsetof(struct cpu, avx2)},
    {"avx512", offsetof(struct cpu, avx512)},
    {"avx512_bf16", offsetof(struct cpu, avx512_bf16)},
    {"avx512_vbmi", offsetof(struct cpu, avx512_vbmi)},
    {"avx512_vnni", offsetof(struct cpu, avx512_vnni)},
    {"avx512_vpopcntdq", offsetof(struct cpu, avx512_vpopcntdq)},
    {"bf16_products", offsetof(struct cpu, bf16_products)},
    {"fma", offsetof(struct cpu, fma)},
};

static bool *cpu_feature(struct cpu *c, size_t i) {
    return (bool *)((char *)c + features[i].offset);
}

static int cpu_hide(struct cpu *c, const char *name, size_t size, struct error *err) {
    if (size == 3 && memcmp(name, "all", 3) == 0) {
        *c = (struct cpu){0};
        return 0;
    }
    for (size_t i = 0; i < sizeof(features) / sizeof(*features); i++) {
        if (strlen(features[i].name) == size && memcmp(features[i].name, name, size) == 0) {
            *cpu_feature(c, i) = false;
            return 0;
        }
    }
    return error_set(err, -EINVAL, "unknown processor feature '%.*s'", (int)size, name);
}

/* VDPBF16PS starts every cycle on AMD's processors, twice what products of floats do, and every second one on
 * Intel's, half of that (175 against 86 GFLOP/s a core of Emerald Rapids); there only AMX (leaf 7, EDX bit
 * 22) is faster. */
static bool cpu_has_bf16_products(void) {
#if defined(__x86_64__)
    unsigned a, b, c, d;

    return __builtin_cpu_is("amd") || (__get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1));
#else
    return false;
#endif
}

static void cpu_read(struct cpu *c) {
    *c = (struct cpu){0};
#if defined(__x86_64__)
    __builtin_cpu_init();
    c->avx2 = __builtin_cpu_supports("avx2") != 0;
    c->fma = __builtin_cpu_supports("fma") != 0;
    c->avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    c->avx512_vnni = __builtin_cpu_supports("avx512vnni") != 0;
    c->avx512_bf16 = __builtin_cpu_supports("avx512bf16") != 0;
    c->bf16_products = c->avx512_bf16 && cpu_has_bf16_products();
    c->avx512_vpopcntdq = __builtin_cpu_supports("avx512vpopcntdq") != 0;
    c->avx512_vbmi = __builtin_cpu_supports("avx512vbmi") != 0;
#endif
}

/* AVX-512 kernels use FMA and AVX2 for their tails; the extensions are of no use without the base. */
static void cpu_close(struct cpu *c) {
    c->avx2 = c->avx2 && c->fma;
    c->avx512 = c->avx512 && c->avx2;
    c->avx512_vnni = c->avx512_vnni && c->avx512;
    c->avx512_bf16 = c->avx512_bf16 && c->avx512;
    c->bf16_products = c->bf16_products && c->avx512_bf16;
    c->avx512_vpopcntdq = c->avx512_vpopcntdq && c->avx512;
    c->avx512_vbmi = c->avx512_vbmi && c->avx512;
}

int cpu_detect(const char *hide, struct cpu *ret, struct error *err) {
    struct cpu c;

    cpu_read(&c);
    for (const char *p = hide; p && *p;) {
        size_t size = strcspn(p, ",");
        int r = size ? cpu_hide(&c, p, size, err) : 0;

        if (r < 0)
            return r;
        p += size;
        p += *p == ',';
    }
    cpu_close(&c);
    *ret = c;
    return 0;
}
