/* Plain requests, hostile and other, applied by the engine's core as the writer applies them; what
   is in the segment is compared with what should be. For libFuzzer, or another engine with the
   same entries.

   The messages of an input are read and staged, and batches end as it says. Then the records that
   it named are looked for as readers do. To begin anew takes longer than all that; so the inputs
   share a segment, by rounds. A round ends with the death of the writer, a takeover and a look at
   every record. What belongs to a finding is the round: the file that SHMSTORE_FUZZ_ROUND names
   has the inputs of the present one, and what SHMSTORE_FUZZ_REPLAY names is done again. */

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "store.h" /* the first of ours, as it takes the place of stores */

#include "composing.h"
#include "looking.h"

#define ROUND_INPUTS 256
#define ROUND_RECORDS 128 /* a round that knows more ends: they are looked for one after another */
#define INPUT_BYTES_MAX COMPOSED_BYTES_MAX
#define ROUND_BYTES (ROUND_INPUTS * (sizeof(uint32_t) + INPUT_BYTES_MAX))

/* The inputs of this round, each after its size; a size of 0 ends them. */
struct round {
    unsigned inputs;
    size_t size;
    unsigned char *bytes;
    unsigned char *copies[ROUND_INPUTS * STEPS_MAX]; /* of the messages */
    size_t copy_count;
};

static struct round now;

/* Batches */

static void
drop_batch(void)
{
    owner_abort(&at->owner);
    world_copy(&at->open, &at->committed);
}

static void
commit_batch(void)
{
    struct fault fault = {.text = ""};
    enum status status = owner_commit(&at->owner, &fault);
    if (status == FULL && at->tight) {
        world_copy(&at->open, &at->committed);
        return;
    }
    must(status, "commit", &fault);
    world_begin_batch(&at->open);
    world_copy(&at->committed, &at->open);
}

/* As the operations do it: for what the short way leaves. */
static enum outcome
apply_generally(const struct request *request, enum result *result)
{
    struct target target;
    target_open(&at->owner, request->table, &target);
    if (any_touched(&at->owner, &target, request)) {
        commit_batch();
    }
    *result = RESULT_NUMBER;
    bool puts = request->operation == PUT || request->operation == PUT_MANY;
    enum status status = puts ? apply_puts(&at->owner, &target, request)
                              : apply_one(&at->owner, &target, request, result);
    return status == FINE ? STAGED : HALF_DONE;
}

static void
check_outcome(const struct request *request, enum outcome outcome)
{
    uint64_t least = request->operation == DELETE ? 2 : 1;
    bool few = world_table(&at->open, request->table) < least;
    bool touched = !few && world_touches(&at->open, request);
    if ((outcome == BLOCKED) != touched) {
        give_up("a key is %s, and the outcome %d", touched ? "touched" : "not touched",
                (int)outcome);
    }
    if (few ? outcome != GENERAL : !at->tight && (outcome == GENERAL || outcome == HALF_DONE)) {
        give_up("a request that is %s has the outcome %d", few ? "general" : "plain", (int)outcome);
    }
}

static void
apply_message(struct span message)
{
    struct request request;
    enum result result = RESULT_NONE;
    if (!request_parse(message, IN_FLIGHT, &request)) {
        return;
    }
    check_parsed(message, &request);
    if (!world_has_room(&at->open, &request)) {
        return;
    }
    enum outcome outcome = apply_request(&at->owner, &request, &result);
    check_outcome(&request, outcome);
    if (outcome == BLOCKED) {
        commit_batch();
        outcome = apply_request(&at->owner, &request, &result);
        check_outcome(&request, outcome);
    }
    if (outcome == GENERAL) {
        outcome = apply_generally(&request, &result);
    }
    if (outcome == HALF_DONE) {
        if (!at->tight) {
            give_up("a request was half done");
        }
        drop_batch();
        return;
    }
    enum result expected = world_apply(&at->open, &request, owner_committed(&at->owner) + 1);
    if (result != expected) {
        give_up("the result is %d instead of %d", (int)result, (int)expected);
    }
}

