/* Calls of the C library that fail when they are told to: to be preloaded.

   What fails stands in a file that SHMSTORE_FAILING names, and that the processes map: which
   process, which thread of it or all, which function, the first of its calls and how many from
   there. One failing call leaves the world as it was, but for a short one, which does a part. */

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define FUNCTIONS_MAX 64

/* As torture/failing.py has it. A function "*" only counts the calls of each. */
struct order {
    _Atomic uint32_t process; /* 0: nobody. Stored last, and with it all else takes effect. */
    _Atomic uint32_t thread;  /* 0: every one */
    _Atomic uint32_t next;    /* whether the next process that loads this is meant */
    _Atomic int32_t outcome;  /* an errno, or CUT */
    _Atomic int64_t first;
    _Atomic int64_t count;
    _Atomic int64_t seen;
    _Atomic int64_t made;
    char function[32];
    atomic_flag counting;
    struct {
        char function[24];
        int64_t calls;
    } counts[FUNCTIONS_MAX];
};

#define CUT (-1)

static struct order *order;
static uint32_t loaded_in;
static uintptr_t core_start, core_end;

/* The real one, looked up when it is first needed: others may call before our constructor. */
#define REAL(name)                                                                                 \
    ({                                                                                             \
        static void *found;                                                                        \
        if (found == NULL) {                                                                       \
            found = dlsym(RTLD_NEXT, #name);                                                       \
        }                                                                                          \
        (__typeof__(&name))found;                                                                  \
    })

__attribute__((constructor)) static void
load(void)
{
    const char *path = getenv("SHMSTORE_FAILING");
    int file = path ? REAL(open)(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) {
        return;
    }
    void *page = REAL(mmap)(NULL, sizeof *order, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    REAL(close)(file);
    if (page == MAP_FAILED) {
        return;
    }
    loaded_in = (uint32_t)getpid();
    order = page;
    if (atomic_exchange(&order->next, 0)) {
        atomic_store(&order->process, loaded_in);
    }
}

static bool
meant(const char *function)
{
    uint32_t process = order ? atomic_load(&order->process) : 0;
    if (process == 0 || (process != loaded_in && process != (uint32_t)getpid())) {
        return false;
    }
    uint32_t thread = atomic_load(&order->thread);
    return (thread == 0 || thread == (uint32_t)syscall(SYS_gettid)) &&
           (order->function[0] == '*' || strcmp(order->function, function) == 0);
}

static void
count(const char *function)
{
    while (atomic_flag_test_and_set(&order->counting)) {
    }
    for (int i = 0; i < FUNCTIONS_MAX; i++) {
        if (order->counts[i].calls == 0) {
            strcpy(order->counts[i].function, function);
        }
        if (strcmp(order->counts[i].function, function) == 0) {
            order->counts[i].calls++;
            break;
        }
    }
    atomic_flag_clear(&order->counting);
}

/* Return what is to happen to this call: 0, nothing; an errno; or CUT. */
static int
due(const char *function)
{
    int kept = errno, outcome = 0;
    if (meant(function) && order->function[0] == '*') {
        count(function);
    }
    else if (meant(function)) {
        int64_t since = atomic_fetch_add(&order->seen, 1) - atomic_load(&order->first);
        if (since >= 0 && since < atomic_load(&order->count)) {
            atomic_fetch_add(&order->made, 1);
            outcome = atomic_load(&order->outcome);
        }
    }
    errno = kept;
    return outcome;
}

/* Fail if that is due. */
#define MAY_FAIL(function, result)                                                                 \
    do {                                                                                           \
        int outcome_ = due(function);                                                              \
        if (outcome_ > 0) {                                                                        \
            errno = outcome_;                                                                      \
            return result;                                                                         \
        }                                                                                          \
    } while (0)

/* Fail if that is due, or do with one byte. */
#define MAY_CUT(function, size)                                                                    \
    do {                                                                                           \
        int outcome_ = due(function);                                                              \
        if (outcome_ > 0) {                                                                        \
            errno = outcome_;                                                                      \
            return -1;                                                                             \
        }                                                                                          \
        if (outcome_ == CUT && (size) > 1) {                                                       \
            (size) = 1;                                                                            \
        }                                                                                          \
    } while (0)

#define WRAP(kind, result, failed, name, parameters, arguments)                                    \
    result name parameters                                                                         \
    {                                                                                              \
        MAY_FAIL(kind, failed);                                                                    \
        return REAL(name) arguments;                                                               \
    }

/* Memory. Which of it the engine asks for is told by the place of the call. */

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);

static int
find_core(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size, (void)context;
    if (strstr(info->dlpi_name, "/shmstore/_native") == NULL) {
        return 0;
    }
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && part->p_flags & PF_X) {
            core_start = info->dlpi_addr + part->p_vaddr;
            core_end = core_start + part->p_memsz;
        }
    }
    return 1;
}

