// A store of a few words under the protocol of docs/concurrency.md, for Relacy to take apart.
//
// One thread writes, as one writer or as several that follow each other; the other one reads. The
// names are those of shmstore/pure. Entries, nodes, directories and index segments lie in equal
// blocks, so that any block can live on as anything. Each order of the protocol asks which mutant
// is active. What a reader accepts is held against the truth that the writers noted beside.

#ifndef SHMSTORE_MODELS_STORE_HPP
#define SHMSTORE_MODELS_STORE_HPP

#include <relacy/relacy.hpp>

#include "mutants.hpp"

constexpr unsigned EMPTY = 0, VACATED = 1, FIRST_BLOCK = 2, DEAD = 1u << 31;
constexpr unsigned BLOCKS = 10, SLOTS = 4, KEYS = 4, BATCHES = 8, HOPS = 4;
constexpr unsigned BLOCK_MASK = 0xff, DEPTH_SHIFT = 8;
constexpr unsigned NOWHERE = ~0u;

enum field { SEQ, PREV, KEY, LOW, HIGH, BLOCK_WORDS };
enum key { A, B, C, HEAD };

// Whether readers pause, so that random schedules let much happen between two of their steps.
inline bool pauses = true;

// Tries of readers that were not turned away: a model that turns all away would prove nothing.
inline unsigned long long accepted_reads = 0;

inline rl::memory_order release_unless(mutant relaxed)
{
    return active == relaxed ? rl::mo_relaxed : rl::mo_release;
}

inline rl::memory_order acquire_unless(mutant relaxed)
{
    return active == relaxed ? rl::mo_relaxed : rl::mo_acquire;
}

// A word of the segment, and what the writers know to be in it: they alone store.
struct word {
    rl::atomic<unsigned> shared;
    unsigned known;

    void begin(unsigned value)
    {
        known = value;
        shared.store(value, rl::mo_relaxed, $);
    }
};

template <class T, unsigned size> struct queue {
    T items[size] = {};
    unsigned first = 0, last = 0;

    bool empty() const { return first == last; }
    void add(T item) { items[last++ % size] = item; }
    T take() { return items[first++ % size]; }
};

struct killed {
};

struct retired {
    unsigned block, stamp, word;
};

struct staged {
    unsigned address, block;
};

// What a writer keeps for itself, and takes with it when it dies.
struct privates {
    queue<unsigned, 32> free;
    queue<retired, 32> quarantine, dead;
    queue<unsigned, 32> pending;
    queue<staged, 8> words;
    queue<unsigned, 16> replaced, killed;
    unsigned late_stamp = 0;
};

struct store : rl::test_suite<store, 2> {
    word free_clock, committed, horizon, root;
    word memory[BLOCKS * BLOCK_WORDS];
    rl::atomic<unsigned> nothing;
    privates own;
    unsigned stores_left = 0;              // before the writer is killed; 0: it is not
    unsigned values = 0;                   // each value is another number
    unsigned present[KEYS] = {};           // what the open batch makes true, 0 for absence
    unsigned truth[BATCHES][KEYS] = {};    // the same for each committed batch

    // What a scenario says

    virtual void begin() = 0;
    virtual void write() = 0;
    virtual void read() = 0;

    // About how many steps the writers take: a reader begins at any of them.
    virtual unsigned steps() { return 50; }

    // Whether words of the dead are emptied in the order of their stamps, or only when no block
    // is left in the quarantine; the heap does either, by the room there is.
    virtual bool purges_early() { return true; }

    // How many times the threads are interrupted where all schedules are searched.
    static constexpr unsigned switches = 2;

    // Its index: one segment that does not change, in the first block, unless it says otherwise.

    virtual unsigned home(unsigned key) { return key; }
    virtual unsigned known_segment(unsigned) { return FIRST_BLOCK; }
    virtual unsigned segment_of(unsigned) { return FIRST_BLOCK; }

    // Brings the index into order at a takeover; notes its blocks, and returns the segments.
    virtual queue<unsigned, 2> mend(bool *)
    {
        queue<unsigned, 2> segments;
        segments.add(FIRST_BLOCK);
        return segments;
    }

    // What Relacy calls

    void before()
    {
        free_clock.begin(0);
        committed.begin(0);
        horizon.begin(0);
        root.begin(0);
        nothing.store(0, rl::mo_relaxed, $);
        for (word &each : memory) {
            each.begin(0);
        }
        begin();
    }

    void thread(unsigned number)
    {
        if (number == 0) {
            write();
        } else {
            read();
        }
    }

    // The memory

    static unsigned address(unsigned block, unsigned field)
    {
        return (block - FIRST_BLOCK) * BLOCK_WORDS + field;
    }

    static bool is_block(unsigned block) { return block - FIRST_BLOCK < BLOCKS; }

