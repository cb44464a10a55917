/* Processes for requests: started, watched, ended, reaped. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"
#include "child.h"
#include "spawn.h"

enum { RETRY_KILL_MS = 500, TTY_REST = 1 << 20, UNHURRIED_MS = 50 };

/* From here on it is this stream's. */
void child_adopt(struct stream *stream, const struct started *started) {
    const int ends[] = {started->in, started->out, started->err, started->status};
    struct watch *watches[] = {&stream->in, &stream->out, &stream->err, &stream->status};
    stream->pid = started->pid;
    stream->child = true;
    memcpy(stream->writers, started->writers, sizeof stream->writers);
    for (int i = 0; i < 4; i++)
        if (ends[i] >= 0)
            loop_take(watches[i], ends[i]);
    stream->status.readable = false; /* until it is of interest */
    loop_await(&stream->out);
    loop_await(&stream->err);
    stream->unhurried = stream->op == OP_EXEC ? now_ms() + UNHURRIED_MS : 0;
}

/* Starts the process of a stream, with the agent's ends of its streams; descriptors are closed if that fails. */
void child_attach(struct stream *stream, struct spawn *spawn, struct started *started, child_body *body,
                  const struct reader *request) {
    if (spawn_child(spawn, started, body, request))
        child_adopt(stream, started);
    else
        stream_fail(stream, BUSY, errno, "no process can be started");
}

void child_start(struct stream *stream, child_body *body, const struct reader *request, bool input, bool output) {
    struct spawn spawn = NO_SPAWN;
    struct started started = NOT_STARTED;
    if (!open_pipes(&spawn, &started, input, output)) {
        stream_fail(stream, BUSY, errno, "no pipe can be made");
        return;
    }
    if (stream->op == OP_FREEZE)
        spawn.extra = around.freezable;
    if (stream->op == OP_IDENTITY || stream->op == OP_WHOAMI) {
        spawn.extra = around.freezable;
        spawn.keys = around.key_dir;
    }
    spawn.flags = stream->flags;
    child_attach(stream, &spawn, &started, body, request);
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
    if (stream->status.fd < 0 || stream->status.awaited)
        return;
    if (stream->unhurried && stream->ended && !stream->received && loop_now < stream->unhurried)
        return;
    stream->unhurried = 0;
    stream->status.readable = true;
    loop_await(&stream->status);
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

static struct stream *of_process(pid_t pid) {
    struct stream *stream = streams;
    while (stream && (stream->pid != pid || !stream->child || stream->reaped))
        stream = stream->next;
    return stream;
}

/* One that has ended, and is not reaped yet; 0 if there is none. */
static pid_t ended_process(void) {
    siginfo_t information = {0};
    return waitid(P_ALL, 0, &information, WEXITED | WNOHANG | WNOWAIT) < 0 ? 0 : information.si_pid;
}

static bool is_any_hung_up(void) {
    for (const struct stream *stream = streams; stream; stream = stream->next)
        if (stream->hung_up && stream->child && !stream->reaped)
            return true;
    return false;
}

/* What an ended command that was hung up has left is killed while its process id still names it. */
void children_reap(void) {
    for (;;) {
        pid_t ended = is_any_hung_up() ? ended_process() : -1;
        struct stream *stream = ended > 0 ? of_process(ended) : NULL;
        if (stream && stream->hung_up)
            child_kill(stream);
        int status = 0;
        struct rusage usage = {0};
        pid_t pid = ended ? wait4(ended, &status, WNOHANG, &usage) : 0;
        if (pid <= 0)
            return;
        stream = of_process(pid);
        if (stream)
            reaped(stream, status, &usage);
        else
            spare_ended(pid);
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
