/* Processes for requests, until they do what they are for: what they are given, and what is kept from them. */
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void close_all(const int *fds, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static void close_spawn(const struct spawn *spawn) {
    int fds[] = {spawn->in, spawn->out, spawn->err == spawn->out ? -1 : spawn->err, spawn->status, spawn->cgroup};
    close_all(fds, sizeof fds / sizeof *fds);
}

void close_started(const struct started *started) {
    int fds[] = {started->in, started->out, started->err, started->status, started->writers[0], started->writers[1]};
    close_all(fds, sizeof fds / sizeof *fds);
}

/* The agent never waits at its own end. */
static bool make_pipe(int *own, int *other, bool own_writes) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return false;
    *own = ends[own_writes];
    *other = ends[!own_writes];
    fcntl(*own, F_SETFL, O_NONBLOCK);
    return true;
}

static bool open_null(int *fd) {
    *fd = fcntl(around.null, F_DUPFD_CLOEXEC, 0);
    return *fd >= 0;
}

/* Pipes where there is something to carry; they are closed if not all can be made, with errno. */
bool open_pipes(struct spawn *spawn, struct started *started, bool input, bool output) {
    if ((input ? make_pipe(&started->in, &spawn->in, true) : open_null(&spawn->in)) &&
        (output ? make_pipe(&started->out, &spawn->out, false) : open_null(&spawn->out)) &&
        (output ? make_pipe(&started->err, &spawn->err, false) : open_null(&spawn->err)))
        return true;
    int error = errno, fds[] = {spawn->in, spawn->out, spawn->err};
    close_all(fds, sizeof fds / sizeof *fds);
    close_started(started);
    errno = error;
    return false;
}

/* The process's own end of things: nothing of the agent's is left open, blocked or ignored in it. */
static _Noreturn void become_child(struct spawn *spawn, child_body *body, struct reader *request) {
    loop_default_signals();
    int wanted[] = {spawn->in, spawn->out, spawn->err, spawn->status, around.proc, spawn->extra, spawn->keys};
    const int count = sizeof wanted / sizeof *wanted;
    for (int i = 0; i < count; i++)
        if (wanted[i] >= 0 && wanted[i] < FIRST_OTHER_FD)
            wanted[i] = fcntl(wanted[i], F_DUPFD_CLOEXEC, FIRST_OTHER_FD);
    for (int i = 0; i < count; i++)
        if (wanted[i] >= 0)
            dup3(wanted[i], i, i > STDERR_FILENO ? O_CLOEXEC : 0);
        else
            close(i);
    if (syscall(SYS_close_range, FIRST_OTHER_FD, ~0U, 0) < 0)
        for (int i = FIRST_OTHER_FD; i < 4096; i++)
            close(i);
    setsid();
    request_flags = spawn->flags;
    umask(022);
    prctl(PR_SET_NAME, "banger-request"); /* it is not the agent, whatever becomes of it (has_agent in bin/start) */
    body(request);
    report_ok();
}

/* A request of one frame lies where the channel has read it, which no other process sees. */
static struct reader copy_of(const struct reader *request) {
    static uint8_t copy[MAX_PAYLOAD];
    size_t size = (size_t)(request->end - request->at);
    if (size > sizeof copy)
        return *request;
    memcpy(copy, request->at, size);
    return (struct reader){copy, copy + size, request->bad};
}

static void say_oom(const char *score) {
    ssize_t written = around.oom < 0 ? 0 : pwrite(around.oom, score, strlen(score), 0);
    (void)written;
}

/* Starts a process. Its descriptors are closed here, whatever happens; the agent's ends if there is none, with errno. */
bool spawn_child(struct spawn *spawn, struct started *started, child_body *body, const struct reader *request) {
    struct reader own = copy_of(request);
    started->pid = -1;
    if (make_pipe(&started->status, &spawn->status, false)) {
        say_oom("0"); /* what the child is to have: inherited, that takes less than to say it there */
        started->pid = spawn_into(spawn->cgroup);
        if (started->pid == 0)
            become_child(spawn, body, &own);
        say_oom(OOM_SPARED);
    }
    int error = errno;
    if (spawn->held) {
        started->writers[0] = spawn->out;
        started->writers[1] = spawn->err;
        spawn->out = spawn->err = -1;
    }
    close_spawn(spawn);
    if (started->pid < 0)
        close_started(started);
    errno = error;
    return started->pid > 0;
}
