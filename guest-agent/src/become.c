/* become CGROUP UID GID GROUPS PROGRAM ARGV0 [ARGUMENT...]
 *
 * Joins CGROUP (made if need be; empty for none) as the leader of a session, gives the standard streams to UID, becomes
 * UID, GID and GROUPS (numbers, with commas between them), and executes PROGRAM. Nothing else is tried when that fails:
 * shells and execvp(3) would run a file of an unknown format as a shell script.
 *
 * Exit status: 125 the credentials cannot be had, 127 there is no such program, 126 it cannot be executed. */
#include "become.h"

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

enum { JOIN_TRIES = 64, FEWEST_ARGUMENTS = 7 };

extern char **environ;

static _Noreturn void refuse(void) {
    static const char words[] = "banger: cannot become this user\n";
    write_all(STDERR_FILENO, words, sizeof words - 1);
    _exit(125);
}

/* Every sibling that has become empty is removed, then this one is made and joined: another command's sweep may come
   between. */
static void join(const char *path) {
    char parent[4096], procs[4096];
    const char *slash = strrchr(path, '/');
    if (!slash || strlen(path) > sizeof procs - 32)
        return;
    snprintf(parent, sizeof parent, "%.*s", (int)(slash - path), path);
    snprintf(procs, sizeof procs, "%s/cgroup.procs", path);
    DIR *siblings = opendir(parent);
    for (struct dirent *entry; siblings && (entry = readdir(siblings)) != NULL;)
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
            unlinkat(dirfd(siblings), entry->d_name, AT_REMOVEDIR);
    if (!siblings)
        return;
    closedir(siblings);
    for (int tries = 0; tries < JOIN_TRIES; tries++) {
        mkdir(path, 0755);
        if (write_file(AT_FDCWD, procs, "0"))
            return;
    }
}

static uint32_t number(const char *text) {
    uint32_t value;
    if (!parse_number(text, &value))
        refuse();
    return value;
}

static void read_groups(struct account *account, char *text) {
    for (char *rest = text; *rest && account->count < MAX_GROUPS;) {
        char *one = rest;
        rest += strcspn(rest, ",");
        if (*rest)
            *rest++ = 0;
        account->groups[account->count++] = number(one);
    }
}

void become_program(char **argv) {
    static struct account account;
    int count = 0;
    while (argv[count])
        count++;
    if (count < FEWEST_ARGUMENTS)
        refuse();
    setsid();
    if (*argv[1])
        join(argv[1]);
    account.uid = number(argv[2]);
    account.gid = number(argv[3]);
    give_streams(&account);
    read_groups(&account, argv[4]);
    if (!take_credentials(&account, false))
        refuse();
    execve(argv[5], argv + 6, environ);
    int error = errno;
    dprintf(STDERR_FILENO, "banger: cannot execute \"%s\": %s\n", argv[5], why_not_executed(error));
    _exit(error == ENOENT ? 127 : 126);
}
