/* systemd's notification protocol (sd_notify(3)): datagrams to $NOTIFY_SOCKET. Nothing happens without it. */
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

#include <stdint.h>

/* "READY=1\nSTATUS=…" */
void notify_send(const char *state);

/* Interval in which WATCHDOG=1 is expected, in milliseconds; 0: none. */
uint64_t notify_watchdog_ms(void);

#endif
