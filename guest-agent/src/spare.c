/* A process that waits for the next command, so that a command need not wait for a process: pipes, cgroup, session and
 * the image's root are there already. It reads the request, and goes on as any other process of a command.
 *
 * There is one while a session is likely to use it: from the end of a command to the end of all sessions. Who finds none,
 * or asks for a terminal, an ID of its own or something very long, has a process started. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "agent.h"
#include "child.h"
#include "spawn.h"

#define SPARE_NAME "banger-spare" /* what a list of processes calls it */

enum { MOST_ORDER = PIPE_BUF, FLAGS_BYTES = 2 };

static struct {
    struct started started;
    int order; /* where the request goes; -1: it is told to end */
    char run[65];
} spare = {.started = NOT_STARTED, .order = -1};
static bool due;

/* The process's side. Flags and request come in one piece, as a pipe keeps apart what fits into its buffer; nothing comes
   if it is not needed any more. */
static void await_order(struct reader *nothing) {
    static uint8_t order[MOST_ORDER];
    (void)nothing;
    prctl(PR_SET_NAME, SPARE_NAME);
    enter_image();
    ssize_t got;
    while ((got = read(EXTRA_FD, order, sizeof order)) < 0 && errno == EINTR)
        ;
    if (got < FLAGS_BYTES)
        _exit(0);
    request_flags = get_u16(order);
    struct reader request = {order + FLAGS_BYTES, order + got, false};
    run_exec(&request);
}

static void dismiss(void) {
    if (spare.order < 0)
        return;
    close(spare.order);
    spare.order = -1;
    kill(spare.started.pid, SIGKILL);
}

static void make(void) {
    struct spawn spawn = NO_SPAWN;
    struct started started = NOT_STARTED;
    static const uint8_t none[1];
    struct reader nothing = {none, none, false};
    int order[2] = {-1, -1};
    due = false;
    if (pipe2(order, O_CLOEXEC) < 0 || !open_pipes(&spawn, &started, true, true)) {
        if (order[0] >= 0)
            close(order[0]);
        if (order[1] >= 0)
            close(order[1]);
        return;
    }
    pick_run(spare.run, &spawn.cgroup);
    spawn.extra = order[0];
    spawn.held = true;
    bool made = spawn_child(&spawn, &started, await_order, &nothing);
    close(order[0]);
    if (!made) {
        close(order[1]);
        cgroup_drop(spare.run);
        return;
    }
    spare.started = started;
    spare.order = order[1];
    fcntl(spare.order, F_SETFL, O_NONBLOCK);
}

/* Gives the request to it; false if there is none, or not for this one. */
bool spare_take(struct stream *stream, const struct reader *request) {
    uint8_t flags[FLAGS_BYTES];
    size_t size = (size_t)(request->end - request->at);
    due = false;
    if (spare.order < 0 || size > MOST_ORDER - FLAGS_BYTES)
        return false;
    set_u16(flags, stream->flags);
    struct iovec parts[2] = {{flags, sizeof flags}, {(void *)request->at, size}};
    if (writev(spare.order, parts, 2) != (ssize_t)(sizeof flags + size)) {
        dismiss(); /* it has been killed */
        return false;
    }
    close(spare.order);
    spare.order = -1;
    memcpy(stream->run, spare.run, sizeof stream->run);
    stream->picked = true;
    child_adopt(stream, &spare.started);
    spare.started = (struct started)NOT_STARTED;
    return true;
}

/* A process has ended that no stream has. */
void spare_ended(pid_t pid) {
    if (pid != spare.started.pid)
        return;
    if (spare.order >= 0)
        close(spare.order);
    spare.order = -1;
    close_started(&spare.started);
    spare.started = (struct started)NOT_STARTED;
    cgroup_drop(spare.run);
}

/* A command has ended while its session goes on: another one is likely to follow. */
void spare_expect(void) {
    due = spare.order < 0;
}

bool spare_is_due(void) {
    return due && !spare.started.pid;
}

/* To be called when nothing else is to be done. */
void spare_make(void) {
    if (spare_is_due())
        make();
}

/* A session has ended. The last one's spare process does not wait for the next one: it may never come. */
void spare_leave(void) {
    for (const struct channel *channel = channels; channel; channel = channel->next)
        if (channel->in_session && !channel->dials)
            return;
    due = false;
    dismiss();
}
