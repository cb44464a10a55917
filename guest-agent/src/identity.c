/* identity: what tells this machine from others, after it was copied. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "child.h"

enum what { HOSTNAME = 1, MACHINE_ID, BOOT_ID, HOST_KEY };
enum { ID_DIGITS = 32, UUID_SIZE = 36 };

/* Replaces a file in one step; a link is replaced by a file. */
static void replace(int directory, const char *path, const void *bytes, size_t size, mode_t mode) {
    char fresh[256];
    snprintf(fresh, sizeof fresh, "%s.banger-new", path);
    unlinkat(directory, fresh, 0);
    int fd = openat(directory, fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        report_failure(FAILED, errno, "cannot write %s: %s", path, strerror(errno));
    errno = ENOSPC; /* of a write that is not done in full */
    bool written = write(fd, bytes, size) == (ssize_t)size && fchmod(fd, mode) == 0 && fsync(fd) == 0;
    int error = errno;
    close(fd);
    if (!written || renameat(directory, fresh, directory, path) < 0) {
        error = written ? errno : error;
        unlinkat(directory, fresh, 0);
        report_failure(FAILED, error, "cannot write %s: %s", path, strerror(error));
    }
}

static void set_hostname(const char *name, size_t size) {
    char line[80];
    if (size == 0 || size > 64 || strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") != size)
        report_failure(BAD_REQUEST, 0, "no host name");
    if (sethostname(name, size) < 0)
        report_errno("the host name cannot be set");
    snprintf(line, sizeof line, "%s\n", name);
    replace(AT_FDCWD, "/etc/hostname", line, size + 1, 0644);
}

static void set_machine_id(const char *id, size_t size) {
    char line[ID_DIGITS + 2];
    struct stat about;
    if (size && (size != ID_DIGITS || strspn(id, "0123456789abcdef") != size))
        report_failure(BAD_REQUEST, 0, "a machine-id has 32 hexadecimal digits");
    snprintf(line, sizeof line, "%s%s", id, size ? "\n" : "");
    replace(AT_FDCWD, "/etc/machine-id", line, strlen(line), 0444);
    if (lstat("/var/lib/dbus/machine-id", &about) == 0 && S_ISREG(about.st_mode))
        replace(AT_FDCWD, "/var/lib/dbus/machine-id", line, strlen(line), 0444);
}

/* The kernel's own cannot be changed, but what can be read in its place. */
static void set_boot_id(const char *id, size_t size) {
    const char *place = "/proc/sys/kernel/random/boot_id", *file = "/run/banger/boot_id";
    char line[UUID_SIZE + 2];
    if (size != UUID_SIZE || strspn(id, "0123456789abcdef-") != size)
        report_failure(BAD_REQUEST, 0, "a boot id is a UUID");
    snprintf(line, sizeof line, "%s\n", id);
    umount2(place, MNT_DETACH); /* of the last time */
    replace(AT_FDCWD, file, line, size + 1, 0444);
    if (mount(file, place, NULL, MS_BIND, NULL) < 0 || mount(NULL, place, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) < 0)
        report_errno("the boot id cannot be set");
}

void run_identity(struct reader *request) {
    size_t size;
    enum what what = take_u16(request);
    const uint8_t *value = take_bytes(request, &size);
    enter_image();
    if (what != HOST_KEY && memchr(value, 0, size))
        report_failure(BAD_REQUEST, 0, "a value with a zero byte");
    switch (what) {
    case HOSTNAME: set_hostname((const char *)value, size); break;
    case MACHINE_ID: set_machine_id((const char *)value, size); break;
    case BOOT_ID: set_boot_id((const char *)value, size); break;
    case HOST_KEY: replace(EXTRA_FD, "host_key", value, size, 0600); break;
    default: report_failure(UNSUPPORTED, 0, "nothing of this machine's that the agent knows");
    }
    report_ok();
}
