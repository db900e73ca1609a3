// Stamps do not always come in order: where memory is short, blocks are reused before an older
// deletion has been purged. R must not fall when that has its turn.

#include "check.hpp"

struct horizons : store {
    bool short_of_memory = true;

    void begin() override
    {
        begin_entry(A, 3);
        begin_entry(B, 4);
        begin_free(5, 5);
    }

    void write() override
    {
        remove(A);
        put(B);
        commit();
        put(B);
        commit();
        put(B);
        commit();
        short_of_memory = false;
        put(B);
        commit();
    }

    void read() override { read_keys({A, B}); }

    bool purges_early() override { return !short_of_memory; }
};

int main(int count, char **arguments)
{
    return check<horizons>("horizon", count, arguments, {horizon_falls});
}
