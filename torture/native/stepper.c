/* Steps a process through its code, one instruction at a time, and sees each change that it makes
   to a segment. For torture/tracing.py, which holds the twin of struct watch. */

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#ifndef __x86_64__
#error "the instruction pointer is found by its name on x86-64"
#endif

#define PAGE_WORDS 512
#define RANGES_MAX 64

struct range {
    uint64_t first, end;
};

struct watch {
    const uint64_t *live; /* the segment */
    uint64_t *known;      /* the segment as it was seen last */
    uint64_t words;
    uint64_t code_start, code_end;
    uint64_t *entry;     /* where the process will enter that code; shared with it */
    uint64_t back;       /* where it will return to that code, if it has called something else */
    uint64_t at;         /* the instruction that comes next */
    uint64_t inside;     /* instructions of the code that were executed */
    uint64_t inside_max; /* that many, and no more */
    uint64_t changed;    /* words, by the last change */
    int32_t pid, status;
    uint64_t range_count;
    struct range ranges[RANGES_MAX]; /* the words that are compared after each instruction */
};

enum outcome { CHANGED, SPENT, STOPPED, REFUSED };

/* Take note of what has changed between two words; return how many words that are. */
static uint64_t
difference(struct watch *watch, uint64_t first, uint64_t end)
{
    uint64_t changed = 0;
    if (memcmp(watch->live + first, watch->known + first, (end - first) * 8) == 0) {
        return 0;
    }
    for (uint64_t i = first; i < end; i++) {
        if (watch->known[i] != watch->live[i]) {
            watch->known[i] = watch->live[i];
            changed++;
        }
    }
    return changed;
}

static bool
is_zero(const uint64_t *words)
{
    uint64_t any = 0;
    for (int i = 0; i < PAGE_WORDS; i++) {
        any |= words[i];
    }
    return any == 0;
}

/* Look at the whole segment; return how many words have changed since the last look. What is
   compared from now on ends ``room`` pages behind every page that is in use. */
__attribute__((visibility("default"))) uint64_t
watch_look(struct watch *watch, uint64_t room)
{
    uint64_t changed = 0, count = 0, until = 0;
    for (uint64_t first = 0; first < watch->words; first += PAGE_WORDS) {
        changed += difference(watch, first, first + PAGE_WORDS);
        if (!is_zero(watch->known + first)) {
            until = first + (room + 1) * PAGE_WORDS;
        }
        if (first >= until) {
            continue;
        }
        if (count == 0 || (watch->ranges[count - 1].end != first && count < RANGES_MAX)) {
            watch->ranges[count++].first = first;
        }
        watch->ranges[count - 1].end = first + PAGE_WORDS;
    }
    watch->range_count = count;
    return changed;
}

/* Take note of what has changed where something is in use, or will be soon. */
static bool
has_changed(struct watch *watch)
{
    watch->changed = 0;
    for (uint64_t i = 0; i < watch->range_count; i++) {
        watch->changed += difference(watch, watch->ranges[i].first, watch->ranges[i].end);
    }
    return watch->changed;
}

