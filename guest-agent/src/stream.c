/* One stream: its input on the way to who reads it, its output on the way to the host, and its end. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "agent.h"

/* So much recent output makes a stream one of bulk data; half of it is forgotten each time so much time has passed. */
enum { BULK_BYTES = 2 * MAX_FRAME, FORGET_MS = 64 };

struct stream *streams;
static unsigned stream_count;
static size_t extra_windows;
/* A place for each that there can be, so that each can be answered without memory; untouched, they take none. */
enum { MOST_STREAMS = ALL_STREAMS + MAX_CHANNELS * REFUSED_STREAMS };
static struct stream places[MOST_STREAMS], *unused;
static size_t used;
static struct result no_memory; /* of all streams for whose result there is none */

/* NULL only if the host has opened too many to be told so. */
struct stream *stream_new(struct channel *channel, uint32_t id) {
    if (channel->count >= channel_most_streams(channel) + REFUSED_STREAMS || (!unused && used == MOST_STREAMS))
        return NULL;
    struct stream *stream = unused ? unused : &places[used++];
    unused = stream->next;
    memset(stream, 0, sizeof *stream);
    stream->channel = channel;
    stream->id = id;
    stream->in.fd = stream->out.fd = stream->err.fd = stream->status.fd = -1;
    stream->writers[0] = stream->writers[1] = -1;
    stream->window = INPUT_WINDOW;
    stream->input_left = INPUT_WINDOW;
    stream->out_left = stream->err_left = -1;
    stream->started = now_ms();
    stream->next = streams;
    streams = stream;
    stream_count++;
    channel->streams[channel->count++] = stream;
    if (channel->count > channel_most_streams(channel) || stream_count > ALL_STREAMS)
        stream_fail(stream, BUSY, 0, "too many requests at once");
    return stream;
}

/* How it ended, the first time that is said. Without memory for that, the host is told so: it waits for an answer. */
void stream_finish(struct stream *stream, const struct result *result) {
    if (stream->result)
        return;
    if (result == stream->report) {
        stream->result = stream->report;
        stream->report = NULL;
        return;
    }
    size_t size = offsetof(struct result, bytes) + result->size;
    stream->result = malloc(size);
    if (stream->result) {
        memcpy(stream->result, result, size);
        return;
    }
    begin_result(&no_memory, BUSY, ENOMEM, "not enough memory");
    stream->result = &no_memory;
}

static void free_result(struct result *result) {
    if (result != &no_memory)
        free(result);
}

void stream_fail(struct stream *stream, enum status status, int error, const char *message) {
    struct result result;
    begin_result(&result, status, error, message);
    stream_finish(stream, &result);
}

static void close_input(struct stream *stream) {
    loop_close(&stream->in);
    backlog_free(&stream->backlog);
    stream->deaf = true;
}

/* Nobody reads what the host sends. */
static void deafen(struct stream *stream) {
    if (!stream->deaf && !stream->ended)
        stream->want_stop = true;
    close_input(stream);
}

/* What the host has sent cannot be kept. Its reader must not take what came before for all of it. */
static void starve(struct stream *stream) {
    stream_fail(stream, BUSY, ENOMEM, "not enough memory for the input");
    close_input(stream);
    stream_mute(stream);
    stream->deadline = 0;
    if (stream->child && !stream->reaped)
        child_kill(stream);
}

static void end_input(struct stream *stream) {
    stream->end_done = true;
    if (stream->op == OP_DIAL) {
        shutdown(stream->in.fd, SHUT_WR);
        loop_close(&stream->in);
    } else if (stream->flags & EXEC_TTY && stream->op == OP_EXEC) {
        struct termios settings;
        char end = tcgetattr(stream->in.fd, &settings) == 0 ? (char)settings.c_cc[VEOF] : 4;
        stream->end_done = stream->in.writable && (write(stream->in.fd, &end, 1) == 1 || errno != EAGAIN);
        stream->in.writable = stream->end_done; /* else once there is room for it */
    } else {
        loop_close(&stream->in);
    }
}

/* Counts what was written, or finds that it never will be. False if nothing more can be written now. */
static bool written(struct stream *stream, ssize_t count) {
    if (count >= 0) {
        stream->consumed += (uint32_t)count;
        return true;
    }
    if (errno == EINTR)
        return true;
    stream->in.writable = false;
    if (errno != EAGAIN) {
        if (stream->op == OP_DIAL)
            dial_broken(stream);
        deafen(stream);
    }
    return false;
}

/* Writes what waits, as far as its reader takes it. */
void stream_pass_on(struct stream *stream) {
    if (dial_takes_datagrams(stream)) {
        dial_send(stream);
        return;
    }
    if (stream->in.fd < 0 || stream->connecting)
        return;
    if (stream->in.broken && stream->op != OP_DIAL && !(stream->flags & EXEC_TTY)) {
        deafen(stream);
        return;
    }
    while (stream->backlog.size && stream->in.writable)
        if (!written(stream, backlog_write(&stream->backlog, stream->in.fd)))
            break;
    if (stream->ended && !stream->end_done && !stream->backlog.size && stream->in.fd >= 0)
        end_input(stream);
}

