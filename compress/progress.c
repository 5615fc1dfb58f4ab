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
