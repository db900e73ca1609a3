/* The reads of many records by position: counts, chunks and pages of order lists. */

#ifndef SHMSTORE_SEQUENCES_H
#define SHMSTORE_SEQUENCES_H

#include "reader_type.h"

/* A list to be read, and from where. */
struct range {
    PyObject *name; /* of the list, as bytes */
    uint64_t scope; /* of its records */
    size_t limit;
    bool newest_first;
    bool has_position;
    int64_t created;
    uint64_t insertion;
    struct key_view cursor; /* of a page: its record's position takes the place of the above */
    bool has_cursor;
};

static PyObject *
reader_count(ReaderObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2 && check_count("count", count, 3) < 0) {
        return NULL;
    }
    PyObject *index = count == 3 ? arguments[2] : NULL;
    PyObject *name = list_name_object(arguments[0], arguments[1], index);
    if (name == NULL || reader_check_open(self) < 0) {
        Py_XDECREF(name);
        return NULL;
    }
    struct reading reading;
    struct leaf_or_inner root;
    enum verdict verdict;
    uint64_t elements;
    reading_begin(self, &reading);
    do {
        enum status status =
            find_head(&self->lookup, PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name),
                      reading.window.committed, &elements, &root, &reading.fault);
        verdict = reading_end(self, &reading, status);
    } while (verdict == AGAIN);
    Py_DECREF(name);
    return verdict == ACCEPTED ? PyLong_FromUnsignedLongLong(elements) : NULL;
}

/* Return [key, value or None, created or None, insertion number] of the record at ``entry``. */
static enum status
copy_item(ReaderObject *self, struct reading *reading, uint64_t entry, bool with_value,
          PyObject **item)
{
    const struct memory *memory = &self->lookup.memory;
    struct shape shape = load_shape(memory, entry);
    struct fault *fault = &reading->fault;
    uint64_t offset, sort;
    enum status status = load_sort(memory, entry, &shape, &sort, fault);
    if (status == FINE) {
        status = find_key(memory, entry, &shape, &offset, fault);
    }
    if (status != FINE) {
        return status;
    }
    char *bytes = PyMem_Malloc((size_t)shape.key_size + 1);
    if (bytes == NULL) {
        return NO_MEMORY;
    }
    bytes_load(memory, offset, bytes, shape.key_size);
    PyObject *key = key_object(shape_class(&shape), bytes, shape.key_size);
    PyMem_Free(bytes);
    if (key == NULL) {
        bool no_memory = PyErr_Occurred();
        PyErr_Clear();
        return no_memory ? NO_MEMORY
                         : fail(fault, DAMAGED, "a key is marked as text but is no UTF-8");
    }
    PyObject *value = NULL, *created = NULL;
    if (with_value) {
        status = copy_value(self, reading, entry, &value);
    }
    if (status == FINE && shape.kind & KIND_SORTED) {
        created = PyLong_FromLongLong((int64_t)(sort - SORT_BIAS));
    }
    if (status == FINE) {
        *item = Py_BuildValue("[OOOK]", key, value ? value : Py_None, created ? created : Py_None,
                              (unsigned long long)load_insertion(memory, entry));
        if (*item == NULL) {
            PyErr_Clear();
            status = NO_MEMORY;
        }
    }
    Py_DECREF(key);
    Py_XDECREF(value);
    Py_XDECREF(created);
    return status;
}

/* Set where the walk begins; *found tells whether the cursor's record is known. */
static enum status
range_begin(ReaderObject *self, const struct range *range, uint64_t committed, struct walk *walk,
            bool *found)
{
    *found = true;
    walk->newest_first = range->newest_first;
    walk->limit = range->limit;
    walk->has_beyond = range->has_position || range->has_cursor;
    if (range->has_cursor) {
        struct lead lead = record_lead(&self->lookup, range->scope, range->cursor.key_class,
                                       range->cursor.bytes, range->cursor.size);
        return find_position(&self->lookup, &lead, committed, found, &walk->beyond, walk->fault);
    }
    walk->beyond.sort = (uint64_t)range->created + SORT_BIAS;
    walk->beyond.insertion = range->insertion;
    return FINE;
}

/* Find the entries of a range, as words in the place of hashes; long walks go on unlocked. */
static enum status
range_find(ReaderObject *self, const struct range *range, struct reading *reading,
           struct elements *found, bool *cursor_found)
{
    uint64_t committed = reading->window.committed, elements;
    struct walk walk = {.memory = &self->lookup.memory, .found = found, .fault = &reading->fault};
    struct leaf_or_inner root;
    found->count = 0;
    enum status status = range_begin(self, range, committed, &walk, cursor_found);
    if (status != FINE || !*cursor_found) {
        return status;
    }
    status =
        find_head(&self->lookup, PyBytes_AS_STRING(range->name),
                  (size_t)PyBytes_GET_SIZE(range->name), committed, &elements, &root, walk.fault);
    if (status != FINE || root.count == 0) {
        return status;
    }
    if (range->has_position && root.width != 3) {
        walk.beyond.sort = 0;
    }
    if (range->limit < UNLOCKED_ELEMENTS_MIN || elements < UNLOCKED_ELEMENTS_MIN) {
        return find_listed(&self->lookup, range->scope, &root, &walk, committed);
    }
    PyThreadState *state;
    reader_unlock(self, &state);
    status = find_listed(&self->lookup, range->scope, &root, &walk, committed);
    reader_lock_again(self, state);
    return self->closed ? OVERTAKEN : status;
}

