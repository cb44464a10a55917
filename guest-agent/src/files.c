/* Requests for single files and directories, each in a process of its own. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "child.h"

enum { PATH_BYTES = 4096, COPY_BYTES = 65536, MOST_DEPTH = 4096 };

static uint8_t kind_of(mode_t mode) {
    switch (mode & S_IFMT) {
    case S_IFREG: return 1;
    case S_IFDIR: return 2;
    case S_IFLNK: return 3;
    case S_IFCHR: return 4;
    case S_IFBLK: return 5;
    case S_IFIFO: return 6;
    default: return 7;
    }
}

static const char *absolute(const char *path) {
    if (*path != '/')
        report_failure(BAD_REQUEST, 0, "not an absolute path");
    if (strlen(path) >= PATH_BYTES)
        report_failure(FAILED, ENAMETOOLONG, "%s", strerror(ENAMETOOLONG));
    return path;
}

/* Of a time that is further away than that can say, the furthest. */
static int64_t nanoseconds(const struct timespec *time) {
    int64_t all;
    if (__builtin_mul_overflow((int64_t)time->tv_sec, INT64_C(1000000000), &all) ||
        __builtin_add_overflow(all, (int64_t)time->tv_nsec, &all))
        return time->tv_sec < 0 ? INT64_MIN : INT64_MAX;
    return all;
}

/* Appends the entry; about is NULL for nothing. */
static void put_entry(struct result *to, const struct stat *about, const char *name, const char *target) {
    static const struct stat none;
    const struct stat *its = about ? about : &none;
    put_u32(to, about ? kind_of(about->st_mode) : 0); /* a byte, and three zeros */
    put_u32(to, its->st_mode & 07777);
    put_u32(to, its->st_uid);
    put_u32(to, its->st_gid);
    put_u32(to, (uint32_t)its->st_nlink);
    put_u32(to, 0);
    put_u64(to, (uint64_t)its->st_size);
    put_u64(to, its->st_ino);
    put_u64(to, (uint64_t)nanoseconds(&its->st_mtim));
    put_string(to, name, strlen(name));
    put_string(to, target, strlen(target));
}

static void read_link(int directory, const char *name, char target[PATH_BYTES]) {
    ssize_t size = readlinkat(directory, name, target, PATH_BYTES - 1);
    target[size < 0 ? 0 : size] = 0;
}

/* Where a link leads, or would: its text, from the directory it lies in. */
static void resolve(const char *path, const char *target, char real[PATH_BYTES]) {
    if (realpath(path, real))
        return;
    int directory = *target == '/' ? 0 : (int)(strrchr(path, '/') - path);
    int size = snprintf(real, PATH_BYTES, "%.*s%s%s", directory, path, *target == '/' ? "" : "/", target);
    if (size >= PATH_BYTES)
        report_failure(FAILED, ENAMETOOLONG, "where the link leads: %s", strerror(ENAMETOOLONG));
}

static bool is_missing(int error) {
    return error == ENOENT || error == ENOTDIR || error == ELOOP;
}

void run_stat(struct reader *request) {
    become_user(take_text(request));
    const char *path = absolute(take_text(request));
    static char target[PATH_BYTES], real[PATH_BYTES];
    static struct result result;
    struct stat own, its;
    bool there = lstat(path, &own) == 0;
    if (!there && !is_missing(errno))
        report_errno("cannot look at the path");
    bool leads = stat(path, &its) == 0;
    begin_result(&result, OK, 0, "");
    put_u8(&result, leads ? kind_of(its.st_mode) : 0);
    if (there && S_ISLNK(own.st_mode)) {
        read_link(AT_FDCWD, path, target);
        resolve(path, target, real);
    }
    put_entry(&result, there ? &own : NULL, path, target);
    put_string(&result, real, strlen(real));
    report(&result);
}

void run_list(struct reader *request) {
    become_user(take_text(request));
    DIR *directory = opendir(absolute(take_text(request)));
    static char target[PATH_BYTES];
    static struct result entry;
    struct dirent *found;
    if (!directory)
        report_errno("cannot read the directory");
    while (errno = 0, (found = readdir(directory)) != NULL) {
        struct stat about;
        if (!strcmp(found->d_name, ".") || !strcmp(found->d_name, ".."))
            continue;
        if (fstatat(dirfd(directory), found->d_name, &about, AT_SYMLINK_NOFOLLOW) < 0) {
            if (errno == ENOENT)
                continue; /* removed meanwhile */
            about = (struct stat){.st_mode = DTTOIF(found->d_type)}; /* who may read the names may not look at files */
        }
        *target = 0;
        if (S_ISLNK(about.st_mode))
            read_link(dirfd(directory), found->d_name, target);
        entry.size = 0;
        put_entry(&entry, &about, found->d_name, target);
        write_all(STDOUT_FILENO, entry.bytes, entry.size);
    }
    if (errno)
        report_errno("cannot read the directory");
    report_ok();
}

void run_mkdir(struct reader *request) {
    become_user(take_text(request));
    const char *path = absolute(take_text(request));
    mode_t mode = take_u32(request) & 07777;
    struct stat about;
    char part[PATH_BYTES];
    if (request_flags & MKDIR_PARENTS)
        for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
            snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
            if (mkdir(part, 0755) < 0 && errno != EEXIST)
                report_errno("cannot make the directory");
        }
    if (mkdir(path, mode) < 0) {
        int error = errno;
        if (request_flags & MKDIR_PARENTS && error == EEXIST && stat(path, &about) == 0 && S_ISDIR(about.st_mode))
            report_ok();
        report_failure(FAILED, error, "cannot make the directory: %s", strerror(error));
    }
    if (chmod(path, mode) < 0)
        report_errno("cannot make the directory");
    report_ok();
}

