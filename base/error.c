#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Cuts a half character off the end, so that a sentence that was too long stays UTF-8. */
static void trim_text(char *text) {
    size_t n = strlen(text), back = 0;
    unsigned char lead;

    while (back < 3 && back < n && ((unsigned char)text[n - 1 - back] & 0xc0) == 0x80)
        back++;
    if (back == n)
        return;
    lead = (unsigned char)text[n - 1 - back];
    if ((lead >= 0xc0 && back < 1) || (lead >= 0xe0 && back < 2) || (lead >= 0xf0 && back < 3))
        text[n - 1 - back] = 0;
}

__attribute__((format(printf, 4, 0))) static void set_text(
    struct error *e, int err, const char *code, const char *fmt, va_list ap) {
    if (!e || e->err)
        return;
    e->err = err;
    e->code = code;
    if (vsnprintf(e->text, sizeof(e->text), fmt, ap) >= (int)sizeof(e->text))
        trim_text(e->text);
}

int error_set(struct error *e, int err, const char *fmt, ...) {
    va_list ap;

    va_start(ap, fmt);
    set_text(e, err, NULL, fmt, ap);
    va_end(ap);
    return err;
}

int error_code(struct error *e, int err, const char *code, const char *fmt, ...) {
    va_list ap;

    va_start(ap, fmt);
    set_text(e, err, code, fmt, ap);
    va_end(ap);
    return err;
}

int error_prefix(struct error *e, int err, const char *fmt, ...) {
    char old[ERROR_TEXT_MAX];
    va_list ap;
    int n;

    if (!e || !e->err)
        return err;
    memcpy(old, e->text, sizeof(old));
    va_start(ap, fmt);
    n = vsnprintf(e->text, sizeof(e->text), fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof(e->text))
        snprintf(e->text + n, sizeof(e->text) - (size_t)n, "%s%s", old[0] == '.' ? "" : ": ", old);
    trim_text(e->text);
    return err;
}

int error_oom(struct error *e) {
    return error_set(e, -ENOMEM, "out of memory");
}

int error_errno(struct error *e, const char *fmt, ...) {
    int err = errno ? -errno : -EIO;
    char what[ERROR_TEXT_MAX / 2];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    return error_set(e, err, "%s: %s", what, strerrordesc_np(-err));
}

void error_clear(struct error *e) {
    if (e)
        *e = (struct error){0};
}

int error_copy(struct error *dst, const struct error *src) {
    if (dst && !dst->err)
        *dst = *src;
    return src->err;
}
