/* A writer that dies of its stores: each store to a segment is paid for, and who has nothing left
   is killed before it. Only in builds with SHMSTORE_STORE_BUDGET; torture/stores/life.py has the
   other end of the account, which all processes share that find the file in their environment. */

#ifndef SHMSTORE_BUDGET_H
#define SHMSTORE_BUDGET_H

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* What the writer shares with those who want it dead. */
struct budget {
    int64_t left;  /* stores until the kill; negative: as many as it likes */
    int64_t next;  /* what its successor has left */
    int64_t spent; /* stores since somebody set this to zero */
    int64_t kills; /* likewise */
    int64_t also;  /* a process that is killed with the writer; 0: none */
};

static volatile struct budget *store_budget;

__attribute__((cold, noinline)) static void
open_budget(void)
{
    const char *path = getenv("SHMSTORE_STORE_BUDGET");
    int file = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    void *bytes = MAP_FAILED;
    if (file >= 0) {
        bytes = mmap(NULL, sizeof *store_budget, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        close(file);
    }
    if (bytes == MAP_FAILED) {
        abort();
    }
    store_budget = bytes;
}

__attribute__((cold, noinline)) static void
be_killed(void)
{
    store_budget->left = store_budget->next;
    store_budget->next = -1;
    store_budget->kills++;
    if (store_budget->also > 0) {
        kill((pid_t)store_budget->also, SIGKILL);
    }
    kill(getpid(), SIGKILL);
}

static inline void
spend_store(void)
{
    if (store_budget == NULL) {
        open_budget();
    }
    if (store_budget->left == 0) {
        be_killed();
    }
    if (store_budget->left > 0) {
        store_budget->left--;
    }
    store_budget->spent++;
}

#endif