void stream_input(struct stream *stream, const uint8_t *bytes, size_t size, bool end) {
    stream->received += size;
    stream->ended |= end;
    bool bytewise = !stream->deaf && !stream->connecting && !dial_takes_datagrams(stream);
    while (size && bytewise && !stream->deaf && !stream->backlog.size && stream->in.writable) {
        ssize_t count = write(stream->in.fd, bytes, size);
        if (!written(stream, count))
            break;
        if (count > 0) {
            bytes += count;
            size -= (size_t)count;
        }
    }
    if (!stream->deaf && !backlog_add(&stream->backlog, bytes, size))
        starve(stream);
    if (stream->ended || dial_takes_datagrams(stream))
        stream_pass_on(stream);
}

/* What the host may send next. Who has taken two windows gets one of twice the size, as long as there is memory for it:
   the less often it is told, the less often the three of them wait for each other. */
static uint32_t credit_due(struct stream *stream) {
    uint32_t least = dial_takes_datagrams(stream) ? 1 : stream->window / 4; /* a large one may need it all */
    if (stream->deaf || stream->ended || stream->consumed < least)
        return 0;
    uint32_t due = stream->consumed;
    stream->consumed = 0;
    uint64_t taken = stream->received - stream->backlog.size;
    bool room = stream->window < MAX_INPUT_WINDOW && extra_windows + stream->window <= EXTRA_WINDOWS;
    if (room && taken >= 2 * (uint64_t)stream->window) {
        extra_windows += stream->window;
        due += stream->window;
        stream->window *= 2;
    }
    stream->input_left += due;
    return due;
}

static void leave_channel(struct stream *stream) {
    struct channel *channel = stream->channel;
    for (unsigned i = 0; i < channel->count; i++)
        if (channel->streams[i] == stream)
            channel->streams[i] = channel->streams[--channel->count];
    stream->channel = NULL;
}

/* Its session is over. What it started lives on only if it was told to, or until it is killed. */
void stream_leave(struct stream *stream) {
    leave_channel(stream);
    dial_abort(stream);
    close_input(stream);
    stream_mute(stream);
    if (!stream->child || stream->reaped)
        stream->dead = true;
    else if (!(stream->op == OP_EXEC && stream->flags & EXEC_KEPT))
        child_hang_up(stream, BY_CANCEL);
}

/* From now on its output is read and dropped. */
void stream_mute(struct stream *stream) {
    stream->muted = true;
}

/* Sends what there is to say besides data; true if that was the last word. There is room for at least one frame. */
bool stream_news(struct stream *stream) {
    struct channel *channel = stream->channel;
    uint32_t due = stream->result ? 0 : credit_due(stream);
    if (due) {
        set_u32(channel_payload(channel), due);
        channel_send(channel, stream->id, CREDIT, 0, 4);
    }
    if (stream->want_stop && channel_has_room(channel)) {
        stream->want_stop = false;
        channel_send(channel, stream->id, STOP, 0, 0);
    }
    if (stream->want_started && channel_has_room(channel)) {
        stream->want_started = false;
        set_u32(channel_payload(channel), (uint32_t)stream->pid);
        channel_send(channel, stream->id, STARTED, 0, stream->op == OP_EXEC ? 4 : 0);
    }
    if (!stream->result || stream->want_started || !channel_has_room(channel))
        return false;
    memcpy(channel_payload(channel), stream->result->bytes, stream->result->size);
    channel_send(channel, stream->id, RESULT, 0, stream->result->size);
    leave_channel(stream);
    if (!stream->child || stream->reaped)
        stream->dead = true;
    if (stream->op == OP_EXEC)
        spare_expect();
    return true;
}

/* The output has ended, or what of it is wanted. */
static bool output_over(struct stream *stream, struct watch *watch, unsigned flags, int error) {
    if (!error && stream->op == OP_DIAL && dial_was_reset(stream))
        error = ECONNRESET;
    bool failed = error && error != EIO && stream->op == OP_DIAL;
    stream->channel->unfinished = true;
    if (failed)
        stream_fail(stream, FAILED, error, strerror(error));
    loop_close(watch);
    if (failed || stream->op != OP_DIAL)
        return false;
    stream->said_end = true;
    channel_send(stream->channel, stream->id, DATA, flags | FLAG_END, 0);
    return true;
}

