// Versions of one record go round through three blocks, under a reader of the record.

#include "check.hpp"

struct reuse_of_blocks : store {
    void begin() override
    {
        begin_entry(A, 3);
        begin_free(4, 5);
    }

    void write() override
    {
        for (unsigned batch = 1; batch <= 4; batch++) {
            put(A);
            commit();
        }
    }

    void read() override { read_keys({A}); }
};

int main(int count, char **arguments)
{
    return check<reuse_of_blocks>("reuse", count, arguments,
                                  {unchecked, no_acquire_fence, horizon_load_acquire,
                                   horizon_before_copy, no_horizon, horizon_after_overwrite,
                                   no_release_fence, word_before_entry, word_store_relaxed,
                                   word_load_relaxed, stamp_too_low, newest_version,
                                   committed_before_clock, clock_load_relaxed,
                                   clock_store_relaxed, stamp_before_commit,
                                   committed_load_relaxed, committed_store_relaxed,
                                   words_before_committed, words_after_commit});
}
