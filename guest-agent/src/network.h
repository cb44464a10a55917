/* The machine's one network card. */
#ifndef NETWORK_H
#define NETWORK_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct card {
    unsigned index;
    char name[IF_NAMESIZE];
};

/* An address, and how many bits of it are its network's. */
struct address {
    uint8_t bytes[16];
    uint8_t family, size, bits;
};

bool find_card(struct card *card);
bool card_has_ipv6(const struct card *card);
void end_connections(const struct address *own);

#endif
