/* Connections to sockets in the guest, and datagrams. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent.h"

/* linux/in.h: a source address without a port of its own, which is chosen with the destination. */
#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum { MOST_PLACES = 16, LOOPBACK_PLACES = 2, MOST_TURN_DATAGRAMS = 32, LOOK_AGAIN_MS = 1000 };

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
};

/* Where a stream leads: to the first of its places that does not refuse. */
struct dial {
    struct {
        union address to, from; /* from: no family if the kernel chooses */
        socklen_t size;
    } places[MOST_PLACES];
    unsigned count, at;
    int error; /* why the places before did not do */
    int64_t looked; /* ms: when all places were tried for a datagram */
    bool datagrams, reset;
    struct backlog arrived; /* a datagram on its way to the host, and its length before it */
};

static bool is_stream_of_ip(const struct dial *dial) {
    return !dial->datagrams && dial->places[0].to.any.sa_family != AF_UNIX;
}

/* -- where to */

static void add_place(struct dial *dial, const union address *to, const union address *from, socklen_t size) {
    if (dial->count == MOST_PLACES)
        return;
    dial->places[dial->count].to = *to;
    dial->places[dial->count].size = size;
    if (from)
        dial->places[dial->count].from = *from;
    dial->count++;
}

/* A numeric address; false for what is none. */
static bool add_numeric(struct dial *dial, int family, uint16_t port, const char *text, const union address *from) {
    union address to;
    memset(&to, 0, sizeof to);
    to.any.sa_family = (sa_family_t)family;
    void *bytes = family == AF_INET ? (void *)&to.v4.sin_addr : (void *)&to.v6.sin6_addr;
    if (!port || inet_pton(family, text, bytes) != 1)
        return false;
    if (family == AF_INET)
        to.v4.sin_port = htons(port);
    else
        to.v6.sin6_port = htons(port);
    add_place(dial, &to, from, family == AF_INET ? sizeof to.v4 : sizeof to.v6);
    return true;
}

/* A path is the image's, as seen from /proc. */
static bool add_path(struct dial *dial, const char *text) {
    union address to;
    memset(&to, 0, sizeof to);
    size_t most = sizeof to.local.sun_path;
    int size = snprintf(to.local.sun_path, most, "%s%s", around.confined ? "1/root" : "", text);
    to.local.sun_family = AF_UNIX;
    if (*text != '/' || size >= (int)most || dial->datagrams)
        return false;
    add_place(dial, &to, NULL, sizeof to.local);
    return true;
}

/* An address of this machine that is no loopback one; its port is 0. */
static bool is_own(const struct ifaddrs *one, int family, union address *address) {
    memset(address, 0, sizeof *address);
    if (!one->ifa_addr || one->ifa_addr->sa_family != family || !(one->ifa_flags & IFF_UP))
        return false;
    address->any.sa_family = (sa_family_t)family;
    if (family == AF_INET) {
        address->v4.sin_addr = ((const struct sockaddr_in *)(const void *)one->ifa_addr)->sin_addr;
        return (ntohl(address->v4.sin_addr.s_addr) >> 24) != IN_LOOPBACKNET;
    }
    address->v6.sin6_addr = ((const struct sockaddr_in6 *)(const void *)one->ifa_addr)->sin6_addr;
    return !IN6_IS_ADDR_LOOPBACK(&address->v6.sin6_addr) && !IN6_IS_ADDR_LINKLOCAL(&address->v6.sin6_addr);
}

/* Whatever address of this machine a server listens on: its own ones first, then loopback. A server must not take what
   comes from elsewhere for a program of this machine (CVE-2021-20199 was that in Podman), so where there is an address
   of its own that is also the source. */
static bool add_this_machine(struct dial *dial, uint16_t port) {
    static const struct {
        int family;
        const char *loopback;
    } kinds[LOOPBACK_PLACES] = {{AF_INET, "127.0.0.1"}, {AF_INET6, "::1"}};
    union address from[LOOPBACK_PLACES];
    bool has_from[LOOPBACK_PLACES] = {false};
    struct ifaddrs *all = NULL;
    if (!port)
        return false;
    if (getifaddrs(&all) < 0)
        all = NULL;
    for (int i = 0; i < LOOPBACK_PLACES; i++) {
        for (const struct ifaddrs *one = all; one && dial->count < MOST_PLACES - LOOPBACK_PLACES; one = one->ifa_next) {
            union address own;
            char text[INET6_ADDRSTRLEN];
            if (!is_own(one, kinds[i].family, &own))
                continue;
            if (!has_from[i])
                from[i] = own;
            has_from[i] = true;
            const void *bytes = kinds[i].family == AF_INET ? (void *)&own.v4.sin_addr : (void *)&own.v6.sin6_addr;
            if (inet_ntop(kinds[i].family, bytes, text, sizeof text))
                add_numeric(dial, kinds[i].family, port, text, NULL);
        }
    }
    for (int i = 0; i < LOOPBACK_PLACES; i++)
        add_numeric(dial, kinds[i].family, port, kinds[i].loopback, has_from[i] ? &from[i] : NULL);
    freeifaddrs(all);
    return true;
}

