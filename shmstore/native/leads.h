/* A set of leads: the keys that the open batch has touched. All zeros is an empty one. */

#ifndef SHMSTORE_LEADS_H
#define SHMSTORE_LEADS_H

#include "lookup.h"
#include "slots.h"

#define LEADS_ROOM_MIN 8
#define LEADS_ROOM_KEPT 64 /* what a set keeps when it is cleared */
#define LEADS_BYTES_KEPT 4096

struct noted_lead {
    uint64_t word_hash;
    uint64_t scope;
    uint32_t key_class;
    uint32_t key_size;
    size_t key_at; /* where in ``bytes`` its key begins */
};

struct leads {
    struct noted_lead *items;
    size_t count;
    size_t room;
    unsigned char *bytes;
    size_t bytes_used;
    size_t bytes_room;
    struct slots slots; /* by word hash, which several may share */
};

static bool
leads_has(const struct leads *leads, const struct lead *lead)
{
    if (leads->count == 0) {
        return false;
    }
    uint64_t at = slots_home(&leads->slots, lead->word_hash);
    for (uint32_t number; (number = leads->slots.numbers[at]); at = (at + 1) & leads->slots.mask) {
        const struct noted_lead *noted = &leads->items[number - 1];
        if (noted->word_hash == lead->word_hash && noted->scope == lead->scope &&
            noted->key_class == lead->key_class && noted->key_size == lead->key_size &&
            (lead->key_size == 0 ||
             memcmp(leads->bytes + noted->key_at, lead->key, lead->key_size) == 0)) {
            return true;
        }
    }
    return false;
}

static enum status
leads_grow(struct leads *leads)
{
    size_t room = leads->room ? leads->room * 2 : LEADS_ROOM_MIN;
    struct slots slots;
    if (room > SLOTS_ITEMS_MAX || slots_open(&slots, room) != FINE) {
        return NO_MEMORY;
    }
    struct noted_lead *items = realloc(leads->items, room * sizeof *items);
    if (items == NULL) {
        slots_close(&slots);
        return NO_MEMORY;
    }
    for (size_t i = 0; i < leads->count; i++) {
        slots_add(&slots, items[i].word_hash, (uint32_t)i + 1);
    }
    slots_close(&leads->slots);
    leads->slots = slots;
    leads->items = items;
    leads->room = room;
    return FINE;
}

static enum status
leads_grow_bytes(struct leads *leads, size_t more)
{
    size_t room = leads->bytes_room ? leads->bytes_room * 2 : 1024;
    room = room > leads->bytes_used + more ? room : leads->bytes_used + more;
    unsigned char *bytes = realloc(leads->bytes, room);
    if (bytes == NULL) {
        return NO_MEMORY;
    }
    leads->bytes = bytes;
    leads->bytes_room = room;
    return FINE;
}

static enum status
leads_add(struct leads *leads, const struct lead *lead)
{
    if (leads_has(leads, lead)) {
        return FINE;
    }
    if (leads->count == leads->room && leads_grow(leads) != FINE) {
        return NO_MEMORY;
    }
    if (leads->bytes_room - leads->bytes_used < lead->key_size &&
        leads_grow_bytes(leads, lead->key_size) != FINE) {
        return NO_MEMORY;
    }
    struct noted_lead *noted = &leads->items[leads->count++];
    noted->word_hash = lead->word_hash;
    noted->scope = lead->scope;
    noted->key_class = lead->key_class;
    noted->key_size = (uint32_t)lead->key_size;
    noted->key_at = leads->bytes_used;
    if (lead->key_size) {
        memcpy(leads->bytes + leads->bytes_used, lead->key, lead->key_size);
    }
    leads->bytes_used += lead->key_size;
    slots_add(&leads->slots, lead->word_hash, (uint32_t)leads->count);
    return FINE;
}

static void
leads_close(struct leads *leads)
{
    free(leads->items);
    free(leads->bytes);
    slots_close(&leads->slots);
    memset(leads, 0, sizeof *leads);
}

static void
leads_clear(struct leads *leads)
{
    if (leads->room > LEADS_ROOM_KEPT || leads->bytes_room > LEADS_BYTES_KEPT) {
        leads_close(leads);
    }
    else if (leads->count) {
        slots_clear(&leads->slots);
    }
    leads->count = leads->bytes_used = 0;
}

#endif
