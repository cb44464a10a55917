/* freeze and thaw: what a process does that has its turn to (freezer.c). One that freezes stays until it is let go,
 * which the end of its input tells, or until its time is over, and then thaws. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "child.h"

/* linux/fs.h */
#define FIFREEZE _IOWR('X', 119, int)
#define FITHAW _IOWR('X', 120, int)

enum { MOST_PLACES = 64 };

static const char *places[MOST_PLACES] = {"/"};
static int files[MOST_PLACES]; /* of the places; -1: there is none, for the reason in errors */
static int errors[MOST_PLACES];
static uint32_t count;

static int frozen[MOST_PLACES + 1]; /* descriptors on file systems that this process has frozen */
static uint32_t frozen_count;

/* Before anything stands still: who looks for a file then may have to wait. */
static void open_places(struct reader *request) {
    take_u32(request);
    struct reader texts = take_texts(request, &count);
    for (uint32_t i = 0; i < count; i++)
        places[i] = take_text(&texts);
    count = count ? count : 1;
    for (uint32_t i = 0; i < count; i++) {
        files[i] = open(places[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
        errors[i] = errno;
    }
}

/* A place may be named twice, by two mounts of one file system. */
static bool is_frozen(int fd) {
    struct stat its, other;
    if (fstat(fd, &its) < 0)
        return false;
    for (uint32_t i = 0; i < frozen_count; i++)
        if (fstat(frozen[i], &other) == 0 && other.st_dev == its.st_dev)
            return true;
    return false;
}

static int freeze(int fd) {
    if (is_frozen(fd))
        return 0;
    if (ioctl(fd, FIFREEZE, 0) < 0)
        return errno;
    frozen[frozen_count++] = fd;
    return 0;
}

static bool is_root(uint32_t place) {
    return !strcmp(places[place], "/") && fcntl(EXTRA_FD, F_GETFD) >= 0;
}

/* The root may be an overlay, which cannot be frozen: then what lies below it is. */
static int freeze_place(uint32_t place) {
    if (files[place] < 0)
        return errors[place];
    int error = freeze(files[place]);
    bool refused = error == EOPNOTSUPP || error == ENOTTY || error == EINVAL;
    return refused && is_root(place) ? freeze(EXTRA_FD) : error;
}

static int thaw(int fd, uint32_t *done) {
    if (ioctl(fd, FITHAW, 0) == 0)
        ++*done;
    else if (errno != EINVAL) /* it does not stand still */
        return errno;
    return 0;
}

static int thaw_place(uint32_t place, uint32_t *done) {
    if (files[place] < 0)
        return errors[place];
    int error = thaw(files[place], done);
    return is_root(place) ? thaw(EXTRA_FD, done) : error;
}

static void thaw_all(void) {
    uint32_t done = 0;
    while (frozen_count)
        thaw(frozen[--frozen_count], &done);
}

static void report_count(uint32_t number) {
    struct result result;
    begin_result(&result, OK, 0, "");
    put_u32(&result, number);
    tell(&result);
    close(STATUS_FD);
}

static _Noreturn void report_place(const char *what, uint32_t place, int error) {
    report_failure(error == EOPNOTSUPP || error == ENOTTY ? UNSUPPORTED : FAILED, error, "cannot %s \"%.300s\": %s", what,
                   places[place], strerror(error));
}

static _Noreturn void freeze_all(uint32_t timeout_ms) {
    for (uint32_t i = 0; i < count; i++) {
        int error = freeze_place(i);
        if (error) {
            thaw_all();
            report_place("freeze", i, error);
        }
    }
    uint32_t stood = frozen_count;
    report_count(stood);
    struct pollfd input = {.fd = STDIN_FILENO};
    int told;
    while ((told = poll(&input, 1, (int)timeout_ms)) < 0 && errno == EINTR)
        ;
    thaw_all();
    _exit(told > 0 ? (int)stood : 0);
}

static _Noreturn void thaw_places(void) {
    uint32_t done = stood_still, failed = 0;
    int error = 0;
    for (uint32_t i = 0; i < count; i++) {
        int its = thaw_place(i, &done);
        failed = its && !error ? i : failed;
        error = error ? error : its;
    }
    if (error)
        report_place("thaw", failed, error);
    report_count(done);
    _exit(0);
}

/* Nothing but a kill ends this process before it has thawed, also not for want of memory. */
static void hold_signals(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    write_file(PROC_FD, "self/oom_score_adj", "-1000");
    prctl(PR_SET_NAME, "banger-freezer"); /* what a list of processes calls it */
}

void run_freeze(struct reader *request) {
    struct reader first = *request;
    uint32_t timeout_ms = take_u32(&first);
    hold_signals();
    enter_image();
    open_places(request);
    if (request_flags & FREEZE_THAW)
        thaw_places();
    freeze_all(timeout_ms);
}
