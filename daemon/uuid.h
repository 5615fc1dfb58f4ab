/* Ids of jobs and comparisons: UUIDv7 (RFC 9562), lower case: they sort by time. */
#ifndef DAEMON_UUID_H
#define DAEMON_UUID_H

#define UUID_MAX 37

void uuid_v7(char ret[static UUID_MAX]);

#endif
