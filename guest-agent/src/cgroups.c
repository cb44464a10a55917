/* A cgroup for each command, so that all it has started can be found, however it detached itself. */
#include <dirent.h>
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

enum { SWEEP_MS = 1000, MOST_DOOMED = 4096 };

static bool leftovers;
static int64_t swept;
static char kept[65]; /* an empty cgroup for the next command without an ID: making one takes long */

/* The hierarchy is mounted, opened and detached again: neither seen nor unmounted by anybody, it lives as long as this
   process. Without "favordynmods" (Linux 6.0), joining a cgroup takes as long as RCU does. */
void cgroups_open(void) {
    const char *place = "cgroup", *options[] = {"favordynmods", ""};
    unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    around.cgroups = -1;
    for (size_t i = 0; i < 2 && around.cgroups < 0; i++) {
        if (mount("cgroup2", place, "cgroup2", flags, options[i]) < 0)
            continue;
        int root = open(place, O_PATH | O_DIRECTORY | O_CLOEXEC);
        umount2(place, MNT_DETACH);
        if (root >= 0 && (mkdirat(root, "banger", 0755) == 0 || errno == EEXIST))
            around.cgroups = openat(root, "banger", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (root >= 0)
            close(root);
    }
}

static void drop_all(void) {
    int fd = openat(around.cgroups, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    leftovers = false;
    while (directory) {
        struct dirent *entry = readdir(directory);
        if (!entry)
            break;
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.' && strcmp(entry->d_name, kept) != 0 &&
            unlinkat(around.cgroups, entry->d_name, AT_REMOVEDIR) < 0 && errno == EBUSY)
            leftovers = true;
    }
    if (directory)
        closedir(directory);
    swept = now_ms();
}

static int open_cgroup(const char *run) {
    return openat(around.cgroups, run, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Makes the cgroup of an exec. False, with errno, if there is one with processes already; directory may be -1. */
bool cgroup_make(const char *run, int *directory) {
    *directory = -1;
    if (around.cgroups < 0)
        return true;
    if (leftovers && now_ms() - swept > SWEEP_MS)
        drop_all();
    if (!strcmp(run, kept))
        *kept = 0;
    if (mkdirat(around.cgroups, run, 0755) < 0 && errno == EEXIST) {
        if (unlinkat(around.cgroups, run, AT_REMOVEDIR) < 0 && errno == EBUSY)
            return false;
        mkdirat(around.cgroups, run, 0755);
    }
    *directory = open_cgroup(run);
    return true;
}

/* The cgroup that was kept, and its name; false if there is none. */
bool cgroup_reuse(char run[65], int *directory) {
    bool reused = *kept && (*directory = open_cgroup(kept)) >= 0;
    if (reused)
        snprintf(run, 65, "%s", kept);
    *kept = 0;
    return reused;
}

static bool is_empty(const char *run) {
    char path[96], events[256];
    snprintf(path, sizeof path, "%s/cgroup.events", run);
    return read_file(around.cgroups, path, events, sizeof events) > 0 && strstr(events, "populated 0");
}

/* The name is the agent's own choice, so another command may have it: keeps the cgroup if nothing is left in it. */
bool cgroup_keep(const char *run) {
    if (*kept || around.cgroups < 0 || !is_empty(run))
        return false;
    snprintf(kept, sizeof kept, "%s", run);
    return true;
}

void cgroup_drop(const char *run) {
    if (around.cgroups >= 0 && unlinkat(around.cgroups, run, AT_REMOVEDIR) < 0 && errno == EBUSY)
        leftovers = true;
}

/* Signals every process of the exec; false if there is no such cgroup. */
bool cgroup_signal(const char *run, int number) {
    char path[96], pids[16384];
    snprintf(path, sizeof path, "%s/cgroup.procs", run);
    if (around.cgroups < 0 || read_file(around.cgroups, path, pids, sizeof pids) < 0)
        return false;
    for (char *at = pids, *end; *at; at = end) {
        long pid = strtol(at, &end, 10);
        if (end == at)
            break;
        if (pid > 1)
            kill((pid_t)pid, number);
    }
    return true;
}

/* Kills all that the exec has started and that still runs; false if there is no such cgroup. */
bool cgroup_kill(const char *run) {
    char path[96];
    if (around.cgroups < 0 || !*run || strchr(run, '/') || *run == '.')
        return false;
    snprintf(path, sizeof path, "%s/cgroup.kill", run); /* Linux 5.14 */
    return write_file(around.cgroups, path, "1") || cgroup_signal(run, SIGKILL);
}

/* The parent and the session of a process; false if it is gone. */
static bool family(const char *name, pid_t *parent, pid_t *session) {
    char path[32], text[512];
    snprintf(path, sizeof path, "%.16s/stat", name);
    if (read_file(around.proc, path, text, sizeof text) < 0)
        return false;
    char *end = strrchr(text, ')');
    int group;
    return end && sscanf(end + 1, " %*c %d %d %d", parent, &group, session) == 3;
}

/* Kills the session and what descends from it. What left the session and lost its parent is not found. */
void kill_session(pid_t leader) {
    pid_t doomed[MOST_DOOMED] = {leader};
    size_t count = 1;
    for (bool found = true; found;) {
        found = false;
        int fd = around.proc < 0 ? -1 : openat(around.proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *directory = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *entry;
        while (directory && (entry = readdir(directory)) != NULL) {
            pid_t pid = atoi(entry->d_name), parent, session;
            bool known = pid <= 1 || !family(entry->d_name, &parent, &session), hit = false;
            for (size_t i = 0; i < count && !known; i++) {
                known = doomed[i] == pid;
                hit |= doomed[i] == session || doomed[i] == parent;
            }
            if (!known && hit && count < MOST_DOOMED) {
                doomed[count++] = pid;
                found = true;
            }
        }
        if (directory)
            closedir(directory);
        for (size_t i = 0; i < count; i++)
            kill(doomed[i], SIGKILL);
    }
}
