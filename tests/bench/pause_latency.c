/* How soon a training gives way: starts a process that keeps all cores busy, has requests come at random
 * instants, and looks when it stops. Where it may, it takes the cores from everything else that runs
 * meanwhile: what it measures is the stop, not how long a thread waits for a core on a busy machine.
 *
 *   pause_latency PAUSES [COMMAND ARG…]      the command is told "10000" on its standard input when it is
 * ready
 *
 * Without a command the process is this program's own: two threads that write down the time without a break,
 * so that the last thing they did is known to the instant. With a command, a training, the kernel tells when
 * all of its threads have stopped. Ends with `pause_latency ratio=R`: 2 ms by the 99th percentile. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/activity.h"

#define MAX_PAUSES 5000
#define N_THREADS  2
#define SETTLE_US  20000 /* after a request came, where nothing tells */
#define BETWEEN_MS 10
#define GOAL_US    2000.0

__attribute__((noreturn)) static void die(const char *what) {
    fprintf(stderr, "pause_latency: %s\n", what);
    exit(1);
}

static int compare(const void *a, const void *b) {
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static void rest_us(long us) {
    struct timespec pause = {us / 1000000, us % 1000000 * 1000};

    nanosleep(&pause, NULL);
}

/* In front of all other work; the child behind this program. */
static bool take_cores(int priority) {
    struct sched_param first = {.sched_priority = priority};

    return sched_setscheduler(0, SCHED_FIFO, &first) == 0;
}

static void begin_child(void) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        _exit(1);
    (void)take_cores(1);
}

static pid_t start_command(char **argv) {
    int in[2], out[2];
    char ready[6];
    pid_t pid;

    if (pipe(in) < 0 || pipe(out) < 0 || (pid = fork()) < 0)
        die("cannot start the command");
    if (pid == 0) {
        begin_child();
        if (dup2(in[0], 0) < 0 || dup2(out[1], 1) < 0)
            _exit(1);
        execvp(argv[0], argv);
        _exit(1);
    }
    if (read(out[0], ready, sizeof(ready)) != sizeof(ready) || write(in[1], "10000\n", 6) != 6)
        die("the command is not ready");
    return pid; /* the pipes stay open until the end */
}

struct stamp {
    _Alignas(64) atomic_ullong ns;
};

static void *write_time(void *ctx) {
    struct stamp *s = ctx;

    for (;;)
        atomic_store_explicit(&s->ns, clock_now_ns(), memory_order_relaxed);
    return NULL;
}

static pid_t start_own(struct stamp *stamps) {
    pid_t pid = fork();
    pthread_t other;

    if (pid < 0)
        die("cannot start a process");
    if (pid > 0)
        return pid;
    begin_child();
    for (int i = 1; i < N_THREADS; i++)
        if (pthread_create(&other, NULL, write_time, &stamps[i]) != 0)
            _exit(1);
    write_time(&stamps[0]);
    _exit(1);
}

/* When the last thread wrote. */
static uint64_t last_stamp(struct stamp *stamps) {
    uint64_t last = 0;

    for (int i = 0; i < N_THREADS; i++) {
        uint64_t ns = atomic_load(&stamps[i].ns);

        last = ns > last ? ns : last;
    }
    return last;
}

/* Two requests that need all cores; microseconds until it had stopped. `stamps`: NULL: as the kernel tells.
 */
static double pause_once(struct activity *a, pid_t pid, struct stamp *stamps) {
    uint64_t begin = clock_now_ns(), end;
    siginfo_t info;

    activity_begin(a);
    activity_begin(a);
    if (waitid(P_PID, (id_t)pid, &info, WSTOPPED) < 0 || info.si_code != CLD_STOPPED)
        die("the process has ended");
    end = clock_now_ns();
    if (stamps) {
        rest_us(SETTLE_US);
        end = last_stamp(stamps);
    }
    activity_end(a, 2);
    return end > begin ? (double)(end - begin) / 1e3 : 0;
}

static void print(double *us, int n) {
    int late = 0;

    qsort(us, (size_t)n, sizeof(*us), compare);
    for (int i = 0; i < n; i++)
        late += us[i] > GOAL_US;
    printf("pause_latency: p50 %.0f us, p95 %.0f, p99 %.0f, p99.9 %.0f, most %.0f; %d of %d beyond 2 ms\n",
        us[n / 2], us[n * 95 / 100], us[n * 99 / 100], us[n * 999 / 1000], us[n - 1], late, n);
    printf("pause_latency ratio=%.3f\n", GOAL_US / us[n * 99 / 100]);
}

int main(int argc, char **argv) {
    static double us[MAX_PAUSES];
    int n = argc > 1 ? atoi(argv[1]) : 0;
    struct stamp *stamps = NULL;
    struct activity *a;
    unsigned seed = 1;
    pid_t pid;

    if (n < 1 || n > MAX_PAUSES)
        die("usage: pause_latency PAUSES [COMMAND ARG…]");
    if (argc == 2)
        stamps = mmap(
            NULL, N_THREADS * sizeof(*stamps), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (stamps == MAP_FAILED)
        die("no memory");
    if (!take_cores(2))
        printf("pause_latency: on a machine with other work the figures are those of waiting for a core\n");
    pid = stamps ? start_own(stamps) : start_command(argv + 2);
    if (activity_new(N_THREADS, 1, &a, NULL) < 0)
        die("no memory");
    activity_attach(a, pid);
    rest_us(500000);
    for (int i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        rest_us(BETWEEN_MS * 1000 + (long)(seed >> 18)); /* up to 16 ms more */
        us[i] = pause_once(a, pid, stamps);
    }
    print(us, n);
    activity_free(a);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return 0;
}
