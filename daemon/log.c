#include "daemon/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

const char *const log_level_names[LOG_LEVELS] = {"debug", "info", "warning", "error"};

static atomic_int present = LOG_LEVEL_INFO;

void log_set_level(enum log_level l) {
    atomic_store(&present, (int)l);
}

enum log_level log_level(void) {
    return (enum log_level)atomic_load(&present);
}

void log_printf(enum log_level l, const char *fmt, ...) {
    static const int priority[LOG_LEVELS] = {7, 6, 4, 3};
    char line[2048];
    va_list ap;

    if ((int)l < atomic_load(&present))
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    /* one line is one record */
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < ' ')
            *p = ' ';
    fprintf(stderr, "<%d>%s\n", priority[l], line);
}
