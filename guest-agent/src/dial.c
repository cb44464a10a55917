/* Connections to sockets in the guest. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent.h"

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
};

/* The socket address, and its size; 0 for what is none. A path is the image's, as seen from /proc. */
static socklen_t read_address(union address *address, uint8_t family, uint16_t port, const char *text) {
    memset(address, 0, sizeof *address);
    if (family == DIAL_TCP4 && inet_pton(AF_INET, text, &address->v4.sin_addr) == 1) {
        address->v4.sin_family = AF_INET;
        address->v4.sin_port = htons(port);
        return port ? sizeof address->v4 : 0;
    }
    if (family == DIAL_TCP6 && inet_pton(AF_INET6, text, &address->v6.sin6_addr) == 1) {
        address->v6.sin6_family = AF_INET6;
        address->v6.sin6_port = htons(port);
        return port ? sizeof address->v6 : 0;
    }
    if (family != DIAL_UNIX || *text != '/')
        return 0;
    size_t most = sizeof address->local.sun_path;
    int size = snprintf(address->local.sun_path, most, "%s%s", around.confined ? "1/root" : "", text);
    address->local.sun_family = AF_UNIX;
    return size < (int)most ? sizeof address->local : 0;
}

static void refused(struct stream *stream, int error) {
    stream_fail(stream, error == ECONNREFUSED || error == ENOENT ? REFUSED : FAILED, error, strerror(error));
}

static void connected(struct stream *stream) {
    int both = fcntl(stream->out.fd, F_DUPFD_CLOEXEC, 0);
    stream->connecting = false;
    if (both < 0) {
        refused(stream, errno);
        return;
    }
    loop_watch(&stream->in, both);
    stream->out.readable = true;
    stream->want_started = true;
    stream_pass_on(stream);
}

void dial_begin(struct stream *stream, struct reader *request) {
    union address address;
    uint8_t family = take_u8(request);
    take_u8(request);
    uint16_t port = take_u16(request);
    socklen_t size = read_address(&address, family, port, take_text(request));
    if (!size) {
        stream_fail(stream, BAD_REQUEST, 0, "no address that can be dialled");
        return;
    }
    int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        refused(stream, errno);
        return;
    }
    int yes = 1;
    if (family != DIAL_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    bool moved = around.confined && family == DIAL_UNIX && fchdir(around.proc) == 0;
    int error = connect(fd, &address.any, size) < 0 ? errno : 0;
    if (moved && chdir("/") < 0)
        error = errno;
    if (error && error != EINPROGRESS) {
        close(fd);
        refused(stream, error);
        return;
    }
    loop_watch(&stream->out, fd);
    stream->connecting = true;
    stream->out.writable = error == 0;
}

/* Finds out how connecting went, and when both directions are done. */
void dial_progress(struct stream *stream) {
    if (stream->result)
        return;
    if (stream->connecting && stream->out.writable) {
        struct pollfd waiting = {.fd = stream->out.fd, .events = POLLOUT};
        int error = 0;
        socklen_t size = sizeof error;
        stream->out.writable = false;
        if (poll(&waiting, 1, 0) <= 0)
            return;
        getsockopt(stream->out.fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error)
            refused(stream, error);
        else
            connected(stream);
    }
    if (!stream->connecting && stream->out.fd < 0 && (stream->end_done || stream->deaf))
        stream_fail(stream, OK, 0, "");
}
