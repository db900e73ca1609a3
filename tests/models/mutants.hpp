// The orders of the protocol, each as the mutation that drops it. One at a time is active.

#ifndef SHMSTORE_MODELS_MUTANTS_HPP
#define SHMSTORE_MODELS_MUTANTS_HPP

#define MUTANTS(_)                                                                        \
    _(none, "the protocol as it is")                                                      \
    /* a reader */                                                                        \
    _(clock_load_relaxed, "F is loaded without acquire")                                  \
    _(committed_load_relaxed, "K is loaded without acquire")                              \
    _(committed_before_clock, "the reader loads K before F")                              \
    _(words_before_committed, "the reader loads root, directory and words before K")      \
    _(root_load_relaxed, "the root is loaded without acquire")                            \
    _(directory_load_relaxed, "directory words are loaded without acquire")               \
    _(word_load_relaxed, "index words are loaded without acquire")                        \
    _(newest_version, "the reader does not go back to the version of its batch")          \
    _(any_mark_counts, "a mark of a later batch counts as a deletion")                    \
    _(mark_means_absent, "a mark on a newer entry is taken for absence, not for a retry") \
    _(no_acquire_fence, "no fence between the copy and R")                                \
    _(horizon_load_acquire, "an acquire load of R instead of the fence")                  \
    _(horizon_before_copy, "R is loaded before the copy")                                 \
    _(unchecked, "the reader does not look at R")                                         \
    /* the writer */                                                                      \
    _(no_horizon, "R is not raised before a block is overwritten")                        \
    _(horizon_after_overwrite, "R is raised after the block was overwritten")             \
    _(horizon_falls, "R takes a stamp that is lower than R")                              \
    _(no_release_fence, "no fence between R and the overwriting")                         \
    _(word_before_entry, "the word is stored before the entry is written")                \
    _(word_store_relaxed, "index words are stored without release")                       \
    _(marks_after_commit, "deaths are marked after K")                                    \
    _(words_after_commit, "words are stored after K")                                     \
    _(committed_store_relaxed, "K is stored without release")                             \
    _(stamp_before_commit, "F advances before K")                                         \
    _(clock_store_relaxed, "F is stored without release")                                 \
    _(stamp_too_low, "blocks are stamped with F as it was before it advanced")            \
    _(purge_without_horizon, "a word is emptied before R has passed the deletion")        \
    _(purge_frees_block, "the block of a purged entry gets no second stamp")              \
    _(purge_after_stamp, "the second stamp is taken before the word is emptied")          \
    _(root_store_relaxed, "the root is stored without release")                           \
    _(directory_store_relaxed, "directory words are stored without release")              \
    _(directory_before_segment, "the directory leads to a segment that is being built")   \
    _(segment_frees_block, "a replaced segment or directory gets no stamp")               \
    /* a takeover */                                                                      \
    _(no_first_turning, "readers are not turned away before marks are taken back")        \
    _(no_second_turning, "readers are not turned away before memory is taken for free")   \
    _(turning_without_fence, "no fence after a turning away")                             \
    _(horizon_before_clock, "a turning away raises R beyond F, then F")                   \
    _(words_stay, "words of the dead writer's batch are not taken back")                  \
    _(marks_stay, "marks of the dead writer's batch are not taken back")

enum mutant {
#define NAME(name, text) name,
    MUTANTS(NAME)
#undef NAME
        MUTANT_COUNT
};

struct mutant_text {
    char const *name, *text;
};

constexpr mutant_text MUTANT_TEXTS[] = {
#define TEXT(name, text) {#name, text},
    MUTANTS(TEXT)
#undef TEXT
};

inline mutant active = none;

#endif
