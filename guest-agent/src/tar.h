/* Headers of tar archives: ustar (POSIX.1-1988), with GNU's long names and large numbers, and pax records when reading. */
#ifndef TAR_H
#define TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TAR_BLOCK = 512, TAR_NAME = 100, TAR_PATH = 4096 };

struct member {
    char type; /* '0' file, '1' hard link, '2' symbolic link, '3', '4' devices, '5' directory, '6' pipe */
    char path[TAR_PATH], link[TAR_PATH];
    uint32_t mode, uid, gid, major, minor;
    uint64_t size;
    int64_t mtime;
    uint32_t mtime_ns;
};

/* What has been said in advance about the next member. */
struct announced {
    char path[TAR_PATH], link[TAR_PATH];
    bool has_path, has_link, has_size, has_mtime, has_uid, has_gid;
    uint64_t size;
    int64_t mtime;
    uint32_t mtime_ns, uid, gid;
};

bool tar_is_zero(const uint8_t *block);
/* False for what is no header. Types other than a member's are left for the caller. */
bool tar_read_header(const uint8_t *block, struct member *member);
/* False for records that make no sense. */
bool tar_read_pax(char *records, size_t size, struct announced *announced);
/* Completes the member by what has been said in advance. */
void tar_apply(const struct announced *announced, struct member *member);
/* Names that are too long are cut: a long name of GNU's comes before. */
void tar_write_header(uint8_t *block, const struct member *member);

#endif
