/* Work in the background, as the scheduler sees it. */
#ifndef COMPRESS_BACKGROUND_H
#define COMPRESS_BACKGROUND_H

/* This process and what it starts come after everything else: nice 19, SCHED_BATCH, and slices so short that
 * a thread which wakes up to serve need not wait for the end of a long one (Linux 6.12 on; older ones take no
 * notice). A courtesy: a system that refuses it is no reason not to work. */
void background_enter(void);

#endif