static bool
resume(struct watch *watch, enum __ptrace_request how)
{
    if (ptrace(how, watch->pid, NULL, NULL) < 0) {
        return false;
    }
    while (waitpid(watch->pid, &watch->status, 0) < 0) {
        if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

static bool
is_inside(const struct watch *watch)
{
    return watch->code_start <= watch->at && watch->at < watch->code_end;
}

static bool
is_trapped(const struct watch *watch)
{
    return WIFSTOPPED(watch->status) && WSTOPSIG(watch->status) == SIGTRAP;
}

static uint64_t
user_register(const struct watch *watch, size_t offset)
{
    return (uint64_t)ptrace(PTRACE_PEEKUSER, watch->pid, (void *)offset, NULL);
}

static bool
put_debug_register(const struct watch *watch, size_t number, uint64_t value)
{
    size_t field = offsetof(struct user, u_debugreg) + number * sizeof value;
    return ptrace(PTRACE_POKEUSER, watch->pid, (void *)field, (void *)(uintptr_t)value) == 0;
}

/* Let the process run until it does to an address what ``control`` says, or a signal stops it, or
   it ends. */
static bool
run_to(struct watch *watch, uint64_t address, uint64_t control)
{
    return put_debug_register(watch, 0, address) && put_debug_register(watch, 7, control) &&
           resume(watch, PTRACE_CONT) &&
           (!WIFSTOPPED(watch->status) || put_debug_register(watch, 7, 0));
}

#define EXECUTES 1
#define STORES_8_BYTES (1 | 1 << 16 | 2 << 18)

/* The library is loaded here at the same addresses: the process is a fork of this one. */
static bool
is_return(uint64_t address)
{
    const unsigned char *code = (const unsigned char *)(uintptr_t)address;
    return code[0] == 0xc3 || code[0] == 0xc2 || (code[0] == 0xf3 && code[1] == 0xc3);
}

/* Let the process run until it is in the code (again), or a signal stops it, or it ends. What was
   called from there returns there; what was returned to says by a signal when it is over. */
static bool
enter(struct watch *watch)
{
    uint64_t place = watch->back ? watch->back : *watch->entry;
    bool done = place ? run_to(watch, place, EXECUTES) : resume(watch, PTRACE_CONT);
    if (done && is_trapped(watch)) {
        watch->at = user_register(watch, offsetof(struct user_regs_struct, rip));
        watch->back = 0;
    }
    return done;
}

static void
leave(struct watch *watch, uint64_t last)
{
    uint64_t stack = user_register(watch, offsetof(struct user_regs_struct, rsp));
    uint64_t back = (uint64_t)ptrace(PTRACE_PEEKDATA, watch->pid, (void *)(uintptr_t)stack, NULL);
    bool called = watch->code_start <= back && back < watch->code_end && !is_return(last);
    watch->back = called ? back : 0;
    *watch->entry = 0;
}

/* Execute instructions of the code until one has changed the segment, or they are spent, or a
   signal stops the process, or it ends. What is outside runs at full speed; what that stores is
   noticed on its return. */
__attribute__((visibility("default"))) enum outcome
watch_step(struct watch *watch)
{
    for (;;) {
        uint64_t last = watch->at;
        if (!is_inside(watch)) {
            if (!enter(watch)) {
                return REFUSED;
            }
        }
        else if (watch->inside >= watch->inside_max) {
            return SPENT;
        }
        else {
            if (!resume(watch, PTRACE_SINGLESTEP)) {
                return REFUSED;
            }
            watch->inside++;
            watch->at = user_register(watch, offsetof(struct user_regs_struct, rip));
            if (!is_inside(watch)) {
                leave(watch, last);
            }
        }
        if (!is_trapped(watch)) {
            return STOPPED;
        }
        if (has_changed(watch)) {
            return CHANGED;
        }
    }
}

/* Let the process run until a signal stops it, or it ends. */
__attribute__((visibility("default"))) enum outcome
watch_run(struct watch *watch)
{
    return resume(watch, PTRACE_CONT) ? STOPPED : REFUSED;
}

/* Let the process run until it has stored to a word of the segment, or a signal stops it, or it
   ends. */
__attribute__((visibility("default"))) enum outcome
watch_run_until_store(struct watch *watch, uint64_t word)
{
    if (!run_to(watch, (uint64_t)(uintptr_t)(watch->live + word), STORES_8_BYTES)) {
        return REFUSED;
    }
    return is_trapped(watch) ? CHANGED : STOPPED;
}

/* To be called by the process that is to be traced; return an error number or 0. */
__attribute__((visibility("default"))) int
watch_me(void)
{
    return ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0 ? errno : 0;
}

/* See to it that the process, which has stopped, does not outlive this one. */
__attribute__((visibility("default"))) int
watch_bind(int pid)
{
    return ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)PTRACE_O_EXITKILL) < 0 ? errno : 0;
}
