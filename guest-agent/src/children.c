/* Processes for requests: started, watched, ended, reaped. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"
#include "child.h"
#include "spawn.h"

enum { RETRY_KILL_MS = 500, TTY_REST = 1 << 20, UNHURRIED_MS = 50 };

static bool make_pipe(int *reading, int *writing) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return false;
    *reading = ends[0];
    *writing = ends[1];
    return true;
}

static void close_all(int *fds, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (fds[i] >= 0)
            close(fds[i]);
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
    write_file(PROC_FD, "self/oom_score_adj", "0");
    umask(022);
    body(request);
    report_ok();
}

/* Starts a process; descriptors of spawn are closed here, whatever happens. */
bool spawn_child(struct stream *stream, struct spawn *spawn, child_body *body, const struct reader *request) {
    int status = -1;
    struct reader own = *request;
    pid_t pid = -1;
    if (make_pipe(&status, &spawn->status)) {
        pid = spawn_into(spawn->cgroup);
        if (pid == 0)
            become_child(spawn, body, &own);
    }
    int error = errno;
    int fds[] = {spawn->in, spawn->out, spawn->err == spawn->out ? -1 : spawn->err, spawn->status, spawn->cgroup};
    close_all(fds, sizeof fds / sizeof *fds);
    if (pid < 0) {
        if (status >= 0)
            close(status);
        stream_fail(stream, BUSY, error, "no process can be started");
        return false;
    }
    stream->pid = pid;
    stream->child = true;
    fcntl(status, F_SETFL, O_NONBLOCK);
    stream->status = (struct watch){.fd = status, .readable = true};
    stream->unhurried = stream->op == OP_EXEC ? now_ms() + UNHURRIED_MS : 0;
    return true;
}

void child_start(struct stream *stream, child_body *body, const struct reader *request, bool input, bool output) {
    struct spawn spawn = {.in = -1, .out = -1, .err = -1, .status = -1, .cgroup = -1, .extra = -1, .keys = -1};
    int ends[3] = {-1, -1, -1};
    bool made = !input || make_pipe(&spawn.in, &ends[0]);
    made = made && (!output || (make_pipe(&ends[1], &spawn.out) && make_pipe(&ends[2], &spawn.err)));
    if (!input)
        spawn.in = fcntl(around.null, F_DUPFD_CLOEXEC, 0);
    if (!output)
        spawn.out = fcntl(around.null, F_DUPFD_CLOEXEC, 0);
    if (!output)
        spawn.err = fcntl(around.null, F_DUPFD_CLOEXEC, 0);
    made = made && spawn.in >= 0 && spawn.out >= 0 && spawn.err >= 0;
    int error = errno;
    if (stream->op == OP_FREEZE)
        spawn.extra = around.freezable;
    if (stream->op == OP_IDENTITY || stream->op == OP_WHOAMI) {
        spawn.extra = around.freezable;
        spawn.keys = around.key_dir;
    }
    spawn.flags = stream->flags;
    if (!made) {
        int fds[] = {spawn.in, spawn.out, spawn.err, ends[0], ends[1], ends[2]};
        close_all(fds, sizeof fds / sizeof *fds);
        stream_fail(stream, BUSY, error, "no pipe can be made");
        return;
    }
    child_attach(stream, &spawn, ends, body, request);
}

/* Starts the process and watches the agent's ends of its streams. */
void child_attach(struct stream *stream, struct spawn *spawn, int ends[3], child_body *body,
                  const struct reader *request) {
    if (!spawn_child(stream, spawn, body, request)) {
        close_all(ends, 3);
        return;
    }
    struct watch *watches[] = {&stream->in, &stream->out, &stream->err};
    for (int i = 0; i < 3; i++)
        if (ends[i] >= 0)
            loop_watch(watches[i], ends[i]);
}

/* Keeps what of a report there is memory for. */
static void add_report(struct stream *stream, const uint8_t *bytes, size_t size) {
    for (; size && stream->report_head < REPORT_HEAD; size--)
        stream->report_size |= (uint32_t)*bytes++ << 8 * stream->report_head++;
    if (!size)
        return;
    if (!stream->report && stream->report_size <= MAX_RESULT) {
        stream->report = malloc(sizeof *stream->report);
        if (stream->report)
            stream->report->size = 0;
    }
    struct result *report = stream->report;
    if (report && report->size + size <= stream->report_size) {
        memcpy(report->bytes + report->size, bytes, size);
        report->size += size;
    }
}

