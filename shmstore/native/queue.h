/* Queues of blocks that wait for the horizon. All zeros is an empty one. */

#ifndef SHMSTORE_QUEUE_H
#define SHMSTORE_QUEUE_H

#include "memory.h"

#define QUEUE_ROOM_MIN 64
#define QUEUE_ROOM_KEPT 4096 /* what a queue keeps when it is empty */

/* A block that readers may be looking at, or a deleted entry that still lies in its word. */
struct retired {
    uint64_t stamp;
    uint64_t start;
    uint64_t size;
    uint64_t word_hash; /* of a deleted entry: leads to its word */
};

struct queue {
    struct retired *items; /* a ring; its room is a power of two */
    size_t first;
    size_t count;
    size_t room;
};

static inline struct retired *
queue_at(const struct queue *queue, size_t at)
{
    return &queue->items[(queue->first + at) & (queue->room - 1)];
}

static enum status
queue_grow(struct queue *queue, size_t wanted)
{
    size_t room = queue->room ? queue->room : QUEUE_ROOM_MIN;
    while (room < wanted) {
        room *= 2;
    }
    struct retired *items = malloc(room * sizeof *items);
    if (items == NULL) {
        return NO_MEMORY;
    }
    for (size_t i = 0; i < queue->count; i++) {
        items[i] = *queue_at(queue, i);
    }
    free(queue->items);
    queue->items = items;
    queue->first = 0;
    queue->room = room;
    return FINE;
}

/* See to it that so many can be pushed without fail, until one is popped. */
static inline enum status
queue_reserve(struct queue *queue, size_t more)
{
    size_t wanted = queue->count + more;
    return wanted <= queue->room ? FINE : queue_grow(queue, wanted);
}

/* Put one at the end; there is room. */
static inline void
queue_push(struct queue *queue, struct retired retired)
{
    queue->count++;
    *queue_at(queue, queue->count - 1) = retired;
}

static inline void
queue_close(struct queue *queue)
{
    free(queue->items);
    memset(queue, 0, sizeof *queue);
}

static inline void
queue_clear(struct queue *queue)
{
    queue->count = 0;
    if (queue->room > QUEUE_ROOM_KEPT) {
        queue_close(queue);
    }
}

/* Take the first one off. */
static inline void
queue_pop(struct queue *queue)
{
    queue->first = (queue->first + 1) & (queue->room - 1);
    if (--queue->count == 0) {
        queue_clear(queue);
    }
}

#endif