static void
take_step(const struct step *step)
{
    struct fault fault = {.text = ""};
    unsigned char *copy = malloc(step->size); /* of its very size, so that no byte beyond is read */
    struct span message = {copy, step->size};
    bool more;
    now.copies[now.copy_count++] = copy;
    if (copy == NULL) {
        return;
    }
    memcpy(copy, step->message, step->size);
    if (step->deed == WALK) {
        walk_bytes(message);
        return;
    }
    apply_message(message);
    switch (step->deed) {
    case COMMIT:
        commit_batch();
        break;
    case ABORT:
        drop_batch();
        break;
    case SETTLE:
        commit_batch();
        must(heap_settle(&at->owner.staging.heap, &more, &fault), "settle", &fault);
        break;
    default:
        break;
    }
}

/* Rounds */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
round_note(const uint8_t *data, uint32_t size)
{
    uint32_t none = 0;
    memcpy(now.bytes + now.size, &size, sizeof size);
    memcpy(now.bytes + now.size + sizeof size, data, size);
    now.size += sizeof size + size;
    if (now.size < ROUND_BYTES) {
        memcpy(now.bytes + now.size, &none, sizeof none);
    }
}

/* The writers die, and the next ones find everything that was committed. */
static void
round_end(void)
{
    for (at = stores; at < stores + STATES; at++) {
        if (at->used) {
            uint64_t before = unused();
            owner_close(&at->owner);
            take_over();
            check_records(true);
            if (unused() != before) {
                give_up("%llu granules are unused and the next writer finds %llu",
                        (unsigned long long)before, (unsigned long long)unused());
            }
            owner_close(&at->owner);
            store_reset(at);
        }
    }
    while (now.copy_count) {
        free(now.copies[--now.copy_count]);
    }
    now.inputs = 0;
    now.size = 0;
}

static void
replay(const char *path)
{
    static unsigned char bytes[ROUND_BYTES + sizeof(uint32_t)];
    uint32_t size;
    FILE *file = fopen(path, "rb");
    if (file == NULL || fread(bytes, 1, ROUND_BYTES, file) == 0) {
        give_up("%s cannot be read", path);
    }
    fclose(file);
    for (size_t offset = 0; offset < ROUND_BYTES; offset += sizeof size + size) {
        memcpy(&size, bytes + offset, sizeof size);
        if (size == 0 || size > ROUND_BYTES - offset) {
            break;
        }
        LLVMFuzzerTestOneInput(bytes + offset + sizeof size, size);
    }
    round_end();
}

/* The entries */

static void
begin(void)
{
    const char *path = getenv("SHMSTORE_FUZZ_ROUND"), *again = getenv("SHMSTORE_FUZZ_REPLAY");
    int file = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    int flags = path ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
    if (path && (file < 0 || ftruncate(file, ROUND_BYTES) < 0)) {
        give_up("%s cannot be written", path);
    }
    now.bytes = mmap(NULL, ROUND_BYTES, PROT_READ | PROT_WRITE, flags, file, 0);
    if (now.bytes == MAP_FAILED) {
        give_up("there is no memory to note inputs");
    }
    for (int state = 0; state < STATES; state++) {
        store_begin(state);
        store_reset(at);
    }
    if (again) {
        replay(again);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct step steps[STEPS_MAX];
    if (now.bytes == NULL) {
        begin();
    }
    if (size == 0 || size > INPUT_BYTES_MAX) {
        return 0;
    }
    round_note(data, (uint32_t)size);
    at = &stores[data[0] % STATES];
    at->used = true;
    size_t count = steps_of(data, size, steps);
    for (size_t i = 0; i < count; i++) {
        take_step(&steps[i]);
    }
    drop_batch();
    check_records(false);
    if (++now.inputs == ROUND_INPUTS || at->committed.count > ROUND_RECORDS) {
        round_end();
    }
    return 0;
}

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed)
{
    struct step steps[STEPS_MAX];
    uint64_t random = seed;
    struct composed out = {.size = 0};
    size_t count = size ? steps_of(data, size, steps) : 0;
    unsigned changed = chance(&random, (uint32_t)count + 1);
    compose_byte(&out, chance(&random, 16) || !size ? (size ? data[0] : 0) : chance(&random, 256));
    for (size_t i = 0; i < count; i++) {
        if (i == changed) {
            compose_changed(&out, &random, &steps[i]);
        }
        else {
            compose_step(&out, steps[i].deed, steps[i].message, steps[i].size);
        }
    }
    if (changed == count) {
        struct composed fresh = {.size = 0};
        compose_request(&fresh, &random);
        compose_step(&out, (enum deed)chance(&random, WALK), fresh.bytes, fresh.size);
    }
    size = out.size < size_max ? out.size : size_max;
    memcpy(data, out.bytes, size);
    return size;
}
