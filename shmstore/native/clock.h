/* The header line: free clock F, committed sequence K, reuse horizon R.

   The functions carry the names of the protocol's steps in docs/concurrency.md. */

#ifndef SHMSTORE_CLOCK_H
#define SHMSTORE_CLOCK_H

#include "memory.h"

/* What a reader notes when it begins. */
struct window {
    uint64_t clock;
    uint64_t committed;
};

/* F before K, never the other way round: a clock newer than the snapshot would vouch for blocks
   that were retired after the snapshot and reused since. Both acquire, so that nothing of the
   snapshot is loaded before them. */
static inline struct window
read_begin(const struct memory *memory)
{
    struct window window;
    window.clock = word_load_acquire(memory, FREE_CLOCK_WORD);
    window.committed = word_load_acquire(memory, COMMITTED_WORD);
    return window;
}

/* Tell whether nothing read since read_begin() can have been overwritten. Without the fence the
   horizon could be loaded before the bytes it vouches for; an acquire load of it does not help. */
static inline bool
read_accept(const struct memory *memory, uint64_t clock)
{
    atomic_thread_fence(memory_order_acquire);
    return word_load(memory, HORIZON_WORD) <= clock;
}

/* Step 1: turn away the readers that may still be in a block of this stamp. The fence makes a
   reader that sees a byte of the block's next life see this horizon as well. */
static inline void
clock_reuse(const struct memory *memory, uint64_t stamp)
{
    if (stamp > word_load(memory, HORIZON_WORD)) {
        word_store(memory, HORIZON_WORD, stamp);
        atomic_thread_fence(memory_order_release);
    }
}

/* Step 4, the one commit point: everything stored for this sequence becomes visible. */
static inline void
clock_commit(const struct memory *memory, uint64_t sequence)
{
    word_store_release(memory, COMMITTED_WORD, sequence);
}

/* Step 5: advance the free clock; return the stamp for the blocks this batch replaced. After the
   commit: a reader that began at this clock has seen it, and reaches none of these blocks. */
static inline uint64_t
clock_retire(const struct memory *memory)
{
    uint64_t stamp = word_load(memory, FREE_CLOCK_WORD) + 1;
    word_store_release(memory, FREE_CLOCK_WORD, stamp);
    return stamp;
}

#endif
