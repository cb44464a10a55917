#include "tar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AT_MODE = 100, AT_UID = 108, AT_GID = 116, AT_SIZE = 124, AT_MTIME = 136, AT_SUM = 148, AT_TYPE = 156,
       AT_LINK = 157, AT_MAGIC = 257, AT_MAJOR = 329, AT_MINOR = 337, AT_PREFIX = 345 };

bool tar_is_zero(const uint8_t *block) {
    for (size_t i = 0; i < TAR_BLOCK; i++)
        if (block[i])
            return false;
    return true;
}

static unsigned sum_of(const uint8_t *block) {
    unsigned sum = 8 * ' ';
    for (size_t i = 0; i < TAR_BLOCK; i++)
        if (i < AT_SUM || i >= AT_TYPE)
            sum += block[i];
    return sum;
}

/* Octal digits, or GNU's binary form, which the first bit tells. */
static bool read_number(const uint8_t *field, size_t size, int64_t *number) {
    uint64_t value = 0;
    size_t i = 0;
    if (field[0] & 0x80) {
        bool negative = field[0] == 0xff;
        value = negative ? UINT64_MAX : field[0] & 0x7f;
        for (i = 1; i < size; i++) {
            if (value >> 55 != (negative ? 0x1ff : 0))
                return false;
            value = value << 8 | field[i];
        }
        *number = (int64_t)value;
        return true;
    }
    while (i < size && field[i] == ' ')
        i++;
    for (; i < size && field[i] >= '0' && field[i] <= '7'; i++) {
        if (value >> 59)
            return false;
        value = value << 3 | (uint64_t)(field[i] - '0');
    }
    *number = (int64_t)value;
    return i == size || field[i] == ' ' || field[i] == 0;
}

bool tar_read_header(const uint8_t *block, struct member *member) {
    int64_t sum, mode, uid, gid, size, mtime, major = 0, minor = 0;
    if (!read_number(block + AT_SUM, 8, &sum) || sum != (int64_t)sum_of(block))
        return false;
    if (!read_number(block + AT_MODE, 8, &mode) || !read_number(block + AT_UID, 8, &uid) ||
        !read_number(block + AT_GID, 8, &gid) || !read_number(block + AT_SIZE, 12, &size) ||
        !read_number(block + AT_MTIME, 12, &mtime) || size < 0 || uid < 0 || gid < 0)
        return false;
    memset(member, 0, sizeof *member);
    member->type = (char)block[AT_TYPE];
    if (member->type == 0 || member->type == '7')
        member->type = '0';
    if ((member->type == '3' || member->type == '4') &&
        (!read_number(block + AT_MAJOR, 8, &major) || !read_number(block + AT_MINOR, 8, &minor)))
        return false;
    bool prefixed = !memcmp(block + AT_MAGIC, "ustar\0", 6) && block[AT_PREFIX];
    snprintf(member->path, sizeof member->path, "%.155s%s%.100s", prefixed ? (const char *)block + AT_PREFIX : "",
             prefixed ? "/" : "", (const char *)block);
    snprintf(member->link, sizeof member->link, "%.100s", (const char *)block + AT_LINK);
    member->mode = (uint32_t)mode & 07777;
    member->uid = (uint32_t)uid;
    member->gid = (uint32_t)gid;
    member->size = (uint64_t)size;
    member->mtime = mtime;
    member->major = (uint32_t)major;
    member->minor = (uint32_t)minor;
    return true;
}

static bool read_time(const char *text, struct announced *announced) {
    char *end;
    announced->mtime = strtoll(text, &end, 10);
    announced->mtime_ns = 0;
    if (*end == '.') {
        uint32_t scale = 100000000;
        for (end++; *end >= '0' && *end <= '9'; end++, scale /= 10)
            announced->mtime_ns += (uint32_t)(*end - '0') * scale;
        if (*text == '-' && announced->mtime_ns) {
            announced->mtime -= 1;
            announced->mtime_ns = 1000000000 - announced->mtime_ns;
        }
    }
    announced->has_mtime = true;
    return *text && !*end;
}

static bool read_whole(const char *text, uint64_t most, uint64_t *number) {
    char *end;
    *number = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && *number <= most;
}