/* Moves output into a frame; true if one was sent. */
static bool move_output(struct stream *stream, struct watch *watch, int64_t *left, unsigned flags, int64_t most) {
    struct channel *channel = stream->channel;
    int64_t size = most < MAX_PAYLOAD ? most : MAX_PAYLOAD;
    if (*left >= 0 && *left < size)
        size = *left;
    if (watch->fd < 0 || !watch->readable || (size <= 0 && *left != 0))
        return false;
    ssize_t got = *left == 0 ? 0
                  : dial_takes_datagrams(stream) ? dial_receive(stream, channel_payload(channel), (size_t)size)
                  : read(watch->fd, channel_payload(channel), (size_t)size);
    if (got > 0) {
        channel_send(channel, stream->id, DATA, flags, (size_t)got);
        stream->credit -= got;
        channel->credit -= got;
        if (*left >= 0)
            *left -= got;
        if (stream->heaviness < 16 * BULK_BYTES)
            stream->heaviness += (uint32_t)got;
        return true;
    }
    if (got < 0 && errno == EINTR)
        return false;
    if (got < 0 && errno == EAGAIN && *left < 0) {
        watch->readable = false;
        return false;
    }
    return output_over(stream, watch, flags, got < 0 && errno != EAGAIN ? errno : 0);
}

/* No output comes before it is known whether there is a command at all. */
static bool may_send(const struct stream *stream) {
    bool starting = stream->op == OP_EXEC && stream->status.fd >= 0;
    return !stream->result && !stream->muted && !stream->connecting && !starting;
}

static bool is_bulk(struct stream *stream) {
    if (!stream->heaviness)
        return false;
    int64_t halves = (loop_now - stream->weighed) / FORGET_MS;
    if (halves > 0) {
        stream->heaviness = halves < 32 ? stream->heaviness >> halves : 0;
        stream->weighed += halves * FORGET_MS;
    }
    return stream->heaviness >= BULK_BYTES;
}

/* Sends one frame of output, if there is any and credit for it. Bulk data leaves a part of the session's to others. */
bool stream_output(struct stream *stream, bool bulk_too) {
    bool bulk = is_bulk(stream);
    if (!may_send(stream) || (bulk && !bulk_too))
        return false;
    int64_t most = stream->channel->credit - (bulk ? stream->channel->reserve : 0);
    if (most > stream->credit)
        most = stream->credit;
    return move_output(stream, &stream->out, &stream->out_left, 0, most) ||
           move_output(stream, &stream->err, &stream->err_left, FLAG_ERR, most);
}

static void drop_output(struct watch *watch, int64_t left) {
    static uint8_t dropped[MAX_FRAME];
    for (int reads = 0; watch->fd >= 0 && watch->readable && reads < 8; reads++) {
        ssize_t got = left == 0 ? 0 : read(watch->fd, dropped, sizeof dropped);
        if (got < 0 && errno == EAGAIN && left < 0)
            watch->readable = false;
        else if (got <= 0 && errno != EINTR)
            loop_close(watch);
    }
}

void stream_resize(struct stream *stream, uint16_t rows, uint16_t columns) {
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    if (stream->op == OP_EXEC && stream->flags & EXEC_TTY && stream->out.fd >= 0)
        ioctl(stream->out.fd, TIOCSWINSZ, &size);
}

/* What the last turn of the loop has brought, for all of them. */
void streams_settle(void) {
    for (struct stream *stream = streams; stream; stream = stream->next) {
        if (stream->dead)
            continue;
        if (stream->op == OP_DIAL)
            dial_progress(stream);
        stream_pass_on(stream);
        loop_await(&stream->in); /* what has ended with the request is never waited for */
        if (stream->muted) {
            drop_output(&stream->out, stream->out_left);
            drop_output(&stream->err, stream->err_left);
        }
        if (stream->child)
            child_settle(stream);
        if (!stream->channel && stream->result && (!stream->child || stream->reaped))
            stream->dead = true;
    }
}

/* True if the loop must not sleep. */
bool streams_are_busy(void) {
    for (const struct stream *stream = streams; stream; stream = stream->next) {
        const struct channel *channel = stream->channel;
        bool wanted = stream->muted || (channel && channel_has_room(channel) && channel->port.writable &&
                                        stream->credit > 0 && channel->credit > 0);
        bool bulk = stream->heaviness >= BULK_BYTES && !stream->muted;
        if (!(stream->muted || may_send(stream)) || !wanted || (bulk && channel->credit <= channel->reserve))
            continue;
        if ((stream->out.fd >= 0 && stream->out.readable) || (stream->err.fd >= 0 && stream->err.readable))
            return true;
    }
    return false;
}

void streams_sweep(void) {
    struct stream **at = &streams;
    while (*at) {
        struct stream *stream = *at;
        if (!stream->dead) {
            at = &stream->next;
            continue;
        }
        *at = stream->next;
        if (stream->channel)
            leave_channel(stream);
        loop_close(&stream->in);
        loop_close(&stream->out);
        loop_close(&stream->err);
        loop_close(&stream->status);
        for (int i = 0; i < 2; i++)
            if (stream->writers[i] >= 0)
                close(stream->writers[i]);
        if (*stream->run && !(stream->picked && cgroup_keep(stream->run)))
            cgroup_drop(stream->run);
        backlog_free(&stream->backlog);
        dial_free(stream);
        freeze_free(stream);
        extra_windows -= stream->window - INPUT_WINDOW;
        stream_count--;
        free(stream->report);
        free_result(stream->result);
        stream->next = unused;
        unused = stream;
    }
}
