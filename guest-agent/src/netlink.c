#include "netlink.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANSWER_BYTES = 32768, NLMSG_ERROR = 2, NLMSG_DONE = 3, ALIGNMENT = 4 };

static size_t aligned(size_t size) {
    return (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
}

int netlink_open(int protocol) {
    return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
}

void message_begin(struct message *message, uint16_t type, uint16_t flags, const void *head, size_t size) {
    memset(message, 0, sizeof *message);
    message->head = (struct head){(uint32_t)(sizeof message->head + aligned(size)), type, NLM_F_REQUEST | flags, 0, 0};
    memcpy(message->body, head, size);
}

void message_add(struct message *message, uint16_t type, const void *value, size_t size) {
    struct part part = {(uint16_t)(sizeof part + size), type};
    size_t at = message->head.size - sizeof message->head;
    if (at + aligned(part.size) > sizeof message->body)
        return;
    memcpy(message->body + at, &part, sizeof part);
    memcpy(message->body + at + sizeof part, value, size);
    message->head.size += (uint32_t)aligned(part.size);
}

/* The part at *at, which moves on to the next; false at the end. */
bool next_part(const uint8_t **at, const uint8_t *end, struct part *part, const uint8_t **value) {
    if ((size_t)(end - *at) < sizeof *part)
        return false;
    memcpy(part, *at, sizeof *part);
    if (part->size < sizeof *part || part->size > (size_t)(end - *at))
        return false;
    *value = *at + sizeof *part;
    size_t step = aligned(part->size), left = (size_t)(end - *at);
    *at += step < left ? step : left;
    return true;
}

/* Hands every message of the answer to take, if there is one. False, with errno, if the kernel refuses. */
bool netlink_each(int fd, struct message *message, take_message *take, void *argument) {
    static uint8_t answer[ANSWER_BYTES];
    struct head head;
    if (send(fd, message, message->head.size, 0) < 0)
        return false;
    for (;;) {
        ssize_t got = recv(fd, answer, sizeof answer, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        for (size_t at = 0; (size_t)got - at >= sizeof head;) {
            memcpy(&head, answer + at, sizeof head);
            size_t left = (size_t)got - at, size = head.size - sizeof head;
            const uint8_t *body = answer + at + sizeof head;
            if (head.size < sizeof head || head.size > left)
                break;
            if (head.type == NLMSG_DONE)
                return true;
            if (head.type == NLMSG_ERROR && size >= sizeof(int32_t)) {
                int32_t error;
                memcpy(&error, body, sizeof error);
                errno = -error;
                return error == 0;
            }
            if (take)
                take(head.type, body, size, argument);
            at += aligned(head.size) < left ? aligned(head.size) : left;
        }
    }
}

bool netlink_do(int fd, struct message *message) {
    message->head.flags |= NLM_F_ACK;
    return netlink_each(fd, message, NULL, NULL);
}
