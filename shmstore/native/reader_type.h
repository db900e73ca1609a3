/* Reader: lookups from any process, without a lock and without a store.

   Each method is one snapshot: it notes the clock and the committed sequence, reads, and is
   accepted only if the horizon has not passed its clock meanwhile; else it starts over. */

#ifndef SHMSTORE_READER_TYPE_H
#define SHMSTORE_READER_TYPE_H

#include "support.h"

#include <time.h>

/* Values of more bytes, and walks of more elements, are copied without the interpreter's lock. */
#define UNLOCKED_BYTES_MIN (1 << 18)
#define UNLOCKED_ELEMENTS_MIN 512

typedef struct {
    PyObject_HEAD struct lookup lookup;
    Py_buffer buffer;
    unsigned users; /* reads during which other code may run, that of other threads too */
    bool closed;
    unsigned long long retries;
    char segment_id[16];
} ReaderObject;

static PyTypeObject *ReaderType;

/* One read: its snapshot, and how often it had to begin again. */
struct reading {
    struct window window;
    unsigned tries;
    double started;
    struct fault fault;
};

enum verdict { ACCEPTED, AGAIN, RAISED };

static double
seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int
reader_check_open(const ReaderObject *self)
{
    if (self->closed) {
        PyErr_SetString(PyExc_ValueError, "the reader is closed");
        return -1;
    }
    return 0;
}

static inline void
reading_begin(const ReaderObject *self, struct reading *reading)
{
    reading->tries = 0;
    reading->window = read_begin(&self->lookup.memory);
}

/* The slow half of reading_end(): begin again, or give up. */
static enum verdict
reading_again(ReaderObject *self, struct reading *reading)
{
    self->retries++;
    double now = seconds_now();
    if (reading->tries++ == 0) {
        reading->started = now;
    }
    if (reading->tries >= READ_TRIES_MAX || now - reading->started > READ_SECONDS_MAX) {
        PyErr_SetNone(ReadStalledError);
        return RAISED;
    }
    reading->window = read_begin(&self->lookup.memory);
    return AGAIN;
}

/* Judge what was read. RAISED leaves an exception; one that was raised by what was read before
   counts only if nothing of it was overtaken. */
static inline enum verdict
reading_end(ReaderObject *self, struct reading *reading, enum status status)
{
    bool accepted = status != OVERTAKEN && read_accept(&self->lookup.memory, reading->window.clock);
    if (accepted && status == FINE) {
        return ACCEPTED;
    }
    if (!accepted) {
        return reading_again(self, reading);
    }
    if (status == NO_MEMORY) {
        PyErr_NoMemory();
    }
    else {
        PyErr_Format(CorruptSegmentError, "the segment is damaged: %s", reading->fault.text);
    }
    return RAISED;
}

/* Between these two the memory stays, even if somebody closes the reader. */

static inline void
reader_hold(ReaderObject *self)
{
    self->users++;
}

static inline void
reader_let_go(ReaderObject *self)
{
    if (--self->users == 0 && self->closed) {
        PyBuffer_Release(&self->buffer);
    }
}

static inline void
reader_unlock(ReaderObject *self, PyThreadState **state)
{
    reader_hold(self);
    *state = PyEval_SaveThread();
}

static void
reader_lock_again(ReaderObject *self, PyThreadState *state)
{
    PyEval_RestoreThread(state);
    reader_let_go(self);
}

/* Copy the value of the entry at ``entry`` into new bytes. */
static inline enum status
copy_value(ReaderObject *self, struct reading *reading, uint64_t entry, PyObject **value)
{
    const struct memory *memory = &self->lookup.memory;
    struct shape shape = load_shape(memory, entry);
    uint64_t offset;
    enum status status = find_value(memory, entry, &shape, &offset, &reading->fault);
    if (status != FINE) {
        return status;
    }
    bool large = shape.value_size >= UNLOCKED_BYTES_MIN;
    /* A size that was overtaken must not cost its memory. */
    if (large && !read_accept(memory, reading->window.clock)) {
        return OVERTAKEN;
    }
    *value = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)shape.value_size);
    if (*value == NULL) {
        PyErr_Clear();
        return NO_MEMORY;
    }
    char *target = PyBytes_AS_STRING(*value);
    if (large) {
        PyThreadState *state;
        reader_unlock(self, &state);
        bytes_load(memory, offset, target, shape.value_size);
        reader_lock_again(self, state);
        return self->closed ? OVERTAKEN : FINE;
    }
    bytes_load(memory, offset, target, shape.value_size);
    return FINE;
}

