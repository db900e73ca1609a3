/* Owner: the writer's batches, as Python calls them. One process, one thread. */

#ifndef SHMSTORE_OWNER_TYPE_H
#define SHMSTORE_OWNER_TYPE_H

#include "apply_type.h"
#include "checking.h"
#include "pins_type.h"

/* Arguments */

/* A sequence of bytes that name indexes. */
struct index_names {
    PyObject *tuple;
    struct span *items;
    struct span few[8];
};

static void
index_names_close(struct index_names *names)
{
    if (names->items != names->few) {
        PyMem_Free(names->items);
    }
    Py_CLEAR(names->tuple);
}

static int
index_names_fill(struct index_names *names, struct indexes *indexes)
{
    for (size_t i = 0; i < indexes->count; i++) {
        PyObject *item = PyTuple_GET_ITEM(names->tuple, (Py_ssize_t)i);
        if (!PyBytes_Check(item)) {
            PyErr_Format(PyExc_TypeError, "an index is named by bytes, not %s",
                         Py_TYPE(item)->tp_name);
            return -1;
        }
        if (PyBytes_GET_SIZE(item) > KEY_BYTES_MAX) {
            PyErr_SetString(PyExc_OverflowError, "the name of an index is too long");
            return -1;
        }
        names->items[i] = span_of(item);
    }
    indexes->items = names->items;
    return 0;
}

/* Look at a sequence, or NULL for none; index_names_close() follows in either case. */
static int
index_names_open(struct index_names *names, PyObject *sequence, struct indexes *indexes)
{
    *indexes = NO_INDEXES;
    names->items = names->few;
    names->tuple = sequence ? PySequence_Tuple(sequence) : NULL;
    if (names->tuple == NULL) {
        return sequence ? -1 : 0;
    }
    size_t count = indexes->count = (size_t)PyTuple_GET_SIZE(names->tuple);
    if (count > sizeof names->few / sizeof *names->few) {
        names->items = PyMem_Malloc(count * sizeof *names->items);
        if (names->items == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    return index_names_fill(names, indexes);
}

/* Construction */

static int
owner_attach(OwnerObject *self)
{
    self->reader = (ReaderObject *)PyObject_CallOneArg((PyObject *)ReaderType, self->memory);
    if (self->reader == NULL) {
        return -1;
    }
    struct system system = system_of(self);
    struct fault fault = {.text = ""};
    self->is_open = true;
    enum status status =
        owner_open(&self->owner, self->buffer.buf, (uint64_t)self->buffer.len, &system);
    if (status == FINE) {
        status = owner_take_over(&self->owner, &fault);
    }
    if (status == DAMAGED) {
        PyErr_Format(CorruptSegmentError, "the segment cannot be taken over: %s", fault.text);
        return -1;
    }
    return owner_leave(self, status, &fault);
}

static int
owner_format(OwnerObject *self)
{
    uint64_t random[2 + SECRET_WORDS];
    PyObject *os = PyImport_ImportModule("os");
    PyObject *bytes = os ? PyObject_CallMethod(os, "urandom", "i", (int)sizeof random) : NULL;
    Py_XDECREF(os);
    if (bytes == NULL || !PyBytes_Check(bytes) || PyBytes_GET_SIZE(bytes) != sizeof random) {
        Py_XDECREF(bytes);
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "os.urandom() gave something else than bytes");
        }
        return -1;
    }
    memcpy(random, PyBytes_AS_STRING(bytes), sizeof random);
    Py_DECREF(bytes);
    struct system system = system_of(self);
    struct fault fault = {.text = ""};
    uint64_t size = (uint64_t)self->buffer.len;
    enum status status = owner_lay_out(self->buffer.buf, size, random, &system, &fault);
    if (owner_leave(self, status, &fault) < 0) {
        return -1;
    }
    owner_mark_formatted(self->buffer.buf, size);
    return 0;
}

