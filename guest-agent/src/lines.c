#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"

bool open_lines(struct lines *lines, const char *path) {
    struct stat about;
    lines->fd = openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    lines->start = lines->end = 0;
    lines->over = false;
    if (lines->fd >= 0 && (fstat(lines->fd, &about) < 0 || !S_ISREG(about.st_mode))) {
        close(lines->fd);
        lines->fd = -1;
    }
    return lines->fd >= 0;
}

void close_lines(struct lines *lines) {
    if (lines->fd >= 0)
        close(lines->fd);
    lines->fd = -1;
}

/* The next line without its end, however other systems write that; NULL after the last. Of one that is longer than any
   line has a reason to be, the beginning is a line and the rest another. */
char *next_line(struct lines *lines) {
    for (;;) {
        char *start = lines->bytes + lines->start;
        size_t size = lines->end - lines->start;
        char *newline = memchr(start, '\n', size);
        bool full = size == sizeof lines->bytes - 1;
        if (newline || full || (lines->over && size)) {
            char *end = newline ? newline : start + size;
            lines->start += (size_t)(end - start) + (newline != NULL);
            if (end > start && end[-1] == '\r')
                end--;
            *end = 0;
            return start;
        }
        if (lines->over)
            return NULL;
        memmove(lines->bytes, start, size);
        lines->start = 0;
        lines->end = size;
        ssize_t got = read(lines->fd, lines->bytes + size, sizeof lines->bytes - 1 - size);
        if (got > 0)
            lines->end += (size_t)got;
        else
            lines->over = true;
    }
}

/* The text up to the next colon; "" once there is none. */
char *next_field(char **rest) {
    char *field = *rest;
    char *colon = strchr(field, ':');
    if (colon) {
        *colon = 0;
        *rest = colon + 1;
    } else {
        *rest = field + strlen(field);
    }
    return field;
}

/* True for digits alone; the number is one that a user or group can have. */
bool parse_number(const char *text, uint32_t *number) {
    size_t digits = strspn(text, "0123456789");
    if (!digits || text[digits] || digits > 10)
        return false;
    unsigned long long value = strtoull(text, NULL, 10);
    *number = (uint32_t)value;
    return value <= INT32_MAX;
}