/* Takes what the process reports; its end of the pipe is closed when it executes a program or ends. */
static void read_report(struct stream *stream) {
    uint8_t bytes[4096];
    while (stream->status.fd >= 0 && stream->status.readable) {
        ssize_t got = read(stream->status.fd, bytes, sizeof bytes);
        if (got > 0) {
            add_report(stream, bytes, (size_t)got);
        } else if (got < 0 && errno == EAGAIN && !stream->reaped) {
            stream->status.readable = false;
        } else if (got == 0 || errno != EINTR) {
            loop_close(&stream->status);
            stream->want_started = stream->op == OP_EXEC && !stream->report_head;
        }
    }
}

static void finish_exec(struct stream *stream) {
    struct result result;
    bool killed = WIFSIGNALED(stream->wait_status);
    begin_result(&result, OK, 0, "");
    put_u8(&result, killed);
    put_u8(&result, (uint8_t)(killed ? WTERMSIG(stream->wait_status) : WEXITSTATUS(stream->wait_status)));
    put_u8(&result, (uint8_t)stream->cause);
    put_u8(&result, 0);
    put_u64(&result, stream->user_us);
    put_u64(&result, stream->system_us);
    put_u64(&result, stream->resident_kib);
    stream_finish(stream, &result);
}

/* That a command runs is worth no turn of its own if it has no input, of which the host would know then that somebody
   reads it: many have ended by the time that is over, and the guest is spared an interruption. */
static void watch_report(struct stream *stream) {
    if (stream->status.fd < 0 || stream->status_watched)
        return;
    stream->status.readable = true;
    if (stream->unhurried && stream->ended && !stream->received && loop_now < stream->unhurried)
        return;
    stream->unhurried = 0;
    stream->status_watched = true;
    loop_watch(&stream->status, stream->status.fd);
}

static bool has_report(const struct stream *stream) {
    return stream->report && stream->report->size == stream->report_size;
}

/* These are done once their process has told so, though it goes on. */
static bool goes_on(const struct stream *stream) {
    if (stream->status.fd >= 0)
        return false;
    bool stands = stream->op == OP_FREEZE && !(stream->flags & FREEZE_THAW) && !stream->hung_up;
    return stream->op == OP_POWEROFF || (stands && has_report(stream) && get_u16(stream->report->bytes) == OK);
}

/* Looks whether the request is done: its process has ended, and its output has been sent. */
void child_settle(struct stream *stream) {
    if (stream->result)
        return;
    watch_report(stream);
    read_report(stream);
    bool begun = goes_on(stream);
    if (!stream->reaped && !begun)
        return;
    if (stream->muted || begun) {
        loop_close(&stream->out);
        loop_close(&stream->err);
    }
    if (stream->out.fd >= 0 || stream->err.fd >= 0)
        return;
    if (stream->op != OP_EXEC && stream->cause == BY_CANCEL)
        stream_fail(stream, CANCELLED, 0, "the host has cancelled it");
    else if (has_report(stream))
        stream_finish(stream, stream->report);
    else if (stream->report_head == REPORT_HEAD && !stream->report)
        stream_fail(stream, BUSY, ENOMEM, "not enough memory");
    else if (stream->op == OP_EXEC && !stream->report_head)
        finish_exec(stream);
    else
        stream_fail(stream, FAILED, 0, "the agent's own process for it was killed");
}

/* Of a command that has ended, what it has written by now still counts; who else writes there does not. */
static void measure_rest(struct stream *stream, struct watch *watch, int64_t *left) {
    int waiting = 0;
    if (watch->fd < 0 || stream->op != OP_EXEC)
        return;
    if (stream->flags & EXEC_TTY) {
        *left = TTY_REST;
        watch->readable = true;
        return;
    }
    *left = ioctl(watch->fd, FIONREAD, &waiting) == 0 ? waiting : 0;
    watch->readable = true;
    if (*left == 0)
        loop_close(watch);
}