enum rows { ITEMS, KEYS, VALUES };

static enum status
copy_row(ReaderObject *self, struct reading *reading, uint64_t entry, enum rows rows,
         PyObject **row)
{
    *row = NULL;
    return rows == VALUES ? copy_value(self, reading, entry, row)
                          : copy_item(self, reading, entry, rows == ITEMS, row);
}

/* Return the rows of a range in one snapshot; ``limit`` of them, *more if there were others.
   NULL without an exception if the cursor names no record. */
static PyObject *
range_rows(ReaderObject *self, const struct range *range, enum rows rows, size_t limit, bool *more)
{
    struct elements found = {0};
    struct reading reading;
    enum verdict verdict;
    PyObject *result;
    bool cursor_found = true;
    if (reader_check_open(self) < 0) {
        return NULL;
    }
    /* A new list may set off the garbage collector, and so any code at all. */
    reader_hold(self);
    reading_begin(self, &reading);
    do {
        result = PyList_New(0);
        enum status status =
            result == NULL ? NO_MEMORY : range_find(self, range, &reading, &found, &cursor_found);
        size_t count = found.count < limit ? found.count : limit;
        *more = found.count > limit;
        for (size_t i = 0; status == FINE && i < count; i++) {
            PyObject *row;
            status = copy_row(self, &reading, found.items[i].word_hash, rows, &row);
            if (row != NULL && PyList_Append(result, row) < 0) {
                status = NO_MEMORY;
            }
            Py_XDECREF(row);
        }
        PyErr_Clear();
        verdict = reader_still_open(self) < 0 ? RAISED : reading_end(self, &reading, status);
        if (verdict != ACCEPTED || !cursor_found) {
            Py_CLEAR(result);
        }
    } while (verdict == AGAIN);
    reader_let_go(self);
    free(found.items);
    return result;
}

static int
range_open(ReaderObject *self, struct range *range, PyObject *table, PyObject *namespace,
           PyObject *index)
{
    PyObject *own_name = list_name_object(table, namespace, NULL);
    if (own_name == NULL) {
        return -1;
    }
    range->scope =
        list_hash(&self->lookup, PyBytes_AS_STRING(own_name), (size_t)PyBytes_GET_SIZE(own_name));
    if (index == NULL) {
        range->name = own_name;
        return 0;
    }
    Py_DECREF(own_name);
    range->name = list_name_object(table, namespace, index);
    return range->name == NULL ? -1 : 0;
}

static int
range_limit(PyObject *number, size_t *limit)
{
    Py_ssize_t value = PyNumber_AsSsize_t(number, NULL);
    if (value == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (value < 0) {
        PyErr_SetString(PyExc_ValueError, "a limit is not negative");
        return -1;
    }
    *limit = (size_t)value;
    return 0;
}

static int
range_position(PyObject *position, struct range *range)
{
    PyObject *pair = PySequence_Tuple(position);
    if (pair == NULL) {
        return -1;
    }
    if (PyTuple_GET_SIZE(pair) != 2) {
        PyErr_SetString(PyExc_ValueError, "a position is [created, insertion]");
    }
    else {
        range->has_position = true;
        range->created = PyLong_AsLongLong(PyTuple_GET_ITEM(pair, 0));
        if (!PyErr_Occurred()) {
            range->insertion = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(pair, 1));
        }
    }
    Py_DECREF(pair);
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *
reader_chunk(ReaderObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"table", "namespace",    "index",       "position",
                            "limit", "newest_first", "with_values", NULL};
    PyObject *table, *namespace, *index, *position, *limit, *rows = NULL;
    int newest_first, with_values = 1;
    struct range range = {.limit = SIZE_MAX};
    bool more;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OOOOOp|p:chunk", names, &table,
                                     &namespace, &index, &position, &limit, &newest_first,
                                     &with_values) ||
        reader_check_open(self) < 0) {
        return NULL;
    }
    range.newest_first = newest_first;
    if ((position != Py_None && range_position(position, &range) < 0) ||
        (limit != Py_None && range_limit(limit, &range.limit) < 0)) {
        return NULL;
    }
    if (range_open(self, &range, table, namespace, index) == 0) {
        rows = range_rows(self, &range, with_values ? ITEMS : KEYS, SIZE_MAX, &more);
    }
    Py_XDECREF(range.name);
    return rows;
}