static bool add_places(struct dial *dial, uint8_t family, uint16_t port, const char *text) {
    switch (family) {
    case DIAL_MACHINE: return !*text && add_this_machine(dial, port);
    case DIAL_TCP4: return add_numeric(dial, AF_INET, port, text, NULL);
    case DIAL_TCP6: return add_numeric(dial, AF_INET6, port, text, NULL);
    case DIAL_UNIX: return add_path(dial, text);
    default: return false;
    }
}

/* -- getting there */

static void refused(struct stream *stream, int error) {
    stream_fail(stream, error == ECONNREFUSED || error == ENOENT ? REFUSED : FAILED, error, strerror(error));
}

static void connected(struct stream *stream) {
    stream->connecting = false;
    stream->out.readable = true;
    stream->want_started = true;
    if (!stream->dial->datagrams) {
        int both = fcntl(stream->out.fd, F_DUPFD_CLOEXEC, 0);
        if (both < 0) {
            refused(stream, errno);
            return;
        }
        loop_watch(&stream->in, both);
    }
    stream_pass_on(stream);
}

/* A socket on its way to the place; or -1 with errno. */
static int connect_to(struct dial *dial, unsigned at) {
    const union address *to = &dial->places[at].to, *from = &dial->places[at].from;
    int kind = dial->datagrams ? SOCK_DGRAM : SOCK_STREAM, yes = 1;
    int fd = socket(to->any.sa_family, kind | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (is_stream_of_ip(dial))
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (from->any.sa_family == AF_INET && !dial->datagrams)
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    int error = from->any.sa_family && bind(fd, &from->any, dial->places[at].size) < 0 ? errno : 0;
    bool moved = around.confined && to->any.sa_family == AF_UNIX && fchdir(around.proc) == 0;
    if (!error && connect(fd, &to->any, dial->places[at].size) < 0 && errno != EINPROGRESS)
        error = errno;
    if (moved && chdir("/") < 0)
        error = errno;
    if (!error)
        return fd;
    close(fd);
    errno = error;
    return -1;
}

/* That somebody refuses says more than that there is no such address. */
static void note(struct dial *dial, int error) {
    if (dial->error != ECONNREFUSED)
        dial->error = error;
}

static void try_places(struct stream *stream) {
    struct dial *dial = stream->dial;
    while (dial->at < dial->count) {
        int fd = connect_to(dial, dial->at);
        if (fd >= 0) {
            loop_watch(&stream->out, fd);
            stream->connecting = true;
            return;
        }
        note(dial, errno);
        dial->at++;
    }
    stream->connecting = false;
    refused(stream, dial->error);
}

void dial_begin(struct stream *stream, struct reader *request) {
    uint8_t family = take_u8(request);
    take_u8(request);
    uint16_t port = take_u16(request);
    const char *text = take_text(request);
    stream->dial = calloc(1, sizeof *stream->dial);
    if (!stream->dial) {
        stream_fail(stream, BUSY, ENOMEM, strerror(ENOMEM));
        return;
    }
    stream->dial->datagrams = stream->flags & DIAL_DATAGRAMS;
    if (add_places(stream->dial, family, port, text))
        try_places(stream);
    else
        stream_fail(stream, BAD_REQUEST, 0, "no address that can be dialled");
}

/* Finds out how connecting went; the next place is tried if this one refuses. */
static void settle(struct stream *stream) {
    while (stream->connecting && stream->out.writable) {
        struct pollfd waiting = {.fd = stream->out.fd, .events = POLLOUT};
        int error = 0;
        socklen_t size = sizeof error;
        if (poll(&waiting, 1, 0) <= 0) {
            stream->out.writable = false;
            return;
        }
        getsockopt(stream->out.fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (!error) {
            connected(stream);
            return;
        }
        loop_close(&stream->out);
        note(stream->dial, error);
        stream->dial->at++;
        try_places(stream);
    }
}

/* Finds out how connecting went, and when both directions are done. */
void dial_progress(struct stream *stream) {
    if (stream->result)
        return;
    settle(stream);
    if (stream->connecting || stream->result)
        return;
    if (stream->dial->datagrams ? stream->ended : stream->out.fd < 0 && (stream->end_done || stream->deaf)) {
        int error = stream->dial->reset ? ECONNRESET : 0;
        stream_fail(stream, error ? FAILED : OK, error, error ? strerror(error) : "");
    }
}

/* -- how it ends */

/* What is written finds nobody: of TCP that is a reset, which is told once what came before it is read. */
void dial_broken(struct stream *stream) {
    stream->dial->reset = is_stream_of_ip(stream->dial);
}

bool dial_was_reset(const struct stream *stream) {
    return stream->dial->reset;
}

/* The other end was not heard to its end: who is connected must not take what came for all there was. */
void dial_abort(struct stream *stream) {
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    if (stream->dial && stream->out.fd >= 0)
        setsockopt(stream->out.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    else if (stream->dial && stream->in.fd >= 0)
        setsockopt(stream->in.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

void dial_free(struct stream *stream) {
    if (stream->dial)
        backlog_free(&stream->dial->arrived);
    free(stream->dial);
}

/* -- datagrams: in a stream each has its length before it (u16) */

bool dial_takes_datagrams(const struct stream *stream) {
    return stream->dial && stream->dial->datagrams;
}

static int pending_error(int fd) {
    int error = 0;
    socklen_t size = sizeof error;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 ? errno : error;
}

/* False if nobody is there, which the kernel tells a sender on the same machine at once. */
static bool was_taken(int fd, const uint8_t *bytes, size_t size) {
    int error = send(fd, bytes, size, 0) < 0 ? errno : pending_error(fd);
    return error != ECONNREFUSED;
}

static bool move_to(struct stream *stream, unsigned at, const uint8_t *bytes, size_t size) {
    int fd = connect_to(stream->dial, at);
    if (fd < 0)
        return false;
    if (!was_taken(fd, bytes, size)) {
        close(fd);
        return false;
    }
    loop_close(&stream->out);
    loop_watch(&stream->out, fd);
    stream->dial->at = at;
    return true;
}

/* To the first place where somebody is: a server that has come to an earlier one answers from there alone. As long as
   where the last one went does, that is looked for no more than once in a while. What nobody takes, or there is no room
   for, is lost, as datagrams are. */
static void send_datagram(struct stream *stream, const uint8_t *bytes, size_t size) {
    struct dial *dial = stream->dial;
    int64_t now = now_ms();
    unsigned first = stream->out.fd >= 0 && now < dial->looked + LOOK_AGAIN_MS ? dial->at : 0;
    if (first == 0)
        dial->looked = now;
    for (unsigned tried = 0; tried < dial->count; tried++) {
        unsigned at = (first + tried) % dial->count;
        if (at == dial->at && stream->out.fd >= 0) {
            if (was_taken(stream->out.fd, bytes, size))
                break;
            loop_close(&stream->out);
        } else if (move_to(stream, at, bytes, size)) {
            break;
        }
    }
}

/* Sends what is there whole. */
void dial_send(struct stream *stream) {
    static uint8_t datagram[UINT16_MAX];
    uint8_t head[2];
    if (stream->result)
        return;
    while (backlog_look(&stream->backlog, 0, head, sizeof head)) {
        size_t size = get_u16(head);
        if (!backlog_look(&stream->backlog, sizeof head, datagram, size))
            return;
        backlog_drop(&stream->backlog, sizeof head + size);
        stream->consumed += (uint32_t)(sizeof head + size);
        send_datagram(stream, datagram, size);
    }
}

static bool receive_datagram(struct stream *stream) {
    static uint8_t datagram[2 + UINT16_MAX];
    for (int tries = 0; tries < MOST_TURN_DATAGRAMS && stream->out.fd >= 0; tries++) {
        ssize_t got = recv(stream->out.fd, datagram + 2, UINT16_MAX, 0);
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return false;
        if (got < 0) /* that nobody was there; what is sent next finds somebody */
            continue;
        set_u16(datagram, (uint16_t)got);
        if (backlog_add(&stream->dial->arrived, datagram, 2 + (size_t)got))
            return true;
    }
    return false;
}

/* As read(2). */
ssize_t dial_receive(struct stream *stream, uint8_t *bytes, size_t size) {
    struct backlog *arrived = &stream->dial->arrived;
    if (!arrived->size && !receive_datagram(stream)) {
        errno = EAGAIN;
        return -1;
    }
    if (size > arrived->size)
        size = arrived->size;
    backlog_look(arrived, 0, bytes, size);
    backlog_drop(arrived, size);
    return (ssize_t)size;
}
