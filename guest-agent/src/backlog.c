#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "agent.h"

enum { SMALLEST = 4096 };

static bool grow(struct backlog *backlog, size_t needed) {
    size_t capacity = backlog->capacity ? backlog->capacity : SMALLEST;
    while (capacity < needed)
        capacity *= 2;
    uint8_t *bytes = malloc(capacity);
    if (!bytes)
        return false;
    size_t first = backlog->capacity - backlog->start;
    if (first > backlog->size)
        first = backlog->size;
    if (backlog->size) {
        memcpy(bytes, backlog->bytes + backlog->start, first);
        memcpy(bytes + first, backlog->bytes, backlog->size - first);
    }
    free(backlog->bytes);
    *backlog = (struct backlog){.bytes = bytes, .size = backlog->size, .capacity = capacity};
    return true;
}

/* False if there is no memory; then nothing was added. */
bool backlog_add(struct backlog *backlog, const uint8_t *bytes, size_t size) {
    if (!size)
        return true;
    if (backlog->size + size > backlog->capacity && !grow(backlog, backlog->size + size))
        return false;
    size_t end = (backlog->start + backlog->size) % backlog->capacity;
    size_t first = backlog->capacity - end;
    if (first > size)
        first = size;
    memcpy(backlog->bytes + end, bytes, first);
    memcpy(backlog->bytes, bytes + first, size - first);
    backlog->size += size;
    return true;
}

/* Writes what can be written at once; how much, or -1 with errno. */
ssize_t backlog_write(struct backlog *backlog, int fd) {
    size_t first = backlog->capacity - backlog->start;
    if (first > backlog->size)
        first = backlog->size;
    struct iovec parts[2] = {{backlog->bytes + backlog->start, first}, {backlog->bytes, backlog->size - first}};
    ssize_t written = writev(fd, parts, backlog->size > first ? 2 : 1);
    if (written <= 0)
        return written;
    backlog->size -= (size_t)written;
    backlog->start = (backlog->start + (size_t)written) % backlog->capacity;
    if (!backlog->size)
        backlog_free(backlog);
    return written;
}

/* Copies bytes without taking them; false if there are not as many. */
bool backlog_look(const struct backlog *backlog, size_t offset, uint8_t *bytes, size_t size) {
    if (backlog->size < offset + size)
        return false;
    if (!size)
        return true;
    size_t start = (backlog->start + offset) % backlog->capacity;
    size_t first = backlog->capacity - start;
    if (first > size)
        first = size;
    memcpy(bytes, backlog->bytes + start, first);
    memcpy(bytes + first, backlog->bytes, size - first);
    return true;
}

/* Takes as many bytes away; there are as many. */
void backlog_drop(struct backlog *backlog, size_t size) {
    backlog->size -= size;
    if (!backlog->size)
        backlog_free(backlog);
    else
        backlog->start = (backlog->start + size) % backlog->capacity;
}

void backlog_free(struct backlog *backlog) {
    free(backlog->bytes);
    *backlog = (struct backlog){0};
}
