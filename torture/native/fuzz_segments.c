/* Damaged segments, for libFuzzer or driver.c. SHMSTORE_FUZZ_TARGET says what is done with them:

   reader    readers get an answer, and none is wrong that the check calls right
   check     it ends, and what it finds sound is read without trouble
   takeover  see taking_over.h */

#include "taking_over.h"

static void
run_reader(const struct input *input)
{
    static struct outcome outcome;
    read_segment(input, &outcome);
    if ((outcome.status != FINE || outcome.differs) && look(NULL)->count == 0) {
        broken("the check finds nothing, and a reader %s",
               outcome.status != FINE ? outcome.fault.text : "other records");
    }
}

static void
run_check(const struct input *input)
{
    static struct outcome outcome;
    if (look(NULL)->count == 0) {
        read_segment(input, &outcome);
        must(outcome.status, "reading what the check finds sound", &outcome.fault);
        if (outcome.differs) {
            broken("the check finds nothing, and a reader other records");
        }
    }
}

static const struct {
    const char *name;
    void (*run)(const struct input *input);
} TARGETS[] = {{"reader", run_reader}, {"check", run_check}, {"takeover", run_takeover}};

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*run)(const struct input *input);
    const char *name = run ? NULL : getenv("SHMSTORE_FUZZ_TARGET");
    struct input input;
    for (size_t i = 0; name && i < sizeof TARGETS / sizeof *TARGETS; i++) {
        if (strcmp(name, TARGETS[i].name) == 0) {
            run = TARGETS[i].run;
        }
    }
    if (run == NULL) {
        broken("SHMSTORE_FUZZ_TARGET names no target");
    }
    if (input_open(data, size, &input)) {
        damage_segment(&input);
        run(&input);
    }
    return 0;
}
