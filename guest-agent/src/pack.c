/* get: a path as a tar stream. Links are sent as the text they are; what cannot be part of it is told.
 *
 * A header comes before the data and holds their size, but the kernel's own file systems say 0 or 4096 of a file whose
 * content they make up as it is read. Those files are read into memory first. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "agent.h"
#include "child.h"
#include "mounts.h"
#include "tar.h"

enum {
    OUT_BYTES = 65536,
    MOST_DEPTH = 512,
    MOST_MADE_UP = 4000,
    MADE_UP_BYTES = 64 << 20, /* more than any table that is meant to be read (kallsyms has 10) */
    READ_SECONDS = 5, /* for one file: some wait for events */
    INODE_SLOTS = 1 << 12,
    MOST_INODES = 1 << 15, /* of more than these, the data is sent under each name */
};

/* Files with several names: the first is sent with its data, the others as links to it. */
struct inode {
    struct inode *next;
    dev_t device;
    ino_t number;
    char path[];
};

static uint8_t out[OUT_BYTES];
static size_t out_size;
static struct inode *inodes[INODE_SLOTS];
static bool made_up; /* the path lies on a file system of the kernel's own */
static const char *top;
static unsigned made_up_files, inode_count;

static void flush(void) {
    write_all(STDOUT_FILENO, out, out_size);
    out_size = 0;
}

static void put(const void *bytes, size_t size) {
    const uint8_t *at = bytes;
    while (size) {
        size_t piece = sizeof out - out_size < size ? sizeof out - out_size : size;
        memcpy(out + out_size, at, piece);
        out_size += piece;
        at += piece;
        size -= piece;
        if (out_size == sizeof out)
            flush();
    }
}

static void fill_block(uint64_t size) {
    static const uint8_t zeros[TAR_BLOCK];
    put(zeros, (TAR_BLOCK - (size_t)(size % TAR_BLOCK)) % TAR_BLOCK);
}

static void left_out(const char *name, const char *why) {
    dprintf(STDERR_FILENO, "left out: %s: %s\n", name, why);
}

static _Noreturn void unreadable(void) {
    flush();
    report_failure(FAILED, EIO, "\"%.500s\" cannot be read, or not to an end", top);
}

static void put_long(char type, const char *text) {
    static struct member announcement;
    static uint8_t block[TAR_BLOCK];
    announcement.type = type;
    announcement.size = strlen(text) + 1;
    strcpy(announcement.path, "././@LongLink");
    tar_write_header(block, &announcement);
    put(block, sizeof block);
    put(text, strlen(text) + 1);
    fill_block(announcement.size);
}

static void put_header(const struct member *member) {
    static uint8_t block[TAR_BLOCK];
    if (strlen(member->link) > TAR_NAME)
        put_long('K', member->link);
    if (strlen(member->path) > TAR_NAME)
        put_long('L', member->path);
    tar_write_header(block, member);
    put(block, sizeof block);
}

static void describe(struct member *member, const struct stat *about, const char *name) {
    memset(member, 0, sizeof *member);
    snprintf(member->path, sizeof member->path, "%s%s", name, S_ISDIR(about->st_mode) ? "/" : "");
    member->mode = about->st_mode & 07777;
    member->uid = about->st_uid;
    member->gid = about->st_gid;
    member->mtime = about->st_mtim.tv_sec;
    member->major = major(about->st_rdev);
    member->minor = minor(about->st_rdev);
}

/* True if the file has been sent under another name; that is the link then. */
static bool known_inode(const struct stat *about, const char *name, struct member *member) {
    struct inode **slot = &inodes[(about->st_ino ^ about->st_ino >> 12) % INODE_SLOTS];
    for (struct inode *inode = *slot; inode; inode = inode->next)
        if (inode->number == about->st_ino && inode->device == about->st_dev) {
            snprintf(member->link, sizeof member->link, "%s", inode->path);
            return true;
        }
    struct inode *inode = inode_count < MOST_INODES ? malloc(sizeof *inode + strlen(name) + 1) : NULL;
    if (inode) {
        inode_count++;
        *inode = (struct inode){*slot, about->st_dev, about->st_ino};
        strcpy(inode->path, name);
        *slot = inode;
    }
    return false;
}

