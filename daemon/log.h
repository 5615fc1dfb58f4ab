/* Lines to standard error with the priority in front (<3> … <7>) that the journal understands. Only daemon/
 * and api/ log, each failure once, where it is decided. */
#ifndef DAEMON_LOG_H
#define DAEMON_LOG_H

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARNING, LOG_LEVEL_ERROR, LOG_LEVELS };
extern const char *const log_level_names[LOG_LEVELS];

/* The level is the one piece of state that every thread may read: set at start and by PUT /api/v1/log-level.
 */
void log_set_level(enum log_level l);
enum log_level log_level(void);

void log_printf(enum log_level l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
