/* identity: what tells this machine from others, after it was copied. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "child.h"

enum { ID_DIGITS = 32, UUID_SIZE = 36, MOST_HOSTS = 65536, MOST_LINE = 256, STOP_TRIES = 1000, STOP_PAUSE_US = 2000 };

#define HOST_LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

/* Replaces a file in one step; a link is replaced by a file. */
void replace_file(int directory, const char *path, const void *bytes, size_t size, mode_t mode) {
    char fresh[4096];
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
    static char before[MOST_HOSTS], after[MOST_HOSTS + MOST_LINE];
    char line[80], old[80] = "";
    struct stat about;
    if (size == 0 || size > 64 || strspn(name, HOST_LETTERS) != size)
        report_failure(BAD_REQUEST, 0, "no host name");
    if (gethostname(old, sizeof old - 1) < 0 || sethostname(name, size) < 0)
        report_errno("the host name cannot be set");
    snprintf(line, sizeof line, "%s\n", name);
    replace_file(AT_FDCWD, "/etc/hostname", line, size + 1, 0644);
    ssize_t read = read_file(AT_FDCWD, "/etc/hosts", before, sizeof before);
    if (read < 0 || read == sizeof before - 1 || lstat("/etc/hosts", &about) < 0 || !S_ISREG(about.st_mode))
        return;
    size_t written = rename_hosts(before, (size_t)read, after, sizeof after, old, name);
    if (written && (written != (size_t)read || memcmp(before, after, written) != 0))
        replace_file(AT_FDCWD, "/etc/hosts", after, written, about.st_mode & 07777);
}

static void set_machine_id(const char *id, size_t size) {
    char line[ID_DIGITS + 2];
    struct stat about;
    if (size && (size != ID_DIGITS || strspn(id, "0123456789abcdef") != size))
        report_failure(BAD_REQUEST, 0, "a machine-id has 32 hexadecimal digits");
    snprintf(line, sizeof line, "%s%s", id, size ? "\n" : "");
    umount2("/etc/machine-id", MNT_DETACH); /* one that is not on the disk: systemd-machine-id-commit(1) */
    replace_file(AT_FDCWD, "/etc/machine-id", line, strlen(line), 0444);
    if (lstat("/var/lib/dbus/machine-id", &about) == 0 && S_ISREG(about.st_mode))
        replace_file(AT_FDCWD, "/var/lib/dbus/machine-id", line, strlen(line), 0444);
}

/* The kernel's own cannot be changed, but what can be read in its place. */
static void set_boot_id(const char *id, size_t size) {
    const char *place = "/proc/sys/kernel/random/boot_id", *file = "/run/banger/boot_id";
    char line[UUID_SIZE + 2];
    if (size != UUID_SIZE || strspn(id, "0123456789abcdef-") != size)
        report_failure(BAD_REQUEST, 0, "a boot id is a UUID");
    snprintf(line, sizeof line, "%s\n", id);
    umount2(place, MNT_DETACH); /* of the last time */
    replace_file(AT_FDCWD, file, line, size + 1, 0444);
    if (mount(file, place, NULL, MS_BIND, NULL) < 0 || mount(NULL, place, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) < 0)
        report_errno("the boot id cannot be set");
}

/* The process of banger's own ssh server that takes connections; 0 if none runs. */
pid_t ssh_server(void) {
    char path[40], text[32];
    if (read_file(KEYS_FD, "../tmp/dropbear.pid", text, sizeof text) < 1)
        return 0;
    pid_t pid = (pid_t)strtol(text, NULL, 10);
    snprintf(path, sizeof path, "%d/cmdline", pid); /* of one that has ended and waits to be collected: nothing */
    if (pid <= 1 || read_file(PROC_FD, path, text, sizeof text) < 1)
        return 0;
    snprintf(path, sizeof path, "%d/comm", pid);
    return read_file(PROC_FD, path, text, sizeof text) > 0 && !strcmp(text, "dropbear\n") ? pid : 0;
}

/* A server that runs has read the old key: who connects next has another one started. */
static void set_host_key(const uint8_t *key, size_t size) {
    replace_file(KEYS_FD, "host_key", key, size, 0600);
    pid_t pid = ssh_server();
    for (int tries = 0; pid && ssh_server() == pid; tries++) {
        if (tries == 0 || tries == STOP_TRIES)
            kill(pid, tries ? SIGKILL : SIGTERM);
        if (tries > 2 * STOP_TRIES)
            report_failure(FAILED, EBUSY, "the ssh server does not end");
        usleep(STOP_PAUSE_US);
    }
}

/* The file system below the root's overlay is at EXTRA_FD. */
bool has_disk_below(void) {
    return fcntl(EXTRA_FD, F_GETFD) >= 0;
}

/* Whose first boot has been done: where the guest's init looks for it. What that vouches for may not be written yet. */
static void set_vm_id(const char *id, size_t size) {
    char line[MOST_LINE];
    if (size == 0 || size > 64 || strspn(id, HOST_LETTERS) != size)
        report_failure(BAD_REQUEST, 0, "no id of a VM");
    snprintf(line, sizeof line, "%s\n", id);
    if (access("/run/banger/noting", F_OK) == 0)
        sync();
    if (has_disk_below())
        replace_file(EXTRA_FD, "first-boot", line, size + 1, 0644);
    else
        replace_file(AT_FDCWD, "/.banger", line, size + 1, 0644);
}

static void remove_seed(const char *path) {
    if (unlink(path) < 0 && errno != ENOENT)
        report_failure(FAILED, errno, "cannot remove %s: %s", path, strerror(errno));
}

void run_identity(struct reader *request) {
    size_t size;
    uint16_t what = take_u16(request);
    const uint8_t *value = take_bytes(request, &size);
    const char *text = (const char *)value;
    enter_image();
    if (what != HOST_KEY && memchr(value, 0, size))
        report_failure(BAD_REQUEST, 0, "a value with a zero byte");
    switch (what) {
    case HOSTNAME: set_hostname(text, size); break;
    case MACHINE_ID: set_machine_id(text, size); break;
    case BOOT_ID: set_boot_id(text, size); break;
    case HOST_KEY: set_host_key(value, size); break;
    case VM_ID: set_vm_id(text, size); break;
    case SEEDS: each_seed(remove_seed); break;
    default: report_failure(UNSUPPORTED, 0, "nothing of this machine's that the agent knows");
    }
    report_ok();
}