static OwnerObject *
owner_make(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"memory", "extend", "release", NULL};
    PyObject *memory, *extend, *release;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OOO:Owner", names, &memory, &extend,
                                     &release)) {
        return NULL;
    }
    OwnerObject *self = (OwnerObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    Py_INCREF(memory);
    Py_INCREF(extend);
    Py_INCREF(release);
    self->memory = memory;
    self->callbacks.extend = extend;
    self->callbacks.release = release;
    self->has_buffer = PyObject_GetBuffer(memory, &self->buffer, PyBUF_WRITABLE) == 0;
    if (self->has_buffer && (self->buffer.len < HEAP_START || self->buffer.len % GRANULE_BYTES ||
                             (uintptr_t)self->buffer.buf % WORD_BYTES)) {
        PyErr_SetString(PyExc_ValueError, "this memory cannot hold a segment");
    }
    if (PyErr_Occurred()) {
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

static PyObject *
owner_method_take_over(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    OwnerObject *self = owner_make(type, arguments, keywords);
    if (self != NULL && owner_attach(self) < 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static PyObject *
owner_method_create(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    OwnerObject *self = owner_make(type, arguments, keywords);
    if (self != NULL && (owner_format(self) < 0 || owner_attach(self) < 0)) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void
owner_let_go(OwnerObject *self)
{
    if (self->is_open) {
        self->is_open = false;
        owner_close(&self->owner);
    }
    if (self->has_buffer) {
        self->has_buffer = false;
        PyBuffer_Release(&self->buffer);
    }
}

static PyObject *
owner_method_close(OwnerObject *self, PyObject *Py_UNUSED(unused))
{
    if (self->is_open && owner_enter(self) < 0) {
        return NULL;
    }
    self->busy = false;
    owner_let_go(self);
    return reader_close(self->reader, NULL);
}

static int
owner_traverse(OwnerObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->memory);
    Py_VISIT(self->reader);
    Py_VISIT(self->callbacks.extend);
    Py_VISIT(self->callbacks.release);
    Py_VISIT(self->callbacks.raised);
    return 0;
}

static int
owner_clear_references(OwnerObject *self)
{
    owner_let_go(self);
    Py_CLEAR(self->memory);
    Py_CLEAR(self->callbacks.extend);
    Py_CLEAR(self->callbacks.release);
    Py_CLEAR(self->callbacks.raised);
    return 0;
}

static void
owner_dealloc(OwnerObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    owner_clear_references(self);
    Py_CLEAR(self->reader);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Reading what the open batch sees */

static PyObject *
found_object(uint64_t version, PyObject *value, uint64_t insertion, bool sorted, uint64_t sort)
{
    PyObject *found = PyStructSequence_New(FoundType);
    PyObject *created = sorted ? PyLong_FromLongLong((int64_t)(sort - SORT_BIAS)) : Py_None;
    if (!sorted) {
        Py_INCREF(created);
    }
    if (found == NULL || created == NULL) {
        Py_XDECREF(found);
        Py_XDECREF(created);
        Py_DECREF(value);
        return NULL;
    }
    PyStructSequence_SetItem(found, 0, PyLong_FromUnsignedLongLong(version));
    PyStructSequence_SetItem(found, 1, value);
    PyStructSequence_SetItem(found, 2, PyLong_FromUnsignedLongLong(insertion));
    PyStructSequence_SetItem(found, 3, created);
    if (PyErr_Occurred()) {
        Py_CLEAR(found);
    }
    return found;
}

static PyObject *
owner_method_find(OwnerObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"table", "namespace", "key", NULL};
    const struct memory *memory = &self->owner.lookup.memory;
    PyObject *record[3], *value = NULL;
    struct named named;
    struct fault fault;
    struct entry entry;
    struct position position;
    uint64_t offset;
    bool found;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OOO:find", names, &record[0], &record[1],
                                     &record[2]) ||
        named_open(self, &named, record) < 0) {
        return NULL;
    }
    if (owner_enter(self) < 0) {
        named_close(&named);
        return NULL;
    }
    enum status status = owner_find(&self->owner, &named.lead, &entry, &found, &fault);
    if (status == FINE && found) {
        uint64_t word = entry.granule * WORDS_PER_GRANULE;
        status = find_value(memory, word, &entry.shape, &offset, &fault);
        if (status == FINE) {
            status = position_of(&self->owner, &entry, &position, &fault);
        }
        if (status == FINE) {
            value = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)entry.shape.value_size);
        }
        if (value != NULL) {
            bytes_load(memory, offset, PyBytes_AS_STRING(value), entry.shape.value_size);
        }
    }
    named_close(&named);
    if (owner_leave(self, status, &fault) < 0) {
        return NULL;
    }
    if (value == NULL) {
        return none_unless_raised();
    }
    return found_object(entry.seq, value, entry.insertion, entry.shape.kind & KIND_SORTED,
                        position.sort);
}

