/* banger's agent in a guest. docs/agent.md of its sources says what it does.
 *
 *   banger-agent serve [-v] [-f FD]... [-p FD]... [-r] [-t TOOLBOX] [-e FILE] [-z FD]
 *       -v  vsock alone: the machine has no virtio-serial port
 *       -f  serve this descriptor, and end when its other end is closed; else virtio-serial ports and vsock
 *       -p  the same, but do nothing for it but dial
 *       -r  leave a parent behind that starts the agent again when it dies
 *       -t  live in this directory (the toolbox), away from the image
 *       -e  what the VM's configuration says of the environment: NAME=VALUE, a zero after each
 *       -z  the descriptor of a directory on the file system to freeze if the root cannot be
 *   banger-agent become CGROUP UID GID GROUPS PROGRAM ARGV0 [ARGUMENT...]
 *       become that user and execute that program; also by the name "become"
 *   banger-agent version
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "become.h"

#ifndef VERSION
#define VERSION "0"
#endif

enum { PORT_TRIES = 200, PORT_PAUSE_US = 10000, MAX_ENVIRONMENT = 1 << 20, MOST_FILES = 1048576 };

struct options {
    int count; /* of descriptors to serve */
    bool only_vsock, again;
    const char *toolbox, *environment;
};

static _Noreturn void usage(void) {
    complain("usage: banger-agent serve [-v] [-f FD]... [-p FD]... [-r] [-t TOOLBOX] [-e FILE] [-z FD] | become ... | version");
    exit(2);
}

static void read_environment(const char *path) {
    char *text = malloc(MAX_ENVIRONMENT);
    ssize_t size = text ? read_file(AT_FDCWD, path, text, MAX_ENVIRONMENT) : -1;
    if (size < 0)
        return;
    around.environment = realloc(text, (size_t)size + 1);
    if (!around.environment)
        around.environment = text;
    around.environment_size = (size_t)size;
}

/* The limits of a container for commands, and none of the OOM killer's for this process. */
static void set_limits(void) {
    struct rlimit files = {MOST_FILES, MOST_FILES}, all = {RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_NOFILE, &files);
    setrlimit(RLIMIT_CORE, &all);
    setrlimit(RLIMIT_NPROC, &all);
    write_file(around.proc, "self/oom_score_adj", OOM_SPARED);
}

/* What each new process would else have to find out or say for itself, while somebody waits for it. */
static void know_oneself(bool is_spared) {
    if (fstatat(around.proc, "self/ns/mnt", &around.mounts, 0) < 0)
        around.mounts.st_ino = 0;
    if (is_spared)
        around.oom = openat(around.proc, "self/oom_score_adj", O_WRONLY | O_CLOEXEC);
}

static void look_around(void) {
    around.proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    around.random = open("/dev/urandom", O_RDWR | O_CLOEXEC | O_NOCTTY);
    around.null = open("/dev/null", O_RDWR | O_CLOEXEC | O_NOCTTY);
    fill_random(around.boot, sizeof around.boot);
}

/* Moves to a directory that belongs to no file system of the image's. */
static void live_in(const char *toolbox) {
    if (chdir(toolbox) < 0 || chroot(".") < 0) {
        complain("cannot live in %s: %s", toolbox, strerror(errno));
        exit(1);
    }
    around.confined = true;
    around.key_dir = open("etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cgroups_open();
}

static void find_ports(bool only_vsock) {
    for (int tries = 0; !only_vsock && !ports_are_known() && tries < PORT_TRIES; tries++)
        usleep(PORT_PAUSE_US); /* a driver names its ports a moment after it was loaded, one by one */
    if (!only_vsock)
        open_ports();
    open_vsock();
}

static int serve(const struct options *options) {
    look_around();
    if (options->environment)
        read_environment(options->environment);
    if (!options->count)
        find_ports(options->only_vsock);
    if (options->toolbox)
        live_in(options->toolbox);
    if (options->toolbox)
        set_limits();
    if (options->again)
        supervise();
    know_oneself(options->toolbox != NULL);
    loop_start();
    begin_channels();
    while (!options->count || channels || streams)
        serve_turn();
    return 0;
}

static struct options parse(int argc, char **argv) {
    struct options options = {0};
    for (int letter; (letter = getopt(argc, argv, "vf:p:rt:e:z:")) != -1;) {
        if (letter == 'v')
            options.only_vsock = true;
        else if ((letter == 'f' || letter == 'p') && options.count < MAX_CHANNELS) {
            open_inherited(atoi(optarg), letter == 'p');
            options.count++;
        } else if (letter == 'r')
            options.again = true;
        else if (letter == 't')
            options.toolbox = optarg;
        else if (letter == 'e')
            options.environment = optarg;
        else if (letter == 'z') {
            around.freezable = atoi(optarg);
            fcntl(around.freezable, F_SETFD, FD_CLOEXEC);
        } else
            usage();
    }
    if (optind != argc)
        usage();
    return options;
}

int main(int argc, char **argv) {
    const char *name = argc ? strrchr(argv[0], '/') : NULL;
    if (argc && !strcmp(name ? name + 1 : argv[0], "become"))
        become_program(argv);
    if (argc < 2)
        usage();
    if (!strcmp(argv[1], "become"))
        become_program(argv + 1);
    if (!strcmp(argv[1], "version") && argc == 2) {
        write_all(STDOUT_FILENO, VERSION "\n", sizeof VERSION);
        return 0;
    }
    if (strcmp(argv[1], "serve") != 0)
        usage();
    struct options options = parse(argc - 1, argv + 1);
    argv[0][0] = '@'; /* what systemd's last killing spree spares; it reads /proc/PID/cmdline */
    return serve(&options);
}
