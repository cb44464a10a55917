/* network: the addresses of the machine's one network card, after the machine was copied. */
#include "network.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "child.h"
#include "netlink.h"

enum { MAC_BYTES = 6, MOST_DROPPED = 256, RESOLVER_BYTES = 512 };

/* The card of the lowest index: a link that has a device below it, and is an Ethernet (ARPHRD_ETHER). False: none. */
bool find_card(struct card *card) {
    static const char place[] = "/sys/class/net";
    DIR *links = opendir(place);
    card->index = 0;
    for (struct dirent *entry; links && (entry = readdir(links)) != NULL;) {
        char path[320], text[16];
        struct stat about;
        snprintf(path, sizeof path, "%s/%s/device", place, entry->d_name);
        if (entry->d_name[0] == '.' || strlen(entry->d_name) >= sizeof card->name || stat(path, &about) < 0)
            continue;
        snprintf(path, sizeof path, "%s/%s/type", place, entry->d_name);
        if (read_file(AT_FDCWD, path, text, sizeof text) < 0 || strcmp(text, "1\n") != 0)
            continue;
        unsigned index = if_nametoindex(entry->d_name);
        if (!index || (card->index && index > card->index))
            continue;
        card->index = index;
        memcpy(card->name, entry->d_name, strlen(entry->d_name) + 1);
    }
    if (links)
        closedir(links);
    return card->index != 0;
}

/* False if the card's kernel has no IPv6, or the card is not to have any. */
bool card_has_ipv6(const struct card *card) {
    char path[96], text[8];
    snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", card->name);
    return read_file(AT_FDCWD, path, text, sizeof text) > 0 && *text == '0';
}