    word &at(unsigned block, unsigned field) { return memory[address(block, field)]; }

    void put_word(word &target, unsigned value, rl::memory_order order)
    {
        if (stores_left && --stores_left == 0) {
            throw killed();
        }
        target.shared.store(value, order, $);
        target.known = value;
    }

    // How a scenario begins: batch 0, before any reader

    void begin_entry(unsigned key, unsigned block, unsigned segment, unsigned slot)
    {
        unsigned value = ++values;
        at(block, KEY).begin(key + 1);
        at(block, LOW).begin(value);
        at(block, HIGH).begin(value);
        at(segment, slot).begin(block);
        present[key] = truth[0][key] = value;
    }

    void begin_entry(unsigned key, unsigned block)
    {
        begin_entry(key, block, FIRST_BLOCK, key);
    }

    void begin_free(unsigned first, unsigned last)
    {
        for (unsigned block = first; block <= last; block++) {
            own.free.add(block);
        }
    }

    // Step 1: reuse

    void reuse(unsigned stamp)
    {
        if (stamp > horizon.known || active == horizon_falls) {
            put_word(horizon, stamp, rl::mo_relaxed);
            if (active != no_release_fence) {
                rl::atomic_thread_fence(rl::mo_release, $);
            }
        }
    }

    unsigned allocate()
    {
        while (own.free.empty()) {
            if (!own.dead.empty() && (purges_early() || own.quarantine.empty())) {
                purge();
            } else if (!own.quarantine.empty()) {
                release_oldest();
            } else {
                stamp_pending();
            }
        }
        return own.free.take();
    }

    void release_oldest()
    {
        retired oldest = own.quarantine.take();
        if (active == horizon_after_overwrite) {
            own.late_stamp = oldest.stamp;
        } else if (active != no_horizon) {
            reuse(oldest.stamp);
        }
        own.free.add(oldest.block);
    }

    void overwritten()
    {
        if (own.late_stamp) {
            reuse(own.late_stamp);
            own.late_stamp = 0;
        }
    }

    // Takes the entry that has been dead longest out of its word; its block waits once more.
    void purge()
    {
        retired entry = own.dead.take();
        if (active == purge_after_stamp) {
            own.pending.add(entry.block);
            stamp_pending();
        }
        if (active != purge_without_horizon) {
            reuse(entry.stamp);
        }
        if (memory[entry.word].known == entry.block) {
            unsigned base = entry.word / BLOCK_WORDS * BLOCK_WORDS;
            unsigned next = base + (entry.word - base + 1) % SLOTS;
            unsigned left = memory[next].known == EMPTY ? EMPTY : VACATED;
            put_word(memory[entry.word], left, rl::mo_relaxed);
        }
        if (active == purge_frees_block) {
            own.free.add(entry.block);
        } else if (active != purge_after_stamp) {
            own.pending.add(entry.block);
        }
    }

    // Step 2: stage

    void put(unsigned key)
    {
        unsigned value = ++values;
        put_entry(key, allocate(), value, value);
        present[key] = value;
    }

    void put_entry(unsigned key, unsigned block, unsigned low, unsigned high)
    {
        unsigned place = locate(key), before = memory[place].known;
        if (active == word_before_entry) {
            put_word(memory[place], block, rl::mo_release);
        }
        put_word(at(block, SEQ), committed.known + 1, rl::mo_relaxed);
        put_word(at(block, PREV), before, rl::mo_relaxed);
        put_word(at(block, KEY), key + 1, rl::mo_relaxed);
        put_word(at(block, LOW), low, rl::mo_relaxed);
        put_word(at(block, HIGH), high, rl::mo_relaxed);
        overwritten();
        own.words.add({place, block});
        if (before > VACATED && !(at(before, PREV).known & DEAD)) {
            own.replaced.add(before);
        }
    }

    // The head of a list, and its one node.
    void put_head()
    {
        unsigned value = ++values, node = allocate();
        for (unsigned field = SEQ; field < BLOCK_WORDS; field++) {
            put_word(at(node, field), value, rl::mo_relaxed);
        }
        overwritten();
        unsigned before = memory[locate(HEAD)].known;
        put_entry(HEAD, allocate(), value, node);
        if (before) {
            own.replaced.add(at(before, HIGH).known);
        }
        present[HEAD] = value;
    }

    void remove(unsigned key)
    {
        own.killed.add(memory[locate(key)].known);
        present[key] = 0;
    }

    // The word of a key, or the one a new entry would take, as the writer knows it.
    unsigned locate(unsigned key)
    {
        unsigned base = address(known_segment(key), 0), free = NOWHERE;
        for (unsigned i = 0; i < SLOTS; i++) {
            unsigned place = base + (home(key) + i) % SLOTS;
            unsigned block = memory[place].known;
            if (block > VACATED && at(block, KEY).known == key + 1) {
                return place;
            }
            if (block <= VACATED && free == NOWHERE) {
                free = place;
            }
            if (block == EMPTY) {
                break;
            }
        }
        return free;
    }