static PyObject *
owner_method_touched(OwnerObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"table", "namespace", "key", NULL};
    PyObject *record[3];
    struct named named;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OOO:touched", names, &record[0],
                                     &record[1], &record[2]) ||
        named_open(self, &named, record) < 0) {
        return NULL;
    }
    bool touched = owner_touched(&self->owner, &named.lead);
    named_close(&named);
    return PyBool_FromLong(touched);
}

static PyObject *
owner_method_count(OwnerObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"table", "namespace", "index", NULL};
    PyObject *table, *namespace, *index = NULL;
    struct fault fault;
    uint64_t count = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OO|O:count", names, &table, &namespace,
                                     &index)) {
        return NULL;
    }
    PyObject *name = list_name_object(table, namespace, index);
    if (name == NULL) {
        return NULL;
    }
    int outcome = owner_enter(self);
    if (outcome == 0) {
        enum status status = owner_count(&self->owner, span_of(name), &count, &fault);
        outcome = owner_leave(self, status, &fault);
    }
    Py_DECREF(name);
    return outcome < 0 ? NULL : PyLong_FromUnsignedLongLong(count);
}

static enum status
chunk_items(OwnerObject *self, const struct elements *found, PyObject *items, struct fault *fault)
{
    struct reading reading;
    enum status status = FINE;
    reading_begin(self->reader, &reading);
    for (size_t i = 0; status == FINE && i < found->count; i++) {
        PyObject *item = NULL;
        status = copy_item(self->reader, &reading, found->items[i].word_hash * WORDS_PER_GRANULE,
                           true, &item);
        if (status == FINE && PyList_Append(items, item) < 0) {
            status = NO_MEMORY;
            PyErr_Clear();
        }
        Py_XDECREF(item);
    }
    if (status == OVERTAKEN) {
        return fail(fault, CORRUPT, "the reader of the owner was closed, or its horizon damaged");
    }
    if (status != FINE) {
        *fault = reading.fault;
    }
    return status;
}

static PyObject *
chunk_of(OwnerObject *self, const struct range *range)
{
    struct elements found = {0};
    struct walk walk = {
        .found = &found,
        .limit = range->limit,
        .newest_first = range->newest_first,
        .has_beyond = range->has_position,
        .beyond = {(uint64_t)range->created + SORT_BIAS, range->insertion},
    };
    struct fault fault;
    PyObject *items = PyList_New(0);
    if (items == NULL || owner_enter(self) < 0) {
        Py_XDECREF(items);
        return NULL;
    }
    enum status status =
        owner_walk(&self->owner, span_of(range->name), range->scope, &walk, &fault);
    if (status == FINE) {
        status = chunk_items(self, &found, items, &fault);
    }
    free(found.items);
    if (owner_leave(self, status, &fault) < 0) {
        Py_CLEAR(items);
    }
    return items;
}

static PyObject *
owner_method_chunk(OwnerObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"table", "namespace",    "index", "position",
                            "limit", "newest_first", NULL};
    PyObject *table, *namespace, *index, *position, *limit, *items = NULL;
    struct range range = {.limit = SIZE_MAX};
    int newest_first;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OOOOOp:chunk", names, &table, &namespace,
                                     &index, &position, &limit, &newest_first) ||
        reader_check_open(self->reader) < 0) {
        return NULL;
    }
    range.newest_first = newest_first;
    if ((position != Py_None && range_position(position, &range) < 0) ||
        (limit != Py_None && range_limit(limit, &range.limit) < 0)) {
        return NULL;
    }
    if (range_open(self->reader, &range, table, namespace, index) == 0) {
        items = chunk_of(self, &range);
    }
    Py_XDECREF(range.name);
    return items;
}

/* Staging */

static PyObject *
owner_method_put(OwnerObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"table",   "namespace",   "key",         "value",
                            "created", "old_indexes", "new_indexes", NULL};
    PyObject *record[3], *created = Py_None, *old_sequence = NULL, *new_sequence = NULL;
    struct index_names old_names, new_names;
    struct indexes old, new;
    struct named named;
    struct fault fault;
    Py_buffer value;
    bool inserted = false;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OOOy*|OOO:put", names, &record[0],
                                     &record[1], &record[2], &value, &created, &old_sequence,
                                     &new_sequence)) {
        return NULL;
    }
    int64_t created_number = created == Py_None ? 0 : PyLong_AsLongLong(created);
    struct content content = {{value.buf, (size_t)value.len},
                              created == Py_None ? NULL : &created_number};
    int outcome = created_number == -1 && PyErr_Occurred() ? -1 : 0;
    if (outcome < 0 || named_open(self, &named, record) < 0) {
        PyBuffer_Release(&value);
        return NULL;
    }
    outcome = index_names_open(&old_names, old_sequence, &old);
    if (outcome == 0) {
        outcome = index_names_open(&new_names, new_sequence, &new);
        if (outcome == 0 && (outcome = owner_enter(self)) == 0) {
            enum status status = owner_put(&self->owner, named.table, &named.lead, content, old,
                                           new, &inserted, &fault);
            outcome = owner_leave(self, status, &fault);
        }
        index_names_close(&new_names);
    }
    index_names_close(&old_names);
    named_close(&named);
    PyBuffer_Release(&value);
    if (outcome < 0) {
        return NULL;
    }
    return Py_BuildValue("KN", (unsigned long long)owner_committed(&self->owner) + 1,
                         PyBool_FromLong(inserted));
}

