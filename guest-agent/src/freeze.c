/* freeze: file systems stand still while a copy of their disks is made. They thaw after a time if nobody else
 * sees to it: this process waits for that after it has told how it went. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "child.h"

/* linux/fs.h */
#define FIFREEZE _IOWR('X', 119, int)
#define FITHAW _IOWR('X', 120, int)

enum { MOST_PLACES = 64, MOST_MS = 60000 };

/* The root may be an overlay, which cannot be frozen: then what lies below it is. */
static int open_place(const char *path) {
    return *path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK) : fcntl(EXTRA_FD, F_DUPFD_CLOEXEC, 0);
}

static bool set_frozen(const char *path, bool frozen) {
    int fd = open_place(path);
    if (fd < 0)
        return false;
    bool done = ioctl(fd, frozen ? FIFREEZE : FITHAW, 0) == 0 || errno == (frozen ? EBUSY : EINVAL);
    int error = errno;
    close(fd);
    errno = error;
    return done;
}

/* One place, or what is below the root for the root. That it is not frozen, an overlay says too: so both are thawed. */
static bool change(const char *path, bool frozen) {
    bool done = set_frozen(path, frozen);
    int error = errno;
    bool refused = !done && (error == EOPNOTSUPP || error == ENOTTY || error == EINVAL);
    if (!strcmp(path, "/") && (refused || !frozen) && fcntl(EXTRA_FD, F_GETFD) >= 0)
        return set_frozen("", frozen);
    errno = error;
    return done;
}

/* Who is to end thaws first, and nobody else must end this process: what it froze would stay so. */
static sigset_t hold_signals(void) {
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGHUP);
    sigaddset(&ending, SIGINT);
    sigprocmask(SIG_BLOCK, &ending, NULL);
    signal(SIGPIPE, SIG_IGN);
    write_file(PROC_FD, "self/oom_score_adj", "-1000");
    return ending;
}

void run_freeze(struct reader *request) {
    uint32_t timeout_ms = take_u32(request), count;
    struct reader places = take_texts(request, &count);
    const char *paths[MOST_PLACES] = {"/"};
    bool frozen = !(request_flags & FREEZE_THAW);
    if (count > MOST_PLACES || timeout_ms > MOST_MS || (frozen && !timeout_ms))
        report_failure(BAD_REQUEST, 0, "too many mount points, or too long");
    for (uint32_t i = 0; i < count; i++)
        paths[i] = take_text(&places);
    count = count ? count : 1;
    enter_image();
    sigset_t ending = hold_signals();
    int error = 0;
    const char *failed = "";
    uint32_t done = 0;
    for (uint32_t i = 0; i < count && (!error || !frozen); i++) {
        if (change(paths[i], frozen)) {
            done++;
        } else if (!error) {
            error = errno;
            failed = paths[i];
        }
    }
    if (error && frozen)
        while (done)
            change(paths[--done], false);
    if (error)
        report_failure(error == EOPNOTSUPP || error == ENOTTY ? UNSUPPORTED : FAILED, error, "cannot %s \"%.300s\": %s",
                       frozen ? "freeze" : "thaw", failed, strerror(error));
    struct result result;
    begin_result(&result, OK, 0, "");
    put_u32(&result, done);
    if (!frozen)
        report(&result);
    tell(&result);
    close(STATUS_FD);
    struct timespec time = {timeout_ms / 1000, timeout_ms % 1000 * 1000000};
    while (sigtimedwait(&ending, NULL, &time) < 0 && errno == EINTR)
        ;
    while (done)
        change(paths[--done], false);
    _exit(0);
}
