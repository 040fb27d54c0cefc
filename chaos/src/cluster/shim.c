/* Loaded into a member or an agent by LD_PRELOAD: lets the harness move its wall clock, disturb its fsync, and redirect its
 * connections to certain ports of this machine through proxies (CHAOS_VIA, as in 21001=22001,21002=22002).
 *
 * The harness writes its settings to a small file that this library maps; see struct control. The monotonic clock is
 * left alone, as it is when an operator or NTP sets a clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct control {
    int64_t clock_offset_s;
    int64_t sync_delay_us;
    int64_t sync_fails;
};

static const struct control idle;
static const volatile struct control *control = &idle;

static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_cond_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);

__attribute__((constructor)) static void load(void) {
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    real_cond_timedwait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!real_cond_timedwait) real_cond_timedwait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    const char *path = getenv("CHAOS_CONTROL");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *map = mmap(NULL, sizeof(struct control), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (map != MAP_FAILED) control = map;
}

static int is_wall(clockid_t clock) { return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = real_clock_gettime ? real_clock_gettime(clock, now) : (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && is_wall(clock)) now->tv_sec += control->clock_offset_s;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec exact;
    int result = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

/* Callers compute wall clock deadlines from the moved clock, but the kernel compares them with its own. */
int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict deadline) {
    struct timespec moved = *deadline;
    moved.tv_sec -= control->clock_offset_s;
    return real_cond_timedwait(cond, mutex, &moved);
}

/* Returns the port to connect to instead of this one. */
static unsigned long via(unsigned long port) {
    for (const char *next = getenv("CHAOS_VIA"); next && *next;) {
        char *end;
        unsigned long from = strtoul(next, &end, 10);
        if (*end != '=') break;
        unsigned long to = strtoul(end + 1, &end, 10);
        if (from == port) return to;
        next = *end == ',' ? end + 1 : end;
        if (*end != ',') break;
    }
    return port;
}

int connect(int file, __CONST_SOCKADDR_ARG to, socklen_t length) {
    struct sockaddr_in address;
    const struct sockaddr *given = to.__sockaddr__;
    if (given && length >= sizeof address && given->sa_family == AF_INET) {
        memcpy(&address, given, sizeof address);
        if (address.sin_addr.s_addr == htonl(INADDR_LOOPBACK)) {
            address.sin_port = htons((in_port_t)via(ntohs(address.sin_port)));
        }
        return (int)syscall(SYS_connect, file, &address, sizeof address);
    }
    return (int)syscall(SYS_connect, file, given, length);
}

static int trouble(void) {
    if (control->sync_delay_us > 0) usleep((useconds_t)control->sync_delay_us);
    if (control->sync_fails) {
        errno = EIO;
        return -1;
    }
    return 0;
}

int fsync(int file) { return trouble() ? -1 : (int)syscall(SYS_fsync, file); }
int fdatasync(int file) { return trouble() ? -1 : (int)syscall(SYS_fdatasync, file); }
