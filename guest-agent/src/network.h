/* The machine's one network card. */
#ifndef NETWORK_H
#define NETWORK_H

#include <net/if.h>
#include <stdbool.h>

struct card {
    unsigned index;
    char name[IF_NAMESIZE];
};

bool find_card(struct card *card);
bool card_has_ipv6(const struct card *card);

#endif
