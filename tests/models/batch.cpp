// Batches over two records and the head of a list, under a reader of all three: one snapshot.

#include "check.hpp"

struct batches : store {
    void begin() override
    {
        begin_entry(A, 3);
        begin_entry(B, 4);
        begin_entry(HEAD, 5);
        begin_free(7, 10);
        at(5, HIGH).begin(6);
        at(6, LOW).begin(truth[0][HEAD]);
    }

    void write() override
    {
        for (unsigned batch = 1; batch <= 2; batch++) {
            put(A);
            put(B);
            put_head();
            commit();
        }
    }

    static constexpr unsigned switches = 1;

    void read() override { read_keys({A, B, HEAD}); }
};

int main(int count, char **arguments)
{
    return check<batches>("batch", count, arguments,
                          {words_after_commit, committed_store_relaxed, committed_load_relaxed,
                           words_before_committed, newest_version, committed_before_clock,
                           clock_load_relaxed, clock_store_relaxed, stamp_before_commit,
                           word_store_relaxed, word_load_relaxed, no_horizon, no_release_fence,
                           no_acquire_fence});
}
