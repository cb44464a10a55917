/* The agent's side of an exec: its ID, its cgroup, its pipes or its terminal. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "agent.h"
#include "child.h"
#include "spawn.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

static bool usable_run(const char *run) {
    size_t size = strlen(run);
    if (size > 64 || *run == '.')
        return false;
    return strspn(run, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == size;
}

/* A terminal of the image's own, so that its name means something there. */
static bool open_terminal(struct spawn *spawn, struct started *started, uint16_t rows, uint16_t columns) {
    int flags = O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK, unlocked = 0, number;
    int master = around.proc < 0 ? -1 : openat(around.proc, "1/root/dev/ptmx", flags);
    if (master < 0)
        master = open("/dev/ptmx", flags);
    if (master < 0)
        return false;
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    struct termios settings;
    int slave = -1;
    if (ioctl(master, TIOCGPTN, &number) == 0 && ioctl(master, TIOCSPTLCK, &unlocked) == 0)
        slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    started->in = slave < 0 ? -1 : fcntl(master, F_DUPFD_CLOEXEC, 0);
    if (started->in < 0) {
        close(master);
        if (slave >= 0)
            close(slave);
        return false;
    }
    ioctl(master, TIOCSWINSZ, &size);
    if (tcgetattr(slave, &settings) == 0) {
        settings.c_iflag |= IUTF8;
        tcsetattr(slave, TCSANOW, &settings);
    }
    started->out = master;
    spawn->in = spawn->out = spawn->err = slave;
    return true;
}

static bool is_running(const char *run) {
    for (const struct stream *stream = streams; stream; stream = stream->next)
        if (stream->child && !stream->reaped && !strcmp(stream->run, run))
            return true;
    return false;
}

/* An ID that no command has, and its cgroup. One may be left of an agent before this one. */
void pick_run(char run[65], int *cgroup) {
    static unsigned number;
    if (cgroup_reuse(run, cgroup))
        return;
    do
        snprintf(run, 65, "agent-%u", ++number);
    while (is_running(run) || !cgroup_make(run, cgroup));
}

void exec_start(struct stream *stream, const struct reader *request) {
    struct reader reader = *request;
    uint32_t timeout_ms = take_u32(&reader);
    stream->grace_ms = take_u32(&reader);
    uint16_t rows = take_u16(&reader), columns = take_u16(&reader);
    take_text(&reader);
    take_text(&reader);
    const char *run = take_text(&reader);
    bool tty = stream->flags & EXEC_TTY;
    int64_t deadline = timeout_ms ? now_ms() + timeout_ms : 0;
    if (!*run && !tty && spare_take(stream, request)) {
        stream->deadline = deadline;
        return;
    }
    if (!usable_run(run)) {
        stream_fail(stream, BAD_REQUEST, 0, "an ID is made of 64 letters, digits, dots, dashes and underscores at most");
        return;
    }
    struct spawn spawn = NO_SPAWN;
    struct started started = NOT_STARTED;
    spawn.flags = stream->flags;
    spawn.held = !tty;
    if (*run && (is_running(run) || !cgroup_make(run, &spawn.cgroup))) {
        stream_fail(stream, BAD_REQUEST, EBUSY, "a command with this ID runs already");
        return;
    }
    if (*run)
        snprintf(stream->run, sizeof stream->run, "%s", run);
    else
        pick_run(stream->run, &spawn.cgroup);
    stream->picked = !*run;
    if (tty ? open_terminal(&spawn, &started, rows, columns) : open_pipes(&spawn, &started, true, true)) {
        child_attach(stream, &spawn, &started, run_exec, request);
        stream->deadline = stream->child ? deadline : 0;
        return;
    }
    stream_fail(stream, tty ? FAILED : BUSY, errno, tty ? "the guest has no terminal to give" : "no pipe can be made");
    if (spawn.cgroup >= 0)
        close(spawn.cgroup);
}