    // Steps 3 to 5: publish, commit, retire

    void commit()
    {
        unsigned sequence = committed.known + 1;
        for (unsigned key = 0; key < KEYS; key++) {
            truth[sequence][key] = present[key];
        }
        if (active == words_after_commit || active == marks_after_commit) {
            if (active == words_after_commit) {
                put_marks(sequence);
            } else {
                put_words();
            }
            put_word(committed, sequence, rl::mo_release);
        }
        put_marks(sequence);
        put_words();
        if (active == stamp_before_commit) {
            stamp();
        }
        put_word(committed, sequence, release_unless(committed_store_relaxed));
        if (active != stamp_before_commit) {
            stamp();
        }
    }

    void put_marks(unsigned sequence)
    {
        for (unsigned i = own.killed.first; i < own.killed.last; i++) {
            put_word(at(own.killed.items[i], PREV), DEAD | sequence, rl::mo_relaxed);
        }
    }

    void put_words()
    {
        while (!own.words.empty()) {
            staged each = own.words.take();
            put_word(memory[each.address], each.block, release_unless(word_store_relaxed));
        }
    }

    unsigned retire()
    {
        unsigned stamp = free_clock.known + 1;
        put_word(free_clock, stamp, release_unless(clock_store_relaxed));
        return active == stamp_too_low ? stamp - 1 : stamp;
    }

    void stamp()
    {
        while (!own.replaced.empty()) {
            own.pending.add(own.replaced.take());
        }
        unsigned stamp = stamp_pending();
        while (!own.killed.empty()) {
            unsigned block = own.killed.take();
            own.dead.add({block, stamp, locate(at(block, KEY).known - 1)});
        }
    }

    unsigned stamp_pending()
    {
        unsigned stamp = retire();
        while (!own.pending.empty()) {
            own.quarantine.add({own.pending.take(), stamp, 0});
        }
        return stamp;
    }

    // Takeover

    // A writer's life: it ends when the work is done, or before one of its first stores.
    template <class Work> void live(unsigned stores, Work work)
    {
        stores_left = rl::rand(stores + 1);
        try {
            work();
        } catch (killed const &) {
        }
        stores_left = 0;
    }

    void take_over()
    {
        own = privates();
        for (unsigned key = 0; key < KEYS; key++) {
            present[key] = truth[committed.known][key];
        }
        RL_ASSERT(horizon.known <= free_clock.known);
        if (active != no_first_turning) {
            turn_away();
        }
        bool used[FIRST_BLOCK + BLOCKS] = {};
        queue<retired, 8> dead;
        recover(used, dead);
        if (active != no_second_turning) {
            turn_away();
        }
        for (unsigned block = FIRST_BLOCK; block < FIRST_BLOCK + BLOCKS; block++) {
            if (!used[block]) {
                own.free.add(block);
            }
        }
        unsigned stamp = stamp_pending();
        while (!dead.empty()) {
            retired entry = dead.take();
            entry.stamp = stamp;
            own.dead.add(entry);
        }
    }

    void turn_away()
    {
        if (active == horizon_before_clock) {
            reuse(free_clock.known + 1);
        }
        unsigned stamp = retire();
        if (active == turning_without_fence) {
            put_word(horizon, stamp, rl::mo_relaxed);
        } else {
            reuse(stamp);
        }
    }

    void recover(bool (&used)[FIRST_BLOCK + BLOCKS], queue<retired, 8> &dead)
    {
        queue<unsigned, 2> segments = mend(used);
        while (!segments.empty()) {
            unsigned segment = segments.take();
            used[segment] = true;
            for (unsigned slot = 0; slot < SLOTS; slot++) {
                word &place = at(segment, slot);
                take_back(place);
                if (place.known > VACATED) {
                    used[place.known] = true;
                    if (at(place.known, PREV).known & DEAD) {
                        dead.add({place.known, 0, address(segment, slot)});
                    }
                }
            }
        }
    }

    // Gives a word, and the mark of its entry, what was there when the last batch was committed.
    void take_back(word &place)
    {
        if (place.known > VACATED && at(place.known, SEQ).known > committed.known &&
            active != words_stay) {
            put_word(place, at(place.known, PREV).known, rl::mo_relaxed);
        }
        if (place.known > VACATED) {
            word &prev = at(place.known, PREV);
            if (prev.known & DEAD && (prev.known ^ DEAD) > committed.known &&
                active != marks_stay) {
                put_word(prev, EMPTY, rl::mo_relaxed);
            }
        }
    }

    // A reader

    struct window {
        unsigned clock, committed;
    };

