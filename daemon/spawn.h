/* One worker process: the only place that starts processes. Blocking, for threads of their own (job runner,
 * pool): the child is exec'd (posix_spawn), never forked with our state; it talks JSON lines over two pipes
 * and ends when they close. Which job it does is not known here. */
#ifndef DAEMON_SPAWN_H
#define DAEMON_SPAWN_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/error.h"

struct spawn;

#define SPAWN_LINE_MAX (16u << 20)

/* Starts `program job`. `page`: a descriptor that it inherits as SPAWN_PAGE_FD, -1: none. */
#define SPAWN_PAGE_FD 3
int spawn_start(const char *program, int page, struct spawn **ret, struct error *err);
/* Kills what still runs and reaps it. */
struct spawn *spawn_free(struct spawn *s);
DEFINE_CLEANUP(struct spawn *, spawn_free)

/* One line to its standard input; -EPIPE when it is gone (the program ignores SIGPIPE), -ETIMEDOUT when it
 * reads nothing for 5 s. */
int spawn_send(struct spawn *s, const json_t *line);

/* The next line: 1 and *ret (new reference); 0: end of output; -EAGAIN: none within timeout_ms; -EBADMSG:
 * garbage. */
int spawn_read(struct spawn *s, int timeout_ms, json_t **ret);

pid_t spawn_pid(const struct spawn *s);
void spawn_kill(struct spawn *s, int signal);

/* Waits for the end (the output is closed already, so this is short); killed after 5 s. "exit status 3",
 * "signal 11". */
void spawn_reap(struct spawn *s, char *ret_how, size_t size);

/* The code as a static string of the closed list; "internal" for anything else. */
const char *spawn_known_code(const char *code);

/* The whole conversation for short work: the job, then lines until done. *ret: the result. Errors: the
 * worker's own, worker_crashed with how it ended, time_limit. */
int spawn_call(const char *program, const json_t *job, unsigned limit_s, json_t **ret, struct error *err);

#endif