static PyObject *
owner_method_remove(OwnerObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"table", "namespace", "key", "old_indexes", "ghost", NULL};
    PyObject *record[3], *sequence = NULL;
    struct index_names index_names;
    struct indexes indexes;
    struct named named;
    struct fault fault;
    int ghost = 0;
    bool removed = false;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OOO|Op:remove", names, &record[0],
                                     &record[1], &record[2], &sequence, &ghost) ||
        named_open(self, &named, record) < 0) {
        return NULL;
    }
    int outcome = index_names_open(&index_names, sequence, &indexes);
    if (outcome == 0 && (outcome = owner_enter(self)) == 0) {
        enum status status =
            owner_remove(&self->owner, named.table, &named.lead, indexes, ghost, &removed, &fault);
        outcome = owner_leave(self, status, &fault);
    }
    index_names_close(&index_names);
    named_close(&named);
    return outcome < 0 ? NULL : PyBool_FromLong(removed);
}

static PyObject *
owner_method_reindex(OwnerObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"table", "namespace", "key", "old_indexes", "new_indexes", NULL};
    PyObject *record[3], *old_sequence, *new_sequence;
    struct index_names old_names, new_names;
    struct indexes old, new;
    struct named named;
    struct fault fault;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OOOOO:reindex", names, &record[0],
                                     &record[1], &record[2], &old_sequence, &new_sequence) ||
        named_open(self, &named, record) < 0) {
        return NULL;
    }
    int outcome = index_names_open(&old_names, old_sequence, &old);
    if (outcome == 0) {
        outcome = index_names_open(&new_names, new_sequence, &new);
        if (outcome == 0 && (outcome = owner_enter(self)) == 0) {
            enum status status =
                owner_reindex(&self->owner, named.table, &named.lead, old, new, &fault);
            outcome = owner_leave(self, status, &fault);
        }
        index_names_close(&new_names);
    }
    index_names_close(&old_names);
    named_close(&named);
    return outcome < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
owner_method_clear(OwnerObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"table", "namespace", "indexes", NULL};
    PyObject *table, *namespace, *sequence;
    struct index_names index_names;
    struct indexes indexes;
    struct fault fault;
    uint64_t count = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OOO:clear", names, &table, &namespace,
                                     &sequence)) {
        return NULL;
    }
    PyObject *name = list_name_object(table, namespace, NULL);
    if (name == NULL) {
        return NULL;
    }
    int outcome = index_names_open(&index_names, sequence, &indexes);
    if (outcome == 0 && (outcome = owner_enter(self)) == 0) {
        enum status status = owner_clear(&self->owner, span_of(name), indexes, &count, &fault);
        outcome = owner_leave(self, status, &fault);
    }
    index_names_close(&index_names);
    Py_DECREF(name);
    return outcome < 0 ? NULL : PyLong_FromUnsignedLongLong(count);
}

/* Ending */

static PyObject *
owner_method_commit(OwnerObject *self, PyObject *Py_UNUSED(unused))
{
    struct fault fault;
    if (owner_enter(self) < 0) {
        return NULL;
    }
    if (owner_staged(&self->owner)) {
        enum status status = owner_seal(&self->owner, &fault);
        if (status == FINE && self->callbacks.raised == NULL) {
            status = owner_publish(&self->owner);
        }
        if (status != FINE || owner_staged(&self->owner)) {
            owner_abort(&self->owner);
        }
        if (owner_leave(self, status, &fault) < 0) {
            return NULL;
        }
    }
    self->busy = false;
    return PyLong_FromUnsignedLongLong(owner_committed(&self->owner));
}