/* ADDRESS or ADDRESS/BITS. */
static bool parse_address(const char *text, struct address *to) {
    char address[INET6_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    size_t size = slash ? (size_t)(slash - text) : strlen(text);
    uint32_t bits = 0;
    if (size >= sizeof address || (slash && !parse_number(slash + 1, &bits)))
        return false;
    memcpy(address, text, size);
    address[size] = 0;
    to->family = strchr(address, ':') ? AF_INET6 : AF_INET;
    to->size = to->family == AF_INET ? 4 : 16;
    to->bits = (uint8_t)bits;
    return bits <= to->size * 8u && inet_pton(to->family, address, to->bytes) == 1;
}

static bool parse_mac(const char *text, uint8_t mac[MAC_BYTES]) {
    unsigned parts[MAC_BYTES];
    int end = 0;
    int found = sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", parts, parts + 1, parts + 2, parts + 3, parts + 4, parts + 5, &end);
    for (int i = 0; i < MAC_BYTES; i++)
        mac[i] = (uint8_t)parts[i];
    return found == MAC_BYTES && !text[end] && !(mac[0] & 1);
}

static _Noreturn void cannot(const char *doing, const struct card *card) {
    int error = errno;
    report_failure(FAILED, error, "cannot %s %s: %s", doing, card->name, strerror(error));
}

static bool set_up(int fd, const struct card *card, bool up) {
    struct message message;
    struct link_head head = {.index = (int32_t)card->index, .flags = up ? IFF_UP : 0, .change = IFF_UP};
    message_begin(&message, RTM_NEWLINK, 0, &head, sizeof head);
    return netlink_do(fd, &message);
}

static bool set_link(int fd, const struct card *card, const uint8_t *mac, uint16_t mtu) {
    struct message message;
    struct link_head head = {.index = (int32_t)card->index};
    uint32_t wanted = mtu;
    message_begin(&message, RTM_NEWLINK, 0, &head, sizeof head);
    if (mac)
        message_add(&message, IFLA_ADDRESS, mac, MAC_BYTES);
    if (mtu)
        message_add(&message, IFLA_MTU, &wanted, sizeof wanted);
    return netlink_do(fd, &message);
}

static bool change_address(int fd, const struct card *card, const struct address *address, bool add) {
    struct message message;
    struct address_head head = {.family = address->family, .bits = address->bits, .index = card->index};
    uint32_t flags = IFA_F_NODAD; /* nobody else on its network can have it */
    message_begin(&message, add ? RTM_NEWADDR : RTM_DELADDR, add ? NLM_F_CREATE | NLM_F_REPLACE : 0, &head, sizeof head);
    message_add(&message, IFA_LOCAL, address->bytes, address->size);
    if (add && address->family == AF_INET6)
        message_add(&message, IFA_FLAGS, &flags, sizeof flags);
    if (add && address->family == AF_INET && address->bits < 31) {
        uint8_t broadcast[4];
        memcpy(broadcast, address->bytes, 4);
        for (unsigned bit = address->bits; bit < 32; bit++)
            broadcast[bit / 8] |= (uint8_t)(0x80 >> bit % 8);
        message_add(&message, IFA_BROADCAST, broadcast, 4);
    }
    return netlink_do(fd, &message);
}

static bool add_route(int fd, const struct card *card, const struct address *gateway) {
    struct message message;
    struct route_head head = {
        .family = gateway->family, .table = RT_TABLE_MAIN, .protocol = RTPROT_BOOT, .type = RTN_UNICAST};
    uint32_t index = card->index;
    message_begin(&message, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &head, sizeof head);
    message_add(&message, RTA_GATEWAY, gateway->bytes, gateway->size);
    message_add(&message, RTA_OIF, &index, sizeof index);
    return netlink_do(fd, &message);
}

/* The addresses that the card has, as far as there is room for them. */
struct found {
    const struct card *card;
    struct address addresses[MOST_DROPPED];
    size_t count;
};

static struct found found;

static void take_address(uint16_t type, const uint8_t *body, size_t size, void *argument) {
    (void)argument;
    struct address_head head;
    struct part part;
    const uint8_t *at = body + sizeof head, *value;
    if (type != RTM_NEWADDR || size < sizeof head || found.count == MOST_DROPPED)
        return;
    memcpy(&head, body, sizeof head);
    if (head.index != found.card->index)
        return;
    struct address *one = &found.addresses[found.count];
    *one = (struct address){.family = head.family, .bits = head.bits};
    while (next_part(&at, body + size, &part, &value)) {
        size_t length = part.size - sizeof part;
        bool local = part.type == IFA_LOCAL || (part.type == IFA_ADDRESS && !one->size);
        if (!local || length > sizeof one->bytes)
            continue;
        one->size = (uint8_t)length;
        memcpy(one->bytes, value, length);
    }
    found.count += one->size != 0;
}

/* Secondary addresses go with the first of their network: that one is gone already is no failure. */
static void drop_addresses(int fd, const struct card *card) {
    struct message message;
    struct address_head head = {.family = AF_UNSPEC};
    found.card = card;
    found.count = 0;
    message_begin(&message, RTM_GETADDR, NLM_F_DUMP, &head, sizeof head);
    if (!netlink_each(fd, &message, take_address, NULL))
        cannot("read the addresses of", card);
    for (size_t i = 0; i < found.count; i++)
        if (!change_address(fd, card, &found.addresses[i], false) && errno != EADDRNOTAVAIL)
            cannot("take an address from", card);
}

/* What banger wrote is one line. All else is the image's, or its resolver's. */
static void set_resolver(const char *nameserver) {
    char before[RESOLVER_BYTES], line[96], *path = realpath("/etc/resolv.conf", NULL);
    ssize_t size = path ? read_file(AT_FDCWD, path, before, sizeof before) : -1;
    bool ours = size > 0 && !strncmp(before, "nameserver ", 11) && strchr(before, '\n') == before + size - 1;
    if (ours) {
        snprintf(line, sizeof line, "nameserver %s\n", nameserver);
        replace_file(AT_FDCWD, path, line, strlen(line), 0644);
    }
    free(path);
}

void run_network(struct reader *request) {
    struct address given[4] = {{.size = 0}}, nameserver; /* an address and its gateway, of each family */
    uint8_t mac[MAC_BYTES];
    struct card card;
    const char *mac_text = take_text(request);
    bool right = !*mac_text || parse_mac(mac_text, mac);
    for (size_t i = 0; i < 4; i++) {
        const char *text = take_text(request);
        bool fits = !*text || (parse_address(text, &given[i]) && given[i].family == (i < 2 ? AF_INET : AF_INET6));
        right = right && fits && (i % 2 || !*text || strchr(text, '/'));
    }
    const char *resolver = take_text(request);
    uint16_t mtu = take_u16(request);
    if (!right || (*resolver && (!parse_address(resolver, &nameserver) || strchr(resolver, '/'))))
        report_failure(BAD_REQUEST, 0, "no addresses of a network card");
    enter_image();
    int fd = netlink_open(NETLINK_ROUTE);
    if (fd < 0)
        report_errno("cannot reach the kernel's network");
    if (!find_card(&card))
        report_failure(FAILED, ENODEV, "no network card");
    if (!set_up(fd, &card, false))
        cannot("take down", &card);
    drop_addresses(fd, &card);
    if (!set_link(fd, &card, *mac_text ? mac : NULL, mtu))
        cannot("set the MAC address of", &card);
    if (!set_up(fd, &card, true))
        cannot("bring up", &card);
    for (size_t i = 0; i < 4; i++) {
        if (!given[i].size || (i >= 2 && !card_has_ipv6(&card)))
            continue;
        if (i % 2 ? !add_route(fd, &card, &given[i]) : !change_address(fd, &card, &given[i], true))
            cannot(i % 2 ? "set a route of" : "set an address of", &card);
    }
    for (size_t i = 0; i < found.count; i++) {
        bool kept = false;
        for (size_t k = 0; k < 4; k += 2)
            kept |= given[k].size == found.addresses[i].size && !memcmp(given[k].bytes, found.addresses[i].bytes, given[k].size);
        if (!kept)
            end_connections(&found.addresses[i]);
    }
    if (*resolver)
        set_resolver(resolver);
    report_ok();
}
