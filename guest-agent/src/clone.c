#include "spawn.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What clone3(2) takes, up to the cgroup (Linux 5.7); each field is of 64 bits. */
struct clone3_arguments {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

/* fork(2), into a cgroup if one is given. Only functions that know no thread may be called in the child. */
pid_t spawn_into(int cgroup) {
    struct clone3_arguments arguments = {.flags = 0x200000000, .exit_signal = SIGCHLD, .cgroup = (uint64_t)cgroup};
    if (cgroup >= 0) {
        long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
        if (pid >= 0)
            return (pid_t)pid;
    }
    pid_t pid = fork();
    if (pid == 0 && cgroup >= 0)
        write_file(cgroup, "cgroup.procs", "0");
    return pid;
}
