/* What the worker does to itself before it touches anything foreign: dies with its parent, is killed first
 * when memory runs out, yields the processor (nice 19, SCHED_BATCH; SCHED_IDLE starves on a busy machine),
 * leaves no core file, gets no new privileges, sees only the folders it needs (Landlock, where the kernel has
 * it), and has no system calls beyond an allow-list: no sockets, no exec, no ptrace (seccomp). */
#ifndef COMPRESS_SANDBOX_H
#define COMPRESS_SANDBOX_H

#include <stdint.h>

#include "base/error.h"

/* Once, before any thread is started. */
int sandbox_enter_early(struct error *err);

/* Address space from here on; 0: as it is. */
int sandbox_limit_memory(uint64_t bytes, struct error *err);

/* When the job is known: `read` and `write`, NULL-terminated, are files or folders (write: folders) it may
 * use; then the system calls are closed. */
int sandbox_enter(const char *const *read, const char *const *write, struct error *err);

#endif
