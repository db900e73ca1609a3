/* Owner.stage() and Owner.run(): requests from their bytes to their answers, in one call. */

#ifndef SHMSTORE_APPLY_TYPE_H
#define SHMSTORE_APPLY_TYPE_H

#include "owner_object.h" /* the first, as it includes Python.h */

#include "apply.h"

static PyObject *outcome_texts[4], *operation_texts[OPERATION_COUNT];

static int
apply_setup(void)
{
    static const char *const outcomes[] = {"done", "general", "blocked", "half done"};
    for (int i = 0; i < 4; i++) {
        if ((outcome_texts[i] = PyUnicode_InternFromString(outcomes[i])) == NULL) {
            return -1;
        }
    }
    for (int i = 0; i < OPERATION_COUNT; i++) {
        operation_texts[i] = PyUnicode_InternFromString(operation_names[i]);
        if (operation_texts[i] == NULL) {
            return -1;
        }
    }
    return 0;
}

/* Stage one message; its row is (id, oldest, operation, answer). */
static enum outcome
stage_message(OwnerObject *self, PyObject *message, unsigned long long seen,
              unsigned long long in_flight_max, PyObject **row)
{
    Py_buffer buffer;
    struct request request;
    enum result result;
    enum outcome outcome = GENERAL;
    if (PyObject_GetBuffer(message, &buffer, PyBUF_SIMPLE) < 0) {
        PyErr_Clear();
        return GENERAL;
    }
    struct span bytes = {buffer.buf, (size_t)buffer.len};
    if (request_parse(bytes, in_flight_max, &request) && request.id > seen) {
        outcome = apply_request(&self->owner, &request, &result);
    }
    PyBuffer_Release(&buffer);
    if (self->callbacks.raised != NULL) {
        Py_CLEAR(self->callbacks.raised); /* the general way will meet it again, or not */
        outcome = HALF_DONE;
    }
    if (outcome == STAGED) {
        unsigned char answer[ANSWER_BYTES_MAX];
        size_t size = write_answer(answer, request.id, result, owner_committed(&self->owner) + 1);
        *row = Py_BuildValue("KKOy#", (unsigned long long)request.id,
                             (unsigned long long)request.oldest, operation_texts[request.operation],
                             answer, (Py_ssize_t)size);
    }
    return outcome;
}

static PyObject *
owner_method_stage(OwnerObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (check_count("stage", count, 4) < 0 || owner_enter(self) < 0) {
        return NULL;
    }
    Py_ssize_t most = PyLong_AsSsize_t(arguments[1]), size = PySequence_Size(arguments[0]);
    unsigned long long seen = PyLong_AsUnsignedLongLong(arguments[2]);
    unsigned long long in_flight_max = PyLong_AsUnsignedLongLong(arguments[3]);
    PyObject *rows = PyErr_Occurred() ? NULL : PyList_New(0);
    enum outcome outcome = STAGED;
    for (Py_ssize_t i = 0; rows != NULL && i < size && i < most && outcome == STAGED; i++) {
        PyObject *message = PySequence_GetItem(arguments[0], i), *row = NULL;
        if (message == NULL) {
            PyErr_Clear();
            break;
        }
        outcome = stage_message(self, message, seen, in_flight_max, &row);
        Py_DECREF(message);
        if (outcome == STAGED && (row == NULL || PyList_Append(rows, row) < 0)) {
            /* It is staged and cannot be answered: the batch must not be published. */
            Py_XDECREF(row);
            PyErr_Clear();
            outcome = HALF_DONE;
            break;
        }
        if (row != NULL) {
            seen = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(row, 0));
            Py_DECREF(row);
        }
    }
    self->busy = false;
    return rows ? Py_BuildValue("NO", rows, outcome_texts[outcome]) : NULL;
}

/* Owner.run(): one request, all the way. */

/* A session's record: [the last id, {id: answer}] in msgpack; see shmstore/writer/sessions.py. */
struct record {
    unsigned char *bytes;
    size_t size;
};

static size_t
write_bytes_head(unsigned char *out, size_t size)
{
    unsigned power = size > UINT16_MAX ? 2 : size > UINT8_MAX ? 1 : 0;
    out[0] = (unsigned char)(0xC4 + power);
    for (size_t i = 0; i < (size_t)1 << power; i++) {
        out[((size_t)1 << power) - i] = (unsigned char)(size >> (8 * i));
    }
    return 1 + ((size_t)1 << power);
}

/* The answers that are still remembered, with the new one, as a dict of its own. */
static PyObject *
remembered(PyObject *answers, const struct request *request, PyObject *answer)
{
    PyObject *kept = PyDict_New(), *id, *value;
    Py_ssize_t at = 0;
    while (kept != NULL && PyDict_Next(answers, &at, &id, &value)) {
        unsigned long long number = PyLong_AsUnsignedLongLong(id);
        if (PyErr_Occurred() || !PyBytes_CheckExact(value) ||
            (number >= request->oldest && PyDict_SetItem(kept, id, value) < 0)) {
            Py_CLEAR(kept);
        }
    }
    id = PyLong_FromUnsignedLongLong(request->id);
    if (id == NULL || kept == NULL || PyDict_SetItem(kept, id, answer) < 0) {
        Py_CLEAR(kept);
    }
    Py_XDECREF(id);
    return kept;
}