/* Removes what is in the directory, which is closed; links are never followed. False, with errno, if something stays. */
static bool empty(int fd, dev_t device, int depth) {
    DIR *directory = fdopendir(fd);
    struct dirent *entry;
    int error = 0;
    if (!directory || depth > MOST_DEPTH) {
        error = directory ? ENAMETOOLONG : errno;
        if (directory)
            closedir(directory);
        else
            close(fd);
        errno = error;
        return false;
    }
    while ((entry = readdir(directory)) != NULL) {
        struct stat about;
        int here = dirfd(directory);
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (unlinkat(here, entry->d_name, 0) == 0)
            continue;
        int refused = errno;
        int below = openat(here, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (below < 0 && (errno == ENOTDIR || errno == ELOOP))
            errno = refused; /* no directory: what counts is why it cannot be unlinked */
        bool own = below >= 0 && fstat(below, &about) == 0 && about.st_dev == device;
        if (below >= 0 && !own) {
            close(below);
            errno = EBUSY; /* something is mounted there */
        }
        if (!own || !empty(below, device, depth + 1) || unlinkat(here, entry->d_name, AT_REMOVEDIR) < 0)
            error = error ? error : errno;
    }
    closedir(directory);
    errno = error;
    return !error;
}

void run_remove(struct reader *request) {
    become_user(take_text(request));
    const char *path = absolute(take_text(request));
    struct stat about;
    if (unlink(path) == 0)
        report_ok();
    int error = errno;
    if (lstat(path, &about) < 0 || !S_ISDIR(about.st_mode))
        report_failure(FAILED, error, "cannot remove it: %s", strerror(error));
    if (request_flags & REMOVE_TREE) {
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 || !empty(fd, about.st_dev, 0))
            report_errno("cannot remove all of it");
    }
    if (rmdir(path) < 0)
        report_errno("cannot remove it");
    report_ok();
}

void run_rename(struct reader *request) {
    become_user(take_text(request));
    const char *from = absolute(take_text(request)), *to = absolute(take_text(request));
    if (rename(from, to) < 0)
        report_errno("cannot rename it");
    report_ok();
}

static int open_file(const char *path, int flags, mode_t mode, struct stat *about) {
    int fd = open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, mode);
    if (fd < 0 || fstat(fd, about) < 0)
        report_errno("cannot open the file");
    if (S_ISDIR(about->st_mode))
        report_failure(FAILED, EISDIR, "cannot open the file: %s", strerror(EISDIR));
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    return fd;
}

/* Moves at most so many bytes from one to the other; how many that were, or -1 with errno. */
static int64_t copy(int from, int to, uint64_t most) {
    static char buffer[COPY_BYTES];
    uint64_t done = 0;
    while (done < most) {
        size_t size = most - done < sizeof buffer ? (size_t)(most - done) : sizeof buffer;
        ssize_t got = read(from, buffer, size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        for (ssize_t put = 0; put < got;) {
            ssize_t written = write(to, buffer + put, (size_t)(got - put));
            if (written < 0 && errno != EINTR)
                return -1;
            put += written > 0 ? written : 0;
        }
        done += (uint64_t)got;
    }
    return (int64_t)done;
}

static void seek(int fd, uint64_t offset) {
    if (offset > INT64_MAX || (offset && lseek(fd, (off_t)offset, SEEK_SET) < 0))
        report_failure(FAILED, offset > INT64_MAX ? EINVAL : errno, "the file has no such place");
}

void run_read(struct reader *request) {
    become_user(take_text(request));
    const char *path = absolute(take_text(request));
    uint64_t offset = take_u64(request), length = take_u64(request);
    struct stat about;
    int fd = open_file(path, O_RDONLY, 0, &about);
    seek(fd, offset);
    if (copy(fd, STDOUT_FILENO, length) < 0)
        report_errno("cannot read the file");
    struct result result;
    begin_result(&result, OK, 0, "");
    put_u64(&result, (uint64_t)about.st_size);
    report(&result);
}

void run_write(struct reader *request) {
    become_user(take_text(request));
    const char *path = absolute(take_text(request));
    uint64_t offset = take_u64(request);
    mode_t mode = take_u32(request) & 07777;
    static const int flags[][2] = {
        {WRITE_CREATE, O_CREAT}, {WRITE_TRUNCATE, O_TRUNC}, {WRITE_EXCLUSIVE, O_CREAT | O_EXCL}, {WRITE_APPEND, O_APPEND}};
    int how = O_WRONLY;
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (request_flags & flags[i][0])
            how |= flags[i][1];
    struct stat about;
    int fd = open_file(path, how, mode, &about);
    if (!(request_flags & WRITE_APPEND))
        seek(fd, offset);
    int64_t written = copy(STDIN_FILENO, fd, UINT64_MAX);
    if (written < 0 || (request_flags & WRITE_DURABLE && fsync(fd) < 0) || close(fd) < 0)
        report_errno("cannot write the file");
    struct result result;
    begin_result(&result, OK, 0, "");
    put_u64(&result, (uint64_t)written);
    report(&result);
}