static bool
memory_denied(void *caller)
{
    if (order == NULL || atomic_load(&order->process) == 0) {
        return false;
    }
    if (meant("core")) {
        if (core_end == 0) {
            dl_iterate_phdr(find_core, NULL);
        }
        bool of_core = (uintptr_t)caller >= core_start && (uintptr_t)caller < core_end;
        if (of_core && due("core")) {
            return true;
        }
    }
    return due("allocate");
}

#define ALLOCATION(call)                                                                           \
    if (memory_denied(__builtin_return_address(0))) {                                              \
        errno = ENOMEM;                                                                            \
        return NULL;                                                                               \
    }                                                                                              \
    return call

void *
malloc(size_t size)
{
    ALLOCATION(__libc_malloc(size));
}

void *
calloc(size_t count, size_t size)
{
    ALLOCATION(__libc_calloc(count, size));
}

void *
realloc(void *block, size_t size)
{
    ALLOCATION(__libc_realloc(block, size));
}

WRAP("mmap", void *, MAP_FAILED, mmap64,
     (void *at, size_t size, int protection, int flags, int file, off64_t offset),
     (at, size, protection, flags, file, offset))
WRAP("madvise", int, -1, madvise, (void *at, size_t size, int advice), (at, size, advice))
WRAP("memfd_create", int, -1, memfd_create, (const char *name, unsigned flags), (name, flags))
WRAP("ftruncate", int, -1, ftruncate64, (int file, off64_t size), (file, size))
WRAP("fchmod", int, -1, fchmod, (int file, mode_t mode), (file, mode))

int
posix_fallocate64(int file, off64_t offset, off64_t size)
{
    int outcome = due("posix_fallocate");
    return outcome > 0 ? outcome : REAL(posix_fallocate64)(file, offset, size);
}

/* Files and directories */

#define MODE_OF(flags, last)                                                                       \
    ({                                                                                             \
        va_list more_;                                                                             \
        mode_t mode_ = 0;                                                                          \
        if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                   \
            va_start(more_, last);                                                                 \
            mode_ = va_arg(more_, mode_t);                                                         \
            va_end(more_);                                                                         \
        }                                                                                          \
        mode_;                                                                                     \
    })

int
open64(const char *path, int flags, ...)
{
    MAY_FAIL("open", -1);
    return REAL(open64)(path, flags, MODE_OF(flags, flags));
}

int
openat64(int folder, const char *path, int flags, ...)
{
    MAY_FAIL("open", -1);
    return REAL(openat64)(folder, path, flags, MODE_OF(flags, flags));
}

int
fcntl64(int file, int command, ...)
{
    va_list more;
    va_start(more, command);
    void *argument = va_arg(more, void *);
    va_end(more);
    MAY_FAIL("fcntl", -1);
    return REAL(fcntl64)(file, command, argument);
}

WRAP("opendir", DIR *, NULL, opendir, (const char *path), (path))
WRAP("stat", int, -1, stat64, (const char *path, struct stat64 *into), (path, into))
WRAP("stat", int, -1, lstat64, (const char *path, struct stat64 *into), (path, into))
WRAP("stat", int, -1, fstat64, (int file, struct stat64 *into), (file, into))
WRAP("stat", int, -1, fstatat64, (int folder, const char *path, struct stat64 *into, int flags),
     (folder, path, into, flags))
WRAP("unlink", int, -1, unlink, (const char *path), (path))
WRAP("mkdir", int, -1, mkdir, (const char *path, mode_t mode), (path, mode))
WRAP("getcwd", char *, NULL, getcwd, (char *into, size_t size), (into, size))
WRAP("flock", int, -1, flock, (int file, int operation), (file, operation))
WRAP("getrandom", ssize_t, -1, getrandom, (void *into, size_t size, unsigned flags),
     (into, size, flags))

