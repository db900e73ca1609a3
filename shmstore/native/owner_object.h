/* What an Owner is, how every call of it enters the core and leaves it, and the record it names.

   While the core is at work it may call back for memory of the system; until it returns, every
   other call on the same owner is refused. */

#ifndef SHMSTORE_OWNER_OBJECT_H
#define SHMSTORE_OWNER_OBJECT_H

#include "sequences.h" /* the first, as it includes Python.h */

#include "owner.h"

/* The callables under the core, and the first exception of theirs that is no OSError. */
struct callbacks {
    PyObject *extend;
    PyObject *release;
    PyObject *raised;
};

typedef struct {
    PyObject_HEAD PyObject *memory;
    ReaderObject *reader;
    struct callbacks callbacks;
    Py_buffer buffer;
    bool has_buffer;
    bool is_open;
    bool busy;
    struct owner owner;
} OwnerObject;

static PyTypeObject *OwnerType, *FoundType;

/* Exceptions that wait */

static PyObject *
take_exception(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

static void
raise_again(PyObject **exception)
{
    PyErr_SetObject((PyObject *)Py_TYPE(*exception), *exception);
    Py_CLEAR(*exception);
}

static void
say_why(PyObject *exception, char *why, size_t why_size)
{
    PyObject *text = PyObject_Str(exception);
    const char *bytes = text ? PyUnicode_AsUTF8(text) : NULL;
    snprintf(why, why_size, "%s", bytes ? bytes : "");
    PyErr_Clear();
    Py_XDECREF(text);
}

static bool
call_back(struct callbacks *callbacks, PyObject *callable, uint64_t offset, uint64_t size)
{
    if (callbacks->raised != NULL || callable == NULL) {
        return false;
    }
    PyObject *result =
        PyObject_CallFunction(callable, "KK", (unsigned long long)offset, (unsigned long long)size);
    if (result == NULL) {
        callbacks->raised = take_exception();
        return false;
    }
    Py_DECREF(result);
    return true;
}

static bool
system_extend(void *context, uint64_t offset, uint64_t size, char *why, size_t why_size)
{
    struct callbacks *callbacks = context;
    bool extended = call_back(callbacks, callbacks->extend, offset, size);
    PyObject *raised = callbacks->raised;
    if (!extended && raised && PyObject_TypeCheck(raised, (PyTypeObject *)PyExc_OSError)) {
        say_why(raised, why, why_size);
        Py_CLEAR(callbacks->raised);
    }
    return extended;
}

static void
system_release(void *context, uint64_t offset, uint64_t size)
{
    struct callbacks *callbacks = context;
    call_back(callbacks, callbacks->release, offset, size);
}

static struct system
system_of(OwnerObject *self)
{
    struct system system = {&self->callbacks, system_extend, system_release};
    return system;
}

static void
raise_full(const struct fault *fault, bool with_details)
{
    /* The system's own words in it may have been cut inside a letter. */
    PyObject *text = PyUnicode_DecodeUTF8(fault->text, (Py_ssize_t)strlen(fault->text), "replace");
    PyObject *arguments = text ? PyTuple_Pack(1, text) : NULL, *details = NULL, *error = NULL;
    Py_XDECREF(text);
    if (with_details) {
        details = Py_BuildValue("{sKsKsK}", "requested", (unsigned long long)fault->requested,
                                "used", (unsigned long long)fault->used, "capacity",
                                (unsigned long long)fault->capacity);
    }
    if (arguments != NULL && (details != NULL || !with_details)) {
        error = PyObject_Call(StoreFullError, arguments, details);
    }
    if (error != NULL) {
        PyErr_SetObject(StoreFullError, error);
    }
    Py_XDECREF(error);
    Py_XDECREF(details);
    Py_XDECREF(arguments);
}

static void
raise_status(enum status status, const struct fault *fault)
{
    switch (status) {
    case FULL:
    case EXHAUSTED:
        raise_full(fault, status == FULL);
        break;
    case NO_MEMORY:
        PyErr_NoMemory();
        break;
    case CORRUPT:
        PyErr_SetString(CorruptSegmentError, fault->text);
        break;
    default:
        PyErr_Format(CorruptSegmentError, "the segment is damaged: %s", fault->text);
    }
}

static struct span
span_of(PyObject *bytes)
{
    struct span span = {PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)};
    return span;
}

/* Every use of the core stands between these two. */

static int
owner_check_open(const OwnerObject *self)
{
    if (!self->is_open) {
        PyErr_SetString(PyExc_ValueError, "the owner is closed");
        return -1;
    }
    return 0;
}

static int
owner_enter(OwnerObject *self)
{
    if (owner_check_open(self) < 0) {
        return -1;
    }
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "the owner is at work; it serves one thread");
        return -1;
    }
    self->busy = true;
    return 0;
}

static int
owner_leave(OwnerObject *self, enum status status, const struct fault *fault)
{
    self->busy = false;
    if (self->callbacks.raised != NULL) {
        raise_again(&self->callbacks.raised);
        return -1;
    }
    if (status != FINE) {
        raise_status(status, fault);
        return -1;
    }
    return 0;
}

/* A record by its table, namespace and key, with what leads to it. */
struct named {
    PyObject *name;
    struct span table;
    struct key_view key;
    struct lead lead;
};

static int
named_open(const OwnerObject *self, struct named *named, PyObject *const record[3])
{
    named->name = list_name_object(record[0], record[1], NULL);
    if (named->name == NULL) {
        return -1;
    }
    if (key_parts(record[2], &named->key) < 0) {
        Py_DECREF(named->name);
        return -1;
    }
    if (owner_check_open(self) < 0) {
        Py_DECREF(named->name);
        key_release(&named->key);
        return -1;
    }
    struct span key = {named->key.bytes, named->key.size};
    named->table = span_of(named->name);
    named->lead = owner_lead(&self->owner, named->table, named->key.key_class, key);
    return 0;
}

static void
named_close(struct named *named)
{
    Py_DECREF(named->name);
    key_release(&named->key);
}

#endif
