/* Where channels come from: virtio-serial ports by their names, vsock connections of the host, descriptors. */
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

static struct watch listener = {.fd = -1};

/* A descriptor that this process was started with. */
void open_inherited(int fd) {
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    channel_open(fd, true);
}

static bool is_ours(const char *name) {
    size_t size = sizeof PORT_NAME - 1;
    return !strncmp(name, PORT_NAME, size) && (name[size] == 0 || name[size] == '.');
}

/* True if there was one. */
bool open_ports(void) {
    DIR *ports = opendir(PORTS);
    struct dirent *entry;
    bool any = false;
    while (ports && (entry = readdir(ports)) != NULL) {
        char path[320], name[128];
        snprintf(path, sizeof path, PORTS "/%s/name", entry->d_name);
        if (entry->d_name[0] == '.' || read_file(AT_FDCWD, path, name, sizeof name) <= 0)
            continue;
        name[strcspn(name, "\n")] = 0;
        if (!is_ours(name))
            continue;
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd >= 0)
            any |= channel_open(fd, false) != NULL;
        else
            complain("cannot open %s: %s", path, strerror(errno));
    }
    if (ports)
        closedir(ports);
    return any;
}

void open_vsock(uint32_t port) {
    struct vsock_address address = {.family = AF_VSOCK, .port = port, .cid = (uint32_t)ANY_CID};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    if (bind(fd, (struct sockaddr *)(void *)&address, sizeof address) < 0 || listen(fd, MAX_CHANNELS) < 0) {
        complain("cannot listen on vsock: %s", strerror(errno));
        close(fd);
        return;
    }
    loop_watch(&listener, fd);
}

/* Only the host is served: a process of the guest's may reach the port as well. */
void accept_vsock(void) {
    while (listener.fd >= 0 && listener.readable) {
        struct vsock_address peer = {0};
        socklen_t size = sizeof peer;
        int fd = accept4(listener.fd, (struct sockaddr *)(void *)&peer, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            listener.readable = errno == EINTR || errno == ECONNABORTED;
            continue;
        }
        if (peer.cid == HOST_CID)
            channel_open(fd, true);
        else
            close(fd);
    }
}