ssize_t
read(int file, void *into, size_t size)
{
    MAY_CUT("read", size);
    return REAL(read)(file, into, size);
}

ssize_t
write(int file, const void *from, size_t size)
{
    MAY_CUT("write", size);
    return REAL(write)(file, from, size);
}

/* Pipes, sockets and waiting */

WRAP("pipe", int, -1, pipe, (int ends[2]), (ends))
WRAP("pipe", int, -1, pipe2, (int ends[2], int flags), (ends, flags))
WRAP("poll", int, -1, poll, (struct pollfd * of, nfds_t count, int timeout), (of, count, timeout))
WRAP("epoll_create", int, -1, epoll_create1, (int flags), (flags))
WRAP("epoll_ctl", int, -1, epoll_ctl, (int set, int operation, int file, struct epoll_event *event),
     (set, operation, file, event))
WRAP("epoll_wait", int, -1, epoll_wait,
     (int set, struct epoll_event *events, int count, int timeout), (set, events, count, timeout))
WRAP("socket", int, -1, socket, (int domain, int type, int protocol), (domain, type, protocol))
WRAP("socketpair", int, -1, socketpair, (int domain, int type, int protocol, int ends[2]),
     (domain, type, protocol, ends))
WRAP("bind", int, -1, bind, (int file, const struct sockaddr *to, socklen_t size), (file, to, size))
WRAP("listen", int, -1, listen, (int file, int backlog), (file, backlog))
WRAP("connect", int, -1, connect, (int file, const struct sockaddr *to, socklen_t size),
     (file, to, size))
WRAP("accept", int, -1, accept4, (int file, struct sockaddr *from, socklen_t *size, int flags),
     (file, from, size, flags))
WRAP("getsockopt", int, -1, getsockopt,
     (int file, int level, int name, void *value, socklen_t *size),
     (file, level, name, value, size))
WRAP("setsockopt", int, -1, setsockopt,
     (int file, int level, int name, const void *value, socklen_t size),
     (file, level, name, value, size))
WRAP("getsockname", int, -1, getsockname, (int file, struct sockaddr *own, socklen_t *size),
     (file, own, size))
WRAP("shutdown", int, -1, shutdown, (int file, int how), (file, how))

ssize_t
send(int file, const void *from, size_t size, int flags)
{
    MAY_CUT("send", size);
    return REAL(send)(file, from, size, flags);
}

ssize_t
recv(int file, void *into, size_t size, int flags)
{
    MAY_CUT("recv", size);
    return REAL(recv)(file, into, size, flags);
}

ssize_t
sendmsg(int file, const struct msghdr *message, int flags)
{
    struct msghdr cut = *message;
    struct iovec piece = message->msg_iov[0];
    size_t whole = piece.iov_len, size = whole;
    MAY_CUT("sendmsg", size);
    if (size < whole) {
        piece.iov_len = size;
        cut.msg_iov = &piece;
        cut.msg_iovlen = 1;
    }
    return REAL(sendmsg)(file, &cut, flags);
}

/* EMFILE is not the call's failure: the message comes without its descriptors. */
ssize_t
recvmsg(int file, struct msghdr *message, int flags)
{
    int outcome = due("recvmsg");
    if (outcome > 0 && outcome != EMFILE) {
        errno = outcome;
        return -1;
    }
    size_t whole = message->msg_iov[0].iov_len;
    if (outcome == CUT) {
        message->msg_iov[0].iov_len = 1;
    }
    if (outcome == EMFILE) {
        message->msg_controllen = 0;
    }
    ssize_t received = REAL(recvmsg)(file, message, flags);
    message->msg_iov[0].iov_len = whole;
    return received;
}

/* Processes and threads */

WRAP("fork", pid_t, -1, fork, (void), ())
WRAP("execve", int, -1, execve,
     (const char *path, char *const arguments[], char *const variables[]),
     (path, arguments, variables))
WRAP("waitpid", pid_t, -1, waitpid, (pid_t process, int *status, int options),
     (process, status, options))
WRAP("kill", int, -1, kill, (pid_t process, int number), (process, number))

/* A wrapper cannot return twice; and a copy of the memory serves as well. */
pid_t
vfork(void)
{
    MAY_FAIL("fork", -1);
    return REAL(fork)();
}

int
pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
               void *argument)
{
    int outcome = due("pthread_create");
    return outcome > 0 ? outcome : REAL(pthread_create)(thread, attributes, start, argument);
}