static PyObject *
unknown_cursor(PyObject *cursor, PyObject *table, PyObject *namespace)
{
    PyObject *text = PyUnicode_FromFormat(
        "cursor %R names no record of %R in namespace %R, or one deleted too long ago; start "
        "again from the first page",
        cursor, table, namespace);
    PyObject *arguments = text ? PyTuple_Pack(1, text) : NULL;
    PyObject *details =
        Py_BuildValue("{sOsOsO}", "cursor", cursor, "table", table, "namespace", namespace);
    PyObject *error =
        arguments && details ? PyObject_Call(UnknownCursorError, arguments, details) : NULL;
    if (error != NULL) {
        PyErr_SetObject(UnknownCursorError, error);
    }
    Py_XDECREF(error);
    Py_XDECREF(details);
    Py_XDECREF(arguments);
    Py_XDECREF(text);
    return NULL;
}

static PyObject *
reader_page(ReaderObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"table", "namespace", "limit", "after", "before", NULL};
    PyObject *table, *namespace, *limit_number, *after, *before, *rows = NULL;
    struct range range = {.newest_first = true};
    size_t limit;
    bool more = false;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OOOOO:page", names, &table, &namespace,
                                     &limit_number, &after, &before) ||
        reader_check_open(self) < 0 || range_limit(limit_number, &limit) < 0) {
        return NULL;
    }
    PyObject *cursor = before == Py_None ? after : before;
    range.newest_first = before == Py_None;
    range.limit = limit + 1;
    if (cursor != Py_None) {
        if (key_parts(cursor, &range.cursor) < 0) {
            return NULL;
        }
        range.has_cursor = true;
    }
    if (range_open(self, &range, table, namespace, NULL) == 0) {
        rows = range_rows(self, &range, VALUES, limit, &more);
        if (rows == NULL && !PyErr_Occurred()) {
            unknown_cursor(cursor, table, namespace);
        }
    }
    Py_XDECREF(range.name);
    key_release(&range.cursor);
    if (rows != NULL && !range.newest_first && PyList_Reverse(rows) < 0) {
        Py_CLEAR(rows);
    }
    return rows ? Py_BuildValue("[NO]", rows, more ? Py_True : Py_False) : NULL;
}

static PyMethodDef reader_methods[] = {
    {"scope", (PyCFunction)(void (*)(void))reader_scope, METH_FASTCALL,
     "scope(table, namespace)\n--\n\n"
     "Return the number by which the records of a table in a namespace are found."},
    {"get", (PyCFunction)(void (*)(void))reader_get, METH_FASTCALL,
     "get(scope, key)\n--\n\n"
     "Return a copy of the stored value, or None. Costs a hash, a probe and the copy."},
    {"get_versioned", (PyCFunction)(void (*)(void))reader_get_versioned, METH_FASTCALL,
     "get_versioned(scope, key)\n--\n\nReturn (version, value), or None."},
    {"version", (PyCFunction)(void (*)(void))reader_version_method, METH_FASTCALL,
     "version(scope, key)\n--\n\n"
     "Return the sequence number of the batch that wrote the record, or None."},
    {"contains", (PyCFunction)(void (*)(void))reader_contains, METH_FASTCALL,
     "contains(scope, key)\n--\n\nTell whether the record is there."},
    {"get_many", (PyCFunction)(void (*)(void))reader_get_many, METH_FASTCALL,
     "get_many(scope, keys)\n--\n\n"
     "Return the values of many keys, None where there is none, all of one snapshot."},
    {"count", (PyCFunction)(void (*)(void))reader_count, METH_FASTCALL,
     "count(table, namespace, index=b'')\n--\n\n"
     "Return the number of records of a list; costs one lookup."},
    {"chunk", (PyCFunction)(void (*)(void))reader_chunk, METH_VARARGS | METH_KEYWORDS,
     "chunk(table, namespace, index, position, limit, newest_first, with_values=True)\n--\n\n"
     "Return up to limit records strictly beyond a position [created or 0, insertion]."},
    {"page", (PyCFunction)(void (*)(void))reader_page, METH_VARARGS | METH_KEYWORDS,
     "page(table, namespace, limit, after, before)\n--\n\n"
     "Return [values, has more]: a page, newest first, after or just before a record."},
    {"info", (PyCFunction)reader_info, METH_NOARGS,
     "info()\n--\n\nReturn the numbers of the header."},
    {"close", (PyCFunction)reader_close, METH_NOARGS,
     "close()\n--\n\nLet go of the memory; nothing may be read afterwards."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef reader_attributes[] = {
    {"segment_id", (getter)reader_segment_id, NULL, "The identity of the segment, 16 bytes.", NULL},
    {"capacity", (getter)reader_capacity, NULL, "The size of the segment in bytes.", NULL},
    {"retries", (getter)reader_retries, NULL, "Reads that had to start over, in this process.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_new, reader_new},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_methods, reader_methods},
    {Py_tp_getset, reader_attributes},
    {Py_tp_doc,
     "Reader(memory)\n--\n\n"
     "Reads one segment; any process, any thread. Errors of all methods: CorruptSegment, and\n"
     "ReadStalled when the writer overtook every try. FormatMismatch if the memory holds no\n"
     "segment of this format."},
    {0, NULL},
};

static PyType_Spec reader_spec = {
    .name = "shmstore._native.Reader",
    .basicsize = sizeof(ReaderObject),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = reader_slots,
};

#endif
