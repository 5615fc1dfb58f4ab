#include "compress/progress.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

int progress_at(const struct progress *p, double fraction, const char *message, struct error *err) {
    if (!p)
        return 0;
    if (p->report)
        p->report(p->ctx, fraction, message);
    if (p->is_cancelled && p->is_cancelled(p->ctx))
        return error_code(err, -ECANCELED, "cancelled", "cancelled");
    return 0;
}

void progress_event(const struct progress *p, const char *fmt, ...) {
    char text[256];
    va_list ap;

    if (!p || !p->event)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    p->event(p->ctx, text);
}

static void report_part(void *ctx, double fraction, const char *message) {
    const struct progress_part *p = ctx;

    p->whole->report(p->whole->ctx, p->first + p->share * fraction, message);
}

static bool is_part_cancelled(void *ctx) {
    const struct progress_part *p = ctx;

    return p->whole->is_cancelled(p->whole->ctx);
}

static unsigned allowed_for_part(void *ctx) {
    const struct progress_part *p = ctx;

    return p->whole->allowed(p->whole->ctx);
}

static void pass_event(void *ctx, const char *text) {
    const struct progress_part *p = ctx;

    p->whole->event(p->whole->ctx, text);
}

void progress_part_init(struct progress_part *ret, const struct progress *whole, double first, double share) {
    *ret = (struct progress_part){.whole = whole, .first = first, .share = share};
    ret->progress = (struct progress){.ctx = ret, .threads = 1};
    if (!whole)
        return;
    ret->progress.threads = whole->threads;
    ret->progress.allowed = whole->allowed ? allowed_for_part : NULL;
    ret->progress.report = whole->report ? report_part : NULL;
    ret->progress.is_cancelled = whole->is_cancelled ? is_part_cancelled : NULL;
    ret->progress.event = whole->event ? pass_event : NULL;
}
