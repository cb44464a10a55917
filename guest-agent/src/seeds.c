/* Files by which a copy of a machine would repeat what the other copies do, after its next boot: random seeds, and what a
 * DHCP client is known by. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "child.h"

/* A name, or the end of names, which begins with a dot. */
static const struct {
    const char *directory, *name;
} kinds[] = {
    {"/var/lib/systemd", "random-seed"},     {"/var/lib/urandom", "random-seed"},
    {"/var/lib/misc", "random-seed"},        {"/var/lib", "random-seed"},
    {"/etc", "random-seed"},                 {"/var/lib/seedrng", "seed.credit"},
    {"/var/lib/seedrng", "seed.no-credit"},  {"/etc", "dhcpcd.duid"},
    {"/etc", "dhcpcd.secret"},               {"/var/lib/dhcpcd", "duid"},
    {"/var/lib/dhcpcd", "secret"},           {"/var/lib/dhcpcd", ".lease"},
    {"/var/lib/dhcp", ".leases"},            {"/var/lib/dhclient", ".leases"},
    {"/var/lib/NetworkManager", ".lease"},   {"/var/lib/NetworkManager", "secret_key"},
};

static bool ends_with(const char *name, const char *end) {
    size_t size = strlen(name), length = strlen(end);
    return size > length && !strcmp(name + size - length, end);
}

/* Hands the path of every one that there is to take. */
void each_seed(void (*take)(const char *path)) {
    char path[512];
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (*kinds[i].name != '.') {
            snprintf(path, sizeof path, "%s/%s", kinds[i].directory, kinds[i].name);
            if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
                take(path);
            continue;
        }
        DIR *directory = opendir(kinds[i].directory);
        for (struct dirent *entry; directory && (entry = readdir(directory)) != NULL;)
            if (ends_with(entry->d_name, kinds[i].name)) {
                snprintf(path, sizeof path, "%s/%s", kinds[i].directory, entry->d_name);
                take(path);
            }
        if (directory)
            closedir(directory);
    }
}
