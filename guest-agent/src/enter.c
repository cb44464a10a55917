/* From the agent's place to the image's: process 1's mounts and root, and the accounts of the image's files. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "agent.h"
#include "child.h"

static bool same(const struct stat *one, const struct stat *other) {
    return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

/* Makes process 1's root directory this process's own. */
void enter_image(void) {
    struct stat own, its;
    if (around.mounts.st_ino && fstatat(PROC_FD, "1/ns/mnt", &its, 0) == 0 && !same(&around.mounts, &its)) {
        int space = openat(PROC_FD, "1/ns/mnt", O_RDONLY | O_CLOEXEC);
        if (space < 0 || setns(space, CLONE_NEWNS) < 0)
            report_errno("cannot enter the mounts of process 1");
        close(space);
        around.mounts = its;
    }
    int root = openat(PROC_FD, "1/root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0 && around.confined)
        report_errno("cannot find the root directory of process 1");
    if (root >= 0) {
        if ((fstat(root, &its) < 0 || stat("/", &own) < 0 || !same(&own, &its)) && (fchdir(root) < 0 || chroot(".") < 0))
            report_errno("cannot enter the root directory of process 1");
        close(root);
    }
    if (chdir("/") < 0)
        report_errno("cannot enter the root directory");
}

static void copy(char *to, size_t size, const char *from) {
    snprintf(to, size, "%s", from);
}

/* The line of /etc/passwd with that name or number; false if there is none. A number is never a name. */
static bool find_line(struct account *account, const char *name, bool by_number, uint32_t number, char *fields[3]) {
    static struct lines lines;
    char *line;
    if (!open_lines(&lines, "/etc/passwd"))
        return false;
    while ((line = next_line(&lines)) != NULL) {
        char *user = next_field(&line);
        next_field(&line);
        fields[0] = next_field(&line);
        fields[1] = next_field(&line);
        next_field(&line);
        uint32_t own;
        if (by_number ? !parse_number(fields[0], &own) || own != number : strcmp(user, name) != 0)
            continue;
        copy(account->user, sizeof account->user, user);
        copy(account->home, sizeof account->home, next_field(&line));
        copy(account->shell, sizeof account->shell, next_field(&line));
        close_lines(&lines);
        return true;
    }
    close_lines(&lines);
    return false;
}

static void find_group(struct account *account, const char *wanted) {
    static struct lines lines;
    char *line;
    uint32_t number;
    if (parse_number(wanted, &number)) {
        account->gid = number;
        return;
    }
    if (open_lines(&lines, "/etc/group"))
        while ((line = next_line(&lines)) != NULL) {
            char *name = next_field(&line);
            next_field(&line);
            if (strcmp(name, wanted) != 0)
                continue;
            if (!parse_number(next_field(&line), &number))
                break;
            account->gid = number;
            close_lines(&lines);
            return;
        }
    report_failure(NO_GROUP, 0, "no group \"%s\" in /etc/group of the image", wanted);
}

static bool is_member(char *members, const char *user) {
    for (char *name = strtok(members, ","); name; name = strtok(NULL, ","))
        if (!strcmp(name, user))
            return true;
    return false;
}

static void find_groups(struct account *account) {
    static struct lines lines;
    char *line;
    if (!open_lines(&lines, "/etc/group"))
        return;
    while ((line = next_line(&lines)) != NULL && account->count < MAX_GROUPS - 1) {
        uint32_t number;
        next_field(&line);
        next_field(&line);
        char *text = next_field(&line);
        if (is_member(next_field(&line), account->user) && parse_number(text, &number))
            account->groups[account->count++] = number;
    }
    close_lines(&lines);
}

/* Looks USER[:GROUP] up in the image; either may be left out. As docker does: the first line counts. */
void find_account(struct account *account, const char *wanted) {
    char name[256], *fields[3] = {"", "", ""};
    const char *colon = strchr(wanted, ':');
    size_t size = colon ? (size_t)(colon - wanted) : strlen(wanted);
    memset(account, 0, sizeof *account);
    if (size >= sizeof name)
        report_failure(NO_USER, 0, "no user \"%.80s\" in /etc/passwd of the image", wanted);
    memcpy(name, size ? wanted : "0", size ? size : 1);
    name[size ? size : 1] = 0;
    uint32_t number = 0;
    bool by_number = parse_number(name, &number);
    if (find_line(account, name, by_number, number, fields)) {
        if (!parse_number(fields[0], &account->uid) || !parse_number(*fields[1] ? fields[1] : "0", &account->gid))
            report_failure(NO_USER, 0, "user \"%s\" has no numbers in /etc/passwd of the image", name);
    } else if (by_number || !strcmp(name, "root")) {
        account->uid = number;
    } else {
        report_failure(NO_USER, 0, "no user \"%s\" in /etc/passwd of the image", name);
    }
    if (colon && colon[1])
        find_group(account, colon + 1);
    else if (account->uid && *account->user)
        find_groups(account);
    struct stat root;
    if (!*account->user) {
        copy(account->user, sizeof account->user, name);
        if (!account->uid && stat("/root", &root) == 0 && S_ISDIR(root.st_mode))
            copy(account->home, sizeof account->home, "/root");
    }
    if (!*account->home)
        copy(account->home, sizeof account->home, "/");
}

/* Becomes the user for good; the groups are those of the account, and its own with own_group. The system calls
   themselves are used: the library's functions would look for threads. Root is needed only to become somebody else. */
bool take_credentials(const struct account *account, bool own_group) {
    gid_t groups[MAX_GROUPS + 1] = {account->gid};
    memcpy(groups + own_group, account->groups, account->count * sizeof *groups);
    if (syscall(SYS_setgroups, account->count + own_group, groups) < 0 && geteuid() == 0)
        return false;
    return syscall(SYS_setresgid, account->gid, account->gid, account->gid) == 0 &&
           syscall(SYS_setresuid, account->uid, account->uid, account->uid) == 0;
}

/* As in a container: /dev/stdout can be opened by whoever writes to it. /dev/null is everybody's. */
void give_streams(const struct account *account) {
    struct stat about;
    for (int fd = 0; fd < 3; fd++) {
        bool there = fstat(fd, &about) == 0 && about.st_uid != account->uid;
        bool null = S_ISCHR(about.st_mode) && about.st_rdev == makedev(1, 3);
        if (there && !null && fchown(fd, account->uid, (gid_t)-1) < 0)
            continue; /* of a file system without owners */
    }
}

/* The image's root directory, as the user that a request names. */
void become_user(const char *wanted) {
    static struct account account;
    enter_image();
    if (!*wanted)
        return;
    find_account(&account, wanted);
    if (!take_credentials(&account, true))
        report_failure(FAILED, errno, "cannot become this user");
}
