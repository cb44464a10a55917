#include "mounts.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "child.h"

enum { MOST_MOUNTS = 1024 };

static struct {
    dev_t device;
    enum mount_kind kind;
} known[MOST_MOUNTS];
static size_t count;

static enum mount_kind kind_of_type(const char *type) {
    static const char *const kernels[] = {
        "proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "configfs",
        "pstore", "bpf", "binfmt_misc", "efivarfs", "selinuxfs", "fusectl", "mqueue", "nsfs", "rpc_pipefs"};
    if (!strcmp(type, "rootfs"))
        return MOUNT_OF_TOOLBOX;
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
        if (!strcmp(type, kernels[i]))
            return MOUNT_OF_KERNEL;
    return MOUNT_OF_DISK;
}

/* /proc/self/mountinfo: ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAG…] - TYPE SOURCE OPTIONS (proc(5)). */
void mounts_read(void) {
    static struct lines lines;
    char *line;
    lines.fd = openat(PROC_FD, "self/mountinfo", O_RDONLY | O_CLOEXEC);
    while (lines.fd >= 0 && count < MOST_MOUNTS && (line = next_line(&lines)) != NULL) {
        unsigned major, minor;
        char type[32];
        char *tail = strstr(line, " - ");
        if (!tail || sscanf(line, "%*d %*d %u:%u", &major, &minor) != 2 || sscanf(tail, " - %31s", type) != 1)
            continue;
        known[count].device = makedev(major, minor);
        known[count++].kind = kind_of_type(type);
    }
    close_lines(&lines);
}

enum mount_kind mount_kind_of(dev_t device) {
    for (size_t i = 0; i < count; i++)
        if (known[i].device == device)
            return known[i].kind;
    return MOUNT_OF_DISK;
}
