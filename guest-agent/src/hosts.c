/* /etc/hosts of a machine that has got another name. */
#include <string.h>

#include "child.h"

struct output {
    char *bytes;
    size_t size, most;
};

static void add(struct output *to, const char *bytes, size_t size) {
    size_t room = to->size < to->most ? to->most - to->size : 0;
    memcpy(to->bytes + to->size, bytes, size < room ? size : room);
    to->size += size < room ? size : room + 1; /* beyond the end: it did not fit */
}

static bool is(const char *word, size_t size, const char *name, size_t length) {
    return size == length && !memcmp(word, name, size);
}

/* Writes the lines with the fresh name wherever a name of an address was the old one, in full or up to its first dot;
   with a line for it if it was nowhere. The size of all that, or 0 if there is not enough room. */
size_t rename_hosts(const char *in, size_t size, char *out, size_t most, const char *old, const char *fresh) {
    struct output to = {out, 0, most};
    size_t old_size = strlen(old), old_short = strcspn(old, "."), fresh_size = strlen(fresh), fresh_short = strcspn(fresh, ".");
    bool named = false, in_address = true, in_comment = false, keeps = !old_size || !strcmp(old, "localhost");
    for (size_t at = 0; at < size;) {
        size_t word = 0;
        while (at + word < size && !memchr(" \t\r\n#", in[at + word], 5))
            word++;
        bool is_name = word && !in_address && !in_comment;
        if (is_name && !keeps && is(in + at, word, old, old_size)) {
            add(&to, fresh, fresh_size);
            named = true;
        } else if (is_name && !keeps && is(in + at, word, old, old_short)) {
            add(&to, fresh, fresh_short);
        } else {
            named |= is_name && is(in + at, word, fresh, fresh_size);
            add(&to, in + at, word);
        }
        at += word;
        if (word)
            in_address = false;
        if (at == size)
            break;
        in_comment |= in[at] == '#';
        if (in[at] == '\n')
            in_address = true, in_comment = false;
        add(&to, in + at++, 1);
    }
    if (!named) {
        if (size && in[size - 1] != '\n')
            add(&to, "\n", 1);
        add(&to, "127.0.1.1\t", 10);
        add(&to, fresh, fresh_size);
        if (fresh_short < fresh_size) {
            add(&to, " ", 1);
            add(&to, fresh, fresh_short);
        }
        add(&to, "\n", 1);
    }
    return to.size <= most ? to.size : 0;
}
