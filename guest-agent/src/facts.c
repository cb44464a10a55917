/* Figures of the running machine, as lines of text. */
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "child.h"
#include "say.h"

enum { MOST_DISKS = 64 };

static char text[65536];

static const char *slurp(int directory, const char *path) {
    if (read_file(directory, path, text, sizeof text) < 0)
        *text = 0;
    return text;
}

/* The number that stands behind a word at the start of a line. */
static unsigned long long number_after(const char *in, const char *word) {
    size_t size = strlen(word);
    for (const char *line = in; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (!strncmp(line, word, size))
            return strtoull(line + size, NULL, 10);
    }
    return 0;
}

static void print_times(void) {
    struct timespec now;
    struct utsname system;
    clock_gettime(CLOCK_REALTIME, &now);
    say("clock %lld%09ld\n", (long long)now.tv_sec, now.tv_nsec);
    clock_gettime(CLOCK_BOOTTIME, &now);
    say("uptime %lld\n", (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    if (uname(&system) == 0) {
        say_named("kernel", system.release);
        say_named("hostname", system.nodename);
    }
    say_named("machine-id", slurp(AT_FDCWD, "/etc/machine-id"));
    say_named("boot-id", slurp(PROC_FD, "sys/kernel/random/boot_id"));
}

static void print_load(void) {
    const char *load = slurp(PROC_FD, "loadavg");
    double one = 0, five = 0, fifteen = 0;
    unsigned running = 0, all = 0;
    sscanf(load, "%lf %lf %lf %u/%u", &one, &five, &fifteen, &running, &all);
    const char *stat = slurp(PROC_FD, "stat");
    unsigned long long ticks[8] = {0}, processes = 0;
    long rate = sysconf(_SC_CLK_TCK);
    sscanf(stat, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", ticks, ticks + 1, ticks + 2, ticks + 3, ticks + 4,
           ticks + 5, ticks + 6, ticks + 7);
    unsigned cpus = 0;
    for (const char *line = strstr(stat, "\ncpu"); line; line = strstr(line + 1, "\ncpu"))
        cpus++;
    say("cpus %u\nload %.2f %.2f %.2f\ncpu", cpus, one, five, fifteen);
    for (int i = 0; i < 8; i++)
        say(" %llu", ticks[i] * 1000 / (unsigned long long)rate);
    int fd = openat(PROC_FD, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    for (struct dirent *entry; directory && (entry = readdir(directory)) != NULL;)
        processes += entry->d_name[0] >= '1' && entry->d_name[0] <= '9';
    if (directory)
        closedir(directory);
    say("\nprocesses %llu %u\n", processes, running);
}

static void print_memory(void) {
    static const char *const words[] = {"MemTotal:", "MemFree:", "MemAvailable:", "Cached:", "SwapTotal:", "SwapFree:"};
    const char *memory = slurp(PROC_FD, "meminfo");
    say("memory");
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        say(" %llu", number_after(memory, words[i]) * 1024);
    say("\n");
}

/* /proc/self/mounts: SOURCE POINT TYPE OPTIONS; names are escaped in it already. */
static void print_disks(void) {
    static struct lines lines;
    static dev_t told[MOST_DISKS];
    size_t disks = 0;
    char *line;
    lines.fd = openat(PROC_FD, "self/mounts", O_RDONLY | O_CLOEXEC);
    while (lines.fd >= 0 && disks < MOST_DISKS && (line = next_line(&lines)) != NULL) {
        char source[64], point[1024], type[32], place[1024];
        struct statvfs about;
        struct stat itself;
        if (sscanf(line, "%63s %1023s %31s", source, point, type) != 3)
            continue;
        if (strcmp(point, "/") != 0 && strncmp(source, "/dev/", 5) != 0)
            continue;
        size_t size = 0;
        for (const char *at = point; *at; size++) {
            bool escaped = *at == '\\' && strspn(at + 1, "01234567") >= 3;
            place[size] = escaped ? (char)((at[1] - '0') * 64 + (at[2] - '0') * 8 + at[3] - '0') : *at;
            at += escaped ? 4 : 1;
        }
        place[size] = 0;
        if (stat(place, &itself) < 0 || statvfs(place, &about) < 0)
            continue;
        bool known = false; /* it is mounted elsewhere as well */
        for (size_t i = 0; i < disks; i++)
            known |= told[i] == itself.st_dev;
        if (known)
            continue;
        told[disks++] = itself.st_dev;
        unsigned long long unit = about.f_frsize;
        say("disk %s %s %llu %llu %llu %llu %llu\n", point, type, about.f_blocks * unit,
                about.f_bfree * unit, about.f_bavail * unit, (unsigned long long)about.f_files,
                (unsigned long long)about.f_ffree);
    }
    close_lines(&lines);
}

static void print_interfaces(void) {
    static struct lines lines;
    char *line;
    lines.fd = openat(PROC_FD, "self/net/dev", O_RDONLY | O_CLOEXEC);
    while (lines.fd >= 0 && (line = next_line(&lines)) != NULL) {
        char name[32], path[96], mac[32] = "", mtu[16] = "", state[16] = "";
        unsigned long long received, sent;
        if (sscanf(line, " %31[^:]: %llu %*u %*u %*u %*u %*u %*u %*u %llu", name, &received, &sent) != 3)
            continue;
        snprintf(path, sizeof path, "/sys/class/net/%s/address", name);
        read_file(AT_FDCWD, path, mac, sizeof mac);
        snprintf(path, sizeof path, "/sys/class/net/%s/mtu", name);
        read_file(AT_FDCWD, path, mtu, sizeof mtu);
        snprintf(path, sizeof path, "/sys/class/net/%s/flags", name);
        read_file(AT_FDCWD, path, state, sizeof state);
        mac[strcspn(mac, "\n")] = mtu[strcspn(mtu, "\n")] = 0;
        say("net ");
        say_name(name, sizeof name);
        say(" %s %s %s %llu %llu\n", *mac ? mac : "-", *mtu ? mtu : "0",
                strtoul(state, NULL, 16) & IFF_UP ? "up" : "down", received, sent);
    }
    close_lines(&lines);
}

static unsigned prefix_of(const struct sockaddr *mask, bool six) {
    const uint8_t *bytes = six ? ((const struct sockaddr_in6 *)(const void *)mask)->sin6_addr.s6_addr
                               : (const uint8_t *)&((const struct sockaddr_in *)(const void *)mask)->sin_addr;
    unsigned bits = 0;
    for (int i = 0; i < (six ? 16 : 4); i++)
        bits += (unsigned)__builtin_popcount(bytes[i]);
    return bits;
}

void say_addresses(const char *only) {
    struct ifaddrs *all;
    if (getifaddrs(&all) < 0)
        return;
    for (const struct ifaddrs *one = all; one; one = one->ifa_next) {
        char address[INET6_ADDRSTRLEN];
        if (!one->ifa_addr || !one->ifa_netmask || (only && strcmp(one->ifa_name, only) != 0))
            continue;
        bool six = one->ifa_addr->sa_family == AF_INET6;
        if (!six && one->ifa_addr->sa_family != AF_INET)
            continue;
        const void *bytes = six ? (const void *)&((const struct sockaddr_in6 *)(const void *)one->ifa_addr)->sin6_addr
                                : (const void *)&((const struct sockaddr_in *)(const void *)one->ifa_addr)->sin_addr;
        if (!inet_ntop(six ? AF_INET6 : AF_INET, bytes, address, sizeof address))
            continue;
        say("address ");
        say_name(one->ifa_name, strlen(one->ifa_name));
        say(" %s/%u\n", address, prefix_of(one->ifa_netmask, six));
    }
    freeifaddrs(all);
}

static void print_agent(void) {
    char path[40];
    unsigned count = 0;
    for (const struct stream *stream = streams; stream; stream = stream->next)
        count++;
    snprintf(path, sizeof path, "%d/status", getppid());
    say("agent %llu %u\n", number_after(slurp(PROC_FD, path), "VmRSS:") * 1024, count);
}

void run_facts(struct reader *request) {
    (void)request;
    enter_image();
    print_times();
    print_load();
    print_memory();
    print_disks();
    print_interfaces();
    say_addresses(NULL);
    print_agent();
    say_all();
    report_ok();
}

/* The commands that run: this process has the agent's memory of them. */
void run_runs(struct reader *request) {
    (void)request;
    int64_t now = now_ms();
    for (const struct stream *stream = streams; stream; stream = stream->next)
        if (stream->op == OP_EXEC && stream->child && !stream->reaped)
            say("%s %d %lld %s\n", stream->run, stream->pid, (long long)(now - stream->started),
                 stream->channel ? "attached" : "kept");
    say_all();
    report_ok();
}
