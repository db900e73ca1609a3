// A record is deleted, put again over its dead entry, and deleted again; a reader from before must
// see it as it was, or begin again where the mark has taken its way.

#include "check.hpp"

struct deletions : store {
    void begin() override
    {
        begin_entry(A, 3);
        begin_entry(B, 4);
        begin_free(5, 8);
    }

    void write() override
    {
        remove(A);
        put(B);
        commit();
        put(A);
        put(B);
        commit();
        remove(A);
        put(B);
        commit();
        put(A);
        commit();
    }

    void read() override { read_keys({A, B}); }
};

int main(int count, char **arguments)
{
    return check<deletions>("deletion", count, arguments,
                            {any_mark_counts, mark_means_absent, marks_after_commit,
                             stamp_before_commit});
}