static void wake(int number) {
    (void)number; /* so that read(2) returns */
}

/* Reads a file whose size nobody knows; false if it cannot be read, has no end, or is too large. */
static bool read_made_up(int fd, uint8_t **bytes, size_t *size) {
    size_t capacity = 65536;
    int64_t deadline = now_ms() + READ_SECONDS * 1000;
    ssize_t got = 1;
    *bytes = malloc(capacity);
    *size = 0;
    alarm(READ_SECONDS);
    while (*bytes && got > 0 && *size <= MADE_UP_BYTES && now_ms() < deadline) {
        if (*size == capacity) {
            uint8_t *grown = realloc(*bytes, capacity *= 2);
            if (!grown)
                break;
            *bytes = grown;
        }
        got = read(fd, *bytes + *size, capacity - *size);
        if (got > 0)
            *size += (size_t)got;
    }
    alarm(0);
    return *bytes && got == 0 && *size <= MADE_UP_BYTES;
}

static void put_made_up(int directory, const char *entry, struct member *member, bool alone) {
    uint8_t *bytes = NULL;
    size_t size = 0;
    int fd = openat(directory, entry, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    bool whole = fd >= 0 && read_made_up(fd, &bytes, &size);
    if (fd >= 0)
        close(fd);
    if (whole) {
        member->size = size;
        put_header(member);
        put(bytes, size);
        fill_block(size);
    } else if (alone) {
        unreadable();
    } else {
        left_out(member->path, "it cannot be read, or not to an end");
    }
    free(bytes);
}

/* A file that shrinks meanwhile makes the archive worthless; of one that grows, what was there first is sent. */
static void put_file(int directory, const char *entry, const struct stat *about, struct member *member, bool alone) {
    member->type = '0';
    if (made_up || (alone && !about->st_size)) {
        put_made_up(directory, entry, member, alone);
        return;
    }
    if (about->st_nlink > 1 && known_inode(about, member->path, member)) {
        member->type = '1';
        put_header(member);
        return;
    }
    int fd = openat(directory, entry, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        left_out(member->path, errno == ENOENT ? "it is gone" : strerror(errno));
        return;
    }
    member->size = (uint64_t)about->st_size;
    put_header(member);
    for (uint64_t rest = member->size; rest;) {
        if (out_size == sizeof out)
            flush();
        size_t room = sizeof out - out_size;
        ssize_t got = read(fd, out + out_size, rest < room ? (size_t)rest : room);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            unreadable();
        out_size += (size_t)got;
        rest -= (uint64_t)got;
    }
    close(fd);
    fill_block(member->size);
}

static void put_tree(int directory, const char *entry, const char *name, int depth);

static void put_entries(int directory, const char *entry, const char *name, int depth) {
    int fd = openat(directory, entry, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *found;
    if (!list || depth > MOST_DEPTH) {
        left_out(name, list ? "too deep" : strerror(errno));
        if (list)
            closedir(list);
        return;
    }
    while ((found = readdir(list)) != NULL) {
        char *whole;
        if (!strcmp(found->d_name, ".") || !strcmp(found->d_name, ".."))
            continue;
        if (asprintf(&whole, "%s/%s", name, found->d_name) < 0)
            report_failure(BUSY, ENOMEM, "not enough memory");
        if (strlen(whole) >= TAR_PATH - 1)
            left_out(whole, "the name is too long");
        else
            put_tree(fd, found->d_name, whole, depth + 1);
        free(whole);
    }
    closedir(list);
}

/* A file system of the kernel's own below the path is sent as the empty directory that it lies on. */
static bool is_foreign(const struct stat *about, const char *name) {
    static dev_t top_device;
    static bool first = true;
    if (first) {
        top_device = about->st_dev;
        first = false;
    }
    enum mount_kind kind = about->st_dev == top_device ? MOUNT_OF_DISK : mount_kind_of(about->st_dev);
    if (made_up)
        return about->st_dev != top_device;
    if (kind == MOUNT_OF_KERNEL) {
        const char *below = strchr(name, '/');
        char *place;
        const char *base = !strcmp(top, "/") ? "" : top;
        if (asprintf(&place, "%s%s", base, below ? below : "") >= 0) {
            left_out(place + (*place == '/'), "a file system of the kernel's own");
            free(place);
        }
    }
    return kind != MOUNT_OF_DISK;
}

static void put_tree(int directory, const char *entry, const char *name, int depth) {
    static struct member member;
    struct stat about;
    if (fstatat(directory, entry, &about, AT_SYMLINK_NOFOLLOW) < 0) {
        left_out(name, "it is gone");
        return;
    }
    describe(&member, &about, name);
    bool alone = depth == 0;
    if (made_up && ++made_up_files > MOST_MADE_UP) {
        flush();
        report_failure(FAILED, EFBIG, "\"%.300s\" holds more than %d files that the kernel makes up: copy a part of it", top,
                       MOST_MADE_UP);
    }
    if (S_ISDIR(about.st_mode)) {
        member.type = '5';
        put_header(&member);
        if (!is_foreign(&about, name))
            put_entries(directory, entry, name, depth);
    } else if (S_ISREG(about.st_mode)) {
        put_file(directory, entry, &about, &member, alone);
    } else if (S_ISLNK(about.st_mode)) {
        ssize_t size = readlinkat(directory, entry, member.link, sizeof member.link - 1);
        member.type = '2';
        if (size < 0)
            left_out(name, "it is gone");
        else
            put_header(&member);
    } else if (S_ISSOCK(about.st_mode) || made_up) {
        if (made_up)
            left_out(name, "a device, pipe or socket");
    } else {
        member.type = S_ISFIFO(about.st_mode) ? '6' : S_ISCHR(about.st_mode) ? '3' : '4';
        put_header(&member);
    }
}

/* The directory to start from, and the one name in it: "." for what ends in "/." or is the root. */
static const char *split(char *path) {
    size_t size = strlen(path);
    bool content = size >= 2 && !strcmp(path + size - 2, "/.");
    while (size > 1 && (path[size - 1] == '/' || (content && path[size - 1] == '.' && path[size - 2] == '/')))
        path[--size] = 0;
    if (content || size == 1)
        return ".";
    char *slash = strrchr(path, '/');
    *slash = 0;
    return slash + 1;
}

void run_get(struct reader *request) {
    static char path[TAR_PATH], shown[TAR_PATH + 2];
    struct stat about;
    enter_image();
    const char *wanted = take_text(request);
    if (*wanted != '/' || strlen(wanted) >= sizeof path)
        report_failure(BAD_REQUEST, 0, "not an absolute path");
    strcpy(path, wanted);
    const char *name = split(path);
    if (chdir(*path ? path : "/") < 0 || fstatat(AT_FDCWD, name, &about, AT_SYMLINK_NOFOLLOW) < 0)
        report_failure(FAILED, errno, "\"%.300s\": %s", wanted, strerror(errno));
    bool whole = !strcmp(name, ".");
    snprintf(shown, sizeof shown, "%s%s%s", path, whole ? "" : "/", whole ? "" : name);
    top = *shown ? shown : "/";
    mounts_read();
    enum mount_kind kind = mount_kind_of(about.st_dev);
    made_up = kind != MOUNT_OF_DISK && !S_ISLNK(about.st_mode);
    struct sigaction interrupt = {.sa_handler = wake};
    sigaction(SIGALRM, &interrupt, NULL);
    put_tree(AT_FDCWD, name, name, 0);
    static const uint8_t end[2 * TAR_BLOCK];
    put(end, sizeof end);
    flush();
    report_ok();
}
