/* Requests to the kernel's network, one at a time (rtnetlink(7)); what linux/netlink.h, rtnetlink.h, if_addr.h and
 * if_link.h say of them, which are not among the C library's headers. */
#ifndef NETLINK_H
#define NETLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NETLINK_ROUTE = 0, NETLINK_SOCK_DIAG = 4 };
enum { NLM_F_REQUEST = 1, NLM_F_ACK = 4, NLM_F_REPLACE = 0x100, NLM_F_DUMP = 0x300, NLM_F_CREATE = 0x400 };
enum { RTM_NEWLINK = 16, RTM_NEWADDR = 20, RTM_DELADDR, RTM_GETADDR, RTM_NEWROUTE = 24 };
enum { IFLA_ADDRESS = 1, IFLA_MTU = 4 };
enum { IFA_ADDRESS = 1, IFA_LOCAL, IFA_BROADCAST = 4, IFA_FLAGS = 8, IFA_F_NODAD = 2 };
enum { RTA_OIF = 4, RTA_GATEWAY };
enum { RT_TABLE_MAIN = 254, RTPROT_BOOT = 3, RTN_UNICAST = 1 };

struct link_head {
    uint8_t family, zero;
    uint16_t type;
    int32_t index;
    uint32_t flags, change;
};

struct address_head {
    uint8_t family, bits, flags, scope;
    uint32_t index;
};

struct route_head {
    uint8_t family, to_bits, from_bits, tos, table, protocol, scope, type;
    uint32_t flags;
};

struct part {
    uint16_t size, type; /* the size with these four bytes */
};

struct head {
    uint32_t size;
    uint16_t type, flags;
    uint32_t number, port;
};

/* A message that grows; what does not fit is left out, and the kernel refuses the rest. */
struct message {
    struct head head;
    uint8_t body[240];
};

typedef void take_message(uint16_t type, const uint8_t *body, size_t size, void *argument);

int netlink_open(int protocol);
void message_begin(struct message *message, uint16_t type, uint16_t flags, const void *head, size_t size);
void message_add(struct message *message, uint16_t type, const void *value, size_t size);
bool next_part(const uint8_t **at, const uint8_t *end, struct part *part, const uint8_t **value);
bool netlink_do(int fd, struct message *message);
bool netlink_each(int fd, struct message *message, take_message *take, void *argument);

#endif