static bool read_record(const char *key, const char *value, size_t size, struct announced *announced) {
    uint64_t number = 0;
    bool path = !strcmp(key, "path");
    if (path || !strcmp(key, "linkpath")) {
        char *to = path ? announced->path : announced->link;
        *(path ? &announced->has_path : &announced->has_link) = true;
        if (size >= TAR_PATH || strlen(value) != size)
            return false;
        memcpy(to, value, size + 1);
        return true;
    }
    if (!strcmp(key, "mtime"))
        return read_time(value, announced);
    if (!strcmp(key, "size")) {
        announced->has_size = read_whole(value, INT64_MAX, &announced->size);
        return announced->has_size;
    }
    if (!strcmp(key, "uid")) {
        announced->has_uid = read_whole(value, UINT32_MAX, &number);
        announced->uid = (uint32_t)number;
        return announced->has_uid;
    }
    if (!strcmp(key, "gid")) {
        announced->has_gid = read_whole(value, UINT32_MAX, &number);
        announced->gid = (uint32_t)number;
        return announced->has_gid;
    }
    return strncmp(key, "GNU.sparse.", 11) != 0; /* it would need the holes put back */
}

/* "LENGTH KEY=VALUE\n" each; the text has a zero behind it. */
bool tar_read_pax(char *records, size_t size, struct announced *announced) {
    while (size) {
        char *space;
        unsigned long length = strtoul(records, &space, 10);
        if (*records < '0' || *records > '9' || *space != ' ' || length > size ||
            length < (size_t)(space - records) + 3 || records[length - 1] != '\n')
            return false;
        records[length - 1] = 0;
        char *key = space + 1, *equals = strchr(key, '=');
        if (!equals)
            return false;
        *equals = 0;
        if (!read_record(key, equals + 1, (size_t)(records + length - 1 - (equals + 1)), announced))
            return false;
        records += length;
        size -= length;
    }
    return true;
}

void tar_apply(const struct announced *announced, struct member *member) {
    if (announced->has_path)
        memcpy(member->path, announced->path, sizeof member->path);
    if (announced->has_link)
        memcpy(member->link, announced->link, sizeof member->link);
    if (announced->has_size)
        member->size = announced->size;
    if (announced->has_uid)
        member->uid = announced->uid;
    if (announced->has_gid)
        member->gid = announced->gid;
    if (announced->has_mtime) {
        member->mtime = announced->mtime;
        member->mtime_ns = announced->mtime_ns;
    }
    size_t length = strlen(member->path);
    if (member->type == '0' && length && member->path[length - 1] == '/')
        member->type = '5'; /* of archives older than the type; known once the whole name is */
}

/* Octal if it fits, else GNU's binary form. */
static void write_number(uint8_t *field, size_t size, int64_t number) {
    if (number >= 0 && number < (int64_t)1 << 3 * (size - 1)) {
        char text[24];
        snprintf(text, sizeof text, "%0*llo", (int)size - 1, (unsigned long long)number);
        memcpy(field, text, size);
        return;
    }
    for (size_t i = size; i-- > 1; number >>= 8)
        field[i] = (uint8_t)number;
    field[0] = number < 0 ? 0xff : 0x80;
}

void tar_write_header(uint8_t *block, const struct member *member) {
    memset(block, 0, TAR_BLOCK);
    memcpy(block, member->path, strnlen(member->path, TAR_NAME));
    memcpy(block + AT_LINK, member->link, strnlen(member->link, TAR_NAME));
    write_number(block + AT_MODE, 8, member->mode);
    write_number(block + AT_UID, 8, member->uid);
    write_number(block + AT_GID, 8, member->gid);
    write_number(block + AT_SIZE, 12, (int64_t)member->size);
    write_number(block + AT_MTIME, 12, member->mtime);
    block[AT_TYPE] = (uint8_t)member->type;
    memcpy(block + AT_MAGIC, "ustar  ", 8);
    if (member->type == '3' || member->type == '4') {
        write_number(block + AT_MAJOR, 8, member->major);
        write_number(block + AT_MINOR, 8, member->minor);
    }
    char sum[9];
    snprintf(sum, sizeof sum, "%06o", sum_of(block));
    memcpy(block + AT_SUM, sum, 7);
    block[AT_SUM + 7] = ' ';
}
