// The directory doubles, and an index segment gives way to two, under a probing reader. Then both
// live on as entries. The same again with writers that are killed on the way.

#include "check.hpp"

struct splits : store {
    static constexpr unsigned OLD = 3;

    void begin() override
    {
        root.begin(FIRST_BLOCK);
        at(FIRST_BLOCK, 0).begin(OLD);
        begin_entry(A, 4, OLD, A);
        begin_entry(B, 5, OLD, B);
        begin_free(6, 9);
    }

    void write() override
    {
        grow();
        put(A);
        commit();
        put(A);
        put(B);
        commit();
        put(A);
        commit();
    }

    void read() override { read_keys({A, B}); }

    void grow()
    {
        double_directory();
        split_segment();
    }

    void double_directory()
    {
        unsigned directory = allocate(), old = root.known;
        fill(directory, OLD, OLD);
        put_word(root, 1 << DEPTH_SHIFT | directory, release_unless(root_store_relaxed));
        give_up(old);
    }

    void split_segment()
    {
        unsigned directory = root.known & BLOCK_MASK;
        unsigned segments[] = {allocate(), allocate()};
        if (active == directory_before_segment) {
            lead(directory, segments);
        }
        fill(segments[0], at(OLD, A).known, EMPTY);
        fill(segments[1], EMPTY, at(OLD, B).known);
        lead(directory, segments);
        give_up(OLD);
    }

    void lead(unsigned directory, unsigned const (&segments)[2])
    {
        for (unsigned half = 0; half < 2; half++) {
            put_word(at(directory, half), 1 << DEPTH_SHIFT | segments[half],
                     release_unless(directory_store_relaxed));
        }
    }

    void fill(unsigned block, unsigned first, unsigned second)
    {
        for (unsigned field = 0; field < BLOCK_WORDS; field++) {
            unsigned value = field == 0 ? first : field == 1 ? second : EMPTY;
            put_word(at(block, field), value, rl::mo_relaxed);
        }
        overwritten();
    }

    void give_up(unsigned block)
    {
        if (active == segment_frees_block) {
            own.free.add(block);
        } else {
            own.pending.add(block);
        }
    }

    // A key goes by the half of the hashes that it is in.
    unsigned known_segment(unsigned key) override
    {
        unsigned half = root.known >> DEPTH_SHIFT && key == B;
        return at(root.known & BLOCK_MASK, half).known & BLOCK_MASK;
    }

    unsigned segment_of(unsigned key) override
    {
        unsigned top = root.shared.load(acquire_unless(root_load_relaxed), $);
        unsigned directory = top & BLOCK_MASK, half = top >> DEPTH_SHIFT && key == B;
        if (!is_block(directory)) {
            return NOWHERE;
        }
        return load(directory, half, acquire_unless(directory_load_relaxed)) & BLOCK_MASK;
    }

    // Until both directory words of the old segment are replaced, it governs.
    queue<unsigned, 2> mend(bool *used) override
    {
        queue<unsigned, 2> segments;
        unsigned directory = root.known & BLOCK_MASK;
        used[directory] = true;
        if (root.known >> DEPTH_SHIFT) {
            word &first = at(directory, 0), &second = at(directory, 1);
            if (first.known >> DEPTH_SHIFT > second.known >> DEPTH_SHIFT) {
                put_word(first, second.known, rl::mo_relaxed);
            }
        }
        segments.add(known_segment(A));
        if (known_segment(B) != known_segment(A)) {
            segments.add(known_segment(B));
        }
        return segments;
    }
};

struct cut_off : splits {
    void write() override
    {
        live(50, [this] {
            grow();
            put(A);
            commit();
            put(A);
            put(B);
            commit();
        });
        live(24, [this] {
            take_over();
            put(A);
            put(B);
            commit();
        });
        take_over();
        put(A);
        put(B);
        commit();
        put(A);
        commit();
    }

    static constexpr unsigned switches = 0;

    unsigned steps() override { return 120; }
};

int main(int count, char **arguments)
{
    int grown = check<splits>("split", count, arguments,
                              {root_store_relaxed, root_load_relaxed, directory_store_relaxed,
                               directory_load_relaxed, directory_before_segment,
                               segment_frees_block, words_before_committed});
    int mended = check<cut_off>("split cut", count, arguments,
                                {no_second_turning, turning_without_fence});
    return grown | mended;
}
