#include "wire.h"

#include <string.h>

const uint8_t MAGIC[MAGIC_BYTES] = {0xff, 'B', 'A', 'N', 'G', 'E', 'R', '-', 'A', 'G', 'E', 'N', 'T', '\r', '\n', 0xff};

uint16_t get_u16(const uint8_t *at) {
    return (uint16_t)(at[0] | at[1] << 8);
}

uint32_t get_u32(const uint8_t *at) {
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

void set_u16(uint8_t *at, uint16_t value) {
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

void set_u32(uint8_t *at, uint32_t value) {
    set_u16(at, (uint16_t)value);
    set_u16(at + 2, (uint16_t)(value >> 16));
}

void set_u64(uint8_t *at, uint64_t value) {
    set_u32(at, (uint32_t)value);
    set_u32(at + 4, (uint32_t)(value >> 32));
}

/* The next size bytes, or zeros. */
static const uint8_t *take(struct reader *reader, size_t size) {
    static const uint8_t zeros[8];
    if (reader->bad || (size_t)(reader->end - reader->at) < size) {
        reader->bad = true;
        return zeros;
    }
    reader->at += size;
    return reader->at - size;
}

uint8_t take_u8(struct reader *reader) {
    return *take(reader, 1);
}

uint16_t take_u16(struct reader *reader) {
    return get_u16(take(reader, 2));
}

uint32_t take_u32(struct reader *reader) {
    return get_u32(take(reader, 4));
}

uint64_t take_u64(struct reader *reader) {
    const uint8_t *at = take(reader, 8);
    return get_u32(at) | (uint64_t)get_u32(at + 4) << 32;
}

const uint8_t *take_bytes(struct reader *reader, size_t *size) {
    *size = take_u32(reader);
    if (reader->bad || (size_t)(reader->end - reader->at) <= *size || reader->at[*size]) {
        reader->bad = true;
        *size = 0;
        return (const uint8_t *)"";
    }
    const uint8_t *bytes = reader->at;
    reader->at += *size + 1;
    return bytes;
}

const char *take_text(struct reader *reader) {
    size_t size;
    const char *text = (const char *)take_bytes(reader, &size);
    if (memchr(text, 0, size)) {
        reader->bad = true;
        return "";
    }
    return text;
}

struct reader take_texts(struct reader *reader, uint32_t *count) {
    *count = take_u32(reader);
    struct reader texts = *reader;
    for (uint32_t i = 0; i < *count && !reader->bad; i++)
        take_text(reader);
    if (reader->bad) {
        *count = 0;
        texts.bad = true;
    }
    return texts;
}

bool at_end(const struct reader *reader) {
    return !reader->bad && reader->at == reader->end;
}

static uint8_t *room_for(struct result *result, size_t size) {
    if (sizeof result->bytes - result->size < size) {
        result->full = true;
        return NULL;
    }
    result->size += size;
    return result->bytes + result->size - size;
}

void begin_result(struct result *result, enum status status, int error, const char *message) {
    result->size = 8;
    result->full = false;
    set_u16(result->bytes, (uint16_t)status);
    set_u16(result->bytes + 2, 0);
    set_u32(result->bytes + 4, (uint32_t)error);
    put_string(result, message, strnlen(message, MAX_RESULT / 2));
}

void put_u8(struct result *result, uint8_t value) {
    uint8_t *at = room_for(result, 1);
    if (at)
        *at = value;
}

void put_u32(struct result *result, uint32_t value) {
    uint8_t *at = room_for(result, 4);
    if (at)
        set_u32(at, value);
}

void put_u64(struct result *result, uint64_t value) {
    uint8_t *at = room_for(result, 8);
    if (at)
        set_u64(at, value);
}

void put_string(struct result *result, const void *bytes, size_t size) {
    uint8_t *at = room_for(result, 4 + size + 1);
    if (!at)
        return;
    set_u32(at, (uint32_t)size);
    memcpy(at + 4, bytes, size);
    at[4 + size] = 0;
}