static PyObject *
owner_method_abort(OwnerObject *self, PyObject *Py_UNUSED(unused))
{
    if (owner_enter(self) < 0) {
        return NULL;
    }
    owner_abort(&self->owner);
    self->busy = false;
    Py_RETURN_NONE;
}

static PyObject *
owner_method_settle(OwnerObject *self, PyObject *Py_UNUSED(unused))
{
    struct fault fault;
    bool more;
    if (owner_enter(self) < 0) {
        return NULL;
    }
    enum status status = heap_settle(&self->owner.staging.heap, &more, &fault);
    return owner_leave(self, status, &fault) < 0 ? NULL : PyBool_FromLong(more);
}

static PyObject *
owner_method_statistics(OwnerObject *self, PyObject *Py_UNUSED(unused))
{
    const struct heap *heap = &self->owner.staging.heap;
    const struct ghosts *ghosts = &self->owner.ghosts;
    struct blocks blocks = {0};
    struct fault fault;
    PyObject *facts = reader_info(self->reader, NULL);
    if (facts == NULL || owner_enter(self) < 0) {
        Py_XDECREF(facts);
        return NULL;
    }
    enum status status = index_blocks(owner_memory(&self->owner), &blocks, &fault);
    size_t segments = blocks.count - 1;
    blocks_close(&blocks);
    PyObject *figures = NULL;
    if (owner_leave(self, status, &fault) == 0) {
        figures = Py_BuildValue(
            "{sKsKsKsKsKsK}", "used",
            (unsigned long long)(heap_used_granules(heap) * GRANULE_BYTES), "free",
            (unsigned long long)(heap_free_granules(heap) * GRANULE_BYTES), "quarantine",
            (unsigned long long)(heap->quarantine_granules * GRANULE_BYTES), "real",
            (unsigned long long)heap_real_bytes(heap), "index_segments",
            (unsigned long long)segments, "ghosts",
            (unsigned long long)(ghosts->count - self->owner.new_ghosts));
    }
    if (figures == NULL || PyDict_Update(facts, figures) < 0 || add_pin_figures(self, facts) < 0) {
        Py_CLEAR(facts);
    }
    Py_XDECREF(figures);
    return facts;
}

static PyObject *
owner_method_check(OwnerObject *self, PyObject *Py_UNUSED(unused))
{
    struct blocks unused = {0};
    struct fault fault;
    PyObject *problems = NULL;
    if (owner_enter(self) < 0) {
        return NULL;
    }
    enum status status = staging_unused_blocks(&self->owner.staging, &unused, &fault);
    if (status == FINE) {
        /* Still busy: no other thread changes what is looked at, or lets go of it. */
        problems = problems_of(&self->owner.lookup, &self->owner.tables, &unused);
    }
    blocks_close(&unused);
    if (owner_leave(self, status, &fault) < 0) {
        Py_CLEAR(problems);
    }
    return problems;
}

/* Attributes */

static PyObject *
owner_get_reader(OwnerObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef((PyObject *)self->reader);
}

