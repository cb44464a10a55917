/* put: a tar stream, unpacked below a directory. The result comes when everything is on the disk. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "child.h"
#include "tar.h"

enum { BUFFER_BYTES = 1 << 18, MAX_RECORDS = 1 << 20, NOTE_TRIES = 1000 };

/* A directory gets its owner, mode and times when it is left: these are the ones that the last member lies in, the
   innermost first. */
struct late {
    struct late *next;
    uint32_t mode, uid, gid;
    int64_t mtime;
    uint32_t mtime_ns;
    char path[];
};

static uint8_t buffer[BUFFER_BYTES];
static size_t buffer_start, buffer_end;
static struct late *late;

/* At least so many bytes (no more than the buffer has) from the stream, where they lie; NULL at its end. */
static uint8_t *need(size_t size) {
    if (buffer_end - buffer_start < size && buffer_start) {
        memmove(buffer, buffer + buffer_start, buffer_end - buffer_start);
        buffer_end -= buffer_start;
        buffer_start = 0;
    }
    while (buffer_end - buffer_start < size) {
        ssize_t got = read(STDIN_FILENO, buffer + buffer_end, sizeof buffer - buffer_end);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return NULL;
        buffer_end += (size_t)got;
    }
    return buffer + buffer_start;
}

static _Noreturn void no_archive(void) {
    report_failure(FAILED, EINVAL, "no tar archive, or one that is cut off or damaged");
}

static _Noreturn void cannot(const char *what, const char *path) {
    int error = errno;
    report_failure(FAILED, error, "cannot make %s \"%.300s\": %s", what, path, strerror(error));
}

/* Calls to with the member's data, piece by piece, and skips what fills its last block. */
static void each_piece(uint64_t size, void (*to)(const uint8_t *bytes, size_t size, void *), void *argument) {
    uint64_t rest = size;
    while (rest) {
        if (!need(1))
            no_archive();
        size_t piece = buffer_end - buffer_start;
        if (piece > rest)
            piece = (size_t)rest;
        to(buffer + buffer_start, piece, argument);
        buffer_start += piece;
        rest -= piece;
    }
    size_t padding = (TAR_BLOCK - (size_t)(size % TAR_BLOCK)) % TAR_BLOCK;
    if (!need(padding))
        no_archive();
    buffer_start += padding;
}

static void skip(const uint8_t *bytes, size_t size, void *argument) {
    (void)bytes, (void)size, (void)argument;
}

struct text {
    char *bytes;
    size_t size;
};

static void collect(const uint8_t *bytes, size_t size, void *argument) {
    struct text *text = argument;
    memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
}

/* The data of a member that says something about the next one. */
static struct text take_text_of(uint64_t size) {
    struct text text = {NULL, 0};
    if (size > MAX_RECORDS || !(text.bytes = calloc(1, (size_t)size + 1)))
        no_archive();
    each_piece(size, collect, &text);
    return text;
}

static void write_piece(const uint8_t *bytes, size_t size, void *argument) {
    int fd = *(int *)argument;
    while (size) {
        ssize_t written = write(fd, bytes, size);
        if (written < 0 && errno != EINTR)
            report_failure(FAILED, errno, "cannot write: %s", strerror(errno));
        if (written > 0) {
            bytes += written;
            size -= (size_t)written;
        }
    }
}

/* The member's place below the directory: no slash at its ends, nothing empty, never upwards. */
static const char *place_of(char *path) {
    char *to = path;
    for (char *part = path; *part;) {
        size_t size = strcspn(part, "/");
        if (size == 2 && !memcmp(part, "..", 2))
            report_failure(FAILED, EINVAL, "the archive leads out of the directory: \"%.300s\"", path);
        bool last = !part[size];
        if (size && !(size == 1 && *part == '.')) {
            if (to != path)
                *to++ = '/';
            memmove(to, part, size);
            to += size;
        }
        if (last)
            break;
        part += size + 1;
    }
    *to = 0;
    return *path ? path : ".";
}

static void make_parents(const char *path) {
    char part[TAR_PATH];
    struct stat about;
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        if (stat(part, &about) < 0 && mkdir(part, 0755) < 0 && errno != EEXIST)
            cannot("the directory", part);
    }
}

static void finish_directory(const struct late *entry) {
    struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {entry->mtime, entry->mtime_ns}};
    if (chown(entry->path, entry->uid, entry->gid) < 0 && geteuid() == 0)
        cannot("the directory", entry->path);
    chmod(entry->path, entry->mode);
    utimensat(AT_FDCWD, entry->path, times, 0);
}

/* Completes the directories that the path is not in; NULL is in none. */
static void leave_directories(const char *path) {
    while (late) {
        struct late *entry = late;
        size_t size = strlen(entry->path);
        bool top = !strcmp(entry->path, ".");
        if (path && (top || (!strncmp(entry->path, path, size) && path[size] == '/')))
            return;
        finish_directory(entry);
        late = entry->next;
        free(entry);
    }
}