    // What a reader has found; ``again`` for a way that is lost, ``damaged`` for what cannot be.
    struct found {
        unsigned entry = 0;
        bool again = false, damaged = false;
    };

    struct copy {
        unsigned low = 0, high = 0;
        bool damaged = false;
    };

    void pause(unsigned steps)
    {
        for (unsigned left = pauses ? rl::rand(steps) : 0; left; left--) {
            nothing.load(rl::mo_relaxed, $);
        }
    }

    void pause()
    {
        if (pauses && rl::rand(3) == 0) {
            pause(24);
        }
    }

    unsigned load(unsigned block, unsigned field, rl::memory_order order = rl::mo_relaxed)
    {
        return at(block, field).shared.load(order, $);
    }

    unsigned load_committed()
    {
        return committed.shared.load(acquire_unless(committed_load_relaxed), $);
    }

    window read_begin()
    {
        window begun;
        if (active == committed_before_clock) {
            begun.committed = load_committed();
        }
        begun.clock = free_clock.shared.load(acquire_unless(clock_load_relaxed), $);
        if (active != committed_before_clock) {
            begun.committed = load_committed();
        }
        return begun;
    }

    bool read_accept(unsigned clock)
    {
        if (active == unchecked) {
            return true;
        }
        if (active == horizon_load_acquire) {
            return horizon.shared.load(rl::mo_acquire, $) <= clock;
        }
        if (active != no_acquire_fence) {
            rl::atomic_thread_fence(rl::mo_acquire, $);
        }
        return horizon.shared.load(rl::mo_relaxed, $) <= clock;
    }

    found probe(unsigned key)
    {
        found result;
        unsigned segment = segment_of(key);
        if (!is_block(segment)) {
            result.damaged = true;
            return result;
        }
        for (unsigned i = 0; i < SLOTS; i++) {
            unsigned slot = (home(key) + i) % SLOTS;
            unsigned block = load(segment, slot, acquire_unless(word_load_relaxed));
            if (block == EMPTY) {
                break;
            }
            if (block == VACATED) {
                continue;
            }
            if (!is_block(block)) {
                result.damaged = true;
                break;
            }
            if (load(block, KEY) == key + 1) {
                result.entry = block;
                break;
            }
        }
        return result;
    }

    found visible(found start, unsigned batch)
    {
        found result = start;
        for (unsigned hop = 0; result.entry && hop < HOPS; hop++) {
            unsigned prev = load(result.entry, PREV), seq = load(result.entry, SEQ);
            bool counts = active == any_mark_counts || (prev ^ DEAD) <= batch;
            if (seq <= batch || active == newest_version) {
                result.entry = prev & DEAD && counts ? 0 : result.entry;
                return result;
            }
            if (prev & DEAD) {
                result.entry = 0;
                result.again = active != mark_means_absent;
            } else if (prev <= VACATED) {
                result.entry = 0;
            } else if (is_block(prev)) {
                result.entry = prev;
            } else {
                result.entry = 0;
                result.damaged = true;
            }
        }
        result.again = result.again || result.entry;
        return result;
    }

    // Of a head also what its node says, which has the same number.
    copy copied(unsigned key, unsigned entry)
    {
        copy result;
        result.low = load(entry, LOW);
        result.high = load(entry, HIGH);
        if (key == HEAD) {
            result.damaged = !is_block(result.high);
            result.high = result.damaged ? 0 : load(result.high, LOW);
        }
        return result;
    }

    // One try of a reader of several keys: what it accepts is exactly the batch it began at.
    template <unsigned count> void read_keys(unsigned const (&keys)[count])
    {
        found seen[count];
        copy copies[count];
        bool again = false, damaged = false, early = true;
        pause(steps());
        window begun = read_begin();
        pause();
        for (unsigned i = 0; i < count; i++) {
            seen[i] = probe(keys[i]);
        }
        if (active == words_before_committed) {
            begun.committed = load_committed();
        }
        pause();
        for (unsigned i = 0; i < count; i++) {
            seen[i] = visible(seen[i], begun.committed);
        }
        if (active == horizon_before_copy) {
            early = read_accept(begun.clock);
        }
        pause();
        for (unsigned i = 0; i < count; i++) {
            if (seen[i].entry) {
                copies[i] = copied(keys[i], seen[i].entry);
            }
            again = again || seen[i].again;
            damaged = damaged || seen[i].damaged || copies[i].damaged;
        }
        pause();
        bool accepted = active == horizon_before_copy ? early : read_accept(begun.clock);
        if (again || !accepted) {
            return;
        }
        accepted_reads++;
        RL_ASSERT(!damaged);
        for (unsigned i = 0; i < count; i++) {
            RL_ASSERT(copies[i].low == truth[begun.committed][keys[i]]);
            RL_ASSERT(copies[i].high == copies[i].low);
        }
    }
};

#endif