static void reaped(struct stream *stream, int status, const struct rusage *usage) {
    stream->reaped = true;
    stream->wait_status = status;
    stream->user_us = (uint64_t)usage->ru_utime.tv_sec * 1000000 + (uint64_t)usage->ru_utime.tv_usec;
    stream->system_us = (uint64_t)usage->ru_stime.tv_sec * 1000000 + (uint64_t)usage->ru_stime.tv_usec;
    stream->resident_kib = (uint64_t)usage->ru_maxrss;
    stream->deadline = 0;
    stream->status.readable = true;
    loop_close(&stream->in);
    backlog_free(&stream->backlog);
    stream->deaf = true;
    measure_rest(stream, &stream->out, &stream->out_left);
    measure_rest(stream, &stream->err, &stream->err_left);
    if (stream->op == OP_EXEC)
        cgroup_drop(stream->run);
}

void child_kill(struct stream *stream) {
    if (stream->op == OP_FREEZE) {
        freezer_let_go(stream);
        return;
    }
    if (stream->op == OP_EXEC && !cgroup_kill(stream->run))
        kill_session(stream->pid);
    kill(-stream->pid, SIGKILL);
    kill(stream->pid, SIGKILL);
}

/* What an ended command has left is killed while its process id still names it. */
void children_reap(void) {
    siginfo_t information;
    for (;;) {
        information.si_pid = 0;
        if (waitid(P_ALL, 0, &information, WEXITED | WNOHANG | WNOWAIT) < 0 || !information.si_pid)
            return;
        struct stream *stream = streams;
        while (stream && (stream->pid != information.si_pid || !stream->child || stream->reaped))
            stream = stream->next;
        if (stream && stream->hung_up)
            child_kill(stream);
        int status = 0;
        struct rusage usage = {0};
        if (wait4(information.si_pid, &status, 0, &usage) == information.si_pid && stream)
            reaped(stream, status, &usage);
        if (stream && stream->op == OP_FREEZE)
            freezer_ended(stream);
    }
}

/* The host, the clock or the session's end wants it to be over. */
void child_hang_up(struct stream *stream, int cause) {
    bool stands = stream->op == OP_FREEZE && stream->child; /* what it was told is not the end of it */
    if ((stream->result && !stands) || stream->reaped || stream->hung_up) {
        if (cause == BY_CANCEL)
            stream_mute(stream);
        return;
    }
    if (cause == BY_CANCEL)
        stream_mute(stream);
    stream->cause = cause;
    if (!stream->child) {
        dial_abort(stream);
        stream_fail(stream, CANCELLED, 0, "the host has cancelled it");
        return;
    }
    stream->hung_up = true;
    if (stream->op == OP_EXEC && stream->grace_ms) {
        kill(-stream->pid, SIGHUP);
        kill(stream->pid, SIGHUP);
        kill(-stream->pid, SIGCONT);
        stream->deadline = now_ms() + stream->grace_ms;
        return;
    }
    child_kill(stream);
    stream->deadline = now_ms() + RETRY_KILL_MS;
}

int64_t children_next_deadline(void) {
    int64_t next = 0;
    for (const struct stream *stream = streams; stream; stream = stream->next) {
        bool unhurried = stream->unhurried && stream->status.fd >= 0 && !stream->result;
        if (stream->deadline && (!next || stream->deadline < next))
            next = stream->deadline;
        if (unhurried && (!next || stream->unhurried < next))
            next = stream->unhurried;
    }
    return next;
}

void children_look_at_clock(void) {
    int64_t now = now_ms();
    for (struct stream *stream = streams; stream; stream = stream->next) {
        if (!stream->deadline || stream->deadline > now || stream->reaped)
            continue;
        if (!stream->hung_up) {
            child_hang_up(stream, BY_TIMEOUT);
            continue;
        }
        child_kill(stream);
        stream->deadline = now + RETRY_KILL_MS;
    }
}

void run_signal(struct stream *stream, unsigned target, int number) {
    if (stream->op != OP_EXEC || !stream->child || stream->reaped || number < 1 || number > 64)
        return;
    if (target == TARGET_ALL && cgroup_signal(stream->run, number))
        return;
    kill(target == TARGET_PROCESS ? stream->pid : -stream->pid, number);
}
