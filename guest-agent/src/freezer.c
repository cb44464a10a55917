/* The one owner of file systems that stand still. Requests to freeze and to thaw have their turn one by one, and each
 * does its work in a process of its own (freeze.c), which is known here until it has ended, whatever became of the
 * request. A cancel, a request to thaw, the end of the session and the request's own time all mean the same to it: it
 * thaws what it has frozen, and ends. One that was killed instead is followed by another, which thaws. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "agent.h"
#include "child.h"

enum { MOST_PLACES = 64, MOST_MS = 60000, MOST_BYTES = 65536, PAUSE_MS = 50 };

/* A request that waits for its turn or has it. */
struct freeze {
    uint64_t number; /* in the order of their coming */
    const struct channel *channel; /* of the session whose end is that of what stands still; NULL: it is over */
    size_t size;
    uint8_t request[];
};

uint32_t stood_still;
static uint64_t requests;
static struct stream *holder; /* whose process has its turn */
static bool ended_by_thaw; /* what it has frozen stood still until then */

void freeze_begin(struct stream *stream, struct reader *reader) {
    struct reader fields = *reader;
    size_t size = (size_t)(reader->end - reader->at);
    uint32_t timeout_ms = take_u32(&fields), count;
    take_texts(&fields, &count);
    bool endless = !timeout_ms && !(stream->flags & FREEZE_THAW);
    if (count > MOST_PLACES || size > MOST_BYTES || timeout_ms > MOST_MS || endless) {
        stream_fail(stream, BAD_REQUEST, 0, "too many mount points, or too long");
        return;
    }
    stream->freeze = malloc(sizeof *stream->freeze + size);
    if (!stream->freeze) {
        stream_fail(stream, BUSY, ENOMEM, "not enough memory for the request");
        return;
    }
    *stream->freeze = (struct freeze){.number = ++requests, .channel = stream->channel, .size = size};
    memcpy(stream->freeze->request, reader->at, size);
}

void freeze_free(struct stream *stream) {
    free(stream->freeze);
}

/* Its process sees the end of its input, and thaws; so it does when the agent ends. */
static void start(struct stream *stream) {
    const uint8_t *request = stream->freeze->request;
    const struct reader reader = {request, request + stream->freeze->size, false};
    child_start(stream, run_freeze, &reader, true, false);
}

/* Called again and again until its process has ended. */
void freezer_let_go(struct stream *stream) {
    loop_close(&stream->in);
    if (!stream->pid)
        start(stream);
}

static void let_go_of(const struct channel *channel, uint32_t id) {
    if (holder && !(holder->flags & FREEZE_THAW) && holder->freeze->channel == channel && (!id || holder->id == id))
        child_hang_up(holder, BY_CANCEL);
}

/* The host has lost interest in what it may have been told is frozen: the two can cross. */
void freezer_cancel(const struct channel *channel, uint32_t id) {
    let_go_of(channel, id);
}

/* The channel's session is over. */
void freezer_leave(const struct channel *channel) {
    let_go_of(channel, 0);
    for (struct stream *stream = streams; stream; stream = stream->next)
        if (stream->freeze && stream->freeze->channel == channel)
            stream->freeze->channel = NULL;
}

/* Somebody else has killed the process: what it has frozen is so still, and what it was to thaw may be. */
static void follow(struct stream *stream) {
    if (!(stream->flags & FREEZE_THAW) && !stream->hung_up)
        stream_fail(stream, FAILED, 0, "the agent's own process for it was killed");
    loop_close(&stream->status);
    free(stream->report);
    stream->report = NULL;
    stream->report_head = stream->report_size = 0;
    stream->reaped = false;
    stream->pid = 0;
    stream->flags |= FREEZE_THAW;
    stream->hung_up = true;
    stream->deadline = now_ms() + PAUSE_MS;
}

/* Its process was reaped. The code of one that has frozen something is how much of it stood still until it was let go. */
void freezer_ended(struct stream *stream) {
    if (WIFSIGNALED(stream->wait_status)) {
        follow(stream);
        return;
    }
    stood_still = ended_by_thaw ? (uint32_t)WEXITSTATUS(stream->wait_status) : 0;
    ended_by_thaw = false;
    holder = NULL;
}

static struct stream *next_in_turn(void) {
    struct stream *first = NULL;
    for (struct stream *stream = streams; stream; stream = stream->next)
        if (stream->freeze && !stream->child && !stream->result && !stream->dead)
            if (!first || stream->freeze->number < first->freeze->number)
                first = stream;
    return first;
}

/* Gives whoever waits the turn, if nobody has it; who wants to thaw ends it. */
void freezer_settle(void) {
    struct stream *next;
    while ((next = next_in_turn()) != NULL) {
        if (!holder) {
            start(next);
            holder = next->child ? next : NULL;
        } else if (holder->flags & FREEZE_THAW || holder->hung_up) {
            return;
        } else if (next->flags & FREEZE_THAW) {
            ended_by_thaw = holder->result != NULL;
            child_hang_up(holder, BY_CANCEL);
        } else {
            stream_fail(next, FAILED, EBUSY, "file systems are frozen already, or about to be");
        }
    }
}
