/* A channel's bytes: cut into greetings and frames as they come in, collected as they go out. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent.h"

#ifndef VERSION
#define VERSION "0"
#endif

enum { IN_BYTES = 2 * MAX_FRAME, OUT_BYTES = 3 * MAX_FRAME, READS_IN_TURN = 32, SILENCE_MS = 1000 };

struct channel *channels;

/* Processes that are started do not have them: neither their contents, nor the cost of being told apart. */
static bool open_buffers(struct channel *channel) {
    void *memory = mmap(NULL, IN_BYTES + OUT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return false;
    madvise(memory, IN_BYTES + OUT_BYTES, MADV_DONTFORK);
    channel->in = memory;
    channel->out = channel->in + IN_BYTES;
    return true;
}

struct channel *channel_open(int fd, bool ends, bool dials) {
    unsigned count = 0;
    for (struct channel *channel = channels; channel; channel = channel->next)
        count++;
    struct channel *channel = count < MAX_CHANNELS ? calloc(1, sizeof *channel) : NULL;
    if (!channel || !open_buffers(channel)) {
        free(channel);
        close(fd);
        return NULL;
    }
    channel->ends = ends;
    channel->dials = dials;
    channel->pong_size = -1;
    channel->announcement = AGENT_STARTED;
    channel->next = channels;
    channels = channel;
    loop_watch(&channel->port, fd);
    return channel;
}

/* At once. */
unsigned channel_most_streams(const struct channel *channel) {
    return channel->dials ? MAX_DIALS : MAX_STREAMS;
}

bool channel_has_room(const struct channel *channel) {
    return OUT_BYTES - channel->out_end >= MAX_FRAME;
}

/* Where the payload of the next frame goes; there has to be room. */
uint8_t *channel_payload(struct channel *channel) {
    return channel->out + channel->out_end + HEADER_BYTES;
}

/* Completes the frame around the payload. */
void channel_send(struct channel *channel, uint32_t stream, enum kind kind, unsigned flags, size_t size) {
    uint8_t *frame = channel->out + channel->out_end;
    set_u32(frame, (uint32_t)size);
    set_u32(frame + 4, stream);
    set_u32(frame + 8, channel->tag);
    frame[12] = (uint8_t)kind;
    frame[13] = (uint8_t)flags;
    set_u16(frame + 14, 0);
    set_u32(frame + HEADER_BYTES + size, channel->tag);
    channel->out_end += HEADER_BYTES + size + TRAILER_BYTES;
}

static void send_welcome(struct channel *channel, const uint8_t *nonce, enum reason reason) {
    uint8_t *at = channel->out + channel->out_end;
    memset(at, 0, WELCOME_BYTES);
    memcpy(at, MAGIC, MAGIC_BYTES);
    if (nonce)
        memcpy(at + 16, nonce, NONCE_BYTES);
    set_u16(at + 32, channel->in_session ? PROTOCOL : 0);
    set_u16(at + 34, PROTOCOL);
    set_u16(at + 36, PROTOCOL);
    set_u16(at + 38, (uint16_t)reason);
    set_u32(at + 40, channel->in_session ? channel->tag : 0);
    set_u32(at + 44, channel->ended);
    memcpy(at + 48, around.boot, NONCE_BYTES);
    memcpy(at + 64, VERSION, strnlen(VERSION, VERSION_BYTES));
    set_u32(at + 80, channel_most_streams(channel));
    set_u32(at + 84, FEATURE_NO_INPUT | (around.cgroups >= 0 ? FEATURE_CGROUPS : 0));
    channel->out_end += WELCOME_BYTES;
    if (nonce)
        channel->ended = 0;
}

/* What the host says is no frame: the session is over, and the next greeting is waited for. */
void channel_fault(struct channel *channel, enum reason reason) {
    session_end(channel);
    channel->announcement = (int)reason;
}

static void make_tag(struct channel *channel) {
    uint8_t bytes[4];
    uint32_t before = channel->tag;
    fill_random(bytes, sizeof bytes);
    do {
        for (int i = 0; i < 4; i++)
            bytes[i] = (uint8_t)(bytes[i] % 255 + 1);
        channel->tag = get_u32(bytes);
        bytes[0]++;
    } while (channel->tag == before);
}

static void greet(struct channel *channel, const uint8_t *hello) {
    static const uint8_t no_nonce[NONCE_BYTES];
    const uint8_t *nonce = hello + 24;
    session_end(channel);
    uint16_t lowest = get_u16(hello + 16), highest = get_u16(hello + 18);
    uint32_t window = get_u32(hello + 20);
    channel->announcement = -1;
    if (!memcmp(nonce, no_nonce, NONCE_BYTES) || window < MIN_SESSION_WINDOW || window > MAX_SESSION_WINDOW ||
        lowest > highest) {
        send_welcome(channel, nonce, BAD_HELLO);
        return;
    }
    if (lowest > PROTOCOL || highest < PROTOCOL) {
        send_welcome(channel, nonce, NO_PROTOCOL);
        return;
    }
    make_tag(channel);
    channel->in_session = true;
    channel->answered = false;
    channel->silent_until = 0;
    channel->highest = 0;
    channel->credit = window;
    channel->reserve = window / 4 < 16384 ? window / 4 : 16384;
    send_welcome(channel, nonce, GREETED);
}

/* Looks for a greeting; false if more has to come first. What the agent had to say to nobody is dropped. */
static bool hunt(struct channel *channel) {
    uint8_t *at = channel->in + channel->in_start;
    size_t size = channel->in_end - channel->in_start;
    uint8_t *magic = memmem(at, size, MAGIC, MAGIC_BYTES);
    if (!magic) {
        if (size >= MAGIC_BYTES)
            channel->in_start = channel->in_end - (MAGIC_BYTES - 1);
        return false;
    }
    channel->in_start += (size_t)(magic - at);
    if (channel->in_end - channel->in_start < HELLO_BYTES)
        return false;
    channel->in_start += HELLO_BYTES;
    channel->out_start = channel->out_end = 0;
    greet(channel, magic);
    return true;
}

/* Takes one frame; false if more has to come first. */
static bool take_frame(struct channel *channel) {
    const uint8_t *at = channel->in + channel->in_start;
    size_t size = channel->in_end - channel->in_start;
    if (size < HEADER_BYTES)
        return false;
    if (!memcmp(at, MAGIC, MAGIC_BYTES)) {
        if (size < HELLO_BYTES)
            return false;
        return hunt(channel);
    }
    uint32_t length = get_u32(at);
    if (length > MAX_PAYLOAD || get_u32(at + 8) != channel->tag || get_u16(at + 14)) {
        channel_fault(channel, BAD_FRAME);
        return true;
    }
    if (size < HEADER_BYTES + length + TRAILER_BYTES)
        return false;
    const uint8_t *payload = at + HEADER_BYTES;
    channel->in_start += HEADER_BYTES + length + TRAILER_BYTES;
    if (get_u32(payload + length) != channel->tag || !session_frame(channel, at, payload, length))
        channel_fault(channel, BAD_FRAME);
    return true;
}

static void parse(struct channel *channel) {
    while (channel->in_session ? take_frame(channel) : hunt(channel))
        ;
    if (channel->in_start == channel->in_end) {
        channel->in_start = channel->in_end = 0;
    } else if (IN_BYTES - channel->in_end < MAX_FRAME && channel->in_start) {
        channel->in_end -= channel->in_start;
        memmove(channel->in, channel->in + channel->in_start, channel->in_end);
        channel->in_start = 0;
    }
}

/* A connection is over when its other end is closed. What a port says of that may be of the host before: the kernel
   hears of openings and closings on another queue than the data, so the greeting of the next host can be read, and even
   be answered, before. Only a silence that lasts ends the session, and only one whose greeting has been answered. */
static void host_gone(struct channel *channel) {
    if (channel->ends) {
        session_end(channel);
        channel->gone = true;
    } else if (channel->in_session && !channel->silent_until) {
        channel->silent_until = now_ms() + SILENCE_MS;
    }
}

void channel_look_at_clock(struct channel *channel) {
    struct pollfd port = {.fd = channel->port.fd};
    if (!channel->silent_until || channel->silent_until > now_ms())
        return;
    channel->silent_until = 0;
    if (channel->in_session && channel->answered && poll(&port, 1, 0) >= 0 && port.revents & POLLHUP) {
        session_end(channel);
        channel->out_start = channel->out_end = 0;
    }
}

/* A virtio-serial port gives a page at a time, and 0 while nobody is at its other end. */
void channel_read(struct channel *channel) {
    for (int reads = 0; channel->port.readable && !channel->gone && reads < READS_IN_TURN; reads++) {
        ssize_t got = read(channel->port.fd, channel->in + channel->in_end, IN_BYTES - channel->in_end);
        if (got > 0) {
            channel->silent_until = 0;
            channel->in_end += (size_t)got;
            parse(channel);
        } else if (got < 0 && errno == EINTR) {
            continue;
        } else {
            channel->port.readable = false;
            if (got == 0 || errno != EAGAIN)
                host_gone(channel);
            if (got < 0 && errno != EAGAIN)
                channel->gone = true;
        }
    }
}

void channel_write(struct channel *channel) {
    if (channel->announcement >= 0 && !channel->in_session && channel_has_room(channel)) {
        send_welcome(channel, NULL, (enum reason)channel->announcement);
        channel->announcement = -1;
    }
    while (channel->port.writable && channel->out_start < channel->out_end && !channel->gone) {
        size_t size = channel->out_end - channel->out_start;
        ssize_t written = write(channel->port.fd, channel->out + channel->out_start, size);
        if (written > 0) {
            channel->out_start += (size_t)written;
            channel->answered |= channel->out_start >= WELCOME_BYTES;
        } else if (written < 0 && errno == EINTR) {
            continue;
        } else {
            channel->port.writable = false;
            if (written < 0 && errno != EAGAIN && errno != ENOMEM) { /* without memory: when the host is heard next */
                host_gone(channel);
                channel->gone = true;
            }
        }
    }
    if (channel->out_start == channel->out_end) {
        channel->out_start = channel->out_end = 0;
    } else if (!channel_has_room(channel) && channel->out_start >= MAX_FRAME) {
        channel->out_end -= channel->out_start;
        memmove(channel->out, channel->out + channel->out_start, channel->out_end);
        channel->out_start = 0;
    }
}

/* True if the loop must not sleep: there is something that can be read or written now. */
bool channel_is_busy(const struct channel *channel) {
    return channel->port.readable ||
           (channel->port.writable && (channel->unfinished || channel->out_start < channel->out_end));
}

void channels_sweep(void) {
    struct channel **at = &channels;
    while (*at) {
        struct channel *channel = *at;
        if (!channel->gone) {
            at = &channel->next;
            continue;
        }
        *at = channel->next;
        session_end(channel); /* no stream is left that knows it */
        loop_close(&channel->port);
        munmap(channel->in, IN_BYTES + OUT_BYTES);
        free(channel->request);
        free(channel);
    }
}
