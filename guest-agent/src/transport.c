/* Where channels come from: virtio-serial ports by their names, vsock connections of the host, descriptors. They are
   opened once, before there is a process to serve them: who takes its place has them from the same parent. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"

#define PORTS "/sys/class/virtio-ports"
#define PORT_NAME "org.banger.agent"
#define DIALS_NAME PORT_NAME ".ports"

/* linux/vm_sockets.h */
#ifndef AF_VSOCK
#define AF_VSOCK 40
#endif
enum { ANY_CID = -1, HOST_CID = 2 };
struct vsock_address {
    sa_family_t family;
    uint16_t reserved;
    uint32_t port, cid;
    uint8_t flags, zero[3];
};

static struct {
    int fd;
    bool ends, dials;
} opened[MAX_CHANNELS];
static unsigned opened_count;

enum { LISTENERS = 2, RETRY_MS = 200 };
static const uint32_t vsock_ports[LISTENERS] = {VSOCK_PORT, VSOCK_DIALS_PORT};
static int listening[LISTENERS] = {-1, -1};
static struct watch listeners[LISTENERS] = {{.fd = -1}, {.fd = -1}};
static int64_t retry; /* ms: when to try again, as one that waits is told of but once; 0: nobody waits */

static bool keep(int fd, bool ends, bool dials) {
    if (opened_count == MAX_CHANNELS) {
        close(fd);
        return false;
    }
    opened[opened_count].fd = fd;
    opened[opened_count].ends = ends;
    opened[opened_count].dials = dials;
    opened_count++;
    return true;
}

/* A descriptor that this process was started with. */
void open_inherited(int fd, bool dials) {
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    keep(fd, true, dials);
}

static bool is_ours(const char *name) {
    size_t size = sizeof PORT_NAME - 1;
    return !strncmp(name, PORT_NAME, size) && (name[size] == 0 || name[size] == '.');
}

/* The name of a port, or "" as long as its driver has not heard of it. */
static void read_name(const char *port, char *name, size_t size) {
    char path[320];
    snprintf(path, sizeof path, PORTS "/%s/name", port);
    ssize_t got = read_file(AT_FDCWD, path, name, size);
    name[got > 0 ? strcspn(name, "\n") : 0] = 0;
}

/* True once there is one of ours, and every port that there is has its name. */
bool ports_are_known(void) {
    DIR *ports = opendir(PORTS);
    struct dirent *entry;
    bool any = false, all = true;
    while (ports && (entry = readdir(ports)) != NULL) {
        char name[128];
        if (entry->d_name[0] == '.')
            continue;
        read_name(entry->d_name, name, sizeof name);
        any |= is_ours(name);
        all &= *name != 0;
    }
    if (ports)
        closedir(ports);
    return any && all;
}

void open_ports(void) {
    DIR *ports = opendir(PORTS);
    struct dirent *entry;
    while (ports && (entry = readdir(ports)) != NULL) {
        char path[320], name[128];
        read_name(entry->d_name, name, sizeof name);
        if (entry->d_name[0] == '.' || !is_ours(name))
            continue;
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd >= 0)
            keep(fd, false, !strcmp(name, DIALS_NAME));
        else
            complain("cannot open %s: %s", path, strerror(errno));
    }
    if (ports)
        closedir(ports);
}

static int listen_at(uint32_t port) {
    struct vsock_address address = {.family = AF_VSOCK, .port = port, .cid = (uint32_t)ANY_CID};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (bind(fd, (struct sockaddr *)(void *)&address, sizeof address) < 0 || listen(fd, MAX_CHANNELS) < 0) {
        complain("cannot listen on vsock: %s", strerror(errno));
        close(fd);
        return -1;
    }
    return fd;
}

void open_vsock(void) {
    for (int i = 0; i < LISTENERS; i++)
        listening[i] = listen_at(vsock_ports[i]);
}

/* In the process that serves them. */
void begin_channels(void) {
    for (unsigned i = 0; i < opened_count; i++)
        channel_open(opened[i].fd, opened[i].ends, opened[i].dials);
    for (int i = 0; i < LISTENERS; i++)
        if (listening[i] >= 0)
            loop_watch(&listeners[i], listening[i]);
}

/* Only the host is served: a process of the guest's may reach the port as well. */
static void accept_all(struct watch *listener, bool dials) {
    while (listener->fd >= 0 && listener->readable) {
        struct vsock_address peer = {0};
        socklen_t size = sizeof peer;
        int fd = accept4(listener->fd, (struct sockaddr *)(void *)&peer, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            listener->readable = errno == EINTR || errno == ECONNABORTED;
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
                retry = now_ms() + RETRY_MS;
            continue;
        }
        if (peer.cid == HOST_CID)
            channel_open(fd, true, dials);
        else
            close(fd);
    }
}

int64_t accept_deadline(void) {
    return retry;
}

void accept_vsock(void) {
    bool again = retry && now_ms() >= retry;
    if (again)
        retry = 0;
    for (int i = 0; i < LISTENERS; i++) {
        listeners[i].readable |= again;
        accept_all(&listeners[i], vsock_ports[i] == VSOCK_DIALS_PORT);
    }
}