static int
record_pack(struct record *record, uint64_t last_id, PyObject *answers)
{
    PyObject *id, *value;
    Py_ssize_t at = 0, count = PyDict_Size(answers);
    size_t size = 16;
    while (PyDict_Next(answers, &at, &id, &value)) {
        size += 16 + (size_t)PyBytes_GET_SIZE(value);
    }
    unsigned char *out = record->bytes = PyMem_Malloc(size);
    if (out == NULL || count > UINT16_MAX) {
        return -1;
    }
    *out++ = 0x92;
    out += write_uint(out, last_id);
    if (count < 16) {
        *out++ = (unsigned char)(0x80 + count);
    }
    else {
        *out++ = 0xDE;
        *out++ = (unsigned char)(count >> 8);
        *out++ = (unsigned char)count;
    }
    at = 0;
    while (PyDict_Next(answers, &at, &id, &value)) {
        size_t bytes = (size_t)PyBytes_GET_SIZE(value);
        out += write_uint(out, PyLong_AsUnsignedLongLong(id));
        out += write_bytes_head(out, bytes);
        memcpy(out, PyBytes_AS_STRING(value), bytes);
        out += bytes;
    }
    record->size = (size_t)(out - record->bytes);
    return 0;
}

/* Put the session's record into the batch and commit it. */
static enum status
run_commit(OwnerObject *self, struct span place, struct span client_id, const struct record *record)
{
    struct owner *owner = &self->owner;
    struct fault fault;
    struct content content = {.value = {record->bytes, record->size}, .created = NULL};
    struct lead lead = owner_lead(owner, place, CLASS_BYTES, client_id);
    bool inserted;
    enum status status =
        owner_put(owner, place, &lead, content, NO_INDEXES, NO_INDEXES, &inserted, &fault);
    return status == FINE ? owner_commit(owner, &fault) : status;
}

/* Stage, remember and commit; the result is (answer, answers, id, operation, whether anything
   changed), or NULL if the request must go another way and the batch is as it was: empty. */
static PyObject *
run_request(OwnerObject *self, const struct request *request, struct span place,
            PyObject *client_id, PyObject *answers)
{
    unsigned char bytes[ANSWER_BYTES_MAX];
    enum result result;
    if (apply_request(&self->owner, request, &result) != STAGED) {
        return NULL;
    }
    bool changed = owner_staged(&self->owner);
    size_t size = write_answer(bytes, request->id, result, owner_committed(&self->owner) + 1);
    PyObject *answer = PyBytes_FromStringAndSize((char *)bytes, (Py_ssize_t)size);
    PyObject *kept = answer ? remembered(answers, request, answer) : NULL;
    PyObject *done =
        kept ? Py_BuildValue("(OOKOO)", answer, kept, (unsigned long long)request->id,
                             operation_texts[request->operation], changed ? Py_True : Py_False)
             : NULL;
    struct record record = {0};
    if (done != NULL && changed &&
        (record_pack(&record, request->id, kept) < 0 ||
         run_commit(self, place, span_of(client_id), &record) != FINE)) {
        Py_CLEAR(done);
    }
    PyMem_Free(record.bytes);
    Py_XDECREF(kept);
    Py_XDECREF(answer);
    return done;
}

static PyObject *
owner_method_run(OwnerObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    struct request request;
    Py_buffer buffer;
    PyObject *done = NULL;
    if (check_count("run", count, 7) < 0) {
        return NULL;
    }
    unsigned long long seen = PyLong_AsUnsignedLongLong(arguments[5]);
    unsigned long long in_flight_max = PyLong_AsUnsignedLongLong(arguments[6]);
    PyObject *client_id = arguments[3], *answers = arguments[4];
    if (PyErr_Occurred() || !PyBytes_Check(client_id) || !PyDict_Check(answers) ||
        PyBytes_GET_SIZE(client_id) > KEY_BYTES_MAX) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    PyObject *place = list_name_object(arguments[1], arguments[2], NULL);
    if (place == NULL || PyObject_GetBuffer(arguments[0], &buffer, PyBUF_SIMPLE) < 0) {
        Py_XDECREF(place);
        return NULL;
    }
    struct span message = {buffer.buf, (size_t)buffer.len};
    if (owner_enter(self) == 0) {
        if (!owner_staged(&self->owner) && request_parse(message, in_flight_max, &request) &&
            request.id > seen) {
            done = run_request(self, &request, span_of(place), client_id, answers);
            if (done == NULL) {
                owner_abort(&self->owner);
            }
        }
        PyErr_Clear();
        Py_CLEAR(self->callbacks.raised);
        self->busy = false;
        if (done == NULL) {
            done = Py_NewRef(Py_None);
        }
    }
    PyBuffer_Release(&buffer);
    Py_DECREF(place);
    return done;
}

#endif
