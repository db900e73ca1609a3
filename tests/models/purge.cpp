// The word of a deleted entry is emptied or vacated, and leads to another record; its block lives
// on as an entry of that record. The neighbour in the same chain of words must be found all along.

#include "check.hpp"

struct purges : store {
    void begin() override
    {
        unsigned first = rl::rand(2);
        begin_entry(A, 3, FIRST_BLOCK, first);
        begin_entry(B, 4, FIRST_BLOCK, 1 - first);
        begin_free(5, 5);
    }

    void write() override
    {
        remove(A);
        put(B);
        commit();
        put(B);
        commit();
        put(C);
        commit();
        put(A);
        commit();
    }

    void read() override { read_keys({A, B, C}); }

    unsigned home(unsigned) override { return 0; }
};

int main(int count, char **arguments)
{
    return check<purges>("purge", count, arguments,
                         {purge_without_horizon, purge_frees_block, purge_after_stamp,
                          marks_after_commit, no_release_fence, no_acquire_fence});
}
