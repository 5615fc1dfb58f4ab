/* The memory limit of the control group this process is in (cgroups(7), version 2). */
#ifndef DAEMON_CGROUP_H
#define DAEMON_CGROUP_H

#include <stdint.h>

/* The smallest memory.max from the process's own group up to the root of what is mounted, in bytes; 0: none.
 * `membership`: /proc/self/cgroup; `mount`: /sys/fs/cgroup. */
uint64_t cgroup_memory_limit(const char *membership, const char *mount);

#endif
