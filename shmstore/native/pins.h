/* The pins of a segment: entries that say which process looks at which block.

   A pin is found by its holder and the block, in no list and under no table. It is written, deleted
   and taken back as a record is; pinned.h notes what follows from it for the block. */

#ifndef SHMSTORE_PINS_H
#define SHMSTORE_PINS_H

#include "staging.h"

/* Find a pin; ``key`` holds its key while the lead is in use. */
static enum status
pins_find(struct staging *staging, struct span holder, uint64_t granule, struct pin_key *key,
          struct lead *lead, struct entry *entry, bool *found, struct fault *fault)
{
    *lead = pin_lead(staging->lookup, key, holder, granule);
    return staging_find(staging, lead, entry, found, fault);
}

/* Pin a record's block, if the holder has not done so before. */
static enum status
pins_add(struct staging *staging, struct span holder, uint64_t granule, struct fault *fault)
{
    struct pin_key key;
    struct lead lead;
    struct entry entry;
    struct place place;
    bool found;
    enum status status = pins_find(staging, holder, granule, &key, &lead, &entry, &found, fault);
    if (status != FINE || found) {
        return status;
    }
    status = pinned_reserve(&staging->heap.pinned);
    if (status == FINE) {
        /* A record can be looked at in a full store. */
        status = staging_allocate(staging, &lead, CLASS_PIN, 0, true, &place, fault);
    }
    if (status == FINE) {
        status = staging_write(staging, &place, &lead, CLASS_PIN, 0, 0, "", 0, fault);
    }
    if (status == FINE) {
        pinned_add(&staging->heap.pinned, place.granule, granule);
    }
    return status;
}

/* Pin a block that somebody pins; *shared is false if nobody does. */
static enum status
pins_share(struct staging *staging, struct span holder, uint64_t granule, bool *shared,
           struct fault *fault)
{
    *shared = pinned_in_batch(&staging->heap.pinned, granule);
    return *shared ? pins_add(staging, holder, granule, fault) : FINE;
}

/* Delete a pin; *removed tells whether it was there. */
static enum status
pins_remove(struct staging *staging, struct span holder, uint64_t granule, bool *removed,
            struct fault *fault)
{
    struct pin_key key;
    struct lead lead;
    struct entry entry;
    enum status status = pins_find(staging, holder, granule, &key, &lead, &entry, removed, fault);
    if (status != FINE || !*removed) {
        return status;
    }
    status = pinned_reserve(&staging->heap.pinned);
    if (status == FINE) {
        status = staging_kill(staging, &lead, &entry, fault);
    }
    if (status == FINE) {
        pinned_remove(&staging->heap.pinned, entry.granule, granule);
    }
    return status;
}

#endif