static void make_directory(const struct member *member, const char *path) {
    struct stat about;
    if (mkdir(path, 0700) < 0 && !(errno == EEXIST && stat(path, &about) == 0 && S_ISDIR(about.st_mode))) {
        if (errno != EEXIST || unlink(path) < 0 || mkdir(path, 0700) < 0)
            cannot("the directory", path);
    }
    struct late *entry = malloc(sizeof *entry + strlen(path) + 1);
    if (!entry)
        report_failure(BUSY, ENOMEM, "not enough memory");
    *entry = (struct late){late, member->mode, member->uid, member->gid, member->mtime, member->mtime_ns};
    strcpy(entry->path, path);
    late = entry;
}

static void make_file(const struct member *member, const char *path) {
    struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {member->mtime, member->mtime_ns}};
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    int fd = open(path, flags, 0600);
    if (fd < 0 && errno == EEXIST && unlink(path) == 0)
        fd = open(path, flags, 0600);
    if (fd < 0)
        cannot("the file", path);
    each_piece(member->size, write_piece, &fd);
    if (fchown(fd, member->uid, member->gid) < 0 && geteuid() == 0)
        cannot("the file", path);
    fchmod(fd, member->mode);
    futimens(fd, times);
    if (close(fd) < 0)
        cannot("the file", path);
}

/* What has no data: links, devices, pipes. */
static int make_node(const struct member *member, const char *path, char *link_place) {
    dev_t device = makedev(member->major, member->minor);
    switch (member->type) {
    case '1': return linkat(AT_FDCWD, link_place, AT_FDCWD, path, 0);
    case '2': return symlink(member->link, path);
    case '3': return mknod(path, S_IFCHR | 0600, device);
    case '4': return mknod(path, S_IFBLK | 0600, device);
    default: return mkfifo(path, 0600);
    }
}

static void make_other(struct member *member, const char *path) {
    struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {member->mtime, member->mtime_ns}};
    char *link_place = member->link;
    if (member->type == '1')
        place_of(member->link);
    if (make_node(member, path, link_place) < 0 &&
        (errno != EEXIST || unlink(path) < 0 || make_node(member, path, link_place) < 0))
        cannot("the entry", path);
    if (member->type == '1')
        return;
    if (lchown(path, member->uid, member->gid) < 0 && geteuid() == 0)
        cannot("the entry", path);
    if (member->type != '2')
        chmod(path, member->mode);
    utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
}

static void make_member(struct member *member) {
    const char *path = place_of(member->path);
    leave_directories(path);
    make_parents(path);
    if (member->type == '5')
        make_directory(member, path);
    else if (member->type == '0')
        make_file(member, path);
    else if (member->type >= '1' && member->type <= '6')
        make_other(member, path);
    else
        report_failure(FAILED, EINVAL, "the archive has a member of an unknown type: \"%.300s\"", path);
    if (member->type != '0')
        each_piece(member->type == '1' || member->type == '2' ? 0 : member->size, skip, NULL);
}

/* A machine that is killed before the note of its first boot is on the disk does that work again, over what came. */
static void await_note(void) {
    struct timespec pause = {.tv_nsec = 20000000};
    for (int tries = 0; tries < NOTE_TRIES && access("/run/banger/noting", F_OK) == 0; tries++)
        nanosleep(&pause, NULL);
}

/* One header and what belongs to it; false at the archive's end. */
static bool take_member(struct announced *announced) {
    static struct member member;
    uint8_t *block = need(TAR_BLOCK);
    if (!block)
        no_archive();
    if (tar_is_zero(block))
        return false;
    if (!tar_read_header(block, &member))
        no_archive();
    buffer_start += TAR_BLOCK;
    if (member.type == 'L' || member.type == 'K' || member.type == 'x' || member.type == 'g') {
        struct text text = take_text_of(member.size);
        bool fits = true;
        if (member.type == 'x')
            fits = tar_read_pax(text.bytes, text.size, announced);
        else if (member.type == 'L' || member.type == 'K') {
            fits = strlen(text.bytes) < TAR_PATH;
            if (fits)
                strcpy(member.type == 'L' ? announced->path : announced->link, text.bytes);
            *(member.type == 'L' ? &announced->has_path : &announced->has_link) = true;
        }
        free(text.bytes);
        if (!fits)
            no_archive();
        return true;
    }
    tar_apply(announced, &member);
    memset(announced, 0, sizeof *announced);
    make_member(&member);
    return true;
}

void run_put(struct reader *request) {
    static struct announced announced;
    enter_image();
    const char *directory = take_text(request);
    if (*directory != '/')
        report_failure(BAD_REQUEST, 0, "not an absolute path");
    if (chdir(directory) < 0)
        report_failure(NO_DIRECTORY, errno, "cannot enter the directory \"%.300s\"", directory);
    while (take_member(&announced))
        ;
    leave_directories(NULL);
    for (buffer_start = buffer_end; need(1); buffer_start = buffer_end)
        ;
    int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || syncfs(fd) < 0)
        report_errno("what came cannot be written to the disk");
    sync(); /* other file systems may be mounted below */
    await_note();
    report_ok();
}
