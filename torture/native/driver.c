/* Drives a fuzz target where there is no libFuzzer: inputs by chance, mutated again and again, but
   nothing that looks at what they reach.

   driver SEED RUNS      so many inputs; says how many it has made
   driver input HEX ...  these inputs

   A target that dies, or takes longer than a minute for a thousand inputs, leaves its input on
   standard error, as the second form takes it. */

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INPUT_BYTES_MAX 1024
#define RECENT 64
#define MUTATIONS_MAX 6
#define ALARM_RUNS 1000
#define ALARM_SECONDS 60

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

struct recent {
    uint8_t data[INPUT_BYTES_MAX];
    size_t size;
};

static struct recent recent[RECENT], present;
static uint64_t state;

static uint32_t
draw(uint32_t limit)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((state >> 33) % limit);
}

/* A byte or some, anywhere. */
size_t
LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size)
{
    if (size < max_size && draw(8) == 0) {
        data[size++] = (uint8_t)draw(256);
    }
    for (uint32_t times = draw(4); size && times; times--) {
        data[draw((uint32_t)size)] ^= (uint8_t)(1u << draw(8));
    }
    return size;
}

/* Only what a handler of signals may do. */
static void
tell(int signal_number)
{
    static const char digits[] = "0123456789abcdef";
    static const char before[] = "\ninput ";
    char hex[2 * INPUT_BYTES_MAX + 1];
    size_t size = 0;
    for (size_t i = 0; i < present.size; i++) {
        hex[size++] = digits[present.data[i] >> 4];
        hex[size++] = digits[present.data[i] & 15];
    }
    hex[size++] = '\n';
    if (write(STDERR_FILENO, before, sizeof before - 1) < 0 ||
        write(STDERR_FILENO, hex, size) < 0) {
        _exit(2);
    }
    _exit(128 + signal_number);
}

static void
run_hex(const char *hex)
{
    unsigned byte;
    for (present.size = 0; present.size < INPUT_BYTES_MAX && sscanf(hex, "%2x", &byte) == 1;
         hex += 2) {
        present.data[present.size++] = (uint8_t)byte;
    }
    LLVMFuzzerTestOneInput(present.data, present.size);
}

static void
run_one(void)
{
    struct recent *kept = &recent[draw(RECENT)];
    present = *kept;
    for (uint32_t times = 1 + draw(MUTATIONS_MAX); times; times--) {
        present.size =
            LLVMFuzzerCustomMutator(present.data, present.size, INPUT_BYTES_MAX, draw(UINT32_MAX));
    }
    LLVMFuzzerTestOneInput(present.data, present.size);
    /* What has grown too much begins anew. */
    *kept = present;
    if (draw(8) == 0) {
        kept->size = 0;
    }
}

int
main(int count, char **arguments)
{
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGALRM};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        signal(signals[i], tell);
    }
    if (count > 1 && strcmp(arguments[1], "input") == 0) {
        for (int i = 2; i < count; i++) {
            alarm(ALARM_SECONDS);
            run_hex(arguments[i]);
        }
        printf("%d runs\n", count - 2);
        return 0;
    }
    if (count != 3) {
        fprintf(stderr, "usage: %s SEED RUNS\n       %s input HEX...\n", arguments[0],
                arguments[0]);
        return 2;
    }
    state = strtoull(arguments[1], NULL, 0);
    unsigned long runs = strtoul(arguments[2], NULL, 0);
    for (unsigned long i = 0; i < runs; i++) {
        if (i % ALARM_RUNS == 0) {
            alarm(ALARM_SECONDS);
        }
        run_one();
    }
    printf("%lu runs\n", runs);
    return 0;
}
