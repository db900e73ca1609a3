// Two writers are killed before any of their stores, the second one also while it takes over, and
// a third one overwrites what they have left, all under a reader that may have begun with any.

#include "check.hpp"

struct takeovers : store {
    void begin() override
    {
        begin_entry(A, 3);
        begin_entry(B, 4);
        begin_free(5, 7);
    }

    void write() override
    {
        live(36, [this] {
            put(A);
            remove(B);
            commit();
            put(A);
            put(B);
            commit();
            remove(A);
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
        put(B);
        commit();
        put(A);
        put(B);
        commit();
    }

    static constexpr unsigned switches = 0;

    void read() override { read_keys({A, B}); }

    unsigned steps() override { return 100; }
};

int main(int count, char **arguments)
{
    return check<takeovers>("takeover", count, arguments,
                            {no_first_turning, no_second_turning,
                             turning_without_fence, horizon_before_clock,
                             words_stay, marks_stay, no_release_fence});
}
