/* whoami: what tells this machine from others, as it is now, as lines of text. */
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "child.h"
#include "network.h"
#include "say.h"

enum { RANDOM_READS = 8, KEY_BYTES = 32, MOST_KEYS = 16 };

static char text[4096];

static void say_file(const char *what, int directory, const char *path) {
    if (read_file(directory, path, text, sizeof text) < 0)
        *text = 0;
    say_named(what, text);
}

static void say_names(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    say("clock %lld%09ld\n", (long long)now.tv_sec, now.tv_nsec);
    for (int i = 0; i < RANDOM_READS; i++)
        say_file("random", PROC_FD, "sys/kernel/random/uuid");
    say_file("hostname", PROC_FD, "sys/kernel/hostname");
    say_file("hostname-file", AT_FDCWD, "/etc/hostname");
    say_file("machine-id", AT_FDCWD, "/etc/machine-id");
    say_file("boot-id", PROC_FD, "sys/kernel/random/boot_id");
    say_file("vm-id", has_disk_below() ? EXTRA_FD : AT_FDCWD, has_disk_below() ? "first-boot" : "/.banger");
}

/* The public half is at the end of the file (banger/guest/hostkey.py). */
static void say_own_key(void) {
    ssize_t size = read_file(KEYS_FD, "host_key", text, sizeof text);
    if (size >= KEY_BYTES) {
        say("host-key ");
        for (ssize_t i = size - KEY_BYTES; i < size; i++)
            say("%02x", (uint8_t)text[i]);
        say("\n");
    }
    explicit_bzero(text, sizeof text);
    if (ssh_server())
        say("ssh-server running\n");
}

/* Keys of the image's sshd: the names of the private ones, with what their public halves are said to be. */
static void say_sshd_keys(void) {
    DIR *directory = opendir("/etc/ssh");
    int told = 0;
    for (struct dirent *entry; directory && told < MOST_KEYS && (entry = readdir(directory)) != NULL;) {
        const char *name = entry->d_name, prefix[] = "ssh_host_";
        size_t size = strlen(name), begin = sizeof prefix - 1;
        if (size < begin + 4 || strncmp(name, prefix, begin) != 0 || strcmp(name + size - 4, "_key") != 0)
            continue;
        char path[300], kind[64], key[2048];
        snprintf(path, sizeof path, "%s.pub", name);
        bool known = read_file(dirfd(directory), path, text, sizeof text) > 0 && sscanf(text, "%63s %2047s", kind, key) == 2;
        say("sshd-key ");
        say_name(name, size);
        if (known) {
            say(" ");
            say_name(kind, sizeof kind);
            say(" ");
            say_name(key, sizeof key);
        }
        say("\n");
        told++;
    }
    if (directory)
        closedir(directory);
}

/* By its number and its last change, one that was written since is another. */
static void say_seed(const char *path) {
    struct stat about;
    if (lstat(path, &about) < 0)
        return;
    say("seed ");
    say_name(path, strlen(path));
    say(" %llu:%lld.%09ld\n", (unsigned long long)about.st_ino, (long long)about.st_mtim.tv_sec, about.st_mtim.tv_nsec);
}

/* The kernel's tables of routes: the default ones by this card. */
static void say_gateways(const struct card *card) {
    static struct lines lines;
    char *line, name[IF_NAMESIZE], hop[33], address[INET6_ADDRSTRLEN];
    unsigned to, by, flags;
    lines.fd = openat(PROC_FD, "self/net/route", O_RDONLY | O_CLOEXEC);
    while (lines.fd >= 0 && (line = next_line(&lines)) != NULL) {
        if (sscanf(line, "%15s %x %x %x", name, &to, &by, &flags) != 4 || to || !(flags & RTF_GATEWAY) || strcmp(name, card->name))
            continue;
        struct in_addr hop4 = {by};
        say_named("gateway", inet_ntop(AF_INET, &hop4, address, sizeof address));
    }
    close_lines(&lines);
    lines = (struct lines){.fd = openat(PROC_FD, "self/net/ipv6_route", O_RDONLY | O_CLOEXEC)};
    while (lines.fd >= 0 && (line = next_line(&lines)) != NULL) {
        struct in6_addr hop6;
        int bits;
        if (sscanf(line, "%*32[0] %2x %*s %*s %32s %*s %*s %*s %x %15s", &bits, hop, &flags, name) != 4 || bits ||
            !(flags & RTF_GATEWAY) || strcmp(name, card->name) != 0)
            continue;
        for (int i = 0; i < 16; i++)
            if (sscanf(hop + 2 * i, "%2hhx", &hop6.s6_addr[i]) != 1)
                hop6.s6_addr[i] = 0;
        say_named("gateway", inet_ntop(AF_INET6, &hop6, address, sizeof address));
    }
    close_lines(&lines);
}

static void say_network(void) {
    static struct lines lines;
    struct card card;
    char path[96], mac[32] = "", state[16] = "", *line;
    if (open_lines(&lines, "/etc/resolv.conf"))
        while ((line = next_line(&lines)) != NULL)
            if (!strncmp(line, "nameserver ", 11))
                say_named("nameserver", line + 11 + strspn(line + 11, " "));
    close_lines(&lines);
    if (!find_card(&card))
        return;
    snprintf(path, sizeof path, "/sys/class/net/%s/address", card.name);
    read_file(AT_FDCWD, path, mac, sizeof mac);
    snprintf(path, sizeof path, "/sys/class/net/%s/flags", card.name);
    read_file(AT_FDCWD, path, state, sizeof state);
    mac[strcspn(mac, "\n")] = 0;
    say("card ");
    say_name(card.name, sizeof card.name);
    say(" %s %s %s\n", mac, strtoul(state, NULL, 16) & IFF_UP ? "up" : "down", card_has_ipv6(&card) ? "ipv6" : "-");
    say_addresses(card.name);
    say_gateways(&card);
}

void run_whoami(struct reader *request) {
    (void)request;
    enter_image();
    say_names();
    say_own_key();
    say_sshd_keys();
    each_seed(say_seed);
    if (access("/run/systemd/system", F_OK) == 0)
        say("systemd running\n");
    say_network();
    say_all();
    report_ok();
}