/* After the lock was given up another thread may have closed the reader: nothing may be read. */
static inline int
reader_still_open(const ReaderObject *self)
{
    return self->closed ? reader_check_open(self) : 0;
}

/* Return the value of a record; NULL without an exception if there is none. */
static inline PyObject *
reader_value(ReaderObject *self, uint64_t scope, const struct key_view *key, uint64_t *version)
{
    struct lookup *lookup = &self->lookup;
    struct lead lead = record_lead(lookup, scope, key->key_class, key->bytes, key->size);
    struct reading reading;
    enum verdict verdict;
    PyObject *value;
    reading_begin(self, &reading);
    do {
        uint64_t entry;
        value = NULL;
        enum status status =
            find_record(lookup, &lead, reading.window.committed, &entry, &reading.fault);
        if (status == FINE && entry) {
            *version = word_load(&lookup->memory, entry + SEQ_FIELD);
            status = copy_value(self, &reading, entry, &value);
        }
        if (reader_still_open(self) < 0) {
            Py_XDECREF(value);
            return NULL;
        }
        verdict = reading_end(self, &reading, status);
        if (verdict != ACCEPTED) {
            Py_CLEAR(value);
        }
    } while (verdict == AGAIN);
    return value;
}

/* Find the version of a record: 1, 0 if there is none, or -1 with an exception. */
static inline int
reader_version(ReaderObject *self, uint64_t scope, const struct key_view *key, uint64_t *version)
{
    struct lookup *lookup = &self->lookup;
    struct lead lead = record_lead(lookup, scope, key->key_class, key->bytes, key->size);
    struct reading reading;
    enum verdict verdict;
    uint64_t entry;
    reading_begin(self, &reading);
    do {
        *version = 0;
        enum status status =
            find_record(lookup, &lead, reading.window.committed, &entry, &reading.fault);
        if (status == FINE && entry) {
            *version = word_load(&lookup->memory, entry + SEQ_FIELD);
        }
        verdict = reading_end(self, &reading, status);
    } while (verdict == AGAIN);
    return verdict == ACCEPTED ? entry != 0 : -1;
}

/* Construction */

static int
reader_check_header(ReaderObject *self)
{
    const struct memory *memory = &self->lookup.memory;
    uint64_t version = word_load(memory, VERSION_WORD);
    uint64_t capacity = word_load(memory, CAPACITY_WORD);
    uint64_t size = (uint64_t)self->buffer.len;
    if (version == FORMAT_VERSION && capacity == size) {
        return 0;
    }
    PyObject *kind = CorruptSegmentError, *text, *details = PyDict_New();
    if (version != FORMAT_VERSION) {
        kind = FormatMismatchError;
        text = PyUnicode_FromFormat("the segment has format %llu, this shmstore reads %d; use the "
                                    "same version in all processes",
                                    (unsigned long long)version, FORMAT_VERSION);
        PyObject *found = PyLong_FromUnsignedLongLong(version);
        PyObject *expected = PyLong_FromLong(FORMAT_VERSION);
        if (!details || !found || !expected || PyDict_SetItemString(details, "found", found) < 0 ||
            PyDict_SetItemString(details, "expected", expected) < 0) {
            Py_CLEAR(details);
        }
        Py_XDECREF(found);
        Py_XDECREF(expected);
    }
    else {
        text = PyUnicode_FromFormat("the segment says %llu bytes and has %llu",
                                    (unsigned long long)capacity, (unsigned long long)size);
    }
    PyObject *arguments = text ? PyTuple_Pack(1, text) : NULL;
    PyObject *error = arguments && details ? PyObject_Call(kind, arguments, details) : NULL;
    if (error != NULL) {
        PyErr_SetObject(kind, error);
    }
    Py_XDECREF(error);
    Py_XDECREF(arguments);
    Py_XDECREF(text);
    Py_XDECREF(details);
    return -1;
}

