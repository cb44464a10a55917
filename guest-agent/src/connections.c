/* TCP connections of an address that the machine has lost: nothing would ever come on them, and who waits there would
 * wait for ever. sock_diag(7) ends them as if they had been reset. Kernels without it have them until they time out. */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "netlink.h"
#include "network.h"

enum { SOCK_DIAG_BY_FAMILY = 20, SOCK_DESTROY, MOST_CONNECTIONS = 1024, ROUNDS = 16, MODULE_COMPRESSED = 4 };

/* linux/inet_diag.h: a socket, a request, and the head of an answer; ports and addresses in the network's order. */
struct endpoints {
    uint16_t port, other_port;
    uint8_t own[16], other[16];
    uint32_t card, cookie[2];
};

struct request {
    uint8_t family, protocol, parts, zero;
    uint32_t states;
    struct endpoints endpoints;
};

struct answer {
    uint8_t family, state, timer, tries;
    struct endpoints endpoints;
};

struct doomed {
    const struct address *own;
    struct endpoints endpoints[MOST_CONNECTIONS];
    size_t count;
};

/* An IPv4 address may be that of an IPv6 socket as well. */
static bool is_own(const struct answer *answer, const struct address *own) {
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    const uint8_t *at = answer->endpoints.own;
    if (answer->family == own->family)
        return !memcmp(at, own->bytes, own->size);
    return own->size == 4 && !memcmp(at, mapped, sizeof mapped) && !memcmp(at + sizeof mapped, own->bytes, 4);
}

static void take_connection(uint16_t type, const uint8_t *body, size_t size, void *argument) {
    struct doomed *doomed = argument;
    struct answer answer;
    if (type != SOCK_DIAG_BY_FAMILY || size < sizeof answer || doomed->count == MOST_CONNECTIONS)
        return;
    memcpy(&answer, body, sizeof answer);
    if (is_own(&answer, doomed->own))
        doomed->endpoints[doomed->count++] = answer.endpoints;
}

/* From the disk of the kernel's modules, for an image that cannot load any. Compressed ones the kernel can read itself. */
static void load(const char *name) {
    static const char *const ends[] = {"", ".xz", ".zst", ".gz"};
    char path[96];
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        snprintf(path, sizeof path, "/run/banger/modules/kernel/net/ipv4/%s.ko%s", name, ends[i]);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        syscall(SYS_finit_module, fd, "", i ? MODULE_COMPRESSED : 0);
        close(fd);
    }
}

static bool find(int fd, uint8_t family, struct doomed *doomed) {
    struct message message;
    struct request request = {.family = family, .protocol = IPPROTO_TCP, .states = ~(1u << TCP_LISTEN | 1u << TCP_TIME_WAIT)};
    doomed->count = 0;
    message_begin(&message, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &request, sizeof request);
    return netlink_each(fd, &message, take_connection, doomed);
}

void end_connections(const struct address *own) {
    static struct doomed doomed;
    static bool tried;
    uint8_t families[] = {AF_INET, AF_INET6};
    int fd = netlink_open(NETLINK_SOCK_DIAG);
    doomed.own = own;
    for (size_t i = own->size == 4 ? 0 : 1; fd >= 0 && i < 2; i++) {
        if (!find(fd, families[i], &doomed) && !tried) {
            load("inet_diag");
            load("tcp_diag");
            tried = true;
            find(fd, families[i], &doomed);
        }
        for (int rounds = 0; doomed.count && rounds < ROUNDS; rounds++) {
            for (size_t k = 0; k < doomed.count; k++) {
                struct message message;
                struct request request = {.family = families[i], .protocol = IPPROTO_TCP, .endpoints = doomed.endpoints[k]};
                message_begin(&message, SOCK_DESTROY, 0, &request, sizeof request);
                netlink_do(fd, &message);
            }
            find(fd, families[i], &doomed);
        }
    }
    if (fd >= 0)
        close(fd);
}
