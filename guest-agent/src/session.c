/* The frames of a session: what the host's mean, and which of the agent's are sent next. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"

/* What a turn adds to the channel before it waits again: more only makes the next exec's answer wait. */
enum { FILL_BYTES = 2 * MAX_FRAME };

static void forget_request(struct channel *channel) {
    free(channel->request);
    channel->request = NULL;
    channel->in_request = false;
}

static struct stream *find(const struct channel *channel, uint32_t id) {
    for (unsigned i = 0; i < channel->count; i++)
        if (channel->streams[i]->id == id)
            return channel->streams[i];
    return NULL;
}

/* Without memory for a request the host still sends all of it. */
static void keep_request(struct channel *channel, const uint8_t *payload, size_t size) {
    uint8_t *grown = channel->request_lost ? NULL : realloc(channel->request, channel->request_size + size + 1);
    if (grown) {
        channel->request = grown;
        memcpy(grown + channel->request_size, payload, size);
    } else {
        forget_request(channel);
        channel->in_request = channel->request_lost = true;
    }
    channel->request_size += size;
}

static bool complete_request(struct channel *channel) {
    struct stream *stream = stream_new(channel, channel->request_stream);
    struct reader reader = {channel->request, channel->request + channel->request_size, false};
    if (stream && channel->request_lost)
        stream_fail(stream, BUSY, ENOMEM, "not enough memory for the request");
    else if (stream)
        request_begin(stream, &reader);
    forget_request(channel);
    return stream != NULL;
}

/* A request of one frame is read where it lies; one of several is put together first. */
static bool open_stream(struct channel *channel, uint32_t id, unsigned flags, const uint8_t *payload, size_t size) {
    bool first = !channel->in_request;
    if (flags & ~(unsigned)FLAG_MORE || id == 0 || (first ? id <= channel->highest : id != channel->request_stream))
        return false;
    if (first && !(flags & FLAG_MORE)) {
        channel->highest = id;
        struct stream *stream = stream_new(channel, id);
        struct reader reader = {payload, payload + size, false};
        if (stream)
            request_begin(stream, &reader);
        return stream != NULL;
    }
    if (first) {
        channel->request_size = 0;
        channel->request_stream = channel->highest = id;
        channel->request_lost = false;
        channel->in_request = true;
    }
    if (channel->request_size + size > MAX_REQUEST)
        return false;
    keep_request(channel, payload, size);
    return flags & FLAG_MORE || complete_request(channel);
}

static bool credit(struct channel *channel, struct stream *stream, uint32_t id, uint32_t more) {
    if (id == 0) {
        channel->credit += more;
        return channel->credit <= MAX_SESSION_WINDOW;
    }
    if (stream)
        stream->credit += more;
    return !stream || stream->credit <= INT32_MAX;
}

static bool data(struct stream *stream, unsigned flags, const uint8_t *payload, size_t size) {
    if (flags & ~(unsigned)FLAG_END)
        return false;
    if (!stream)
        return true;
    if (stream->ended || (int64_t)size > stream->input_left)
        return false;
    stream->input_left -= (int64_t)size;
    stream_input(stream, payload, size, flags & FLAG_END);
    return true;
}

static bool control(struct stream *stream, enum kind kind, const uint8_t *payload, size_t size) {
    if (kind == SIGNAL) {
        if (size == 2 && stream && payload[0] <= TARGET_ALL)
            run_signal(stream, payload[0], payload[1]);
        return size == 2 && payload[0] <= TARGET_ALL;
    }
    if (size == 4 && stream)
        stream_resize(stream, get_u16(payload), get_u16(payload + 2));
    return size == 4;
}

/* Of a freeze, its answer is not the end. */
static bool cancel(const struct channel *channel, struct stream *stream, uint32_t id, size_t size) {
    if (size)
        return false;
    if (stream)
        child_hang_up(stream, BY_CANCEL);
    else
        freezer_cancel(channel, id);
    return true;
}

static bool ping(struct channel *channel, uint32_t id, const uint8_t *payload, size_t size) {
    if (id || size > MAX_PING)
        return false;
    memcpy(channel->pong, payload, size);
    channel->pong_size = (int)size;
    return true;
}

/* Acts on a frame whose header, length and trailer are right. False if it is bad all the same. */
bool session_frame(struct channel *channel, const uint8_t *header, const uint8_t *payload, size_t size) {
    uint32_t id = get_u32(header + 4);
    enum kind kind = header[12];
    unsigned flags = header[13];
    if (channel->in_request && kind != OPEN)
        return false;
    if (kind == OPEN)
        return open_stream(channel, id, flags, payload, size);
    if (kind == DATA && (id == 0 || id > channel->highest))
        return false;
    struct stream *stream = id ? find(channel, id) : NULL;
    if (kind == DATA)
        return data(stream, flags, payload, size);
    if (flags)
        return false;
    if (kind == PING)
        return ping(channel, id, payload, size);
    if (id > channel->highest)
        return false;
    if (kind == CREDIT)
        return size == 4 && credit(channel, stream, id, get_u32(payload));
    if (id == 0)
        return false;
    if (kind == CANCEL)
        return cancel(channel, stream, id, size);
    return (kind == SIGNAL || kind == RESIZE) && control(stream, kind, payload, size);
}

/* The streams that it had are counted for the next greeting. */
void session_end(struct channel *channel) {
    channel->ended += channel->count;
    while (channel->count)
        stream_leave(channel->streams[channel->count - 1]);
    freezer_leave(channel);
    forget_request(channel);
    channel->in_session = false;
    channel->pong_size = -1;
    spare_leave();
}

static bool wants_more(const struct channel *channel) {
    return channel_has_room(channel) && channel->out_end - channel->out_start < FILL_BYTES;
}

/* News of every stream come before data, data of those with little to say before bulk data, which goes in turn. */
void session_fill(struct channel *channel) {
    if (channel->unfinished)
        channel->unfinished = false;
    if (!channel->in_session)
        return;
    if (channel->pong_size >= 0 && channel_has_room(channel)) {
        memcpy(channel_payload(channel), channel->pong, (size_t)channel->pong_size);
        channel_send(channel, 0, PONG, 0, (size_t)channel->pong_size);
        channel->pong_size = -1;
    }
    for (unsigned i = 0; i < channel->count && channel_has_room(channel);)
        if (!stream_news(channel->streams[i])) /* true: it is over, and another one is in its place */
            i++;
    channel->unfinished |= !channel_has_room(channel);
    for (int bulk = 0; bulk < 2; bulk++) {
        bool sent = true;
        while (sent && wants_more(channel)) {
            sent = false;
            for (unsigned i = 0; i < channel->count && wants_more(channel); i++) {
                struct stream *stream = channel->streams[(channel->turn + i) % channel->count];
                if (!stream_output(stream, bulk))
                    continue;
                sent = true;
                if (bulk) {
                    channel->turn = (channel->turn + i + 1) % channel->count;
                    break;
                }
            }
        }
    }
}