static PyObject *
owner_get_committed(OwnerObject *self, void *Py_UNUSED(closure))
{
    if (owner_check_open(self) < 0) {
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(owner_committed(&self->owner));
}

static PyObject *
owner_get_changes(OwnerObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(self->owner.staging.changes);
}

static PyObject *
owner_get_staged(OwnerObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(owner_staged(&self->owner));
}

#define METHOD(name, flags, text)                                                                  \
    {#name, (PyCFunction)(void (*)(void))owner_method_##name, flags, text}
#define NAMED (METH_VARARGS | METH_KEYWORDS)

static PyMethodDef owner_methods[] = {
    METHOD(create, NAMED | METH_CLASS,
           "create(memory, extend, release)\n--\n\nLay out a zeroed segment."),
    METHOD(take_over, NAMED | METH_CLASS,
           "take_over(memory, extend, release)\n--\n\nContinue the work of a dead writer."),
    METHOD(close, METH_NOARGS, "close()\n--\n\nLet go of the memory."),
    METHOD(find, NAMED, "find(table, namespace, key)\n--\n\nReturn a record, or None."),
    METHOD(touched, NAMED,
           "touched(table, namespace, key)\n--\n\n"
           "Tell whether the open batch has put or removed this key."),
    METHOD(count, NAMED,
           "count(table, namespace, index=b\"\")\n--\n\nReturn the number of records of a list."),
    METHOD(chunk, NAMED,
           "chunk(table, namespace, index, position, limit, newest_first)\n--\n\n"
           "As Reader.chunk, on the open batch."),
    METHOD(stage, METH_FASTCALL,
           "stage(messages, count_max, seen, in_flight_max)\n--\n\n"
           "Stage plain requests from their bytes; return (id, oldest, operation, answer) of\n"
           "each, and what the next one needs."),
    METHOD(run, METH_FASTCALL,
           "run(message, table, namespace, client_id, answers, seen, in_flight_max)\n--\n\n"
           "Stage one plain request, put its session's record into that place, and commit; return\n"
           "(answer, answers, id, operation, whether anything changed), or None if it must go\n"
           "another way. The batch must be empty, and is afterwards."),
    METHOD(put, NAMED,
           "put(table, namespace, key, value, created=None, old_indexes=(), new_indexes=())\n"
           "--\n\nInsert or replace a record; return (version, whether it was inserted)."),
    METHOD(remove, NAMED,
           "remove(table, namespace, key, old_indexes=(), ghost=False)\n--\n\n"
           "Delete a record; return whether it was there."),
    METHOD(reindex, NAMED,
           "reindex(table, namespace, key, old_indexes, new_indexes)\n--\n\n"
           "Put a record that is there into other lists; it keeps its version."),
    METHOD(clear, NAMED,
           "clear(table, namespace, indexes)\n--\n\n"
           "Delete all records of a table in a namespace; return their number."),
    METHOD(pin, NAMED,
           "pin(holder, table, namespace, key)\n--\n\n"
           "Pin a record's value; return (granule, offset of the value, its size, version), or\n"
           "None if there is no record."),
    METHOD(share_pin, NAMED,
           "share_pin(holder, granule)\n--\n\n"
           "Pin what somebody pins for one more holder; False if nobody does."),
    METHOD(unpin, NAMED,
           "unpin(holder, granule)\n--\n\nTake a pin away; return whether it was there."),
    METHOD(pins, METH_NOARGS,
           "pins()\n--\n\n"
           "Return (holder, granule, bytes of the value) of all committed pins, in order."),
    METHOD(commit, METH_NOARGS, "commit()\n--\n\nPublish the batch; return its sequence number."),
    METHOD(abort, METH_NOARGS, "abort()\n--\n\nDrop the batch."),
    METHOD(settle, METH_NOARGS,
           "settle()\n--\n\nGive up some of what is held back; return whether there is more."),
    METHOD(statistics, METH_NOARGS, "statistics()\n--\n\nReturn figures of the memory."),
    METHOD(check, METH_NOARGS, "check()\n--\n\nReturn what is wrong with the committed segment."),
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef owner_attributes[] = {
    {"reader", (getter)owner_get_reader, NULL, "The reader of what is committed.", NULL},
    {"committed", (getter)owner_get_committed, NULL, "The sequence number of the last batch.",
     NULL},
    {"changes", (getter)owner_get_changes, NULL, "Steps staged in the open batch.", NULL},
    {"staged", (getter)owner_get_staged, NULL, "Whether the open batch holds anything.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot owner_slots[] = {
    {Py_tp_doc, "The owner of a segment; one process, one thread."},
    {Py_tp_methods, owner_methods},
    {Py_tp_getset, owner_attributes},
    {Py_tp_traverse, owner_traverse},
    {Py_tp_clear, owner_clear_references},
    {Py_tp_dealloc, owner_dealloc},
    {0, NULL},
};

static PyType_Spec owner_spec = {
    .name = "shmstore._native.Owner",
    .basicsize = sizeof(OwnerObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = owner_slots,
};

static PyStructSequence_Field found_fields[] = {
    {"version", "The batch that wrote the record."},
    {"value", "The stored value."},
    {"insertion", "The insertion number."},
    {"created", "What orders the record, or None."},
    {NULL, NULL},
};

static PyStructSequence_Desc found_description = {
    .name = "shmstore._native.Found",
    .doc = "A record as the open batch sees it.",
    .fields = found_fields,
    .n_in_sequence = 4,
};

/* Make the types of this file. */
static int
owner_setup(PyObject *module)
{
    if (apply_setup() < 0) {
        return -1;
    }
    FoundType = PyStructSequence_NewType(&found_description);
    OwnerType = (PyTypeObject *)PyType_FromModuleAndSpec(module, &owner_spec, NULL);
    if (FoundType == NULL || OwnerType == NULL || PyModule_AddType(module, OwnerType) < 0) {
        return -1;
    }
    return PyModule_AddType(module, FoundType);
}

#endif