static PyObject *
reader_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"memory", NULL};
    PyObject *exporter;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O:Reader", names, &exporter)) {
        return NULL;
    }
    ReaderObject *self = (ReaderObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->closed = true;
    if (PyObject_GetBuffer(exporter, &self->buffer, PyBUF_SIMPLE) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->closed = false;
    struct memory memory = {self->buffer.buf, (uint64_t)self->buffer.len / WORD_BYTES};
    if (self->buffer.len < HEAP_START || self->buffer.len % GRANULE_BYTES ||
        (uintptr_t)self->buffer.buf % WORD_BYTES ||
        word_load_acquire(&memory, MAGIC_WORD) != MAGIC) {
        PyErr_SetString(FormatMismatchError, "this memory holds no shmstore segment");
        Py_DECREF(self);
        return NULL;
    }
    lookup_open(&self->lookup, self->buffer.buf, (uint64_t)self->buffer.len);
    bytes_load(&self->lookup.memory, SEGMENT_ID_WORD * WORD_BYTES, self->segment_id,
               sizeof self->segment_id);
    if (reader_check_header(self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyObject *
reader_close(ReaderObject *self, PyObject *Py_UNUSED(unused))
{
    if (!self->closed) {
        self->closed = true;
        if (self->users == 0) {
            PyBuffer_Release(&self->buffer);
        }
    }
    Py_RETURN_NONE;
}

static void
reader_dealloc(ReaderObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (!self->closed) {
        PyBuffer_Release(&self->buffer);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

/* Lookups */

static int
scope_of(PyObject *number, uint64_t *scope)
{
    *scope = PyLong_AsUnsignedLongLong(number);
    return *scope == UINT64_MAX && PyErr_Occurred() ? -1 : 0;
}

static int
check_count(const char *method, Py_ssize_t count, Py_ssize_t wanted)
{
    if (count != wanted) {
        PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd", method, wanted, count);
        return -1;
    }
    return 0;
}

static PyObject *
reader_scope(ReaderObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (check_count("scope", count, 2) < 0 || reader_check_open(self) < 0) {
        return NULL;
    }
    PyObject *name = list_name_object(arguments[0], arguments[1], NULL);
    if (name == NULL) {
        return NULL;
    }
    uint64_t scope =
        list_hash(&self->lookup, PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name));
    Py_DECREF(name);
    return PyLong_FromUnsignedLongLong(scope);
}

static int
lookup_arguments(ReaderObject *self, const char *method, PyObject *const *arguments,
                 Py_ssize_t count, uint64_t *scope, struct key_view *key)
{
    if (check_count(method, count, 2) < 0 || scope_of(arguments[0], scope) < 0 ||
        key_parts(arguments[1], key) < 0) {
        return -1;
    }
    /* Last, as a key of a rare type runs other code. */
    if (reader_check_open(self) < 0) {
        key_release(key);
        return -1;
    }
    return 0;
}

static PyObject *
none_unless_raised(void)
{
    if (PyErr_Occurred()) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
reader_get(ReaderObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    uint64_t scope, version;
    struct key_view key;
    if (lookup_arguments(self, "get", arguments, count, &scope, &key) < 0) {
        return NULL;
    }
    PyObject *value = reader_value(self, scope, &key, &version);
    key_release(&key);
    return value ? value : none_unless_raised();
}

static PyObject *
reader_get_versioned(ReaderObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    uint64_t scope, version;
    struct key_view key;
    if (lookup_arguments(self, "get_versioned", arguments, count, &scope, &key) < 0) {
        return NULL;
    }
    PyObject *value = reader_value(self, scope, &key, &version);
    key_release(&key);
    return value ? Py_BuildValue("KN", (unsigned long long)version, value) : none_unless_raised();
}

static PyObject *
reader_version_method(ReaderObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    uint64_t scope, version;
    struct key_view key;
    if (lookup_arguments(self, "version", arguments, count, &scope, &key) < 0) {
        return NULL;
    }
    int outcome = reader_version(self, scope, &key, &version);
    key_release(&key);
    if (outcome <= 0) {
        return none_unless_raised();
    }
    return PyLong_FromUnsignedLongLong(version);
}

static PyObject *
reader_contains(ReaderObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    uint64_t scope, version;
    struct key_view key;
    if (lookup_arguments(self, "contains", arguments, count, &scope, &key) < 0) {
        return NULL;
    }
    int outcome = reader_version(self, scope, &key, &version);
    key_release(&key);
    return outcome < 0 ? NULL : PyBool_FromLong(outcome);
}

/* Look up all leads in one snapshot; ``values`` gets bytes or None for each. */
static enum status
copy_many(ReaderObject *self, struct reading *reading, const struct lead *leads, PyObject *values)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(values); i++) {
        uint64_t entry;
        PyObject *value = NULL;
        enum status status = find_record(&self->lookup, &leads[i], reading->window.committed,
                                         &entry, &reading->fault);
        if (status == FINE && entry) {
            status = copy_value(self, reading, entry, &value);
        }
        if (status != FINE) {
            Py_XDECREF(value);
            return status;
        }
        if (value == NULL) {
            value = Py_None;
            Py_INCREF(value);
        }
        PyList_SetItem(values, i, value);
    }
    return FINE;
}

static PyObject *
values_of(ReaderObject *self, const struct lead *leads, Py_ssize_t count)
{
    struct reading reading;
    enum verdict verdict;
    PyObject *values = PyList_New(count);
    if (values == NULL || reader_check_open(self) < 0) {
        Py_XDECREF(values);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_INCREF(Py_None);
        PyList_SET_ITEM(values, i, Py_None);
    }
    reading_begin(self, &reading);
    do {
        enum status status = copy_many(self, &reading, leads, values);
        verdict = reader_still_open(self) < 0 ? RAISED : reading_end(self, &reading, status);
    } while (verdict == AGAIN);
    if (verdict == RAISED) {
        Py_CLEAR(values);
    }
    return values;
}

static PyObject *
reader_get_many(ReaderObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    uint64_t scope;
    if (check_count("get_many", count, 2) < 0 || reader_check_open(self) < 0 ||
        scope_of(arguments[0], &scope) < 0) {
        return NULL;
    }
    PyObject *keys = PySequence_List(arguments[1]), *values = NULL;
    if (keys == NULL) {
        return NULL;
    }
    Py_ssize_t size = PyList_GET_SIZE(keys), known = 0;
    struct lead *leads = PyMem_Calloc((size_t)size + 1, sizeof *leads);
    struct key_view *views = PyMem_Calloc((size_t)size + 1, sizeof *views);
    if (leads == NULL || views == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (; known < size; known++) {
        struct key_view *view = &views[known];
        if (key_parts(PyList_GET_ITEM(keys, known), view) < 0) {
            goto done;
        }
        leads[known] = record_lead(&self->lookup, scope, view->key_class, view->bytes, view->size);
    }
    values = values_of(self, leads, size);
done:
    for (Py_ssize_t i = 0; i < known; i++) {
        key_release(&views[i]);
    }
    PyMem_Free(leads);
    PyMem_Free(views);
    Py_DECREF(keys);
    return values;
}

static PyObject *
reader_info(ReaderObject *self, PyObject *Py_UNUSED(unused))
{
    if (reader_check_open(self) < 0) {
        return NULL;
    }
    const struct memory *memory = &self->lookup.memory;
    PyObject *segment = PyObject_GetAttrString((PyObject *)self, "segment_id");
    PyObject *hex = segment ? PyObject_CallMethod(segment, "hex", NULL) : NULL;
    Py_XDECREF(segment);
    if (hex == NULL) {
        return NULL;
    }
    return Py_BuildValue("{sNsKsKsKsKsKsKsK}", "segment", hex, "capacity",
                         (unsigned long long)self->buffer.len, "committed",
                         (unsigned long long)word_load(memory, COMMITTED_WORD), "free_clock",
                         (unsigned long long)word_load(memory, FREE_CLOCK_WORD), "horizon",
                         (unsigned long long)word_load(memory, HORIZON_WORD), "index_depth",
                         (unsigned long long)(word_load(memory, ROOT_WORD) >> DEPTH_SHIFT),
                         "insertions", (unsigned long long)word_load(memory, NEXT_INSERTION_WORD),
                         "extended", (unsigned long long)word_load(memory, EXTENT_END_WORD));
}

static PyObject *
reader_segment_id(ReaderObject *self, void *Py_UNUSED(closure))
{
    return PyBytes_FromStringAndSize(self->segment_id, sizeof self->segment_id);
}

static PyObject *
reader_capacity(ReaderObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(self->buffer.len);
}

static PyObject *
reader_retries(ReaderObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(self->retries);
}

#endif
