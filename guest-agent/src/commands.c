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
static bool open_terminal(struct spawn *spawn, int ends[3], uint16_t rows, uint16_t columns) {
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
    ends[0] = slave < 0 ? -1 : fcntl(master, F_DUPFD_CLOEXEC, 0);
    if (ends[0] < 0) {
        close(master);
        return false;
    }
    ioctl(master, TIOCSWINSZ, &size);
    if (tcgetattr(slave, &settings) == 0) {
        settings.c_iflag |= IUTF8;
        tcsetattr(slave, TCSANOW, &settings);
    }
    ends[1] = master;
    spawn->in = spawn->out = spawn->err = slave;
    return true;
}

static bool open_pipes(struct spawn *spawn, int ends[3]) {
    int pairs[3][2];
    for (int i = 0; i < 3; i++)
        if (pipe2(pairs[i], O_CLOEXEC) < 0) {
            while (i-- > 0) {
                close(pairs[i][0]);
                close(pairs[i][1]);
            }
            return false;
        }
    spawn->in = pairs[0][0];
    spawn->out = pairs[1][1];
    spawn->err = pairs[2][1];
    ends[0] = pairs[0][1];
    ends[1] = pairs[1][0];
    ends[2] = pairs[2][0];
    return true;
}

static bool is_running(const char *run) {
    for (const struct stream *stream = streams; stream; stream = stream->next)
        if (stream->child && !stream->reaped && !strcmp(stream->run, run))
            return true;
    return false;
}

void exec_start(struct stream *stream, const struct reader *request) {
    struct reader reader = *request;
    uint32_t timeout_ms = take_u32(&reader);
    stream->grace_ms = take_u32(&reader);
    uint16_t rows = take_u16(&reader), columns = take_u16(&reader);
    take_text(&reader);
    take_text(&reader);
    const char *run = take_text(&reader);
    static unsigned number;
    char own[65];
    snprintf(own, sizeof own, "agent-%u", ++number);
    if (!usable_run(run)) {
        stream_fail(stream, BAD_REQUEST, 0, "an ID is made of 64 letters, digits, dots, dashes and underscores at most");
        return;
    }
    struct spawn spawn = {.in = -1, .out = -1, .err = -1, .status = -1, .cgroup = -1, .extra = -1, .keys = -1, .flags = stream->flags};
    int ends[3] = {-1, -1, -1};
    if (is_running(*run ? run : own) || !cgroup_make(*run ? run : own, &spawn.cgroup)) {
        stream_fail(stream, BAD_REQUEST, EBUSY, "a command with this ID runs already");
        return;
    }
    bool opened = stream->flags & EXEC_TTY ? open_terminal(&spawn, ends, rows, columns) : open_pipes(&spawn, ends);
    if (!opened) {
        int error = errno;
        if (spawn.cgroup >= 0)
            close(spawn.cgroup);
        cgroup_drop(*run ? run : own);
        stream_fail(stream, stream->flags & EXEC_TTY ? FAILED : BUSY, error,
                    stream->flags & EXEC_TTY ? "the guest has no terminal to give" : "no pipe can be made");
        return;
    }
    snprintf(stream->run, sizeof stream->run, "%s", *run ? run : own);
    child_attach(stream, &spawn, ends, run_exec, request);
    if (!stream->child)
        cgroup_drop(stream->run);
    else if (timeout_ms)
        stream->deadline = now_ms() + timeout_ms;
}
